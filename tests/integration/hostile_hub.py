"""A hub that its operator turned against the room: it hears everything, and does what a test tells it.

It speaks `p2pnb.protocol.hub` over real sockets on loopback, from a thread of its own, so that tests use
p2pnb's blocking calls as people do. Honest unless told otherwise; `recording` holds every byte of every
message in both directions, as an operator sees them behind TLS and WebSocket masking.

What is forwarded passes through `on_payload`: a function of one `Delivery` that returns what to deliver in
its place. With it a test drops, doubles, holds back, changes, swaps and replays.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import WSMsgType, web

from p2pnb.protocol.hub import (
    MAX_PAYLOAD_BYTES,
    PEER_ID_BYTES,
    ROOM_ALPHABET,
    Error,
    ErrorCode,
    HubMessage,
    Join,
    Joined,
    Leave,
    Left,
    PeerEntry,
    RoomCreated,
    Welcome,
    decode_peer_message,
    encode_message,
)
from p2pnb.protocol.wire import HandshakeType

LOOPBACK: Final = "127.0.0.1"
CALL_TIMEOUT_S: Final = 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One payload on its way through the hub."""

    room: str
    source: bytes
    destination: bytes
    payload: bytes

    @property
    def kind(self) -> int:
        """First byte: a `HandshakeType`."""
        return self.payload[0] if self.payload else -1

    @property
    def is_record(self) -> bool:
        return self.kind == HandshakeType.RECORD

    def changed(self, **fields: Any) -> Delivery:
        return replace(self, **fields)


Filter = Callable[[Delivery], Iterable[Delivery]]


@dataclass(eq=False)
class _Seat:
    """A peer of a room, as the hub sees it."""

    id: bytes
    owner: bool
    socket: web.WebSocketResponse | None = None
    out: asyncio.Queue[str | bytes] = field(default_factory=asyncio.Queue)
    away: asyncio.TimerHandle | None = None


