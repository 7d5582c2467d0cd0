"""Files from the browser on their way into the room.

They come in pieces into a folder of their own that only this user can enter, and go from there like any
other file. The folder goes when the transfer ended, when the upload is given up, or with this process. After
a transfer that failed it stays for a while, so that it can be tried again without the browser.

The browser is the user's own, but a page is a page: names stay below the folder, sizes are held to what
was announced, and every number of things has a bound.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from p2pnb.errors import DiskFullError, UnsafeNameError, UsageError
from p2pnb.panel.protocol import MAX_PIECE_BYTES, MAX_UPLOAD_FILES, MAX_UPLOADS
from p2pnb.panel.rooms import Peer, Room, Transfer

__all__ = ["Uploads"]

FORGOTTEN_S: Final = 30 * 60.0  # a page that was closed in the middle of an upload never says so
MAX_DEPTH: Final = 64
MAX_COMPONENT_BYTES: Final = 255  # NAME_MAX of every file system in use
_FAILED: Final = "failed"
_ENDED: Final = frozenset({"done", _FAILED, "cancelled", "declined"})


class _Upload:
    """One transfer to be: its folder, and how much of each file is there."""

    def __init__(
        self, files: Sequence[tuple[str, int]], to: list[Peer] | None, parent: Path | None, now: float
    ) -> None:
        self.to = to
        self._paths = _relative_paths([name for name, _ in files])
        self._sizes = [size for _, size in files]
        self._written = [0] * len(files)
        self.touched = now
        self.folder = tempfile.TemporaryDirectory(prefix="p2pnb-upload-", dir=parent, ignore_cleanup_errors=True)
        try:
            for path in self._paths:
                self._create(path)
        except BaseException:
            self.folder.cleanup()
            raise

    def write(self, file: int, offset: int, data: bytes | memoryview) -> None:
        """Add a piece to the end of a file."""
        if not 0 <= file < len(self._paths):
            raise UsageError(f"the upload has no file number {file}")
        if offset != self._written[file] or offset + len(data) > self._sizes[file]:
            raise UsageError(f"a piece of {self._paths[file]} is out of place; send the file again")
        with open(self._whole(self._paths[file]), "r+b", buffering=0) as out:
            out.seek(offset)
            rest = memoryview(data)
            while rest:
                rest = rest[out.write(rest) :]
        self._written[file] += len(data)

    def finished(self) -> Path | list[Path]:
        """Return what to send: one path if everything lies in one folder or is one file."""
        if self._written != self._sizes:
            raise UsageError("parts of the upload are missing; send it again")
        tops = {path.parts[0] for path in self._paths}
        if len(tops) == 1:
            return self._whole(Path(tops.pop()))
        return [self._whole(path) for path in self._paths]

    def _whole(self, path: Path) -> Path:
        return Path(self.folder.name) / path

    def _create(self, path: Path) -> None:
        whole = self._whole(path)
        whole.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(whole, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o600))


class Uploads:
    """The uploads of one panel. All methods are called by the panel's own thread."""

    def __init__(self) -> None:
        self._open: dict[int, _Upload] = {}
        self._sent: list[_Cleaner] = []

    def begin(
        self,
        upload: int,
        files: Sequence[tuple[str, int]],
        to: list[Peer] | None,
        fallback: Path | None,
        now: float,
    ) -> None:
        """Make room for the files, which will go `to` these peers (None: everybody).

        `fallback` is where they are kept if the usual folder for temporary files has no space.
        """
        if upload in self._open:
            raise UsageError("this upload was begun already")
        if len(self._open) >= MAX_UPLOADS:
            raise UsageError(f"{MAX_UPLOADS} uploads are under way; wait until one of them ended")
        if not 1 <= len(files) <= MAX_UPLOAD_FILES:
            raise UsageError(f"an upload has 1 to {MAX_UPLOAD_FILES} files; use room.send_file(path) in a cell")
        if any(size < 0 for _, size in files):
            raise UsageError("a file can't have a negative size")
        total_bytes = sum(size for _, size in files)
        with _disk_errors():
            self._open[upload] = _Upload(files, to, _place_for(total_bytes, fallback), now)

    def piece(self, upload: int, file: int, offset: int, data: bytes | memoryview, now: float) -> None:
        """Write one piece."""
        if len(data) > MAX_PIECE_BYTES:
            raise UsageError(f"a piece of {len(data)} bytes; at most {MAX_PIECE_BYTES} are allowed")
        there = self._get(upload)
        there.touched = now
        with _disk_errors():
            there.write(file, offset, data)

    def end(self, upload: int, room: Room) -> Transfer:
        """Send the files into `room`; their folder stays until that transfer ended well or was given up."""
        there = self._get(upload)
        del self._open[upload]
        try:
            transfer = room.send_file(there.finished(), to=there.to)
        except BaseException:
            there.folder.cleanup()
            raise
        self._sent = [cleaner for cleaner in self._sent if not cleaner.cleaned]
        for cleaner in [cleaner for cleaner in self._sent if cleaner.failed][: -(MAX_UPLOADS - 1)]:
            cleaner.clean()
        self._sent.append(_Cleaner(there.folder, transfer, room))
        return transfer

    def retried(self, failed: Transfer, transfer: Transfer) -> None:
        """Say that what failed goes again as `transfer`; nothing happens if it was no upload."""
        for cleaner in self._sent:
            cleaner.follow(failed, transfer)

    def abort(self, upload: int) -> None:
        """Give an upload up; one that is not there is no error, for it may have ended meanwhile."""
        there = self._open.pop(upload, None)
        if there is not None:
            there.folder.cleanup()

    def forget(self, now: float) -> None:
        """Give up what nobody has touched for long."""
        for upload, there in list(self._open.items()):
            if now - there.touched > FORGOTTEN_S:
                self.abort(upload)
        for cleaner in self._sent:
            cleaner.forget(now)

    def close(self) -> None:
        """Give everything up that was not sent; what is under way goes on, and won't be tried again."""
        for upload in list(self._open):
            self.abort(upload)
        for cleaner in self._sent:
            cleaner.keep_failed = False
            cleaner.look()

    def _get(self, upload: int) -> _Upload:
        there = self._open.get(upload)
        if there is None:
            raise UsageError("this upload is not known (any more); send the file again")
        return there


