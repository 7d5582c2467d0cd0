"""`Room`, and how to get one: `create` and `join`."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import importlib.util
import logging
import os
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from p2pnb.discovery import create_room, find_server
from p2pnb.engine.bulk import RelayPolicy
from p2pnb.engine.hub_client import HubAddress
from p2pnb.engine.link import Link, LinkState
from p2pnb.engine.member import Member, MemberConfig, MemberState, new_message_id
from p2pnb.engine.pull import Pull
from p2pnb.engine.receiving import Incoming
from p2pnb.engine.sending import Outgoing, TransferState
from p2pnb.engine.sharing import Shared
from p2pnb.engine.thread import Engine
from p2pnb.engine.thread import engine as background_engine
from p2pnb.engine.transfers import FileSource, ObjectSource, Source
from p2pnb.errors import NoHubError, P2PError, PeerGoneError, RoomClosedError, UsageError, WaitTimeoutError
from p2pnb.files import OutgoingFiles, printable
from p2pnb.files.sizes import parse_size
from p2pnb.inbox import Inbox, InboxItem, Message
from p2pnb.invite import Invite
from p2pnb.peer import Peer
from p2pnb.protocol.wire import MAX_CHAT_BYTES, MAX_ITEM_NAME_CHARS, MAX_NAME_CHARS, Chat
from p2pnb.shares import Share, Shares
from p2pnb.transfer import Offer, Transfer
from p2pnb.words import chosen_words, random_words

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Room", "create", "join"]

Accept = bool | int | str | Callable[[Offer], object]
To = str | Peer | Iterable[str | Peer] | None
EVENTS: Final = ("message", "object", "file", "peer", "state", "offer", "transfer", "share", "notice")

CREATE_TIMEOUT_S: Final = 30.0
LEAVE_TIMEOUT_S: Final = 3.0
KEPT_MESSAGES: Final = 10_000
KEPT_TRANSFERS: Final = 1_000

T = TypeVar("T")
_log = logging.getLogger("p2pnb.room")


def create(
    name: str | None = None,
    *,
    hub: str | None = None,
    words: str | Iterable[str] | None = None,
    accept: Accept = "100 MB",
    relay: str = "fallback",
    direct_tcp: bool = True,
    engine: str = "aiortc",
    folder: str | os.PathLike[str] | None = None,
) -> Room:
    """Open a new room on this notebook's own Jupyter server and return it.

    name    how others see you (default: your user name); at most 64 characters
    hub     address of another server with p2pnb, with its token: "http://localhost:8888/?token=…"
    words   secret words of your own instead of four random ones
    accept  what is taken without asking: True, False, a size per item ("100 MB"; 20 times that in all), or a
            function of the `Offer`, called on a worker thread. The rest waits in `room.offers`.
    relay   what may go through the hub, sealed: "fallback" (bulk when nothing better stands), "never" (no
            bulk), "only" (everything)
    direct_tcp  False: don't listen on a TCP port and don't dial any; then WebRTC or the relay carry all
    engine  behind WebRTC: "aiortc" (Python), "libwebrtc" (faster; pip install 'p2pnb[fast]') or "auto" (libwebrtc
            where it is installed)
    folder  where received files land (default: "p2pnb-files" in the working directory)

    Raises NoHubError, HubError or UsageError.
    """
    secret = random_words(secrets.token_bytes) if words is None else chosen_words(words)
    server = find_server(hub)
    background = background_engine()
    made = background.call(create_room(server), CREATE_TIMEOUT_S)
    public = made.public_url or server.public_url or os.environ.get("JUPYTERHUB_PUBLIC_URL", "") or server.url
    room = Room._open(
        background,
        server.address,
        Invite(room=made.room, words=secret, hub=_slashed(public)),
        name=name,
        accept=accept,
        relay=relay,
        direct_tcp=direct_tcp,
        engine=engine,
        folder=folder,
        owner=made.owner,
        ticket=made.ticket,
    )
    room._on_own_server = server.own
    return room


def join(
    invite: str | Invite,
    name: str | None = None,
    *,
    hub: str | None = None,
    accept: Accept = "100 MB",
    relay: str = "fallback",
    direct_tcp: bool = True,
    engine: str = "aiortc",
    folder: str | os.PathLike[str] | None = None,
) -> Room:
    """Join the room of an invite and return it.

    invite  a link, a short code (for a room on this notebook's own server, or on `hub`), or an `Invite`

    The other arguments are those of `create`. Returns once somebody in the room has confirmed the secret words,
    or at once if nobody is there. Raises InviteError, RoomNotFoundError, HubError, WrongCodeError or
    RoomLockedError.
    """
    own: HubAddress | None = None
    default_hub = None
    if hub is not None or not _names_its_hub(invite):
        try:
            server = find_server(hub)
        except NoHubError:
            server = None  # Invite.parse says what is missing
        if server is not None:
            own, default_hub = server.address, server.url
    parsed = Invite.parse(invite, default_hub)
    address = own if own is not None else HubAddress(_slashed(parsed.hub))
    return Room._open(
        background_engine(),
        address,
        parsed,
        name=name,
        accept=accept,
        relay=relay,
        direct_tcp=direct_tcp,
        engine=engine,
        folder=folder,
    )


class Room:
    """A room this process is in. Made by `create` and `join`; as the last line of a cell it shows its panel.

    Everything goes on in a background thread, also while a cell runs. `leave()`, or the end of a `with` block,
    ends it. After a fork, the child's copy raises RoomClosedError and the parent's goes on.
    """

    def __init__(self, background: Engine, invite: Invite, name: str, folder: Path) -> None:
        self._engine = background
        self._invite = invite
        self._name = name
        self._folder = folder
        self._member: Member | None = None
        self._pid = os.getpid()
        self._error: P2PError | None = None
        self._inbox = Inbox()
        self._messages: list[Message] = []
        self._peers: dict[bytes, Peer] = {}
        self._offers: dict[str, Offer] = {}
        self._transfers: dict[str, Transfer] = {}
        self._notices: list[P2PError] = []
        self._failures: deque[tuple[str, P2PError]] = deque(maxlen=KEPT_TRANSFERS)  # of what was on its way here
        self._failures_seen = 0
        self._callbacks: dict[str, list[Callable[[Any], object]]] = {event: [] for event in EVENTS}
        self._lock = threading.Lock()
        self._shares = Shares(self._engine, lambda: self._here().sharing, self._transfer_of)
        self._panel: Any = None
        self._on_own_server = False  # created on this kernel's own server, which the browser sees, too

    @classmethod
    def _open(
        cls,
        background: Engine,
        address: HubAddress,
        invite: Invite,
        *,
        name: str | None,
        accept: Accept,
        relay: str,
        direct_tcp: bool,
        engine: str,
        folder: str | os.PathLike[str] | None,
        owner: str = "",
        ticket: str = "",
    ) -> Room:
        try:
            policy = RelayPolicy(relay)
        except ValueError:
            raise UsageError(f'relay={relay!r} is none of "fallback", "never", "only".') from None
        if engine not in ("auto", "aiortc", "libwebrtc"):
            raise UsageError(f'engine={engine!r} is none of "auto", "aiortc", "libwebrtc".')
        has_libwebrtc = importlib.util.find_spec("webrtc") is not None
        if engine == "libwebrtc" and not has_libwebrtc:
            raise UsageError("engine='libwebrtc' needs another package: pip install 'p2pnb[fast]'.")
        shown = _display_name(name)
        room = cls(background, invite, shown, Path(folder or "p2pnb-files").expanduser().absolute())
        config = MemberConfig(
            address=address,
            room=invite.room,
            words=" ".join(invite.words),
            name=shown,
            kind="kernel" if _in_kernel() else "script",
            folder=room._folder,
            relay=policy,
            direct_tcp=direct_tcp,
            engine="libwebrtc" if has_libwebrtc and engine != "aiortc" else "aiortc",
            owner=owner,
            ticket=ticket,
            accept=room._accept_policy(accept),
        )
        background.call(room._join(config))
        return room

    async def _join(self, config: MemberConfig) -> None:
        self._member = Member(self._engine, config, _Ears(self))
        await self._member.join()

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────
    @property
    def id(self) -> str:
        """Public id of the room."""
        return self._invite.room

    @property
    def name(self) -> str:
        """How others see you."""
        return self._name

    @property
    def state(self) -> str:
        """ "connecting", "open", "reconnecting" (to the hub; direct paths go on) or "closed"."""
        if self._member is None or not self._engine.alive or os.getpid() != self._pid:
            return MemberState.CLOSED.value
        return self._member.state.value

    @property
    def error(self) -> P2PError | None:
        """Why the hub is not connected, None while it is."""
        return self._error

    @property
    def locked(self) -> bool:
        """True after too many wrong codes: newcomers are refused until `unlock()`."""
        return self._member is not None and self._member.budget.exhausted

    @property
    def invite(self) -> Invite:
        """What others need to join; keep it among those you invite."""
        return self._invite

    @property
    def folder(self) -> Path:
        """Where received files land."""
        return self._folder

    @property
    def peers(self) -> Mapping[str, Peer]:
        """Everybody else who is here and proved to know the words, by name."""
        return PeerMap({peer.name: peer for peer in list(self._peers.values())})

    @property
    def messages(self) -> list[Message]:
        """The chat since you joined, oldest first; the last 10,000 are kept."""
        return list(self._messages)

    @property
    def inbox(self) -> Inbox:
        """What has arrived."""
        return self._inbox

    @property
    def offers(self) -> list[Offer]:
        """What waits for your `accept()` or `decline()`."""
        return [offer for offer in list(self._offers.values()) if offer.waiting]

    @property
    def transfers(self) -> list[Transfer]:
        """What is, or was, on its way; oldest first."""
        return list(self._transfers.values())

    @property
    def notices(self) -> list[P2PError]:
        """What went wrong around this room, such as somebody's wrong code; the last 100."""
        return list(self._notices)

    # ── what to do in it ────────────────────────────────────────────────────────────────────────────
    def chat(self, text: str, to: To = None) -> Message:
        """Say something to everybody, or to some (`to`: a name, a Peer, or several).

        Raises UsageError for more than 32 KiB of text, or if nobody is here.
        """
        if not isinstance(text, str):
            raise UsageError(f"A message is text, not {type(text).__name__}. Send values with room.send().")
        if not text.strip():
            raise UsageError("A message needs some text.")
        if len(text.encode("utf-8", "replace")) > MAX_CHAT_BYTES:
            raise UsageError("This text is longer than 32 KiB. Send it as an object instead: room.send(text, 'name').")
        text = text.encode("utf-8", "replace").decode()  # lone surrogates can't travel
        member, links = self._receivers(to)
        names = tuple(member.name_of(link) for link in links) if to is not None else ()
        message = Message(new_message_id(), self._name, text, time.time(), mine=True, private=bool(names), to=names)
        chat = Chat(message.id, text, message.time, private=message.private)
        self._now(_sync(member.chat, chat, links))
        self._say(message)
        return message

    def send(self, obj: Any, name: str | None = None, to: To = None) -> Transfer:
        """Send a Python object to everybody, or to some, and return its Transfer at once.

        DataFrames (pandas, polars, pyarrow, anything that speaks Arrow), numpy arrays, plain data, bytes, images.
        `name` is what it is called in the receivers' inboxes. Large values are read while they travel: don't
        change them in place until the transfer is done. Raises NotSupportedError for other types, UsageError if
        nobody is here.
        """
        from p2pnb.objects import encode

        member, links = self._receivers(to)
        shown = str(name) if name is not None else _default_name(obj)
        if not shown.strip() or len(shown) > MAX_ITEM_NAME_CHARS:
            raise UsageError(f"A name has 1 to {MAX_ITEM_NAME_CHARS} characters.")
        return self._send(member, ObjectSource(shown, encode(obj)), links)

    def send_file(
        self, path_or_paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], to: To = None
    ) -> Transfer:
        """Send a file, a folder, or several of them, and return the Transfer at once.

        Links that lead out of a folder, hidden files and special files are left out. Raises UsageError for a path
        that can't be read.
        """
        member, links = self._receivers(to)
        single = isinstance(path_or_paths, (str, os.PathLike))
        paths = [Path(path_or_paths)] if single else [Path(path) for path in path_or_paths]  # type: ignore[arg-type, union-attr]
        return self._send(member, FileSource(OutgoingFiles.scan(paths), paths), links)

    @property
    def shares(self) -> Shares:
        """What everybody publishes, by name: `room.shares["prices"].fetch()`."""
        return self._shares

    def share(self, name: str, obj: Any) -> Share:
        """Publish an object: everybody sees a preview, and fetches it when they want.

        Sharing again under the same name makes a newer version. The object is read when it is fetched: don't change
        it in place, share it anew. Raises NotSupportedError for types that can't travel.
        """
        return self._shares._publish(name, obj)

    def unshare(self, name: str) -> None:
        """Publish it no more; what was fetched stays where it is. Raises UsageError if you share nothing so called."""
        self._shares._unpublish(name)

    def receive(self, name: str | None = None, timeout: float | None = None) -> Any:
        """Wait for the next object or file (of this name) and return its value; a file's value is its path.

        What arrived before and was not received yet counts. Asking for a name also accepts an offer of that name
        which waits. `timeout` is in seconds: WaitTimeoutError after it. Raises the transfer's error if the named
        item fails on its way, RoomClosedError when the room is left.
        """
        if self._engine.is_current:
            raise UsageError("receive() waits, and callbacks of p2pnb may not wait. Use room.on('object', …) instead.")
        until = None if timeout is None else time.monotonic() + timeout
        failed_before = self._failures_seen
        with self._inbox._changed:
            while True:
                if (item := self._inbox._take(name)) is not None:
                    return item.value
                if self.state == MemberState.CLOSED.value:
                    raise RoomClosedError("The room was left before this arrived.")
                if name is not None:
                    self._accept_named(name)
                    self._raise_failed(name, failed_before)
                if not self._inbox._wait(until):
                    what = repr(name) if name is not None else "Nothing"
                    raise WaitTimeoutError(f"{what} has not arrived within {timeout} s.")

    async def areceive(self, name: str | None = None, timeout: float | None = None) -> Any:
        """Like `receive`, to be awaited."""
        return await asyncio.get_running_loop().run_in_executor(None, self.receive, name, timeout)

    def meet(self, name: str | None = None, timeout: float | None = None) -> Peer:
        """Wait until somebody else (of this name) is here, and return them.

        `timeout` is in seconds: WaitTimeoutError after it. Raises RoomClosedError when the room is left.
        """
        if self._engine.is_current:
            raise UsageError("meet() waits, and callbacks of p2pnb may not wait. Use room.on('peer', …) instead.")
        until = None if timeout is None else time.monotonic() + timeout
        with self._inbox._changed:
            while True:
                for peer in self.peers.values():
                    if peer.state == LinkState.HERE.value and name in (None, peer.name):
                        return peer
                if self.state == MemberState.CLOSED.value:
                    raise RoomClosedError("The room was left before anybody came.")
                if not self._inbox._wait(until):
                    raise WaitTimeoutError(f"{name or 'Nobody'} has not come within {timeout} s.")

    def on(self, event: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call `callback` with the thing concerned whenever `event` happens; returns a function that ends that.

        "message" Message · "object", "file" InboxItem · "peer" Peer · "state" Room · "offer" Offer ·
        "transfer" Transfer · "share" Share · "notice" P2PError. Callbacks run on p2pnb's thread: keep them
        short, and don't wait in them.
        """
        if event not in EVENTS:
            raise UsageError(f"There is no event {event!r}; there are {', '.join(EVENTS)}.")
        with self._lock:
            self._callbacks[event].append(callback)

        def unsubscribe() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._callbacks[event].remove(callback)

        return unsubscribe

    def unlock(self) -> None:
        """Take newcomers again after too many wrong codes. From the room's owner it counts for every member."""
        self._now(_sync(self._here().unlock))

    def leave(self, timeout: float = LEAVE_TIMEOUT_S) -> None:
        """Say goodbye and close. What is still under way fails on both sides. Safe to call twice."""
        member = self._member
        if member is None or not self._engine.alive or os.getpid() != self._pid:
            return
        if self._engine.is_current:
            member.spawn(member.leave(), "p2pnb leave")
            return
        with contextlib.suppress(TimeoutError):
            self._engine.call(member.leave(), timeout)

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __repr__(self) -> str:
        who = ", ".join(self.peers) or "nobody else"
        return f"<Room {self.id} as {self._name!r}, {self.state}, with {who}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        if self._panel is None:
            try:
                from p2pnb.panel import Panel
            except ImportError:
                return {"text/plain": repr(self)}
            self._panel = Panel(self)
        return self._panel._repr_mimebundle_(include=include, exclude=exclude)

    def use_address(self, url: str) -> None:
        """Put the address under which others reach this room's server into the invite.

        The panel calls it with what the browser sees. A configured public address is kept.
        """
        member = self._here()
        if self._on_own_server and not member.public_url:
            self._invite = self._invite.with_hub(_slashed(url))
            self._tell("state", self)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _here(self) -> Member:
        if self._member is None or self.state == MemberState.CLOSED.value:
            raise RoomClosedError("This room was left (or this is a forked process). Create or join it again.")
        return self._member

    def _now(self, work: Any) -> Any:
        """Run a coroutine on the engine, from any thread."""
        if self._engine.is_current:
            with contextlib.suppress(StopIteration):
                work.send(None)
            return None
        return self._engine.call(work)

    def _receivers(self, to: To) -> tuple[Member, list[Link]]:
        member = self._here()
        if to is None:
            links = member.present_links()
            if not links:
                raise UsageError("Nobody else is in the room yet. Share room.invite.link, and wait for room.peers.")
            return member, links
        wanted: Sequence[str | Peer] = [to] if isinstance(to, (str, Peer)) else list(to)
        if not wanted:
            raise UsageError("`to` names nobody. Leave it out to reach everybody.")
        by_name = {peer.name: peer for peer in list(self._peers.values())}
        links = []
        for one in wanted:
            peer = by_name.get(one) if isinstance(one, str) else one
            if peer is None:
                here = ", ".join(by_name) or "nobody"
                raise UsageError(f"There is no {one!r} in this room; there is {here}.")
            if peer._link.state is LinkState.GONE:
                raise PeerGoneError(f"{peer.name} is not in the room any more.")
            if peer._link not in links:
                links.append(peer._link)
        return member, links

    def _send(self, member: Member, source: Source, links: list[Link]) -> Transfer:
        made: list[Transfer] = []

        def start() -> None:
            made.append(self._transfer_of(member.send(source, links)))

        self._now(_sync(start))
        return made[0]

    def _transfer_of(self, inner: Outgoing | Incoming | Pull) -> Transfer:
        transfer = self._transfers.get(inner.id)
        if transfer is None:
            assert self._member is not None
            transfer = self._transfers[inner.id] = Transfer(self._engine, inner, self._member.name_of, self._retry)
            while len(self._transfers) > KEPT_TRANSFERS:
                self._transfers.pop(next(iter(self._transfers)))
        return transfer

    def _retry(self, inner: Outgoing, names: list[str]) -> Transfer:
        """Send something again to those who did not get it, or to who came back under their names."""
        source = inner.source.again()
        here = [name for name in names if name in self.peers]
        if not here:
            raise UsageError(f"None of {', '.join(names)} is in the room now. Try again once they are back.")
        member, links = self._receivers(here)
        return self._send(member, source, links)

    def _accept_policy(self, accept: Accept) -> bool | int | Callable[[Incoming], object]:
        if isinstance(accept, bool):
            return accept
        if isinstance(accept, (int, str)):
            return parse_size(accept)
        if callable(accept):
            decide = accept
            return lambda incoming: decide(self._offer_of(incoming))
        raise UsageError("accept is True, False, a size such as '100 MB', or a function of the offer.")

    def _offer_of(self, incoming: Incoming) -> Offer:
        assert self._member is not None
        return Offer(self._engine, incoming, self._member.name_of(incoming.link), self._folder)

    def _accept_named(self, name: str) -> None:
        for offer in self.offers:
            if offer.name == name:
                offer.accept()

    def _raise_failed(self, name: str, before: int) -> None:
        """Raise why an item of this name failed on its way here, if it did since `before`."""
        new = self._failures_seen - before
        for failed, error in list(self._failures)[-new:] if new else ():
            if failed == name:
                raise error

    def _say(self, message: Message) -> None:
        self._messages.append(message)
        del self._messages[:-KEPT_MESSAGES]
        self._tell("message", message)

    def _tell(self, event: str, thing: Any) -> None:
        with self._lock:
            callbacks = list(self._callbacks[event])
        for callback in callbacks:
            try:
                callback(thing)
            except BaseException:  # noqa: BLE001 - the user's code; not even an exit in it may end the engine
                _log.exception("a callback for %r failed", event)


class PeerMap(Mapping[str, Peer]):
    """Peers by name at one moment."""

    def __init__(self, peers: dict[str, Peer]) -> None:
        self._peers = peers

    def __getitem__(self, name: str) -> Peer:
        try:
            return self._peers[name]
        except KeyError:
            here = ", ".join(self._peers) or "nobody"
            raise KeyError(f"no {name!r} in this room; there is {here}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._peers)

    def __len__(self) -> int:
        return len(self._peers)

    def __repr__(self) -> str:
        return "\n".join(repr(peer) for peer in self._peers.values()) or "<nobody else is here>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._peers)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self)}


class _Ears:
    """MemberListener: turns the engine's news into what the room holds. Engine thread only."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def state_changed(self, state: MemberState, error: P2PError | None) -> None:
        self._room._error = error
        self._room._inbox._wake()
        self._room._tell("state", self._room)

    def peer_changed(self, link: Link) -> None:
        room = self._room
        assert room._member is not None
        peer = room._peers.get(link.peer_id)
        if peer is None:
            if link.state is LinkState.GONE or not link.confirmed:
                return
            peer = room._peers[link.peer_id] = Peer(link, room._member.name_of(link))
        if link.state is LinkState.GONE:
            room._peers.pop(link.peer_id, None)
        elif peer._link is not link:  # the same peer came back after it was given up
            peer = room._peers[link.peer_id] = Peer(link, room._member.name_of(link))
        room._inbox._wake()
        room._tell("peer", peer)

    def message_arrived(self, link: Link, chat: Chat) -> None:
        room = self._room
        assert room._member is not None
        text = "\n".join(printable(line, MAX_CHAT_BYTES) for line in chat.text.split("\n"))
        sender = room._member.name_of(link)
        room._say(Message(printable(chat.id, 64), sender, text, time.time(), private=chat.private))

    def offer_waits(self, incoming: Incoming) -> None:
        if incoming.state is not TransferState.OFFERED:
            return
        offer = self._room._offer_of(incoming)
        self._room._offers[offer.id] = offer
        self._room._inbox._wake()
        self._room._tell("offer", offer)

    def transfer_changed(self, transfer: Outgoing | Incoming | Pull) -> None:
        room = self._room
        waiting = room._offers.get(transfer.id)
        if isinstance(transfer, Incoming) and transfer.state is not TransferState.OFFERED and waiting is not None:
            room._offers.pop(transfer.id)
            room._tell("offer", waiting)
        shown = room._transfer_of(transfer)
        shown._changed()
        if not isinstance(transfer, Outgoing) and transfer.state.ended:
            if transfer.error is not None:
                room._failures.append((transfer.name, transfer.error))
                room._failures_seen += 1
            room._inbox._wake()
        room._tell("transfer", shown)

    def share_changed(self, shared: Shared) -> None:
        share = self._room._shares._changed(shared)
        self._room._inbox._wake()
        self._room._tell("share", share)

    def item_arrived(self, incoming: Incoming | Pull, value: object) -> None:
        room = self._room
        assert room._member is not None
        item = InboxItem(
            name=value.name if isinstance(value, Path) and incoming.kind != "object" else incoming.name,
            sender=room._member.name_of(incoming.link),
            time=time.time(),
            size_bytes=incoming.size_bytes,
            kind=incoming.kind,
            type=incoming.preview.type,
            preview=incoming.preview,
            value=value,
        )
        room._inbox._add(item)
        room._tell("object" if incoming.kind == "object" else "file", item)

    def noticed(self, error: P2PError) -> None:
        self._room._notices.append(error)
        del self._room._notices[:-100]
        self._room._tell("notice", error)


async def _sync(function: Callable[..., T], *args: Any) -> T:
    return function(*args)


def _display_name(name: str | None) -> str:
    if name is None:
        try:
            name = os.environ.get("JUPYTERHUB_USER") or getpass.getuser()
        except (KeyError, OSError):
            name = "somebody"
    shown = printable(str(name), MAX_NAME_CHARS).strip()
    if not shown:
        raise UsageError("A name needs at least one visible character.")
    return shown


def _default_name(obj: Any) -> str:
    """Return the name of the variable that holds `obj` in the user's notebook, or the type's."""
    shell = _shell()
    if shell is not None:
        for key, value in list(getattr(shell, "user_ns", {}).items()):
            if value is obj and not key.startswith("_"):
                return str(key)[:MAX_ITEM_NAME_CHARS]
    return type(obj).__name__


def _in_kernel() -> bool:
    return getattr(_shell(), "kernel", None) is not None


def _shell() -> Any:
    """Return the IPython shell this runs in, or None; IPython is never imported for it."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _names_its_hub(invite: str | Invite) -> bool:
    return not isinstance(invite, str) or "/join/" in invite


def _slashed(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url[:200]!r} is not the address of a server; it must begin with http:// or https://.")
    return url if url.endswith("/") else f"{url}/"
