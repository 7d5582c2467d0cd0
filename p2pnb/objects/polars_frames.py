"""polars frames and series: Arrow columns, and our own description of the types Arrow does not tell apart.

polars marks enums and categoricals with metadata keys it acts on when it reads Arrow back; they are removed on both
sides, and the types are restored by casting to the schema the notes describe, in a closed grammar.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects.arrays import is_from
from p2pnb.objects.arrow import import_pyarrow
from p2pnb.objects.arrow_stream import MAX_EMPTY_ROWS, read_stream, write_stream
from p2pnb.objects.codec import Codec, Packed, read_note, write_note
from p2pnb.objects.preview import describe_table
from p2pnb.protocol.wire import MAX_PREVIEW_COLUMNS, MAX_PREVIEW_ROWS, Preview

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

__all__ = ["PolarsCodec"]

_SIMPLE: Final = frozenset(
    [
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "Int128",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "UInt128",
        "Float16",
        "Float32",
        "Float64",
        "Boolean",
        "String",
        "Binary",
        "Date",
        "Time",
        "Null",
    ]
)
_AS_TEXT: Final = ("Int128", "UInt128")  # Arrow has no such type
_UNITS: Final = ("ms", "us", "ns")
MAX_DEPTH: Final = 24


class Kind(msgspec.Struct, frozen=True, array_like=True):
    """One polars type: its class's name, its texts and numbers, the types inside it."""

    name: str
    texts: list[str] = []
    numbers: list[int] = []
    inner: list[Kind] = []


class PolarsNote(msgspec.Struct, frozen=True, array_like=True):
    """A frame (`series` False) or a series; the names are the schema's."""

    series: bool
    rows: int
    kinds: list[Kind]


def _describe(dtype: pl.DataType, column: str, depth: int = 0) -> Kind:
    import polars as pl

    name = type(dtype).__name__
    if name in _SIMPLE and (depth == 0 or name not in _AS_TEXT):
        return Kind(name)
    if depth < MAX_DEPTH:
        match dtype:
            case pl.Datetime():
                return Kind(name, [dtype.time_unit, *([dtype.time_zone] if dtype.time_zone else [])])
            case pl.Duration():
                return Kind(name, [dtype.time_unit])
            case pl.Decimal():
                return Kind(name, [], [dtype.precision, dtype.scale])
            case pl.Enum():
                return Kind(name, dtype.categories.to_list())
            case pl.Categorical():
                return _describe_categorical(dtype, column)
            case pl.List():
                return Kind(name, [], [], [_describe(_made(dtype.inner), column, depth + 1)])
            case pl.Array():
                size = dtype.shape[0]
                return Kind(name, [], [size], [_describe(_made(dtype.inner), column, depth + 1)])
            case pl.Struct():
                inner = [_describe(_made(field.dtype), column, depth + 1) for field in dtype.fields]
                return Kind(name, [field.name for field in dtype.fields], [], inner)
    advice = (
        "cast it to a plain type" if name != "Object" else "convert it to plain columns, or send its list of values"
    )
    raise NotSupportedError(f"column {column!r}: the polars type {dtype} can't be sent; {advice}")


def _made(dtype: Any) -> pl.DataType:
    return cast("pl.DataType", dtype() if isinstance(dtype, type) else dtype)


def _describe_categorical(dtype: pl.Categorical, column: str) -> Kind:
    categories = getattr(dtype, "categories", None)
    if categories is None or categories.is_global():
        return Kind("Categorical")
    raise NotSupportedError(
        f"column {column!r}: categories of a set of their own can't be sent; cast it to pl.Categorical or pl.Enum"
    )


def _build(kind: Kind, depth: int = 0) -> pl.DataType:
    import polars as pl

    if depth > MAX_DEPTH:
        raise CorruptDataError("a received column is nested too deep")
    inner = [_build(part, depth + 1) for part in kind.inner]
    match kind.name, kind.texts, kind.numbers, inner:
        case str(name), [], [], [] if name in _SIMPLE:
            return cast("pl.DataType", getattr(pl, name)())
        case "Datetime", [("ms" | "us" | "ns") as unit], [], []:
            return pl.Datetime(unit)
        case "Datetime", [("ms" | "us" | "ns") as unit, zone], [], []:
            return pl.Datetime(unit, zone)
        case "Duration", [("ms" | "us" | "ns") as unit], [], []:
            return pl.Duration(unit)
        case "Decimal", [], [precision, scale], [] if 0 <= scale <= precision <= 38:
            return pl.Decimal(precision, scale)
        case "Enum", texts, [], []:
            return pl.Enum(texts)
        case "Categorical", [], [], []:
            return pl.Categorical()
        case "List", [], [], [item]:
            return pl.List(item)
        case "Array", [], [size], [item] if 0 <= size < 2**31:
            return pl.Array(item, size)
        case "Struct", names, [], parts if len(names) == len(parts):
            return pl.Struct([pl.Field(name, part) for name, part in zip(names, parts, strict=True)])
    raise CorruptDataError("a received column is of an unknown polars type")


