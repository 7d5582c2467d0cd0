"""Parts: what came of a transfer so far, in a place of its own that outlives its process.

    <folder>/.p2pnb-<16 hex digits>.part/      mode 0700, so nobody else looks in meanwhile
        content                                the file, or the folder being assembled
        state                                  whose part it is, and which bytes of it have landed

The process that writes a part holds a lock (flock) on its `state`, which the kernel takes away when the process
dies; without it nobody else writes or removes a part. Where the system has no locks, only parts that this very
process kept are taken up again.

Nothing is synced. A killed process leaves its writes in the kernel, and after a crash of the machine the state may
know of bytes that never reached the disk. That is no harm: a part is only ever *offered*. What it says has landed
counts after its hashes were compared with the sender's (see `blocks`).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import threading
import time
from typing import Final

import msgspec

from p2pnb.files._descriptors import read_at, write_at
from p2pnb.files._directory import Directory
from p2pnb.files._lock import keep_from_children, leave_here, left_here, lock, may_inherit
from p2pnb.files.part_state import MAX_JOURNAL_RANGES, MAX_STATE_BYTES, PartState, encode_slot, longest, parse_state

__all__ = ["KEPT_AGE_S", "LEFTOVER_AGE_S", "Part", "clean_leftovers", "is_own", "kept_bytes", "parts_of"]

KEPT_AGE_S: Final = 7 * 24 * 3600.0  # the weekend after which somebody sends it again
LEFTOVER_AGE_S: Final = 24 * 3600.0  # of what can't be taken up again

_STATE: Final = "state"
_PART: Final = re.compile(r"\.p2pnb-[0-9a-f]{16}\.part")


class Part:
    """A part that this process holds. `place` is its open directory, `target` the folder it lies in."""

    def __init__(self, target: Directory, name: str, place: Directory, descriptor: int, *, locked: bool) -> None:
        """Use `create` or `take`."""
        self.target = target
        self.name = name
        self.place = place
        self.path = os.path.join(target.path, name)
        self._descriptor = descriptor
        self._locked = locked  # else there are no locks here
        self._sequence = 0
        self._lock = threading.Lock()
        keep_from_children(descriptor)

    @classmethod
    def create(cls, folder: str) -> Part:
        """Make an empty part in `folder` and hold it; OSError if that can't be."""
        target = Directory.open(folder)
        name = f".p2pnb-{secrets.token_hex(8)}.part"
        place = descriptor = None
        try:
            target.make(name, 0o700)
            place = target.child(name)
            descriptor = place.open_file(_STATE, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            locked = lock(descriptor)
            if locked is False:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        except OSError:
            if descriptor is not None:
                os.close(descriptor)
            if place is not None:
                place.close()
            target.remove_tree(name)
            target.close()
            raise
        return cls(target, name, place, descriptor, locked=locked is True)

    @classmethod
    def take(cls, folder: str, name: str) -> tuple[Part, PartState] | None:
        """Hold a part that nobody holds; None if somebody does, or if there is nothing to take up."""
        try:
            target = Directory.open(folder)
        except OSError:
            return None
        place = descriptor = None
        try:
            place = _own_place(target, name)
            descriptor = _own_state(place)
            locked = lock(descriptor)
            ours = left_here(os.path.join(target.path, name)) if locked is None else locked
            # Whoever held it before may have removed it meanwhile: then the lock is on nothing.
            if ours and os.fstat(descriptor).st_nlink == 1 and (state := _state_in(descriptor)) is not None:
                part = cls(target, name, place, descriptor, locked=locked is True)
                part._sequence = state.sequence
                return part, state
        except OSError:
            pass
        if descriptor is not None:
            os.close(descriptor)
        if place is not None:
            place.close()
        target.close()
        return None

    def write_state(self, state: PartState, ranges: list[tuple[int, int]]) -> None:
        """Replace what the part says of itself; of more than MAX_JOURNAL_RANGES ranges the longest count. OSError."""
        with self._lock:
            if self._descriptor < 0:
                return
            sequence = self._sequence + 1
            ranges = longest(ranges, MAX_JOURNAL_RANGES)
            place, slot = encode_slot(msgspec.structs.replace(state, sequence=sequence, ranges=ranges))
            write_at(self._descriptor, memoryview(slot), place)
            self._sequence = sequence

    def release(self) -> None:
        """Leave it to whoever takes it next. May be called twice, also after `remove`."""
        with self._lock:
            if self._descriptor < 0:
                return
            if not self._locked:
                leave_here(self.path)
            self._close()

    def remove(self) -> None:
        """Remove it and all in it. May be called twice."""
        with self._lock:
            if self._descriptor < 0:
                return
            if os.name == "nt":  # Windows doesn't remove what is open
                self._close_state()
            self.place.close()
            self.target.remove_tree(self.name)  # before the lock goes
            self._close()

    def _close(self) -> None:
        self._close_state()
        self.place.close()
        self.target.close()

    def _close_state(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            may_inherit(descriptor)
            os.close(descriptor)


def parts_of(folder: str, key: bytes) -> list[str]:
    """Return the names of the parts in `folder` that were made for `key`, those with most bytes first.

    Only a look: others may hold them, or take them before you do. Blocking; never raises.
    """
    found = [(state.landed_bytes, name) for name, state in _states(folder) if state.key == key]
    return [name for _, name in sorted(found, reverse=True)]


def kept_bytes(folder: str) -> int:
    """Return how many bytes the parts in `folder` hold, by what they say. Blocking; never raises."""
    return sum(state.landed_bytes for _, state in _states(folder))


def _states(folder: str) -> list[tuple[str, PartState]]:
    try:
        names = [name for name in os.listdir(folder) if _PART.fullmatch(name)]
        target = Directory.open(folder)
    except OSError:
        return []
    states = [(name, state) for name in names if (state := _look(target, name)) is not None]
    target.close()
    return states


def clean_leftovers(
    folder: str | os.PathLike[str], *, older_than_s: float = LEFTOVER_AGE_S, kept_for_s: float = KEPT_AGE_S
) -> int:
    """Remove what transfers of dead processes left in `folder`; returns how many. Blocking.

    Only temporaries of ours that nobody holds and in which nothing was written for `kept_for_s` seconds, or for
    `older_than_s` if they can't be taken up again: nothing landed, or no valid state. Never raises for a folder
    that is missing or unreadable.
    """
    folder = os.path.abspath(folder)
    removed = 0
    try:
        names = [name for name in os.listdir(folder) if _PART.fullmatch(name)]
        target = Directory.open(folder)
    except OSError:
        return 0
    for name in names:
        try:
            removed += _clean(target, name, older_than_s, kept_for_s)
        except OSError:
            continue  # somebody else's, or gone meanwhile
    target.close()
    return removed


def _clean(target: Directory, name: str, older_than_s: float, kept_for_s: float) -> bool:
    path = os.path.join(target.path, name)
    place = _own_place(target, name, private=False)
    descriptor = None
    try:
        state = None
        try:
            descriptor = _own_state(place)
        except OSError:
            pass  # none, or something else in its place
        else:
            if lock(descriptor) is False:
                return False
            state = _state_in(descriptor)
        limit = time.time() - (kept_for_s if state is not None and state.ranges else older_than_s)
        if _newest(path) >= limit:
            return False
        if os.name == "nt" and descriptor is not None:
            os.close(descriptor)
            descriptor = None
        target.remove_tree(name)
        return not os.path.lexists(path)
    finally:
        if descriptor is not None:
            os.close(descriptor)
        place.close()


def _newest(path: str) -> float:
    """Return when anything in a tree was last changed; by ctime, which a transfer does not set back."""
    newest = os.lstat(path).st_ctime
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            newest = max(newest, os.lstat(os.path.join(parent, name)).st_ctime)
    return newest


def _look(target: Directory, name: str) -> PartState | None:
    """Read the state of a part without holding it."""
    try:
        place = _own_place(target, name)
    except OSError:
        return None
    descriptor = None
    try:
        descriptor = _own_state(place)
        return _state_in(descriptor)
    except OSError:
        return None
    finally:
        if descriptor is not None:
            os.close(descriptor)
        place.close()


def _own_place(target: Directory, name: str, *, private: bool = True) -> Directory:
    """Open a part's directory; OSError if it is a link, another user's, or (`private`) open to others' writing."""
    place = target.child(name)
    found = os.stat(place.path if place.descriptor is None else place.descriptor)
    if not is_own(found) or (private and os.name != "nt" and found.st_mode & 0o022):
        place.close()
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
    return place


def _own_state(place: Directory) -> int:
    """Open a part's state; OSError if it is no regular file of ours, or larger than any we write."""
    descriptor = place.open_file(_STATE, os.O_RDWR)
    found = os.fstat(descriptor)
    if not (stat.S_ISREG(found.st_mode) and is_own(found) and found.st_nlink == 1 and found.st_size <= MAX_STATE_BYTES):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), _STATE)
    return descriptor


def _state_in(descriptor: int) -> PartState | None:
    return parse_state(read_at(descriptor, MAX_STATE_BYTES, 0))


def is_own(found: os.stat_result) -> bool:
    """Tell whether it belongs to the user this process runs as; yes where files have no such owner."""
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
