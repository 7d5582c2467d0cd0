"""A room in a notebook: chat, files and live Python objects from kernel to kernel, end-to-end encrypted.

    import p2pnb
    room = p2pnb.create(name="Ada")        # on my Jupyter server; room.invite has link, code and QR
    room = p2pnb.join(link, name="Ben")    # on another one
    room.send(df, "prices")                # room.receive("prices") over there
    room                                   # the panel

Names are loaded when they are first used, so importing p2pnb costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pnb import errors
    from p2pnb.inbox import Inbox, InboxItem, Message
    from p2pnb.invite import Invite
    from p2pnb.objects import register_codec, register_dataclass
    from p2pnb.panel import ChatPanel, DataPanel, FilesPanel, Panel, RoomPanel
    from p2pnb.peer import Peer
    from p2pnb.room import Room, create, join
    from p2pnb.shares import Share, Shares
    from p2pnb.transfer import Offer, Transfer

__all__ = [
    "ChatPanel",
    "DataPanel",
    "FilesPanel",
    "Inbox",
    "InboxItem",
    "Invite",
    "Message",
    "Offer",
    "Panel",
    "Peer",
    "Room",
    "RoomPanel",
    "Share",
    "Shares",
    "Transfer",
    "__version__",
    "create",
    "errors",
    "join",
    "register_codec",
    "register_dataclass",
]

__version__ = "0.1.0"

_HOMES = {
    "Inbox": "inbox",
    "InboxItem": "inbox",
    "Message": "inbox",
    "Invite": "invite",
    "register_codec": "objects",
    "register_dataclass": "objects",
    "ChatPanel": "panel",
    "DataPanel": "panel",
    "FilesPanel": "panel",
    "Panel": "panel",
    "RoomPanel": "panel",
    "Peer": "peer",
    "Room": "room",
    "create": "room",
    "join": "room",
    "Share": "shares",
    "Shares": "shares",
    "Offer": "transfer",
    "Transfer": "transfer",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "errors":
        return importlib.import_module("p2pnb.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'p2pnb' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"p2pnb.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics: ``%load_ext p2pnb``."""
    from p2pnb.magics import load

    load(ipython)
