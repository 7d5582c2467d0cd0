"""What is sent in a soak: noise that both ends can make from an item's number, so that every byte can be checked.

The noise repeats after a length that no chunk, page or block size divides: bytes that land in a wrong place differ.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PERIOD: Final = (8 << 20) + 4099
PIECE: Final = 1 << 20
_STEP: Final = 1_299_709  # each item begins elsewhere


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was sent; its name says all of it."""

    sender: str
    kind: str
    number: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.sender}-{self.kind}-{self.number}-{self.size}.bin"

    @classmethod
    def named(cls, name: str) -> Item:
        sender, kind, number, size = name.removesuffix(".bin").split("-")
        return cls(sender, kind, int(number), int(size))


class Noise:
    """The bytes of every item of one soak."""

    def __init__(self, seed: int) -> None:
        once = random.Random(seed).randbytes(PERIOD)
        self._twice = memoryview(once + once)

    def pieces(self, item: Item) -> Iterator[memoryview]:
        """The content of an item, in order."""
        offset = 0
        while offset < item.size:
            piece = self._at(item, offset, min(PIECE, item.size - offset))
            yield piece
            offset += len(piece)

    def write(self, item: Item, folder: Path) -> Path:
        """Make the file of an item."""
        path = folder / item.name
        with path.open("wb") as file:
            file.writelines(self.pieces(item))
        return path

    def differs(self, item: Item, content: memoryview) -> str:
        """Say where `content` is not the item's; empty if it is."""
        if len(content) != item.size:
            return f"{item.name} has {len(content)} bytes"
        for number, piece in enumerate(self.pieces(item)):
            if content[number * PIECE : number * PIECE + len(piece)] != piece:
                return f"{item.name} differs in MiB {number}"
        return ""

    def file_differs(self, item: Item, path: Path) -> str:
        """Say where a file is not the item's; empty if it is."""
        if path.stat().st_size != item.size:
            return f"{item.name} has {path.stat().st_size} bytes"
        with path.open("rb") as file:
            for number, piece in enumerate(self.pieces(item)):
                if file.read(len(piece)) != piece:
                    return f"{item.name} differs in MiB {number}"
        return ""

    def _at(self, item: Item, offset: int, length: int) -> memoryview:
        begin = (item.number * _STEP + offset) % PERIOD
        return self._twice[begin : begin + length]
