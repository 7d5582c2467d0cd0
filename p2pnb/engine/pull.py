"""One pull of a share, or of a part of one, by this peer.

The owner's answer brings the manifest (the codec's head, and the hashes of all blocks) and then what is asked for.
A whole content is asked for block by block from everybody who holds some of it (`protocol.swarm`); a part of a
table comes from the owner alone, in one go, and needs no hashes: the session already proves who sent it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from p2pnb.engine.holdings import Holding, PulledContent
from p2pnb.engine.receiving import shown_preview
from p2pnb.engine.sending import TransferState
from p2pnb.engine.transfers import Meter, ObjectSink
from p2pnb.errors import (
    CodecError,
    CorruptDataError,
    P2PError,
    PeerGoneError,
    SourceChangedError,
    TransferCancelledError,
    TransferError,
)
from p2pnb.protocol.manifest import Descriptor, Manifest, block_hash
from p2pnb.protocol.serving import Serving
from p2pnb.protocol.swarm import BlockState, Pulling, Writer
from p2pnb.protocol.wire import Preview

if TYPE_CHECKING:
    from p2pnb.engine.arena import Arena
    from p2pnb.engine.receiving import Incoming
    from p2pnb.engine.sharing import Shared

__all__ = ["Pull", "PullHost"]

TICK_S: Final = 0.1  # how often slow and silent sources are looked at
MAX_ASKS: Final = 3  # of one peer; nobody makes us pester a third one
MAX_CHECKS: Final = 2  # calls of one pull into workers that hash at once
LINGER_S: Final = 30.0  # others go on pulling from memory whose value is gone already

T = TypeVar("T")


class PullHost(Protocol):
    """What a pull needs of `Sharing`."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def arena(self) -> Arena: ...
    @property
    def my_id(self) -> bytes: ...
    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]: ...
    async def in_worker(self, function: Callable[..., T], *args: Any) -> T: ...
    def name_of_peer(self, peer_id: bytes) -> str: ...
    def ask(self, pull: Pull, peer_id: bytes) -> bool: ...
    def asking(self, pull: Pull) -> bool: ...
    def holding_began(self, pull: Pull, holding: Holding) -> None: ...
    def blocks_arrived(self, pull: Pull) -> None: ...
    def pull_changed(self, pull: Pull) -> None: ...
    def pull_ended(self, pull: Pull, value: object) -> None: ...
    def noticed(self, error: P2PError) -> None: ...


