"""The receiving side of one transfer: from the offer to the value or the file in its final place."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from p2pnb.engine.sending import MAX_REASON_CHARS, TransferState, peer_error
from p2pnb.engine.transfers import FileSink, Meter, Sink, open_sink, receive_inline
from p2pnb.errors import CodecError, CorruptDataError, P2PError, TransferCancelledError, TransferError
from p2pnb.files import printable
from p2pnb.files.sizes import human_size
from p2pnb.protocol.wire import (
    HASH_BYTES,
    MAX_PREVIEW_CELL_CHARS,
    MAX_PREVIEW_COLUMNS,
    MAX_PREVIEW_ROWS,
    Column,
    Offer,
    Preview,
)

if TYPE_CHECKING:
    from pathlib import Path

    from p2pnb.engine.bulk import BulkPath
    from p2pnb.engine.link import Link

__all__ = ["Incoming", "PulledSink", "shown_preview"]

_MAX_PREVIEW_TEXT: Final = 4000
JOURNAL_BYTES: Final = 64 * 1024 * 1024  # what a killed process receives again at most
JOURNAL_S: Final = 2.0
HASHES_TIMEOUT_S: Final = 600.0  # the sender reads what we hold from its disk


class PulledSink(Protocol):
    """Where the answer to a Pull goes; offsets are of the content. Event loop only, except `finish`."""

    def place(self, offset: int, length: int) -> memoryview | None:
        """Return where these bytes may be written; None: hand them to `write`."""

    def placed(self, start: int, end: int) -> None:
        """Hear that the place was filled."""

    def write(self, offset: int, data: memoryview) -> None:
        """Take bytes; the view is good only during the call."""

    def finish(self) -> object:
        """Everything arrived (not called on request); blocking."""

    def abort(self) -> None:
        """Hear that nothing more comes."""


class Incoming:
    """One item that a peer offers or sends. Lives on the event loop; plain attributes may be read anywhere."""

    direction = "in"

    def __init__(self, link: Link, offer: Offer) -> None:
        self.id = secrets.token_hex(8)
        self.link = link
        self.offer = offer
        self.number = offer.transfer
        self.kind, self.size_bytes, self.count = offer.kind, offer.size_bytes, offer.count
        self.name = printable(offer.name) or "unnamed"
        self.preview = shown_preview(offer.preview)
        self.state = TransferState.OFFERED
        self.error: P2PError | None = None
        self.meter = Meter(offer.size_bytes)
        self.carriers: set[str] = set()
        self.paused_here = self.paused_there = False
        self.resumed_bytes = 0  # that were here from an earlier try
        self._head: dict[int, bytes] = {}  # pieces by offset
        self._head_done: asyncio.Future[bytes] = link.host.loop.create_future()
        self._all_arrived: asyncio.Future[None] = link.host.loop.create_future()
        self._hashes: asyncio.Future[bytes] | None = None
        self._sink: Sink | None = None
        self._pulled: PulledSink | None = None
        self._on_request = False
        self._ended: Callable[[Incoming], None] | None = None
        self._queue: list[tuple[int, memoryview, bytearray | None]] = []  # to be written to disk
        self._writing: asyncio.Task[None] | None = None
        self._open_places: dict[int, bytearray] = {}  # buffers given out by `place`
        self._journalled = (0, time.monotonic())
        self._task: asyncio.Task[None] | None = None

    # ── decisions ───────────────────────────────────────────────────────────────────────────────────
    def accept(self, folder: Path) -> None:
        """Take it; files land in `folder`."""
        if self.state is not TransferState.OFFERED or self._task is not None:
            return
        self.state = TransferState.MOVING
        self.meter.advance(0, time.monotonic())
        if self._take_at_once():
            return
        self._task = self.link.host.spawn(self._take(folder), "p2pnb receive")
        self._changed()

    def accept_into(self, sink: PulledSink, *, on_request: bool, ended: Callable[[Incoming], None]) -> None:
        """Take the answer to a Pull into a sink of the caller's; `ended` is called once, whoever ended it."""
        self.state = TransferState.MOVING
        self._pulled, self._on_request, self._ended = sink, on_request, ended
        self.meter.advance(0, time.monotonic())
        self._task = self.link.host.spawn(self._take_pulled(sink), "p2pnb receive")

    def decline(self, reason: str = "") -> None:
        """Refuse it."""
        if self.state is TransferState.OFFERED and self._task is None:
            self.link.incoming.pop(self.number, None)
            self.link.exchange.decline(self.number, reason[:MAX_REASON_CHARS])
            self._end(TransferState.DECLINED, None)
            self.link.host.loop.call_soon(self.link.flush)

    def cancel(self) -> None:
        """Stop receiving it (or refuse it, if it did not start)."""
        if self.state is TransferState.OFFERED:
            self.decline()
        else:
            self._give_up(TransferCancelledError("The receiver cancelled."), TransferState.CANCELLED)

    def pause(self, paused: bool) -> None:
        """Let nothing more come for a while, or let it come again."""
        if not self.state.ended and self.paused_here != paused:
            self.paused_here = paused
            self.link.exchange.pause(self.number, outgoing=False, paused=paused)
            self.link.flush()
            self._changed()

    def want(self, ranges: list[tuple[int, int]]) -> None:
        """On request: ask for these ranges of the content."""
        head = self.offer.head_bytes
        self.link.exchange.want(self.number, [(start + head, end + head) for start, end in ranges])
        self.link.host.loop.call_soon(self.link.flush)

    def done(self) -> None:
        """On request: nothing more is needed of this peer."""
        if not self.state.ended:
            self.link.incoming.pop(self.number, None)
            self.link.exchange.completed(self.number)
            self.link.host.loop.call_soon(self.link.flush)
            self._end(TransferState.DONE, None)
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()

    # ── what the link brings ────────────────────────────────────────────────────────────────────────
    def place(self, offset: int, length: int) -> memoryview | None:
        """Return where these bytes of the stream may be decrypted to; None: give them to `piece_arrived`."""
        start = offset - self.offer.head_bytes
        if self.state is not TransferState.MOVING or start < 0:
            return None
        if self._pulled is not None:
            return self._pulled.place(start, length)
        if self._sink is None:
            return None
        if self._sink.blocking:
            buffer = self._open_places[offset] = self.link.host.write_buffers.take()
            return memoryview(buffer)[:length]
        return self._sink.place(start, length)

    def placed(self, start: int, end: int, path: BulkPath) -> None:
        """The place was filled."""
        self.carriers.add(path.transport)
        buffer = self._open_places.pop(start, None)
        if buffer is not None:
            self._write_later(start, memoryview(buffer)[: end - start], buffer)
            connection: Any = path.connection
            self.link.host.write_buffers.hold(connection)
            return
        if self._pulled is not None:
            self._pulled.placed(start - self.offer.head_bytes, end - self.offer.head_bytes)
        self._landed(start, end)

    def not_placed(self, start: int, end: int) -> None:
        """The place was not filled after all."""
        buffer = self._open_places.pop(start, None)
        if buffer is not None:
            self.link.host.write_buffers.give([buffer])

    def piece_arrived(self, offset: int, data: memoryview) -> None:
        """Take new bytes of the stream, which stay as they are."""
        if self.state is not TransferState.MOVING:
            return
        if self.link.carrier:
            self.carriers.add(self.link.carrier)
        head_bytes = self.offer.head_bytes
        end = offset + len(data)
        if offset < head_bytes:
            if end > head_bytes:  # beyond the credit, so no honest sender
                self._give_up(CorruptDataError("Content came together with its description."))
                return
            self._head[offset] = bytes(data)
            self._landed(offset, end)
            if sum(map(len, self._head.values())) == head_bytes and not self._head_done.done():
                self._head_done.set_result(b"".join(self._head[start] for start in sorted(self._head)))
        elif self._pulled is not None:
            self._pulled.write(offset - head_bytes, data)
            self._landed(offset, end)
        elif self._sink is None:
            self._give_up(CorruptDataError("Content came before its description."))
        elif self._sink.blocking:
            self._write_later(offset, data, None)
        else:
            self._sink.write(offset - head_bytes, data)
            self._landed(offset, end)

    def hashes_arrived(self, digests: bytes) -> None:
        """Take the hashes that were asked for."""
        if self._hashes is not None and not self._hashes.done():
            self._hashes.set_result(digests)

    def pause_changed(self, paused: bool) -> None:
        """The sender paused it, or goes on."""
        self.paused_there = paused
        self._changed()

    def all_arrived(self) -> None:
        """Every byte has landed and the source was whole."""
        if not self._all_arrived.done():
            self._all_arrived.set_result(None)

    def cancelled_by_peer(self, code: str, reason: str) -> None:
        error = peer_error(code, reason)
        cancelled = isinstance(error, TransferCancelledError)
        self._stop(error, TransferState.CANCELLED if cancelled else TransferState.FAILED)

    def fail(self, error: P2PError) -> None:
        """The peer is gone: what came of a file stays, to go on from."""
        if isinstance(self._sink, FileSink) and self._sink.keeps:
            share = self.meter.done_bytes / max(1, self.size_bytes)
            error = type(error)(
                f"{error} {share:.0%} of {self.name!r} ({human_size(self.meter.done_bytes)}) are kept for a week: "
                "when it is sent again, it goes on from there."
            )
        self._stop(error, TransferState.FAILED, keep=True)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _take_at_once(self) -> bool:
        """Take a small value of a simple kind without leaving the event loop."""
        offer = self.offer
        if offer.kind != "object" or len(offer.head) + len(offer.content) != offer.size_bytes:
            return False
        try:
            found = receive_inline(offer)
        except (CodecError, TransferError) as error:
            self._give_up(error)
            return True
        if found is None:
            return False
        self.link.exchange.accept(self.number)
        if self.link.carrier:
            self.carriers.add(self.link.carrier)
        self._finished(found[0])
        return True

    async def _take(self, folder: Path) -> None:
        host, offer, exchange = self.link.host, self.offer, self.link.exchange
        try:
            exchange.accept(self.number)
            self.link.flush()
            if len(offer.head) == offer.head_bytes:
                head = offer.head
            else:
                head = await self._head_done
            self._sink = await host.in_worker(open_sink, offer, head, folder, host.arena)
            if offer.content:
                await host.in_worker(self._sink.write, 0, memoryview(offer.content))
                if self.link.carrier:
                    self.carriers.add(self.link.carrier)
            elif isinstance(self._sink, FileSink):
                await self._resume(self._sink)
            host.share_window()
            exchange.open_window(self.number)
            self._take_late_events()
            await self._all_arrived
            value = await host.in_worker(self._sink.finish)
        except (CodecError, TransferError) as error:
            self._give_up(error)
        except (OSError, MemoryError, ValueError, msgspec.MsgspecError) as error:
            self._give_up(TransferError(f"{type(error).__name__} at the receiver: {error}"))
        except asyncio.CancelledError:
            if self._sink is not None:
                self._abort_sink(keep=not self.state.ended)
            raise
        else:
            self._finished(value)

    def _finished(self, value: object) -> None:
        self.link.incoming.pop(self.number, None)
        self.link.exchange.completed(self.number)
        self.meter.advance(self.size_bytes, time.monotonic())
        self.state = TransferState.DONE
        self.meter.end(time.monotonic())
        self.link.flush()
        self._sink = None
        self.link.host.item_arrived(self, value)
        self._changed()

    async def _take_pulled(self, sink: PulledSink) -> None:
        exchange, offer = self.link.exchange, self.offer
        try:
            exchange.accept(self.number, on_request=self._on_request)
            if offer.content:
                sink.write(0, memoryview(offer.content))
            exchange.open_window(self.number)
            self._take_late_events()
            await self._all_arrived
            if self._on_request:  # it all came with the offer
                return
            await self.link.host.in_worker(sink.finish)
        except (CodecError, TransferError) as error:
            self._give_up(error)
        except (OSError, MemoryError, ValueError, msgspec.MsgspecError) as error:
            self._give_up(TransferError(f"{type(error).__name__} at the receiver: {error}"))
        else:
            self.done()
            self.link.flush()

    async def _resume(self, sink: FileSink) -> None:
        """Go on from what an earlier try left, as far as the sender's hashes of it are the same."""
        host, exchange, head = self.link.host, self.link.exchange, self.offer.head_bytes
        plan = sink.resumable()
        if plan is None:
            return
        self._hashes = host.loop.create_future()
        exchange.ask_hashes(self.number, plan.block_bytes, plan.blocks)
        self.link.flush()
        async with asyncio.timeout(HASHES_TIMEOUT_S):
            digests = await self._hashes
        kept = await host.in_worker(sink.verify, plan, digests, HASH_BYTES)
        for start, end in kept:
            self.resumed_bytes += end - start
        exchange.have(self.number, [(start + head, end + head) for start, end in kept])
        self.meter.advance(exchange.landed_bytes(self.number), time.monotonic())
        self._changed()

    def _take_late_events(self) -> None:
        self.link.take_exchange_events()
        self.link.flush()

    # ── to disk ─────────────────────────────────────────────────────────────────────────────────────
    def _write_later(self, offset: int, data: memoryview, buffer: bytearray | None) -> None:
        sink = self._sink
        assert isinstance(sink, FileSink)
        self._queue.append((offset, data, buffer))
        if self._writing is None:
            self._writing = self.link.host.spawn(self._write_queued(sink), "p2pnb write")

    async def _write_queued(self, sink: FileSink) -> None:
        """Write what waits, in one call into a worker, as long as something waits."""
        host = self.link.host
        try:
            while self._queue and not self.state.ended:
                batch, self._queue = self._queue, []
                try:
                    await host.in_worker(_write_all, sink, batch, self.offer.head_bytes, self._journal_due())
                finally:
                    host.write_buffers.give([buffer for _, _, buffer in batch if buffer is not None])
                if self.state is TransferState.MOVING:
                    for offset, data, _ in batch:
                        self.link.exchange.landed(self.number, offset, offset + len(data))
                    self._progressed()
                    self.link.take_exchange_events()
                    self.link.flush()
        except (CodecError, TransferError) as error:
            self._give_up(error)
        except OSError as error:
            self._give_up(TransferError(f"The file can't be written: {error.strerror or error}"))
        finally:
            self._writing = None
            self._drop_queue()

    def _drop_queue(self) -> None:
        if self.state.ended and self._queue:
            queue, self._queue = self._queue, []
            self.link.host.write_buffers.give([buffer for _, _, buffer in queue if buffer is not None])

    def _journal_due(self) -> bool:
        done, at = self._journalled
        now, landed = time.monotonic(), self.meter.done_bytes
        if landed - done < JOURNAL_BYTES and now - at < JOURNAL_S:
            return False
        self._journalled = (landed, now)
        return True

    def _landed(self, start: int, end: int) -> None:
        self.link.exchange.landed(self.number, start, end)
        self._progressed()

    def _progressed(self) -> None:
        self.meter.advance(self.link.exchange.landed_bytes(self.number), time.monotonic())
        self._changed()

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────
    def _give_up(self, error: P2PError, state: TransferState = TransferState.FAILED) -> None:
        """End it from this side and tell the sender why."""
        if not self.state.ended:
            self.link.exchange.cancel_incoming(self.number, type(error).__name__, str(error)[:MAX_REASON_CHARS])
            self.link.host.loop.call_soon(self.link.flush)
            self._stop(error, state)

    def _stop(self, error: P2PError, state: TransferState, *, keep: bool = False) -> None:
        if self.state.ended:
            return
        self.link.incoming.pop(self.number, None)
        self._end(state, error)
        self._abort_sink(keep=keep)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self._writing is None:
            self._drop_queue()
        if self._pulled is not None:
            self._pulled.abort()

    def _abort_sink(self, *, keep: bool) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            self.link.host.spawn(self._abort(sink, self._writing, keep), "p2pnb abort")

    async def _abort(self, sink: Sink, writing: asyncio.Task[None] | None, keep: bool) -> None:
        if writing is not None and writing is not asyncio.current_task():
            await asyncio.wait([writing])  # nobody writes while it is removed
        await self.link.host.in_worker(sink.keep if keep else sink.abort)

    def _end(self, state: TransferState, error: P2PError | None) -> None:
        self.state, self.error = state, error
        self.meter.end(time.monotonic())
        if self._open_places:
            self.link.host.write_buffers.give(list(self._open_places.values()))
            self._open_places.clear()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)
        self._changed()

    def _changed(self) -> None:
        if self._pulled is None:  # the answer to a pull is shown as the pull
            self.link.host.transfer_changed(self)


def _write_all(
    sink: FileSink, batch: list[tuple[int, memoryview, bytearray | None]], head_bytes: int, journal: bool
) -> None:
    for offset, data, _ in batch:
        sink.write(offset - head_bytes, data)
    if journal:
        sink.journal()


def shown_preview(preview: Preview) -> Preview:
    """Return a peer's preview with every string made printable and every length bounded."""
    cell = MAX_PREVIEW_CELL_CHARS
    return Preview(
        type=printable(preview.type, 100),
        summary=printable(preview.summary, 300),
        columns=[
            Column(printable(c.name, cell), printable(c.type, cell)) for c in preview.columns[:MAX_PREVIEW_COLUMNS]
        ],
        rows=[[printable(text, cell) for text in row[:MAX_PREVIEW_COLUMNS]] for row in preview.rows[:MAX_PREVIEW_ROWS]],
        text="\n".join(printable(line, 500) for line in preview.text[:_MAX_PREVIEW_TEXT].split("\n")),
    )
