"""The anywidget classes: a room on screen, as a whole or in parts.

One class family and one front-end module: `view` is the only thing that tells them apart, and the only
trait of ours that is synced. What is shown goes by custom messages, which no notebook saves: invites, names
and messages must not be in an ``.ipynb``.

Rejected: anywidget's own command channel, because it gives up after 3 s, and a kernel may be busy for longer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import anywidget
import traitlets

from p2pnb.errors import UsageError
from p2pnb.panel.desk import Desk, PublicRooms
from p2pnb.panel.namespace import expression_for
from p2pnb.panel.rooms import Room

__all__ = ["ChatPanel", "DataPanel", "FilesPanel", "Panel", "RoomPanel"]

VIEWS: Final = ("all", "room", "chat", "files", "data")

_STATIC: Final = Path(__file__).parent / "static"
_BUILT: Final = (_STATIC / "panel.js").is_file() and (_STATIC / "panel.css").is_file()


class Panel(anywidget.AnyWidget):
    """Show a room in the notebook: Room · Chat · Files · Data.

    Without a room it shows a lobby, in which one is created or joined; it is `Panel.room` then. A panel may be
    displayed any number of times, and a room may have any number of panels. Closing a panel leaves the room alone.
    """

    # A checkout without a built front end can still be imported; a panel says what is missing.
    _esm: ClassVar[Any] = _STATIC / "panel.js" if _BUILT else ""
    _css: ClassVar[Any] = _STATIC / "panel.css" if _BUILT else ""

    view = traitlets.Enum(VIEWS, default_value="all").tag(sync=True)

    _desk: Desk | None = None  # a widget that failed to come into being is closed too

    def __init__(self, room: Room | None = None, *, view: str | None = None, **kwargs: Any) -> None:
        if not _BUILT:
            raise UsageError("the panel's front end is not built in this checkout: run `make build`")
        opener: PublicRooms | None = kwargs.pop("_opener", None)
        if view is not None:
            kwargs["view"] = view
        super().__init__(**kwargs)
        answer_on_own_subshell(self.comm)
        self._desk = Desk(self._send_now, room, opener=opener, expression=lambda shown: expression_for(shown, self))
        self.on_msg(self._take)

    @property
    def room(self) -> Room | None:
        """The room shown, also after it was closed; None in the lobby."""
        return None if self._desk is None else self._desk.room

    def close(self) -> None:
        """Take the panel off the screen and free what it holds; the room stays open."""
        if self._desk is not None:
            self._desk.close()
        super().close()

    def __repr__(self) -> str:
        # Notebooks save this: no names, no invite.
        room = self.room
        return f"<{type(self).__name__}: {'lobby' if room is None else f'room {room.id}, {room.state}'}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return {"text/plain": repr(self)}
        data, metadata = bundle
        return {**data, "text/plain": repr(self)}, metadata

    def _take(self, _widget: object, content: Any, buffers: Sequence[bytes | memoryview]) -> None:
        if self._desk is not None:
            self._desk.submit(content, buffers)

    def _send_now(self, content: dict[str, Any]) -> None:
        # The comm may be closed between the desk's last look and now.
        with contextlib.suppress(AttributeError):
            self.send(content)


class RoomPanel(Panel):
    """Show a room's invite and its people."""

    view = traitlets.Enum(VIEWS, default_value="room").tag(sync=True)


class ChatPanel(Panel):
    """Show a room's chat."""

    view = traitlets.Enum(VIEWS, default_value="chat").tag(sync=True)


class FilesPanel(Panel):
    """Show a room's files and folders, and a place to drop some."""

    view = traitlets.Enum(VIEWS, default_value="files").tag(sync=True)


class DataPanel(Panel):
    """Show a room's objects, with previews and the lines of code that fetch them."""

    view = traitlets.Enum(VIEWS, default_value="data").tag(sync=True)


def answer_on_own_subshell(comm: Any) -> bool:
    """Let front-end messages of `comm` run on the subshell they were sent to; True if that needed a change.

    ipykernel 7.4 sends them to the shell that the kernel last *sent* from instead. Our sends come from a thread of
    our own and count as the running cell's, so that every answer of the user would wait for the cell to end.
    """
    if not callable(getattr(comm, "_reply_subshell_for", None)):
        return False
    comm._reply_subshell_for = lambda _data, default: default
    return True
