"""Files and folders on their way in: assembled out of sight, shown under their final name only when complete.

    <folder>/.p2pnb-<16 hex digits>.part/      mode 0700, so nobody else looks in meanwhile
        content                                the file, or the folder being assembled

Everything in there has the permissions it will keep (the umask's, no executable bit), so the last step is one
rename to a name that was free; nothing that exists is ever replaced. The announced size allocates nothing:
files grow as bytes arrive, in any order.

Rejected: a temporary per file in its final folder (a folder would become visible in pieces), and
``os.replace`` (would overwrite what the user has).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from p2pnb.errors import CorruptDataError, DiskFullError, TransferCancelledError, TransferError, UnsafeNameError
from p2pnb.files._descriptors import ClosedError, Descriptors, write_at
from p2pnb.files._directory import Directory, move_to_free
from p2pnb.files.head import FolderHead, decode_head
from p2pnb.files.names import free_name, harmless_name, numbered_name, printable, safe_name, safe_relative
from p2pnb.files.sizes import human_size
from p2pnb.protocol.wire import MAX_SIZE_BYTES

__all__ = ["IncomingFiles", "clean_leftovers"]

LEFTOVER_AGE_S: Final = 24 * 3600.0  # no transfer pauses that long: sessions are kept for half an hour
MAX_OPEN: Final = 32  # files; chunks of several lanes are near each other in a folder's stream
MAX_OPEN_FOLDERS: Final = 80  # more than MAX_DEPTH: the parents of an open folder are open while it opens
MAX_RANGES: Final = 16_384  # pieces not joined yet; a window of 32 MiB in 48 KiB chunks makes 700
MAX_FOLDERS: Final = 100_000  # they come from paths, up to 63 each, and cost more memory than their head
MAX_NAMES_TRIED: Final = 10_000

_CONTENT: Final = "content"
_CLOCK_DIFFERENCE_S: Final = 24 * 3600.0  # wrong time zones happen; what is from next week is made up
_OLDEST_MTIME_MS: Final = 315_532_800_000  # 1980: what FAT and zip can say
_FULL: Final = frozenset(
    number for name in ("ENOSPC", "EDQUOT", "EFBIG") if (number := getattr(errno, name, None)) is not None
)
_PART: Final = re.compile(r"\.p2pnb-[0-9a-f]{16}\.part")


class IncomingFiles:
    """One offer being received into `folder`. `write` is thread-safe for disjoint ranges.

    `renamed` pairs the path a member was offered as with the one it gets, where they differ: names that some
    program would run unasked, and names that would collide on this or another system.
    """

    def __init__(self, head: bytes, name: str, kind: str, content_bytes: int, folder: str | os.PathLike[str]) -> None:
        """Check the offer and make the hidden temporary; blocking.

        CorruptDataError: the head contradicts itself or the announced size. UnsafeNameError: a name can't be
        used. DiskFullError: the folder's disk has less free than announced. TransferError: the folder can't be
        written to.
        """
        if not 0 <= content_bytes <= MAX_SIZE_BYTES:
            raise CorruptDataError("The offer's size is not a size. Ask the sender to send it again.")
        parsed = decode_head(head, kind, content_bytes)
        self.name = harmless_name(safe_name(name))
        self.renamed: list[tuple[str, str]] = [] if self.name == safe_name(name) else [(name, self.name)]
        self.kind = kind
        self.content_bytes = content_bytes
        self._plan = _Plan(parsed, kind, self.renamed)
        self._mtimes = array("q", (entry.mtime for entry in parsed.entries))
        self._starts = array("Q", [0])
        for entry in parsed.entries:
            self._starts.append(self._starts[-1] + entry.size)
        self._made_files = bytearray(len(parsed.entries))
        self._made_folders = bytearray(len(self._plan.folder_names))
        self._received = _Ranges()
        self._lock = threading.Lock()
        self._over = False
        self._folder_path = os.path.abspath(folder)
        self._part = f".p2pnb-{secrets.token_hex(8)}.part"
        with self._translated():
            os.makedirs(self._folder_path, exist_ok=True)
            free = shutil.disk_usage(self._folder_path).free
            if free < content_bytes:
                raise DiskFullError(
                    f"'{printable(name)}' needs {human_size(content_bytes)}, but {self._folder_path} has "
                    f"{human_size(free)} free. Free some space, or receive into another folder."
                )
            self._target = Directory.open(self._folder_path)
            try:
                self._target.make(self._part, 0o700)
                self._workplace = self._target.child(self._part)
            except OSError:
                self._target.remove_tree(self._part)
                self._target.close()
                raise
        self._folders = Descriptors(self._open_folder, Directory.close, MAX_OPEN_FOLDERS)
        self._files = Descriptors(self._open_file, os.close, MAX_OPEN)

    @property
    def received_bytes(self) -> int:
        """How many different bytes of the content were written."""
        return self._received.total

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The written ranges [start, end) of the content, joined and in order."""
        with self._lock:
            return list(self._received)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write a piece of the content (offset 0 is the first byte after the head); may span files.

        CorruptDataError beyond the announced size, DiskFullError if the disk is full, TransferCancelledError
        after `abort`, TransferError for any other failure of the disk. A failed piece does not count as written.
        """
        view = memoryview(data).cast("B")
        end = offset + len(view)
        if offset < 0 or end > self.content_bytes:
            raise CorruptDataError(f"More bytes of '{printable(self.name)}' arrived than its sender announced.")
        if not view:
            return
        place = offset
        with self._translated():
            while place < end:
                number = bisect_right(self._starts, place) - 1  # of several that start here the last: others are empty
                start, stop = self._starts[number], min(end, self._starts[number + 1])
                with self._files.use(number) as descriptor:
                    write_at(descriptor, view[place - offset : stop - offset], place - start)
                place = stop
        with self._lock:
            self._received.add(offset, end)

    def finish(self) -> Path:
        """Give everything its final name and return it; blocking, to be called once all writes returned.

        CorruptDataError if bytes are missing: then nothing appears. On any error call `abort`.
        """
        if self._received.total != self.content_bytes:
            raise CorruptDataError(
                f"Only {human_size(self._received.total)} of the {human_size(self.content_bytes)} of "
                f"'{printable(self.name)}' arrived. Ask the sender to send it again."
            )
        with self._translated():
            self._check_open()
            if self.kind == "folder":
                self._complete_folders()
            self._files.close()
            self._set_mtimes()
            self._folders.close()
            final = self._move()
        self._end()
        return Path(self._folder_path, final)

    def abort(self) -> None:
        """Remove everything that was written; nothing of it was visible. May be called at any time, also twice."""
        self._end()

    def _open_folder(self, number: int) -> Directory:
        parent, name = self._plan.folder_parents[number], self._plan.folder_names[number]
        if number == 0:
            return self._child(self._workplace, number, name)
        with self._folders.use(parent) as directory:
            return self._child(directory, number, name)

    def _child(self, directory: Directory, number: int, name: str) -> Directory:
        if not self._made_folders[number]:
            directory.make(name)
            self._made_folders[number] = 1
        return directory.child(name)

    def _open_file(self, number: int) -> int:
        flags = os.O_WRONLY | (0 if self._made_files[number] else os.O_CREAT | os.O_EXCL)
        name = self._plan.names[number]
        if self.kind == "file":
            descriptor = self._workplace.open_file(name, flags)
        else:
            with self._folders.use(self._plan.parents[number]) as directory:
                descriptor = directory.open_file(name, flags)
        self._made_files[number] = 1
        return descriptor

    def _complete_folders(self) -> None:
        for number, made in enumerate(self._made_folders):
            if not made:
                with self._folders.use(number):
                    pass

    def _set_mtimes(self) -> None:
        newest = (time.time() + _CLOCK_DIFFERENCE_S) * 1000
        for number, mtime in enumerate(self._mtimes):
            if not self._made_files[number]:  # an empty file
                os.close(self._open_file(number))
            if not _OLDEST_MTIME_MS <= mtime <= newest:
                continue
            if self.kind == "file":
                self._workplace.set_mtime(self._plan.names[number], mtime / 1000)
            else:
                with self._folders.use(self._plan.parents[number]) as directory:
                    directory.set_mtime(self._plan.names[number], mtime / 1000)

    def _move(self) -> str:
        for number in range(1, MAX_NAMES_TRIED):
            candidate = self.name if number == 1 else numbered_name(self.name, number)
            if move_to_free(self._workplace, _CONTENT, self._target, candidate):
                return candidate
        raise TransferError(f"{self._folder_path} is full of files called '{printable(self.name)}'. Clean it up first.")

    def _check_open(self) -> None:
        if self._over:
            raise ClosedError

    def _end(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        # From here on nothing new is opened, so nothing new appears while the tree is removed.
        self._files.close()
        self._folders.close()
        self._workplace.close()
        self._target.remove_tree(self._part)
        self._target.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the system says into what a person can act on."""
        try:
            yield
        except ClosedError:
            raise TransferCancelledError(f"'{printable(self.name)}' is not being received any more.") from None
        except OSError as error:
            if self._over:
                raise TransferCancelledError(f"'{printable(self.name)}' is not being received any more.") from error
            if error.errno in _FULL:
                raise DiskFullError(
                    f"The disk of {self._folder_path} is full, so '{printable(self.name)}' can't be received. "
                    "Free some space, or receive into another folder."
                ) from error
            if error.errno in {errno.ENAMETOOLONG, errno.EILSEQ}:
                raise UnsafeNameError(
                    f"A name in '{printable(self.name)}' is too long for {self._folder_path}."
                ) from error
            reason = error.strerror or str(error)
            raise TransferError(
                f"'{printable(self.name)}' can't be written to {self._folder_path} ({reason}). "
                "Check the folder's permissions, or receive into another one."
            ) from error


