"""The receiving side of one transfer: from the offer to the value or the file in its final place."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from p2pnb.engine.sending import MAX_REASON_CHARS, TransferState, peer_error
from p2pnb.engine.transfers import Meter, Sink, open_sink
from p2pnb.errors import CodecError, CorruptDataError, P2PError, TransferCancelledError, TransferError
from p2pnb.files import printable
from p2pnb.protocol.wire import (
    MAX_PREVIEW_CELL_CHARS,
    MAX_PREVIEW_COLUMNS,
    MAX_PREVIEW_ROWS,
    Column,
    Offer,
    Preview,
)

if TYPE_CHECKING:
    from pathlib import Path

    from p2pnb.engine.link import Link

__all__ = ["Incoming", "shown_preview"]

_MAX_PREVIEW_TEXT: int = 4000


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
        self._head: dict[int, bytes] = {}  # pieces by offset
        self._head_done: asyncio.Future[bytes] = link.host.loop.create_future()
        self._all_arrived: asyncio.Future[None] = link.host.loop.create_future()
        self._sink: Sink | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    # ── decisions ───────────────────────────────────────────────────────────────────────────────────
    def accept(self, folder: Path) -> None:
        """Take it; files land in `folder`."""
        if self.state is TransferState.OFFERED and self._task is None:
            self.state = TransferState.MOVING
            self.meter.advance(0, time.monotonic())
            self._task = self.link.host.spawn(self._take(folder), "p2pnb receive")
            self._changed()

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

    # ── what the link brings ────────────────────────────────────────────────────────────────────────
    def piece_arrived(self, offset: int, data: memoryview) -> None:
        """Take new bytes of the stream."""
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
        elif self._sink is None:
            self._give_up(CorruptDataError("Content came before its description."))
        elif self._sink.blocking:
            task = self.link.host.spawn(self._write(self._sink, offset, data), "p2pnb write")
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)
        else:
            self._sink.write(offset - head_bytes, data)
            self._landed(offset, end)

    def all_arrived(self) -> None:
        """Every byte has landed and the source was whole."""
        if not self._all_arrived.done():
            self._all_arrived.set_result(None)

    def cancelled_by_peer(self, code: str, reason: str) -> None:
        error = peer_error(code, reason)
        cancelled = isinstance(error, TransferCancelledError)
        self._stop(error, TransferState.CANCELLED if cancelled else TransferState.FAILED)

    def fail(self, error: P2PError) -> None:
        """The peer is gone."""
        self._stop(error, TransferState.FAILED)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    async def _take(self, folder: Path) -> None:
        host, offer, exchange = self.link.host, self.offer, self.link.exchange
        try:
            exchange.accept(self.number)
            self.link.flush()
            if len(offer.head) == offer.head_bytes:
                head = offer.head
            else:
                head = await self._head_done
            self._sink = await host.in_worker(open_sink, offer, head, folder)
            if offer.content:
                await host.in_worker(self._sink.write, 0, memoryview(offer.content))
                if self.link.carrier:
                    self.carriers.add(self.link.carrier)
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
                self._abort_sink()
            raise
        else:
            self.link.incoming.pop(self.number, None)
            exchange.completed(self.number)
            self.meter.advance(self.size_bytes, time.monotonic())
            self.state = TransferState.DONE
            self.meter.end(time.monotonic())
            self.link.flush()
            host.item_arrived(self, value)
            self._changed()

    def _take_late_events(self) -> None:
        self.link.take_exchange_events()
        self.link.flush()

    async def _write(self, sink: Sink, offset: int, data: memoryview) -> None:
        try:
            await self.link.host.in_worker(sink.write, offset - self.offer.head_bytes, data)
        except (CodecError, TransferError) as error:
            self._give_up(error)
        except OSError as error:
            self._give_up(TransferError(f"The file can't be written: {error.strerror or error}"))
        else:
            self._landed(offset, offset + len(data))
            self.link.take_exchange_events()
            self.link.flush()

    def _landed(self, start: int, end: int) -> None:
        self.link.exchange.landed(self.number, start, end)
        self.meter.advance(self.link.exchange.landed_bytes(self.number), time.monotonic())
        self._changed()

    def _give_up(self, error: P2PError, state: TransferState = TransferState.FAILED) -> None:
        """End it from this side and tell the sender why."""
        if not self.state.ended:
            self.link.exchange.cancel_incoming(self.number, type(error).__name__, str(error)[:MAX_REASON_CHARS])
            self.link.host.loop.call_soon(self.link.flush)
            self._stop(error, state)

    def _stop(self, error: P2PError, state: TransferState) -> None:
        if self.state.ended:
            return
        self.link.incoming.pop(self.number, None)
        self._end(state, error)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        elif self._sink is not None:
            self._abort_sink()

    def _abort_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            self.link.host.spawn(self._abort(sink, list(self._writes)), "p2pnb abort")

    async def _abort(self, sink: Sink, writes: list[asyncio.Task[None]]) -> None:
        others = [task for task in writes if task is not asyncio.current_task()]
        await asyncio.gather(*others, return_exceptions=True)  # nobody writes while it is removed
        await self.link.host.in_worker(sink.abort)

    def _end(self, state: TransferState, error: P2PError | None) -> None:
        self.state, self.error = state, error
        self.meter.end(time.monotonic())
        self._changed()

    def _changed(self) -> None:
        self.link.host.transfer_changed(self)


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
