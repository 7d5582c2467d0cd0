"""From the relay to WebRTC connections, for peers that no direct TCP joins.

The initiator of the session offers, the other side answers; offers, answers and candidates are control frames of
the session. Each try has a number of its own, so that several lanes can be made side by side. A first connection that
fails is tried again after a while, since networks change. `settled` says that the first try has ended one way or the
other: until then bulk gives it a moment before it takes the relay.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from p2pnb.errors import P2PError, PathError, PeerGoneError, ProtocolError, UsageError
from p2pnb.paths import webrtc
from p2pnb.protocol.wire import MAX_LANES, RtcAnswer, RtcOffer

if TYPE_CHECKING:
    from p2pnb.engine.link import Link

__all__ = ["Upgrade"]

FIRST_AFTER_S: Final = 0.1  # the first messages go before aiortc's import, which takes the GIL for 0.3 s
TCP_FIRST_S: Final = 1.0  # where direct TCP is possible it usually stands by then, and WebRTC isn't needed
RETRY_S: Final = (1.0, 5.0, 15.0, 60.0)  # then every 60 s
ANSWER_TIMEOUT_S: Final = 30.0  # the peer's kernel may hold the GIL
AT_ONCE: Final = 8  # lanes negotiated side by side: each costs both sides some 50 ms of computing

_log = logging.getLogger("p2pnb.upgrade")


class Upgrade:
    """Keeps one peer's WebRTC path up, and opens its lanes."""

    def __init__(self, link: Link, *, initiator: bool) -> None:
        self._link = link
        self._initiator = initiator
        self.settled = False
        self._attempt = 0
        self._answers: dict[int, asyncio.Future[RtcAnswer]] = {}
        self._task: asyncio.Task[None] | None = None
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._last_answered = 0
        self._lanes: set[asyncio.Task[None]] = set()
        self._wanted = 1
        self._room = asyncio.Semaphore(AT_ONCE)
        self._changed = asyncio.Event()  # a path came or went

    @property
    def opens(self) -> bool:
        """True on the side that makes the offers."""
        return self._initiator

    def start(self) -> None:
        """Begin; the initiator tries, the other side waits for its offer."""
        if self._initiator:
            self._task = self._link.host.spawn(self._offer_until_stopped(), "p2pnb upgrade")

    def stop(self) -> None:
        """End every try; connections that stand belong to the link."""
        for task in (self._task, *self._answering.values(), *self._lanes):
            if task is not None:
                task.cancel()

    def path_lost(self) -> None:
        """A direct path broke: try again, if none is left."""
        self._changed.set()

    def path_up(self) -> None:
        """A path was proven."""
        self._changed.set()

    def open_lanes(self, count: int) -> None:
        """Have `count` connections in all."""
        self._wanted = count
        missing = count - self._link.count_of("webrtc") - len(self._lanes)
        for _ in range(missing):
            task = self._link.host.spawn(self._open_lane(), "p2pnb lane")
            self._lanes.add(task)
            task.add_done_callback(self._lanes.discard)

    def offer_received(self, frame: RtcOffer) -> None:
        """Answer one of the peer's offers."""
        if self._initiator:
            raise ProtocolError("an offer came from the side that answers")
        if frame.attempt <= self._last_answered:
            raise ProtocolError("offers of connections must count up")
        self._last_answered = frame.attempt
        if len(self._answering) >= MAX_LANES:  # the oldest is the likeliest to be given up at the other end
            self._answering.pop(min(self._answering)).cancel()
        task = self._link.host.spawn(self._answer_once(frame), "p2pnb answer")
        self._answering[frame.attempt] = task
        task.add_done_callback(lambda _: self._answering.pop(frame.attempt, None))

    def answer_received(self, frame: RtcAnswer) -> None:
        """Take the peer's answer to one of our offers; late ones are ignored."""
        answer = self._answers.get(frame.attempt)
        if answer is not None and not answer.done():
            answer.set_result(frame)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    async def _offer_until_stopped(self) -> None:
        await asyncio.sleep(FIRST_AFTER_S)
        if self._link.direct is not None:
            await self._tcp_stands(TCP_FIRST_S)
        failures = 0
        while True:
            self._changed.clear()
            if self._link.count_of("tcp") or self._link.count_of("webrtc"):
                self._settle()
                failures = 0
                await self._changed.wait()
                if self._link.count_of("tcp") or self._link.count_of("webrtc"):
                    continue
                await asyncio.sleep(RETRY_S[0])
                continue
            try:
                if not await self._link.host.in_worker(webrtc.available):
                    return
                await self._offer_once()
                failures = 0
                continue
            except UsageError:
                pass  # too much waits for this peer: it is away
            except (PeerGoneError, asyncio.CancelledError):
                raise
            except (P2PError, OSError, ConnectionError, TimeoutError) as error:
                _log.info("no WebRTC path yet: %s", error)
            finally:
                self._settle()
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
            failures += 1

    async def _tcp_stands(self, timeout: float) -> None:
        """Wait until direct TCP is up, or `timeout` has passed."""
        try:
            async with asyncio.timeout(timeout):
                while not self._link.count_of("tcp"):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def _open_lane(self) -> None:
        try:
            async with self._room:
                if self._link.count_of("webrtc") < self._wanted:
                    await self._offer_once()
        except (P2PError, OSError, ConnectionError, TimeoutError) as error:
            _log.info("no further lane: %s", error)

    async def _offer_once(self) -> None:
        self._attempt += 1
        attempt = self._attempt
        answered = self._answers[attempt] = asyncio.get_running_loop().create_future()
        negotiation = webrtc.WebRtcNegotiation(self._link.host.ice_servers, self._link.host.engine)
        try:
            sdp = await negotiation.offer()
            self._link.send(RtcOffer(attempt, sdp))
            try:
                answer = await asyncio.wait_for(answered, ANSWER_TIMEOUT_S)
            except TimeoutError as error:
                raise PathError("the peer did not answer the offer of a direct path") from error
            if not answer.sdp:
                raise PathError("the peer has no WebRTC")
            await negotiation.accept_answer(answer.sdp)
            await self._take(negotiation)
        finally:
            self._answers.pop(attempt, None)
            await negotiation.close()

    async def _answer_once(self, frame: RtcOffer) -> None:
        try:
            if not await self._link.host.in_worker(webrtc.available):
                self._link.send(RtcAnswer(frame.attempt, ""))
                return
            negotiation = webrtc.WebRtcNegotiation(self._link.host.ice_servers, self._link.host.engine)
            try:
                self._link.send(RtcAnswer(frame.attempt, await negotiation.answer(frame.sdp)))
                await self._take(negotiation)
            finally:
                await negotiation.close()
        except (P2PError, OSError, ConnectionError) as error:
            _log.info("no WebRTC path yet: %s", error)
        finally:
            self._settle()

    async def _take(self, negotiation: webrtc.WebRtcNegotiation) -> None:
        connection = await negotiation.connected()
        listener, proven = self._link.add_proven(connection)
        connection.attach(listener)
        if not await proven:
            raise PathError("the WebRTC connection was not proven")

    def _settle(self) -> None:
        if not self.settled:
            self.settled = True
            self._link.bulk.may_move()
