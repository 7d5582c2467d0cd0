"""The connection to a room's hub: join, listen, and come back after every loss.

It keeps what the hub gave (peer id, resume secret, ticket), so that a new socket continues as the same peer,
also at a hub that was restarted and remembers nothing. Retries back off exponentially with jitter and honour
the hub's own word on when to come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket as socket_module
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from p2pnb.errors import HubError, HubUnavailableError, P2PError, RoomNotFoundError
from p2pnb.paths.tcp import limit_unsent
from p2pnb.protocol.hub import (
    MAX_PAYLOAD_BYTES,
    MIN_PAYLOAD_BYTES,
    PEER_ID_BYTES,
    PING_INTERVAL_S,
    Error,
    ErrorCode,
    Join,
    Joined,
    Leave,
    Left,
    Restarting,
    Resume,
    Welcome,
    decode_hub_message,
    encode_message,
)

if TYPE_CHECKING:
    import aiohttp

__all__ = ["HubAddress", "HubClient", "HubListener"]

CONNECT_TIMEOUT_S: Final = 10.0
RETRY_FIRST_S: Final = 0.25
RETRY_MOST_S: Final = 15.0
PROBE_S: Final = 3.0  # after the 6.5 s of doubt before it, a dead line is left within 10 s
CLOSE_S: Final = 1.0  # for the closing handshake of a socket; a dead line never answers
UNSENT_BYTES: Final = 128 * 1024  # in the kernel: pings and chat don't wait behind more bulk than that
MAX_PEERS: Final = 1000  # in one room; each costs a handshake
_WRITE_BATCH: Final = 16

_log = logging.getLogger("p2pnb.hub")


class HubAddress:
    """Where a hub is reached: the base URL of its server, ending in "/", and a unix socket if it has one."""

    def __init__(self, url: str, sock: str = "") -> None:
        self.url = url
        self.sock = sock

    def route(self, name: str) -> str:
        """Return the URL of one of the hub's routes."""
        return f"{self.url}p2pnb/{name}"

    async def session(self) -> aiohttp.ClientSession:
        """Return a new HTTP session for this hub; no cookies are kept or sent."""
        import aiohttp

        connector = aiohttp.UnixConnector(self.sock) if self.sock else aiohttp.TCPConnector(limit=4)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=True)


class HubListener(Protocol):
    """Who hears the hub; called on the event loop."""

    def welcomed(self, welcome: Welcome) -> None: ...
    def hub_lost(self, reason: str) -> None: ...
    def hub_failed(self, error: P2PError) -> None: ...
    def peer_joined(self, peer_id: bytes, owner: bool) -> None: ...
    def peer_left(self, peer_id: bytes) -> None: ...
    def peer_unreachable(self, peer_id: bytes) -> None: ...
    def payload_received(self, peer_id: bytes, payload: memoryview) -> None: ...
    def hub_buffer_low(self) -> None: ...


