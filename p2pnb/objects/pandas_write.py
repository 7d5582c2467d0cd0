"""A pandas object's columns and axes into streams, buffers and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from p2pnb.errors import NotSupportedError
from p2pnb.objects.arrays import pack_memory
from p2pnb.objects.arrow_stream import write_stream
from p2pnb.objects.codec import Blob
from p2pnb.objects.pandas_notes import (
    FREQUENCY,
    Axis,
    Categories,
    Extension,
    Flat,
    Intervals,
    Labels,
    Memory,
    Multi,
    Objects,
    Periods,
    Plain,
    Range,
    Raw,
    Sparse,
    Values,
    Zoned,
    extension_types,
)
from p2pnb.objects.plain import Registry, pack_plain
from p2pnb.objects.preview import cell
from p2pnb.objects.zones import describe_zone

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

__all__ = ["FrameWriter", "one_block"]


class FrameWriter:
    """Collects columns of one length into one stream, and everything else into buffers."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.buffers: list[Blob] = []
        self._streams: dict[int, tuple[int, list[Any]]] = {}  # by rows: buffer number, columns

    def column(self, array: pa.Array | pa.ChunkedArray) -> tuple[int, int]:
        rows = len(array)
        if rows not in self._streams:
            self._streams[rows] = (self.buffer(()), [])
        number, columns = self._streams[rows]
        columns.append(array)
        return number, len(columns) - 1

    def buffer(self, blob: Blob) -> int:
        self.buffers.append(blob)
        return len(self.buffers) - 1

    def memory(self, array: np.ndarray[Any, Any]) -> Memory:
        note, blob = pack_memory(array)
        return Memory(note, self.buffer(blob))

    def close(self) -> list[Blob]:
        import pyarrow as pa

        for number, columns in self._streams.values():
            table = pa.table(columns, names=[str(at) for at in range(len(columns))])
            self.buffers[number] = write_stream(table.schema, table)
        return self.buffers

    def plain(self, value: object) -> bytes:
        """Return a label, or attrs, as plain data without buffers of its own."""
        packed = pack_plain(value, self.registry)
        if len(packed.buffers) > 1:
            raise NotSupportedError(f"{cell(value)} is too large for a name; shorten it, or send it by itself")
        return packed.buffers[0][0].tobytes()

    def name(self, value: object) -> bytes:
        return b"" if value is None else self.plain(value)

    # values
    def values(self, array: Any, label: object) -> Values:
        try:
            return self._values(array, label)
        except NotSupportedError as error:
            raise NotSupportedError(f"column {cell(label)}: {error}") from error
        except UnicodeEncodeError as error:
            raise NotSupportedError(
                f"column {cell(label)} has text that is not valid Unicode; use column.astype(object)"
            ) from error

    def _values(self, array: Any, label: object) -> Values:
        import numpy as np
        import pandas as pd
        import pyarrow as pa

        dtype = array.dtype
        if type(array) is pd.arrays.NumpyExtensionArray:  # a subclass is pandas' text
            array = array.to_numpy()
            dtype = array.dtype
        if isinstance(dtype, np.dtype):
            return self._numpy(np.asarray(array), dtype)
        kind = type(dtype)
        if kind is pd.DatetimeTZDtype:
            ticks = pa.array(array.tz_convert(None).to_numpy(copy=False).view("i8"), from_pandas=False)
            return Zoned(*self.column(ticks), dtype.unit, msgspec.msgpack.encode(describe_zone(dtype.tz)))
        if kind is pd.CategoricalDtype:
            codes = pa.array(array.codes, from_pandas=False)
            return Categories(*self.column(codes), self.axis(array.categories), bool(array.ordered))
        if kind is pd.PeriodDtype:
            freq = array.freqstr
            if not FREQUENCY.fullmatch(freq):
                raise NotSupportedError(f"periods of frequency {freq} can't be sent; use to_timestamp()")
            return Periods(*self.column(pa.array(array.asi8, from_pandas=False)), freq)
        if kind is pd.IntervalDtype:
            return Intervals(self.axis(array.left), self.axis(array.right), array.closed)
        if kind is pd.SparseDtype:
            return self._sparse(array)
        if kind is pd.ArrowDtype:
            return Extension(*self.column(pa.chunked_array(array.__arrow_array__())), "arrow")
        for name, known in extension_types().items():
            if (
                type(known) is kind
                and known == dtype
                and getattr(known, "storage", "") == getattr(dtype, "storage", "")
            ):
                return Extension(*self.column(array.__arrow_array__()), name)
        raise NotSupportedError(f"the type {dtype} can't be sent; convert it with astype to one of pandas' own types")

    def _numpy(self, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> Values:
        import pyarrow as pa

        if dtype.kind == "O":
            return self._objects(array)
        if dtype.kind in "biufmM" and dtype.itemsize <= 8 and dtype.isnative:
            carrier = {"b": "u1", "m": "i8", "M": "i8"}.get(dtype.kind, dtype.str)
            return Raw(*self.column(pa.array(array.view(carrier), from_pandas=False)), dtype.str)
        return self.memory(array)

    def _objects(self, array: np.ndarray[Any, Any]) -> Values:
        import datetime as dt

        import pyarrow as pa

        values = array.tolist()
        kinds = set(map(type, values))
        for kind, name, arrow in (
            (str, "text", pa.large_string()),
            (bytes, "bytes", pa.large_binary()),
            (dt.date, "date", pa.date32()),
        ):
            if kind in kinds and kinds <= {kind, type(None)}:
                try:
                    return Objects(*self.column(pa.array(values, type=arrow)), name)
                except UnicodeEncodeError:  # a lone surrogate, which plain data can carry
                    break
        packed = pack_plain(values, self.registry)
        first = self.buffer(packed.buffers[0])
        for blob in packed.buffers[1:]:
            self.buffer(blob)
        return Plain(first, len(packed.buffers))

    def _sparse(self, array: Any) -> Sparse:
        import numpy as np

        if array.dtype.subtype.kind not in "biufc":
            raise NotSupportedError("sparse values that are no numbers can't be sent; use sparse.to_dense()")
        positions = np.asarray(array.sp_index.indices)
        fill = np.asarray(array.fill_value, dtype=array.dtype.subtype)
        block = type(array.sp_index).__name__ == "BlockIndex"
        return Sparse(
            self.memory(np.asarray(array.sp_values)), self.memory(positions), self.memory(fill), len(array), block
        )

    # axes
    def axis(self, index: pd.Index[Any], depth: int = 0) -> Axis:
        import numpy as np
        import pandas as pd

        if isinstance(index, pd.RangeIndex):
            return Range(index.start, index.stop, index.step, self.name(index.name))
        if isinstance(index, pd.MultiIndex):
            levels = [self.axis(level.rename(None)) for level in index.levels]
            codes = [self._numpy(np.asarray(codes), codes.dtype) for codes in index.codes]
            return Multi(levels, codes, self.plain(list(index.names)))
        name = self.name(index.name)
        if len(index) <= 1000:
            labels = _short_labels(index)
            if labels is not None:
                return Labels(*labels, name)
        freq = getattr(index, "freqstr", None) if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) else None
        if freq is not None and not FREQUENCY.fullmatch(freq):
            freq = None
        what = "index" if index.name is None else index.name
        return Flat(self.values(index.array, what), len(index), name, freq or "")


