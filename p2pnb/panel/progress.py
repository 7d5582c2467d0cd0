"""The progress bar that a `Transfer` shows as the last line of a cell.

A stock ipywidgets bar: its description is plain text, and setting it from the engine's thread only sends a
comm message. Where there are no widgets the text form has to do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from p2pnb.files.sizes import human_size

if TYPE_CHECKING:
    from p2pnb.transfer import Transfer

__all__ = ["ProgressBar"]

_EVERY_S: Final = 0.25
_STYLES: Final = {"done": "success", "failed": "danger", "declined": "warning", "cancelled": "warning"}


class ProgressBar:
    """One bar for one transfer."""

    def __init__(self, transfer: Transfer) -> None:
        from ipywidgets import FloatProgress, Layout

        self._bar = FloatProgress(
            min=0.0,
            max=1.0,
            value=transfer.progress,
            description=_line(transfer),
            description_allow_html=False,
            style={"description_width": "28em"},
            layout=Layout(width="48em"),
        )
        self._told_at = 0.0
        self.update(transfer)

    def update(self, transfer: Transfer) -> None:
        """Show the present state; at most four times a second while it moves."""
        now = time.monotonic()
        style = _STYLES.get(transfer.state)
        if style is None and now - self._told_at < _EVERY_S:
            return
        self._told_at = now
        self._bar.value = transfer.progress
        self._bar.description = _line(transfer)
        self._bar.bar_style = style or ""

    def mimebundle(self, text: str) -> Any:
        """Return what a cell shows."""
        bundle = self._bar._repr_mimebundle_()
        data = dict(bundle[0] if isinstance(bundle, tuple) else bundle or {})
        data["text/plain"] = text
        return data


def _line(transfer: Transfer) -> str:
    name = transfer.name if len(transfer.name) <= 24 else f"{transfer.name[:23]}…"
    rate = f" · {human_size(int(transfer.rate))}/s" if transfer.rate else ""
    return f"{name} · {transfer.state}{rate}"
