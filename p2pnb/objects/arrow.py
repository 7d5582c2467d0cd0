"""pyarrow's own types, and whatever else exports Arrow.

Tables, batches, arrays and readers of pyarrow come back as they were, metadata included. Anything with
``__arrow_c_stream__`` or ``__arrow_c_array__`` that has no codec of its own (a DuckDB relation, say) arrives as a
`pyarrow.Table`: its rows are what travels, not the query behind them.

Schema metadata is a peer's text. pyarrow acts on one key of it, ``pandas``, when somebody calls ``to_pandas()``; that
one is kept only if every entry is of the few harmless forms pyarrow itself writes, and dropped with a warning if not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects.arrays import is_from
from p2pnb.objects.arrow_stream import MAX_EMPTY_ROWS, check_types, read_stream, takes_no_bytes, write_stream
from p2pnb.objects.codec import Codec, Packed, read_note, write_note
from p2pnb.objects.preview import cell, describe_table
from p2pnb.protocol.wire import MAX_PREVIEW_COLUMNS, MAX_PREVIEW_ROWS, Preview

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowCodec", "import_pyarrow", "preview_arrow"]

_MAX_CHUNKS: Final = 4096  # a column in more pieces is joined: each piece costs more than its copy
_KINDS: Final = ("Table", "RecordBatch", "RecordBatchReader", "ChunkedArray", "Array")
_PANDAS_TYPES: Final = re.compile(
    r"[a-z][a-z0-9_]{0,31}(?:\[[A-Za-z0-9_, \[\]]{0,64}\])?|(?:datetime64|timedelta64|period|interval|string|Sparse|"
    r"category|U?Int\d+|Float\d+|U?int\d+)(?:\[[A-Za-z0-9_/+\-:, .]{0,80}\])?|object|str|None"
)


class ArrowNote(msgspec.Struct, frozen=True, array_like=True):
    """What the stream's table was: `kind` of `_KINDS`; `empty_extensions` nothing yet."""

    kind: str
    rows: int
    extensions: dict[int, str] = {}  # columns that had one of Arrow's own extension types without parameters


