"""Arrow tables as IPC streams: written without copying the columns, read without trusting a byte.

Writing: pyarrow hands a Python sink the columns' own buffers, so a stream is a list of views with small metadata
between them; small neighbours are joined. Nothing is compressed: most frames hardly shrink, compressing is slower than
a local line, and a receiver must never meet a buffer that grows in its memory.

Reading: `check_stream` first, then pyarrow over the received memory, then ``validate(full=True)`` on every batch: one
changed offset is a segmentation fault otherwise. A column whose rows take no bytes (type null, empty structs) is
bounded by the bytes that did arrive, because converting it allocates per row.

A batch is as long as the source's own; splitting would cost a copy when the columns are joined again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects.arrow_check import MAX_DEPTH, MAX_FIELDS, check_stream
from p2pnb.objects.codec import Blob

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_stream", "write_stream"]

_COPY_BELOW_BYTES: Final = 4 * 1024  # metadata and padding; what is larger stays a view
_WASTE_BYTES: Final = 64 * 1024  # of buffers that view types share: less is not worth looking at
_SAMPLED_ROWS: Final = 64 * 1024  # a longer column is judged by that many of its rows
_INLINE_BYTES: Final = 12  # text up to this length lies in the view itself
MAX_EMPTY_ROWS: Final = 1 << 20  # rows that take no bytes
MAX_ROWS: Final = 1 << 48


class _Pieces:
    """A file-like object that keeps what is written to it; pyarrow passes buffers by reference."""

    closed = False

    def __init__(self) -> None:
        self.found: list[memoryview] = []
        self._small: list[bytes] = []

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if len(view) < _COPY_BELOW_BYTES:
            self._small.append(bytes(view))
        else:
            self.flush()
            self.found.append(view)
        return len(view)

    def flush(self) -> None:
        if self._small:
            self.found.append(memoryview(b"".join(self._small)))
            self._small = []

    def close(self) -> None:
        self.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def write_stream(table: pa.Table) -> Blob:
    """Return an Arrow IPC stream as views over the table's own buffers; raises `NotSupportedError`."""
    import pyarrow as pa

    check_types(table.schema)
    table = _without_waste(table)
    pieces = _Pieces()
    options = pa.ipc.IpcWriteOptions(compression=None, emit_dictionary_deltas=False)
    try:
        with pa.PythonFile(pieces, mode="w") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    except pa.ArrowException as error:
        raise NotSupportedError(f"Arrow can't write this table ({error}); convert the column it names") from error
    pieces.flush()
    return tuple(pieces.found)


# Rows of the view types point into buffers that a part of a column shares with the whole, and Arrow writes those
# buffers in full: ten rows of a gigabyte would travel as a gigabyte, the other rows' text included.
def _without_waste(table: pa.Table) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    for number, field in enumerate(table.schema):
        dense = _without_views(field.type)
        column = table.column(number)
        if dense == field.type or not any(_wastes(chunk) for chunk in column.chunks):
            continue
        try:
            column = column.cast(dense)
            if pa.types.is_nested(dense):  # a cast keeps what lies around the lists of a part
                column = column.take(pa.array(np.arange(len(column))))
            column = column.cast(field.type)
        except pa.ArrowNotImplementedError:  # lists as views: sent in full
            continue
        table = table.set_column(number, field, column)
    return table


