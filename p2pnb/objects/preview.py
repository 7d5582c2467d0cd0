"""What a person sees of a value before accepting it: type, one line, columns, first rows.

A preview is made quickly (it looks at the first rows only, whatever the size), never raises, and is small: it rides in
an offer, which is one control frame. Its strings are shortened raw text; the receiver makes them safe to show.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from p2pnb.protocol.wire import MAX_PREVIEW_CELL_CHARS, MAX_PREVIEW_COLUMNS, MAX_PREVIEW_ROWS, Column, Preview

__all__ = ["cell", "describe_array", "describe_table", "human_bytes", "plural", "safe_preview", "shorten"]

MAX_PREVIEW_BYTES: Final = 16 * 1024  # leaves room for small content in the same control frame
MAX_TEXT_CHARS: Final = 2000
MAX_NAME_CHARS: Final = 80
MAX_SUMMARY_CHARS: Final = 200

_brief = reprlib.Repr()
_brief.maxlevel = 3
_brief.maxstring = _brief.maxother = MAX_PREVIEW_CELL_CHARS
_brief.maxlong = 40


def shorten(text: str, limit: int = MAX_PREVIEW_CELL_CHARS) -> str:
    """Return at most `limit` characters of `text` that UTF-8 can carry."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text.encode("utf-8", "replace").decode()


def cell(value: object, limit: int = MAX_PREVIEW_CELL_CHARS) -> str:
    """Return one value as short text, without making a long text first."""
    try:
        if isinstance(value, str):
            return shorten(value[: limit + 1], limit)
        if value is None or isinstance(value, list | tuple | dict | set | frozenset | bytes | int):
            return shorten(_brief.repr(value), limit)
        return shorten(str(value), limit)
    except Exception:  # noqa: BLE001 - anybody's __repr__
        return f"<{type(value).__name__}>"


def plural(count: int, noun: str) -> str:
    """Return "1 row", "1,000 rows"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def human_bytes(size_bytes: int) -> str:
    """Return a size in decimal units: "812 bytes", "1.2 MB"."""
    if size_bytes < 1000:
        return plural(size_bytes, "byte")
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:,.3g} PB"


def describe_table(
    type_name: str,
    rows: int,
    columns: int,
    heads: Iterable[tuple[object, object]],
    first: Sequence[Sequence[object]],
) -> Preview:
    """Describe a table of `rows` × `columns`: `heads` are (name, type), `first` the first rows' values."""
    return Preview(
        type_name,
        f"{plural(rows, 'row')} × {plural(columns, 'column')}",
        [Column(cell(name, MAX_NAME_CHARS), cell(kind, MAX_NAME_CHARS)) for name, kind in heads],
        [[cell(value) for value in row[:MAX_PREVIEW_COLUMNS]] for row in first[:MAX_PREVIEW_ROWS]],
    )


def describe_array(array: Any, type_name: str) -> Preview:
    """Describe a numpy array or scalar."""
    if not hasattr(array, "shape") or array.shape == ():
        return Preview(type_name, f"{array.dtype} {cell(array)}", text=cell(array, MAX_TEXT_CHARS))
    shape = " × ".join(f"{length:,}" for length in array.shape)
    first: list[list[str]] = []
    if array.ndim <= 2 and array.size:
        corner = array[:MAX_PREVIEW_ROWS] if array.ndim == 1 else array[:MAX_PREVIEW_ROWS, :MAX_PREVIEW_COLUMNS]
        first = [[cell(value) for value in (row if array.ndim == 2 else [row])] for row in corner]
    return Preview(type_name, f"{shape} of {shorten(str(array.dtype))}, {human_bytes(array.nbytes)}", rows=first)


def safe_preview(make: Callable[[], Preview | None], type_name: str, size_bytes: int) -> Preview:
    """Return the preview `make` returns, within the limits; type and size alone if it fails."""
    fallback = Preview(shorten(type_name, MAX_NAME_CHARS), human_bytes(size_bytes))
    try:
        made = make()
        return fallback if made is None else _fit(made)
    except Exception:  # noqa: BLE001 - a preview is a courtesy; the value's own code may fail in many ways
        return fallback


def _fit(preview: Preview) -> Preview:
    fitted = Preview(
        shorten(preview.type, MAX_NAME_CHARS),
        shorten(preview.summary, MAX_SUMMARY_CHARS),
        [
            Column(shorten(column.name, MAX_NAME_CHARS), shorten(column.type, MAX_NAME_CHARS))
            for column in preview.columns[:MAX_PREVIEW_COLUMNS]
        ],
        [[shorten(text) for text in row[:MAX_PREVIEW_COLUMNS]] for row in preview.rows[:MAX_PREVIEW_ROWS]],
        shorten(preview.text, MAX_TEXT_CHARS),
    )
    columns, rows, chars = MAX_PREVIEW_COLUMNS, MAX_PREVIEW_ROWS, MAX_PREVIEW_CELL_CHARS
    while len(msgspec.msgpack.encode(fitted)) > MAX_PREVIEW_BYTES and columns > 1:
        chars = max(chars // 2, 16)
        rows = max(rows - 2, 3)
        columns = columns if chars > 16 else columns // 2
        fitted = Preview(
            fitted.type,
            fitted.summary,
            [Column(shorten(column.name, chars), shorten(column.type, chars)) for column in fitted.columns[:columns]],
            [[shorten(text, chars) for text in row[:columns]] for row in fitted.rows[:rows]],
            fitted.text[: 25 * chars],
        )
    return fitted
