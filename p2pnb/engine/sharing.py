"""Shares: what this peer and others publish by name, who pulls it, and who serves whom.

The owner tells everybody of a share when it is published and newcomers when they come. Whoever wants it sends a
Pull and gets an offer with its manifest; the owner also names others who have, or are getting, the same version, and
those are pulled from as well (`protocol.swarm`, `engine.pull`). Serving is mutual: who is asked by somebody who
pulls the same asks back.

Encoding, hashing and cutting a table happen on worker threads, once: thirty equal pulls share one answer.

Rejected: pushing a share's bytes to everybody at once, because most shares are looked at and never fetched; and
letting holders cut parts of tables, because a part has no hashes from the owner, so a holder would have to be trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from p2pnb.engine.holdings import Holding, ShareKey, ShareSource, hash_blocks
from p2pnb.engine.pull import Pull
from p2pnb.engine.receiving import shown_preview
from p2pnb.engine.sending import MAX_REASON_CHARS, Outgoing, TransferState, peer_error
from p2pnb.errors import P2PError, PeerGoneError, ProtocolError, RoomClosedError, TransferError, UsageError
from p2pnb.files import printable
from p2pnb.protocol.manifest import Manifest, block_bytes_for, block_count
from p2pnb.protocol.serving import MAX_NEWS_RANGES, NEWS_S, Serving
from p2pnb.protocol.wire import (
    MAX_ITEM_NAME_CHARS,
    MAX_PREVIEW_COLUMNS,
    MAX_PREVIEW_ROWS,
    MAX_SHARES,
    MAX_SIZE_BYTES,
    ControlFrame,
    Preview,
    PullRefused,
    ShareBlocks,
    ShareGone,
    ShareNews,
    ShareSources,
)
from p2pnb.protocol.wire import (
    Pull as PullFrame,
)

if TYPE_CHECKING:
    from p2pnb.engine.arena import Arena
    from p2pnb.engine.link import Link
    from p2pnb.engine.receiving import Incoming
    from p2pnb.engine.transfers import Source
    from p2pnb.objects import Encoded

__all__ = ["Shared", "Sharing", "SharingHost"]

MAX_ANSWERS: Final = 64  # open at once towards one peer; a puller needs one per share it pulls
MAX_EARLY: Final = 64  # that wait until we know what we are asked for
MAX_CUTTINGS: Final = 2  # parts cut and encoded at once: not all workers for one impatient peer
HASHERS: Final = 3  # workers that hash one content; one is left to others
HASHED_BYTES: Final = 16 * 1024 * 1024  # by one of them at least
KEPT_PARTS: Final = 4  # answers to "these columns, these rows" of one version
KEPT_HOLDINGS: Final = 64  # contents that were pulled and may be served
MAX_INTRODUCED: Final = 64  # in one ShareSources
MAX_COLUMNS: Final = 10_000  # in one Pull; they have to fit into a control frame anyway
MAX_NUMBER: Final = (1 << 63) - 1
RETRY_NEWS_S: Final = 0.2  # while too much waits for a peer
_ME: Final = b""  # owner of own shares: our peer id changes when the hub forgets us
VERSION_GONE: Final = "VersionGone"  # PullRefused.code: there is a newer version

T = TypeVar("T")
_log = logging.getLogger("p2pnb.sharing")


class SharingHost(Protocol):
    """The room's member, as sharing needs it."""

    my_id: bytes
    my_name: str
    loop: asyncio.AbstractEventLoop
    arena: Arena
    links: dict[bytes, Link]

    def name_of(self, link: Link) -> str: ...
    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]: ...
    async def in_worker(self, function: Callable[..., T], *args: Any) -> T: ...
    def send_pulled(self, source: Source, link: Link, answers: int) -> Outgoing: ...
    def transfer_changed(self, transfer: Any) -> None: ...
    def item_arrived(self, incoming: Any, value: object) -> None: ...
    def share_changed(self, shared: Shared) -> None: ...
    def noticed(self, error: P2PError) -> None: ...


class Shared(msgspec.Struct, eq=False):
    """One share of anybody, as it is known here. Changed on the event loop only; may be read anywhere."""

    owner: bytes
    owner_name: str
    share: int
    link: Link | None  # to the owner; None: it is ours
    name: str
    version: int
    size_bytes: int
    preview: Preview
    shared_at: float
    sliceable: bool
    gone: bool = False
    fetched_version: int = 0
    whole_at: set[bytes] = msgspec.field(default_factory=set)  # peers besides the owner that said they hold all of it
    value: Any = None  # ours


