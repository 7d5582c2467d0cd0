"""Line magics: ``%load_ext p2pnb``, then ``%p2p``. Thin wrappers of the API."""

from __future__ import annotations

import shlex
from typing import Any, Final

from p2pnb.errors import UsageError
from p2pnb.room import Room, create, join

__all__ = ["load"]

_HELP: Final = """%p2p create [NAME]          open a room; the variable `room` holds it
%p2p join INVITE [NAME]     join one; the variable `room` holds it
%p2p status                 who is here and what is on its way
%p2p send VARIABLE [TO]     send an object
%p2p file PATH [TO]         send a file or folder
%p2p chat TEXT              say something to everybody
%p2p leave                  leave the room"""


class _Magics:
    """`%p2p` in one IPython shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def __call__(self, line: str) -> Any:
        command, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if command == "chat":
            return self._room().chat(rest)
        words = shlex.split(rest)
        match command, words:
            case "create", [*name]:
                return self._keep(create(" ".join(name) or None))
            case "join", [invite, *name]:
                return self._keep(join(invite, " ".join(name) or None))
            case "status", []:
                return self._room().peers
            case "send", [variable, *to]:
                if variable not in self._shell.user_ns:
                    raise UsageError(f"There is no variable {variable!r} in this notebook.")
                return self._room().send(self._shell.user_ns[variable], variable, to=to or None)
            case "file", [path, *to]:
                return self._room().send_file(path, to=to or None)
            case "leave", []:
                return self._room().leave()
            case _:
                raise UsageError(f"%p2p {command or '…'} is not a command:\n{_HELP}")

    def _keep(self, room: Room) -> Room:
        self._shell.user_ns["room"] = room
        return room

    def _room(self) -> Room:
        room = self._shell.user_ns.get("room")
        if not isinstance(room, Room):
            raise UsageError("No room yet: %p2p create, or %p2p join INVITE.")
        return room


def load(shell: Any) -> None:
    """Register the magics in an IPython shell."""
    shell.register_magic_function(_Magics(shell), "line", "p2p")