def _short_labels(index: Any) -> tuple[list[str], str] | None:
    labels = index.tolist()
    if not labels or not all(type(label) is str and len(label) < 256 for label in labels):
        return None
    try:
        for label in labels:
            label.encode()
    except UnicodeEncodeError:
        return None
    if index.dtype == object:
        return labels, "object"
    for name, known in extension_types().items():
        if name.startswith("str") and known == index.dtype and known.storage == index.dtype.storage:
            return labels, name
    return None


def one_block(frame: pd.DataFrame) -> np.ndarray[Any, Any] | None:
    """Return the frame's memory if it is one two-dimensional block of numbers, else None; never copies the frame."""
    import numpy as np

    kinds = set(frame.dtypes)
    if len(kinds) != 1 or not len(frame) or not isinstance(kind := kinds.pop(), np.dtype) or kind.kind not in "biufcmM":
        return None
    top = frame.iloc[:1]
    if frame.shape[1] > 1:
        row, last = top.to_numpy(copy=False), top.iloc[:, frame.shape[1] - 1].to_numpy(copy=False)
        if not np.may_share_memory(row, last) or not np.may_share_memory(row, top.iloc[:, 0].to_numpy(copy=False)):
            return None
    array = np.asarray(frame.to_numpy(copy=False))
    return array if array.flags.c_contiguous or array.flags.f_contiguous else None