class _Version(msgspec.Struct, eq=False):
    """One version of an own share, and what was prepared of it."""

    shared: Shared
    version: int
    value: Any
    encoded: Encoded
    whole: asyncio.Task[Holding] | None = None
    parts: OrderedDict[tuple[Any, ...], asyncio.Task[Holding]] = msgspec.field(default_factory=OrderedDict)

    @property
    def tasks(self) -> list[asyncio.Task[Holding]]:
        return [*self.parts.values(), *([self.whole] if self.whole is not None else [])]

    @property
    def holdings(self) -> list[Holding]:
        """What is ready to be served."""
        return [holding for task in self.tasks if (holding := _result(task)) is not None]

    @property
    def in_use(self) -> bool:
        """True while somebody is served from it or waits for an answer."""
        return any(not task.done() for task in self.tasks) or any(holding.outgoing for holding in self.holdings)


class Sharing:
    """Everything about shares in one room. Event loop only."""

    def __init__(self, host: SharingHost) -> None:
        self._host = host
        self._shares: dict[tuple[bytes, int], Shared] = {}
        self._versions: dict[ShareKey, _Version] = {}  # ours: the newest, and older ones that are being pulled
        self._next_share = 1
        self._next_request = 1
        self._pulls: set[Pull] = set()
        self._requests: dict[tuple[bytes, int], Pull] = {}  # by asked peer and request
        self._holdings: OrderedDict[ShareKey, Holding] = OrderedDict()  # of others' shares
        self._early: dict[ShareKey, list[tuple[Link, PullFrame]]] = {}  # asked for before we know what it is
        self._answers: dict[bytes, int] = {}  # open towards a peer
        self._untold: dict[bytes, OrderedDict[int, None]] = {}  # own shares that a peer has to hear of
        self._untold_timer: asyncio.TimerHandle | None = None
        self._news_timer: asyncio.TimerHandle | None = None
        self._cutting = asyncio.Semaphore(MAX_CUTTINGS)
        self._closed = False

    # ── own shares ──────────────────────────────────────────────────────────────────────────────────
    def share(self, name: str, value: Any, encoded: Encoded, *, sliceable: bool) -> Shared:
        """Publish a value, or a newer version of what has this name. Raises UsageError beyond MAX_SHARES."""
        shared = self.own(name)
        if shared is None:
            if sum(known.link is None for known in self._shares.values()) >= MAX_SHARES:
                raise UsageError(f"You share {MAX_SHARES:,} objects already; unshare some first.")
            shared = Shared(
                owner=_ME,
                owner_name=self._host.my_name,
                share=self._next_share,
                link=None,
                name=name,
                version=0,
                size_bytes=0,
                preview=encoded.preview,
                shared_at=0.0,
                sliceable=False,
            )
            self._next_share += 1
            self._shares[_ME, shared.share] = shared
        before = shared.version
        shared.version += 1
        shared.value = value
        shared.size_bytes, shared.preview = encoded.size_bytes, shown_preview(encoded.preview)
        shared.shared_at, shared.sliceable = time.time(), sliceable
        shared.whole_at.clear()
        self._versions[_ME, shared.share, shared.version] = _Version(shared, shared.version, value, encoded)
        self._retire(shared, before)
        for link in self._here():
            self._untold.setdefault(link.peer_id, OrderedDict())[shared.share] = None
        self._tell_shares()
        self._host.share_changed(shared)
        return shared

    def unshare(self, shared: Shared) -> None:
        """Take an own share back; who is pulling it is told so."""
        if self._shares.pop((shared.owner, shared.share), None) is None:
            return
        for waiting in self._untold.values():
            waiting.pop(shared.share, None)
        for link in self._here():
            self._send(link, ShareGone(shared.share))
        for key in [key for key in self._versions if key[1] == shared.share]:
            for holding in self._versions.pop(key).holdings:
                for outgoing in list(holding.outgoing.values()):
                    outgoing.cancel()
        shared.gone, shared.value = True, None
        self._host.share_changed(shared)

    def own(self, name: str) -> Shared | None:
        """Return the own share of this name."""
        return next((known for known in self._shares.values() if known.link is None and known.name == name), None)

    @property
    def shares(self) -> list[Shared]:
        """Every share that is published now, the first seen first."""
        return list(self._shares.values())

    def holders(self, shared: Shared) -> list[str]:
        """Return the names of those known to hold all of a share's newest version."""
        key = (shared.owner, shared.share, shared.version)
        whole = set(shared.whole_at)
        if (version := self._versions.get(key)) is not None:
            for holding in version.holdings:
                whole |= holding.serving.finished
        names = [shared.owner_name]
        held = self._holdings.get(key)
        if held is not None and held.alive and shared.fetched_version == shared.version:
            names.append(self._host.my_name)
        return names + sorted(self.name_of_peer(peer) for peer in whole if peer in self._host.links)

    # ── pulling ─────────────────────────────────────────────────────────────────────────────────────
    def pull(self, shared: Shared, columns: list[str] | None, rows: tuple[int, int] | None, *, inbox: bool) -> Pull:
        """Prepare fetching the newest version of somebody's share, or a part of it; `Pull.start` begins it."""
        return Pull(self, shared, columns, rows, inbox=inbox)

    def start(self, pull: Pull) -> None:
        """Begin a pull."""
        if self._closed:
            pull.fail(RoomClosedError("This room was left."))
        elif pull.shared.gone:
            pull.fail(PeerGoneError(f"{pull.name!r} is not shared any more."))
        else:
            self._pulls.add(pull)
            self._host.transfer_changed(pull)
            pull.start()

    # ── life ────────────────────────────────────────────────────────────────────────────────────────
    def peer_ready(self, link: Link) -> None:
        """A peer is confirmed: tell it what we share."""
        mine = [shared.share for shared in self._shares.values() if shared.link is None]
        if mine:
            self._untold[link.peer_id] = OrderedDict.fromkeys(mine)
            self._tell_shares()
        for pull in list(self._pulls):
            pull.peer_returned(link.peer_id)

    def peer_gone(self, link: Link) -> None:
        """A peer, or its session, is gone, and with it what it shares."""
        peer = link.peer_id
        self._untold.pop(peer, None)
        self._answers.pop(peer, None)
        for holding in self._all_holdings():
            holding.serving.left(peer, here=False)
        for asked in [asked for asked in self._requests if asked[0] == peer]:
            self._requests.pop(asked).refused(peer, PeerGoneError("The peer left the room before it could answer."))
        for key in [key for key, shared in self._shares.items() if shared.link is link]:
            self._gone(self._shares.pop(key))

    def close(self) -> None:
        """The room is left."""
        self._closed = True
        for pull in list(self._pulls):
            pull.fail(RoomClosedError("The room was left before this was fetched."))
        for timer in (self._untold_timer, self._news_timer):
            if timer is not None:
                timer.cancel()
        for version in self._versions.values():
            for task in version.tasks:
                task.cancel()
        self._shares.clear()
        self._versions.clear()
        self._holdings.clear()

    # ── frames ──────────────────────────────────────────────────────────────────────────────────────
    def receive_frame(self, link: Link, frame: ControlFrame) -> None:
        """Take a frame about shares. Raises ProtocolError for what no honest peer sends."""
        match frame:
            case ShareNews():
                self._on_news(link, frame)
            case ShareGone():
                shared = self._shares.get((link.peer_id, frame.share))
                if shared is not None and shared.link is not None:
                    del self._shares[link.peer_id, frame.share]
                    self._gone(shared)
                    for pull in [pull for pull in self._pulls if pull.shared is shared]:
                        pull.fail(
                            TransferError(f"{shared.owner_name} stopped sharing {shared.name!r} before it was fetched.")
                        )
            case PullFrame():
                self._on_pull(link, frame)
            case PullRefused():
                refused = self._requests.pop((link.peer_id, frame.request), None)
                if refused is not None:
                    self._on_refused(refused, link.peer_id, frame)
            case ShareSources():
                self._on_sources(link, frame)
            case ShareBlocks():
                if max(len(frame.blocks), len(frame.coming)) > MAX_NEWS_RANGES:
                    raise ProtocolError("too many blocks told of at once")
                for pull in self._pulls_of((frame.owner, frame.share, frame.version)):
                    pull.has(link.peer_id, frame.blocks, frame.coming)
            case _:
                raise AssertionError(f"not about shares: {frame!r}")

    def pull_answered(self, link: Link, incoming: Incoming) -> None:
        """Take an offer that answers a Pull."""
        pull = self._requests.pop((link.peer_id, incoming.offer.answers), None)
        if pull is None:
            incoming.decline("Nobody asked for this.")
        else:
            pull.answered(link.peer_id, incoming)

    def _on_news(self, link: Link, news: ShareNews) -> None:
        preview = news.preview
        checks = (
            0 < news.share <= MAX_NUMBER and 0 < news.version <= MAX_NUMBER,
            0 <= news.size_bytes <= MAX_SIZE_BYTES,
            len(news.name) <= MAX_ITEM_NAME_CHARS,
            len(preview.rows) <= MAX_PREVIEW_ROWS and len(preview.columns) <= MAX_PREVIEW_COLUMNS,
        )
        if not all(checks):
            raise ProtocolError("an impossible share")
        key = (link.peer_id, news.share)
        shared = self._shares.get(key)
        if shared is None:
            if sum(known.link is link for known in self._shares.values()) >= MAX_SHARES:
                raise ProtocolError(f"more than {MAX_SHARES} shares")
            shared = self._shares[key] = Shared(
                owner=link.peer_id,
                owner_name=self._host.name_of(link),
                share=news.share,
                link=link,
                name=printable(news.name) or "unnamed",
                version=0,
                size_bytes=0,
                preview=preview,
                shared_at=0.0,
                sliceable=False,
            )
        if news.version <= shared.version:
            return
        shared.version, shared.size_bytes = news.version, news.size_bytes
        shared.preview = shown_preview(preview)
        shared.shared_at, shared.sliceable = news.shared_at, news.sliceable
        shared.whole_at.clear()
        self._host.share_changed(shared)

    def _on_refused(self, pull: Pull, peer: bytes, frame: PullRefused) -> None:
        if frame.code == VERSION_GONE and peer == pull.owner and pull.version < pull.shared.version:
            pull.version = pull.shared.version  # it was replaced while we asked
            pull.start()
        else:
            pull.refused(peer, _refusal(frame))

    def _on_sources(self, link: Link, frame: ShareSources) -> None:
        if len(frame.peers) > MAX_INTRODUCED or any(len(peer) != len(link.peer_id) for peer in frame.peers):
            raise ProtocolError("impossible sources of a share")
        for pull in self._pulls_of((link.peer_id, frame.share, frame.version)):
            pull.introduced(frame.peers)

    # ── answering ───────────────────────────────────────────────────────────────────────────────────
    def _on_pull(self, link: Link, frame: PullFrame) -> None:
        columns, rows = frame.columns, frame.rows
        fits = (
            0 < frame.request <= MAX_NUMBER
            and 0 < frame.version <= MAX_NUMBER
            and len(frame.owner) == len(link.peer_id)
            and len(frame.root) in (0, sha256().digest_size)
            and (rows is None or 0 <= rows[0] <= rows[1] <= MAX_NUMBER)
            and (columns is None or len(columns) <= MAX_COLUMNS)
        )
        if not fits:
            raise ProtocolError("an impossible pull")
        if self._answers.get(link.peer_id, 0) >= MAX_ANSWERS:
            self._refuse(link, frame, TransferError(f"At most {MAX_ANSWERS} pulls can run at once between two peers."))
        elif frame.owner == self._host.my_id:
            self._answer_own(link, frame)
        else:
            self._answer_held(link, frame)

    def _answer_own(self, link: Link, frame: PullFrame) -> None:
        shared = self._shares.get((_ME, frame.share))
        version = self._versions.get((_ME, frame.share, frame.version))
        if shared is None:
            self._refuse(link, frame, TransferError("This is not shared any more."))
        elif version is None:
            code = VERSION_GONE if frame.version < shared.version else "TransferError"
            self._send(link, PullRefused(frame.request, code, "There is another version now: fetch that one."))
        else:
            self._answers[link.peer_id] = self._answers.get(link.peer_id, 0) + 1
            self._host.spawn(self._answer(link, frame, version), "p2pnb answer to a pull")

    async def _answer(self, link: Link, frame: PullFrame, version: _Version) -> None:
        sent = False
        try:
            whole = frame.columns is None and frame.rows is None
            holding = await asyncio.shield(self._whole(version) if whole else self._part(version, frame))
            if (_ME, frame.share) not in self._shares:
                self._refuse(link, frame, TransferError("This is not shared any more."))
            elif (_ME, frame.share, frame.version) not in self._versions:
                self._send(link, PullRefused(frame.request, VERSION_GONE, "There is a newer version: fetch that one."))
            elif link.session is not None:
                sent = self._serve(holding, link, frame)
                if whole and holding.serving.count > 1:
                    self._introduce(link, frame, holding)
        except P2PError as error:
            self._refuse(link, frame, error)
        except Exception as error:  # noqa: BLE001 - the user's value; whatever cutting it raises, the puller hears it
            self._refuse(link, frame, TransferError(f"{type(error).__name__} at the owner: {error}"))
        finally:
            if not sent:
                self._answer_over(link.peer_id)
            self._retire(version.shared, version.version)

    def _whole(self, version: _Version) -> asyncio.Task[Holding]:
        if version.whole is None:
            version.whole = self._task(self._prepare_whole(version), "p2pnb hash share")
        return version.whole

    async def _prepare_whole(self, version: _Version) -> Holding:
        encoded = version.encoded
        block_bytes = block_bytes_for(encoded.content_bytes)
        count = block_count(encoded.content_bytes, block_bytes)
        step = max(1, -(-count // HASHERS), HASHED_BYTES // block_bytes)
        spans = [(first, min(first + step, count)) for first in range(0, count, step)]
        parts = [self._host.in_worker(hash_blocks, encoded, block_bytes, *span) for span in spans]
        hashes = b"".join(await asyncio.gather(*parts))
        manifest = Manifest(encoded.codec, encoded.head, encoded.content_bytes, block_bytes, hashes).pack()
        serving = Serving(count, whole=True)
        return Holding(version.shared.name, manifest, sha256(manifest).digest(), encoded, serving)

    def _part(self, version: _Version, frame: PullFrame) -> asyncio.Task[Holding]:
        key = (None if frame.columns is None else tuple(frame.columns), frame.rows)
        task = version.parts.get(key)
        if task is not None and task.done() and _result(task) is None:
            task = None  # it failed: say why again
        if task is None:
            task = version.parts[key] = self._task(self._prepare_part(version, frame), "p2pnb cut share")
            while len(version.parts) > KEPT_PARTS:
                version.parts.popitem(last=False)
        version.parts.move_to_end(key)
        return task

    async def _prepare_part(self, version: _Version, frame: PullFrame) -> Holding:
        async with self._cutting:
            manifest, encoded = await self._host.in_worker(_cut, version.value, frame.columns, frame.rows)
        return Holding(version.shared.name, manifest, sha256(manifest).digest(), encoded, Serving(0, whole=True))

    def _task(self, work: Coroutine[Any, Any, Holding], name: str) -> asyncio.Task[Holding]:
        task = self._host.loop.create_task(work, name=name)
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())  # whoever waits gets it
        return task

    def _answer_held(self, link: Link, frame: PullFrame) -> None:
        key = (frame.owner, frame.share, frame.version)
        holding = self._holdings.get(key)
        early = self._early.get(key, [])
        if holding is None and len(early) < MAX_EARLY and any(pull.pulling is None for pull in self._pulls_of(key)):
            self._early[key] = [*early, (link, frame)]  # we are about to know what we are asked for
            return
        whole = frame.columns is None and frame.rows is None
        if holding is None or not holding.alive or holding.root != frame.root or not whole:
            self._refuse(link, frame, TransferError("This peer does not hold that (any more)."))
            return
        self._answers[link.peer_id] = self._answers.get(link.peer_id, 0) + 1
        if not self._serve(holding, link, frame):
            self._answer_over(link.peer_id)
        for pull in self._pulls_of(key):
            if pull.pulling is not None:
                pull.introduced([link.peer_id])  # it pulls the same, so it has some of it, or will

    def _answer_early(self, key: ShareKey) -> None:
        """Answer those who asked before it was known what of this would be here."""
        for link, frame in self._early.pop(key, []):
            if link.session is not None:
                self._answer_held(link, frame)

    def _serve(self, holding: Holding, link: Link, frame: PullFrame) -> bool:
        """Offer a content to one who asked for it."""
        key = (link.peer_id, frame.request)
        source = ShareSource(
            holding.name,
            holding.manifest,
            holding.root,
            holding.content,
            lambda: self._served(holding, key),
        )
        if key in holding.outgoing:
            return False  # a request has one answer
        try:
            outgoing = self._host.send_pulled(source, link, frame.request)
        except P2PError:
            return False
        if not outgoing.ended:
            holding.outgoing[key] = outgoing
            holding.serving.joined(link.peer_id)
            self._tell_blocks()
        return True

    def _served(self, holding: Holding, key: tuple[bytes, int]) -> None:
        """An answer ended, one way or another."""
        peer, _ = key
        self._answer_over(peer)
        outgoing = holding.outgoing.pop(key, None)
        if outgoing is None:
            return
        if outgoing.parts and outgoing.parts[0].state is TransferState.DONE:
            holding.serving.completed(peer)
        if not any(other == peer for other, _ in holding.outgoing):
            holding.serving.left(peer)
        for version in list(self._versions.values()):
            self._retire(version.shared, version.version)

    def _answer_over(self, peer: bytes) -> None:
        left = self._answers.get(peer, 0) - 1
        if left > 0:
            self._answers[peer] = left
        else:
            self._answers.pop(peer, None)

    def _introduce(self, link: Link, frame: PullFrame, holding: Holding) -> None:
        others = holding.serving.introductions(link.peer_id)
        if others:
            self._send(link, ShareSources(frame.share, frame.version, others))

    def _refuse(self, link: Link, frame: PullFrame, error: P2PError) -> None:
        self._send(link, PullRefused(frame.request, type(error).__name__, str(error)[:MAX_REASON_CHARS]))

    def _retire(self, shared: Shared, version: int) -> None:
        """Forget a version that was replaced, once nobody pulls it."""
        key = (shared.owner, shared.share, version)
        old = self._versions.get(key)
        if old is not None and version != shared.version and not old.in_use:
            del self._versions[key]

    # ── what pulls ask for (PullHost) ───────────────────────────────────────────────────────────────
    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._host.loop

    @property
    def arena(self) -> Arena:
        return self._host.arena

    @property
    def my_id(self) -> bytes:
        return self._host.my_id

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._host.spawn(work, name)

    async def in_worker(self, function: Callable[..., T], *args: Any) -> T:
        return await self._host.in_worker(function, *args)

    def name_of_peer(self, peer_id: bytes) -> str:
        link = self._host.links.get(peer_id)
        return self._host.name_of(link) if link is not None else "Somebody who left"

    def noticed(self, error: P2PError) -> None:
        self._host.noticed(error)

    def ask(self, pull: Pull, peer_id: bytes) -> bool:
        """Send a Pull; False if this peer is not here."""
        link = self._host.links.get(peer_id)
        if link is None or not link.confirmed:
            return False
        if any(peer == peer_id and asked is pull for (peer, _), asked in self._requests.items()):
            return True
        request = self._next_request
        self._next_request += 1
        self._requests[peer_id, request] = pull
        root = b"" if peer_id == pull.owner else pull.root
        frame = PullFrame(request, pull.owner, pull.share, pull.version, pull.columns, pull.rows, root)
        if not self._send(link, frame):
            del self._requests[peer_id, request]
            return False
        return True

    def asking(self, pull: Pull) -> bool:
        """Tell whether somebody was asked and has not answered yet."""
        return any(asked is pull for asked in self._requests.values())

    def holding_began(self, pull: Pull, holding: Holding) -> None:
        """A pull knows its manifest: what it gets may be served from now on."""
        key = (pull.owner, pull.share, pull.version)
        for old in [old for old, held in self._holdings.items() if not held.alive]:
            del self._holdings[old]
        if key in self._holdings:
            return  # of an earlier pull, which has more of it
        self._holdings[key] = holding
        while len(self._holdings) > KEPT_HOLDINGS:
            self._holdings.popitem(last=False)
        self._host.loop.call_soon(self._answer_early, key)

    def blocks_arrived(self, pull: Pull) -> None:
        """A pull got blocks, or asked the owner for some."""
        if pull.holding is not None and pull.pulling is not None:
            pull.holding.serving.expects(pull.pulling.coming_blocks)
            self._tell_blocks()

    def pull_changed(self, pull: Pull) -> None:
        self._host.transfer_changed(pull)

    def pull_ended(self, pull: Pull, value: object) -> None:
        """A pull is over."""
        self._pulls.discard(pull)
        for asked in [asked for asked, waiting in self._requests.items() if waiting is pull]:
            del self._requests[asked]
        holding = pull.holding
        key = (pull.owner, pull.share, pull.version)
        self._answer_early(key)
        if holding is not None:
            if pull.error is None:
                holding.serving.expects([])
            elif self._holdings.get(key) is holding:
                del self._holdings[key]
            if pull.error is not None:
                for outgoing in list(holding.outgoing.values()):
                    outgoing.cancel()
        if pull.error is None and pull.inbox:
            self._host.item_arrived(pull, value)
        if pull.error is None:
            self._host.share_changed(pull.shared)
        self._host.transfer_changed(pull)

    # ── telling ─────────────────────────────────────────────────────────────────────────────────────
    def _tell_shares(self) -> None:
        """Tell peers of own shares, as long as they take it in; the rest later."""
        self._untold_timer = None
        for peer, waiting in list(self._untold.items()):
            link = self._host.links.get(peer)
            if link is None or not link.confirmed:
                del self._untold[peer]
                continue
            while waiting and link.session is not None and link.session.can_send():
                share, _ = waiting.popitem(last=False)
                shared = self._shares.get((_ME, share))
                if shared is not None and not self._send(link, _news_of(shared)):
                    waiting[share] = None
                    break
            if not waiting:
                del self._untold[peer]
        if self._untold and not self._closed:
            self._untold_timer = self._host.loop.call_later(RETRY_NEWS_S, self._tell_shares)

    def _tell_blocks(self) -> None:
        """Tell those we serve which blocks are here by now."""
        if self._news_timer is not None or self._closed:
            return
        again = False
        for (owner, share, version), holding in list(self._holdings.items()):
            for peer, blocks, coming in holding.serving.news(self._host.loop.time()):
                if (link := self._host.links.get(peer)) is not None:
                    self._send(link, ShareBlocks(owner, share, version, blocks, coming))
            again = again or holding.serving.news_due
        if again:
            self._news_timer = self._host.loop.call_later(NEWS_S, self._tell_blocks_again)

    def _tell_blocks_again(self) -> None:
        self._news_timer = None
        self._tell_blocks()

    def _send(self, link: Link, frame: ControlFrame) -> bool:
        """Send a frame; False if that peer takes none at the moment."""
        try:
            link.send(frame)
        except P2PError as error:
            _log.info("%s was not told: %s", type(frame).__name__, error)
            return False
        return True

    # ── small things ────────────────────────────────────────────────────────────────────────────────
    def _here(self) -> Iterable[Link]:
        return [link for link in self._host.links.values() if link.confirmed]

    def _pulls_of(self, key: ShareKey) -> list[Pull]:
        return [pull for pull in self._pulls if (pull.owner, pull.share, pull.version) == key and pull.whole]

    def _all_holdings(self) -> list[Holding]:
        own = [holding for version in self._versions.values() for holding in version.holdings]
        return [*self._holdings.values(), *own]

    def _gone(self, shared: Shared) -> None:
        shared.gone = True
        self._host.share_changed(shared)


def _news_of(shared: Shared) -> ShareNews:
    return ShareNews(
        share=shared.share,
        version=shared.version,
        name=shared.name,
        size_bytes=shared.size_bytes,
        preview=shared.preview,
        shared_at=shared.shared_at,
        sliceable=shared.sliceable,
    )


def _cut(value: Any, columns: list[str] | None, rows: tuple[int, int] | None) -> tuple[bytes, Encoded]:
    """Return a part of a table or array, ready to travel, and its manifest. Blocking."""
    from p2pnb.objects import encode
    from p2pnb.objects.slices import slice_value

    encoded = encode(slice_value(value, columns, rows))
    return Manifest(encoded.codec, encoded.head, encoded.content_bytes, 0, b"").pack(), encoded


def _result(task: asyncio.Task[Holding]) -> Holding | None:
    """Return what a task made; None while it runs or if it failed."""
    if not task.done() or task.cancelled():
        return None
    with contextlib.suppress(Exception):
        return task.result()
    return None


def _refusal(frame: PullRefused) -> P2PError:
    """Return the exception for a refused Pull: the puller's own mistake, or what a transfer may fail with."""
    if frame.code == UsageError.__name__:
        text = printable(frame.reason, MAX_REASON_CHARS) or "That part can't be had."
        return UsageError(text[0].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else "."))
    return peer_error(frame.code, frame.reason)
