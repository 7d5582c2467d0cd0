"""The handshake of two peers through the hub: CPace, confirmed both ways before anything else is said.

Theory of operation. Both sides act at once; each arrow goes both ways:

    HELLO     nonces and features; sid = both nonces, initiator = the smaller peer id
    KEYSHARE  CPace share with associated data: features again, commitment of the verification nonce
    CONFIRM   tag over one's own share and data
    REJECT    the end, with a reason

A side that has sent its CONFIRM has given the other one guess at the words; `guess_given` says so, and the
member's budget (`GuessBudget`) charges it until the other's CONFIRM proves that it was no guess. How the
handshake ends otherwise doesn't matter: who saw the tag and says "malformed" has had its guess.

The hub (or somebody behind it) may lose, repeat, reorder, change or invent messages: anything out of place
fails this handshake and nothing else; a new one starts with new nonces. All but HELLO name the pair of HELLOs
they belong to (`_ID_BYTES` of a hash over both nonces): a side that was asleep answers several HELLOs at
once, and what belongs to an earlier one must not be taken for a wrong code of the present one.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import msgspec

from p2pnb.errors import ProtocolError
from p2pnb.protocol.cpace import (
    POINT_BYTES,
    generator,
    intermediate_session_key,
    lv_cat,
    public_share,
    shared_point,
    transcript_ir,
)
from p2pnb.protocol.keys import RootKeys, SessionSecret, verification_commitment
from p2pnb.protocol.wire import (
    PROTOCOL,
    WRONG_CODE_REFILL_S,
    WRONG_CODES_IN_ALL,
    WRONG_CODES_PER_MEMBER,
    Commitment,
    HandshakeType,
    HelloInfo,
    RejectCode,
)

__all__ = ["Established", "GuessBudget", "Handshake", "HandshakeFailed", "HandshakeRandom"]

HELLO_NONCE_BYTES: Final = 32
_ID_BYTES: Final = 8
_MAX_MESSAGE_BYTES: Final = 2048  # features are few; nobody proven anything yet


class _State(Enum):
    NEW = auto()
    GREETED = auto()  # HELLO sent
    SHARED = auto()  # KEYSHARE sent
    CONFIRMED = auto()  # CONFIRM sent
    DONE = auto()
    FAILED = auto()


# which message is legal in which state; anything else fails the handshake
_LEGAL: Final = {
    HandshakeType.HELLO: {_State.GREETED},
    HandshakeType.KEYSHARE: {_State.SHARED},
    HandshakeType.CONFIRM: {_State.CONFIRMED},
    HandshakeType.REJECT: {_State.GREETED, _State.SHARED, _State.CONFIRMED},
}


@dataclass(frozen=True, slots=True, repr=False)
class HandshakeRandom:
    """Fresh random bytes for one handshake; never used twice."""

    nonce: bytes  # 32
    scalar: bytes  # 32
    verification_nonce: bytes  # 32


@dataclass(frozen=True, slots=True, repr=False)
class Established:
    """Event: both sides proved that they know the words."""

    session: SessionSecret
    root: RootKeys
    initiator: bool
    my_nonce: bytes  # of HELLO: also the nonces of the first relay path
    peer_nonce: bytes
    peer_commitment: bytes  # the peer's Profile must open it
    features: tuple[str, ...]


class HandshakeFailed(msgspec.Struct, frozen=True):
    """Event: this handshake is over; `told_by_peer` if the other side said so (unproven)."""

    code: RejectCode
    told_by_peer: bool
    detail: str = ""


class Handshake:
    """One try at one peer. Verbs: `start`, `share`, `receive_message`; `messages_to_send` after each."""

    def __init__(
        self,
        *,
        room: str,
        words: str,
        my_id: bytes,
        peer_id: bytes,
        random: HandshakeRandom,
        features: tuple[str, ...] = (),
    ) -> None:
        if my_id == peer_id:
            raise ProtocolError("a peer can't shake hands with itself")
        self.initiator = my_id < peer_id
        self._room, self._words, self._random = room, words, random
        self._ids = (my_id, peer_id) if self.initiator else (peer_id, my_id)
        self._features = features
        self._state = _State.NEW
        self._out: list[bytes] = []
        self._peer_hello = b""
        self._my_hello = b""
        self._peer_nonce = b""
        self._share = self._data = b""
        self._base = self._session_id = b""
        self._root: RootKeys | None = None
        self._expected_tag = b""
        self._peer_commitment: Commitment | None = None
        self._id = b""  # names this pair of HELLOs; known once the peer's is here
        self._tag_sent = False
        self._early: list[bytes] = []  # the peer's KEYSHARE while ours waits for the budget

    @property
    def guess_given(self) -> bool:
        """True once the other side has our tag, until its own tag is here and right; also after a failure."""
        return self._tag_sent and self._state is not _State.DONE

    @property
    def greeted(self) -> bool:
        """True once the peer's HELLO is here: `share()` may be called."""
        return bool(self._peer_nonce)

    @property
    def waits_to_share(self) -> bool:
        return self._state is _State.GREETED and self.greeted

    @property
    def ended(self) -> bool:
        return self._state in (_State.DONE, _State.FAILED)

    def start(self) -> None:
        """Send HELLO."""
        self._my_hello = self._random.nonce + msgspec.msgpack.encode(HelloInfo(PROTOCOL, list(self._features)))
        self._emit(HandshakeType.HELLO, self._my_hello)
        self._state = _State.GREETED

    def share(self) -> HandshakeFailed | Established | None:
        """Send KEYSHARE. Called once the peer's HELLO is here and the budget allows another guess."""
        assert self.waits_to_share
        hellos = (self._my_hello, self._peer_hello) if self.initiator else (self._peer_hello, self._my_hello)
        nonces = [hello[:HELLO_NONCE_BYTES] for hello in hellos]
        self._session_id = nonces[0] + nonces[1]
        # both whole HELLOs are bound in: a hub that strips a feature or changes a version breaks the handshake
        channel = lv_cat(PROTOCOL.encode(), self._room.encode(), *self._ids, *hellos)
        self._base = generator(self._words.encode(), channel, self._session_id)
        self._share = public_share(self._base, self._random.scalar)
        commitment = verification_commitment(self._random.verification_nonce)
        self._data = msgspec.msgpack.encode(Commitment(list(self._features), commitment))
        self._emit(HandshakeType.KEYSHARE, self._id + self._share + self._data)
        self._state = _State.SHARED
        for message in self._early:
            return self.receive_message(message)
        return None

    def receive_message(self, message: bytes | memoryview) -> HandshakeFailed | Established | None:
        """Take one relay message of a handshake type; returns an event where one is due."""
        if self.ended:
            return None
        message = bytes(message)
        try:
            kind = HandshakeType(message[0]) if message else None
            if kind not in _LEGAL or len(message) > _MAX_MESSAGE_BYTES:
                raise ProtocolError("not a handshake message")
            if kind is HandshakeType.HELLO:
                body = message[1:]
            elif not self.greeted or message[1 : 1 + _ID_BYTES] != self._id:
                return None  # of another handshake than this
            else:
                body = message[1 + _ID_BYTES :]
            if kind is HandshakeType.KEYSHARE and self.waits_to_share:
                if self._early:
                    raise ProtocolError("key share sent twice")
                self._early.append(message)
                return None
            if self._state not in _LEGAL[kind]:
                raise ProtocolError(f"{kind.name} out of place")
            return self._handlers[kind](self, body)
        except (ProtocolError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            # msgspec reports bad UTF-8 as ValueError, and deep nesting, also in fields it skips, as RecursionError
            return self._fail(RejectCode.MALFORMED, str(error))

    def messages_to_send(self) -> list[bytes]:
        """Return and forget what is to be sent to the peer, in order."""
        out, self._out = self._out, []
        return out

    def reject(self, code: RejectCode) -> HandshakeFailed | None:
        """End this handshake and tell the peer why."""
        return None if self.ended else self._fail(code)

    def _on_hello(self, body: bytes) -> HandshakeFailed | None:
        if self.greeted:
            raise ProtocolError("HELLO sent twice")
        info = msgspec.msgpack.decode(body[HELLO_NONCE_BYTES:], type=HelloInfo)
        nonce = body[:HELLO_NONCE_BYTES]
        if hmac.compare_digest(nonce, self._random.nonce):
            raise ProtocolError("our own HELLO came back")
        mine = self._random.nonce
        nonces = mine + nonce if self.initiator else nonce + mine
        self._id = hashlib.sha256(f"{PROTOCOL} handshake".encode() + nonces).digest()[:_ID_BYTES]
        if info.protocol != PROTOCOL:
            return self._fail(RejectCode.VERSION, f"the peer speaks {info.protocol[:32]!r}, this side {PROTOCOL!r}")
        self._peer_hello, self._peer_nonce = body, nonce
        return None

    def _on_key_share(self, body: bytes) -> None:
        share, data = body[:POINT_BYTES], body[POINT_BYTES:]
        self._peer_commitment = msgspec.msgpack.decode(data, type=Commitment)
        if len(self._peer_commitment.verification) != 32:
            raise ProtocolError("commitment of the wrong length")
        point = shared_point(self._random.scalar, share)
        mine, theirs = (self._share, self._data), (share, data)
        transcript = transcript_ir(*mine, *theirs) if self.initiator else transcript_ir(*theirs, *mine)
        self._root = RootKeys.from_isk(intermediate_session_key(self._session_id, point, transcript))
        self._expected_tag = self._root.confirmation_tag(initiator=not self.initiator, share=share, data=data)
        tag = self._root.confirmation_tag(initiator=self.initiator, share=self._share, data=self._data)
        self._emit(HandshakeType.CONFIRM, self._id + tag)
        self._state = _State.CONFIRMED
        self._tag_sent = True

    def _on_confirm(self, body: bytes) -> HandshakeFailed | Established:
        assert self._root is not None and self._peer_commitment is not None
        if not hmac.compare_digest(body, self._expected_tag):
            return self._fail(RejectCode.WRONG_CODE)
        self._state = _State.DONE
        return Established(
            session=self._root.session(initiator=self.initiator),
            root=self._root,
            initiator=self.initiator,
            my_nonce=self._random.nonce,
            peer_nonce=self._peer_nonce,
            peer_commitment=self._peer_commitment.verification,
            features=tuple(f for f in self._features if f in self._peer_commitment.features),
        )

    def _on_reject(self, body: bytes) -> HandshakeFailed:
        self._state = _State.FAILED
        try:
            code = RejectCode(body[0]) if body else RejectCode.MALFORMED
        except ValueError:
            code = RejectCode.MALFORMED
        return HandshakeFailed(code, told_by_peer=True)

    def _fail(self, code: RejectCode, detail: str = "") -> HandshakeFailed:
        if self._id:  # else the peer isn't in this handshake yet
            self._emit(HandshakeType.REJECT, self._id + bytes([code]))
        self._state = _State.FAILED
        return HandshakeFailed(code, told_by_peer=False, detail=detail)

    def _emit(self, kind: HandshakeType, body: bytes) -> None:
        self._out.append(bytes([kind]) + body)

    _handlers: Final = {
        HandshakeType.HELLO: _on_hello,
        HandshakeType.KEYSHARE: _on_key_share,
        HandshakeType.CONFIRM: _on_confirm,
        HandshakeType.REJECT: _on_reject,
    }


class GuessBudget:
    """How many guesses at the words this member still gives away.

    A handshake takes one guess before it sends its key share and gives it back when the other side proves
    that it knows the words. What isn't given back comes again slowly; after `in_all` lost ones the member
    takes no newcomers until `unlock()`.
    """

    def __init__(
        self,
        *,
        per_member: int = WRONG_CODES_PER_MEMBER,
        in_all: int = WRONG_CODES_IN_ALL,
        refill_s: float = WRONG_CODE_REFILL_S,
    ) -> None:
        self._per_member, self._in_all, self._refill_s = per_member, in_all, refill_s
        self._available = per_member
        self._refill_from: float | None = None  # when the oldest missing guess was lost
        self._under_way = 0
        self._lost = 0

    @property
    def locked(self) -> bool:
        """True after too many wrong codes: only `unlock()` opens again."""
        return self._lost >= self._in_all

    @property
    def exhausted(self) -> bool:
        """True while no handshake may start and none is under way that could give its guess back."""
        return self.locked or (self._available == 0 and self._under_way == 0)

    def take(self, now: float) -> bool:
        """Take a guess for one handshake; False if none is left at `now`."""
        self._refill(now)
        if self.locked or self._available == 0:
            return False
        self._available -= 1
        self._under_way += 1
        return True

    def give_back(self) -> None:
        """The handshake succeeded: it was no guess."""
        self._under_way -= 1
        self._available = min(self._per_member, self._available + 1)

    def lose(self, now: float) -> None:
        """The handshake failed: it may have been a guess."""
        self._under_way -= 1
        self._lost += 1
        if self._refill_from is None:
            self._refill_from = now

    def unlock(self) -> None:
        """Start afresh (the owner's word)."""
        self._lost = 0
        self._available = self._per_member - self._under_way
        self._refill_from = None

    def _refill(self, now: float) -> None:
        if self._refill_from is None:
            return
        back = int((now - self._refill_from) // self._refill_s)
        if back > 0:
            self._available = min(self._per_member - self._under_way, self._available + back)
            full = self._available + self._under_way >= self._per_member
            self._refill_from = None if full else self._refill_from + back * self._refill_s
