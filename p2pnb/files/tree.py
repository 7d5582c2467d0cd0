"""The files of a plan on the disk, written and read as one stream of bytes at any offset.

A file that is written in one piece is opened, written and closed on the spot; the others share a bounded set of
open files. What of it is on the disk is known only to the file system: after a restart `survey` looks.
"""

from __future__ import annotations

import os
import stat
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Final

from p2pnb.files._descriptors import ClosedError, Descriptors, fill_at, write_at
from p2pnb.files._directory import Directory
from p2pnb.files.parts import is_own
from p2pnb.files.plan import Plan

__all__ = ["DamagedError", "Tree"]

MAX_OPEN: Final = 32  # files; chunks of several lanes are near each other in a folder's stream
MAX_OPEN_FOLDERS: Final = 80  # more than MAX_DEPTH: the parents of an open folder are open while it opens

_CLOCK_DIFFERENCE_S: Final = 24 * 3600.0  # wrong time zones happen; what is from next week is made up
_OLDEST_MTIME_MS: Final = 315_532_800_000  # 1980: what FAT and zip can say
_TIMES_BY_DESCRIPTOR: Final = os.utime in os.supports_fd


class DamagedError(Exception):
    """What lies in a part is not what we left there."""


class Tree:
    """The content below `place`, an open directory of the caller's. Thread-safe for disjoint ranges.

    All methods raise OSError as the system does, and ClosedError after `close`.
    """

    def __init__(self, plan: Plan, place: Directory) -> None:
        self._plan = plan
        self._place = place
        self._made_files = bytearray(len(plan.names))
        self._made_folders = bytearray(len(plan.folder_names))
        self._timed = bytearray(len(plan.names))  # has its final time, and was not written since
        self._newest_mtime_ms = (time.time() + _CLOCK_DIFFERENCE_S) * 1000
        self._folders = Descriptors(self._open_folder, Directory.close, MAX_OPEN_FOLDERS)
        self._files = Descriptors(self._open_file, os.close, MAX_OPEN)

    def write(self, offset: int, data: memoryview) -> None:
        """Write a piece of the content; it may span files."""
        starts = self._plan.starts
        place, end = offset, offset + len(data)
        number = bisect_right(starts, offset) - 1  # of several that start here the last: the others are empty
        while place < end:
            stop = starts[number + 1]
            if starts[number] == place and stop <= end and self._plan.kind == "folder":
                number = self._write_whole_files(number, data, offset)
                place = starts[number]
                continue
            stop = min(stop, end)
            with self._files.use(number) as descriptor:
                self._timed[number] = 0
                write_at(descriptor, data[place - offset : stop - offset], place - starts[number])
            place = stop
            number += 1

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Read content back; DamagedError if the files are shorter than that."""
        starts = self._plan.starts
        place, end = offset, offset + len(buffer)
        number = bisect_right(starts, offset) - 1
        while place < end:
            stop = min(starts[number + 1], end)
            if place < stop:
                if not self._made_files[number]:
                    raise DamagedError
                with self._files.use(number) as descriptor:
                    wanted = buffer[place - offset : stop - offset]
                    if fill_at(descriptor, wanted, place - starts[number]) != len(wanted):
                        raise DamagedError
            place = stop
            number += 1

    def survey(self) -> list[tuple[int, int]]:
        """Look what an earlier process made; return the ranges of the content that can't be there.

        DamagedError if anything is a link, a larger file, somebody else's, or otherwise not of our making.
        """
        plan = self._plan
        absent: list[tuple[int, int]] = []
        if plan.kind == "folder":
            for number in range(len(plan.folder_names)):
                with self._looking_into(plan.folder_parents[number] if number else None) as directory:
                    found = self._found(directory, plan.folder_names[number])
                if found:
                    if not stat.S_ISDIR(found.st_mode):
                        raise DamagedError
                    self._made_folders[number] = 1
        for parent, numbers in groupby(range(len(plan.names)), plan.parents.__getitem__):
            with self._looking_into(parent if plan.kind == "folder" else None) as directory:
                for number in numbers:
                    start, end = plan.starts[number], plan.starts[number + 1]
                    if found := self._found(directory, plan.names[number]):
                        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size > end - start:
                            raise DamagedError
                        self._made_files[number] = 1
                        start += found.st_size
                    if start < end:
                        absent.append((start, end))
        return absent

    def complete(self) -> None:
        """Make what holds no bytes, and set all times. Nothing is open afterwards."""
        if self._plan.kind == "folder":
            for number, made in enumerate(self._made_folders):
                if not made:
                    with self._folders.use(number):
                        pass
        self._files.close()
        for number in range(len(self._plan.names)):
            if not self._made_files[number]:  # an empty file
                os.close(self._open_file(number))
            if not self._timed[number] and self._has_time(number):
                seconds = self._plan.mtimes[number] / 1000
                if self._plan.kind == "file":
                    self._place.set_mtime(self._plan.names[number], seconds)
                else:
                    with self._folders.use(self._plan.parents[number]) as directory:
                        directory.set_mtime(self._plan.names[number], seconds)
        self._folders.close()

    def close(self) -> None:
        """Close everything; from here on nothing new is made. May be called twice."""
        self._files.close()
        self._folders.close()

    def _write_whole_files(self, number: int, data: memoryview, offset: int) -> int:
        """Write the files of one folder that lie in `data` as a whole, from `number` on; return the next number."""
        plan, starts, made = self._plan, self._plan.starts, self._made_files
        parent, end, count = plan.parents[number], offset + len(data), len(plan.names)
        with self._folders.use(parent) as directory:
            while number < count and (stop := starts[number + 1]) <= end and plan.parents[number] == parent:
                start = starts[number]
                if start < stop:
                    if self._folders.closed:
                        raise ClosedError
                    flags = os.O_WRONLY if made[number] else os.O_WRONLY | os.O_CREAT | os.O_EXCL
                    descriptor = directory.open_file(plan.names[number], flags)
                    try:
                        made[number] = 1
                        write_at(descriptor, data[start - offset : stop - offset], 0)
                        if _TIMES_BY_DESCRIPTOR and self._has_time(number):
                            nanoseconds = plan.mtimes[number] * 1_000_000
                            os.utime(descriptor, ns=(nanoseconds, nanoseconds))
                            self._timed[number] = 1
                    finally:
                        os.close(descriptor)
                number += 1
        return number

    def _has_time(self, number: int) -> bool:
        return _OLDEST_MTIME_MS <= self._plan.mtimes[number] <= self._newest_mtime_ms

    @contextmanager
    def _looking_into(self, folder: int | None) -> Iterator[Directory | None]:
        """Lend a folder that an earlier process made (None: the part itself), None if it made none."""
        if folder is None:
            yield self._place
        elif not self._made_folders[folder]:
            yield None
        else:
            with self._folders.use(folder) as directory:
                yield directory

    @staticmethod
    def _found(directory: Directory | None, name: str) -> os.stat_result | None:
        """Return what has that name, None if there is nothing; DamagedError for what belongs to somebody else."""
        if directory is None:
            return None
        try:
            found = directory.look(name)
        except FileNotFoundError:
            return None
        if not is_own(found):
            raise DamagedError
        return found

    def _open_folder(self, number: int) -> Directory:
        parent, name = self._plan.folder_parents[number], self._plan.folder_names[number]
        if number == 0:
            return self._child(self._place, number, name)
        with self._folders.use(parent) as directory:
            return self._child(directory, number, name)

    def _child(self, directory: Directory, number: int, name: str) -> Directory:
        if not self._made_folders[number]:
            directory.make(name)
            self._made_folders[number] = 1
        return directory.child(name)

    def _open_file(self, number: int) -> int:
        flags = os.O_RDWR | (0 if self._made_files[number] else os.O_CREAT | os.O_EXCL)
        name = self._plan.names[number]
        if self._plan.kind == "file":
            descriptor = self._place.open_file(name, flags)
        else:
            with self._folders.use(self._plan.parents[number]) as directory:
                descriptor = directory.open_file(name, flags)
        self._made_files[number] = 1
        return descriptor
