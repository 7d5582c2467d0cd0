"""How a pandas object is described: a closed set of structs for columns, axes and frames.

`stream` and `buffer` are numbers of buffers, `at` is a column's place in a stream's table. Every buffer, and every
column of a stream, is referred to once: what is expanded on arrival is thereby bounded by what arrives.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = [
    "FREQUENCY",
    "MAX_ROWS",
    "Axis",
    "Block",
    "Categories",
    "Columns",
    "Extension",
    "Flat",
    "Intervals",
    "Labels",
    "Memory",
    "Multi",
    "Objects",
    "PandasNote",
    "Part",
    "Periods",
    "Plain",
    "Range",
    "Sparse",
    "Values",
    "Zoned",
    "extension_types",
]

FREQUENCY: Final = re.compile(r"-?\d{0,9}[A-Za-z]{1,6}(?:-[A-Z]{3}(?:-[A-Z]{3})?|-\d{1,2}[A-Z]{3})?")
MAX_ROWS: Final = 2**53


class Memory(msgspec.Struct, frozen=True, array_like=True, tag="memory"):
    """numpy values: a buffer of their own, described by the note of an array."""

    note: bytes
    buffer: int


class Zoned(msgspec.Struct, frozen=True, array_like=True, tag="zoned"):
    """Instants in a time zone: 64-bit integers."""

    stream: int
    at: int
    unit: str
    zone: bytes


class Extension(msgspec.Struct, frozen=True, array_like=True, tag="extension"):
    """pandas' masked and text types and ArrowDtype, which have an Arrow form of their own."""

    stream: int
    at: int
    name: str  # of _EXTENSIONS


class Categories(msgspec.Struct, frozen=True, array_like=True, tag="categories"):
    stream: int
    at: int
    index: Axis
    ordered: bool


class Periods(msgspec.Struct, frozen=True, array_like=True, tag="periods"):
    stream: int
    at: int
    freq: str


class Intervals(msgspec.Struct, frozen=True, array_like=True, tag="intervals"):
    left: Axis
    right: Axis
    closed: str


class Sparse(msgspec.Struct, frozen=True, array_like=True, tag="sparse"):
    """Values that differ from `fill`, and where they are."""

    values: Memory
    positions: Memory
    fill: Memory
    rows: int
    block: bool


class Objects(msgspec.Struct, frozen=True, array_like=True, tag="objects"):
    """Python objects: text, bytes or dates in the stream's column, None where null."""

    stream: int
    at: int
    kind: str


class Plain(msgspec.Struct, frozen=True, array_like=True, tag="plain"):
    """Python objects of any plain kind: a list of them."""

    buffer: int
    count: int


class Part(msgspec.Struct, frozen=True, array_like=True, tag="part"):
    """Column `at` of the frame's block `block`; every column of a block is used once, in order."""

    block: int
    at: int


Values = Memory | Part | Zoned | Extension | Categories | Periods | Intervals | Sparse | Objects | Plain


class Range(msgspec.Struct, frozen=True, array_like=True, tag="range"):
    start: int
    stop: int
    step: int
    name: bytes = b""


class Flat(msgspec.Struct, frozen=True, array_like=True, tag="flat"):
    values: Values
    rows: int
    name: bytes = b""
    freq: str = ""


class Multi(msgspec.Struct, frozen=True, array_like=True, tag="multi"):
    levels: list[Axis]
    codes: list[Values]
    names: bytes


class Labels(msgspec.Struct, frozen=True, array_like=True, tag="labels"):
    """The commonest axis of all: a few names that are text."""

    labels: list[str]
    dtype: str  # "object" or of _EXTENSIONS
    name: bytes = b""


Axis = Range | Flat | Multi | Labels


class Block(msgspec.Struct, frozen=True, array_like=True, tag="block"):
    """All columns as one two-dimensional array."""

    memory: Memory


class Columns(msgspec.Struct, frozen=True, array_like=True, tag="columns"):
    """Columns one by one; those of one numpy type lie together in a block, a two-dimensional array."""

    values: list[Values]
    blocks: list[Memory] = []


class PandasNote(msgspec.Struct, frozen=True, array_like=True):
    """A frame, series or index; `axes` holds the index and, of a frame, the columns; name and attrs are plain data."""

    kind: str
    rows: int
    axes: list[Axis]
    data: Block | Columns
    name: bytes = b""
    attrs: bytes = b""
    unique_labels: bool = False


@functools.cache
def extension_types() -> Mapping[str, Any]:
    """Return pandas' own extension types that Arrow can hold, by the names notes call them."""
    import numpy as np
    import pandas as pd

    names = ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"]
    found: dict[str, Any] = {name: getattr(pd, name + "Dtype")() for name in names}
    found["boolean"] = pd.BooleanDtype()
    for storage in ("python", "pyarrow"):
        found[f"string[{storage}]"] = pd.StringDtype(storage)
        with contextlib.suppress(TypeError):  # before pandas 2.3 there is but one kind of text
            found[f"str[{storage}]"] = pd.StringDtype(storage, na_value=np.nan)
    return found
