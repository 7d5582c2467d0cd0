"""Meeting one peer: handshakes through the hub, until one makes a session.

Either side may start over at any time, since messages are lost and kernels are restarted. A guess at the words is
taken from the room's budget before anything is said that would let the peer test one, and comes back when the peer
turns out to know them.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import TYPE_CHECKING, Final

from p2pnb.protocol.handshake import Established, Handshake, HandshakeFailed, HandshakeRandom
from p2pnb.protocol.wire import HANDSHAKE_TIMEOUT_S, HandshakeType, RejectCode

if TYPE_CHECKING:
    from p2pnb.engine.link import Link

__all__ = ["Greeting"]

RETRY_FIRST_S: Final = 0.1  # of a handshake that a damaged message ended
RETRY_MOST_S: Final = 5.0
MAX_TRIES: Final = 20  # handshakes restarted by one peer id; a loop at the other end stops here


class Greeting:
    """The handshakes of one link, one at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.handshake: Handshake | None = None
        self.tries = 0  # since the hub last had news of this peer, or a session began
        self.verification_nonce = b""  # of the handshake that began last
        self._answering = b""  # the HELLO being answered
        self._hello_nonce = b""
        self._has_guess = False
        self._timer: asyncio.TimerHandle | None = None

    def greet(self, nonce: bytes = b"") -> None:
        """Start a handshake, or start it over; `nonce` repeats a HELLO, so that two restarts don't chase each other."""
        if self._link.gone or not self._link.host.hub_connected:
            return
        self.drop()
        if self.given_up:
            return
        self.tries += 1
        fresh = HandshakeRandom(nonce or secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(32))
        self._hello_nonce = fresh.nonce
        self.verification_nonce = fresh.verification_nonce
        self.handshake = Handshake(
            room=self._link.host.room_id,
            words=self._link.host.words,
            my_id=self._link.host.my_id,
            peer_id=self._link.peer_id,
            random=fresh,
            features=self._link.features,
        )
        self.handshake.start()
        self._send()
        self._timer = self._link.host.loop.call_later(HANDSHAKE_TIMEOUT_S, self._timed_out)

    def guess_granted(self) -> None:
        """The budget allows this handshake to go on."""
        handshake = self.handshake
        if handshake is None or not handshake.waits_to_share:
            self._link.host.budget.give_back()
            return
        self._has_guess = True
        self._act_on(handshake.share())

    def guess_refused(self) -> None:
        """The budget is used up: this newcomer can't be taken."""
        if self.handshake is not None:
            self._act_on(self.handshake.reject(RejectCode.LOCKED))

    @property
    def given_up(self) -> bool:
        """True after too many handshakes that led nowhere; news from the hub about this peer start over."""
        return self.tries >= MAX_TRIES

    @property
    def waits_for_guess(self) -> bool:
        """True while the handshake stands still until the budget grants a guess."""
        return self.handshake is not None and self.handshake.waits_to_share and not self._has_guess

    def message_received(self, message: bytes) -> None:
        """Take one of the peer's handshake messages."""
        is_hello = message[0] == HandshakeType.HELLO
        if is_hello and self.handshake is not None and message == self._answering:
            return  # the hub delivered it twice
        if is_hello and (self.handshake is None or self.handshake.greeted):
            if self._link.session is not None and self._link.session.preferred is not None:
                return  # the session stands: nobody who belongs to it would start over
            # the peer started over: our HELLO stands, everything else is fresh
            self.greet(self._hello_nonce if self.handshake is not None else b"")
        if self.handshake is None:
            return
        if is_hello:
            self._answering = message
        self._act_on(self.handshake.receive_message(message))

    def _act_on(self, event: Established | HandshakeFailed | None) -> None:
        handshake = self.handshake
        assert handshake is not None
        guess_given = handshake.guess_given
        self._send()
        match event:
            case Established():
                self._return_guess(lost=False)
                self.drop()
                self._link.begin_session(event)
                self._link.host.handshake_done(self._link)
            case HandshakeFailed(code=code):
                self._return_guess(lost=guess_given)
                self.drop()
                if code is RejectCode.MALFORMED and self._link.present and not self.given_up:
                    # a message was lost or changed, or two tries crossed: try again, not both at the same time
                    wait = min(RETRY_MOST_S, RETRY_FIRST_S * 2**self.tries) * random.uniform(0.2, 1)  # noqa: S311
                    self._timer = self._link.host.loop.call_later(wait, self._greet_again)
                self._link.host.handshake_failed(self._link, event)
            case None:
                if handshake.waits_to_share and not self._has_guess:
                    self._link.host.wants_guess(self._link)

    def _send(self) -> None:
        if self.handshake is not None:
            for message in self.handshake.messages_to_send():
                self._link.host.hub.send_payload(self._link.peer_id, message)

    def _timed_out(self) -> None:
        if self.handshake is not None and self._link.present:
            self.greet()

    def _greet_again(self) -> None:
        if self.handshake is None and self._link.session is None and self._link.present:
            self.greet()

    def _return_guess(self, *, lost: bool) -> None:
        if self._has_guess:
            self._has_guess = False
            if lost:
                self._link.host.budget.lose(self._link.host.loop.time())
            else:
                self._link.host.budget.give_back()

    def drop(self) -> None:
        """End what is under way; a guess that was spent stays spent."""
        if self.handshake is not None:
            self._return_guess(lost=self.handshake.guess_given)
        self.handshake = None
        self._answering = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
