"""`Inbox`: what has arrived, and `Message`: what was said."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from p2pnb.files.sizes import human_size
from p2pnb.protocol.wire import Preview

__all__ = ["Inbox", "InboxItem", "Message"]

LARGE_BYTES: Final = 16 * 1024  # smaller values may stay: 10,000 of them are 160 MB at most
KEPT_ITEMS: Final = 10_000
KEPT_BYTES: Final = 512 * 1024 * 1024  # of replaced objects that nobody received


class Message(msgspec.Struct, frozen=True):
    """A chat message."""

    id: str
    sender: str
    text: str
    time: float  # seconds since the epoch, by this machine's clock when it came or went
    mine: bool = False
    private: bool = False  # said to some, not to the whole room
    to: tuple[str, ...] = ()  # receivers of a private message of mine


@dataclass(frozen=True, slots=True)
class InboxItem:
    """Something that arrived, whole."""

    name: str
    sender: str
    time: float  # seconds since the epoch, when it was complete
    size_bytes: int
    kind: str  # "object", "file" or "folder"
    type: str
    preview: Preview
    value: Any = field(repr=False)  # the object (None once `released`); the path of a file or folder
    released: bool = False  # a newer item of this name came, and the memory was given back

    @property
    def path(self) -> Path | None:
        """Where a file or folder is; None for objects."""
        return self.value if isinstance(self.value, Path) else None


class Inbox(Mapping[str, Any]):
    """What arrived: the newest value by name; `all()` has every item with its sender, time and size.

    A file's value is its path. Names are shown sorted by arrival, the newest last. The memory of a large object is
    given back once a newer one of its name is here and it was received; your own variables keep what they hold.
    """

    def __init__(self) -> None:
        self._items: list[InboxItem] = []
        self._unread: list[InboxItem] = []
        self._newest: dict[str, InboxItem] = {}  # by name, in the order they arrived
        self._waiting: list[InboxItem] = []  # large, replaced and not received yet
        self._changed = threading.Condition()
        self._wakeups = 0

    def __getitem__(self, name: str) -> Any:
        item = self._newest.get(name)
        if item is not None:
            return item.value
        here = ", ".join(repr(n) for n in self) or "nothing"
        raise KeyError(f"no {name!r} has arrived; the inbox has {here}")

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._newest))

    def __len__(self) -> int:
        return len(self._newest)

    def all(self) -> list[InboxItem]:
        """Return what arrived, oldest first; of what newer items replaced, some 5,000 to 10,000 are kept."""
        return list(self._items)

    def discard(self, name: str) -> None:
        """Forget every item of this name, so that its memory can be freed; files stay on disk."""
        with self._changed:
            self._items = [item for item in self._items if item.name != name]
            self._unread = [item for item in self._unread if item.name != name]
            self._waiting = [item for item in self._waiting if item.name != name]
            self._newest.pop(name, None)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        if not self._items:
            return "<Inbox: nothing yet>"
        rows = [f"{i.name!r} from {i.sender}: {i.type}, {human_size(i.size_bytes)}" for i in list(self._items)]
        return "<Inbox\n  " + "\n  ".join(rows) + "\n>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self)}

    # ── for the room ────────────────────────────────────────────────────────────────────────────────
    def _add(self, item: InboxItem) -> None:
        with self._changed:
            self._items.append(item)
            self._unread.append(item)
            before = self._newest.pop(item.name, None)
            self._newest[item.name] = item
            if before is not None:
                self._replaced(before)
            if len(self._items) > KEPT_ITEMS:
                self._forget_oldest()
            self._changed.notify_all()

    def _replaced(self, item: InboxItem) -> None:
        """A newer item of this name is here: let go of a large object's memory, at once if it was received."""
        if item.kind != "object" or item.size_bytes < LARGE_BYTES:
            return
        if not any(item is other for other in self._unread):
            self._release(item)
            return
        self._waiting.append(item)
        while sum(other.size_bytes for other in self._waiting) > KEPT_BYTES:
            oldest = self._waiting.pop(0)
            self._unread = [other for other in self._unread if other is not oldest]
            self._release(oldest)

    def _release(self, item: InboxItem) -> None:
        for index, other in enumerate(self._items):
            if other is item:
                self._items[index] = replace(item, value=None, released=True)

    def _forget_oldest(self) -> None:
        """Keep the history bounded: of the oldest those go that were received and that newer ones replace."""
        unread = {id(item) for item in self._unread}
        newest = {id(item) for item in self._newest.values()}
        half = KEPT_ITEMS // 2
        old = [item for item in self._items[:half] if id(item) in unread or id(item) in newest]
        self._items[:half] = old

    def _wake(self) -> None:
        """Have waiting calls look again."""
        with self._changed:
            self._wakeups += 1
            self._changed.notify_all()

    def _take(self, name: str | None) -> InboxItem | None:
        """Return the oldest item (of this name) that no `receive` returned yet."""
        with self._changed:
            for index, item in enumerate(self._unread):
                if name is None or item.name == name:
                    taken = self._unread.pop(index)
                    if self._newest.get(taken.name) is not taken:
                        self._waiting = [other for other in self._waiting if other is not taken]
                        self._replaced(taken)
                    return taken
        return None

    def _wait(self, until: float | None) -> bool:
        """Wait for news; False once the time (monotonic) is over."""
        with self._changed:
            remaining = None if until is None else until - time.monotonic()
            if remaining is not None and remaining <= 0:
                return False
            self._changed.wait(remaining if remaining is None else min(remaining, 3600.0))
            return True
