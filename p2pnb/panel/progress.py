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
_STYLES: Final = {
    "done": "success",
    "failed": "danger",
    "declined": "warning",
    "cancelled": "warning",
    "paused": "info",
}


class ProgressBar:
    """One bar for one transfer."""

    def __init__(self, transfer: Transfer) -> None:
        from ipywidgets import FloatProgress, Layout

        self._bar = FloatProgress(
            min=0.0,
            max=1.0,
            value=transfer.progress,
            description=_line(transfer, transfer.state),
            description_allow_html=False,
            style={"description_width": "28em"},
            layout=Layout(width="48em"),
        )
        self._told_at = 0.0
        self._told = ""  # the state then
        self.update(transfer)

    def update(self, transfer: Transfer) -> None:
        """Show the present state at once when it is another one, else at most four times a second."""
        now = time.monotonic()
        state = transfer.state
        # Nothing comes after a pause that could make up for what was left out.
        if state == self._told and now - self._told_at < _EVERY_S:
            return
        self._told_at, self._told = now, state
        self._bar.value = transfer.progress
        self._bar.description = _line(transfer, state)
        self._bar.bar_style = _STYLES.get(state, "")

    def mimebundle(self, text: str) -> Any:
        """Return what a cell shows."""
        bundle = self._bar._repr_mimebundle_()
        data = dict(bundle[0] if isinstance(bundle, tuple) else bundle or {})
        data["text/plain"] = text
        return data


def _line(transfer: Transfer, state: str) -> str:
    name = transfer.name if len(transfer.name) <= 24 else f"{transfer.name[:23]}…"
    rate = f" · {human_size(int(transfer.rate))}/s" if transfer.rate and state != "paused" else ""
    return f"{name} · {state}{rate}"
