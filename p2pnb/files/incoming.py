"""Files and folders on their way in: assembled out of sight, shown under their final name only when complete.

Everything is assembled in a part (see `parts`), with the permissions it will keep (the umask's, no executable
bit), so the last step is one rename to a name that was free; nothing that exists is ever replaced. The announced
size allocates nothing: files grow as bytes arrive, in any order.

What came of a transfer that broke can be kept. An offer of the same item then takes it over with `adopt`, and asks
the sender for the hashes of the blocks that seem to be there: what differs (the source may be another version by
now, of the same size and time) is forgotten and received again. So two versions are never spliced.

Rejected: a temporary per file in its final folder (a folder would become visible in pieces), and
``os.replace`` (would overwrite what the user has).
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from p2pnb.errors import CorruptDataError, DiskFullError, TransferCancelledError, TransferError, UnsafeNameError
from p2pnb.files._descriptors import ClosedError
from p2pnb.files._directory import move_to_free
from p2pnb.files.blocks import hash_blocks
from p2pnb.files.names import numbered_name, printable
from p2pnb.files.part_state import PartState, longest
from p2pnb.files.parts import Part, kept_bytes, parts_of
from p2pnb.files.plan import CONTENT, Plan
from p2pnb.files.sizes import human_size
from p2pnb.files.tree import DamagedError, Tree
from p2pnb.protocol.ranges import RangeSet

__all__ = ["IncomingFiles"]

MAX_RANGES: Final = 16_384  # pieces not joined yet; a window of 32 MiB in 48 KiB chunks makes 700
MAX_NAMES_TRIED: Final = 10_000

_FULL: Final = frozenset(
    number for name in ("ENOSPC", "EDQUOT", "EFBIG") if (number := getattr(errno, name, None)) is not None
)


class IncomingFiles:
    """One offer being received into `folder`. `write` is thread-safe for disjoint ranges.

    `renamed` pairs the path a member was offered as with the one it gets, where they differ: names that some
    program would run unasked, and names that would collide on this or another system.
    """

    def __init__(
        self,
        head: bytes,
        name: str,
        kind: str,
        content_bytes: int,
        folder: str | os.PathLike[str],
        *,
        key: bytes = b"",
    ) -> None:
        """Check the offer and make the hidden part; blocking.

        `key` (at most 64 bytes) is what `adopt` finds the part by; without one nothing can be resumed.
        CorruptDataError: the head contradicts itself or the announced size. UnsafeNameError: a name can't be
        used. DiskFullError: the folder's disk has less free than announced. TransferError: the folder can't be
        written to.
        """
        plan = Plan(head, name, kind, content_bytes)
        self._prepare(plan, folder, _first_state(plan, head, key) if key else None)
        with self._translated():
            os.makedirs(self._folder_path, exist_ok=True)
            self._require_space()
            self._use(Part.create(self._folder_path))

    @classmethod
    def adopt(
        cls,
        head: bytes,
        name: str,
        kind: str,
        content_bytes: int,
        folder: str | os.PathLike[str],
        *,
        key: bytes,
    ) -> Self | None:
        """Take over what an earlier transfer of the same item left in `folder`; None if there is nothing of use.

        Of several parts the one with most bytes; the others are removed. A part that a living process holds, or
        whose plan is not the one of this head, is left alone. Nothing in the part is trusted: before `finish`,
        compare hashes and forget what differs (`hash_blocks`, `forget`). Raises what the constructor raises,
        DiskFullError if there is no room for the rest; the part stays then. Blocking.
        """
        folder_path = os.path.abspath(folder)
        names = parts_of(folder_path, key) if key else []
        if not names:
            return None
        plan = Plan(head, name, kind, content_bytes)
        wanted = _first_state(plan, head, key)
        adopted: Self | None = None
        for part_name in names:
            taken = Part.take(folder_path, part_name)
            if taken is None:
                continue
            part, state = taken
            if not state.fits(wanted):
                part.release()
            elif adopted is not None:
                part.remove()
            else:
                files = cls.__new__(cls)
                files._prepare(plan, folder, wanted)
                adopted = files if files._use_again(part, state) else None
        if adopted is not None:
            try:
                with adopted._translated():
                    adopted._require_space()
            except BaseException:
                adopted.keep()
                raise
        return adopted

    def _prepare(self, plan: Plan, folder: str | os.PathLike[str], state: PartState | None) -> None:
        self.name, self.kind, self.content_bytes, self.renamed = plan.name, plan.kind, plan.content_bytes, plan.renamed
        self._plan = plan
        self._state = state  # None: not to be resumed
        self._folder_path = os.path.abspath(folder)
        self._received = RangeSet()
        self._writers = 0
        self._over = False
        self._changed = threading.Condition()
        self._journal_lock = threading.Lock()

    def _use(self, part: Part) -> None:
        self._part = part
        self._tree = Tree(self._plan, part.place)

    def _use_again(self, part: Part, state: PartState) -> bool:
        """Go on with a part; False if that can't be, and the part removed if nothing in it is of use."""
        self._use(part)
        for start, end in state.ranges:
            self._received.add(start, end)
        try:
            absent = self._tree.survey()
        except (OSError, DamagedError) as error:
            self._tree.close()
            if isinstance(error, DamagedError):
                part.remove()
            else:  # of the system, and perhaps for a moment only
                part.release()
            return False
        for start, end in absent:
            self._received.remove(start, end)
        self._limit_pieces()
        if not self._received.total:
            self._tree.close()
            part.remove()
        return bool(self._received.total)

    @property
    def received_bytes(self) -> int:
        """How many different bytes of the content were written."""
        return self._received.total

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The written ranges [start, end) of the content, joined and in order; after `adopt` what seems to be there."""
        with self._changed:
            return list(self._received)

    @property
    def part_path(self) -> Path:
        """Where it is assembled."""
        return Path(self._part.path)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write a piece of the content (offset 0 is the first byte after the head); may span files.

        CorruptDataError beyond the announced size, DiskFullError if the disk is full, TransferCancelledError
        after `abort` or `keep`, TransferError for any other failure of the disk. A failed piece does not count
        as written.
        """
        view = memoryview(data).cast("B")
        end = offset + len(view)
        if offset < 0 or end > self.content_bytes:
            raise CorruptDataError(f"More bytes of '{printable(self.name)}' arrived than its sender announced.")
        if not view:
            return
        with self._working():
            self._tree.write(offset, view)
            with self._changed:
                self._received.add(offset, end)
                if len(self._received) > MAX_RANGES:
                    self._received.remove(offset, end)
                    raise CorruptDataError("The bytes arrive in too many pieces. Ask the sender to send it again.")

    def hash_blocks(self, block_bytes: int, first: int, end: int) -> bytes:
        """Return HASH_BYTES of SHA-256 for each block [first, end) of what was written; blocking.

        Block `n` begins at n * block_bytes and the last one may be shorter. ValueError for a block that was not
        written as a whole; TransferError and the like as with `write`.
        """
        with self._changed:
            missing = self._received.missing(first * block_bytes, min(end * block_bytes, self.content_bytes))
        if missing:
            raise ValueError(f"blocks [{first}, {end}) of {block_bytes} bytes did not arrive as a whole")
        with self._working():
            return hash_blocks(self._tree.fill, self.content_bytes, block_bytes, first, end)

    def forget(self, start: int, end: int) -> None:
        """Count these bytes as not written any more. Others may be forgotten too, where pieces become too many."""
        with self._changed:
            self._received.remove(start, end)
            self._limit_pieces()

    def journal(self) -> None:
        """Note in the part what was written so far, for whoever adopts it; blocking, some microseconds.

        Raises nothing: where the disk takes no note, more is received again.
        """
        with self._journal_lock:
            if self._state is None or self._over:
                return
            self._note()

    def finish(self) -> Path:
        """Give everything its final name and return it; blocking, to be called once all writes returned.

        CorruptDataError if bytes are missing: then nothing appears. On any error call `abort`.
        """
        if self._received.total != self.content_bytes:
            raise CorruptDataError(
                f"Only {human_size(self._received.total)} of the {human_size(self.content_bytes)} of "
                f"'{printable(self.name)}' arrived. Ask the sender to send it again."
            )
        with self._working():
            self._tree.complete()
            final = self._move()
        self.abort()
        return Path(self._folder_path, final)

    def abort(self) -> None:
        """Remove everything that was written; nothing of it was visible.

        May be called at any time, also twice; waits for writes under way to notice.
        """
        if self._end():
            self._part.remove()

    def keep(self) -> Path:
        """End it, but leave what was written for `adopt`; return the part's path. Needs a `key`.

        Kept for KEPT_AGE_S (see `clean_leftovers`), whatever becomes of this process. May be called at any time,
        also twice; waits for writes under way to notice. Without a byte received, `abort` is the better end.
        """
        if self._state is None:
            raise ValueError("a part without a key can't be resumed")
        if self._end():
            with self._journal_lock:
                self._note()
            self._part.release()
        return self.part_path

    def _note(self) -> None:
        assert self._state is not None
        with suppress(OSError):  # then the note before stands
            self._part.write_state(self._state, self.ranges)

    def _end(self) -> bool:
        """Stop everything; True the first time."""
        with self._changed:
            if self._over:
                return False
            self._over = True
        # From here on nothing new is opened, so nothing new appears while the tree is removed, and nothing of ours
        # is written any more when another transfer takes the part up.
        self._tree.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._writers)
        return True

    def _move(self) -> str:
        for number in range(1, MAX_NAMES_TRIED):
            candidate = self.name if number == 1 else numbered_name(self.name, number)
            if move_to_free(self._part.place, CONTENT, self._part.target, candidate):
                return candidate
        raise TransferError(f"{self._folder_path} is full of files called '{printable(self.name)}'. Clean it up first.")

    def _limit_pieces(self) -> None:
        if len(self._received) > MAX_RANGES:
            self._received = RangeSet(longest(list(self._received), MAX_RANGES // 2))  # so that it is rare

    def _require_space(self) -> None:
        needed = self.content_bytes - self._received.total
        free = shutil.disk_usage(self._folder_path).free
        if free < needed:
            kept = kept_bytes(self._folder_path)
            broken = f" Transfers that broke (.p2pnb-*.part in it) hold {human_size(kept)}." if kept else ""
            raise DiskFullError(
                f"'{printable(self.name)}' needs {human_size(needed)}, but {self._folder_path} has "
                f"{human_size(free)} free. Free some space, or receive into another folder.{broken}"
            )

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Count as under way, and turn what goes wrong into what a person can act on."""
        with self._translated():
            with self._changed:
                if self._over:
                    raise ClosedError
                self._writers += 1
            try:
                yield
            finally:
                with self._changed:
                    self._writers -= 1
                    if not self._writers:
                        self._changed.notify_all()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the system says into what a person can act on."""
        try:
            yield
        except ClosedError:
            raise TransferCancelledError(f"'{printable(self.name)}' is not being received any more.") from None
        except DamagedError:
            raise TransferError(
                f"What had arrived of '{printable(self.name)}' was changed or removed in {self._part.path}. "
                "Receive it again."
            ) from None
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


def _first_state(plan: Plan, head: bytes, key: bytes) -> PartState:
    return PartState(1, 1, key, plan.kind, plan.name, plan.content_bytes, plan.digest(head))