class HostileHub:
    """One hub on loopback. A context manager; ends its sockets and its thread with the block."""

    def __init__(self, *, peer_grace_s: float = 5.0) -> None:
        self.token = secrets.token_hex(16)
        self.recording = bytearray()
        self.deliveries: list[Delivery] = []  # what peers sent, before `on_payload`
        self.on_payload: Filter = lambda delivery: [delivery]
        self.welcome: Callable[[Welcome], HubMessage | str] = lambda welcome: welcome
        self.silent = False  # True: reads and accepts everything, answers nothing
        self.deaf = False  # True: sockets stay open, but nothing is read from them
        self.refusal: Error | None = None  # the answer to every Join
        self.restarting = False  # True: new sockets are turned away at once
        self.peer_grace_s = peer_grace_s
        self.held: set[bytes] = set()  # peers that get no answer when they return
        self.ids: list[bytes] = []  # for the next newcomers; random ones after that
        self.joins = 0
        self.port = 0
        self._key = secrets.token_bytes(16)
        self._rooms: dict[str, dict[bytes, _Seat]] = {}
        self._open: set[web.WebSocketResponse] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hostile-hub", daemon=True)
        self._ready = threading.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/"

    @property
    def hub(self) -> str:
        """What `p2pnb.create(hub=…)` takes."""
        return f"{self.url}?token={self.token}"

    def __enter__(self) -> HostileHub:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.restarting = True
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        assert not self._thread.is_alive()
        self._loop.close()

    # ── what a test does with it ────────────────────────────────────────────────────────────────────
    def peers(self, room: str) -> list[bytes]:
        """Return the ids of the connected peers of a room, in the order they came."""
        return [seat.id for seat in self._rooms.get(room, {}).values() if seat.socket is not None]

    def cut(self, peer: bytes | None = None) -> None:
        """Break the connection of one peer (of all) as a dying line does: no close frame."""
        self._call(self._cut(peer))

    def restart_empty(self) -> None:
        """Forget every room and break every connection, as a hub that crashed and was started again."""
        self._call(self._restart_empty())

    def inject(self, room: str, source: bytes, destination: bytes, payload: bytes) -> None:
        """Deliver a payload that nobody sent."""
        self._call(self._deliver(Delivery(room, source, destination, payload)))

    def announce(self, room: str, message: HubMessage | str, to: bytes | None = None) -> None:
        """Say something to one peer of a room (to all)."""
        self._call(self._announce(room, message, to))

    # ── inside: the thread ──────────────────────────────────────────────────────────────────────────
    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/p2pnb/health", self._health)
        app.router.add_post("/p2pnb/api/rooms", self._create)
        app.router.add_get("/p2pnb/ws", self._socket)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self.port)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def _stop(self) -> None:
        await self._cut(None)
        assert self._runner is not None
        await self._runner.cleanup()

    async def _cut(self, peer: bytes | None) -> None:
        for seats in self._rooms.values():
            for seat in seats.values():
                if seat.socket is not None and peer in (None, seat.id):
                    _abort(seat.socket)
        if peer is None:
            for socket in list(self._open):
                _abort(socket)

    async def _restart_empty(self) -> None:
        for seats in self._rooms.values():
            for seat in seats.values():
                if seat.away is not None:
                    seat.away.cancel()
        sockets = list(self._open)
        self._rooms.clear()
        for socket in sockets:
            _abort(socket)

    # ── inside: the protocol ────────────────────────────────────────────────────────────────────────
    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"p2pnb": 1})

    async def _create(self, request: web.Request) -> web.Response:
        self.recording += request.path_qs.encode() + await request.read()
        if request.headers.get("Authorization") != f"token {self.token}":
            return web.Response(status=403)
        if self.silent:
            await asyncio.sleep(3600)
        room = "".join(secrets.choice(ROOM_ALPHABET) for _ in range(8))
        self._rooms[room] = {}
        made = RoomCreated(room, self._seal("owner", room), self._seal("ticket", room))
        return web.Response(status=201, body=msgspec.json.encode(made), content_type="application/json")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        largest = MAX_PAYLOAD_BYTES + PEER_ID_BYTES + 1  # aiohttp refuses from this size on
        socket = web.WebSocketResponse(max_msg_size=largest, compress=False, autoping=True)
        await socket.prepare(request)
        self.recording += request.path_qs.encode()
        if self.restarting:
            _abort(socket)
            return socket
        self._open.add(socket)
        try:
            await self._serve(socket)
        finally:
            self._open.discard(socket)
        return socket

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        first = await socket.receive()
        if first.type is not WSMsgType.TEXT:
            return
        self.recording += first.data.encode()
        join = decode_peer_message(first.data)
        assert isinstance(join, Join)
        self.joins += 1
        while self.silent or (join.resume is not None and bytes.fromhex(join.resume.id) in self.held):
            await asyncio.sleep(0.01)
        answer = self.refusal or self._admit(join)
        if isinstance(answer, Error):
            await socket.send_str(self._recorded(encode_message(answer)))
            await socket.close()
            return
        seats = self._rooms[join.room]
        others = [PeerEntry(s.id.hex(), s.owner) for s in seats.values() if s.socket is not None and s is not answer]
        old, answer.socket, answer.out = answer.socket, socket, asyncio.Queue()
        if old is not None:
            _abort(old)
        welcome = Welcome(answer.id.hex(), self._seal("resume", join.room, answer.id), join.ticket or
                          self._seal("ticket", join.room), others)  # fmt: skip
        self._put(answer, self.welcome(welcome))
        for seat in seats.values():
            if seat is not answer:
                self._put(seat, Joined(answer.id.hex(), answer.owner))
        writer = asyncio.create_task(self._write(answer, socket))
        try:
            left = await self._read(join.room, answer, socket)
        finally:
            writer.cancel()
            if answer.socket is socket:
                answer.socket = None
        if self._rooms.get(join.room) is seats and answer.socket is None:
            if left:
                self._forget(seats, answer)
            else:
                answer.away = self._loop.call_later(self.peer_grace_s, self._forget, seats, answer)

    def _admit(self, join: Join) -> _Seat | Error:
        seats = self._rooms.get(join.room)
        if seats is None:
            if join.ticket != self._seal("ticket", join.room):
                return Error(ErrorCode.ROOM_NOT_FOUND, "There is no such room.")
            seats = self._rooms[join.room] = {}
        peer = self.ids.pop(0) if self.ids and join.resume is None else secrets.token_bytes(PEER_ID_BYTES)
        if join.resume is not None:
            peer = bytes.fromhex(join.resume.id)
            if join.resume.secret != self._seal("resume", join.room, peer):
                return Error(ErrorCode.BAD_MESSAGE, "The resume secret is wrong.")
        seat = seats.get(peer)
        if seat is None:
            seat = seats[peer] = _Seat(peer, join.owner == self._seal("owner", join.room))
        if seat.away is not None:
            seat.away.cancel()
            seat.away = None
        return seat

    async def _read(self, room: str, seat: _Seat, socket: web.WebSocketResponse) -> bool:
        """Read one peer to its end; True if it said goodbye."""
        while True:
            while self.deaf:
                await asyncio.sleep(0.01)
            message = await socket.receive()
            if message.type is WSMsgType.BINARY:
                self.recording += message.data
                delivery = Delivery(room, seat.id, message.data[:PEER_ID_BYTES], message.data[PEER_ID_BYTES:])
                self.deliveries.append(delivery)
                for one in self.on_payload(delivery):
                    await self._deliver(one)
            elif message.type is WSMsgType.TEXT:
                self.recording += message.data.encode()
                if isinstance(decode_peer_message(message.data), Leave):
                    return True
            else:
                return False

    async def _deliver(self, delivery: Delivery) -> None:
        seat = self._rooms.get(delivery.room, {}).get(delivery.destination)
        if seat is not None and seat.socket is not None:
            self.recording += delivery.source + delivery.payload
            seat.out.put_nowait(delivery.source + delivery.payload)
            while seat.out.qsize() > 64:  # pushes back, as an honest hub does
                await asyncio.sleep(0.001)
        elif (source := self._rooms.get(delivery.room, {}).get(delivery.source)) is not None:
            self._put(source, Error(ErrorCode.NO_PEER, "not connected", fatal=False, peer=delivery.destination.hex()))

    async def _announce(self, room: str, message: HubMessage | str, to: bytes | None) -> None:
        for seat in self._rooms[room].values():
            if to in (None, seat.id):
                self._put(seat, message)

    def _put(self, seat: _Seat, message: HubMessage | str) -> None:
        text = message if isinstance(message, str) else encode_message(message)
        if seat.socket is not None:
            seat.out.put_nowait(self._recorded(text))

    async def _write(self, seat: _Seat, socket: web.WebSocketResponse) -> None:
        out = seat.out
        while True:
            message = await out.get()
            with contextlib.suppress(ConnectionError, RuntimeError):
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))

    def _forget(self, seats: dict[bytes, _Seat], seat: _Seat) -> None:
        if seats.pop(seat.id, None) is not None:
            for other in seats.values():
                self._put(other, Left(seat.id.hex()))

    def _recorded(self, text: str) -> str:
        self.recording += text.encode()
        return text

    def _seal(self, *parts: str | bytes) -> str:
        data = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
        return sha256(self._key + data).hexdigest()


def _abort(socket: web.WebSocketResponse) -> None:
    transport = socket._req.transport if socket._req is not None else None
    if transport is not None:
        transport.abort()
