"""An open directory, and moving something to a name that is free.

Names are resolved relative to the open directory and never through a link, so that nobody who swaps a
directory for a link while a transfer runs (croc's CVE of 2023) leads a file elsewhere. Where the system has
no directory descriptors (Windows), the same calls go by path: links there need privileges to make.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import shutil
import stat
import sys
from collections.abc import Callable
from typing import Final

__all__ = ["Directory", "move_to_free"]

_BY_DESCRIPTOR: Final = {os.open, os.mkdir, os.stat, os.rename, os.unlink, os.rmdir, os.utime} <= os.supports_dir_fd
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
FILE_FLAGS: Final[int] = (
    _NOFOLLOW
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO in place of the file must not hang us; no effect on files
    | getattr(os, "O_NOCTTY", 0)
)
_DIRECTORY_FLAGS: Final[int] = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_UNSUPPORTED: Final = frozenset(
    (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK)
)
_TAKEN: Final = frozenset((errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR))


class Directory:
    """One open directory; close it. `path` is for messages and for systems without directory descriptors."""

    __slots__ = ("descriptor", "path")

    def __init__(self, path: str, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: str) -> Directory:
        """Open `path`, following links: for a folder that the user of this machine chose."""
        return cls(path, os.open(path, _DIRECTORY_FLAGS) if _BY_DESCRIPTOR else None)

    def child(self, name: str) -> Directory:
        """Open a directory in this one; a link is refused with OSError."""
        path = os.path.join(self.path, name)
        if self.descriptor is None:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            return Directory(path, None)
        return Directory(path, os.open(name, _DIRECTORY_FLAGS | _NOFOLLOW, dir_fd=self.descriptor))

    def make(self, name: str, mode: int = 0o777) -> None:
        """Make a directory; FileExistsError if anything has that name."""
        os.mkdir(self._at(name), mode, dir_fd=self.descriptor)

    def open_file(self, name: str, flags: int, mode: int = 0o666) -> int:
        """Open a file without following a link; returns a descriptor."""
        return os.open(self._at(name), flags | FILE_FLAGS, mode, dir_fd=self.descriptor)

    def look(self, name: str) -> os.stat_result:
        """Return what has that name, a link itself and not what it points to; FileNotFoundError if nothing has."""
        return os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)

    def set_mtime(self, name: str, seconds: float) -> None:
        """Set the modification time of what has that name, not of what a link points to."""
        if os.utime in os.supports_follow_symlinks:
            os.utime(self._at(name), (seconds, seconds), dir_fd=self.descriptor, follow_symlinks=False)
        else:
            os.utime(self._at(name), (seconds, seconds), dir_fd=self.descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a directory and all in it, following no link; what can't be removed stays."""
        shutil.rmtree(self._at(name), ignore_errors=True, dir_fd=self.descriptor)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _at(self, name: str) -> str:
        return name if self.descriptor is not None else os.path.join(self.path, name)


def move_to_free(source: Directory, name: str, target: Directory, new_name: str) -> bool:
    """Move `name` in `source` to `new_name` in `target`; False, and nothing moved, if that name is taken.

    Never replaces anything, also not what another process puts there at the same moment.
    """
    for attempt in (_exclusive_rename, _link, _reserve_and_rename):
        try:
            attempt(source, name, target, new_name)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            if attempt is _reserve_and_rename or error.errno not in _UNSUPPORTED:
                raise
        else:
            return True
    return False


def _exclusive_rename(source: Directory, name: str, target: Directory, new_name: str) -> None:
    if os.name == "nt":
        os.rename(source._at(name), target._at(new_name))  # fails if the target exists
        return
    function = _rename_function()
    if function is None or source.descriptor is None or target.descriptor is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    call, flag = function
    if call(source.descriptor, os.fsencode(name), target.descriptor, os.fsencode(new_name), flag):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), new_name)


@functools.cache
def _rename_function() -> tuple[Callable[[int, bytes, int, bytes, int], int], int] | None:
    """Return the C library's rename that refuses to replace, with its flag."""
    symbol, flag = ("renameatx_np", 4) if sys.platform == "darwin" else ("renameat2", 1)
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), symbol)
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function, flag


def _link(source: Directory, name: str, target: Directory, new_name: str) -> None:
    """For files: a second name for the same file fails if it is taken; directories can't be linked (EPERM)."""
    if os.link not in os.supports_dir_fd or source.descriptor is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    os.link(name, new_name, src_dir_fd=source.descriptor, dst_dir_fd=target.descriptor, follow_symlinks=False)
    os.unlink(name, dir_fd=source.descriptor)


def _reserve_and_rename(source: Directory, name: str, target: Directory, new_name: str) -> None:
    """Take the name with an empty file or directory of our own, then replace exactly that.

    Renaming a directory onto one that is not empty fails, so whoever fills ours meanwhile keeps it.
    """
    mode = os.stat(source._at(name), dir_fd=source.descriptor, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        target.make(new_name)
    else:
        os.close(target.open_file(new_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        os.replace(source._at(name), target._at(new_name), src_dir_fd=source.descriptor, dst_dir_fd=target.descriptor)
    except OSError:
        remove = os.rmdir if stat.S_ISDIR(mode) else os.unlink
        remove(target._at(new_name), dir_fd=target.descriptor)
        raise