class _Plan:
    """Where each entry of a head goes: parallel lists, because there may be hundreds of thousands."""

    def __init__(self, head: FolderHead, kind: str, renamed: list[tuple[str, str]]) -> None:
        # Folder 0 is the whole; it stays called `content` until the end.
        self.folder_names: list[str] = [_CONTENT]
        self.folder_parents = array("L", [0])
        self.names: list[str] = []
        self.parents = array("L")
        self._renamed = renamed
        self._children: list[dict[str, int]] = [{}]
        self._taken: list[dict[str, int]] = [{}]
        if kind == "file":
            safe_relative(head.entries[0].path)
            self.names.append(_CONTENT)
            self.parents.append(0)
        else:
            for entry in head.entries:
                parts = safe_relative(entry.path).parts
                parent = self._folder(parts[:-1])
                self.names.append(self._landing(parent, parts[-1], entry.path))
                self.parents.append(parent)
            for path in head.folders:
                self._folder(safe_relative(path).parts)
        del self._children, self._taken  # not needed for writing

    def _folder(self, parts: tuple[str, ...]) -> int:
        number = 0
        for depth, part in enumerate(parts, 1):
            below = self._children[number].get(part)
            if below is None:
                landing = self._landing(number, part, "/".join(parts[:depth]))
                below = len(self.folder_names)
                if below >= MAX_FOLDERS:
                    raise CorruptDataError("The offer has more folders than a transfer takes.")
                self._children[number][part] = below
                self.folder_names.append(landing)
                self.folder_parents.append(number)
                self._children.append({})
                self._taken.append({})
            number = below
        return number

    def _landing(self, parent: int, name: str, path: str) -> str:
        landing = free_name(harmless_name(name), self._taken[parent])
        if landing != name:
            above = []
            while parent:
                above.append(self.folder_names[parent])
                parent = self.folder_parents[parent]
            self._renamed.append((path, "/".join((*reversed(above), landing))))
        return landing


