"""Streams, buffers and notes back into a pandas object, with pandas' own validating constructors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from p2pnb.errors import CorruptDataError
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
    PandasNote,
    Part,
    Periods,
    Plain,
    Range,
    Sparse,
    Values,
    Zoned,
    extension_types,
)
from p2pnb.objects.pandas_streams import Streams
from p2pnb.objects.plain import Registry, unpack_plain
from p2pnb.objects.zones import build_zone

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["FrameReader"]

_UNITS: Final = ("s", "ms", "us", "ns")
_SPLIT_FROM_COLUMNS: Final = 100  # pandas itself complains of more blocks than this
_MAX_DEPTH: Final = 4  # categories of intervals of periods


class FrameReader:
    def __init__(self, buffers: Sequence[memoryview], registry: Registry) -> None:
        self.streams = Streams(buffers)
        self.registry = registry

    def value(self, note: PandasNote) -> Any:
        import pandas as pd

        if note.kind in ("NA", "NaT"):
            return pd.NA if note.kind == "NA" else pd.NaT
        index = self.axis(note.axes[0])
        if len(index) != note.rows:
            raise CorruptDataError("the received frame's index has another length than announced")
        if note.kind == "Index":
            return index
        if note.kind in ("Series", "scalar"):
            if not isinstance(note.data, Columns) or len(note.data.values) != 1:
                raise CorruptDataError("the received series has not one column")
            found: Any = self.series(note.data.values[0], index)
            if note.kind == "scalar":
                return found.iloc[0]
            found.name = self.plain(note.name) if note.name else None
        else:
            columns = self.axis(note.axes[1])
            if isinstance(note.data, Block):
                block = self.streams.memory(note.data.memory)
                if block.shape != (note.rows, len(columns)) or block.dtype.kind not in "biufcmM":
                    raise CorruptDataError("the received frame's block has another shape than announced")
                found = pd.DataFrame(block, index=index, copy=False)
            else:
                if len(note.data.values) != len(columns):
                    raise CorruptDataError("the received frame has another number of columns than names")
                found = self.frame(note.data, index)
            found.columns = columns
        if note.attrs:
            attrs = self.plain(note.attrs)
            if type(attrs) is not dict:
                raise CorruptDataError("the received frame's attrs are malformed")
            found.attrs = attrs
        if note.unique_labels:
            found = found.set_flags(allows_duplicate_labels=False)
        return found

    def frame(self, data: Columns, index: pd.Index[Any]) -> pd.DataFrame:
        """Return the columns, numbered: blocks as blocks, so that nothing is copied to make the frame one."""
        import pandas as pd

        places: list[list[int]] = [[] for _ in data.blocks]
        others: dict[int, Any] = {}
        for place, values in enumerate(data.values):
            if not isinstance(values, Part):
                others[place] = self.column(values, index)
            elif 0 <= values.block < len(places) and values.at == len(places[values.block]):
                places[values.block].append(place)
            else:
                raise CorruptDataError("the received frame refers to a column that did not arrive")
        found = []
        for memory, at in zip(data.blocks, places, strict=True):
            block = self.streams.memory(memory)
            if block.shape != (len(index), len(at)) or block.dtype.kind not in "biufcmM":
                raise CorruptDataError("the received frame's block has another shape than announced")
            found.append(pd.DataFrame(block, index=index, columns=at, copy=False))
        if others or not found:
            rest = pd.DataFrame(others, index=index, columns=list(others), copy=False)
            if sum(column.dtype == object for column in others.values()) > _SPLIT_FROM_COLUMNS:
                rest = rest.copy()  # joins the columns of references to objects; what they refer to stays
            found.append(rest)
        if len(found) == 1:
            return found[0]
        without_copy: dict[str, Any] = {} if pd.__version__.split(".")[0] != "2" else {"copy": False}
        joined = pd.concat(found, axis=1, **without_copy)
        order = sorted(range(joined.shape[1]), key=joined.columns.tolist().__getitem__)
        if order != list(range(len(order))):
            joined = joined.iloc[:, order]
        return cast("pd.DataFrame", joined)

    def column(self, values: Values, index: pd.Index[Any]) -> Any:
        """Return what a frame can be made of without pandas guessing a type."""
        array = self.values(values)
        if len(array) != len(index):
            raise CorruptDataError("a received column has another length than its index")
        return array if array.dtype != object else self._series(array, index)

    def series(self, values: Values, index: pd.Index[Any]) -> pd.Series[Any]:
        return self._series(self.column(values, index), index)

    def _series(self, array: Any, index: pd.Index[Any]) -> pd.Series[Any]:
        import pandas as pd

        found: pd.Series[Any] = pd.Series(array, index=index, dtype=array.dtype, copy=False)
        return found

    def plain(self, data: bytes) -> Any:
        return unpack_plain(memoryview(data), (), self.registry)

    def values(self, values: Values, depth: int = 0) -> Any:
        import pandas as pd

        match values:
            case Memory():
                return self._memory(values)
            case Zoned():
                return self._zoned(values)
            case Extension():
                return self._extension(values)
            case Categories():
                codes = self._codes(values)
                return pd.Categorical.from_codes(codes, self.axis(values.index, depth + 1), ordered=values.ordered)
            case Periods():
                ordinals = self._ticks(values)
                return pd.arrays.PeriodArray(ordinals, dtype=_period_type(values.freq))
            case Intervals():
                left, right = self.axis(values.left, depth + 1), self.axis(values.right, depth + 1)
                closed: Any = values.closed
                return pd.arrays.IntervalArray.from_arrays(left, right, closed=closed)
            case Sparse():
                return self._sparse(values)
            case Objects():
                return self._objects(values)
            case Plain():
                return _object_array(self._plain_list(values))
            case Part():
                raise CorruptDataError("a received index is of an unknown type")

    def _codes(self, values: Categories) -> np.ndarray[Any, Any]:
        """Return integers of the width the column itself has."""
        import numpy as np

        column = self.streams.column(values.stream, values.at)
        kind = str(column.type)
        if kind not in ("int8", "int16", "int32", "int64") or column.null_count:
            raise CorruptDataError("a received column of codes has no integers")
        return self.streams.numbers(values.stream, column, np.dtype(kind))

    def _ticks(self, values: Zoned | Periods) -> np.ndarray[Any, Any]:
        import numpy as np

        column = self.streams.column(values.stream, values.at)
        if column.null_count:
            raise CorruptDataError("a received column of times has gaps")
        return self.streams.numbers(values.stream, column, np.dtype("i8"))

    def _memory(self, values: Memory) -> np.ndarray[Any, Any]:
        array = self.streams.memory(values)
        if array.ndim != 1 or array.dtype.kind not in "biufcmM":
            raise CorruptDataError("a received column is of an unknown type")
        return array

    def _zoned(self, values: Zoned) -> Any:
        import pandas as pd

        if values.unit not in _UNITS:
            raise CorruptDataError("a received column of times has an unknown unit")
        zone = msgspec.msgpack.decode(values.zone, type=list)
        unit: Any = values.unit
        dtype = pd.DatetimeTZDtype(unit, build_zone(zone))
        return pd.array(self._ticks(values), dtype=dtype, copy=False)  # integers are instants, whatever the zone

    def _extension(self, values: Extension) -> Any:
        import numpy as np
        import pandas as pd

        column = self.streams.column(values.stream, values.at)
        if values.name == "arrow":
            return pd.arrays.ArrowExtensionArray(column)
        dtype = extension_types().get(values.name)
        if dtype is None:
            raise CorruptDataError("a received column is of an unknown type")
        arrow = {"boolean": "bool", "Float32": "float", "Float64": "double"}.get(values.name, values.name.lower())
        if str(column.type) not in (("string", "large_string") if values.name.startswith("str") else (arrow,)):
            raise CorruptDataError("a received column is not of the type its description names")
        if values.name.startswith("str"):
            return dtype.__from_arrow__(column)
        if values.name == "boolean":
            data = self.streams.bits(column, 1)
        else:
            data = self.streams.numbers(values.stream, column, dtype.numpy_dtype)
        missing = ~self.streams.bits(column, 0) if column.null_count else np.zeros(len(column), dtype=bool)
        return dtype.construct_array_type()(data, missing, copy=False)

    def _sparse(self, values: Sparse) -> Any:
        import numpy as np
        import pandas as pd

        found, positions, fill = (self.streams.memory(part) for part in (values.values, values.positions, values.fill))
        if found.ndim != 1 or fill.shape or fill.dtype != found.dtype or positions.dtype != np.dtype("i4"):
            raise CorruptDataError("a received sparse column is malformed")
        if not len(positions) <= values.rows < 2**31 or positions.shape != found.shape:
            raise CorruptDataError("a received sparse column has more values than rows")
        if len(positions) and not (
            positions[0] >= 0 and positions[-1] < values.rows and (np.diff(positions) > 0).all()
        ):
            raise CorruptDataError("a received sparse column has values outside its rows")
        kind = "block" if values.block else "integer"
        sparse: Any = pd.arrays.SparseArray
        if hasattr(sparse, "from_indices"):  # since pandas 3.1
            return sparse.from_indices(found, positions, values.rows, fill.item(), kind)
        from pandas._libs.sparse import IntIndex  # before that, the only way in that never makes the values dense

        make: Any = IntIndex
        index = make(values.rows, positions)
        where = index.to_block_index() if values.block else index
        return sparse(found, sparse_index=where, fill_value=fill.item(), dtype=found.dtype)

    def _objects(self, values: Objects) -> np.ndarray[Any, Any]:
        expected = {"text": "large_string", "bytes": "large_binary", "date": "date32[day]"}.get(values.kind)
        column = self.streams.column(values.stream, values.at)
        if str(column.type) != expected:
            raise CorruptDataError("a received column is not of the type its description names")
        return _object_array(column.to_pylist() if values.kind == "date" else column.to_numpy())

    def _plain_list(self, values: Plain) -> list[Any]:
        if values.count < 1:
            raise CorruptDataError("a received column lacks its parts")
        parts = [self.streams.buffer(values.buffer + number) for number in range(values.count)]
        found = unpack_plain(parts[0], parts[1:], self.registry)
        if type(found) is not list:
            raise CorruptDataError("a received column of objects is malformed")
        return found

    def axis(self, axis: Axis, depth: int = 0) -> Any:
        import pandas as pd

        if depth > _MAX_DEPTH:
            raise CorruptDataError("a received index is nested too deep")
        match axis:
            case Range():
                return pd.RangeIndex(axis.start, axis.stop, axis.step, name=self._name(axis.name))
            case Labels():
                dtype = object if axis.dtype == "object" else extension_types().get(axis.dtype)
                if dtype is None or not (dtype is object or axis.dtype.startswith("str")):
                    raise CorruptDataError("a received index is of an unknown type")
                return pd.Index(axis.labels, dtype=dtype, name=self._name(axis.name))
            case Flat():
                array = self.values(axis.values, depth)
                if len(array) != axis.rows:
                    raise CorruptDataError("a received index has another length than announced")
                index = pd.Index(array, dtype=array.dtype, name=self._name(axis.name), copy=False)
                if axis.freq:
                    if not isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
                        raise CorruptDataError("a received index has a frequency but no times")
                    index.freq = _frequency(axis.freq)  # type: ignore[misc]
                return index
            case Multi():
                levels = [self.axis(level, depth + 1) for level in axis.levels]
                codes = [self.values(code, depth) for code in axis.codes]
                if any(code.dtype.kind != "i" for code in codes) or not levels:
                    raise CorruptDataError("a received index has codes that are no integers")
                names = self.plain(axis.names)
                return pd.MultiIndex(levels=levels, codes=codes, names=names, verify_integrity=True)

    def _name(self, data: bytes) -> Any:
        return self.plain(data) if data else None


def _frequency(text: str) -> Any:
    import pandas as pd

    if not FREQUENCY.fullmatch(text):
        raise CorruptDataError("a received index has an unknown frequency")
    return pd.tseries.frequencies.to_offset(text)


def _period_type(freq: str) -> Any:
    import pandas as pd

    if not FREQUENCY.fullmatch(freq):
        raise CorruptDataError("a received column has periods of an unknown frequency")
    return pd.PeriodDtype(freq)


def _object_array(values: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    if isinstance(values, np.ndarray):
        return values
    return np.fromiter(values, dtype=object, count=len(values))  # assignment would look into lists
