"""Direct TCP between two kernels: addresses offered inside the session, both sides dial, the first proven one wins.

Each side tells the other where it listens. The initiator of the session dials at once, the other side a moment later
if nothing stands by then, so that two dials seldom cross; where they do, the initiator closes what is too much. The
addresses come from a peer: only such as an honest one could name are dialled (`paths.addresses`), only so many a
minute, and nothing but the token and the proof is sent there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from typing import TYPE_CHECKING, Final

from p2pnb.errors import P2PError, PeerGoneError, ProtocolError
from p2pnb.paths.addresses import dialable, own_addresses
from p2pnb.paths.tcp import TOKEN_BYTES, TcpConnection, TcpListener, dial
from p2pnb.protocol.wire import MAX_TCP_TARGETS, TcpOffer

if TYPE_CHECKING:
    from p2pnb.engine.link import Link

__all__ = ["DirectTcp"]

SECOND_DIALS_AFTER_S: Final = 0.3  # a round trip of most lines, and the initiator's connection stands
STAGGER_S: Final = 0.25  # between addresses (RFC 8305 §5)
RETRY_S: Final = (1.0, 5.0, 15.0, 60.0)  # then every 60 s
DIALS_PER_MINUTE: Final = 60  # retries and lanes of an honest peer stay below
LOOPBACK: Final = ("127.0.0.1", "::1")

_log = logging.getLogger("p2pnb.direct")


class DirectTcp:
    """Keeps one peer's direct TCP path up, and opens its lanes."""

    def __init__(self, link: Link, listener: TcpListener, *, initiator: bool) -> None:
        self._link = link
        self._listener = listener
        self._initiator = initiator
        self.settled = False
        self.reached: tuple[str, int] | None = None  # where our last dial was proven
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._peer_token = b""
        self._targets: list[tuple[str, int]] = []
        self._known = asyncio.Event()  # the peer's offer is here
        self._lost = asyncio.Event()
        self._dials: deque[float] = deque(maxlen=DIALS_PER_MINUTE)
        self._wanted = 1
        self._opening = 0
        self._task: asyncio.Task[None] | None = None
        self._lanes: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Say where we listen, and begin to dial once the peer said where it does."""
        self._listener.expect(self._token, self._accepted)
        self._task = self._link.host.spawn(self._run(), "p2pnb direct")

    def stop(self) -> None:
        """End every try; connections that stand belong to the link."""
        self._listener.forget(self._token)
        for task in (self._task, *self._lanes):
            if task is not None:
                task.cancel()

    def offer_received(self, frame: TcpOffer) -> None:
        """Take the peer's addresses; a newer offer replaces an older one."""
        if len(frame.token) != TOKEN_BYTES or len(frame.targets) > MAX_TCP_TARGETS:
            raise ProtocolError("an impossible offer of direct connections")
        mine = self._link.same_host_tag()
        same_host = bool(mine) and secrets.compare_digest(mine, frame.same_host)
        targets = [(text, port) for text, port in frame.targets if dialable(text, port, same_host=same_host)]
        if same_host:  # nothing is nearer
            targets.sort(key=lambda target: target[0] not in LOOPBACK)
        else:
            targets = [target for target in targets if target[0] not in LOOPBACK]
        self._peer_token, self._targets = frame.token, targets
        self._known.set()

    def path_lost(self) -> None:
        """A direct TCP connection broke."""
        self._lost.set()

    def open_lanes(self, count: int) -> None:
        """Have `count` connections in all; only where our own dial reached the peer."""
        self._wanted = count
        missing = count - self._link.count_of("tcp") - self._opening
        for _ in range(missing if self.reached is not None else 0):
            self._opening += 1
            task = self._link.host.spawn(self._open_lane(), "p2pnb lane")
            self._lanes.add(task)
            task.add_done_callback(self._lanes.discard)

    @property
    def too_many(self) -> int:
        """Connections beyond those wanted, to be closed by the initiator after crossed dials."""
        return max(0, self._link.count_of("tcp") - self._wanted) if self._initiator else 0

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    async def _run(self) -> None:
        host = self._link.host
        try:
            addresses = await host.in_worker(own_addresses)
            tag = self._link.same_host_tag()
            mine = [(address, self._listener.port) for address in addresses]
            if tag:
                mine = [(LOOPBACK[0], self._listener.port), *mine]
            self._link.send(TcpOffer(self._token, mine, tag))
            await self._known.wait()
            if not self._initiator:
                await asyncio.sleep(SECOND_DIALS_AFTER_S)
            failures = 0
            while True:
                self._lost.clear()
                if not self._link.count_of("tcp"):
                    failures = 0 if await self._dial_all() else failures + 1
                self._settle()
                if self._link.count_of("tcp"):
                    failures = 0
                    await self._lost.wait()
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
        except PeerGoneError:
            pass
        except P2PError as error:
            _log.info("no direct TCP: %s", error)
        finally:
            self._settle()

    async def _dial_all(self) -> bool:
        """Try the peer's addresses, a quarter of a second apart; True once one is proven."""
        tasks: set[asyncio.Task[bool]] = set()
        try:
            for target in self._targets:
                tasks.add(asyncio.create_task(self._dial(target), name="p2pnb dial"))
                done, tasks = await asyncio.wait(tasks, timeout=STAGGER_S, return_when=asyncio.FIRST_COMPLETED)
                if any(task.result() for task in done):
                    return True
                if self._link.count_of("tcp"):
                    return True  # the peer reached us
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if any(task.result() for task in done):
                    return True
            return False
        finally:
            for task in tasks:
                task.cancel()

    async def _dial(self, target: tuple[str, int]) -> bool:
        now = self._link.host.loop.time()
        if len(self._dials) == DIALS_PER_MINUTE and now - self._dials[0] < 60:
            return False
        self._dials.append(now)
        try:
            connection = await dial(*target, self._peer_token)
        except (OSError, TimeoutError) as error:
            _log.debug("%s does not answer: %s", target, error)
            return False
        proven = self._take(connection)
        try:
            reached = await proven
        except asyncio.CancelledError:
            if not (proven.done() and not proven.cancelled() and proven.result()):
                connection.close()
            raise
        if reached:
            self.reached = target
        return reached

    async def _open_lane(self) -> None:
        try:
            if self.reached is not None:
                await self._dial(self.reached)
        finally:
            self._opening -= 1

    def _accepted(self, connection: TcpConnection) -> None:
        try:
            self._take(connection)
        except P2PError as error:
            _log.info("a connection came too late: %s", error)

    def _take(self, connection: TcpConnection) -> asyncio.Future[bool]:
        listener, proven = self._link.add_proven(connection)
        connection.attach(listener)
        return proven

    def _settle(self) -> None:
        if not self.settled:
            self.settled = True
            self._link.bulk.may_move()