class PolarsCodec(Codec):
    """polars.DataFrame and polars.Series."""

    name = "polars"

    def takes(self, value: object) -> bool:
        if not is_from(value, "polars"):
            return False
        import polars as pl

        if isinstance(value, pl.LazyFrame):
            raise NotSupportedError("a LazyFrame is a plan, not data; send frame.collect()")
        return isinstance(value, pl.DataFrame | pl.Series)

    def encode(self, value: Any) -> Packed:
        import polars as pl

        import_pyarrow()
        series = isinstance(value, pl.Series)
        frame = value.to_frame() if series else value
        kinds = [_describe(dtype, name) for name, dtype in frame.schema.items()]
        wide = [name for name, kind in zip(frame.columns, kinds, strict=True) if kind.name in _AS_TEXT]
        if wide:
            frame = frame.with_columns(pl.col(name).cast(pl.String) for name in wide)
        if frame.height > MAX_EMPTY_ROWS and kinds and all(_may_be_empty(kind) for kind in kinds):
            raise NotSupportedError("a frame of nothing but empty columns is not sent at this length; send its length")
        table = _bare(frame.to_arrow(compat_level=pl.CompatLevel.newest()))
        return Packed(write_note(PolarsNote(series, frame.height, kinds)), [write_stream(table)])

    def check(self, note: bytes, lengths: Sequence[int]) -> None:
        if len(lengths) != 1 or read_note(note, PolarsNote).rows < 0:
            raise CorruptDataError("the received frame is malformed")

    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        import_pyarrow()
        import pyarrow as pa

        parsed = read_note(note, PolarsNote)
        schema, batches = read_stream(buffers[0])
        table = _bare(pa.Table.from_batches(batches, schema))
        if table.num_columns != len(parsed.kinds) or (parsed.series and len(parsed.kinds) != 1):
            raise CorruptDataError("the received frame has another number of columns than announced")
        if table.num_rows != parsed.rows:
            raise CorruptDataError("the received frame has another number of rows than announced")
        try:
            import polars as pl
        except ImportError:
            warnings.warn("polars is not installed: the frame arrives as a pyarrow.Table", stacklevel=4)
            return table
        frame = cast("pl.DataFrame", pl.from_arrow(table, rechunk=False)) if table.num_columns else pl.DataFrame()
        target = {name: _build(kind) for name, kind in zip(frame.columns, parsed.kinds, strict=True)}
        changed = {name: dtype for name, dtype in target.items() if frame.schema[name] != dtype}
        if changed:
            frame = frame.cast(changed)  # type: ignore[arg-type]
        return frame.to_series() if parsed.series else frame

    def preview(self, value: Any) -> Preview:
        import polars as pl

        frame = value.to_frame() if isinstance(value, pl.Series) else value
        rows, columns = frame.shape
        first = frame[:MAX_PREVIEW_ROWS, :MAX_PREVIEW_COLUMNS]
        return describe_table(self.type_name(value), rows, columns, list(first.schema.items()), first.rows())


def _may_be_empty(kind: Kind) -> bool:
    return kind.name in ("Null", "Struct", "Array") or any(_may_be_empty(part) for part in kind.inner)


def _bare(table: pa.Table) -> pa.Table:
    """Return the table without any metadata, at any depth."""
    import pyarrow as pa

    return table.cast(pa.schema([_bare_field(field) for field in table.schema])) if _has_metadata(table) else table


def _has_metadata(table: pa.Table) -> bool:
    return bool(table.schema.metadata) or any(_field_has_metadata(field) for field in table.schema)


def _field_has_metadata(field: pa.Field) -> bool:
    kind = field.type
    return bool(field.metadata) or any(_field_has_metadata(kind.field(at)) for at in range(kind.num_fields))


def _bare_field(field: pa.Field) -> pa.Field:
    return field.remove_metadata()
