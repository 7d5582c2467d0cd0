"""What a panel and its front end say to each other, on one screen.

Custom messages of the widget's comm, JSON. The front end's twin is ``frontend/src/ports/protocol.ts``.

    kernel → front end
      {"kind": "snapshot", "seq": n, "state": {slice: value, …}}      every slice
      {"kind": "patch", "seq": n, "changes": {slice: value, …},       slices that are new as a whole, and
                        "appends": {slice: [entry, …]}}               what was added to growing lists
      {"kind": "started", "id": k}                                    a command that takes its time was begun
      {"kind": "ack", "id": k, "ok": true, "value": …}                every command gets exactly one answer,
      {"kind": "ack", "id": k, "ok": false,                           which may get lost and be asked for
                      "error": {"code": "WrongCodeError", "message": "…"}}
    front end → kernel
      {"id": k, "cmd": "…", …}                                        one of `Command`; k is an integer, unique
                                                                      over all pages that show the widget

Patches are numbered without a gap; a snapshot carries the number of the last patch it contains. A front
end that misses a number (Jupyter servers drop messages under load) asks for a snapshot. Every
15 s it sends `Sync`, which finds lost patches and lost acks. A command that comes twice is run once.

Slices: room, invite, peers, messages (the last MAX_MESSAGES), transfers, offers, shares (MAX_SHARES; own
ones first), items (files and objects received, the last MAX_ITEMS), notices. `state.py` says what is in them.

Uploads: `UploadBegin` names the files of one transfer, `UploadPiece` carries at most MAX_PIECE_BYTES in
its one buffer, each file from its beginning to its end; the front end keeps a few pieces under way, so
a kernel that runs a cell holds no more than those in memory. `UploadEnd` answers with the transfer's id.

Ids are integers because ipykernel 7.4 remembers the string ids of all comm messages that it ever sent.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pnb.protocol import wire

__all__ = ["Command", "decode_command"]

MAX_MESSAGES: Final = 500
MAX_ITEMS: Final = 200
MAX_TRANSFERS: Final = 200
MAX_OFFERS: Final = 100
MAX_SHARES: Final = 100
MAX_NOTICES: Final = 10
MAX_KEY_CHARS: Final = 400  # of a share: its name, its owner's, and a number to tell them apart
MAX_ROW: Final = 2**53 - 1  # a browser's whole numbers
MAX_PIECE_BYTES: Final = 1024 * 1024  # a Jupyter server closes a kernel's connection at messages of 10 MiB
MAX_UPLOAD_FILES: Final = 10_000  # their names fit into one message
MAX_UPLOADS: Final = 16  # begun and not ended, over all pages; each holds a folder on the disk
MAX_REMEMBERED_ACKS: Final = 1024  # far more than a front end has under way


Key = Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARS)]
Row = Annotated[int, msgspec.Meta(ge=0, le=MAX_ROW)]
# What can be ticked are the columns of a preview.
Columns = Annotated[list[str], msgspec.Meta(min_length=1, max_length=wire.MAX_PREVIEW_COLUMNS)]


class _Command(msgspec.Struct, frozen=True, tag_field="cmd", forbid_unknown_fields=False):
    id: int


class Snapshot(_Command, frozen=True, tag="snapshot"):
    """Send everything."""


class Sync(_Command, frozen=True, tag="sync"):
    """Here I am; I have `seq`, and these ids are unanswered. Answer: {"unknown": ids that never came}."""

    seq: int
    ids: list[int] = []


class Location(_Command, frozen=True, tag="location"):
    """The address under which this browser sees the kernel's Jupyter server."""

    origin: str
    base_url: str


class Create(_Command, frozen=True, tag="create"):
    name: str = ""


class Join(_Command, frozen=True, tag="join"):
    invite: str
    name: str = ""


class Leave(_Command, frozen=True, tag="leave"):
    pass


class Unlock(_Command, frozen=True, tag="unlock"):
    pass


class Chat(_Command, frozen=True, tag="chat"):
    """`to` holds peer ids, here and below; None is everybody."""

    text: str
    to: list[str] | None = None


class Accept(_Command, frozen=True, tag="accept"):
    offer: str


class Decline(_Command, frozen=True, tag="decline"):
    offer: str


class Cancel(_Command, frozen=True, tag="cancel"):
    transfer: str


class Pause(_Command, frozen=True, tag="pause"):
    transfer: str


class Resume(_Command, frozen=True, tag="resume"):
    transfer: str


class Retry(_Command, frozen=True, tag="retry"):
    """Send files again to those who failed to get them. Answer: {"transfer": id} of the new one."""

    transfer: str


class FetchShare(_Command, frozen=True, tag="fetch_share"):
    """Fetch a share into the inbox, or a part: `columns` by name, `rows` as [first, end). Answer: {"transfer": id}.

    `share` is its key; `owner` has to be the one who was on the screen, because a key may pass to another's share.
    """

    share: Key
    owner: str
    columns: Columns | None = None
    rows: tuple[Row, Row | None] | None = None


class Unshare(_Command, frozen=True, tag="unshare"):
    """Take an own share back."""

    share: Key


class Verify(_Command, frozen=True, tag="verify"):
    peer: str
    value: bool


class UploadBegin(_Command, frozen=True, tag="upload_begin"):
    """`files` are relative paths with "/" and sizes; files that share their first component are one folder."""

    upload: int
    files: list[tuple[str, int]]
    to: list[str] | None = None


class UploadPiece(_Command, frozen=True, tag="upload_piece"):
    upload: int
    file: int  # index into UploadBegin.files
    offset: int


class UploadEnd(_Command, frozen=True, tag="upload_end"):
    upload: int


class UploadAbort(_Command, frozen=True, tag="upload_abort"):
    upload: int


Command = (
    Snapshot
    | Sync
    | Location
    | Create
    | Join
    | Leave
    | Unlock
    | Chat
    | Accept
    | Decline
    | Cancel
    | Pause
    | Resume
    | Retry
    | FetchShare
    | Unshare
    | Verify
    | UploadBegin
    | UploadPiece
    | UploadEnd
    | UploadAbort
)


def decode_command(content: Any) -> Command:
    """Return the command in a message's content; ValueError for anything else."""
    try:
        command: Command = msgspec.convert(content, Command)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a command of a panel: {error}") from error
    return command