class _Cleaner:
    """Removes an upload's folder when its transfer ended or its room closed; lives as long as it must."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], transfer: Transfer, room: Room) -> None:
        self.keep_failed = True
        self.cleaned = False
        self._folder = folder
        self._transfer = transfer
        self._room = room
        self._failed_at: float | None = None
        self._lock = threading.Lock()
        self._ready = False  # the callbacks may run before both subscriptions stand
        self._subscriptions = [room.on("transfer", self.look), room.on("state", self.look)]
        self._ready = True
        self.look()  # a small file may have gone before we listened

    @property
    def failed(self) -> bool:
        """True while the folder waits for another try."""
        return not self.cleaned and self._transfer.state == _FAILED

    def follow(self, failed: Transfer, transfer: Transfer) -> None:
        """The files of `failed`, if these are they, are on their way again."""
        with self._lock:
            if self._transfer is not failed:
                return
            self._transfer, self._failed_at = transfer, None
        self.look()

    def forget(self, now: float) -> None:
        """Remove what nobody tried again for long."""
        if not self.failed:
            return
        if self._failed_at is None:
            self._failed_at = now
        elif now - self._failed_at > FORGOTTEN_S:
            self.clean()

    def look(self, _event: object = None) -> None:
        """See whether the folder is needed any more; from any thread."""
        state = self._transfer.state
        needed = state not in _ENDED or (state == _FAILED and self.keep_failed)
        if not needed or self._room.state == "closed":
            self.clean()

    def clean(self) -> None:
        """Remove the folder, once."""
        with self._lock:
            if not self._ready:
                return
            self._ready = False
        self.cleaned = True
        for unsubscribe in self._subscriptions:
            unsubscribe()
        # This may be the engine's thread, and a folder of ten thousand files takes a while.
        threading.Thread(target=self._folder.cleanup, name="p2pnb-upload-cleanup", daemon=True).start()


def _place_for(total_bytes: int, fallback: Path | None) -> Path | None:
    """Return the folder to put an upload's folder into; None is the usual one for temporary files."""
    usual_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    if total_bytes < usual_bytes:
        return None
    fallback_bytes = shutil.disk_usage(fallback).free if fallback is not None and fallback.is_dir() else 0
    if total_bytes < fallback_bytes:
        return fallback
    raise DiskFullError(
        f"the upload has {total_bytes} bytes and the kernel's machine only {max(usual_bytes, fallback_bytes)} left; "
        "free some space there, or put the file there by other means and use room.send_file(path)"
    )


def _relative_paths(names: Sequence[str]) -> list[Path]:
    paths = [Path(*_components(name)) for name in names]
    if len(set(paths)) != len(paths):
        raise UnsafeNameError("two files of the upload have the same name")
    return paths


def _components(name: str) -> list[str]:
    parts = name.split("/")
    if len(parts) > MAX_DEPTH:
        raise UnsafeNameError("the folder is nested too deeply to be sent from the browser")
    for part in parts:
        bad = part in {"", ".", ".."} or "\0" in part or "\\" in part or (os.sep != "/" and os.sep in part)
        if bad or len(os.fsencode(part)) > MAX_COMPONENT_BYTES or (os.name == "nt" and ":" in part):
            raise UnsafeNameError("a file of the upload has a name that can't be used on the kernel's machine")
    return parts


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn errors of the file system into those a user knows."""
    try:
        yield
    except OSError as error:
        raise DiskFullError(f"the upload can't be written on the kernel's machine: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise UnsafeNameError("a file of the upload has a name that can't be used on the kernel's machine") from error
