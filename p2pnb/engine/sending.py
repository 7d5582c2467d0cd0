"""The sending side of transfers: one `Outgoing` per call of send, one `OutgoingPart` per receiver."""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import p2pnb.errors
from p2pnb.engine.blocks import TOGETHER_BYTES
from p2pnb.engine.transfers import Meter, Source
from p2pnb.errors import (
    CodecError,
    DeclinedError,
    P2PError,
    SourceChangedError,
    TransferCancelledError,
    TransferError,
)
from p2pnb.files import printable
from p2pnb.protocol.wire import MAX_INLINE_BYTES, Offer

if TYPE_CHECKING:
    from p2pnb.engine.link import Link

__all__ = ["Outgoing", "OutgoingPart", "TransferState", "peer_error"]

STALLED_S: Final = 1.0  # a receiver that took nothing for so long holds no other back
INLINE_HEAD_BYTES: Final = MAX_INLINE_BYTES
MAX_REASON_CHARS: Final = 500


class TransferState(StrEnum):
    OFFERED = "offered"
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DECLINED = "declined"

    @property
    def ended(self) -> bool:
        return self not in (TransferState.OFFERED, TransferState.MOVING)


class Outgoing:
    """One thing sent to one or several peers. Lives on the event loop; plain attributes may be read anywhere."""

    direction = "out"

    def __init__(self, source: Source, *, answers: int = 0) -> None:
        self.answers = answers  # the receiver's Pull
        self.internal = answers != 0  # shown to the puller as its pull, and here not at all
        self._closed = False
        self.id = secrets.token_hex(8)
        self.source = source
        self.name, self.kind = source.name, source.kind
        self.size_bytes = len(source.head) + source.content_bytes
        self.preview = source.preview
        self.parts: list[OutgoingPart] = []

    @property
    def ended(self) -> bool:
        return all(part.state.ended for part in self.parts)

    @property
    def shared(self) -> bool:
        """True if several receivers want the same bytes."""
        return len(self.parts) > 1

    @property
    def can_retry(self) -> bool:
        """True if a receiver did not get it for a reason that may pass."""
        return self.ended and any(part.state is TransferState.FAILED for part in self.parts)

    def part_changed(self, part: OutgoingPart) -> None:
        """Tell the room; close the source after the last part."""
        if self.ended and not self._closed:
            self._closed = True
            part.link.host.blocks.drop(self.source)
            self.source.close()
        if not self.internal:
            part.link.host.transfer_changed(self)

    def runs_ahead(self, part: OutgoingPart, offset: int) -> bool:
        """Tell whether a receiver had better wait for slower ones, so that all share one reading of the source.

        Nobody waits for one that stands still: it reads again, later.
        """
        if not self.source.blocking or not self.shared:
            return False
        limit = time.monotonic() - STALLED_S
        slow = [other for other in self.parts if other.state is TransferState.MOVING and other.moved_at > limit]
        return any(other is not part and offset - other.position >= TOGETHER_BYTES for other in slow)

    def pause(self, paused: bool) -> None:
        """Let nothing more go out for a while, or let it go on."""
        for part in self.parts:
            part.pause(paused)

    def cancel(self) -> None:
        """End what is still under way."""
        for part in self.parts:
            part.cancel()


