"""Who holds a part: a lock on an open file that the kernel takes away when its process dies."""

from __future__ import annotations

import errno
import os
import sys
import threading
from typing import Final

__all__ = ["keep_from_children", "leave_here", "left_here", "lock", "may_inherit"]

_BUSY: Final = frozenset((errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES))

_held: set[int] = set()  # descriptors with locks
_left: set[str] = set()  # what this process left where there are no locks
_left_lock = threading.Lock()


if sys.platform == "win32":

    def lock(descriptor: int) -> bool | None:
        """Lock an open file without waiting; False if another holds it, None if there are no locks here."""
        return None
else:
    import fcntl

    def lock(descriptor: int) -> bool | None:
        """Lock an open file without waiting; False if another holds it, None if there are no locks here."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return False if error.errno in _BUSY else None  # some network file systems have none
        return True


def leave_here(path: str) -> None:
    """Note that this process left something at `path`, where there are no locks to say whether another uses it."""
    with _left_lock:
        _left.add(path)


def left_here(path: str) -> bool:
    """Tell whether this process left something at `path` and nobody in it asked since."""
    with _left_lock:
        found = path in _left
        _left.discard(path)
        return found


def keep_from_children(descriptor: int) -> None:
    """Have forked children lose this descriptor: a lock lasts until the last process that has it is gone."""
    _held.add(descriptor)


def may_inherit(descriptor: int) -> None:
    """Undo `keep_from_children`, before the descriptor is closed."""
    _held.discard(descriptor)


def _forked() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in _held:
        os.dup2(null, descriptor, inheritable=False)  # not closed: the number must not come to mean another file
    os.close(null)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
