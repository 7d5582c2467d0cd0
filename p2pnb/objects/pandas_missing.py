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
    Columns,
    Extension,
    Flat,
    Labels,
    Memory,
    Multi,
    Objects,
    PandasNote,
    Part,
    Periods,
    Plain,
    Range,
    Values,
    Zoned,
)
from p2pnb.objects.pandas_streams import Streams
from p2pnb.objects.plain import Registry, unpack_plain
from p2pnb.objects.preview import cell
from p2pnb.objects.zones import build_zone

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["as_table"]


def as_table(note: PandasNote, buffers: Sequence[memoryview], registry: Registry) -> pa.Table:
    """Return the columns as a table, the index first unless it only counts; raises `NotSupportedError`."""
    import pyarrow as pa

    reader = _Reader(Streams(buffers), registry)
    names: list[str] = []
    columns: list[Any] = []
    for number, (label, column) in enumerate(reader.index(note.axes[0])):
        names.append(label or f"index {number}")
        columns.append(column)
    if isinstance(note.data, Block):
        block = reader.streams.memory(note.data.memory)
        if block.ndim != 2 or len(note.axes) != 2:
            raise CorruptDataError("the received frame's block has another shape than announced")
        columns += [_numbers(block[:, at]) for at in range(block.shape[1])]
        names += reader.labels(note.axes[1], block.shape[1])
    else:
        columns += reader.columns(note.data)
        one = [cell(reader.plain(note.name)) if note.name else "value"]
        many = note.kind == "DataFrame"
        names += reader.labels(note.axes[1], len(note.data.values)) if many else one[: len(note.data.values)]
    if any(len(column) != note.rows for column in columns):
        raise CorruptDataError("the received frame's columns are of different lengths")
    return pa.table(columns, names=names)


class _Reader:
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
                    if not isinstance(codes, Memory):
                        raise CorruptDataError("a received index has codes that are no integers")
                    places = self.streams.memory(codes)
                    found.append(("" if name is None else cell(name), _coded(self._level(level), places)))
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

    def columns(self, data: Columns) -> list[Any]:
        blocks = [self.streams.memory(memory) for memory in data.blocks]
        found: list[Any] = []
        for values in data.values:
            if isinstance(values, Part):
                if not 0 <= values.block < len(blocks) or blocks[values.block].ndim != 2:
                    raise CorruptDataError("the received frame refers to a column that did not arrive")
                if not 0 <= values.at < blocks[values.block].shape[1]:
                    raise CorruptDataError("the received frame refers to a column that did not arrive")
                found.append(_numbers(blocks[values.block][:, values.at]))
            else:
                found.append(self.column(values))
        return found

    def column(self, values: Values) -> Any:
        import numpy as np
        import pyarrow as pa

        match values:
            case Memory():
                array = self.streams.memory(values)
                if array.ndim == 1:
                    return _numbers(array)
            case Zoned():
                zone = msgspec.msgpack.decode(values.zone, type=list)
                build_zone(zone)  # refuses what is no zone
                column = self.streams.column(values.stream, values.at)
                ticks = self.streams.numbers(values.stream, column, np.dtype("i8"))
                name = "UTC" if zone[0] not in ("zoneinfo", "pytz") else zone[1]
                if values.unit in ("s", "ms", "us", "ns"):
                    return pa.array(ticks.view(f"M8[{values.unit}]")).cast(pa.timestamp(values.unit, name))
            case Extension() | Objects():
                return self.streams.column(values.stream, values.at)
            case Categories():
                column = self.streams.column(values.stream, values.at)
                if str(column.type) not in ("int8", "int16", "int32", "int64"):
                    raise CorruptDataError("a received column of codes has no integers")
                codes = self.streams.numbers(values.stream, column, np.dtype(str(column.type)))
                return _coded(self._level(values.index), codes)
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
                column = self.streams.column(values.stream, values.at)
                return pa.array(self.streams.numbers(values.stream, column, np.dtype("i8")))
        raise NotSupportedError("a column of this frame needs pandas; install pandas (pip install pandas)")


def _numbers(array: np.ndarray[Any, Any]) -> pa.Array:
    import pyarrow as pa

    if array.dtype.kind not in "biufmM" or array.dtype.itemsize > 8:
        raise NotSupportedError("a column of this frame needs pandas; install pandas (pip install pandas)")
    return pa.array(array.astype(array.dtype.newbyteorder("="), copy=False), from_pandas=array.dtype.kind in "mM")


def _coded(level: Any, codes: np.ndarray[Any, Any]) -> pa.Array:
    import pyarrow as pa

    if codes.ndim != 1 or codes.dtype.kind != "i":
        raise CorruptDataError("a received index has codes that are no integers")
    array = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), level)
    array.validate(full=True)
    return array