def _without_views(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    types = pa.types
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_struct(kind):
        return pa.struct([_field_without_views(kind.field(at)) for at in range(kind.num_fields)])
    if types.is_list(kind):
        return pa.list_(_field_without_views(kind.value_field))
    if types.is_large_list(kind):
        return pa.large_list(_field_without_views(kind.value_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(_field_without_views(kind.value_field), kind.list_size)
    return kind


def _field_without_views(field: pa.Field) -> pa.Field:
    return field.with_type(_without_views(field.type))


def _wastes(array: pa.Array) -> bool:
    import pyarrow as pa

    kind, types = array.type, pa.types
    if types.is_struct(kind):
        return any(_wastes(part) for part in array.flatten())
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _wastes(array.flatten())
    if not (types.is_string_view(kind) or types.is_binary_view(kind)):
        return False
    held = sum(buffer.size for buffer in array.buffers()[2:])
    if held <= _WASTE_BYTES:
        return False
    import numpy as np

    step = max(1, len(array) // _SAMPLED_ROWS)
    views = np.frombuffer(array.buffers()[1], np.int32)[4 * array.offset :][: 4 * len(array)]
    lengths = views[:: 4 * step]
    used = step * int(lengths[lengths > _INLINE_BYTES].sum(dtype=np.int64))
    return bool(used < held * 3 // 4)


def check_types(schema: pa.Schema) -> None:
    """Refuse, on the sending side, what the receiving side would refuse; raises `NotSupportedError`."""
    budget = [MAX_FIELDS]
    for field in schema:
        _check_type(field.type, field.name, 1, budget)


def _check_type(kind: pa.DataType, column: str, depth: int, budget: list[int]) -> None:
    import pyarrow as pa

    budget[0] -= 1
    if budget[0] < 0:
        raise NotSupportedError(f"a table of more than {MAX_FIELDS:,} columns can't be sent; send an array")
    if depth > MAX_DEPTH:
        raise NotSupportedError(f"column {column!r} is nested deeper than {MAX_DEPTH}; flatten it")
    if isinstance(kind, pa.BaseExtensionType):
        raise NotSupportedError(
            f"column {column!r} has the extension type {kind}, which can't be sent; send its storage "
            "(column.storage, or cast it to a plain type)"
        )
    if pa.types.is_run_end_encoded(kind):
        raise NotSupportedError(f"column {column!r} is run-end encoded; send pyarrow.compute.run_end_decode(column)")
    if pa.types.is_dictionary(kind):
        _check_type(kind.value_type, column, depth + 1, budget)
    elif pa.types.is_nested(kind):
        for number in range(kind.num_fields):
            _check_type(kind.field(number).type, column, depth + 1, budget)


def read_stream(stream: memoryview) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Return the batches over `stream`'s own memory, fully validated; raises `CorruptDataError`."""
    import pyarrow as pa

    check_stream(stream)
    batches: list[pa.RecordBatch] = []
    try:
        with pa.ipc.open_stream(pa.py_buffer(stream)) as reader:
            schema = reader.schema
            check_types(schema)
            rows = 0
            for batch in reader:
                _validate(batch)
                rows += batch.num_rows
                batches.append(batch)
    except NotSupportedError as error:
        raise CorruptDataError(str(error)) from error
    except (pa.ArrowException, ValueError, TypeError, IndexError, KeyError, OSError) as error:
        raise CorruptDataError(f"the received table is damaged: {_first_line(error)}") from error
    check_rows(schema, batches, len(stream))
    return schema, batches


def _validate(batch: pa.RecordBatch) -> None:
    batch.validate(full=True)  # offsets, lengths, indices, UTF-8: without it the next touch may be the last


def check_rows(schema: pa.Schema, batches: list[pa.RecordBatch], size_bytes: int) -> None:
    """Bound rows that take no bytes by the bytes there are; raises `CorruptDataError`."""
    limit = max(MAX_EMPTY_ROWS, 8 * size_bytes)
    if not len(schema):
        if sum(batch.num_rows for batch in batches) > MAX_ROWS:
            raise CorruptDataError("the received table claims an impossible number of rows")
        return
    for number in range(len(schema)):
        if takes_no_bytes(schema.field(number).type):
            for batch in batches:
                _check_array(batch.column(number), limit)


def takes_no_bytes(kind: pa.DataType) -> bool:
    """Say whether rows of this type, or of a type inside it, may take no memory of their own."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return takes_no_bytes(kind.value_type)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_struct(kind) or pa.types.is_null(kind):
        return True
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 0:
        return True
    return pa.types.is_nested(kind) and any(
        takes_no_bytes(kind.field(number).type) for number in range(kind.num_fields)
    )


def _check_array(array: pa.Array, limit: int) -> None:
    import pyarrow as pa

    if len(array) > limit:  # every other type needs at least a bit per row
        raise CorruptDataError("the received table claims more rows than its bytes can hold")
    kind = array.type
    if pa.types.is_dictionary(kind):
        _check_array(array.dictionary, limit)
    elif pa.types.is_struct(kind) or pa.types.is_union(kind):
        for number in range(kind.num_fields):
            _check_array(array.field(number), limit)
    elif pa.types.is_map(kind):
        _check_array(array.keys, limit)
        _check_array(array.items, limit)
    elif pa.types.is_nested(kind):
        _check_array(array.values, limit)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200]