class HubClient:
    """One room at one hub, for as long as `run` runs."""

    def __init__(self, address: HubAddress, room: str, listener: HubListener, *, owner: str = "", ticket: str = ""):
        self._address, self._room, self._owner = address, room, owner
        self._listener = listener
        self._resume: Resume | None = None
        self._ticket = ticket
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._queue: deque[bytes | str] = deque()
        self._wake = asyncio.Event()
        self._buffered = 0
        self._limit = MAX_PAYLOAD_BYTES
        self._low_water = 256 * 1024
        self._retry_now = asyncio.Event()
        self._answers = 0  # pongs: only they show that both directions work
        self._written = 0  # messages that the socket took
        self._probe: asyncio.Task[None] | None = None
        self._leaving = False
        self._was_connected = False

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def payload_limit(self) -> int:
        """Bytes that this hub forwards in one payload."""
        return self._limit

    @property
    def buffered(self) -> int:
        """Bytes queued for the hub."""
        return self._buffered

    def send_payload(self, peer_id: bytes, payload: bytes) -> None:
        """Queue a payload for a peer; without a connection it is dropped, and the session sends again later."""
        if self._socket is None:
            return
        if len(payload) > self._limit:
            raise HubError(f"payload of {len(payload)} bytes; this hub takes at most {self._limit}")
        self._push(peer_id + payload)

    def check_now(self) -> None:
        """Something else broke: see at once whether the hub connection still stands."""
        self._retry_now.set()
        socket = self._socket
        if socket is not None and not socket.closed and self._probe is None:
            self._probe = asyncio.get_running_loop().create_task(self._probe_socket(socket), name="p2pnb hub probe")

    async def _probe_socket(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Ask the hub for a sign of life; a line that gives none is cut, so that `run` opens another."""
        answers = self._answers
        try:
            with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
                async with asyncio.timeout(PROBE_S) as patience:
                    await socket.ping()  # may itself hang behind what the dead line doesn't take
                    written = self._written
                    while self._answers == answers and self._socket is socket:
                        await asyncio.sleep(0.05)
                        if self._queue and self._written != written:  # a slow line: the ping waits behind bulk
                            written = self._written
                            patience.reschedule(asyncio.get_running_loop().time() + PROBE_S)
            if self._answers == answers and self._socket is socket:
                _log.info("the hub does not answer; opening another connection")
                raw = socket.get_extra_info("socket")
                if raw is not None:
                    with contextlib.suppress(OSError):  # gone meanwhile
                        raw.shutdown(socket_module.SHUT_RDWR)
        finally:
            self._probe = None

    async def run(self) -> None:
        """Stay connected until cancelled, `leave` was called, or the hub refuses for good."""
        failures = 0
        async with await self._address.session() as http:
            while self._stays():
                wait = 0.0
                try:
                    wait = await self._connect_and_serve(http)
                    failures = 0
                except HubError as error:
                    if not self._was_connected or isinstance(error, RoomNotFoundError):
                        self._listener.hub_failed(error)
                        return
                    failures += 1
                    self._listener.hub_lost(str(error))
                if not self._stays():
                    return
                backoff = min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** min(failures, 10))
                self._retry_now.clear()
                with contextlib.suppress(TimeoutError):  # jitter: thirty peers must not come back in one instant
                    delay = max(wait, backoff) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
                    await asyncio.wait_for(self._retry_now.wait(), delay)

    def _stays(self) -> bool:
        return not self._leaving

    async def leave(self) -> None:
        """Say goodbye and close; `run` ends."""
        self._leaving = True
        self._retry_now.set()
        socket = self._socket
        if socket is not None and not socket.closed:
            self._push(encode_message(Leave()))
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    while self._queue:
                        await asyncio.sleep(0)
                    await socket.close()

    async def _connect_and_serve(self, http: aiohttp.ClientSession) -> float:
        """Serve one socket until it ends; return how long the hub asks to wait before the next."""
        import aiohttp

        url = self._address.route("ws")
        join = encode_message(Join(room=self._room, resume=self._resume, ticket=self._ticket, owner=self._owner))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                socket = await http.ws_connect(
                    url,
                    max_msg_size=MAX_PAYLOAD_BYTES + PEER_ID_BYTES + 1,  # aiohttp refuses the very size
                    heartbeat=PING_INTERVAL_S,
                    autoclose=True,
                    autoping=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                    compress=0,
                )
                if (raw := socket.get_extra_info("socket")) is not None:
                    limit_unsent(raw, UNSENT_BYTES)
                await socket.send_str(join)
                welcome = await self._welcome(socket)
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(error, self._address.url) from error
        except (TimeoutError, aiohttp.ClientError, OSError, ssl.SSLError) as error:
            reason = str(error) or "it does not answer"
            raise HubUnavailableError(
                f"The hub at {self._address.url} can't be reached ({reason}). Check the address and that its "
                "Jupyter server runs."
            ) from error
        self._resume = Resume(welcome.id, welcome.secret)
        self._ticket = welcome.ticket
        self._was_connected = True
        self._limit = min(welcome.limits.payload_bytes, MAX_PAYLOAD_BYTES)
        self._socket = socket
        self._queue.clear()
        self._buffered = 0
        writer = asyncio.create_task(self._write(socket), name="p2pnb hub writer")
        retry_after = 0.0
        reason = "the hub closed the connection"
        try:
            self._listener.welcomed(welcome)
            async for message in socket:
                if message.type is aiohttp.WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is aiohttp.WSMsgType.PONG:
                    self._answers += 1
                elif message.type is aiohttp.WSMsgType.BINARY:
                    self._on_binary(message.data)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    retry_after = max(retry_after, self._on_text(message.data))
                else:
                    reason = f"the connection to the hub broke ({message.type.name})"
                    break
        except (ValueError, P2PError) as error:
            reason = str(error)
        finally:
            self._socket = None
            if self._probe is not None:
                self._probe.cancel()
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            await socket.close()
        if not self._leaving:
            self._listener.hub_lost(reason)
        return retry_after

    async def _welcome(self, socket: aiohttp.ClientWebSocketResponse) -> Welcome:
        import aiohttp

        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
                continue
            if message.type is aiohttp.WSMsgType.PONG:
                continue
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise HubUnavailableError(
                    f"The hub at {self._address.url} closed the connection before it answered. "
                    "Is it a p2pnb hub of this version?"
                )
            try:
                answer = decode_hub_message(message.data)
            except ValueError as error:
                raise HubError(f"{self._address.url} does not speak p2pnb's hub protocol: {error}") from error
            if isinstance(answer, Welcome):
                return self._checked(answer)
            if isinstance(answer, Error):
                if answer.code == ErrorCode.BAD_SECRET and self._resume is not None:
                    self._resume = None  # the hub does not take this id back: come as a new peer
                    raise HubUnavailableError("The hub has forgotten this peer.")
                raise _hub_error(answer)

    def _checked(self, welcome: Welcome) -> Welcome:
        """Refuse a welcome that no working hub sends, before anything is built on it."""
        limit = welcome.limits.payload_bytes
        if limit < MIN_PAYLOAD_BYTES:
            raise HubError(
                f"The hub at {self._address.url} forwards only {limit} bytes at a time, and p2pnb needs "
                f"{MIN_PAYLOAD_BYTES}. Its operator has to raise P2PApp.max_payload_bytes."
            )
        try:
            ids = [_peer_id(text) for text in (welcome.id, *(entry.id for entry in welcome.peers))]
        except ValueError as error:
            raise HubError(f"{self._address.url} does not speak p2pnb's hub protocol: {error}") from error
        if len(set(ids)) != len(ids) or len(ids) > MAX_PEERS:
            raise HubError(f"The hub at {self._address.url} sent an impossible list of who is here.")
        return welcome

    def _on_text(self, text: str) -> float:
        match decode_hub_message(text):
            case Joined(id=peer, owner=owner):
                self._listener.peer_joined(_peer_id(peer), owner)
            case Left(id=peer):
                self._listener.peer_left(_peer_id(peer))
            case Restarting(retry_after=seconds):
                return min(max(seconds, 0.0), 60.0)
            case Error() as error:
                if error.code == ErrorCode.NO_PEER and error.peer:
                    self._listener.peer_unreachable(_peer_id(error.peer))
                else:
                    _log.info("the hub says: %s (%s)", error.message, error.code)
                    return min(max(error.retry_after, 0.0), 60.0)
            case Welcome():
                raise ValueError("the hub sent a second welcome")
        return 0.0

    def _on_binary(self, data: bytes) -> None:
        if len(data) > PEER_ID_BYTES:
            self._listener.payload_received(data[:PEER_ID_BYTES], memoryview(data)[PEER_ID_BYTES:])

    def _push(self, message: bytes | str) -> None:
        self._queue.append(message)
        self._buffered += len(message)
        self._wake.set()

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                message = self._queue.popleft()
                try:
                    if isinstance(message, str):
                        await socket.send_str(message)
                    else:
                        await socket.send_bytes(message)
                except (ConnectionError, RuntimeError, OSError) as error:
                    _log.debug("writing to the hub: %s", error)
                    await socket.close()
                    return
                self._written += 1
                before, self._buffered = self._buffered, self._buffered - len(message)
                if self._buffered < self._low_water <= before or not self._queue:
                    self._listener.hub_buffer_low()


def _peer_id(text: str) -> bytes:
    peer_id = bytes.fromhex(text)
    if len(peer_id) != PEER_ID_BYTES:
        raise ValueError("the hub named a peer by an id of the wrong length")
    return peer_id


def _hub_error(error: Error) -> HubError:
    if error.code == ErrorCode.ROOM_NOT_FOUND:
        return RoomNotFoundError(
            "This hub hosts no such room: it was closed, or the link or code has a typo. Ask for a new invite."
        )
    again = f" Try again in {error.retry_after:.0f} s." if error.retry_after else ""
    return HubError(f"The hub refused: {error.message[:500]}{again}")


def _refusal(error: aiohttp.WSServerHandshakeError, url: str) -> HubError:
    hints = {
        403: "It turned the request away, most likely for its Host check: start the server with "
        "--ServerApp.allow_remote_access=True, or use the address it was started for.",
        404: "It has no p2pnb hub. Install p2pnb in the environment of that Jupyter server and restart it.",
        302: "It sent the request to a login page: the Jupyter server behind it does not run any more.",
    }
    hint = hints.get(error.status, "Check the address.")
    return HubUnavailableError(f"The server at {url} answered with status {error.status}. {hint}")
