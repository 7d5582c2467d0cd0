"""The buffers of a received pandas object: parsed and validated once, then columns as arrays on the received memory.

Every buffer and every column is given out once. Some take many times their bytes once they are Python objects, and a
description that named one of them a thousand times would have that memory taken a thousand times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from p2pnb.errors import CorruptDataError
from p2pnb.objects.arrays import unpack_memory
from p2pnb.objects.arrow import import_pyarrow
from p2pnb.objects.arrow_stream import read_stream
from p2pnb.objects.pandas_notes import Memory

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["Streams"]


class Streams:
    """The buffers of a received frame: streams parsed and validated once, arrays checked against their notes."""

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._buffers = buffers
        self._tables: dict[int, pa.Table] = {}
        self._taken: set[int | tuple[int, int]] = set()

    def buffer(self, number: int) -> memoryview:
        if not 0 <= number < len(self._buffers):
            raise CorruptDataError("the received frame refers to a part that did not arrive")
        self._take(number)
        return self._buffers[number]

    def column(self, number: int, at: int) -> pa.ChunkedArray:
        import_pyarrow()
        import pyarrow as pa

        if number not in self._tables:
            schema, batches = read_stream(self.buffer(number))
            self._tables[number] = pa.Table.from_batches(batches, schema)
        table = self._tables[number]
        if not 0 <= at < table.num_columns:
            raise CorruptDataError("the received frame lacks a column")
        self._take((number, at))
        return table.column(at)

    def numbers(self, number: int, column: pa.ChunkedArray, carrier: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return a column of stream `number` on the received memory, writable if that is; under nulls, anything."""
        import numpy as np
        import pyarrow as pa

        if column.type != pa.from_numpy_dtype(carrier):
            raise CorruptDataError("a received column is not of the type its description names")
        base = self._buffers[number]  # pyarrow's own buffers over it are read-only
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
        return _joined(found, carrier)

    @staticmethod
    def bits(column: pa.ChunkedArray, which: int) -> np.ndarray[Any, Any]:
        """Return bits as truth values: a validated column's validity (`which` 0), or its truth values (1)."""
        import numpy as np

        found = []
        for chunk in column.chunks:
            data = chunk.buffers()[which]
            if len(chunk) and data is None:  # no bitmap: everything is there
                found.append(np.ones(len(chunk), dtype=bool))
            elif len(chunk):
                first, start = divmod(chunk.offset, 8)
                packed = np.frombuffer(data, dtype=np.uint8, offset=first, count=(start + len(chunk) + 7) // 8)
                every = np.unpackbits(packed, count=start + len(chunk), bitorder="little")
                found.append(every[start:].view(bool))
        return _joined(found, np.dtype(bool))

    def memory(self, memory: Memory) -> np.ndarray[Any, Any]:
        return unpack_memory(memory.note, self.buffer(memory.buffer))

    def _take(self, part: int | tuple[int, int]) -> None:
        if part in self._taken:
            raise CorruptDataError("the received frame uses one part for several columns")
        self._taken.add(part)


def _joined(found: list[np.ndarray[Any, Any]], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    if not found:
        return np.empty(0, dtype=dtype)
    array: np.ndarray[Any, Any] = found[0] if len(found) == 1 else np.concatenate(found)
    return array if array.flags.writeable else array.copy()
