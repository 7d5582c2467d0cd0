"""Who is in which room, and where a message goes: the hub as a pure state machine.

No sockets, no clock and no randomness in here: `now` is seconds on a monotonic clock, `wall` Unix seconds
(only tickets and TURN credentials know it), random bytes come from the function that was passed in. A
transport gives each socket to `connect`, what it reads to `receive_text` and `forward`, its end to
`disconnect`; it calls `handle_timer` about once a second, and after every call carries out `take_effects`.

A connection waits for its Join, then is the connection of one peer until it ends. A peer of a room is

    connected   it has a connection; others were told Joined
    away        its connection broke: for PEER_GRACE_S it keeps its place and others hear nothing
    (gone)      nothing is kept; its resume secret, an HMAC, lets it take up the same id at any later time

A room is there while it has peers, and ROOM_GRACE_S longer. It begins by `create_room`, or by a ticket that
this hub's key signed, never by asking for it.

Everything a stranger can make the hub keep is bounded by `RouterLimits`. Refusals look the same whatever is
wrong with a room id, and each costs the asking address many times a join.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from p2pnb.protocol.hub import (
    JOIN_TIMEOUT_S,
    PEER_GRACE_S,
    PEER_ID_BYTES,
    PROTOCOL_VERSION,
    ROOM_ALPHABET,
    ROOM_GRACE_S,
    ROOM_ID_DEFAULT,
    CloseCode,
    Error,
    ErrorCode,
    HubMessage,
    Join,
    Joined,
    Leave,
    Left,
    Limits,
    PeerEntry,
    Restarting,
    RoomCreated,
    Welcome,
    decode_peer_message,
    encode_message,
    valid_room_id,
)
from p2pnb_server.ice import IceSource, StaticIce
from p2pnb_server.limits import Bucket, RouterLimits
from p2pnb_server.seals import Seals

__all__ = ["Close", "Effect", "Forward", "RefusedError", "Router", "RouterStats", "Send"]

# Smaller payloads don't count as use of a room: peers ping each other through the hub every 15 to 25 s, and a
# server that is kept alive by that would never be culled. A sealed chat message is larger.
_SMALL_PAYLOAD_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Send:
    """Write `text` to these connections."""

    connections: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close this connection; the router has forgotten it already. `reason` is at most 123 bytes (RFC 6455 §5.5)."""

    connection: int
    code: int
    reason: str


Effect = Send | Close
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Forward:
    """Write `source`, then the message without its first PEER_ID_BYTES, to `connection`."""

    connection: int
    source: bytes
    delay: float  # read nothing more from the sender for so many seconds: it is over its rate


@dataclass(frozen=True, slots=True)
class RouterStats:
    """Numbers for whoever runs the hub; no ids."""

    rooms: int
    peers: int  # connected ones
    peers_away: int
    connections: int
    joins: int
    joins_refused: int
    messages: int
    bytes: int  # payload bytes forwarded
    texts_ignored: int


class RefusedError(Exception):
    """A hub did not do what was asked; `error` is what to tell the one who asked."""

    def __init__(self, error: Error, close_code: int = CloseCode.REFUSED) -> None:
        super().__init__(error.message)
        self.error = error
        self.close_code = close_code


class _Tag(msgspec.Struct):
    type: str


_tag_decoder = msgspec.json.Decoder(_Tag)
_PEER_TAGS: Final = frozenset({"join", "leave"})


class _Connection:
    __slots__ = ("address", "bytes", "id", "no_peer_errors", "peer", "room", "texts")

    def __init__(self, id: int, address: str, limits: RouterLimits, now: float) -> None:
        self.id = id
        self.address = address
        self.room: _Room | None = None  # with `peer`: None until Join was accepted
        self.peer: _Peer | None = None
        self.texts = Bucket(limits.texts, now)
        self.no_peer_errors = Bucket(limits.no_peer_errors, now)
        self.bytes = Bucket(limits.bytes_rate, now) if limits.bytes_rate else None


