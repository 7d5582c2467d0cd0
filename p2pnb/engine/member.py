"""One room, seen from one peer: the hub connection, a link per other peer, and who may take what.

A `Member` lives on the event loop. It tells a `MemberListener` (the user's `Room`) what happens, with the
loop's own objects; the listener must not block.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from p2pnb.engine.arena import Arena
from p2pnb.engine.blocks import BlockCache
from p2pnb.engine.buffers import WriteBuffers
from p2pnb.engine.bulk import RelayPolicy, Turn
from p2pnb.engine.hub_client import HubAddress, HubClient
from p2pnb.engine.link import Link, LinkState
from p2pnb.engine.pull import Pull
from p2pnb.engine.receiving import Incoming
from p2pnb.engine.sending import Outgoing, OutgoingPart
from p2pnb.engine.sharing import Shared, Sharing
from p2pnb.engine.thread import Engine
from p2pnb.engine.transfers import Source
from p2pnb.errors import (
    AuthenticationError,
    HubUnavailableError,
    P2PError,
    PathError,
    RoomLockedError,
    WrongCodeError,
)
from p2pnb.files import printable
from p2pnb.paths import webrtc
from p2pnb.paths.tcp import TcpListener
from p2pnb.protocol.handshake import GuessBudget, HandshakeFailed
from p2pnb.protocol.hub import IceServer, Welcome
from p2pnb.protocol.wire import MAX_NAME_CHARS, WINDOW_BYTES, Chat, ControlFrame, Profile, RejectCode, Unlock

__all__ = ["Member", "MemberConfig", "MemberListener", "MemberState"]

JOIN_WAIT_S: Final = 20.0  # for the first handshakes; a peer's kernel may be busy
FIRST_PEER_SETTLES_S: Final = 0.5  # once one peer is confirmed, the others get this much longer
GONE_AFTER_S: Final = 60.0  # transfers of a peer that the hub reported left fail after this
MAX_LINKS: Final = 1024
MEET_AGAIN_S: Final = 5.0  # a peer that breaks the protocol can cost us a handshake this often
AUTO_ACCEPT_ITEMS: Final = 10_000
LEAST_WINDOW_BYTES: Final = 2 * 1024 * 1024  # of one peer, however many send at a time
HOUSEKEEPING_S: Final = 5.0
TRANSFER_NEWS_S: Final = 0.1  # progress is told at most this often

T = TypeVar("T")
_log = logging.getLogger("p2pnb.member")


class MemberState(StrEnum):
    CONNECTING = "connecting"
    OPEN = "open"
    RECONNECTING = "reconnecting"  # to the hub; sessions over direct paths go on
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """What a room was created or joined with."""

    address: HubAddress
    room: str
    words: str = field(repr=False)
    name: str
    kind: str
    folder: Path
    relay: RelayPolicy = RelayPolicy.FALLBACK
    direct_tcp: bool = True
    engine: webrtc.Engine = "aiortc"  # behind WebRTC
    owner: str = field(default="", repr=False)
    ticket: str = field(default="", repr=False)
    accept: bool | int | Callable[[Incoming], object] = 100_000_000  # bytes per item, or a decision


class MemberListener(Protocol):
    """Who hears what happens in the room; called on the event loop."""

    def state_changed(self, state: MemberState, error: P2PError | None) -> None: ...
    def peer_changed(self, link: Link) -> None: ...
    def message_arrived(self, link: Link, chat: Chat) -> None: ...
    def offer_waits(self, incoming: Incoming) -> None: ...
    def transfer_changed(self, transfer: Outgoing | Incoming | Pull) -> None: ...
    def item_arrived(self, incoming: Incoming | Pull, value: object) -> None: ...
    def share_changed(self, shared: Shared) -> None: ...
    def noticed(self, error: P2PError) -> None: ...


class Member:
    """This peer in one room."""

    def __init__(self, engine: Engine, config: MemberConfig, listener: MemberListener) -> None:
        self.config = config
        self.room_id, self.words = config.room, config.words
        self.my_name, self.my_kind = config.name, config.kind
        self.my_id = b""
        self.relay_policy = config.relay
        self.direct_tcp, self.engine = config.direct_tcp, config.engine
        self.ice_servers: list[IceServer] = []
        self.public_url = ""
        self.budget = GuessBudget()
        self.links: dict[bytes, Link] = {}
        self.state = MemberState.CONNECTING
        self.loop = engine.loop
        self.arena = Arena()
        self.write_buffers = WriteBuffers()
        self.turn = Turn(self.loop)
        self.blocks = BlockCache(self.in_worker, engine.loop)
        self.sharing = Sharing(self)
        self._tcp: TcpListener | None = None
        self._engine = engine
        self._listener = listener
        self._tasks: set[asyncio.Task[Any]] = set()
        self.hub = HubClient(config.address, config.room, self, owner=config.owner, ticket=config.ticket)
        self._names: dict[bytes, str] = {}  # shown names, one per link
        self._welcomed: asyncio.Future[Welcome] = self.loop.create_future()
        self._settling: dict[bytes, asyncio.Future[HandshakeFailed | None]] = {}  # first handshakes of `join`
        self._waiting_for_guess: list[Link] = []
        self._auto_accepted_bytes = 0
        self._auto_accepted_items = 0
        self._present: dict[bytes, bool] = {}  # who the hub says is in the room; True for its owner
        self._ended_at: dict[bytes, float] = {}  # links of those that ended here
        self._gone_timers: dict[bytes, asyncio.TimerHandle] = {}
        self._dirty: dict[str, Outgoing | Incoming | Pull] = {}
        self._news_timer: asyncio.TimerHandle | None = None
        self._housekeeping = self.loop.call_later(HOUSEKEEPING_S, self._keep_house)
        self._leaving: asyncio.Task[None] | None = None
        self._take_back_closer = engine.at_exit(self.leave)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────
    async def join(self, timeout: float = JOIN_WAIT_S) -> None:
        """Connect and shake hands with who is there.

        Returns once the hub answered and at least one peer is confirmed (or nobody is there). Raises HubError
        if the hub can't be had, WrongCodeError or RoomLockedError if every peer says so.
        """
        self._run_task = self.spawn(self.hub.run(), "p2pnb hub")
        try:
            async with asyncio.timeout(timeout):
                await self._welcomed
                await self._first_handshakes()
        except TimeoutError as error:
            if not self._welcomed.done():
                await self.leave()
                raise HubUnavailableError(
                    f"The hub at {self.config.address.url} did not answer within {timeout:.0f} s. Try again."
                ) from error
            # peers are there, but silent: the room is open and they will come when they can
        except BaseException:
            await self.leave()
            raise

    async def _first_handshakes(self) -> None:
        waiting = set(self._settling.values())
        outcomes: list[HandshakeFailed | None] = []
        patience: float | None = None
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            outcomes += [future.result() for future in done]
            if None in outcomes:
                patience = FIRST_PEER_SETTLES_S
        self._settling.clear()
        failures = [outcome for outcome in outcomes if outcome is not None]
        if failures and len(failures) == len(outcomes):
            wrong = [failure for failure in failures if failure.code is RejectCode.WRONG_CODE]
            raise _handshake_error((wrong or failures)[0])

    async def leave(self) -> None:
        """Say goodbye to everybody and close. Safe to call twice; goes on to its end if the caller is cancelled."""
        if self._leaving is None:
            self._leaving = self.loop.create_task(self._leave(), name="p2pnb leave")
        if asyncio.current_task() is not self._leaving:
            await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        self._set_state(MemberState.CLOSED, None)
        self._take_back_closer()
        self.sharing.close()
        for link in list(self.links.values()):
            with contextlib.suppress(P2PError):
                link.say_bye()
        await self._drained()
        for link in list(self.links.values()):
            link.end("You left the room.")
        await self.hub.leave()
        for timer in (*self._gone_timers.values(), self._housekeeping):
            timer.cancel()
        if self._tcp is not None:
            self._tcp.close()
        self.arena.close()
        if self._news_timer is not None:
            self._news_timer.cancel()
            self._tell_transfers()
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            if "abort" not in task.get_name():  # removing temporary files is let finish
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    async def _drained(self) -> None:
        """Give the goodbyes a moment to get out."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while (self.hub.connected and self.hub.buffered) or self._unsent():
                    await asyncio.sleep(0.005)

    def _unsent(self) -> bool:
        """Tell whether a direct path still holds something back."""
        paths = (path for link in self.links.values() for path in link.paths())
        return any(path.up and path.transport != "relay" and path.connection.buffered for path in paths)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that this member owns; what it raises is logged."""
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    async def in_worker(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function on a worker thread."""
        return await self.loop.run_in_executor(self._engine.workers, function, *args)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed", task.get_name(), exc_info=error)

    # ── what the room asks for ──────────────────────────────────────────────────────────────────────
    def name_of(self, link: Link | None) -> str:
        """Return the name this peer is shown by, unique in the room; None is this peer itself."""
        return self.my_name if link is None else self._names.get(link.peer_id, "?")

    def present_links(self) -> list[Link]:
        """Return the confirmed peers that are here, or away and may come back.

        The hub's word that one left counts for nothing here: it must not silence a direct path.
        """
        return [link for link in self.links.values() if link.confirmed and link.state is not LinkState.GONE]

    def chat(self, chat: Chat, links: Iterable[Link]) -> None:
        """Send a chat message."""
        for link in links:
            link.send(chat)

    def send_pulled(self, source: Source, link: Link, answers: int) -> Outgoing:
        """Offer something to a peer as the answer to its Pull; it shows here nowhere."""
        transfer = Outgoing(source, answers=answers)
        transfer.parts = [OutgoingPart(transfer, link)]
        transfer.parts[0].offer()
        return transfer

    def send(self, source: Source, links: list[Link]) -> Outgoing:
        """Offer something to some peers."""
        transfer = Outgoing(source)
        transfer.parts = [OutgoingPart(transfer, link) for link in links]
        for part in transfer.parts:
            part.offer()
        self._listener.transfer_changed(transfer)
        return transfer

    def unlock(self) -> None:
        """Take newcomers again; the owner's word counts for everybody."""
        self.budget.unlock()
        for link in self.present_links():
            link.send(Unlock())
        self._serve_waiting()

    # ── hub (HubListener) ───────────────────────────────────────────────────────────────────────────
    @property
    def hub_connected(self) -> bool:
        return self.hub.connected

    def welcomed(self, welcome: Welcome) -> None:
        my_id = bytes.fromhex(welcome.id)
        if self.my_id and my_id != self.my_id:  # we come as somebody new: what stood belongs to the old id
            for link in list(self.links.values()):
                link.end("The hub forgot this peer; the room goes on with a new connection.")
        self.my_id = my_id
        self.ice_servers = list(welcome.ice_servers)
        self.public_url = welcome.public_url
        present = {bytes.fromhex(entry.id): entry.owner for entry in welcome.peers}
        self._present = {peer_id: owner for peer_id, owner in present.items() if peer_id != self.my_id}
        self._ended_at.clear()
        first = not self._welcomed.done()
        for peer_id, link in list(self.links.items()):
            if peer_id in present:
                link.present = True
            elif link.present:
                self._peer_absent(link)
        for peer_id, owner in present.items():
            link = self._link(peer_id, owner)
            if first:
                self._settling[peer_id] = self.loop.create_future()
            link.hub_returned()
        if first:
            self._welcomed.set_result(welcome)
        self._set_state(MemberState.OPEN, None)

    def hub_lost(self, reason: str) -> None:
        if self.state is MemberState.OPEN:
            _log.info("hub lost: %s", reason)
            self._set_state(MemberState.RECONNECTING, HubUnavailableError(f"The hub is lost for now: {reason}"))
        for link in list(self.links.values()):
            link.hub_lost()

    def hub_failed(self, error: P2PError) -> None:
        if not self._welcomed.done():
            self._welcomed.set_exception(error)
            return
        self._listener.noticed(error)
        self._set_state(MemberState.RECONNECTING, error)

    def peer_joined(self, peer_id: bytes, owner: bool) -> None:
        if peer_id != self.my_id:
            self._present[peer_id] = owner
            known = peer_id in self.links
            link = self._link(peer_id, owner)
            self._cancel_gone(link)
            if known:
                link.peer_returned()
            else:
                link.greet()

    def peer_left(self, peer_id: bytes) -> None:
        self._present.pop(peer_id, None)
        self._ended_at.pop(peer_id, None)
        link = self.links.get(peer_id)
        if link is not None:
            self._settled(link, HandshakeFailed(RejectCode.MALFORMED, told_by_peer=False, detail="left"))
            self._peer_absent(link)

    def peer_unreachable(self, peer_id: bytes) -> None:
        if (link := self.links.get(peer_id)) is not None:
            link.peer_unreachable()

    def payload_received(self, peer_id: bytes, payload: memoryview) -> None:
        link = self.links.get(peer_id)
        if link is None and self._may_meet_again(peer_id):
            link = self._link(peer_id, self._present[peer_id])
            link.greet()
        if link is not None:
            link.payload_received(payload)

    def _may_meet_again(self, peer_id: bytes) -> bool:
        """Tell whether a peer whose link ended on an error, but who is still in the room, gets another."""
        ended_at = self._ended_at.get(peer_id)
        return peer_id in self._present and ended_at is not None and self.loop.time() - ended_at >= MEET_AGAIN_S

    def hub_buffer_low(self) -> None:
        for link in self.links.values():
            link.bulk.may_move()

    def _link(self, peer_id: bytes, owner: bool) -> Link:
        link = self.links.get(peer_id)
        if link is None or link.state is LinkState.GONE:
            if len(self.links) >= MAX_LINKS:
                raise ValueError("the hub names more peers than a room can have")
            link = self.links[peer_id] = Link(self, peer_id, owner=owner)
        return link

    def _peer_absent(self, link: Link) -> None:
        """The hub says a peer left. With a direct path it is still here; else it may come back for a while."""
        link.present = False
        if not link.confirmed:
            link.end("The peer left.")
        elif link.carrier in (None, "relay"):
            self._listener.peer_changed(link)
            self._cancel_gone(link)
            self._gone_timers[link.peer_id] = self.loop.call_later(
                GONE_AFTER_S, link.end, "The peer left the room and did not come back."
            )

    def _cancel_gone(self, link: Link) -> None:
        if (timer := self._gone_timers.pop(link.peer_id, None)) is not None:
            timer.cancel()

    # ── links (LinkHost) ────────────────────────────────────────────────────────────────────────────
    def wants_guess(self, link: Link) -> None:
        if link not in self._waiting_for_guess:
            self._waiting_for_guess.append(link)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting_for_guess:
            link = self._waiting_for_guess[0]
            if not link.greeting.waits_for_guess:
                self._waiting_for_guess.pop(0)
            elif self.budget.take(self.loop.time()):
                self._waiting_for_guess.pop(0)
                link.greeting.guess_granted()
            elif self.budget.exhausted:
                self._waiting_for_guess.pop(0)
                link.greeting.guess_refused()
            else:
                return

    def handshake_done(self, link: Link) -> None:
        self._serve_waiting()

    def handshake_failed(self, link: Link, failure: HandshakeFailed) -> None:
        if failure.code in (RejectCode.WRONG_CODE, RejectCode.LOCKED, RejectCode.VERSION):
            if link.peer_id not in self._settling:
                self._listener.noticed(_newcomer_error(failure, self.budget.locked))
            self._settled(link, failure)
        elif link.greeting.given_up:
            self._settled(link, failure)
        self._serve_waiting()

    def profile_received(self, link: Link, profile: Profile) -> None:
        wanted = printable(profile.name, MAX_NAME_CHARS).strip() or "somebody"
        taken = {name for peer_id, name in self._names.items() if peer_id != link.peer_id}
        taken.add(self.my_name)
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted} ({count})"
        self._names[link.peer_id] = name
        self._settled(link, None)
        self.sharing.peer_ready(link)

    def chat_received(self, link: Link, chat: Chat) -> None:
        self._listener.message_arrived(link, chat)

    def tcp_listener(self) -> TcpListener | None:
        """Return where peers reach this process; None if this machine lets nobody listen."""
        if self._tcp is None:
            listener = TcpListener()
            try:
                listener.open()
            except OSError as error:
                _log.warning("no direct TCP: %s", error)
                self.direct_tcp = False
                return None
            self._tcp = listener
        return self._tcp

    def offer_received(self, incoming: Incoming) -> None:
        if callable(self.config.accept):
            self.spawn(self._decide(incoming), "p2pnb accept policy")
        elif self._wanted_by_size(incoming):
            incoming.accept(self.config.folder)
        else:
            self._listener.offer_waits(incoming)

    def share_window(self) -> None:
        """Divide what may be under way to this process among the peers that send to it."""
        busy = [link for link in self.links.values() if any(not i.state.ended for i in link.incoming.values())]
        for link in busy:
            link.exchange.window_bytes = max(LEAST_WINDOW_BYTES, WINDOW_BYTES // len(busy))

    def pull_answered(self, link: Link, incoming: Incoming) -> None:
        self.sharing.pull_answered(link, incoming)

    def share_frame(self, link: Link, frame: ControlFrame) -> None:
        self.sharing.receive_frame(link, frame)

    def session_lost(self, link: Link) -> None:
        self.sharing.peer_gone(link)

    def share_changed(self, shared: Shared) -> None:
        self._listener.share_changed(shared)

    def noticed(self, error: P2PError) -> None:
        self._listener.noticed(error)

    def records_broken(self, link: Link) -> None:
        self._listener.noticed(
            PathError(
                f"Bytes from {self.name_of(link)} arrive changed again and again; each time the path was given up and "
                "nothing wrong was taken. Something between you is broken, or tampers with what passes."
            )
        )

    def transfer_changed(self, transfer: Outgoing | Incoming | Pull) -> None:
        ended = transfer.ended if isinstance(transfer, Outgoing) else transfer.state.ended
        if ended:
            self._dirty.pop(transfer.id, None)
            self._listener.transfer_changed(transfer)
            return
        self._dirty[transfer.id] = transfer
        if self._news_timer is None:
            self._news_timer = self.loop.call_later(TRANSFER_NEWS_S, self._tell_transfers)

    def _tell_transfers(self) -> None:
        self._news_timer = None
        dirty, self._dirty = self._dirty, {}
        for transfer in dirty.values():
            self._listener.transfer_changed(transfer)

    def item_arrived(self, incoming: Incoming | Pull, value: object) -> None:
        self._listener.item_arrived(incoming, value)

    def unlocked(self, link: Link) -> None:
        if link.owner:
            self.budget.unlock()
            self._serve_waiting()

    def link_changed(self, link: Link) -> None:
        if link.carrier is not None:
            self._cancel_gone(link)
        elif not link.present and link.peer_id not in self._gone_timers and link.state is not LinkState.GONE:
            self._peer_absent(link)
        self._listener.peer_changed(link)

    def link_ended(self, link: Link, reason: str) -> None:
        self._cancel_gone(link)
        self.links.pop(link.peer_id, None)
        if link.peer_id in self._present:
            self._ended_at[link.peer_id] = self.loop.time()
        if link in self._waiting_for_guess:
            self._waiting_for_guess.remove(link)
        self.sharing.peer_gone(link)
        self._listener.peer_changed(link)
        self._names.pop(link.peer_id, None)
        self._serve_waiting()

    def path_broke(self) -> None:
        """A path died: see at once whether the hub still stands."""
        self.hub.check_now()

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _settled(self, link: Link, outcome: HandshakeFailed | None) -> None:
        future = self._settling.get(link.peer_id)
        if future is not None and not future.done():
            future.set_result(outcome)

    async def _decide(self, incoming: Incoming) -> None:
        """Ask the user's function whether to take an offer; else it waits for a person."""
        accept = self.config.accept
        assert callable(accept)
        wanted, error = await self.in_worker(_asked, accept, incoming)
        if error is not None:  # the offer waits instead
            self._listener.noticed(P2PError(f"Your accept function failed on {incoming.name!r}: {error!r}"))
        if wanted:
            incoming.accept(self.config.folder)
        else:
            self._listener.offer_waits(incoming)

    def _wanted_by_size(self, incoming: Incoming) -> bool:
        accept = self.config.accept
        assert not callable(accept)
        if isinstance(accept, bool):
            return accept
        # many small items must not fill the memory either
        room_left = self._auto_accepted_bytes + incoming.size_bytes <= 20 * accept
        if incoming.size_bytes > accept or not room_left or self._auto_accepted_items >= AUTO_ACCEPT_ITEMS:
            return False
        self._auto_accepted_bytes += incoming.size_bytes
        self._auto_accepted_items += 1
        return True

    def _keep_house(self) -> None:
        self.arena.trim()
        self.write_buffers.trim()
        self._housekeeping = self.loop.call_later(HOUSEKEEPING_S, self._keep_house)

    def _set_state(self, state: MemberState, error: P2PError | None) -> None:
        if self.state is not MemberState.CLOSED:
            self.state = state
            self._listener.state_changed(state, error)


def _asked(accept: Callable[[Incoming], object], incoming: Incoming) -> tuple[bool, BaseException | None]:
    try:
        return bool(accept(incoming)), None
    except BaseException as error:  # noqa: BLE001 - the user's function; an exit in it must not end the engine
        return False, error


def new_message_id() -> str:
    """Return an id for a chat message."""
    return secrets.token_hex(8)


def _handshake_error(failure: HandshakeFailed) -> P2PError:
    match failure.code:
        case RejectCode.WRONG_CODE:
            return WrongCodeError(
                "The secret words are not this room's. Check the code for typing errors, or ask for a new invite."
            )
        case RejectCode.LOCKED:
            return RoomLockedError(
                "Too many wrong codes were tried in this room lately, so it takes no newcomers. "
                "Ask its owner to unlock it (room.unlock()), or try again in some minutes."
            )
        case RejectCode.VERSION:
            return AuthenticationError("The peers here speak another version of p2pnb. Install the same version.")
        case _:
            return AuthenticationError(
                "The handshake with the peers of this room failed on the way. Try again; if it fails every time, "
                "the hub changes what passes through it."
            )


def _newcomer_error(failure: HandshakeFailed, locked: bool) -> P2PError:
    if failure.code is RejectCode.VERSION:
        return AuthenticationError("Somebody with another version of p2pnb tried to join.")
    if locked or failure.code is RejectCode.LOCKED:
        return RoomLockedError(
            "Too many wrong codes were tried: the room takes no newcomers for now. room.unlock() opens it again."
        )
    return WrongCodeError("Somebody tried to join with wrong words. Nothing was exchanged.")
