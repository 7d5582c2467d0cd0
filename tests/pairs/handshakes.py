"""Handshakes joined by a scripted hub: who says what to whom is in the test's hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from p2pnb.protocol.handshake import Established, Handshake, HandshakeFailed, HandshakeRandom
from p2pnb.protocol.wire import HandshakeType

__all__ = ["ADA", "BEN", "ROOM", "WORDS", "Side", "fixed_random", "introduce", "run"]

ROOM = "k3m9-testroom"
WORDS = "amber boat cedar dune"
ADA = bytes(range(16))  # the smaller id: initiator
BEN = bytes(range(16, 32))
FEATURES = ("webrtc", "tcp")


def fixed_random(seed: str) -> HandshakeRandom:
    """Random bytes that a seed names: tests of a handshake repeat exactly."""
    parts = [hashlib.sha256(f"{seed}/{purpose}".encode()).digest() for purpose in ("nonce", "scalar", "verification")]
    return HandshakeRandom(*parts)


class Side:
    """One handshake with everything that came out of it."""

    def __init__(
        self,
        my_id: bytes,
        peer_id: bytes,
        seed: str,
        *,
        words: str = WORDS,
        room: str = ROOM,
        features: tuple[str, ...] = FEATURES,
        budget: bool = True,
    ) -> None:
        self.random = fixed_random(seed)
        self.handshake = Handshake(
            room=room, words=words, my_id=my_id, peer_id=peer_id, random=self.random, features=features
        )
        self.may_share = budget
        self.sent: list[bytes] = []
        self.taken = 0  # messages of `sent` that were delivered
        self.event: Established | HandshakeFailed | None = None
        self.handshake.start()
        self.collect()

    def receive(self, message: bytes) -> None:
        self._note(self.handshake.receive_message(message))
        if self.handshake.waits_to_share and self.may_share:
            self._note(self.handshake.share())
        self.collect()

    def share(self) -> None:
        self._note(self.handshake.share())
        self.collect()

    def collect(self) -> None:
        self.sent += self.handshake.messages_to_send()

    def next_message(self) -> bytes | None:
        if self.taken == len(self.sent):
            return None
        self.taken += 1
        return self.sent[self.taken - 1]

    def message(self, kind: HandshakeType) -> bytes:
        """The message of this kind that this side sent."""
        return next(message for message in self.sent if message[0] == kind)

    def _note(self, event: Established | HandshakeFailed | None) -> None:
        if event is not None:
            assert self.event is None, "a handshake ends once"
            self.event = event

    @property
    def established(self) -> Established:
        assert isinstance(self.event, Established), self.event
        return self.event

    @property
    def failed(self) -> HandshakeFailed:
        assert isinstance(self.event, HandshakeFailed), self.event
        return self.event


def introduce(**options: object) -> tuple[Side, Side]:
    """Ada and Ben, who have said HELLO and heard nothing yet."""
    return Side(ADA, BEN, "ada", **options), Side(BEN, ADA, "ben", **options)  # type: ignore[arg-type]


def run(a: Side, b: Side, change: Callable[[Side, bytes], bytes | None] = lambda _, message: message) -> None:
    """Carry messages both ways until nobody says anything; `change` is the hub (None: it drops the message)."""
    while True:
        moved = False
        for source, target in ((a, b), (b, a)):
            message = source.next_message()
            if message is not None:
                moved = True
                passed = change(source, message)
                if passed is not None:
                    target.receive(passed)
        if not moved:
            return
