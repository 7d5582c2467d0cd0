"""Many peers pull one content and serve each other: which block is asked of whom.

Theory of operation. A share's content is cut into blocks of one size; the last may be short. Whoever pulls it
knows the hash of every block from the owner, so any peer may serve any block and a wrong one is found out.

`Pulling` is one puller. Per source it knows which blocks that peer has; it keeps a few of them asked at each:

    todo ──want()──> asked at one source ──all bytes, hash right──> done
                     asked at two        (the first one is late)
                     ──hash wrong──> todo; the source is dropped for good

The owner is special: its line is what everybody shares. It is asked only for what no other source has and nobody
said to be getting, and each puller begins with the part of the blocks that is its turn (`_my_turn`), so that
pullers bring different blocks from it and trade them. It is asked for more while the others together are slower
than it is, or when one of them does not deliver. A source is asked for a block once: whoever was late or wrong
with it is not waited for again.

The first source asked for a block writes it into its place. One that is asked besides writes to a scratch
block, so that no two ever write to the same bytes and blame is always one source's.

The other side, whom a holder serves and what it tells them, is `serving.Serving`; blocks, hashes and sets of
blocks (integers, as bit sets) are in `manifest`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from hashlib import sha256
from typing import Final

import msgspec

from p2pnb.errors import ProtocolError
from p2pnb.protocol.manifest import block_count, blocks_of_ranges, blocks_to_ranges, ranges_of_blocks
from p2pnb.protocol.wire import HASH_BYTES

__all__ = ["BlockState", "Pulling", "Writer"]

MIN_ASKED_BLOCKS: Final = 2  # per source, so that its line does not idle between two questions
MAX_ASKED_BYTES: Final = 32 * 1024 * 1024  # per source; what a fast line carries in a quarter of a second
ASK_AHEAD_S: Final = 0.25  # as much is asked of a source as it delivers in this time
STALL_S: Final = 5.0  # a source that owes something and is silent this long is not counted on
GIVE_UP_S: Final = 30.0  # and one that is silent this long is dropped
SAMPLE_S: Final = 0.2  # over which a source's rate is measured
LEAST_SAMPLE_S: Final = 0.001
OWNER_HELPS_BELOW: Final = 2.0  # times its own rate: then it serves also what others have
MAX_DOUBLES: Final = 16  # blocks asked at two sources; each takes a scratch block of memory
MAX_SOURCES: Final = 32  # of one puller; the owner's choice of acquaintances keeps below it
MAX_CLAIMED: Final = 64  # blocks of one source that count as coming; an honest one asks the owner for fewer
PLACES: Final = 8  # of each puller on the ring of blocks
TURN_S: Final = 0.3  # with nothing to bring from the owner, so long it waits before it brings what is others' turn
CLAIMS_HOLD_S: Final = 5.0  # without any progress nobody waits for what others say is coming
HOPELESS_S: Final = 5.0  # with the owner gone, and nobody getting a block that is missing


class Writer(Enum):
    """Where the bytes that a source sends for a block belong."""

    PLACE = auto()  # into the content
    SCRATCH = auto()  # beside it: another source writes into the content
    NOWHERE = auto()  # not needed any more


class BlockState(Enum):
    """What `Pulling.checked` made of a block."""

    NEW = auto()  # it is right, and it was missing
    KNOWN = auto()  # nobody needs it any more
    WRONG = auto()  # its source sent something else and is dropped


class _Source(msgspec.Struct):
    peer: bytes
    has: int = 0  # bit set of blocks
    coming: int = 0  # it says that it asked the owner for these
    tried: int = 0  # ever asked of it
    asked: dict[int, int] = msgspec.field(default_factory=dict)  # block -> bytes that came of it
    cursor: int = 0  # behind the last block asked: its neighbour is read and told of with less
    owed_bytes: int = 0
    rate: float = 0.0  # bytes per second, 0 before the first measurement
    heard_at: float = 0.0  # when bytes last came, or the first of them was asked
    sample_at: float = 0.0
    sample_bytes: int = 0

    def stalled(self, now: float) -> bool:
        return bool(self.asked) and now - self.heard_at > STALL_S

    def seconds_owed(self, now: float) -> float:
        """How long it will take for what it was asked, as far as one can tell."""
        if self.stalled(now):
            return float("inf")
        return self.owed_bytes / self.rate if self.rate else now - self.heard_at


class Pulling:
    """One content on its way to this peer from several sources.

    `me` is this peer's id, as the other pullers know it.
    """

    def __init__(self, *, owner: bytes, content_bytes: int, block_bytes: int, hashes: bytes, me: bytes) -> None:
        self.count = block_count(content_bytes, block_bytes)
        if len(hashes) != self.count * HASH_BYTES:
            raise ProtocolError("a share with another number of hashes than blocks")
        self.owner = owner
        self.content_bytes, self.block_bytes = content_bytes, block_bytes
        self._hashes = hashes
        self._all = (1 << self.count) - 1
        self._done = 0
        self._asked = 0  # at one source or more, not done
        self._sources: dict[bytes, _Source] = {}
        self._writers: dict[int, bytes] = {}  # block -> the source that writes it into its place
        self._doubles = 0
        self._banned: set[bytes] = set()
        self._random = int.from_bytes(sha256(me).digest()[:8], "big")
        self._learned_at: float | None = None  # when a missing block was last seen to be somewhere
        self._me = me
        self._turn: tuple[tuple[bytes, ...], int] | None = None  # as worked out for these other pullers
        self._progress_at = 0.0  # when a block was last found right, or the owner answered
        self.done_bytes = 0

    # ── what is known ───────────────────────────────────────────────────────────────────────────────
    @property
    def finished(self) -> bool:
        """True once every block is here and right."""
        return self._done == self._all

    @property
    def done_blocks(self) -> list[tuple[int, int]]:
        """Ranges of blocks that are here and right."""
        return ranges_of_blocks(self._done)

    def has(self, block: int) -> bool:
        """Tell whether a block is here and right."""
        return bool(self._done >> block & 1)

    def holds_all(self, peer: bytes) -> bool:
        """Tell whether `peer` said that it has every block."""
        source = self._sources.get(peer)
        return source is not None and source.has == self._all

    @property
    def coming_blocks(self) -> list[tuple[int, int]]:
        """Ranges of blocks that the owner was asked for."""
        owner = self._sources.get(self.owner)
        return blocks_to_ranges(owner.asked) if owner is not None else []

    @property
    def sources(self) -> tuple[bytes, ...]:
        """Peers that are asked."""
        return tuple(self._sources)

    def wants_source(self, peer: bytes) -> bool:
        """Tell whether `peer` would be taken as one more source."""
        known = peer in self._sources or peer in self._banned
        return not known and not self.finished and (peer == self.owner or len(self._sources) < MAX_SOURCES)

    def hopeless(self, now: float) -> bool:
        """True if nobody who is left has, or gets, what is missing."""
        if self.finished or self.owner in self._sources:
            self._learned_at = None
            return False
        reachable = self._done
        for source in self._sources.values():
            reachable |= source.has & ~source.tried
            for block in source.asked:
                reachable |= 1 << block
        if reachable == self._all or self._learned_at is None:
            self._learned_at = now
        return now - self._learned_at > HOPELESS_S

    # ── sources ─────────────────────────────────────────────────────────────────────────────────────
    def source_added(self, peer: bytes, now: float) -> None:
        """`peer` answers this pull; the owner has everything, others what `source_has` tells."""
        if peer not in self._sources and peer not in self._banned:
            self._sources[peer] = _Source(peer, self._all if peer == self.owner else 0, heard_at=now)
            if peer == self.owner:
                self._progress_at = now

    def source_has(
        self, peer: bytes, ranges: Iterable[tuple[int, int]], coming: Iterable[tuple[int, int]], now: float
    ) -> None:
        """`peer` says that it has these blocks, too, and that it asked the owner for those that are `coming`.

        Raises ProtocolError for blocks that don't exist.
        """
        blocks, claimed = self._checked_bits(ranges), self._checked_bits(coming)
        source = self._sources.get(peer)
        if source is not None:
            if blocks & ~source.has & ~self._done:
                self._learned_at = now
            source.has |= blocks
            source.coming = claimed if claimed.bit_count() <= MAX_CLAIMED else 0

    def source_gone(self, peer: bytes) -> list[int]:
        """`peer` serves no more; what it was asked is asked elsewhere. Returns the blocks it was asked."""
        source = self._sources.pop(peer, None)
        if source is None:
            return []
        owed = list(source.asked)
        for block in owed:
            self._drop_asked(source, block)
        return owed

    def silent(self, now: float) -> list[bytes]:
        """Return sources besides the owner that owe something and were silent so long that they are better dropped."""
        return [
            peer
            for peer, source in self._sources.items()
            if peer != self.owner and source.asked and now - source.heard_at > GIVE_UP_S
        ]

    # ── choice ──────────────────────────────────────────────────────────────────────────────────────
    def want(self, peer: bytes, now: float) -> list[tuple[int, int]]:
        """Return ranges of blocks to ask of `peer` now; they count as asked."""
        source = self._sources.get(peer)
        if source is None or self.finished:
            return []
        slots = self._slots(source)
        if slots <= 0:
            return []
        chosen = self._choose(source, slots, now) or self._double(source, slots, now)
        if chosen and not source.asked:
            source.heard_at = source.sample_at = now
            source.sample_bytes = 0
        for block in chosen:
            bit = 1 << block
            if self._asked & bit:
                self._doubles += 1
            self._asked |= bit
            source.tried |= bit
            source.asked[block] = 0
            source.owed_bytes += self._length(block)
            self._writers.setdefault(block, peer)
        return blocks_to_ranges(chosen)

    def writer(self, peer: bytes, block: int) -> Writer:
        """Tell where bytes of `block` from `peer` belong."""
        source = self._sources.get(peer)
        if source is None or block not in source.asked or self._done >> block & 1:
            return Writer.NOWHERE
        return Writer.PLACE if self._writers.get(block) == peer else Writer.SCRATCH

    def arrived(self, peer: bytes, block: int, size_bytes: int, now: float) -> bool:
        """Note new bytes of a block; True when they were its last: hash it and call `checked`."""
        source = self._sources.get(peer)
        if source is None or block not in source.asked:
            return False
        source.heard_at = now
        source.sample_bytes += size_bytes
        since = now - source.sample_at
        through = source.owed_bytes == size_bytes and not source.rate  # it may be too fast for the usual sample
        if since >= SAMPLE_S or through:
            sample = source.sample_bytes / max(since, LEAST_SAMPLE_S)
            source.rate = sample if not source.rate else 0.5 * source.rate + 0.5 * sample
            source.sample_at, source.sample_bytes = now, 0
        source.asked[block] += size_bytes
        source.owed_bytes -= size_bytes
        if source.asked[block] < self._length(block):
            return False
        if self._done >> block & 1:
            self._drop_asked(source, block)
            return False
        return True

    def checked(self, peer: bytes, block: int, digest: bytes, now: float) -> BlockState:
        """A block from `peer` is whole and has this hash (`block_hash`).

        NEW: it counts as done; what was written to scratch belongs into its place now. WRONG: the source was
        dropped, as by `source_gone`, and is never taken again.
        """
        source = self._sources.get(peer)
        if source is None or source.asked.get(block) != self._length(block):
            return BlockState.KNOWN  # its source came anew meanwhile
        if digest != self._hashes[block * HASH_BYTES : (block + 1) * HASH_BYTES]:
            self._banned.add(peer)
            self.source_gone(peer)
            return BlockState.WRONG
        self._drop_asked(source, block)
        bit = 1 << block
        if self._done & bit:
            return BlockState.KNOWN
        self._done |= bit
        self._progress_at = now
        self._asked &= ~bit
        self._writers.pop(block, None)
        self.done_bytes += self._length(block)
        return BlockState.NEW

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _checked_bits(self, ranges: Iterable[tuple[int, int]]) -> int:
        spans = list(ranges)
        if any(not 0 <= first < end <= self.count for first, end in spans):  # before room is made for them
            raise ProtocolError("blocks that a share does not have")
        return blocks_of_ranges(spans)

    def _length(self, block: int) -> int:
        return min(self.block_bytes, self.content_bytes - block * self.block_bytes)

    def _slots(self, source: _Source) -> int:
        """How many more blocks may be asked of a source."""
        ahead = int(source.rate * ASK_AHEAD_S)
        most = max(MIN_ASKED_BLOCKS, min(ahead, MAX_ASKED_BYTES) // self.block_bytes)
        return most - len(source.asked)

    def _choose(self, source: _Source, slots: int, now: float) -> list[int]:
        """Pick blocks that nobody was asked for, the rarest first."""
        free = source.has & ~source.tried & ~self._done & ~self._asked
        if not free:
            return []
        one, two, three = self._counted(now)
        if source.peer == self.owner:
            helps = self._owner_may_help(source, now)
            rested = not source.asked and now - source.heard_at > TURN_S
            unclaimed = free & ~self._claimed(now)
            tiers = [unclaimed & ~one & self._my_turn()]
            if helps or rested:
                tiers.append(unclaimed & ~one)
            if rested and not source.rate:
                tiers.append(unclaimed)  # to see what it can do
            if rested and now - self._progress_at > CLAIMS_HOLD_S:
                tiers.append(free & ~one)
            if helps:
                tiers += [free & ~two, free]
        else:
            tiers = [free & ~two, free & ~three, free]
        chosen: list[int] = []
        for tier in tiers:
            while len(chosen) < slots and (left := tier & free):
                block = self._pick(left, source.cursor)
                source.cursor = block + 1
                free &= ~(1 << block)
                chosen.append(block)
        return chosen

    def _double(self, source: _Source, slots: int, now: float) -> list[int]:
        """With nothing else left to ask of `source`: what another one is late with."""
        room = min(slots, MAX_DOUBLES - self._doubles)
        if room <= 0:
            return []
        mine = self.block_bytes / source.rate if source.rate else 0.0
        ending = not ~self._done & ~self._asked & self._all
        late: list[tuple[float, int]] = []
        for other in self._sources.values():
            if other is source or not other.asked:
                continue
            owed = other.seconds_owed(now)
            if owed < 0.25 + 2 * (mine + source.seconds_owed(now)):
                continue
            helpful = ending and (source.peer != self.owner or self._owner_may_help(source, now))
            if not other.stalled(now) and not helpful:
                continue
            late += [(owed, block) for block in other.asked if self._may_double(source, block, now)]
        late.sort(reverse=True)
        return list(dict.fromkeys(block for _, block in late))[:room]

    def _may_double(self, source: _Source, block: int, now: float) -> bool:
        bit = 1 << block
        if not source.has & ~source.tried & ~self._done & bit:
            return False
        return sum(block in other.asked for other in self._sources.values() if not other.stalled(now)) < 2

    def _counted(self, now: float) -> tuple[int, int, int]:
        """Return the blocks that at least one, two, three sources besides the owner have."""
        one = two = three = 0
        for source in self._sources.values():
            if source.peer != self.owner and not source.stalled(now):
                three |= two & source.has
                two |= one & source.has
                one |= source.has
        return one, two, three

    def _claimed(self, now: float) -> int:
        """Return the blocks that others are getting from the owner."""
        claimed = 0
        for source in self._sources.values():
            if not source.stalled(now):
                claimed |= source.coming
        return claimed

    def _my_turn(self) -> int:
        """Return the blocks that are ours to bring from the owner, as all who pull see it without a word.

        Every puller has a few places on a ring of the blocks, by a hash of its id, and the arcs that begin there
        are its own. Told claims are more precise, but on a fast line they come too late.
        """
        partial = (source for source in self._sources.values() if source.has != self._all)
        pullers = tuple(source.peer for source in partial if source.peer != self.owner)
        if self._turn is None or self._turn[0] != pullers:
            places = sorted((place, peer) for peer in (*pullers, self._me) for place in _places(peer, self.count))
            mine = 0
            for (start, peer), (end, _) in zip(places, [*places[1:], (self.count, b"")], strict=True):
                if peer == self._me:
                    mine |= (1 << end) - (1 << start)
            if places[-1][1] == self._me:
                mine |= (1 << places[0][0]) - 1
            self._turn = (pullers, mine)
        return self._turn[1]

    def _owner_may_help(self, owner: _Source, now: float) -> bool:
        """Tell whether the others are too slow for what they could still give."""
        missing = ~self._done
        rate = 0.0
        for source in self._sources.values():
            if source is owner or source.stalled(now) or not (source.has | source.coming) & missing:
                continue
            if not source.rate:
                return False  # not measured yet: trust in it
            rate += source.rate
        return rate < OWNER_HELPS_BELOW * owner.rate

    def _pick(self, blocks: int, cursor: int) -> int:
        """Return one of `blocks`: the one at `cursor`, or the first at or after a place that moves about."""
        if blocks >> cursor & 1:
            return cursor
        self._random = (self._random * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        start = (self._random >> 32) * self.count >> 32
        behind = blocks >> start
        if behind:
            return start + (behind & -behind).bit_length() - 1
        return (blocks & -blocks).bit_length() - 1

    def _drop_asked(self, source: _Source, block: int) -> None:
        """`source` owes `block` no more."""
        source.owed_bytes -= self._length(block) - source.asked.pop(block)
        others = sum(block in other.asked for other in self._sources.values() if other is not source)
        if others:
            self._doubles -= 1
        elif not self._done >> block & 1:
            self._asked &= ~(1 << block)
        if self._writers.get(block) == source.peer:
            del self._writers[block]


def _places(peer: bytes, count: int) -> list[int]:
    digest = sha256(peer).digest()
    return [int.from_bytes(digest[4 * i : 4 * i + 4], "big") * count >> 32 for i in range(PLACES)]
