"""The sending side of transfers: one `Outgoing` per call of send, one `OutgoingPart` per receiver."""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import p2pnb.errors
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

    def __init__(self, source: Source) -> None:
        self.id = secrets.token_hex(8)
        self.source = source
        self.name, self.kind = source.name, source.kind
        self.size_bytes = len(source.head) + source.content_bytes
        self.preview = source.preview
        self.parts: list[OutgoingPart] = []

    @property
    def ended(self) -> bool:
        return all(part.state.ended for part in self.parts)

    def part_changed(self, part: OutgoingPart) -> None:
        """Tell the room; close the source after the last part."""
        if self.ended:
            self.source.close()
        part.link.host.transfer_changed(self)

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
            )
        )
        self.link.flush()

    async def read(self, offset: int, length: int) -> bytes | memoryview | None:
        """Return bytes of the stream, head first; None after a failure of the source, which ends the transfer."""
        source = self.transfer.source
        head = source.head
        try:
            if offset < len(head):
                data: bytes | memoryview = head[offset : offset + length]
                if len(data) < length:
                    rest = await self._read_content(0, length - len(data))
                    data = b"".join((data, rest))
                return data
            return await self._read_content(offset - len(head), length)
        except P2PError as error:
            self._source_failed(error)
        except (OSError, ValueError) as error:
            self._source_failed(SourceChangedError(f"{self.transfer.name} can't be read any more: {error}"))
        return None

    async def _read_content(self, offset: int, length: int) -> bytes | memoryview:
        source = self.transfer.source
        if source.blocking:
            return await self.link.host.in_worker(source.read, offset, length)
        return source.read(offset, length)

    def accepted(self) -> None:
        self.state = TransferState.MOVING
        self.meter.advance(0, time.monotonic())
        self.transfer.part_changed(self)

    def moved(self) -> None:
        """Note what the peer has acknowledged so far."""
        if self.link.carrier:
            self.carriers.add(self.link.carrier)
        self.meter.advance(self.link.exchange.acknowledged_bytes(self.number), time.monotonic())
        self.link.host.transfer_changed(self.transfer)

    def all_acknowledged(self) -> None:
        """Everything landed at the peer: say whether the source was whole."""
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
