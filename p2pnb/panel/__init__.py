"""The room on screen: one widget class for the whole panel, and one for each of its parts.

    protocol.py   what a panel and its front end say to each other
    rooms.py      what a panel uses of a room: the public API, nothing else
    state.py      a room, written down as the slices the front end shows
    feed.py       numbered snapshots and patches, coalesced
    desk.py       the thread that runs commands and sends what changed
    uploads.py    files from the browser on their way into the room
    widget.py     the anywidget classes

The front end's source is in ``jupyter_extension/frontend``; what is built from it is in ``static``.
Synced traits (which notebooks save) hold nothing of a room: its state goes by custom messages only.
"""

from p2pnb.panel.widget import ChatPanel, DataPanel, FilesPanel, Panel, RoomPanel

__all__ = ["ChatPanel", "DataPanel", "FilesPanel", "Panel", "RoomPanel"]
