"""One peer: the handshake with it, the session, the paths under it and what moves over them.

A link lives as long as its peer is in the room, and some time beyond, since a peer that comes back goes on
with the same session. It drives the state machines of `p2pnb.protocol`: bytes from connections go in, frames
come out and are sealed and sent, timers fire. What it learns it tells its `LinkHost`, the room's member.

The relay path is opened anew by OPEN messages whenever either side's hub connection was broken: a side that
sends OPEN seals nothing more under the old keys, and a side that waits for the answer drops records, so none
of the old path meets the keys of the new one.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

import msgspec

from p2pnb.engine.arena import Arena
from p2pnb.engine.blocks import BlockCache
from p2pnb.engine.buffers import WriteBuffers
from p2pnb.engine.bulk import Bulk, RelayPolicy, Turn
from p2pnb.engine.direct import DirectTcp
from p2pnb.engine.greeting import Greeting
from p2pnb.engine.receiving import Incoming
from p2pnb.engine.sending import OutgoingPart
from p2pnb.engine.thread import register_fork_sensitive
from p2pnb.engine.upgrade import Upgrade
from p2pnb.errors import P2PError, PeerGoneError, ProtocolError
from p2pnb.paths import RANKS, Connection, webrtc
from p2pnb.paths.addresses import same_host_tag
from p2pnb.paths.relay import PayloadSender, RelayConnection
from p2pnb.paths.tcp import TcpConnection, TcpListener
from p2pnb.protocol import exchange as ex
from p2pnb.protocol import session as se
from p2pnb.protocol.handshake import Established, GuessBudget, HandshakeFailed
from p2pnb.protocol.hub import IceServer
from p2pnb.protocol.keys import NONCE_BYTES, verification_commitment
from p2pnb.protocol.records import PathCipher
from p2pnb.protocol.wire import (
    MAX_BEFORE_PROOF_BYTES,
    PROOF_TIMEOUT_S,
    SESSION_KEEP_S,
    Bye,
    Chat,
    ControlFrame,
    HandshakeType,
    Lanes,
    Profile,
    Pull,
    PullRefused,
    RtcAnswer,
    RtcOffer,
    ShareBlocks,
    ShareGone,
    ShareNews,
    ShareSources,
    TcpOffer,
    Unlock,
)

__all__ = ["Link", "LinkHost", "LinkState", "RelayPolicy"]

RELAY_RETRY_S: Final = 3.0  # doubled up to RELAY_RETRY_MOST_S: a slow line may take longer to answer
RELAY_RETRY_MOST_S: Final = 30.0
RELAY_REOPEN_S: Final = 0.05  # after the first loss; a peer that breaks every path has to wait
RELAY_SETTLED_S: Final = 10.0  # a relay path that lived this long clears the count of tries
ACK_REST_S: Final = 0.02  # landed bytes that fill no eighth of the window are told after this
BROKEN_RECORDS: Final = 3  # paths lost by a bad tag within BROKEN_WITHIN_S are no accident: the user hears of it
BROKEN_WITHIN_S: Final = 600.0

T = TypeVar("T")
_log = logging.getLogger("p2pnb.link")


class LinkState(StrEnum):
    CONNECTING = "connecting"  # nothing proven yet
    HERE = "here"
    AWAY = "away"  # no path at the moment
    GONE = "gone"


class LinkHost(Protocol):
    """The room's member, as a link needs it."""

    room_id: str
    words: str
    my_id: bytes
    my_name: str
    my_kind: str
    budget: GuessBudget
    relay_policy: RelayPolicy
    direct_tcp: bool
    engine: webrtc.Engine
    ice_servers: list[IceServer]
    loop: asyncio.AbstractEventLoop
    arena: Arena
    blocks: BlockCache
    write_buffers: WriteBuffers
    turn: Turn

    @property
    def hub(self) -> PayloadSender: ...
    @property
    def hub_connected(self) -> bool: ...
    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]: ...
    async def in_worker(self, function: Callable[..., T], *args: Any) -> T: ...
    def wants_guess(self, link: Link) -> None: ...
    def handshake_done(self, link: Link) -> None: ...
    def handshake_failed(self, link: Link, failure: HandshakeFailed) -> None: ...
    def profile_received(self, link: Link, profile: Profile) -> None: ...
    def chat_received(self, link: Link, chat: Chat) -> None: ...
    def tcp_listener(self) -> TcpListener | None: ...
    def share_window(self) -> None: ...
    def offer_received(self, incoming: Incoming) -> None: ...
    def pull_answered(self, link: Link, incoming: Incoming) -> None: ...
    def share_frame(self, link: Link, frame: ControlFrame) -> None: ...
    def session_lost(self, link: Link) -> None: ...
    def records_broken(self, link: Link) -> None: ...
    def transfer_changed(self, transfer: Any) -> None: ...
    def item_arrived(self, incoming: Incoming, value: object) -> None: ...
    def unlocked(self, link: Link) -> None: ...
    def link_changed(self, link: Link) -> None: ...
    def link_ended(self, link: Link, reason: str) -> None: ...
    def path_broke(self) -> None: ...