def import_pyarrow() -> None:
    """Raise `NotSupportedError` with advice where pyarrow is missing."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise NotSupportedError("tables travel as Arrow: install pyarrow (pip install pyarrow)") from error


class ArrowCodec(Codec):
    """pyarrow tables, batches, arrays, readers; anything that exports Arrow."""

    name = "arrow"

    def takes(self, value: object) -> bool:
        if isinstance(value, type):
            return False
        return hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")

    def encode(self, value: Any) -> Packed:
        import_pyarrow()
        kind, table = _take_apart(value)
        table, extensions = _to_storage(table)
        _refuse_empty_rows(table)
        if any(column.num_chunks > _MAX_CHUNKS for column in table.columns):
            table = table.combine_chunks()
        return Packed(write_note(ArrowNote(kind, table.num_rows, extensions)), [write_stream(table)])

    def check(self, note: bytes, lengths: Sequence[int]) -> None:
        parsed = read_note(note, ArrowNote)
        if parsed.kind not in _KINDS or len(lengths) != 1:
            raise CorruptDataError("the received table is of an unknown kind")

    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        import_pyarrow()
        import pyarrow as pa

        parsed = read_note(note, ArrowNote)
        schema, batches = read_stream(buffers[0])
        schema = _without_harm(schema)
        table = pa.Table.from_batches([batch.replace_schema_metadata(schema.metadata) for batch in batches], schema)
        table = _from_storage(table, parsed.extensions)
        if table.num_rows != parsed.rows:
            raise CorruptDataError("the received table has another number of rows than announced")
        if parsed.kind == "Table":
            return table
        if parsed.kind == "RecordBatchReader":
            return table.to_reader()
        if parsed.kind == "RecordBatch":
            found = table.combine_chunks().to_batches()
            return found[0] if found else pa.RecordBatch.from_pylist([], schema=table.schema)
        if table.num_columns != 1:
            raise CorruptDataError("the received array has not one column")
        column = table.column(0)
        if parsed.kind == "ChunkedArray":
            return column
        if column.num_chunks == 1:
            return column.chunk(0)
        joined = column.combine_chunks()
        return joined if isinstance(joined, pa.Array) else joined.chunk(0)

    def preview(self, value: Any) -> Preview | None:
        import pyarrow as pa

        name = self.type_name(value)
        if isinstance(value, pa.Table | pa.RecordBatch):
            return preview_arrow(value, name)
        if isinstance(value, pa.Array | pa.ChunkedArray):
            return preview_arrow(pa.table({"": value[:MAX_PREVIEW_ROWS]}), name, len(value))
        return None

    def type_name(self, value: object) -> str:
        if not is_from(value, "pyarrow"):
            return super().type_name(value)
        import pyarrow as pa

        return "pyarrow.Array" if isinstance(value, pa.Array) else f"pyarrow.{type(value).__name__}"


def preview_arrow(table: pa.Table | pa.RecordBatch, type_name: str, rows: int | None = None) -> Preview:
    """Describe an Arrow table by its schema and first rows."""
    first = table.slice(0, MAX_PREVIEW_ROWS).select(list(range(min(table.num_columns, MAX_PREVIEW_COLUMNS))))
    columns = [_first_cells(column) for column in first.columns]
    return describe_table(
        type_name,
        table.num_rows if rows is None else rows,
        table.num_columns,
        [(field.name, field.type) for field in first.schema],
        list(zip(*columns, strict=True)) if columns else [],
    )


def _first_cells(column: Any) -> list[str]:
    cells = []
    for scalar in column:
        try:
            cells.append(cell(scalar.as_py()))
        except Exception:  # noqa: BLE001 - a date beyond Python's, an unknown zone
            cells.append(cell(scalar))
    return cells


def _take_apart(value: Any) -> tuple[str, pa.Table]:
    """Return the kind, and the rows as a table."""
    import pyarrow as pa

    if isinstance(value, pa.Table):
        return "Table", value
    if isinstance(value, pa.RecordBatch):
        return "RecordBatch", pa.Table.from_batches([value])
    if isinstance(value, pa.RecordBatchReader):
        return "RecordBatchReader", value.read_all()
    if isinstance(value, pa.ChunkedArray | pa.Array):
        return "ChunkedArray" if isinstance(value, pa.ChunkedArray) else "Array", pa.table({"": value})
    try:
        if hasattr(value, "__arrow_c_stream__"):
            table = pa.table(value)
        else:
            array = pa.array(value)
            table = pa.Table.from_struct_array(array) if pa.types.is_struct(array.type) else pa.table({"": array})
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise NotSupportedError(
            f"{type(value).__qualname__} exports Arrow that pyarrow can't read ({error}); send a pyarrow.Table of it"
        ) from error
    return "Table", table


def _refuse_empty_rows(table: pa.Table) -> None:
    """Refuse what the receiver would take for a bomb: far more rows than bytes."""
    schema = table.schema
    if table.num_rows > MAX_EMPTY_ROWS and len(schema) and all(takes_no_bytes(field.type) for field in schema):
        raise NotSupportedError("a table of nothing but empty columns is not sent at this length; send its length")


# ── extension types ─────────────────────────────────────────────────────────────────────────────────
def _own_extensions() -> dict[str, pa.DataType]:
    import pyarrow as pa

    makers = {"arrow.uuid": "uuid", "arrow.bool8": "bool8", "arrow.json": "json_"}
    return {name: getattr(pa, maker)() for name, maker in makers.items() if hasattr(pa, maker)}


def _to_storage(table: pa.Table) -> tuple[pa.Table, dict[int, str]]:
    import pyarrow as pa

    known, found = _own_extensions(), {}
    for number, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType) and known.get(field.type.extension_name) == field.type:
            column = table.column(number)
            storage = pa.chunked_array([chunk.storage for chunk in column.chunks], field.type.storage_type)
            table = table.set_column(
                number, pa.field(field.name, storage.type, field.nullable, field.metadata), storage
            )
            found[number] = field.type.extension_name
    check_types(table.schema)
    return table, found


def _from_storage(table: pa.Table, extensions: dict[int, str]) -> pa.Table:
    import pyarrow as pa

    known = _own_extensions()
    for number, name in extensions.items():
        kind = known.get(name)
        if kind is None or not 0 <= number < table.num_columns or table.schema.field(number).type != kind.storage_type:
            raise CorruptDataError("the received table has a column of an unknown extension type")
        field, column = table.schema.field(number), table.column(number)
        chunks = [pa.ExtensionArray.from_storage(kind, chunk) for chunk in column.chunks]
        table = table.set_column(
            number, pa.field(field.name, kind, field.nullable, field.metadata), pa.chunked_array(chunks, kind)
        )
    return table


# ── metadata ────────────────────────────────────────────────────────────────────────────────────────
class _PandasColumn(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None
    field_name: str | None
    pandas_type: str
    numpy_type: str
    metadata: dict[str, str | int | bool | None] | None


class _PandasRange(msgspec.Struct, forbid_unknown_fields=True, tag_field="kind", tag="range"):
    name: str | None
    start: int
    stop: int
    step: int


class _PandasSchema(msgspec.Struct, forbid_unknown_fields=True):
    index_columns: list[str | _PandasRange]
    column_indexes: list[_PandasColumn]
    columns: list[_PandasColumn]
    attributes: dict[str, str | int | float | bool | None] = {}
    creator: dict[str, str] = {}
    pandas_version: str | None = None


def _without_harm(schema: pa.Schema) -> pa.Schema:
    metadata = schema.metadata
    if not metadata or b"pandas" not in metadata or _is_harmless(metadata[b"pandas"]):
        return schema
    warnings.warn(
        "the received table's notes for pandas were unusual and have been dropped; set the index yourself", stacklevel=4
    )
    return schema.with_metadata({key: value for key, value in metadata.items() if key != b"pandas"})


def _is_harmless(notes: bytes) -> bool:
    try:
        parsed = msgspec.json.decode(notes, type=_PandasSchema)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return False
    for column in [*parsed.columns, *parsed.column_indexes]:
        if not (_PANDAS_TYPES.fullmatch(column.pandas_type) and _PANDAS_TYPES.fullmatch(column.numpy_type)):
            return False
        if (column.name or "").startswith("("):  # pyarrow evaluates names of tuples as literals
            return False
    return True