class _Ranges:
    """Disjoint ranges [start, end), joined where they touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def add(self, start: int, end: int) -> None:
        first = bisect_left(self._ends, start)  # the first range that ends at or after our start
        last = bisect_right(self._starts, end)  # beyond the last range that starts at or before our end
        if first == last and len(self._starts) >= MAX_RANGES:
            raise CorruptDataError("The bytes arrive in too many pieces. Ask the sender to send it again.")
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
            self.total -= sum(self._ends[first:last]) - sum(self._starts[first:last])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        self.total += end - start


def clean_leftovers(folder: str | os.PathLike[str], *, older_than_s: float = LEFTOVER_AGE_S) -> int:
    """Remove what transfers of dead processes left in `folder`; returns how many.

    Only temporaries of ours in which nothing was written for `older_than_s` seconds. Never raises for a
    folder that is missing or unreadable.
    """
    removed = 0
    limit = time.time() - older_than_s
    try:
        names = [name for name in os.listdir(folder) if _PART.fullmatch(name)]
    except OSError:
        return 0
    for name in names:
        path = os.path.join(folder, name)
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode) and _newest(path) < limit:
                shutil.rmtree(path)
                removed += 1
        except OSError:
            continue  # somebody else's, or gone meanwhile
    return removed


def _newest(path: str) -> float:
    """Return when anything in a tree was last changed; by ctime, which a transfer does not set back."""
    newest = os.lstat(path).st_ctime
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            newest = max(newest, os.lstat(os.path.join(parent, name)).st_ctime)
    return newest
