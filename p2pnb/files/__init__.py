"""Files and folders between a disk and a transfer's byte stream: names, sizes, reading out, placing in."""

from p2pnb.files.head import FileEntry, FolderHead, decode_head, encode_head
from p2pnb.files.incoming import IncomingFiles
from p2pnb.files.names import harmless_name, portable_name, printable, safe_name, safe_relative
from p2pnb.files.outgoing import OutgoingFiles
from p2pnb.files.parts import KEPT_AGE_S, clean_leftovers
from p2pnb.files.sizes import human_size, parse_size

__all__ = [
    "KEPT_AGE_S",
    "FileEntry",
    "FolderHead",
    "IncomingFiles",
    "OutgoingFiles",
    "clean_leftovers",
    "decode_head",
    "encode_head",
    "harmless_name",
    "human_size",
    "parse_size",
    "portable_name",
    "printable",
    "safe_name",
    "safe_relative",
]
