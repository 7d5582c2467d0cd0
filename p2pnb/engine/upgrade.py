"""From the relay to a direct WebRTC connection, and back up after a loss.

The initiator of the session offers, the other side answers; offers, answers and candidates are control
frames of the session. A try that fails is repeated after a while, since networks change. `settled` says that
the first try has ended one way or the other: until then bulk gives it a moment before it takes the relay.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from p2pnb.errors import P2PError, PathError, PeerGoneError, ProtocolError, UsageError
from p2pnb.paths import webrtc
from p2pnb.protocol.wire import RtcAnswer, RtcOffer

if TYPE_CHECKING:
    from p2pnb.engine.link import Link

__all__ = ["Upgrade"]

FIRST_AFTER_S: Final = 0.1  # the first messages go before aiortc's import, which takes the GIL for 0.3 s
RETRY_S: Final = (1.0, 5.0, 15.0, 60.0)  # then every 60 s
ANSWER_TIMEOUT_S: Final = 30.0  # the peer's kernel may hold the GIL

_log = logging.getLogger("p2pnb.upgrade")


class Upgrade:
    """Keeps one peer's direct path up."""

    def __init__(self, link: Link, *, initiator: bool) -> None:
        self._link = link
        self._initiator = initiator
        self.settled = False
        self._attempt = 0
        self._answer: asyncio.Future[RtcAnswer] | None = None
        self._task: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    def start(self) -> None:
        """Begin; the initiator tries, the other side waits for its offer."""
        if self._initiator:
            self._task = self._link.host.spawn(self._offer_until_stopped(), "p2pnb upgrade")

    def stop(self) -> None:
        """End every try; connections that stand belong to the link."""
        for task in (self._task, self._answering):
            if task is not None:
                task.cancel()

    def path_lost(self) -> None:
        """The direct path broke: try again."""
        self._lost.set()

    def offer_received(self, frame: RtcOffer) -> None:
        """Answer the peer's offer; a newer one replaces an older one."""
        if self._initiator:
            raise ProtocolError("an offer came from the side that answers")
        if self._answering is not None:
            self._answering.cancel()
        self._answering = self._link.host.spawn(self._answer_once(frame), "p2pnb answer")

    def answer_received(self, frame: RtcAnswer) -> None:
        """Take the peer's answer to our offer; late ones are ignored."""
        if self._answer is not None and frame.attempt == self._attempt and not self._answer.done():
            self._answer.set_result(frame)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    async def _offer_until_stopped(self) -> None:
        await asyncio.sleep(FIRST_AFTER_S)
        if not await self._link.host.in_worker(webrtc.available):
            self.settled = True
            return
        failures = 0
        while True:
            self._lost.clear()
            try:
                await self._offer_once()
                failures = 0
                self._settle()
                await self._lost.wait()
            except UsageError:
                pass  # too much waits for this peer: it is away
            except (PeerGoneError, asyncio.CancelledError):
                raise
            except (P2PError, OSError, ConnectionError, TimeoutError) as error:
                _log.info("no direct path yet: %s", error)
            self._settle()
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
            failures += 1

    async def _offer_once(self) -> None:
        self._attempt += 1
        self._answer = asyncio.get_running_loop().create_future()
        negotiation = webrtc.WebRtcNegotiation(self._link.host.ice_servers)
        try:
            sdp = await negotiation.offer()
            self._link.send(RtcOffer(self._attempt, sdp))
            try:
                answer = await asyncio.wait_for(self._answer, ANSWER_TIMEOUT_S)
            except TimeoutError as error:
                raise PathError("the peer did not answer the offer of a direct path") from error
            if not answer.sdp:
                raise PathError("the peer has no WebRTC")
            await negotiation.accept_answer(answer.sdp)
            await self._take(negotiation)
        finally:
            await negotiation.close()

    async def _answer_once(self, frame: RtcOffer) -> None:
        try:
            if not await self._link.host.in_worker(webrtc.available):
                self._link.send(RtcAnswer(frame.attempt, ""))
                return
            negotiation = webrtc.WebRtcNegotiation(self._link.host.ice_servers)
            try:
                self._link.send(RtcAnswer(frame.attempt, await negotiation.answer(frame.sdp)))
                await self._take(negotiation)
            finally:
                await negotiation.close()
        except (P2PError, OSError, ConnectionError) as error:
            _log.info("no direct path yet: %s", error)
        finally:
            self._settle()

    async def _take(self, negotiation: webrtc.WebRtcNegotiation) -> None:
        connection = await negotiation.connected()
        connection.attach(self._link.add_connection(connection))

    def _settle(self) -> None:
        self.settled = True
        self._link.bulk_may_move()
