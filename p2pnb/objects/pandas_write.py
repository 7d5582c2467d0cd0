"""A pandas object's columns and axes into streams, buffers and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from p2pnb.errors import NotSupportedError
from p2pnb.objects.arrays import pack_columns, pack_memory
from p2pnb.objects.arrow import import_pyarrow
from p2pnb.objects.arrow_stream import write_stream
from p2pnb.objects.codec import Blob
from p2pnb.objects.pandas_notes import (
    FREQUENCY,
    Axis,
    Block,
    Categories,
    Columns,
    Extension,
    Flat,
    Intervals,
    Labels,
    Memory,
    Multi,
    Objects,
    Part,
    Periods,
    Plain,
    Range,
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

__all__ = ["FrameWriter"]

_NUMBERS: Final = "biufcmM"  # kinds of numpy types whose memory travels as it is
_PLAIN_ARRAY_BYTES: Final = 64 * 1024  # below that, copying costs less than finding out how not to


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
        if not self._streams:
            return self.buffers
        import pyarrow as pa

        for number, columns in self._streams.values():
            table = pa.table(columns, names=[str(at) for at in range(len(columns))])
            self.buffers[number] = write_stream(table)
        return self.buffers

    def plain(self, value: object) -> bytes:
        """Return a label, or attrs, as plain data without buffers of its own."""
        packed = pack_plain(value, self.registry)
        if len(packed.buffers) > 1:
            raise NotSupportedError(f"{cell(value)} is too large for a name; shorten it, or send it by itself")
        return packed.buffers[0][0].tobytes()

    def name(self, value: object) -> bytes:
        return b"" if value is None else self.plain(value)

    # frames
    def frame(self, frame: pd.DataFrame) -> Block | Columns:
        """Return the columns: those of one numpy type together, as they lie in memory, the others one by one."""
        import numpy as np

        groups: dict[np.dtype[Any], list[int]] = {}
        kinds = frame.dtypes.tolist()
        for at, kind in enumerate(kinds):
            if isinstance(kind, np.dtype) and kind.kind in _NUMBERS:
                groups.setdefault(kind, []).append(at)
        if len(groups) == 1 and len(next(iter(groups.values()))) == len(kinds):
            return Block(self._block(frame))
        found: dict[int, Values] = {}
        blocks: list[Memory] = []
        for places in groups.values():
            if len(places) > 1:
                found.update({place: Part(len(blocks), at) for at, place in enumerate(places)})
                blocks.append(self._block(frame.iloc[:, places]))
        labels = frame.columns
        alone = [place for place in range(len(kinds)) if place not in found]
        for place, array in zip(alone, _arrays(frame, alone), strict=True):
            found[place] = self.values(array, labels[place])
        return Columns([found[place] for place in range(len(kinds))], blocks)

    def _block(self, frame: pd.DataFrame) -> Memory:
        """Return columns of one type as one array; pandas may hold them in one block or in many."""
        import numpy as np

        rows, width = frame.shape
        if rows * width * frame.dtypes.iloc[0].itemsize <= _PLAIN_ARRAY_BYTES or _is_one_block(frame):
            array = np.asarray(frame.to_numpy(copy=False))
            if array.flags.c_contiguous or array.flags.f_contiguous:
                return self.memory(array)
            columns = list(array.T)
        else:
            columns = [np.asarray(array) for array in _arrays(frame, range(width))]
        note, blob = pack_columns(columns)
        return Memory(note, self.buffer(blob))

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

        dtype = array.dtype
        if type(array) is pd.arrays.NumpyExtensionArray:  # a subclass is pandas' text
            array = array.to_numpy()
            dtype = array.dtype
        if isinstance(dtype, np.dtype):
            return self._numpy(np.asarray(array), dtype)
        import_pyarrow()
        import pyarrow as pa

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
        return self._objects(array) if dtype.kind == "O" else self.memory(array)

    def _objects(self, array: np.ndarray[Any, Any]) -> Values:
        import datetime as dt

        import_pyarrow()
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


def _arrays(frame: pd.DataFrame, places: Sequence[int]) -> list[Any]:
    """Return the arrays of these columns; to go through all of them costs a third of asking for each."""
    if 3 * len(places) < frame.shape[1]:
        return [frame.iloc[:, place].array for place in places]
    every = [column.array for _, column in frame.items()]
    return [every[place] for place in places]


def _is_one_block(frame: pd.DataFrame) -> bool:
    """Say whether columns of one type lie in one array, so that asking for that array copies nothing."""
    import numpy as np

    top = frame.iloc[:1]
    row, width = top.to_numpy(copy=False), frame.shape[1]
    return all(np.may_share_memory(row, top.iloc[:, at].to_numpy(copy=False)) for at in {0, width - 1})