class OutgoingPart:
    """One receiver's share of an `Outgoing`."""

    def __init__(self, transfer: Outgoing, link: Link) -> None:
        self.transfer = transfer
        self.link = link
        self.state = TransferState.OFFERED
        self.error: P2PError | None = None
        self.meter = Meter(transfer.size_bytes)
        self.carriers: set[str] = set()  # transports that carried bulk of it
        self.paused_here = self.paused_there = False
        self.position = 0  # how far chunks went out
        self.moved_at = 0.0  # when one last did
        self.resumed_bytes: int | None = None  # that the receiver had from an earlier try; None: not known to have any
        self._resumes = False  # hashes were asked for, and the next acknowledgement tells
        self.sent_bytes = 0  # in chunks, what went out again after a loss included
        self.number = link.exchange.next_transfer()

    def offer(self) -> None:
        """Send the offer."""
        source = self.transfer.source
        inline_head = len(source.head) <= INLINE_HEAD_BYTES
        inline_all = inline_head and self.transfer.size_bytes <= MAX_INLINE_BYTES and self.link.may_inline()
        content = b""
        if inline_all and source.content_bytes:
            try:
                content = bytes(source.read(0, source.content_bytes))
                source.check_unchanged()
            except P2PError as error:
                self.fail(error)
                return
        self.link.outgoing[self.number] = self
        self.link.exchange.offer(
            Offer(
                transfer=self.number,
                kind=source.kind,
                name=source.name,
                size_bytes=self.transfer.size_bytes,
                head_bytes=len(source.head),
                preview=source.preview,
                codec=source.codec,
                count=source.count,
                head=source.head if inline_head else b"",
                content=content,
                answers=self.transfer.answers,
            )
        )
        self.link.flush()

    def read_now(self, offset: int, length: int) -> bytes | memoryview | None:
        """Return bytes of the stream if that needs no waiting; the view is good until the event loop goes on.

        None: use `read`, or the source failed and the transfer with it.
        """
        source = self.transfer.source
        ahead = len(source.head) - offset
        if ahead >= length:
            return source.head[offset : offset + length]
        if ahead > 0:
            rest = self._content_now(0, length - ahead)
            return None if rest is None else b"".join((source.head[offset:], rest))
        return self._content_now(-ahead, length)

    def _content_now(self, offset: int, length: int) -> bytes | memoryview | None:
        source = self.transfer.source
        try:
            if source.blocking:
                return self.link.host.blocks.now(source, offset, length, shared=self.transfer.shared)
            return source.read(offset, length)
        except P2PError as error:
            self._source_failed(error)
        except (OSError, ValueError) as error:
            self._source_failed(self._unreadable(error))
        return None

    async def read(self, offset: int, length: int) -> bytes | memoryview | None:
        """Return bytes of the stream; None after a failure of the source, which ends the transfer."""
        source = self.transfer.source
        ahead = max(0, len(source.head) - offset)
        try:
            if length > ahead:
                start = max(0, offset - len(source.head))
                await self.link.host.blocks.get(source, start, length - ahead, shared=self.transfer.shared)
        except P2PError as error:
            self._source_failed(error)
        except (OSError, ValueError) as error:
            self._source_failed(self._unreadable(error))
        else:
            return self.read_now(offset, length)
        return None

    def _unreadable(self, error: Exception) -> SourceChangedError:
        return SourceChangedError(f"{self.transfer.name} can't be read any more: {error}")

    def hashes_asked(self, block_bytes: int, blocks: tuple[tuple[int, int], ...]) -> None:
        """The receiver holds a part of this from an earlier try: tell it what the source has there now."""
        self.link.host.spawn(self._answer_hashes(block_bytes, blocks), "p2pnb hashes")

    async def _answer_hashes(self, block_bytes: int, blocks: tuple[tuple[int, int], ...]) -> None:
        source = self.transfer.source
        try:
            digests = [await self.link.host.in_worker(source.hash_blocks, block_bytes, *span) for span in blocks]
        except P2PError as error:
            self._source_failed(error)
        else:
            self.link.exchange.answer_hashes(self.number, b"".join(digests))
            self._resumes = True
            self.link.flush()

    def accepted(self) -> None:
        self.state = TransferState.MOVING
        self.moved_at = time.monotonic()
        self.meter.advance(0, time.monotonic())
        self.transfer.part_changed(self)

    def moved(self, transport: str, end: int) -> None:
        """Note that a chunk went out, and what the peer has acknowledged so far."""
        exchange = self.link.exchange
        now = time.monotonic()
        self.moved_at = now
        self.position = max(self.position, end)
        self.carriers.add(transport)
        self.sent_bytes = exchange.sent_bytes(self.number)
        acknowledged = exchange.acknowledged_bytes(self.number)
        if acknowledged != self.meter.done_bytes or self._resumes:  # one acknowledgement is for many chunks
            self._note_resumed()
            self.meter.advance(acknowledged, now)
            if not self.transfer.internal:
                self.link.host.transfer_changed(self.transfer)

    def _note_resumed(self) -> None:
        if self._resumes:
            self._resumes = False
            acknowledged = self.link.exchange.acknowledged_bytes(self.number)
            self.resumed_bytes = max(0, acknowledged - len(self.transfer.source.head))

    def pause(self, paused: bool) -> None:
        """Send nothing more of it for a while, or go on."""
        if not self.state.ended and self.paused_here != paused:
            self.paused_here = paused
            self.link.exchange.pause(self.number, outgoing=True, paused=paused)
            self.link.flush()
            self.transfer.part_changed(self)

    def pause_changed(self, paused: bool) -> None:
        """The receiver paused it, or goes on."""
        self.paused_there = paused
        self.transfer.part_changed(self)

    def all_acknowledged(self) -> None:
        """Everything landed at the peer: say whether the source was whole."""
        self._note_resumed()
        self.meter.advance(self.transfer.size_bytes, time.monotonic())
        self.link.host.spawn(self._finish(), "p2pnb finish")

    async def _finish(self) -> None:
        try:
            await self.link.host.in_worker(self.transfer.source.check_unchanged)
        except P2PError as error:
            self._source_failed(error)
        else:
            self.link.exchange.finish(self.number)
        self.link.flush()

    def completed(self) -> None:
        if self.meter.started_at is None and self.link.carrier:
            self.carriers.add(self.link.carrier)
        self.meter.advance(self.transfer.size_bytes, time.monotonic())
        self._end(TransferState.DONE, None)

    def declined(self, reason: str) -> None:
        said = f": {printable(reason, MAX_REASON_CHARS)}" if reason else "."
        self._end(TransferState.DECLINED, DeclinedError(f"The receiver declined {self.transfer.name!r}{said}"))

    def cancelled_by_peer(self, code: str, reason: str) -> None:
        error = peer_error(code, reason)
        cancelled = isinstance(error, TransferCancelledError)
        self._end(TransferState.CANCELLED if cancelled else TransferState.FAILED, error)

    def cancel(self) -> None:
        """End it from this side."""
        if not self.state.ended:
            self._take_back("TransferCancelledError", "The sender cancelled.")
            self._end(TransferState.CANCELLED, TransferCancelledError(f"You cancelled sending {self.transfer.name!r}."))

    def fail(self, error: P2PError) -> None:
        """End it because the peer is gone."""
        if not self.state.ended:
            self._end(TransferState.FAILED, error)

    def _source_failed(self, error: P2PError) -> None:
        if not self.state.ended:
            self._take_back(type(error).__name__, str(error))
            self._end(TransferState.FAILED, error)

    def _take_back(self, code: str, reason: str) -> None:
        self.link.outgoing.pop(self.number, None)
        self.link.exchange.cancel_outgoing(self.number, code, reason)
        self.link.host.loop.call_soon(self.link.flush)

    def _end(self, state: TransferState, error: P2PError | None) -> None:
        self.state, self.error = state, error
        self.meter.end(time.monotonic())
        self.transfer.part_changed(self)


def peer_error(code: str, reason: str) -> P2PError:
    """Return the exception for a reason that a peer gave; only the transfer's own kinds can be named by it."""
    kind = getattr(p2pnb.errors, code, None) if code in p2pnb.errors.__all__ else None
    allowed = isinstance(kind, type) and issubclass(kind, (TransferError, CodecError))
    text = printable(reason, MAX_REASON_CHARS) or "The other side gave no reason."
    return kind(text) if allowed and kind is not None else TransferError(text)
