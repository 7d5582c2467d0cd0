"""Files and folders on their way out: scanned once, then read at any offset, by any thread, for any receiver.

What is sent is what lies there, minus what nobody means to send: in a folder, hidden files, links (they could
lead out of it), sockets, pipes, devices and ``__pycache__`` are left out and counted (`OutgoingFiles.skipped`).
A path given by name is sent whatever it is called, and if it is a link, what it points to is sent. Names that
another system can't take get the nearest portable one (`OutgoingFiles.renamed`).

Every read checks that the file is still the one that was scanned, so two versions are never spliced. Its ctime
counts too: a file rewritten in place by a program that sets the time back (rsync, VeraCrypt) has nothing else to
show for it. The price is that a chmod in the middle of a transfer counts as a change; what arrived is kept.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from p2pnb.errors import SourceChangedError, UsageError
from p2pnb.files._descriptors import ClosedError, Descriptors, fill_at, fill_at_once
from p2pnb.files._directory import FILE_FLAGS
from p2pnb.files.blocks import hash_blocks
from p2pnb.files.head import FileEntry, FolderHead, encode_head
from p2pnb.files.names import MAX_DEPTH, MAX_PATH_BYTES, portable_name, printable
from p2pnb.files.sizes import human_size
from p2pnb.protocol.wire import MAX_SIZE_BYTES, Preview

__all__ = ["OutgoingFiles"]

MAX_OPEN: Final = 16  # several receivers at different places of a folder; far below any limit of descriptors
_PREVIEW_NAMES: Final = 20
_PREVIEW_NAME_CHARS: Final = 120  # twenty of them stay small in the control frame
_PREVIEW_TEXT_CHARS: Final = 2000
_SKIPPED_FOLDERS: Final = frozenset(("__pycache__",))  # of no use elsewhere, and run unseen by Python

_CANNOT_TELL: Final = frozenset((errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS))  # of reading without waiting
_64_BITS: Final = (1 << 64) - 1  # some systems count further: the rest tells nothing more apart

StrPath = str | os.PathLike[str]


class OutgoingFiles:
    """One file, one folder, or several paths as one folder. Thread-safe; close it when nobody reads any more.

    `kind` is "file" or "folder"; `head` and `size_bytes` (head and content) are those of the offer; `count` is
    the number of files; `skipped` what was left out; `renamed` pairs of a path and what it is sent as.
    """

    def __init__(self, kind: str, name: str, sources: _Sources, folders: list[str]) -> None:
        """Use `scan`."""
        self.kind = kind
        self.name = name
        self.count = len(sources.paths)
        self.skipped = 0
        self.renamed: list[tuple[str, str]] = []
        self._sources = sources
        self._content_bytes = sources.starts[-1]
        if self._content_bytes > MAX_SIZE_BYTES:
            raise UsageError(
                f"'{printable(name)}' has {human_size(self._content_bytes)}; that is more than a transfer takes."
            )
        entries = sources.take_entries()
        try:
            self.head = encode_head(FolderHead(entries, folders))
        except ValueError:
            raise UsageError(
                f"'{printable(name)}' holds {self.count:,} files; that is more than one transfer lists. "
                "Pack them into an archive (shutil.make_archive) and send that."
            ) from None
        self.size_bytes = len(self.head) + self._content_bytes
        self._descriptors = Descriptors(self._open, os.close, MAX_OPEN)
        self._tells_waiting = True  # until its file system says that it can't tell
        self.preview = self._preview(entries, folders)

    @classmethod
    def scan(cls, paths: StrPath | Iterable[StrPath]) -> OutgoingFiles:
        """List what is to be sent. Blocking; run it in a thread.

        UsageError names a path that is missing, unreadable or not a file or folder, and says what to do.
        """
        listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if not listed:
            raise UsageError("There is nothing to send: the list of paths is empty. Name at least one file or folder.")
        scan = _Scan()
        several = len(unique := list(dict.fromkeys(map(_resolved, listed)))) > 1
        for given, real in unique:
            scan.add(given, real, nested=several)
        if several:
            count = len(scan.sources.paths)
            name = f"{count} file{'' if count == 1 else 's'}" if count else f"{len(unique)} folders"
            kind = "folder"
        else:
            name = portable_name(unique[0][0].name or unique[0][1].name or "files")
            kind = "folder" if unique[0][1].is_dir() else "file"
        files = cls(kind, name, scan.sources, scan.empty_folders)
        files.skipped = scan.skipped
        files.renamed = scan.renamed
        return files

    def read(self, offset: int, length: int) -> bytes:
        """Return the content's bytes from `offset` (0 is the first byte after the head), fewer only at its end.

        SourceChangedError if a file they come from is not what it was when it was scanned.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"offset {offset}, length {length}")
        data = bytearray(max(min(length, self._content_bytes - offset), 0))
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of `buffer` (bytes, writable) with the content from `offset` on; blocking.

        ValueError beyond the content's end. SourceChangedError if a file the bytes come from is not what it was
        when it was scanned; then the buffer holds nothing of use.
        """
        length = len(buffer)
        if offset < 0 or (length and offset + length > self._content_bytes):
            raise ValueError(f"offset {offset}, length {length}")
        starts = self._sources.starts
        place, end = offset, offset + length
        number = bisect_right(starts, offset) - 1  # of several that start here the last: the others are empty
        while place < end:
            stop = min(starts[number + 1], end)
            if place < stop:
                self._read_one(number, place - starts[number], buffer[place - offset : stop - offset])
                place = stop
            number += 1

    def read_at_once(self, offset: int, buffer: memoryview) -> bool:
        """Do as `read_into` if that needs no waiting; False, and a buffer of no use, if it does.

        So it is for bytes of one open file that the system holds in memory, where the file system can tell.
        """
        starts, end = self._sources.starts, offset + len(buffer)
        if not self._tells_waiting or not 0 <= offset < end <= self._content_bytes:
            return False
        number = bisect_right(starts, offset) - 1
        if end > starts[number + 1] or not self._descriptors.has(number):
            return False
        try:
            with self._descriptors.use(number) as descriptor:
                if not fill_at_once(descriptor, buffer, offset - starts[number]):
                    return False
                self._sources.check(number, os.fstat(descriptor))
        except (ClosedError, OSError) as error:
            # whatever else is wrong, `read_into` finds it, too
            self._tells_waiting = not isinstance(error, OSError) or error.errno not in _CANNOT_TELL
            return False
        return True

    def hash_blocks(self, block_bytes: int, first: int, end: int) -> bytes:
        """Return HASH_BYTES of SHA-256 for each block [first, end) of the content; blocking.

        Block `n` begins at n * block_bytes and the last one may be shorter; ValueError for blocks that are not
        in the content. SourceChangedError as with `read_into`: a hash is never of two versions of a file.
        """
        return hash_blocks(self.read_into, self._content_bytes, block_bytes, first, end)

    def check_unchanged(self) -> None:
        """Raise SourceChangedError if any of the files was changed, replaced or removed since the scan."""
        for number, path in enumerate(self._sources.paths):
            try:
                self._sources.check(number, os.stat(path, follow_symlinks=False))
            except OSError as error:
                raise self._sources.changed(number) from error

    def close(self) -> None:
        """Close the files; `read` fails from now on. May be called twice."""
        self._descriptors.close()

    def _open(self, number: int) -> int:
        return os.open(self._sources.paths[number], os.O_RDONLY | FILE_FLAGS)

    def _read_one(self, number: int, offset: int, buffer: memoryview) -> None:
        sources = self._sources
        try:
            if len(buffer) == sources.size(number):  # nobody comes back for the rest: a folder's many small files
                if self._descriptors.closed:
                    raise ClosedError
                descriptor = self._open(number)
                try:
                    sources.fill(number, descriptor, offset, buffer)
                finally:
                    os.close(descriptor)
            else:
                with self._descriptors.use(number) as descriptor:
                    sources.fill(number, descriptor, offset, buffer)
        except ClosedError:
            raise ValueError("these files were closed") from None
        except OSError as error:
            raise sources.changed(number) from error

    def _preview(self, entries: list[FileEntry], folders: list[str]) -> Preview:
        if self.kind == "file":
            return Preview("file", human_size(self._content_bytes), text=self._beginning())
        names = [entry.path for entry in entries[:_PREVIEW_NAMES]] + [
            f"{folder}/" for folder in folders[:_PREVIEW_NAMES]
        ]
        lines = [printable(name, _PREVIEW_NAME_CHARS) for name in names[:_PREVIEW_NAMES]]
        if more := len(entries) + len(folders) - len(lines):
            lines.append(f"… and {more:,} more")
        files = "1 file" if self.count == 1 else f"{self.count:,} files"
        return Preview("folder", f"{files}, {human_size(self._content_bytes)}", text="\n".join(lines))

    def _beginning(self) -> str:
        """Return the first lines of a file if it is text, else nothing."""
        data = self.read(0, 4 * _PREVIEW_TEXT_CHARS)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if error.start < len(data) - 3 or len(data) == self._content_bytes:
                return ""
            text = data[: error.start].decode("utf-8-sig")  # cut inside a character
        text = text.replace("\r\n", "\n")
        if any(char < " " and char not in "\t\n\f" for char in text) or "\x7f" in text:
            return ""
        if len(text) <= _PREVIEW_TEXT_CHARS:
            return text
        text = text[:_PREVIEW_TEXT_CHARS]
        lines = text[: text.rfind("\n") + 1]
        return lines if len(lines) > _PREVIEW_TEXT_CHARS // 2 else text


class _Sources:
    """The files as they were found: parallel lists instead of objects, because there may be hundreds of thousands.

    File `n` has the content bytes [starts[n], starts[n + 1]).
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.starts = array("Q", [0])
        self._entries: list[FileEntry] = []
        self._mtimes = array("Q")
        self._ctimes = array("Q")
        self._inodes = array("Q")
        self._devices = array("Q")

    def add(self, path: str, sent_as: str, found: os.stat_result) -> None:
        self.paths.append(path)
        self.starts.append(self.starts[-1] + found.st_size)
        self._entries.append(FileEntry(sent_as, found.st_size, min(max(found.st_mtime_ns // 1_000_000, 0), 1 << 53)))
        self._mtimes.append(found.st_mtime_ns & _64_BITS)
        self._ctimes.append(found.st_ctime_ns & _64_BITS)
        self._inodes.append(found.st_ino & _64_BITS)
        self._devices.append(found.st_dev & _64_BITS)

    def take_entries(self) -> list[FileEntry]:
        """Return what the head lists, once: it is not kept."""
        entries, self._entries = self._entries, []
        return entries

    def size(self, number: int) -> int:
        return self.starts[number + 1] - self.starts[number]

    def fill(self, number: int, descriptor: int, offset: int, buffer: memoryview) -> None:
        """Read, then look: what changed before the reading is seen, and what changes later is by the next one.

        Looking costs a microsecond, so it is done for every piece: that of 512 KiB takes fifty.
        """
        length = fill_at(descriptor, buffer, offset)
        self.check(number, os.fstat(descriptor))
        if length != len(buffer):
            raise self.changed(number)

    def check(self, number: int, now: os.stat_result) -> None:
        """Raise SourceChangedError if the file is not what it was."""
        if (
            now.st_size != self.starts[number + 1] - self.starts[number]
            or now.st_mtime_ns & _64_BITS != self._mtimes[number]
            or now.st_ctime_ns & _64_BITS != self._ctimes[number]
            or now.st_ino & _64_BITS != self._inodes[number]
            or now.st_dev & _64_BITS != self._devices[number]
            or not stat.S_ISREG(now.st_mode)
        ):
            raise self.changed(number)

    def changed(self, number: int) -> SourceChangedError:
        return SourceChangedError(
            f"'{printable(self.paths[number])}' changed, vanished or became unreadable while it was being sent. "
            "Send it again."
        )


class _Scan:
    """What a walk found so far."""

    def __init__(self) -> None:
        self.sources = _Sources()
        self.empty_folders: list[str] = []
        self.skipped = 0
        self.renamed: list[tuple[str, str]] = []

    def add(self, given: Path, real: Path, *, nested: bool) -> None:
        """Add a path the user named; `nested` puts a folder's members under its name."""
        try:
            found = real.stat()
        except OSError as error:
            raise _unreadable(given, error) from error
        name = portable_name(given.name or real.name or "files")
        if name != given.name and given.name:
            self.renamed.append((str(given), name))
        if stat.S_ISDIR(found.st_mode):
            self._walk(str(real), name if nested else "")
        elif stat.S_ISREG(found.st_mode):
            self._add_file(str(real), name, found)
        else:
            raise UsageError(f"'{printable(str(given))}' is neither a file nor a folder, so it can't be sent.")

    def _add_file(self, path: str, sent_as: str, found: os.stat_result) -> None:
        if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            raise _unreadable(path, PermissionError("no permission to read it"))
        self.sources.add(path, sent_as, found)

    def _walk(self, top: str, top_name: str) -> None:
        waiting = [(top, top_name)]
        while waiting:
            path, sent_as = waiting.pop()
            inner: list[tuple[str, str]] = []
            before = len(self.sources.paths)
            try:
                with os.scandir(path) as members:
                    for member in sorted(members, key=lambda member: member.name):
                        self._visit(member, sent_as, inner)
            except OSError as error:
                raise _unreadable(error.filename or path, error) from error
            if sent_as and not inner and len(self.sources.paths) == before:
                self.empty_folders.append(sent_as)
            waiting.extend(reversed(inner))

    def _visit(self, member: os.DirEntry[str], parent: str, inner: list[tuple[str, str]]) -> None:
        is_folder = member.is_dir(follow_symlinks=False)
        if (
            member.name.startswith(".")
            or (is_folder and member.name in _SKIPPED_FOLDERS)
            or not (is_folder or member.is_file(follow_symlinks=False))
            or (hasattr(member, "is_junction") and member.is_junction())
        ):
            self.skipped += 1
            return
        name = portable_name(member.name)
        sent_as = f"{parent}/{name}" if parent else name
        if sent_as.count("/") >= MAX_DEPTH or len(sent_as.encode()) > MAX_PATH_BYTES:
            raise UsageError(
                f"'{printable(member.path)}' is nested too deeply to be sent as it is. "
                "Pack the folder into an archive (shutil.make_archive) and send that."
            )
        if name != member.name:
            self.renamed.append((member.path, sent_as))
        if is_folder:
            inner.append((member.path, sent_as))
        else:
            # Not DirEntry.stat: on Windows it knows no inode.
            self._add_file(member.path, sent_as, os.stat(member.path, follow_symlinks=False))


def _resolved(path: StrPath) -> tuple[Path, Path]:
    given = Path(os.fspath(path))
    if not os.path.lexists(given):
        given = given.expanduser()
    try:
        return given, given.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise _unreadable(given, error) from error


def _unreadable(path: StrPath, error: Exception) -> UsageError:
    shown = printable(os.fspath(path))
    if isinstance(error, FileNotFoundError):
        return UsageError(
            f"There is no file or folder '{shown}' (looked for from {printable(os.getcwd())}). Check the path."
        )
    reason = printable(getattr(error, "strerror", None) or str(error))
    return UsageError(f"'{shown}' can't be read ({reason}). Check its permissions, or leave it out.")