class _Path(msgspec.Struct, eq=False):
    """One connection with its own keys, from its first byte to its end."""

    number: se.PathId
    transport: str
    connection: Connection
    my_nonce: bytes
    cipher: PathCipher | None = None  # None until the peer's nonce is here
    up: bool = False
    before_proof_bytes: int = 0
    deadline: asyncio.TimerHandle | None = None
    proven: asyncio.Future[bool] | None = None
    draining: bool = False  # takes no more bulk, and is closed once all is acknowledged
    filling: bool = False  # bulk waits for a worker, or for its turn
    expecting: tuple[int, int] | None = None  # DATA came: transfer and offset of the next record

    def awaits_data(self) -> bool:
        """Tell whether the next record is a transfer's bytes."""
        return self.expecting is not None


class _PathListener:
    """Hands a connection's events to its link, with the path they belong to."""

    def __init__(self, link: Link, path: _Path) -> None:
        self._link, self.path = link, path

    def message_received(self, message: bytes | memoryview) -> None:
        self._link.message_received(self.path, message)

    def connection_lost(self, reason: str) -> None:
        self._link.path_failed(self.path, reason)

    def buffer_low(self) -> None:
        if self.path.up:
            self._link.bulk.fill(self.path)


class Link:
    """Everything between this member and one other."""

    def __init__(self, host: LinkHost, peer_id: bytes, *, owner: bool) -> None:
        self.host = host
        self.peer_id = peer_id
        self.owner = owner
        self.state = LinkState.CONNECTING
        self.profile: Profile | None = None
        self.verification: bytes = b""
        self.session: se.Session | None = None
        self.exchange = ex.Exchange()
        self.upgrade: Upgrade | None = None
        self.direct: DirectTcp | None = None
        self.bulk = Bulk(self)
        self.outgoing: dict[int, OutgoingPart] = {}
        self.incoming: dict[int, Incoming] = {}
        self.present = True  # as far as the hub says
        self.greeting = Greeting(self)
        self._established: Established | None = None
        self._paths: dict[se.PathId, _Path] = {}
        self._relay: _Path | None = None
        self._opening_nonce = b""  # of the OPEN we sent and wait for
        self._relay_tries = 0  # since a relay path last lived for a while
        self._next_path = 1
        self._timer: asyncio.TimerHandle | None = None
        self._relay_timer: asyncio.TimerHandle | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._keep_timer: asyncio.TimerHandle | None = None
        self._settled_timer: asyncio.TimerHandle | None = None
        self._broken_at: list[float] = []  # when records came that somebody had changed
        self._flushing = False
        register_fork_sensitive(self)

    # ── what others may know ────────────────────────────────────────────────────────────────────────
    @property
    def gone(self) -> bool:
        """True after the end."""
        return self.state is LinkState.GONE

    @property
    def confirmed(self) -> bool:
        """True once the peer proved the words and said who it is."""
        return self.profile is not None and self.session is not None

    @property
    def transports(self) -> tuple[str, ...]:
        """Transports of the paths that stand, the best first."""
        up = [path.transport for path in self._paths.values() if path.up]
        return tuple(sorted(up, key=lambda transport: -RANKS[transport]))

    @property
    def carrier(self) -> str | None:
        """Transport of the path that carries frames and bulk now."""
        path = self._preferred_path()
        return path.transport if path else None

    @property
    def round_trip_s(self) -> float | None:
        if self.session is None or self.session.preferred is None:
            return None
        return self.session.round_trip_s(self.session.preferred)

    @property
    def lanes(self) -> dict[str, int]:
        """How many connections stand, by transport."""
        return {transport: self.transports.count(transport) for transport in dict.fromkeys(self.transports)}

    @property
    def webrtc_engine(self) -> str:
        """What is behind this peer's WebRTC paths: "aiortc", "libwebrtc", or nothing."""
        return next((p.connection.engine for p in self._paths.values() if p.up and p.transport == "webrtc"), "")

    @property
    def direct_settled(self) -> bool:
        """True once the first tries of direct connections have ended one way or the other."""
        return (self.upgrade is None or self.upgrade.settled) and (self.direct is None or self.direct.settled)

    def count_of(self, transport: str) -> int:
        """How many connections of a transport stand."""
        return sum(path.up and path.transport == transport for path in self._paths.values())

    def paths(self) -> Iterable[_Path]:
        """All paths, proven or not."""
        return self._paths.values()

    def same_host_tag(self) -> bytes:
        """Return what only a peer on this machine knows too, under a key of this session."""
        assert self._established is not None
        return same_host_tag(self._established.session.secret)

    @property
    def features(self) -> tuple[str, ...]:
        if self.host.relay_policy is RelayPolicy.ONLY:
            return ()
        return ("webrtc", "tcp") if self.host.direct_tcp else ("webrtc",)

    # ── handshake ───────────────────────────────────────────────────────────────────────────────────
    def greet(self) -> None:
        """Start a handshake, or start it over."""
        self.greeting.greet()

    # ── session ─────────────────────────────────────────────────────────────────────────────────────
    def begin_session(self, established: Established) -> None:
        """The handshake succeeded: everything before it belongs to another session."""
        now = self.host.loop.time()
        if self.session is not None:
            self._end_transfers(PeerGoneError("The other side lost this connection's state; send again."))
            self._stop_upgrades()
            self.host.session_lost(self)
            for path in list(self._paths.values()):
                self._drop_path(path)
        self.greeting.tries = 0
        self._established = established
        self.profile = None
        self.session = se.Session()
        self.exchange = ex.Exchange()
        self.bulk.session_began()
        self.session.send(
            Profile(self.host.my_name, self.host.my_kind, self.greeting.verification_nonce, list(self.features)), now
        )
        self._relay_established(established.my_nonce, established.peer_nonce)

    def _on_profile(self, profile: Profile) -> None:
        established = self._established
        assert established is not None
        if self.profile is not None:
            raise ProtocolError("second profile")
        commitment = verification_commitment(profile.verification_nonce)
        if not hmac.compare_digest(commitment, established.peer_commitment):
            raise ProtocolError("the peer's verification nonce is not the one it committed to")
        mine, theirs = self.greeting.verification_nonce, profile.verification_nonce
        nonces = (mine, theirs) if established.initiator else (theirs, mine)
        self.verification = established.root.verification(*nonces)
        self.profile = profile
        self.host.profile_received(self, profile)
        self._update_state()
        if self.host.relay_policy is RelayPolicy.ONLY:
            return
        listener = self.host.tcp_listener() if self.host.direct_tcp and "tcp" in established.features else None
        if listener is not None:
            self.direct = DirectTcp(self, listener, initiator=established.initiator)
            self.direct.start()
        if "webrtc" in established.features:
            self.upgrade = Upgrade(self, initiator=established.initiator)
            self.upgrade.start()

    def _stop_upgrades(self) -> None:
        if self.upgrade is not None:
            self.upgrade.stop()
        if self.direct is not None:
            self.direct.stop()
        self.upgrade = self.direct = None

    def send(self, frame: ControlFrame) -> None:
        """Send a control frame now, or once a path stands; raises UsageError while too much waits."""
        if self.session is None or self.state is LinkState.GONE:
            raise PeerGoneError("This peer is not in the room any more.")
        self.session.send(frame, self.host.loop.time())
        self.flush()

    def say_bye(self) -> None:
        """Tell the peer that this side leaves for good."""
        self.bulk.stop()
        if self.session is not None and self.session.preferred is not None:
            self.session.send(Bye(), self.host.loop.time())
            self.flush()

    def end(self, reason: str) -> None:
        """The peer is gone for good: close everything."""
        if self.state is LinkState.GONE:
            return
        self.state = LinkState.GONE
        self.greeting.drop()
        self._end_transfers(PeerGoneError(reason))
        self._stop_upgrades()
        self.bulk.end()
        for path in list(self._paths.values()):
            self._drop_path(path)
        timers = (self._timer, self._relay_timer, self._ack_timer, self._keep_timer)
        for timer in (*timers, self._settled_timer):
            if timer is not None:
                timer.cancel()
        self.session = None
        self.host.link_ended(self, reason)

    def _end_transfers(self, error: P2PError) -> None:
        for part in list(self.outgoing.values()):
            part.fail(error)
        for incoming in list(self.incoming.values()):
            incoming.fail(error)
        self.outgoing.clear()
        self.incoming.clear()

    # ── hub's word on presence ──────────────────────────────────────────────────────────────────────
    def hub_returned(self) -> None:
        """Our own hub connection stands again: open the relay anew."""
        self._relay_tries = 0
        if self.session is not None:
            self.open_relay()
        elif self.present:
            self.greeting.tries = 0
            self.greet()

    def peer_returned(self) -> None:
        """The hub says that the peer is (again) connected."""
        self.present = True
        self.greeting.tries = self._relay_tries = 0
        if self.session is None:
            self.greet()
        else:
            self.open_relay()

    def peer_unreachable(self) -> None:
        """The hub could not deliver to the peer: what was on the relay is lost."""
        if self._relay is not None and self._relay.up:
            self.path_failed(self._relay, "the hub can't reach the peer at the moment")

    def hub_lost(self) -> None:
        """Our own hub connection broke: the relay path with it."""
        self._opening_nonce = b""
        if self._relay is not None:
            self.path_failed(self._relay, "the hub connection broke")
        self.greeting.drop()

    # ── relay path ──────────────────────────────────────────────────────────────────────────────────
    def payload_received(self, payload: memoryview) -> None:
        """Take a payload of this peer from the hub."""
        kind = payload[0]
        if kind == HandshakeType.RECORD:
            if self._relay is not None:
                self.message_received(self._relay, payload[1:])
        elif kind == HandshakeType.OPEN:
            self._on_open(bytes(payload[1:]))
        elif len(payload) <= 4096:
            self.greeting.message_received(bytes(payload))

    def open_relay(self) -> None:
        """Open the relay path under the standing session, or open it anew."""
        if self.session is None or not self.host.hub_connected:
            return
        if self._relay is not None:
            self._drop_path(self._relay)
        self._opening_nonce = secrets.token_bytes(NONCE_BYTES)
        self._send_open(bytes(NONCE_BYTES))
        self._relay_tries += 1
        self._retry_relay_later()

    def _send_open(self, echo: bytes) -> None:
        self.host.hub.send_payload(self.peer_id, bytes([HandshakeType.OPEN]) + self._opening_nonce + echo)

    def _on_open(self, body: bytes) -> None:
        if len(body) != 2 * NONCE_BYTES:
            return
        theirs, echo = body[:NONCE_BYTES], body[NONCE_BYTES:]
        if theirs == self._opening_nonce:
            return  # our own OPEN came back
        if self.session is None:
            if self.greeting.handshake is None:
                self.greet()  # the peer still has a session that we lost: start over
            return
        if echo == bytes(NONCE_BYTES):
            if self._relay is not None and self._relay.up:
                self.host.path_broke()  # the peer gave up a path that stands here: is it our line that is dead?
            if not self._opening_nonce:
                self._opening_nonce = secrets.token_bytes(NONCE_BYTES)
            self._send_open(theirs)
            self._relay_established(self._opening_nonce, theirs)
        elif self._opening_nonce and hmac.compare_digest(echo, self._opening_nonce):
            self._relay_established(self._opening_nonce, theirs)

    def _relay_established(self, my_nonce: bytes, peer_nonce: bytes) -> None:
        self._opening_nonce = b""
        if self._relay is not None:
            self._drop_path(self._relay)
        connection = RelayConnection(self.host.hub, self.peer_id)
        self._relay = self._new_path("relay", connection, my_nonce)
        self._keys_ready(self._relay, peer_nonce)

    def _retry_relay_later(self) -> None:
        if self._relay_timer is not None:
            self._relay_timer.cancel()
        wait = min(RELAY_RETRY_MOST_S, RELAY_RETRY_S * 2**self._relay_tries)
        self._relay_timer = self.host.loop.call_later(wait, self._retry_relay)

    def _retry_relay(self) -> None:
        if self._relay is None and self.present and self.session is not None and self.host.hub_connected:
            self.open_relay()

    def _relay_settled(self, number: se.PathId) -> None:
        if self._relay is not None and self._relay.number == number:
            self._relay_tries = 0

    # ── paths ───────────────────────────────────────────────────────────────────────────────────────
    def add_connection(self, connection: Connection) -> _PathListener:
        """Take a new direct connection: exchange nonces and proofs on it, then use it.

        Raises PeerGoneError if the session ended meanwhile.
        """
        if self.session is None:
            connection.close()
            raise PeerGoneError("This peer is not in the room any more.")
        path = self._new_path(connection.transport, connection, secrets.token_bytes(NONCE_BYTES))
        connection.send(path.my_nonce)
        return _PathListener(self, path)

    def add_proven(self, connection: Connection) -> tuple[_PathListener, asyncio.Future[bool]]:
        """Take a new direct connection; the future tells whether the other end belongs to the session."""
        listener = self.add_connection(connection)
        listener.path.proven = self.host.loop.create_future()
        return listener, listener.path.proven

    def want_lanes(self, transport: str, count: int, goal: int) -> None:
        """Bulk of ours wants `count` connections of a transport: tell the peer, and open up to `goal` if we can."""
        try:
            self.send(Lanes(transport, count))
            self.open_lanes(transport, goal)
        except P2PError as error:
            _log.info("no more lanes: %s", error)  # too much waits for this peer, or it is gone

    def open_lanes(self, transport: str, goal: int) -> None:
        """Have that many connections of a transport, if this is the side that can open them."""
        if transport == "tcp" and self.direct is not None:
            self.direct.open_lanes(goal)
        elif transport == "webrtc" and self.upgrade is not None and self.upgrade.opens:
            self.upgrade.open_lanes(goal)

    def close_path(self, number: se.PathId) -> None:
        """End a path that is not needed any more; the peer hears of it."""
        path = self._paths.get(number)
        if path is not None and self.session is not None:
            self.session.close_path(number, self.host.loop.time())
            self.flush()
            self._drop_path(path)
            self.flush()

    def message_received(self, path: _Path, message: bytes | memoryview) -> None:
        """Take one message of a path."""
        if path.number not in self._paths:
            return
        try:
            if path.cipher is None:
                if len(message) != NONCE_BYTES:
                    raise ProtocolError("the connection does not begin with a nonce")
                self._keys_ready(path, bytes(message))
            elif not path.up:
                path.before_proof_bytes += len(message)
                if path.before_proof_bytes > MAX_BEFORE_PROOF_BYTES:
                    raise ProtocolError("too much sent before the proof")
                self._path_proven(path, path.cipher.open_proof(message))
            elif path.awaits_data():
                self.bulk.data_received(path, memoryview(message))
                self.take_exchange_events()
                if not self.exchange.has_frames:
                    self._report_later()
                    return
            else:
                assert self.session is not None
                self.session.receive_frame(path.number, path.cipher.open(message), self.host.loop.time())
                if problem := self._take_events():
                    raise ProtocolError(problem)
                if path.awaits_data():
                    return  # the bytes come next, and nothing is to be said yet
        except ProtocolError as error:
            if path.up:
                self._note_broken(path)
            self.path_failed(path, str(error))
        self.flush()

    def _note_broken(self, path: _Path) -> None:
        """Remember a path that ended by what came over it; the third within a while is told."""
        now = self.host.loop.time()
        self._broken_at = [at for at in self._broken_at if now - at < BROKEN_WITHIN_S] + [now]
        if len(self._broken_at) == BROKEN_RECORDS:
            self.host.records_broken(self)

    def path_failed(self, path: _Path, reason: str) -> None:
        """A path broke: go on without it."""
        if path.number not in self._paths:
            return
        _log.info("path %s lost: %s", path.transport, reason)
        self._drop_path(path)
        self.host.path_broke()
        if path.transport == "relay":
            self._retry_relay_later()
            if self._relay_tries == 0:
                self.host.loop.call_later(RELAY_REOPEN_S, self._retry_relay)
        elif path.transport == "tcp" and self.direct is not None:
            self.direct.path_lost()
        if path.transport != "relay" and self.upgrade is not None:
            self.upgrade.path_lost()
        self.flush()

    def _new_path(self, transport: str, connection: Connection, my_nonce: bytes) -> _Path:
        path = _Path(self._next_path, transport, connection, my_nonce)
        self._next_path += 1
        self._paths[path.number] = path
        path.deadline = self.host.loop.call_later(
            PROOF_TIMEOUT_S, self.path_failed, path, f"no proof within {PROOF_TIMEOUT_S:.0f} s"
        )
        return path

    def _keys_ready(self, path: _Path, peer_nonce: bytes) -> None:
        assert self._established is not None and self.session is not None
        if hmac.compare_digest(peer_nonce, path.my_nonce):
            raise ProtocolError("our own nonce came back")
        mine, theirs = path.my_nonce, peer_nonce
        nonces = (mine, theirs) if self._established.initiator else (theirs, mine)
        path.cipher = PathCipher(self._established.session.path(path.transport, *nonces))
        path.connection.send(path.cipher.proof_record(self.session.received))

    def _path_proven(self, path: _Path, peer_received: int) -> None:
        assert self.session is not None
        path.up = True
        if path.deadline is not None:
            path.deadline.cancel()
        self.session.path_up(path.number, RANKS[path.transport], peer_received, self.host.loop.time())
        if path.transport == "relay":
            if self._settled_timer is not None:
                self._settled_timer.cancel()
            self._settled_timer = self.host.loop.call_later(RELAY_SETTLED_S, self._relay_settled, path.number)
        if isinstance(path.connection, TcpConnection):
            path.connection.trust()
        if path.proven is not None and not path.proven.done():
            path.proven.set_result(True)
        self._take_events()
        self._update_state()
        if self.direct is not None and path.transport == "tcp" and self.direct.too_many:
            self.host.loop.call_soon(self.close_path, path.number)  # two dials crossed: the first one stays
        if self.upgrade is not None:
            self.upgrade.path_up()
        self.bulk.may_move()

    def _drop_path(self, path: _Path) -> None:
        self._paths.pop(path.number, None)
        if self._relay is path:
            self._relay = None
        if path.deadline is not None:
            path.deadline.cancel()
        path.up = False
        if path.proven is not None and not path.proven.done():
            path.proven.set_result(False)
        if path.cipher is not None:
            path.cipher.forget()
        path.connection.close()
        if self.session is not None:
            self.session.path_down(path.number, self.host.loop.time())
        self.exchange.path_lost(path.number)
        self._take_events()
        self._update_state()

    def _preferred_path(self) -> _Path | None:
        if self.session is None or self.session.preferred is None:
            return None
        return self._paths.get(self.session.preferred)

    def _update_state(self) -> None:
        if self.state is LinkState.GONE:
            return
        if not self.confirmed:
            state = LinkState.CONNECTING
        else:
            state = LinkState.HERE if self.carrier is not None else LinkState.AWAY
        self.state = state
        if state is not LinkState.AWAY and self._keep_timer is not None:
            self._keep_timer.cancel()
            self._keep_timer = None
        elif state is LinkState.AWAY and self._keep_timer is None:
            self._keep_timer = self.host.loop.call_later(
                SESSION_KEEP_S, self.end, "The peer could not be reached for 30 minutes."
            )
        if self.confirmed:
            self.host.link_changed(self)

    # ── frames in and out ───────────────────────────────────────────────────────────────────────────
    def flush(self) -> None:
        """Send everything the machines have ready, and set the next timer."""
        if self._flushing or self.session is None:
            return
        self._flushing = True
        try:
            now = self.host.loop.time()
            while (frame := self.exchange.next_frame(offers=self.session.can_send())) is not None:
                self.session.send(frame, now)
            for number, data in self.session.frames_to_send():
                path = self._paths.get(number)
                if path is not None and path.cipher is not None:
                    path.connection.send(path.cipher.seal(data))
        except P2PError as error:
            self._flushing = False
            self.end(f"The connection to this peer ended: {error}")
            return
        finally:
            self._flushing = False
        self.session.busy = self.exchange.moving
        self._report_later()
        if self.exchange.has_chunks:
            self.bulk.may_move()
        self._set_timer()

    def _report_later(self) -> None:
        """Have small rests of what landed acknowledged soon."""
        if self._ack_timer is None and self.exchange.report_due:
            self._ack_timer = self.host.loop.call_later(ACK_REST_S, self._report_landed)

    def _report_landed(self) -> None:
        self._ack_timer = None
        self.exchange.report_landed()
        self.flush()

    def _set_timer(self) -> None:
        due = self.session.next_timer() if self.session is not None else None
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return  # it fires early, and finds out: cheaper than moving it with every chunk
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self.host.loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.session is not None:
            self.session.handle_timer(self.host.loop.time())
            self._take_events()
            self.flush()

    def _take_events(self) -> str:
        """Act on all that the session has to say; return what the peer did that it may not, or nothing.

        It never raises: it also runs while a path is dropped and on timers, and what came with a bad frame
        must not stay behind.
        """
        session, problem = self.session, ""
        while session is not None and session is self.session and (event := session.next_event()) is not None:
            try:
                self._take_event(event)
                self.take_exchange_events()
            except P2PError as error:
                _log.info("a peer broke the protocol: %s", error)
                problem = problem or str(error)
        return problem

    def _take_event(self, event: se.SessionEvent) -> None:
        match event:
            case se.FrameReceived(frame=frame):
                self._on_frame(frame)
            case se.ChunkReceived(transfer=transfer, offset=offset, data=data):
                self.exchange.receive_chunk(transfer, offset, data)
            case se.PathLost(path=number, reason=reason):
                path = self._paths.get(number)
                if path is not None:
                    self.path_failed(path, reason)
            case se.DataFollows(path=number, transfer=transfer, offset=offset):
                path = self._paths.get(number)
                if path is not None:
                    path.expecting = (transfer, offset)
            case se.PathSuspected():
                self.host.loop.call_soon(self.bulk.may_move)  # the next best may carry bulk too
            case se.PathDoubted(path=number):
                if self.session is not None and self.session.preferred != number:
                    self.exchange.path_lost(number)  # what it owes goes elsewhere; repeats are dropped
                self.host.path_broke()
                if self._relay is not None and self._relay.number == number:
                    self.open_relay()
            case se.RoundTripMeasured(path=number):
                if self.session is not None and number == self.session.preferred:
                    self._update_state()
            case se.PreferenceChanged():
                for path in self._paths.values():  # what those in doubt owe goes over the new one
                    if path.up and self.session is not None and self.session.in_doubt(path.number):
                        self.exchange.path_lost(path.number)
                self.host.loop.call_soon(self.bulk.may_move)
                self._update_state()

    def _on_frame(self, frame: ControlFrame) -> None:
        if isinstance(frame, Profile):
            self._on_profile(frame)
            return
        if self.profile is None:
            raise ProtocolError("a frame came before the profile")
        match frame:
            case Chat():
                self.host.chat_received(self, frame)
            case RtcOffer():
                if self.upgrade is not None:
                    self.upgrade.offer_received(frame)
                else:
                    self.send(RtcAnswer(frame.attempt, ""))
            case RtcAnswer():
                if self.upgrade is not None:
                    self.upgrade.answer_received(frame)
            case TcpOffer():
                if self.direct is not None:
                    self.direct.offer_received(frame)
            case Lanes():
                self.bulk.lanes_wanted(frame)
            case ShareNews() | ShareGone() | Pull() | PullRefused() | ShareSources() | ShareBlocks():
                self.host.share_frame(self, frame)
            case Unlock():
                self.host.unlocked(self)
            case Bye():
                # ended by the loop, not from inside the session's own event
                self.host.loop.call_soon(self.end, "The peer left the room.")
            case _:
                self.exchange.receive_frame(frame)

    def take_exchange_events(self) -> None:
        """Act on what the exchange has to say."""
        while (event := self.exchange.next_event()) is not None:
            match event:
                case ex.OfferArrived(offer=offer):
                    incoming = self.incoming[offer.transfer] = Incoming(self, offer)
                    if offer.answers:
                        self.host.pull_answered(self, incoming)
                    else:
                        self.host.offer_received(incoming)
                case ex.PieceArrived(transfer=number, offset=offset, data=data):
                    if (receiving := self.incoming.get(number)) is not None:
                        receiving.piece_arrived(offset, data)
                case ex.AllArrived(transfer=number):
                    if (receiving := self.incoming.get(number)) is not None:
                        receiving.all_arrived()
                case ex.CancelledByPeer(transfer=number, outgoing=False, code=code, reason=reason):
                    if (receiving := self.incoming.pop(number, None)) is not None:
                        receiving.cancelled_by_peer(code, reason)
                case ex.Completed(transfer=number):
                    if (part := self.outgoing.pop(number, None)) is not None:
                        part.completed()
                case ex.Declined(transfer=number, reason=reason):
                    if (part := self.outgoing.pop(number, None)) is not None:
                        part.declined(reason)
                case ex.CancelledByPeer(transfer=number, code=code, reason=reason):
                    if (part := self.outgoing.pop(number, None)) is not None:
                        part.cancelled_by_peer(code, reason)
                case ex.Accepted(transfer=number):
                    if (part := self.outgoing.get(number)) is not None:
                        part.accepted()
                case ex.AllAcknowledged(transfer=number):
                    if (part := self.outgoing.get(number)) is not None:
                        part.all_acknowledged()
                case ex.PauseChanged(transfer=number, outgoing=True, paused=paused):
                    if (part := self.outgoing.get(number)) is not None:
                        part.pause_changed(paused)
                case ex.PauseChanged(transfer=number, paused=paused):
                    if (receiving := self.incoming.get(number)) is not None:
                        receiving.pause_changed(paused)
                case ex.HashesAsked(transfer=number, block_bytes=block_bytes, blocks=blocks):
                    if (part := self.outgoing.get(number)) is not None:
                        part.hashes_asked(block_bytes, blocks)
                case ex.HashesArrived(transfer=number, digests=digests):
                    if (receiving := self.incoming.get(number)) is not None:
                        receiving.hashes_arrived(digests)

    # ── bulk ────────────────────────────────────────────────────────────────────────────────────────
    def may_inline(self) -> bool:
        """Tell whether small content may ride in its offer at once."""
        return self.host.relay_policy is not RelayPolicy.NEVER or self.carrier not in (None, "relay")

    # ── fork ────────────────────────────────────────────────────────────────────────────────────────
    def forget_after_fork(self) -> None:
        """Drop all keys in a forked child: its parent goes on using them."""
        for path in self._paths.values():
            if path.cipher is not None:
                path.cipher.forget()
            if isinstance(path.connection, TcpConnection):
                path.connection.abandon()
        self._paths.clear()
        self._established = None
        self.greeting.handshake = None
        self.session = None
        self.state = LinkState.GONE
