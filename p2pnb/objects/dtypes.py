"""numpy's types as data: described, and rebuilt from a peer's description by a grammar, never by evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from p2pnb.errors import CorruptDataError, NotSupportedError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Dtype", "DtypeField", "array_bytes", "build_dtype", "describe_dtype", "dtype_fields"]

_CODE: Final = re.compile(
    r"[<>|](?:b1|i[1248]|u[1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SVU]\d{1,10}"
    r"|[mM]8(?:\[[1-9]?\d{0,8}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
MAX_DIMENSIONS: Final = 64
MAX_FIELDS: Final = 4096
MAX_DEPTH: Final = 16
MAX_EMPTY_ITEMS: Final = 1 << 20  # items of a type without bytes, such as S0


class Dtype(msgspec.Struct, frozen=True, array_like=True):
    """A dtype: `code` as numpy's array interface has it, or fields."""

    code: str = ""
    fields: list[DtypeField] = []
    itemsize: int = 0
    aligned: bool = False
    record: bool = False  # items are numpy.record
    longdouble_bits: int = 0  # mantissa, where the code is a long double: it differs between machines


class DtypeField(msgspec.Struct, frozen=True, array_like=True):
    """One field of a structured dtype; `shape` if each item holds an array of it."""

    name: str
    title: str | None
    dtype: Dtype
    offset: int
    shape: list[int] = []


def dtype_fields(dtype: Any) -> Any:
    """Return a structured dtype's fields by name."""
    return dtype.fields


def describe_dtype(dtype: np.dtype[Any]) -> Dtype:
    """Return the description of a dtype that holds no objects; raises `NotSupportedError`."""
    import numpy as np

    if dtype.names is not None:
        fields = []
        for name in dtype.names:
            entry = dtype_fields(dtype)[name]
            title = entry[2] if len(entry) > 2 else None
            if title is not None and not isinstance(title, str):
                raise NotSupportedError(f"the array's field {name!r} has a title that is no text; remove the title")
            fields.append(DtypeField(name, title, describe_dtype(entry[0].base), entry[1], list(entry[0].shape)))
        return Dtype("", fields, dtype.itemsize, dtype.isalignedstruct, dtype.type is np.record)
    if dtype.hasobject or dtype.kind in "OT" or not _CODE.fullmatch(dtype.str):
        advice = "array.tolist(), or an array of a fixed-size type such as array.astype(str)"
        raise NotSupportedError(f"an array of type {dtype} holds Python objects, which can't be sent; send {advice}")
    wide = dtype.kind in "fc" and dtype.itemsize > (8 if dtype.kind == "f" else 16)
    return Dtype(dtype.str, longdouble_bits=int(np.finfo(dtype).nmant) if wide else 0)


def build_dtype(description: Dtype, depth: int = 0) -> np.dtype[Any]:
    """Rebuild a dtype from a peer's description; raises `CorruptDataError`, `NotSupportedError`."""
    import numpy as np

    if not description.fields and not description.itemsize and description.code:
        return _build_plain(description)
    if depth > MAX_DEPTH or len(description.fields) > MAX_FIELDS or description.code:
        raise CorruptDataError("the received array has an impossible type")
    names, kinds, offsets, titles = [], [], [], []
    for field in description.fields:
        kind = build_dtype(field.dtype, depth + 1)
        size = array_bytes(field.shape, kind)
        if not 0 <= field.offset <= description.itemsize - size:
            raise CorruptDataError("the received array has a field outside its items")
        names.append(field.name)
        kinds.append((kind, tuple(field.shape)) if field.shape else kind)
        offsets.append(field.offset)
        titles.append(field.title)
    if description.itemsize > 2**31 - 1 or description.itemsize < 0:
        raise CorruptDataError("the received array has an impossible type")
    layout: dict[str, Any] = {
        "names": names,
        "formats": kinds,
        "offsets": offsets,
        "itemsize": description.itemsize,
    }
    if any(title is not None for title in titles):
        layout["titles"] = titles
    try:
        dtype: np.dtype[Any] = np.dtype(cast(Any, layout), align=description.aligned)
        if description.record:
            dtype = np.dtype((np.record, dtype))
    except (ValueError, TypeError) as error:
        raise CorruptDataError(f"the received array has an impossible type: {error}") from error
    if dtype.itemsize != description.itemsize:
        raise CorruptDataError("the received array has an impossible type")
    return dtype


def _build_plain(description: Dtype) -> np.dtype[Any]:
    import numpy as np

    if not _CODE.fullmatch(description.code):
        raise CorruptDataError("the received array has an unknown type")
    try:
        dtype: np.dtype[Any] = np.dtype(description.code)
    except (ValueError, TypeError) as error:
        if description.longdouble_bits:
            raise NotSupportedError(
                "this array holds long doubles of a kind this machine lacks; ask for it as float64"
            ) from error
        raise CorruptDataError("the received array has an unknown type") from error
    if description.longdouble_bits and np.finfo(dtype).nmant != description.longdouble_bits:
        raise NotSupportedError("this array holds long doubles of a kind this machine lacks; ask for it as float64")
    return dtype


def array_bytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Return what shape and dtype ask for, in unbounded integers; raises `CorruptDataError`."""
    if len(shape) > MAX_DIMENSIONS or any(not 0 <= length < 2**63 for length in shape):
        raise CorruptDataError(f"the received array has an impossible shape of {len(shape)} dimensions")
    count = math.prod(shape)
    if not dtype.itemsize and count > MAX_EMPTY_ITEMS:
        raise CorruptDataError("the received array claims items that take no bytes")
    return count * dtype.itemsize
