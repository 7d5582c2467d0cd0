"""The serving side of a swarm: whom a holder of one content serves, what they hear, and who is told of whom."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from p2pnb.protocol.manifest import blocks_of_ranges, ranges_of_blocks
from p2pnb.protocol.swarm import MAX_CLAIMED, MAX_SOURCES

__all__ = ["MAX_NEWS_RANGES", "NEWS_S", "Serving"]

MAX_ACQUAINTANCES: Final = 16  # told to one puller at once
NEWS_S: Final = 0.1  # new blocks are told at most this often
MAX_NEWS_RANGES: Final = 1024  # in one ShareBlocks


class Serving:
    """Whom a holder of one content serves, and what they are told."""

    def __init__(self, count: int, *, whole: bool) -> None:
        self.count = count
        self._has = (1 << count) - 1 if whole else 0
        self._untold: dict[bytes, int] = {}  # peers served, and blocks they don't know we have
        self._knows: dict[bytes, set[bytes]] = {}  # owner: acquaintances among the pullers
        self._finished: set[bytes] = set()  # owner: those that have it all
        self._coming: list[tuple[int, int]] = []
        self._coming_untold: set[bytes] = set()
        self._told_at: dict[bytes, float] = {}

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Peers that are served now."""
        return tuple(self._untold)

    @property
    def finished(self) -> frozenset[bytes]:
        """Peers that pulled it whole and are still here."""
        return frozenset(self._finished)

    def joined(self, peer: bytes) -> None:
        """`peer` is served from now on."""
        self._untold[peer] = self._has
        if self._coming:
            self._coming_untold.add(peer)

    def left(self, peer: bytes, *, here: bool = True) -> None:
        """`peer` is not served any more; with `here=False` it serves nobody either."""
        self._untold.pop(peer, None)
        self._coming_untold.discard(peer)
        self._told_at.pop(peer, None)
        if not here or peer not in self._finished:
            self._finished.discard(peer)
            for acquaintance in self._knows.pop(peer, ()):
                self._knows.get(acquaintance, set()).discard(peer)

    def completed(self, peer: bytes) -> None:
        """`peer` has it all; it may serve others."""
        self._finished.add(peer)
        self._knows.setdefault(peer, set())

    def verified(self, block: int) -> None:
        """A block is here and right."""
        bit = 1 << block
        self._has |= bit
        for peer in self._untold:
            self._untold[peer] |= bit

    def expects(self, coming: list[tuple[int, int]]) -> None:
        """These blocks were asked of the owner and are not here yet."""
        if coming != self._coming:
            self._coming = coming
            self._coming_untold = set(self._untold)

    @property
    def news_due(self) -> bool:
        """True while somebody has to hear of new blocks."""
        return bool(self._coming_untold) or any(self._untold.values())

    def news(self, now: float) -> list[tuple[bytes, list[tuple[int, int]], list[tuple[int, int]]]]:
        """Return who is to hear now which blocks are here and which are coming; each at most every NEWS_S."""
        due: list[tuple[bytes, list[tuple[int, int]], list[tuple[int, int]]]] = []
        for peer, blocks in self._untold.items():
            last = self._told_at.get(peer)
            if (blocks or peer in self._coming_untold) and (last is None or now - last >= NEWS_S):
                ranges = ranges_of_blocks(blocks)
                due.append((peer, ranges[:MAX_NEWS_RANGES], self._coming[:MAX_CLAIMED]))
                self._untold[peer] = blocks_of_ranges(ranges[MAX_NEWS_RANGES:])
                self._told_at[peer] = now
                self._coming_untold.discard(peer)
        return due

    def introductions(self, peer: bytes, exclude: Iterable[bytes] = ()) -> list[bytes]:
        """Owner: choose whom `peer` should ask besides us; they know each other from then on.

        Those with the fewest acquaintances come first, so that the load spreads; among equals a hash of both
        ids decides, so that no peer is everybody's first choice. Asked again, it begins anew.
        """
        for former in self._knows.pop(peer, ()):
            self._knows[former].discard(peer)
        known = self._knows[peer] = set()
        unfit = {peer, *exclude}
        fit = [other for other in self._knows if other not in unfit and len(self._knows[other]) < MAX_SOURCES - 1]
        fit.sort(key=lambda other: (len(self._knows[other]), sha256(peer + other).digest()))
        chosen = fit[:MAX_ACQUAINTANCES]
        for other in chosen:
            known.add(other)
            self._knows[other].add(peer)
        return chosen
