"""A received pandas object where pandas is not installed: its columns, and a named index, as a `pyarrow.Table`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects.pandas_notes import (
    Axis,
    Block,
    Categories,
    Extension,
    Flat,
    Labels,
    Memory,
    Multi,
    Objects,
    PandasNote,
    Periods,
    Plain,
    Range,
    Raw,
    Values,
    Zoned,
)
from p2pnb.objects.pandas_streams import Streams
from p2pnb.objects.plain import Registry, unpack_plain
from p2pnb.objects.preview import cell
from p2pnb.objects.zones import build_zone

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["as_table"]


def as_table(note: PandasNote, buffers: Sequence[memoryview], registry: Registry) -> pa.Table:
    """Return the columns as a table, the index first unless it only counts; raises `NotSupportedError`."""
    import pyarrow as pa

    reader = _Columns(Streams(buffers), registry)
    names: list[str] = []
    columns: list[Any] = []
    for number, (label, column) in enumerate(reader.index(note.axes[0])):
        names.append(label or f"index {number}")
        columns.append(column)
    if isinstance(note.data, Block):
        block = reader.streams.memory(note.data.memory)
        if block.ndim != 2 or len(note.axes) != 2:
            raise CorruptDataError("the received frame's block has another shape than announced")
        columns += [pa.array(block[:, at]) for at in range(block.shape[1])]
        names += reader.labels(note.axes[1], block.shape[1])
    else:
        columns += [reader.column(values) for values in note.data.values]
        one = [cell(reader.plain(note.name)) if note.name else "value"]
        many = note.kind == "DataFrame"
        names += reader.labels(note.axes[1], len(note.data.values)) if many else one[: len(note.data.values)]
    if any(len(column) != note.rows for column in columns):
        raise CorruptDataError("the received frame's columns are of different lengths")
    return pa.table(columns, names=names)


class _Columns:
    def __init__(self, streams: Streams, registry: Registry) -> None:
        self.streams = streams
        self.registry = registry

    def plain(self, data: bytes) -> Any:
        return unpack_plain(memoryview(data), (), self.registry)

    def labels(self, axis: Axis, count: int) -> list[str]:
        if isinstance(axis, Labels):
            found = axis.labels
        elif isinstance(axis, Range):
            found = [str(number) for number in range(axis.start, axis.start + count * axis.step, axis.step)]
        elif isinstance(axis, Flat):
            found = [cell(label) for label in self.column(axis.values).to_pylist()]
        else:
            parts = [column.to_pylist() for _, column in self.index(axis)]
            found = [" / ".join(map(cell, label)) for label in zip(*parts, strict=True)]
        if len(found) != count:
            raise CorruptDataError("the received frame has another number of columns than names")
        return found

    def index(self, axis: Axis) -> list[tuple[str, Any]]:
        import pyarrow as pa

        match axis:
            case Range():
                return []
            case Labels():
                return [(self._name(axis.name), pa.array(axis.labels))]
            case Flat():
                return [(self._name(axis.name), self.column(axis.values))]
            case Multi():
                names, found = self.plain(axis.names), []
                for name, level, codes in zip(names, axis.levels, axis.codes, strict=True):
                    if not isinstance(codes, Raw):
                        raise CorruptDataError("a received index has codes that are no integers")
                    found.append(("" if name is None else cell(name), self._coded(self._level(level), codes)))
                return found

    def _name(self, data: bytes) -> str:
        return cell(self.plain(data)) if data else ""

    def _level(self, axis: Axis) -> pa.Array:
        import pyarrow as pa

        if isinstance(axis, Range):
            return pa.array(range(axis.start, axis.stop, axis.step)[: 1 << 20])
        found = self.index(axis)[0][1]
        joined = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined

    def _coded(self, level: Any, raw: Raw) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        kind = str(self.streams.column(raw.stream, raw.at).type)
        if kind not in ("int8", "int16", "int32", "int64"):
            raise CorruptDataError("a received column of codes has no integers")
        codes = self.streams.numbers(raw.stream, raw.at, np.dtype(kind))
        array = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), level)
        array.validate(full=True)
        return array

    def column(self, values: Values) -> Any:
        import numpy as np
        import pyarrow as pa

        match values:
            case Raw():
                array = self.streams.raw(values)
                return pa.array(array, from_pandas=array.dtype.kind in "mM")
            case Memory():
                array = self.streams.memory(values)
                if array.dtype.kind in "biufmM" and array.dtype.itemsize <= 8 and array.ndim == 1:
                    return pa.array(array.astype(array.dtype.newbyteorder("=")))
            case Zoned():
                zone = msgspec.msgpack.decode(values.zone, type=list)
                build_zone(zone)  # refuses what is no zone
                ticks = self.streams.numbers(values.stream, values.at, np.dtype("i8"))
                name = "UTC" if zone[0] not in ("zoneinfo", "pytz") else zone[1]
                if values.unit in ("s", "ms", "us", "ns"):
                    return pa.array(ticks.view(f"M8[{values.unit}]")).cast(pa.timestamp(values.unit, name))
            case Extension() | Objects():
                return self.streams.column(values.stream, values.at)
            case Categories():
                return self._coded(self._level(values.index), Raw(values.stream, values.at, ""))
            case Plain():
                parts = [self.streams.buffer(values.buffer + number) for number in range(max(values.count, 1))]
                try:
                    return pa.array(unpack_plain(parts[0], parts[1:], self.registry))
                except (pa.ArrowException, TypeError, ValueError) as error:
                    raise NotSupportedError("a column of this frame needs pandas; install pandas") from error
            case Periods():
                warnings.warn(
                    "a column of periods arrives as their numbers, since pandas is not installed", stacklevel=6
                )
                return pa.array(self.streams.numbers(values.stream, values.at, np.dtype("i8")))
        raise NotSupportedError("a column of this frame needs pandas; install pandas (pip install pandas)")