class _Peer:
    __slots__ = ("connection", "id", "owner")

    def __init__(self, id: bytes) -> None:
        self.id = id
        self.owner = False
        self.connection: _Connection | None = None  # None: away


class _Room:
    __slots__ = ("id", "newcomers", "peers", "returners")

    def __init__(self, id: str, limits: RouterLimits, now: float) -> None:
        self.id = id
        self.peers: dict[bytes, _Peer] = {}
        self.newcomers = Bucket(limits.room_newcomers, now)
        self.returners = Bucket(limits.room_returners, now)


class Router:
    """Rooms, peers and where messages go; see the module's text for how it is driven.

    `key` signs tickets and secrets (seals.HUB_KEY_BYTES), `random_bytes(n)` must be cryptographically random,
    `public_url` goes into Welcome, `queue_bytes` too: what the transport holds for a slow destination.
    """

    def __init__(
        self,
        key: bytes,
        random_bytes: Callable[[int], bytes],
        *,
        limits: RouterLimits | None = None,
        ice: IceSource | None = None,
        public_url: str = "",
        queue_bytes: int = 0,
    ) -> None:
        self.limits = limits or RouterLimits()
        self.last_used: float | None = None  # `now` of the last join or message that was more than a ping
        self._seals = Seals(key)
        self._random_bytes = random_bytes
        self._ice: IceSource = ice or StaticIce()
        self._public_url = public_url
        self._announced = Limits(self.limits.payload_bytes, self.limits.bytes_per_second, queue_bytes)
        self._effects: list[Effect] = []
        self._next_connection = itertools.count(1)
        self._connections: dict[int, _Connection] = {}
        self._rooms: dict[str, _Room] = {}
        # The next three have one constant delay each, so insertion order is order of deadline.
        self._unjoined: dict[int, float] = {}
        self._away: dict[tuple[str, bytes], float] = {}
        self._empty: dict[str, float] = {}
        self._closed_rooms: OrderedDict[str, None] = OrderedDict()
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()
        self._other_addresses = Bucket(self.limits.address_joins, 0.0)
        self._rooms_created: Bucket | None = None
        self._joins = self._joins_refused = self._messages = self._bytes = self._texts_ignored = 0

    # ── what the transport and the API say ──────────────────────────────────────────────────────────
    def create_room(self, now: float, wall: float) -> RoomCreated:
        """Make an empty room; raises RefusedError where that would be too many or too fast.

        The caller has made sure that whoever asks may do this.
        """
        if self._rooms_created is None:
            self._rooms_created = Bucket(self.limits.rooms_created, now)
        self._check_room_count()
        wait = self._rooms_created.take(1, now)
        if wait:
            raise RefusedError(Error(ErrorCode.HUB_FULL, "Rooms are being made too fast here.", retry_after=wait))
        room = self._add_room(self._new_room_id(), now)
        owner, ticket = self._seals.owner_key(room.id), self._seals.ticket(room.id, wall)
        return RoomCreated(room.id, owner, ticket, self._public_url)

    def close_room(self, room_id: str) -> bool:
        """Send everybody out of a room and don't let tickets bring it back; False if there is none of this id."""
        room = self._rooms.get(room_id)
        if room is None:
            return False
        self._closed_rooms[room_id] = None
        if len(self._closed_rooms) > self.limits.closed_rooms:
            self._closed_rooms.popitem(last=False)
        error = Error(ErrorCode.ROOM_NOT_FOUND, "The room was closed.")
        for peer in list(room.peers.values()):
            self._away.pop((room_id, peer.id), None)
            if peer.connection is not None:
                self._end(peer.connection, error, CloseCode.ROOM_NOT_FOUND)
        self._remove_room(room_id)
        return True

    def connect(self, address: str, now: float) -> int:
        """Take a new socket and return its connection id; `address` is where it comes from."""
        connection = _Connection(next(self._next_connection), _address_key(address), self.limits, now)
        while len(self._unjoined) >= self.limits.unjoined:
            oldest = next(iter(self._unjoined))
            self._end(self._connections[oldest], _TOO_LATE, CloseCode.JOIN_TIMEOUT)
        self._connections[connection.id] = connection
        if len(self._connections) > self.limits.connections:
            error = Error(ErrorCode.HUB_FULL, "This hub has no free place; try again later.", retry_after=5.0)
            self._end(connection, error, CloseCode.REFUSED)
        else:
            self._unjoined[connection.id] = now + JOIN_TIMEOUT_S
        return connection.id

    def disconnect(self, connection_id: int, now: float) -> None:
        """Note that a socket ended without goodbye; its peer may come back within PEER_GRACE_S unnoticed."""
        connection = self._connections.pop(connection_id, None)
        if connection is not None:
            self._unjoined.pop(connection_id, None)
            self._detach(connection, now)

    def expel_slow(self, connection_id: int, now: float) -> None:
        """End a connection that does not read what is sent to it."""
        connection = self._connections.get(connection_id)
        if connection is not None:
            self._detach(connection, now)
            error = Error(ErrorCode.TOO_SLOW, "This peer did not read what others sent to it; connect again.")
            self._end(connection, error, CloseCode.TOO_SLOW)

    def restart(self, retry_after: float = 1.0) -> None:
        """Tell everybody to come back in a moment, and end all connections. Rooms are forgotten."""
        connections = tuple(self._connections)
        self._effects.append(Send(connections, encode_message(Restarting(retry_after))))
        self._effects += [Close(connection, CloseCode.RESTARTING, "restarting") for connection in connections]
        for table in (self._connections, self._rooms, self._unjoined, self._away, self._empty):
            table.clear()

    def receive_text(self, connection_id: int, text: str, now: float, wall: float) -> None:
        """Take a text message of a connection."""
        connection = self._connections.get(connection_id)
        if connection is None:
            return
        try:
            self._receive_text(connection, text, now, wall)
        except RefusedError as refusal:
            if connection.peer is None:
                self._joins_refused += 1
            self._detach(connection, now)
            self._end(connection, refusal.error, refusal.close_code)

    def forward(self, connection_id: int, message: bytes, now: float) -> Forward | None:
        """Say where a binary message goes; None if nowhere (its sender hears of that, if it should)."""
        connection = self._connections.get(connection_id)
        if connection is None:
            return None
        size = len(message) - PEER_ID_BYTES
        if connection.peer is None or not 0 <= size <= self.limits.payload_bytes:
            what = "A message before Join." if connection.peer is None else "A message of a size that is not allowed."
            self._detach(connection, now)
            self._end(connection, Error(ErrorCode.BAD_MESSAGE, what), CloseCode.BAD_MESSAGE)
            return None
        found = self.destination(connection_id, message, now)
        if found is None:
            return None
        self._messages += 1
        self._bytes += size
        if size > _SMALL_PAYLOAD_BYTES:
            self.last_used = now
        if connection.bytes is None:
            return found
        return Forward(found.connection, found.source, connection.bytes.spend(len(message), now))

    def destination(self, connection_id: int, message: bytes, now: float) -> Forward | None:
        """Look up again where a message goes that `forward` accepted and the transport held back."""
        connection = self._connections.get(connection_id)
        if connection is None or connection.peer is None or connection.room is None:
            return None
        peer_id = message[:PEER_ID_BYTES]
        peer = connection.room.peers.get(peer_id)
        if peer is None or peer.connection is None or peer is connection.peer:
            if not connection.no_peer_errors.take(1, now):
                error = Error(ErrorCode.NO_PEER, "This peer is not connected.", fatal=False, peer=peer_id.hex())
                self._send((connection.id,), error)
            return None
        return Forward(peer.connection.id, connection.peer.id, 0.0)

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`; calling it about once a second is enough."""
        for connection_id in _due(self._unjoined, now):
            self._end(self._connections[connection_id], _TOO_LATE, CloseCode.JOIN_TIMEOUT)
        for room_id, peer_id in _due(self._away, now):
            self._remove_peer(self._rooms[room_id], peer_id, now)
        for room_id in _due(self._empty, now):
            self._remove_room(room_id)

    def next_timer(self) -> float | None:
        """Return the `now` at which `handle_timer` has something to do; None: never, as it stands."""
        tables: tuple[Iterable[float], ...] = (self._unjoined.values(), self._away.values(), self._empty.values())
        return min((first for table in tables if (first := next(iter(table), None)) is not None), default=None)

    def take_effects(self) -> list[Effect]:
        """Return what to do now, in this order; each effect is returned once."""
        effects, self._effects = self._effects, []
        return effects

    def stats(self) -> RouterStats:
        """Return the numbers of this moment, and those since the start."""
        peers = sum(len(room.peers) for room in self._rooms.values())
        return RouterStats(
            rooms=len(self._rooms),
            peers=peers - len(self._away),
            peers_away=len(self._away),
            connections=len(self._connections),
            joins=self._joins,
            joins_refused=self._joins_refused,
            messages=self._messages,
            bytes=self._bytes,
            texts_ignored=self._texts_ignored,
        )

    # ── text messages ───────────────────────────────────────────────────────────────────────────────
    def _receive_text(self, connection: _Connection, text: str, now: float, wall: float) -> None:
        if connection.texts.take(1, now):
            raise _bad_message("Too many text messages.")
        try:
            message = decode_peer_message(text)
        except ValueError:
            if connection.peer is not None and _is_unknown_type(text):
                self._texts_ignored += 1  # a later version of the protocol may have more to say
                return
            raise _bad_message("Not a message of this protocol.") from None  # nothing of the text is repeated
        match message:
            case Join() if connection.peer is None:
                self._join(connection, message, now, wall)
            case Leave() if connection.peer is not None:
                self._leave(connection, now)
            case _:
                raise _bad_message("Not a message for this moment.")

    def _leave(self, connection: _Connection, now: float) -> None:
        room, peer = connection.room, connection.peer
        assert room is not None
        assert peer is not None
        del self._connections[connection.id]
        self._effects.append(Close(connection.id, 1000, "left"))
        self._remove_peer(room, peer.id, now)

    def _join(self, connection: _Connection, join: Join, now: float, wall: float) -> None:
        if join.protocol != PROTOCOL_VERSION:
            text = f"This hub speaks protocol {PROTOCOL_VERSION} only; bring the older side of the two up to date."
            raise RefusedError(Error(ErrorCode.VERSION, text))
        budget = self._address_budget(connection.address, now)
        has_ticket = self._seals.is_ticket(join.ticket, join.room, wall)
        try:
            resumed = self._resumed_peer(join)
            owner = self._is_owner(join)
            if not has_ticket and resumed is None and not owner:
                # Whoever proves that it was here before pays nothing: strangers behind the same proxy can
                # use up the address's budget, not the members' way back.
                _check_budget(budget, now)
            room = self._find_room(join.room, has_ticket, now)
        except _FailedJoinError as failure:
            _check_budget(budget, now)
            budget.spend(self.limits.failed_join_cost - 1, now)
            raise failure.refusal from None
        self._check_place(room, resumed, owner, now)
        self._admit(connection, room, resumed or self._new_peer_id(room), owner, now, wall)

    def _resumed_peer(self, join: Join) -> bytes | None:
        if join.resume is None:
            return None
        try:
            peer_id = bytes.fromhex(join.resume.id)
        except ValueError:
            peer_id = b""
        if len(peer_id) != PEER_ID_BYTES or not self._seals.is_resume_secret(join.resume.secret, join.room, peer_id):
            raise _FailedJoinError(Error(ErrorCode.BAD_SECRET, "This is not the secret of this peer; join anew."))
        return peer_id

    def _is_owner(self, join: Join) -> bool:
        if join.owner and not self._seals.is_owner_key(join.owner, join.room):
            raise _FailedJoinError(Error(ErrorCode.BAD_SECRET, "This is not the owner's key of this room."))
        return bool(join.owner)

    def _find_room(self, room_id: str, has_ticket: bool, now: float) -> _Room:
        room = self._rooms.get(room_id)
        if room is not None:
            return room
        if not has_ticket or room_id in self._closed_rooms or not valid_room_id(room_id):
            error = Error(ErrorCode.ROOM_NOT_FOUND, "There is no such room here; ask for a new invite.")
            if has_ticket:  # not a guess: it was closed
                raise RefusedError(error, CloseCode.ROOM_NOT_FOUND)
            raise _FailedJoinError(error, CloseCode.ROOM_NOT_FOUND)
        self._check_room_count()
        return self._add_room(room_id, now)

    def _check_room_count(self) -> None:
        if len(self._rooms) >= self.limits.rooms:
            text = f"This hub holds {self.limits.rooms} rooms, which is its limit; try again later."
            raise RefusedError(Error(ErrorCode.HUB_FULL, text, retry_after=30.0))

    def _check_place(self, room: _Room, resumed: bytes | None, owner: bool, now: float) -> None:
        if resumed not in room.peers:
            known = resumed is not None or owner
            allowed = self.limits.peers_hard if known else self.limits.peers_per_room
            if len(room.peers) >= allowed:
                raise RefusedError(Error(ErrorCode.ROOM_FULL, "The room is full.", retry_after=30.0))
        bucket = room.newcomers if resumed is None else room.returners
        _check_budget(bucket, now)

    def _admit(
        self, connection: _Connection, room: _Room, peer_id: bytes, owner: bool, now: float, wall: float
    ) -> None:
        peer = room.peers.get(peer_id)
        if peer is None:
            peer = room.peers[peer_id] = _Peer(peer_id)
        elif peer.connection is not None:
            error = Error(ErrorCode.REPLACED, "The same peer connected again.")
            self._end(peer.connection, error, CloseCode.REPLACED)
        self._away.pop((room.id, peer_id), None)
        self._empty.pop(room.id, None)
        self._unjoined.pop(connection.id, None)
        peer.owner = peer.owner or owner
        peer.connection, connection.peer, connection.room = connection, peer, room
        self._joins += 1
        self.last_used = now
        others = [p for p in room.peers.values() if p.connection is not None and p is not peer]
        grant = self._ice.grant(peer_id.hex(), wall)
        welcome = Welcome(
            id=peer_id.hex(),
            secret=self._seals.resume_secret(room.id, peer_id),
            ticket=self._seals.ticket(room.id, wall),
            peers=[PeerEntry(p.id.hex(), p.owner) for p in others],
            ice_servers=list(grant.servers),
            ice_expires_in=grant.expires_in,
            limits=self._announced,
            public_url=self._public_url,
        )
        self._send((connection.id,), welcome)
        self._broadcast(room, Joined(peer_id.hex(), peer.owner), without=peer)

    # ── places ──────────────────────────────────────────────────────────────────────────────────────
    def _detach(self, connection: _Connection, now: float) -> None:
        """Turn the peer of this connection away, if it has one."""
        room, peer = connection.room, connection.peer
        if room is not None and peer is not None:
            connection.room = connection.peer = peer.connection = None
            self._away[room.id, peer.id] = now + PEER_GRACE_S

    def _end(self, connection: _Connection, error: Error, code: int) -> None:
        """Say `error` and close; whatever the peer becomes is the caller's to decide."""
        connection.room = connection.peer = None
        self._connections.pop(connection.id, None)
        self._unjoined.pop(connection.id, None)
        self._send((connection.id,), error)
        self._effects.append(Close(connection.id, code, error.code))

    def _remove_peer(self, room: _Room, peer_id: bytes, now: float) -> None:
        self._away.pop((room.id, peer_id), None)
        del room.peers[peer_id]
        self._broadcast(room, Left(peer_id.hex()))
        if not room.peers:
            self._empty[room.id] = now + ROOM_GRACE_S

    def _add_room(self, room_id: str, now: float) -> _Room:
        room = self._rooms[room_id] = _Room(room_id, self.limits, now)
        self._empty[room_id] = now + ROOM_GRACE_S
        return room

    def _remove_room(self, room_id: str) -> None:
        del self._rooms[room_id]
        self._empty.pop(room_id, None)

    def _new_room_id(self) -> str:
        while True:
            # 248 = 8 * 31: bytes above it would favour the alphabet's first letters
            fair = [b for b in self._random_bytes(2 * ROOM_ID_DEFAULT) if b < 248]
            room_id = "".join(ROOM_ALPHABET[b % 31] for b in fair[:ROOM_ID_DEFAULT])
            known = room_id in self._rooms or room_id in self._closed_rooms
            has_digit = any(c.isdigit() for c in room_id)  # so that no id is taken for a word of the code
            if len(room_id) == ROOM_ID_DEFAULT and has_digit and not known:
                return room_id

    def _new_peer_id(self, room: _Room) -> bytes:
        while (peer_id := self._random_bytes(PEER_ID_BYTES)) in room.peers:
            pass
        return peer_id

    # ── addresses ───────────────────────────────────────────────────────────────────────────────────
    def _address_budget(self, address: str, now: float) -> Bucket:
        budget = self._addresses.get(address)
        if budget is not None:
            self._addresses.move_to_end(address)
            return budget
        while self._addresses and next(iter(self._addresses.values())).full(now):
            self._addresses.popitem(last=False)
        if len(self._addresses) >= self.limits.addresses:
            return self._other_addresses  # forgetting one instead would give an attacker with many a fresh budget
        budget = self._addresses[address] = Bucket(self.limits.address_joins, now)
        return budget

    # ── effects ─────────────────────────────────────────────────────────────────────────────────────
    def _send(self, connections: tuple[int, ...], message: HubMessage) -> None:
        self._effects.append(Send(connections, encode_message(message)))

    def _broadcast(self, room: _Room, message: HubMessage, without: _Peer | None = None) -> None:
        connected = (peer.connection for peer in room.peers.values() if peer is not without)
        to = tuple(connection.id for connection in connected if connection is not None)
        if to:
            self._send(to, message)


class _FailedJoinError(Exception):
    """A join that an honest peer does not try: it is charged to its address."""

    def __init__(self, error: Error, close_code: int = CloseCode.REFUSED) -> None:
        self.refusal = RefusedError(error, close_code)


_TOO_LATE: Final = Error(ErrorCode.BAD_MESSAGE, f"No Join within {JOIN_TIMEOUT_S:.0f} seconds.")


def _bad_message(text: str) -> RefusedError:
    return RefusedError(Error(ErrorCode.BAD_MESSAGE, text), CloseCode.BAD_MESSAGE)


def _check_budget(bucket: Bucket, now: float) -> None:
    wait = bucket.take(1, now)
    if wait:
        error = Error(ErrorCode.TOO_MANY_JOINS, "Too many joins; try again later.", retry_after=round(wait, 1) + 0.1)
        raise RefusedError(error, CloseCode.TOO_MANY_JOINS)


def _is_unknown_type(text: str) -> bool:
    try:
        return _tag_decoder.decode(text).type not in _PEER_TAGS
    except (msgspec.MsgspecError, UnicodeError):
        return False


def _due(table: dict[_Key, float], now: float) -> list[_Key]:
    """Return the keys whose deadline passed; the table is in order of deadline."""
    return [key for key, deadline in itertools.takewhile(lambda item: item[1] <= now, table.items())]


def _address_key(address: str) -> str:
    """Return what shares one budget: an IPv4 address, or an IPv6 /64, which is what one subscriber has at least."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
