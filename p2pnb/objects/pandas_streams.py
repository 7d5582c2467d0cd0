"""The buffers of a received pandas object: parsed and validated once, then columns as arrays on the received memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from p2pnb.errors import CorruptDataError
from p2pnb.objects.arrays import unpack_memory
from p2pnb.objects.arrow_stream import read_stream
from p2pnb.objects.dtypes import Dtype, build_dtype
from p2pnb.objects.pandas_notes import Memory, Raw

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["Streams"]


class Streams:
    """The buffers of a received frame: streams parsed and validated once, arrays checked against their notes."""

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self.buffers = buffers
        self._tables: dict[int, Any] = {}

    def buffer(self, number: int) -> memoryview:
        if not 0 <= number < len(self.buffers):
            raise CorruptDataError("the received frame refers to a part that did not arrive")
        return self.buffers[number]

    def column(self, number: int, at: int) -> pa.ChunkedArray:
        import pyarrow as pa

        if number not in self._tables:
            schema, batches = read_stream(self.buffer(number))
            self._tables[number] = pa.Table.from_batches(batches, schema)
        table = self._tables[number]
        if not 0 <= at < table.num_columns:
            raise CorruptDataError("the received frame lacks a column")
        return table.column(at)

    def numbers(self, number: int, at: int, carrier: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return a column without nulls as an array on the received memory, writable if that is."""
        import numpy as np
        import pyarrow as pa

        column = self.column(number, at)
        if column.type != pa.from_numpy_dtype(carrier) or column.null_count:
            raise CorruptDataError("a received column is not of the type its description names")
        base = self.buffer(number)
        origin = pa.py_buffer(base).address
        found = []
        for chunk in column.chunks:
            data = chunk.buffers()[1]
            if not len(chunk) or data is None:
                continue
            start = data.address - origin + chunk.offset * carrier.itemsize
            if not 0 <= start <= len(base) - len(chunk) * carrier.itemsize:
                raise CorruptDataError("a received column lies outside its stream")
            found.append(np.frombuffer(base, dtype=carrier, count=len(chunk), offset=start))
        if not found:
            return np.empty(0, dtype=carrier)
        array: np.ndarray[Any, Any] = found[0] if len(found) == 1 else np.concatenate(found)
        return array if array.flags.writeable else array.copy()

    def memory(self, memory: Memory) -> np.ndarray[Any, Any]:
        return unpack_memory(memory.note, self.buffer(memory.buffer))

    def raw(self, raw: Raw) -> np.ndarray[Any, Any]:
        import numpy as np

        dtype = build_dtype(Dtype(raw.code))
        if dtype.kind not in "biufmM" or dtype.itemsize > 8 or not dtype.isnative:
            raise CorruptDataError("a received column is of an unknown type")
        carrier = np.dtype({"b": "u1", "m": "i8", "M": "i8"}.get(dtype.kind, dtype.str))
        array = self.numbers(raw.stream, raw.at, carrier)
        if dtype.kind == "b" and array.size and array.max() > 1:
            raise CorruptDataError("a received column has truth values that are neither true nor false")
        return array.view(dtype)
