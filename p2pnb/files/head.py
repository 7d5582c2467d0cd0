"""The head of a file or folder transfer: which files its content stream is made of, in which order.

    FolderHead  [entries, folders]          MessagePack
    entry       [path, size, mtime]         path relative, separator "/"; size in bytes; mtime in milliseconds
    folders     [path, …]                   the folders that hold nothing

The content is the files' bytes one after the other, without padding. A single file has a head of one entry;
its final name is the offer's.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from p2pnb.errors import CorruptDataError
from p2pnb.files.sizes import human_size
from p2pnb.protocol.wire import MAX_HEAD_BYTES, MAX_SIZE_BYTES

__all__ = ["FileEntry", "FolderHead", "decode_head", "encode_head"]

MAX_ENTRIES: Final = 300_000  # what fits MAX_HEAD_BYTES with ordinary names; refused before any of them is parsed

_Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE_BYTES)]
_Path = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]  # what a browser can hold exactly


class FileEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    path: _Path
    size: _Size
    mtime: _Milliseconds = 0  # since the epoch; 0: not known


class FolderHead(msgspec.Struct, frozen=True, array_like=True):
    entries: Annotated[list[FileEntry], msgspec.Meta(max_length=MAX_ENTRIES)]
    folders: Annotated[list[_Path], msgspec.Meta(max_length=MAX_ENTRIES)] = []


_decoder = msgspec.msgpack.Decoder(FolderHead)


def encode_head(head: FolderHead) -> bytes:
    """Return the head's bytes; ValueError if they are more than a transfer takes."""
    data = msgspec.msgpack.encode(head)
    if len(data) > MAX_HEAD_BYTES or len(head.entries) > MAX_ENTRIES or len(head.folders) > MAX_ENTRIES:
        raise ValueError(f"head of {len(data)} bytes for {len(head.entries)} files")
    return data


def decode_head(data: bytes | memoryview, kind: str, content_bytes: int) -> FolderHead:
    """Parse a received head and hold it against the announced size of the content; raises CorruptDataError.

    Paths are not checked here. Costs memory in proportion to `data`, whatever its numbers say.
    """
    if len(data) > MAX_HEAD_BYTES:
        raise CorruptDataError(f"The offer's list of files has {human_size(len(data))}; that is too much to read.")
    try:
        head = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: text that isn't UTF-8
        raise CorruptDataError("The offer's list of files can't be read. Ask the sender to send it again.") from error
    if kind not in {"file", "folder"} or (kind == "file" and (len(head.entries) != 1 or head.folders)):
        raise CorruptDataError("The offer's list of files doesn't fit its kind. Ask the sender to send it again.")
    if sum(entry.size for entry in head.entries) != content_bytes:
        raise CorruptDataError("The offer's sizes contradict each other. Ask the sender to send it again.")
    return head
