"""The rows, one module per group. Importing this registers them."""

from __future__ import annotations

from typing import Final

from tests.bench.registry import ROWS, Row
from tests.bench.rows import bulk, crowds, lines, small

__all__ = ["ORDER", "bulk", "crowds", "in_order", "lines", "small"]

# That of the table of figures to reach.
ORDER: Final = (
    "dataframe", "file", "webrtc-lossy", "webrtc-clean", "tcp-line", "relay", "join", "round-trip", "chat-beside-bulk",
    "eight-receivers", "import", "thirty-peers",
)  # fmt: skip


def in_order() -> list[Row]:
    """Return all rows; KeyError if one is registered that ORDER forgets, or the other way round."""
    if forgotten := set(ROWS) - set(ORDER):
        raise KeyError(f"ORDER lacks {forgotten}")
    return [ROWS[key] for key in ORDER]