class Pull:
    """A share on its way to this peer. Lives on the event loop; plain attributes may be read anywhere.

    It has what a `Transfer` shows of an `Incoming`.
    """

    direction = "in"
    kind = "object"
    count = 1
    can_retry = False
    resumed_bytes = 0
    paused_there = False

    def __init__(
        self, host: PullHost, shared: Shared, columns: list[str] | None, rows: tuple[int, int] | None, *, inbox: bool
    ) -> None:
        self.id = secrets.token_hex(8)
        self.shared = shared
        self.owner, self.share, self.version = shared.owner, shared.share, shared.version
        self.columns, self.rows, self.inbox = columns, rows, inbox
        self.link = shared.link
        self.name = shared.name
        self.size_bytes = shared.size_bytes
        self.preview = shared.preview
        self.state = TransferState.OFFERED
        self.error: P2PError | None = None
        self.meter = Meter(shared.size_bytes)
        self.carriers: set[str] = set()
        self.paused_here = False
        self._value: concurrent.futures.Future[Any] | None = concurrent.futures.Future()
        self.root = b""
        self.pulling: Pulling | None = None
        self.holding: Holding | None = None
        self._host = host
        self._descriptor: Descriptor | None = None
        self._manifest: memoryview | None = None
        self._manifest_missing = 0
        self._sink: ObjectSink | None = None
        self._missing = 0  # bytes of a part that have not come
        self._incoming: dict[bytes, Incoming] = {}  # by source
        self._accepted: set[bytes] = set()  # sources that may be asked for bytes
        self._scratch: dict[tuple[bytes, int], bytearray] = {}
        self._unchecked: list[tuple[bytes, int]] = []
        self._checking = 0
        self._finishing = False
        self._introduced: list[bytes] = []
        self._met: dict[bytes, int] = {}  # how often others than the owner were asked
        self._tick_timer: asyncio.TimerHandle | None = None

    @property
    def whole(self) -> bool:
        """True if all of the share is wanted, not a part."""
        return self.columns is None and self.rows is None

    def take_value(self) -> concurrent.futures.Future[Any]:
        """Return what will get the value or the error; to be called before `start`. Nothing else keeps the value."""
        assert self._value is not None
        return self._value

    # ── decisions ───────────────────────────────────────────────────────────────────────────────────
    def start(self) -> None:
        """Ask the owner."""
        if not self._host.ask(self, self.owner):
            self.fail(PeerGoneError(f"{self._owner_name} is not in the room any more, and so {self.name!r} is gone."))

    def cancel(self) -> None:
        """Stop it."""
        self._end(TransferState.CANCELLED, TransferCancelledError(f"You cancelled fetching {self.name!r}."))

    def pause(self, paused: bool) -> None:
        """Ask for nothing more for a while, or go on."""
        if self.paused_here != paused and not self.state.ended:
            self.paused_here = paused
            for incoming in self._incoming.values():
                incoming.pause(paused)
            self._ask_all()
            self._host.pull_changed(self)

    def fail(self, error: P2PError) -> None:
        """End it for a reason."""
        self._end(TransferState.FAILED, error)

    # ── what sharing brings ─────────────────────────────────────────────────────────────────────────
    def answered(self, peer: bytes, incoming: Incoming) -> None:
        """`peer` offers what we asked it for."""
        if self.state.ended or peer in self._incoming:
            incoming.decline("This is not needed any more.")
            return
        try:
            self._check_answer(peer, incoming)
        except CorruptDataError as error:
            incoming.decline(str(error))
            if peer == self.owner:
                self.fail(error)
            return
        self._incoming[peer] = incoming
        self.state = TransferState.MOVING
        incoming.accept_into(_From(self, peer), on_request=True, ended=lambda ended: self._source_ended(peer, ended))
        if self.paused_here:
            incoming.pause(True)
        self._host.loop.call_soon(self._may_ask, peer)  # after the transfer was accepted
        if self.pulling is not None:
            self.pulling.source_added(peer, self._now)  # what it has may be told at once
        self._host.pull_changed(self)

    def refused(self, peer: bytes, error: P2PError) -> None:
        """`peer` can't serve us."""
        if peer == self.owner and (self.pulling is None or not self.pulling.sources):
            self.fail(error)

    def introduced(self, peers: list[bytes]) -> None:
        """The owner says that these have, or are getting, the same."""
        self._introduced += [peer for peer in peers if peer not in self._introduced]
        self._meet()

    def has(self, peer: bytes, blocks: list[tuple[int, int]], coming: list[tuple[int, int]]) -> None:
        """A source says what it has. Raises ProtocolError for blocks that don't exist."""
        if self.pulling is not None:
            self.pulling.source_has(peer, blocks, coming, self._now)
            if self.version == self.shared.version and self.pulling.holds_all(peer):
                self.shared.whole_at.add(peer)
            self._ask(peer)

    def peer_returned(self, peer: bytes) -> None:
        """A session with `peer` stands anew."""
        if peer == self.owner and peer not in self._incoming and self.pulling is not None:
            self._host.ask(self, peer)

    # ── sources ─────────────────────────────────────────────────────────────────────────────────────
    def _check_answer(self, peer: bytes, incoming: Incoming) -> None:
        offer = incoming.offer
        if offer.kind != "object" or len(offer.head) != offer.head_bytes:
            raise CorruptDataError("the answer to a pull is malformed")
        content_bytes = offer.size_bytes - offer.head_bytes
        descriptor = Descriptor.parse(offer.head, content_bytes)
        if self._descriptor is None:
            if peer != self.owner:
                raise CorruptDataError("the answer to a pull came from somebody who was not asked")
            self._descriptor, self.root = descriptor, descriptor.root
            self.size_bytes = self.meter.size_bytes = content_bytes
            self._manifest_missing = descriptor.manifest_bytes
            self._manifest = self._host.arena.take(descriptor.manifest_bytes)
        elif descriptor != self._descriptor or content_bytes != self.size_bytes:
            raise CorruptDataError("the peer holds something else than was asked for")

    def _may_ask(self, peer: bytes) -> None:
        incoming = self._incoming.get(peer)
        if incoming is None or self.state.ended:
            return
        self._accepted.add(peer)
        if self.pulling is not None:
            self._ask(peer)
        elif self._descriptor is not None and not incoming.offer.content:
            incoming.want([(0, self._descriptor.manifest_bytes)])

    def _source_ended(self, peer: bytes, incoming: Incoming) -> None:
        """A source is through with us, or failed."""
        self.carriers |= incoming.carriers
        if self._incoming.get(peer) is incoming:
            del self._incoming[peer]
            self._accepted.discard(peer)
        if self.state.ended or self._finishing:
            return
        self._drop_source(peer)
        if peer != self.owner:
            return
        error = incoming.error or TransferError(f"{self._owner_name} ended the transfer.")
        others = self.pulling is not None and (self.pulling.sources or self._host.asking(self))
        if not others or not isinstance(error, PeerGoneError):
            self.fail(error)

    def _drop_source(self, peer: bytes) -> None:
        if self.pulling is None:
            return
        self.pulling.source_gone(peer)
        for key in [key for key in self._scratch if key[0] == peer]:
            del self._scratch[key]
        self._ask_all()

    def _meet(self) -> None:
        """Ask those the owner named, once the hashes are known."""
        if self.pulling is None or self.state.ended:
            return
        introduced, self._introduced = self._introduced, []
        for peer in introduced:
            tries = self._met.get(peer, 0)
            if peer != self._host.my_id and tries < MAX_ASKS and self.pulling.wants_source(peer):
                self._met[peer] = tries + 1
                self._host.ask(self, peer)

    # ── bytes ───────────────────────────────────────────────────────────────────────────────────────
    def place(self, peer: bytes, offset: int, length: int) -> memoryview | None:
        """Return where these bytes of the stream may be written by `peer`, if they all have one place."""
        start = offset - self._manifest_bytes
        if start < 0 or self._sink is None:
            return None
        if self.pulling is not None:
            block_bytes = self.pulling.block_bytes
            blocks = range(start // block_bytes, (start + length - 1) // block_bytes + 1)
            if any(self.pulling.writer(peer, block) is not Writer.PLACE for block in blocks):
                return None
        return self._sink.place(start, length)

    def placed(self, peer: bytes, start: int, end: int) -> None:
        """These bytes are in their place."""
        self._note(peer, start - self._manifest_bytes, end - self._manifest_bytes)

    def write(self, peer: bytes, offset: int, data: memoryview) -> None:
        """Take bytes of the stream from `peer`."""
        if self.state.ended:
            return
        ahead = self._manifest_bytes - offset
        if ahead > 0:
            self._write_manifest(offset, data[:ahead])
            data, offset = data[ahead:], offset + min(ahead, len(data))
        if not data or self._sink is None:  # content of an offer that has it all is read once the manifest is checked
            return
        start = offset - self._manifest_bytes
        if self.pulling is None:
            self._sink.write(start, data)
        else:
            self._write_blocks(peer, start, data)
        self._note(peer, start, start + len(data))

    def _write_manifest(self, offset: int, data: memoryview) -> None:
        if self._manifest is None or not self._manifest_missing:
            return
        self._manifest[offset : offset + len(data)] = data
        self._manifest_missing -= len(data)
        if not self._manifest_missing:
            self._host.spawn(self._guarded(self._open()), "p2pnb pull")

    def _write_blocks(self, peer: bytes, start: int, data: memoryview) -> None:
        pulling, sink = self.pulling, self._sink
        assert pulling is not None and sink is not None
        for block, first, last in _by_block(start, start + len(data), pulling.block_bytes):
            piece = data[first - start : last - start]
            match pulling.writer(peer, block):
                case Writer.PLACE:
                    sink.write(first, piece)
                case Writer.SCRATCH:
                    scratch = self._scratch.setdefault((peer, block), bytearray(pulling.block_bytes))
                    begin = block * pulling.block_bytes
                    scratch[first - begin : last - begin] = piece
                case Writer.NOWHERE:
                    pass

    def _note(self, peer: bytes, start: int, end: int) -> None:
        """Content bytes [start, end) came from `peer`."""
        pulling, now = self.pulling, self._now
        if pulling is None:
            self._missing -= end - start
            self._advance(self.size_bytes - self._manifest_bytes - self._missing)
            if self._missing == 0:
                self._host.spawn(self._guarded(self._finish()), "p2pnb pull")
            return
        for block, first, last in _by_block(start, end, pulling.block_bytes):
            if pulling.arrived(peer, block, last - first, now):
                self._unchecked.append((peer, block))
        if self._unchecked and self._checking < MAX_CHECKS:
            self._checking += 1
            self._host.spawn(self._guarded(self._check()), "p2pnb pull check")
        self._ask(peer)

    async def _check(self) -> None:
        """Hash what is complete, in one call into a worker, as long as there is something."""
        pulling, sink = self.pulling, self._sink
        assert pulling is not None and sink is not None
        try:
            while self._unchecked:
                batch, self._unchecked = self._unchecked, []
                digests = await self._host.in_worker(_hash_all, [self._block(peer, block) for peer, block in batch])
                if self.state.ended:
                    return
                for (peer, block), digest in zip(batch, digests, strict=True):
                    self._checked(peer, block, digest)
                self._advance(pulling.done_bytes)
                self._host.blocks_arrived(self)
                self._ask_all()
        finally:
            self._checking -= 1
        if pulling.finished and not self._finishing and not self.state.ended:
            await self._finish()

    def _block(self, peer: bytes, block: int) -> memoryview:
        """Return the bytes of a block as `peer` sent them."""
        pulling, sink = self.pulling, self._sink
        assert pulling is not None and sink is not None
        start = block * pulling.block_bytes
        length = min(pulling.block_bytes, pulling.content_bytes - start)
        scratch = self._scratch.get((peer, block))
        view = memoryview(scratch)[:length] if scratch is not None else sink.place(start, length)
        assert view is not None
        return view

    def _checked(self, peer: bytes, block: int, digest: bytes) -> None:
        pulling, sink = self.pulling, self._sink
        assert pulling is not None and sink is not None
        scratch = self._scratch.get((peer, block))
        state = pulling.checked(peer, block, digest, self._now)
        if state is BlockState.NEW:
            if scratch is not None:
                sink.write(block * pulling.block_bytes, self._block(peer, block))
            assert self.holding is not None
            self.holding.serving.verified(block)
        elif state is BlockState.WRONG:
            self._found_out(peer)
        self._scratch.pop((peer, block), None)

    def _found_out(self, peer: bytes) -> None:
        """A source sent something else than the owner's hashes say."""
        if peer == self.owner:
            raise SourceChangedError(
                f"{self.name!r} was changed at {self._owner_name} since it was shared. "
                f"Ask {self._owner_name} to share it again."
            )
        name = self._host.name_of_peer(peer)
        self._host.noticed(
            CorruptDataError(
                f"{name} sent wrong bytes for {self.name!r}. They were thrown away and fetched from others."
            )
        )
        incoming = self._incoming.get(peer)
        if incoming is not None:
            incoming.cancel()

    # ── from the manifest to the value ──────────────────────────────────────────────────────────────
    async def _open(self) -> None:
        assert self._manifest is not None and self._descriptor is not None
        raw, self._manifest = bytes(self._manifest), None
        manifest = await self._host.in_worker(Manifest.parse, raw, self.root)
        if manifest.content_bytes != self.size_bytes - len(raw) or bool(manifest.block_bytes) != self.whole:
            raise CorruptDataError("the description of a shared object is not of what was asked for")
        sink = await self._host.in_worker(
            ObjectSink, manifest.codec, manifest.head, manifest.content_bytes, self._host.arena
        )
        if self.state.ended:
            return
        self._sink = sink
        if not manifest.content_bytes:
            await self._finish()
        elif self.whole:
            self._begin_swarm(manifest, raw)
        else:
            self._missing = manifest.content_bytes
            self._want_content(self.owner, [(0, manifest.content_bytes)])

    def _begin_swarm(self, manifest: Manifest, raw: bytes) -> None:
        assert self._sink is not None
        pulling = self.pulling = Pulling(
            owner=self.owner,
            content_bytes=manifest.content_bytes,
            block_bytes=manifest.block_bytes,
            hashes=manifest.hashes,
            me=self._host.my_id,
        )
        view = self._sink.place(0, manifest.content_bytes)
        assert view is not None
        content = PulledContent(view, manifest, pulling.has)
        self.holding = Holding(self.name, raw, self.root, content, Serving(pulling.count, whole=False))
        self._host.holding_began(self, self.holding)
        for peer in self._incoming:
            pulling.source_added(peer, self._now)
        self._meet()
        self._tick()

    def _want_content(self, peer: bytes, ranges: list[tuple[int, int]]) -> None:
        """Ask a source for ranges of the content."""
        incoming = self._incoming.get(peer)
        if incoming is None:
            return
        ahead = self._manifest_bytes
        if incoming.offer.content:  # it is all here
            for start, end in ranges:
                self.write(peer, start + ahead, memoryview(incoming.offer.content)[start + ahead : end + ahead])
        else:
            incoming.want([(start + ahead, end + ahead) for start, end in ranges])

    async def _finish(self) -> None:
        assert self._sink is not None
        self._finishing = True
        for incoming in list(self._incoming.values()):
            self.carriers |= incoming.carriers
            incoming.done()
        if self.holding is not None and isinstance(self.holding.content, PulledContent):
            self.holding.content.in_use()
        value = await self._host.in_worker(self._sink.finish)
        if not self.whole:  # the announced preview is the whole share's
            self.preview = await self._host.in_worker(_preview, value, self.preview)
        if self.state.ended:
            return
        self._advance(self.size_bytes)
        self._end(TransferState.DONE, None, value)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a step; what goes wrong in it ends the pull."""
        if self.state.ended:  # before the step began
            work.close()
            return
        try:
            await work
        except (CodecError, TransferError) as error:
            self.fail(error)
        except (OSError, MemoryError, ValueError, msgspec.MsgspecError) as error:
            self.fail(TransferError(f"{type(error).__name__} while fetching {self.name!r}: {error}"))

    def _end(self, state: TransferState, error: P2PError | None, value: object = None) -> None:
        if self.state.ended:
            return
        self.state, self.error = state, error
        self.meter.end(time.monotonic())
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for incoming in list(self._incoming.values()):
            incoming.cancel()
        self._incoming.clear()
        self._accepted.clear()
        self._scratch.clear()
        self._unchecked.clear()
        self._sink = self._manifest = None
        holding = self.holding
        if holding is not None and isinstance(holding.content, PulledContent):
            self._host.loop.call_later(LINGER_S if error is None else 0, holding.content.let_go)
        if error is None:
            self.shared.fetched_version = max(self.shared.fetched_version, self.version)
        self._host.pull_ended(self, value)
        self.pulling = self.holding = None
        waiting, self._value = self._value, None  # what a transfer list keeps must not keep the value
        if waiting is not None and waiting.set_running_or_notify_cancel():
            if error is None:
                waiting.set_result(value)
            else:
                waiting.set_exception(error)

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────
    def _ask(self, peer: bytes) -> None:
        if self.pulling is None or self.paused_here or self.state.ended or peer not in self._accepted:
            return
        ranges = self.pulling.want(peer, self._now)
        if ranges:
            block_bytes, end = self.pulling.block_bytes, self.pulling.content_bytes
            self._want_content(peer, [(a * block_bytes, min(b * block_bytes, end)) for a, b in ranges])
            if peer == self.owner:
                self._host.blocks_arrived(self)

    def _ask_all(self) -> None:
        if self.pulling is not None:
            for peer in self.pulling.sources:
                self._ask(peer)

    def _tick(self) -> None:
        """Look at what time alone changes."""
        self._tick_timer = None
        pulling = self.pulling
        if self.state.ended or pulling is None:
            return
        for peer in pulling.silent(self._now):
            if (incoming := self._incoming.get(peer)) is not None and not self.paused_here:
                incoming.cancel()
        if pulling.hopeless(self._now):
            self.fail(PeerGoneError(f"{self._owner_name} left, and nobody here holds the rest of {self.name!r}."))
            return
        self._ask_all()
        self._tick_timer = self._host.loop.call_later(TICK_S, self._tick)

    # ── small things ────────────────────────────────────────────────────────────────────────────────
    @property
    def _now(self) -> float:
        return self._host.loop.time()

    @property
    def _owner_name(self) -> str:
        return self.shared.owner_name

    @property
    def _manifest_bytes(self) -> int:
        return self._descriptor.manifest_bytes if self._descriptor is not None else 0

    def _advance(self, done_bytes: int) -> None:
        self.meter.advance(done_bytes, time.monotonic())
        self._host.pull_changed(self)


class _From:
    """`PulledSink`: bytes from one source of a pull."""

    def __init__(self, pull: Pull, peer: bytes) -> None:
        self._pull, self._peer = pull, peer

    def place(self, offset: int, length: int) -> memoryview | None:
        return self._pull.place(self._peer, offset, length)

    def placed(self, start: int, end: int) -> None:
        self._pull.placed(self._peer, start, end)

    def write(self, offset: int, data: memoryview) -> None:
        self._pull.write(self._peer, offset, data)

    def finish(self) -> object:
        raise AssertionError("a pull is taken on request")

    def abort(self) -> None:
        pass  # `ended` says it


def _by_block(start: int, end: int, block_bytes: int) -> list[tuple[int, int, int]]:
    """Return (block, first, last) for each block that [start, end) touches."""
    found = []
    while start < end:
        block = start // block_bytes
        last = min(end, (block + 1) * block_bytes)
        found.append((block, start, last))
        start = last
    return found


def _hash_all(views: list[memoryview]) -> list[bytes]:
    return [block_hash(view) for view in views]


def _preview(value: object, otherwise: Preview) -> Preview:
    """Return what a value looks like. Blocking for a moment: nothing is copied."""
    from p2pnb.objects import encode

    try:
        return shown_preview(encode(value).preview)
    except CodecError:
        return otherwise
