"""Parts of tables and arrays: some columns, some rows, as a value of the same type.

What a peer asks for is two numbers and names, and the names are compared, never interpreted: they are matched as text
against the value's own labels and become positions before any library hears of them. (polars takes ``^…$`` for a
pattern and ``*`` for every column; DuckDB would take a name for SQL.)

A part is a view wherever the library allows it; structured arrays are copied, because a view of some fields keeps the
bytes of the others. A column can't be asked for twice, so that a short request never makes a long answer.

Rejected: dictionaries of arrays, because nothing says that their values are columns of one length.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from p2pnb.errors import UsageError
from p2pnb.objects.arrays import is_from
from p2pnb.objects.preview import cell, shorten

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["columns_of", "rows_of", "slice_value", "sliceable"]

MAX_NAMES: Final = 10_000  # that columns_of returns
MAX_NAME_CHARS: Final = 1_000
_COMPARED_NAMES: Final = 1_000  # looked through for close matches
_COMPARED_CHARS: Final = 100


def sliceable(value: object) -> bool:
    """Say whether `slice_value` takes `value`; quick, and imports nothing.

    Those are pandas frames and series, polars frames and series, pyarrow tables, batches and arrays, DuckDB relations,
    and numpy arrays of one dimension or more.
    """
    return _kind(value) is not None


def rows_of(value: object) -> int | None:
    """Return how many rows `value` has; None where it has none, or would have to run a query to tell."""
    kind = _kind(value)
    return None if kind is None or kind == "relation" else len(cast("Sequence[object]", value))


def columns_of(value: object, limit: int = MAX_NAMES) -> list[str]:
    """Return the first `limit` names of columns as text that a peer may ask by; empty where columns have no names."""
    return [shorten(name, MAX_NAME_CHARS) for name in _names(value, limit)]


def slice_value(value: object, columns: Sequence[str] | None, rows: tuple[int, int] | None) -> object:
    """Return these columns, in this order, of rows [first, end), as a value of `value`'s type; None means all.

    A pandas index stays with its rows; a DuckDB relation's rows come as a `pyarrow.Table`. `end` may pass the last row.
    The part may share `value`'s memory. Raises `UsageError` for a value without parts, for negative or reversed rows,
    and for columns that are missing (naming those alike), named twice, or not told apart by their text.
    """
    kind = _kind(value)
    if kind is None:
        raise UsageError(f"a {type(value).__qualname__} has no rows or columns to choose from; ask for all of it")
    if rows is not None:
        _check_rows(rows)
    places = None if columns is None else _places(value, columns)
    return value if rows is None and places is None else _SLICERS[kind](value, places, rows)


def _kind(value: object) -> str | None:
    known = _KINDS.get((type(value).__module__.split(".", 1)[0].lstrip("_"), type(value).__name__))
    if known is not None:
        return known
    if is_from(value, "pyarrow") and any(base.__name__ == "Array" for base in type(value).__mro__):
        return "arrow array"
    if is_from(value, "numpy") and any(base.__name__ == "ndarray" for base in type(value).__mro__):
        return "array" if getattr(value, "ndim", 0) else None
    return None


_KINDS: Final = {
    ("pandas", "DataFrame"): "pandas",
    ("pandas", "Series"): "pandas series",
    ("polars", "DataFrame"): "polars",
    ("polars", "Series"): "polars series",
    ("pyarrow", "Table"): "arrow",
    ("pyarrow", "RecordBatch"): "arrow",
    ("pyarrow", "ChunkedArray"): "arrow array",
    ("duckdb", "DuckDBPyRelation"): "relation",
}


def _names(value: Any, limit: int | None = None) -> list[str]:
    match _kind(value):
        case "pandas":
            return [_text(label) for label in value.columns[:limit]]
        case "polars" | "relation":
            return [str(name) for name in value.columns[:limit]]
        case "arrow":
            return [str(name) for name in value.schema.names[:limit]]
        case "array":
            return list((value.dtype.names or ())[:limit])
    return []


def _text(label: object) -> str:
    try:
        return str(label)
    except Exception:  # noqa: BLE001 - anybody's __str__
        return f"<{type(label).__name__}>"


# ── what is asked for ───────────────────────────────────────────────────────────────────────────────
def _check_rows(rows: tuple[int, ...]) -> None:
    if len(rows) != 2 or any(type(bound) is not int for bound in rows):
        raise UsageError("rows are two whole numbers: the first row and the one after the last")
    first, end = rows
    if first < 0 or end < first:
        raise UsageError(f"rows {first:,} to {end:,} can't be had: count from 0, and end after the first")


def _bounds(rows: tuple[int, int] | None, count: int) -> tuple[int, int]:
    """Return the rows there are of those asked for; foreign numbers end here, so no library has to hold them."""
    if rows is None:
        return 0, count
    return min(rows[0], count), min(rows[1], count)


def _places(value: object, columns: Sequence[str]) -> list[int]:
    names = _names(value)
    if type(columns) not in (list, tuple) or any(type(column) is not str for column in columns):
        raise UsageError('columns are a list of names, such as ["a", "b"]')
    if not names:
        raise UsageError(f"a {type(value).__qualname__} without named columns can only be asked for rows")
    if not columns:
        raise UsageError("not one column was named; name those you want, or none of it for all")
    known: dict[str, int] = {}
    twice: set[str] = set()
    for place, name in enumerate(names):
        if known.setdefault(name, place) != place:
            twice.add(name)
    found: dict[str, int] = {}
    for column in columns:
        if column not in known:
            raise UsageError(f"there is no column {_quoted(column)}; {_alike(column, names)}")
        if column in twice:
            raise UsageError(
                f"several columns are called {_quoted(column)}, so it is not clear which; ask for them all"
            )
        if column in found:
            raise UsageError(f"column {_quoted(column)} was named twice")
        found[column] = known[column]
    return list(found.values())


def _alike(column: str, names: Sequence[str]) -> str:
    some = [name for name in names[:_COMPARED_NAMES] if len(name) <= _COMPARED_CHARS]
    close = difflib.get_close_matches(column[:_COMPARED_CHARS], some, 3)
    if not close:
        folded = column[:_COMPARED_CHARS].casefold()
        close = [name for name in some if name.casefold() == folded][:3]
    if close:
        return f"did you mean {' or '.join(map(_quoted, close))}?"
    return f"its columns are {', '.join(map(_quoted, names[:5]))}{', …' if len(names) > 5 else ''}"


def _quoted(name: str) -> str:
    return f"'{cell(name)}'"


# ── one way per library ─────────────────────────────────────────────────────────────────────────────
def _slice_pandas(value: pd.DataFrame, places: list[int] | None, rows: tuple[int, int] | None) -> Any:
    import pandas as pd

    if rows is not None:
        first, end = _bounds(rows, len(value))
        value = value.iloc[first:end]
        value.index = _own_levels(value.index)
    if places is None:
        return value
    if places == list(range(places[0], places[0] + len(places))):
        return value.iloc[:, places[0] : places[0] + len(places)]
    parts = {at: value.iloc[:, place] for at, place in enumerate(places)}  # a list of places would copy them
    found = pd.DataFrame(parts, index=value.index, columns=range(len(places)), copy=False)
    found.columns = value.columns[places]
    found.attrs = value.attrs
    return found.set_flags(allows_duplicate_labels=value.flags.allows_duplicate_labels)


def _slice_pandas_series(value: pd.Series[Any], _: object, rows: tuple[int, int] | None) -> Any:
    first, end = _bounds(rows, len(value))
    value = value.iloc[first:end]
    value.index = _own_levels(value.index)
    return value


def _own_levels(index: pd.Index[Any]) -> Any:
    """Return the index without labels that only other rows have."""
    import pandas as pd

    return index.remove_unused_levels() if isinstance(index, pd.MultiIndex) else index


def _slice_polars(value: Any, places: list[int] | None, rows: tuple[int, int] | None) -> Any:
    import polars as pl

    if places is not None:
        value = pl.DataFrame([value.to_series(place) for place in places])
    first, end = _bounds(rows, len(value))
    return value.slice(first, end - first)


def _slice_arrow(value: Any, places: list[int] | None, rows: tuple[int, int] | None) -> Any:
    if places is not None:
        value = value.select(places)
    first, end = _bounds(rows, len(value))
    return value.slice(first, end - first)


def _slice_relation(value: Any, places: list[int] | None, rows: tuple[int, int] | None) -> Any:
    import pyarrow as pa

    return _slice_arrow(pa.table(value), places, rows)


def _slice_array(value: Any, places: list[int] | None, rows: tuple[int, int] | None) -> Any:
    first, end = _bounds(rows, len(value))
    value = value[first:end]
    if places is None:
        return value
    from numpy.lib import recfunctions

    repack: Any = recfunctions.repack_fields
    return repack(value[[value.dtype.names[place] for place in places]])


_SLICERS: Final[dict[str, Callable[[Any, list[int] | None, tuple[int, int] | None], object]]] = {
    "pandas": _slice_pandas,
    "pandas series": _slice_pandas_series,
    "polars": _slice_polars,
    "polars series": _slice_polars,
    "arrow": _slice_arrow,
    "arrow array": _slice_arrow,
    "relation": _slice_relation,
    "array": _slice_array,
}
