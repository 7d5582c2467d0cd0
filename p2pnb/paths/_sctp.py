"""A faster data plane for aiortc's SCTP associations, put under one association at a time.

aiortc's own has two limits. Under loss its window collapses (one packet in a hundred at 50 ms leaves 0.3 MB/s
of a 100 Mbit/s line), and its work per packet grows with what is under way, in pure Python. `tune` replaces the
handling of DATA and SACK chunks, and nothing else, of one association before it starts; opening, closing,
stream resets and everything on the wire stay aiortc's and RFC 9260's, so the other end may be any SCTP.

    _sctp_window    how much may be under way: follows the measured rate instead of every loss
    _sctp_flight    what was sent: acknowledgements, losses found by order of sending
    _sctp_inbound   what arrived: order, gaps, messages, bounds against a hostile peer

aiortc has no interface for this, so the association gets a subclass of its own class. `tune` first compares
all that the subclass builds on with what it finds; an aiortc that looks different runs as it is, which is
logged once. Partial reliability is not announced: nothing here skips data.

Rejected: only correcting aiortc's window and timer, because its walks over everything under way, several per
SACK, grow with the window; and only opening more associations, of which sixteen reach a third of such a line.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from p2pnb.paths._sctp_flight import Flight, Piece
from p2pnb.paths._sctp_inbound import FIRST, LAST, RECEIVE_WINDOW, Inbound, InboundError
from p2pnb.paths._sctp_window import Window

__all__ = ["Tuned", "tune"]

PACKET_BYTES: Final = 1160  # user data of one packet, as aiortc has it: fits the smallest IPv6 path under DTLS
SACK_EVERY: Final = 2  # packets (RFC 9260 §6.2)
SACK_EVERY_BUSY: Final = 4  # while packets come quickly: a SACK costs both ends as much as a packet
BUSY_PACKETS: Final = 200  # before that, a sender that starts slowly needs each SACK
SACK_DELAY_S: Final = 0.02
PROBES: Final = 3  # unanswered, before the window collapses
MAX_PROBE_S: Final = 2.0
PACE_S: Final = 0.001
INITIAL_RTO_S: Final = 1.0  # of the association's opening (RFC 9260 §16; aiortc has the 3 s of RFC 4960)
_MASK: Final = 0xFFFF_FFFF
_HALF: Final = 0x8000_0000
_DATA, _SACK, _FORWARD_TSN, _INIT = 0, 3, 192, 1
_UNORDERED: Final = 4
_DCEP: Final = 50

_PACKET = Struct("!HHL")
_CHECKSUM = Struct("<L")
_CHUNK = Struct("!BBH")
_DATA_HEADER = Struct("!BBHLHHL")
_DATA_FIELDS = Struct("!LHHL")
_SACK_FIELDS = Struct("!LLHH")
_SACK_HEADER = Struct("!BBHLLHH")
_GAP = Struct("!HH")
_TSN = Struct("!L")
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")

_log = logging.getLogger("p2pnb.webrtc")

# What the subclass reads, calls or replaces, with the parameters it counts on. A method that is gone, is
# called differently or is no coroutine any more means an aiortc we don't know.
_METHODS: Final = {
    "_abort": (), "_data_channel_flush": (), "_data_channel_receive": ("stream_id", "pp_id", "data"),
    "_handle_data": ("data",), "_receive_chunk": ("chunk",), "_reset_deferred_streams": (), "_send_sack": (),
    "_transmit": (), "_transmit_reconfig": (),
}  # fmt: skip
_FIELDS: Final[dict[str, Any]] = {
    "_advertised_rwnd": int, "_association_state": object, "_data_channel_id": (int, type(None)),
    "_data_channel_queue": deque, "_data_channels": dict, "_last_received_tsn": (int, type(None)),
    "_local_partial_reliability": bool, "_local_port": int, "_local_tsn": int, "_local_verification_tag": int,
    "_loop": asyncio.AbstractEventLoop, "_outbound_queue": deque, "_outbound_stream_seq": dict,
    "_reconfig_deferred": object, "_remote_port": (int, type(None)), "_remote_verification_tag": int,
    "_rto": float, "_sent_queue": deque,
}  # fmt: skip

_classes: dict[type, type] = {}
_told: list[str] = []


class Tuned:
    """What `tune` puts before aiortc's own methods. Everything runs on the association's event loop."""

    if TYPE_CHECKING:
        State: Any
        transport: Any
        _advertised_rwnd: int
        _association_state: Any
        _data_channel_id: int | None
        _data_channel_queue: deque[tuple[Any, int, bytes]]
        _data_channels: dict[int, Any]
        _last_received_tsn: int | None
        _local_partial_reliability: bool
        _local_port: int
        _local_tsn: int
        _local_verification_tag: int
        _loop: asyncio.AbstractEventLoop
        _outbound_stream_seq: dict[int, int]
        _reconfig_deferred: object
        _remote_port: int
        _remote_verification_tag: int
        _rto: float
        _abort: Callable[[], Any]
        _data_channel_receive: Callable[[int, int, bytes], Any]
        _reset_deferred_streams: Callable[[], Any]
        _transmit_reconfig: Callable[[], Any]

    def _tuned_start(self, crc32c: Callable[[bytes], int], chunk_types: dict[int, Any]) -> None:
        self._tuned_crc32c = crc32c
        self._tuned_chunk_types = chunk_types
        self._tuned_window = Window(PACKET_BYTES)
        self._tuned_flight = Flight()
        self._tuned_first_tsn = self._local_tsn
        self._tuned_peer_window = 64 * 1024  # until the first SACK says more; every SCTP has that
        self._tuned_message: tuple[int, int, int, int, bytes] | None = None  # stream, number, kind, flags, data
        self._tuned_at = 0  # how much of it went into packets
        self._tuned_probe: asyncio.TimerHandle | None = None
        self._tuned_probe_at = 0.0
        self._tuned_probes = 0
        self._tuned_probed_at = 0.0
        self._tuned_probed_seq = -1
        self._tuned_pace: asyncio.TimerHandle | None = None
        self._tuned_inbound: Inbound | None = None
        self._tuned_inbound_first = 0
        self._tuned_unsacked = 0
        self._tuned_received = 0
        self._tuned_sack: asyncio.TimerHandle | None = None
        self._tuned_told: Callable[[], None] | None = None
        self._advertised_rwnd = RECEIVE_WINDOW
        self._local_partial_reliability = False
        self._rto = INITIAL_RTO_S

    # ── for the connection ──────────────────────────────────────────────────────────────────────────
    @property
    def unacknowledged(self) -> int:
        """Bytes of messages taken from the channel that the peer does not have yet."""
        message = self._tuned_message
        rest = len(message[4]) - self._tuned_at if message is not None and message[2] != _DCEP else 0
        return self._tuned_flight.outstanding + rest

    @property
    def capacity(self) -> int:
        """Bytes under way that keep the line busy, as measured so far."""
        return self._tuned_window.capacity

    def on_progress(self, told: Callable[[], None] | None) -> None:
        """Call `told` whenever `unacknowledged` or `capacity` may have changed by what the peer said."""
        self._tuned_told = told

    # ── in place of aiortc's ────────────────────────────────────────────────────────────────────────
    async def _handle_data(self, data: bytes) -> None:
        size = len(data)
        if size < 16 or _CHECKSUM.unpack_from(data, 8)[0] != self._tuned_crc32c(data[:8] + b"\0\0\0\0" + data[12:]):
            return
        at = 12
        if _PACKET.unpack_from(data)[2] != (0 if data[at] == _INIT else self._local_verification_tag):
            return
        fresh = False
        while at + 4 <= size:
            kind, flags, length = _CHUNK.unpack_from(data, at)
            if length < 4 or at + length > size:
                return
            if kind == _DATA:
                if length <= 16 or self._last_received_tsn is None:
                    return
                fresh = True
                if not await self._tuned_take(flags, data, at + 4, at + length):
                    return
            elif kind == _SACK:
                self._tuned_acknowledged(data[at + 4 : at + length])
            elif kind != _FORWARD_TSN:
                await self._tuned_other(kind, flags, data[at + 4 : at + length])
            at += length + (-length & 3)
        if fresh:
            self._tuned_sack_soon()

    async def _data_channel_flush(self) -> None:
        if self._association_state == self.State.ESTABLISHED:
            self._tuned_pump()
            await self._transmit_reconfig()

    async def _transmit(self) -> None:
        self._tuned_pump()

    async def _send_sack(self) -> None:
        self._tuned_send_sack()

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)  # type: ignore[misc]
        if state == self.State.CLOSED:
            for handle in (self._tuned_probe, self._tuned_pace, self._tuned_sack):
                if handle is not None:
                    handle.cancel()
            self._tuned_flight.clear()
            self._tuned_message = None
            self._tuned_told = None

    # ── receiving ───────────────────────────────────────────────────────────────────────────────────
    async def _tuned_other(self, kind: int, flags: int, body: bytes) -> None:
        chunk_type = self._tuned_chunk_types.get(kind)
        if chunk_type is None:
            return
        known = self._last_received_tsn
        await super()._receive_chunk(chunk_type(flags=flags, body=body))  # type: ignore[misc]
        if kind == _INIT and self._tuned_inbound is not None:
            self._last_received_tsn = known  # a late copy: aiortc would count from the beginning again

    async def _tuned_take(self, flags: int, data: bytes, at: int, end: int) -> bool:
        """Take a DATA chunk; False if it ended the association."""
        tsn, stream, _, kind = _DATA_FIELDS.unpack_from(data, at)
        inbound = self._tuned_inbound
        if inbound is None:
            inbound = self._tuned_inbound = Inbound()
            self._tuned_inbound_first = (int(self._last_received_tsn or 0) + 1) & _MASK
        # the distance from what is expected, with its sign: TSNs wrap
        expected = (self._tuned_inbound_first + inbound.cumulative + 1) & _MASK
        distance = ((tsn - expected + _HALF) & _MASK) - _HALF
        try:
            messages = inbound.take(inbound.cumulative + 1 + distance, flags, stream, kind, data[at + 12 : end])
        except InboundError as error:
            _log.warning("a peer's association is ended: it sent %s", error)
            await self._abort()
            self._set_state(self.State.CLOSED)
            return False
        self._tuned_unsacked += 1
        self._tuned_received += 1
        if messages:
            for message in messages:
                await self._data_channel_receive(*message)
        self._last_received_tsn = (self._tuned_inbound_first + inbound.cumulative) & _MASK
        if self._reconfig_deferred is not None:
            await self._reset_deferred_streams()
        return True

    def _tuned_sack_soon(self) -> None:
        every = SACK_EVERY_BUSY if self._tuned_received > BUSY_PACKETS else SACK_EVERY
        inbound = self._tuned_inbound
        if inbound is not None and inbound.gaps:
            every = SACK_EVERY
        if self._tuned_unsacked >= every or (inbound is not None and inbound.duplicates):
            self._tuned_send_sack()
        elif self._tuned_sack is None:
            self._tuned_sack = self._loop.call_later(SACK_DELAY_S, self._tuned_sack_late)

    def _tuned_sack_late(self) -> None:
        self._tuned_sack = None
        if self._tuned_unsacked:
            self._tuned_send_sack()

    def _tuned_send_sack(self) -> None:
        inbound = self._tuned_inbound
        if inbound is None:
            return
        self._tuned_unsacked = 0
        low, gaps, duplicates = inbound.cumulative, inbound.gaps, inbound.duplicates
        body = b"".join(
            [_GAP.pack(first - low, last - low) for first, last in gaps if last - low <= 0xFFFF]
            + [_TSN.pack((self._tuned_inbound_first + seq) & _MASK) for seq in duplicates]
        )
        inbound.duplicates = []
        count = len(body) // 4 - len(duplicates)
        header = _SACK_HEADER.pack(
            _SACK, 0, 16 + len(body), (self._tuned_inbound_first + low) & _MASK, inbound.window, count, len(duplicates)
        )
        self._tuned_write(self._tuned_packet(header + body))

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────
    def _tuned_acknowledged(self, body: bytes) -> None:
        if len(body) < 12:
            return
        tsn, peer_window, gap_count, duplicate_count = _SACK_FIELDS.unpack_from(body)
        if len(body) < 12 + 4 * (gap_count + duplicate_count):
            return
        flight, window, now = self._tuned_flight, self._tuned_window, self._loop.time()
        base = flight.cumulative
        expected = (self._tuned_first_tsn + base) & _MASK
        cumulative = base + ((tsn - expected + _HALF) & _MASK) - _HALF
        gaps = [
            (cumulative + first, cumulative + last) for first, last in _GAP.iter_unpack(body[12 : 12 + 4 * gap_count])
        ]
        if cumulative <= self._tuned_probed_seq or now - self._tuned_probed_at < 2 * window.srtt:
            duplicate_count = 0  # of our own probes
        news = flight.acknowledged(cumulative, gaps, duplicate_count, now, window.srtt, window.min_rtt)
        if news is None:
            return
        self._tuned_peer_window = peer_window
        window.acknowledged(
            now,
            news.acked,
            news.lost,
            news.rtt,
            news.rate,
            news.sent_delivered,
            flight.delivered,
            news.app_limited,
            flight.in_flight,
        )
        if news.acked:
            self._tuned_probes = 0
        self._tuned_probe_at = now + window.probe_timeout
        self._tuned_pump()
        if self._tuned_told is not None:
            self._tuned_told()

    def _tuned_pump(self) -> None:
        """Send what window, peer and pacing allow."""
        if self._association_state != self.State.ESTABLISHED:
            return
        flight, window, now = self._tuned_flight, self._tuned_window, self._loop.time()
        allowance = window.allowance(now)
        room = min(window.cwnd, self._tuned_peer_window) - flight.in_flight
        was_idle, spent = not len(flight), 0
        while True:
            again = flight.lost()
            if again is None and self._tuned_message is None and not self._tuned_next_message():
                if room > 0:
                    flight.ran_dry()
                break
            if room <= 0 and flight.in_flight:
                break
            if spent >= allowance:
                if self._tuned_pace is None:
                    wait = (spent - allowance + PACKET_BYTES) / window.pace
                    self._tuned_pace = self._loop.call_later(max(PACE_S, wait), self._tuned_paced)
                break
            piece = again if again is not None else self._tuned_piece()
            flight.sent(piece, now)
            self._tuned_write(piece.packet)
            room -= piece.size
            spent += piece.size
        if spent:
            window.spent(spent)
            if was_idle:
                self._tuned_probe_at = now + window.probe_timeout
            if self._tuned_probe is None:
                self._tuned_probe = self._loop.call_at(self._tuned_probe_at, self._tuned_silent)

    def _tuned_paced(self) -> None:
        self._tuned_pace = None
        self._tuned_pump()

    def _tuned_next_message(self) -> bool:
        queue = self._data_channel_queue
        if not queue:
            return False
        channel, kind, data = queue.popleft()
        stream = channel.id
        if stream is None:  # as aiortc does: only now is it known whose numbers are even
            stream = int(self._data_channel_id or 0)
            while stream in self._data_channels:
                stream += 2
            self._data_channels[stream] = channel
            channel._setId(stream)
        flags = 0 if channel.ordered or kind == _DCEP else _UNORDERED
        number = 0
        if not flags:
            number = self._outbound_stream_seq.get(stream, 0)
            self._outbound_stream_seq[stream] = (number + 1) & 0xFFFF
        self._tuned_message, self._tuned_at = (stream, number, kind, flags, data), 0
        # aiortc's reset of a stream names the last TSN, so all of a message's are given at once
        self._local_tsn = (self._local_tsn + -(-len(data) // PACKET_BYTES)) & _MASK
        if kind != _DCEP:
            channel._addBufferedAmount(-len(data))
        return True

    def _tuned_piece(self) -> Piece:
        """Make the next packet of the message in hand."""
        assert self._tuned_message is not None
        stream, number, kind, flags, data = self._tuned_message
        at = self._tuned_at
        part = data[at : at + PACKET_BYTES]
        at += len(part)
        if at == len(part):
            flags |= FIRST
        if at == len(data):
            flags |= LAST
            self._tuned_message, self._tuned_at = None, 0
        else:
            self._tuned_at = at
        seq = self._tuned_flight.next
        tsn = (self._tuned_first_tsn + seq) & _MASK
        size = len(part)
        header = _DATA_HEADER.pack(_DATA, flags, 16 + size, tsn, stream, number, kind)
        return Piece(seq, self._tuned_packet(header + part + _PADDING[size & 3]), size, 0 if kind == _DCEP else size)

    def _tuned_silent(self) -> None:
        """Send a probe if nothing came for too long; collapse after several."""
        flight, window, now = self._tuned_flight, self._tuned_window, self._loop.time()
        if not len(flight):
            self._tuned_probe = None
            return
        if now < self._tuned_probe_at - PACE_S:
            self._tuned_probe = self._loop.call_at(self._tuned_probe_at, self._tuned_silent)
            return
        self._tuned_probes += 1
        self._tuned_probed_at, self._tuned_probed_seq = now, flight.next
        if self._tuned_probes < PROBES:
            oldest = flight.oldest()
            if oldest is not None:
                flight.sent(oldest, now)
                self._tuned_write(oldest.packet)
        else:
            flight.give_up()
            window.collapse()
            self._tuned_peer_window = max(self._tuned_peer_window, PACKET_BYTES)
            self._tuned_pump()
        self._tuned_probe_at = now + min(MAX_PROBE_S, window.probe_timeout * 2**self._tuned_probes)
        self._tuned_probe = self._loop.call_at(self._tuned_probe_at, self._tuned_silent)
        if self._tuned_told is not None:
            self._tuned_told()

    def _tuned_packet(self, chunk: bytes) -> bytes:
        header = _PACKET.pack(self._local_port, self._remote_port, self._remote_verification_tag)
        return header + _CHECKSUM.pack(self._tuned_crc32c(header + b"\0\0\0\0" + chunk)) + chunk

    def _tuned_write(self, packet: bytes) -> None:
        _write(self.transport, packet)


def _write(dtls: Any, packet: bytes) -> None:
    coroutine = dtls._send_data(packet)
    try:
        coroutine.send(None)
    except (StopIteration, ConnectionError):
        return
    # it waits for something, like the binding of a TURN channel: this packet is lost, and sent again
    coroutine.close()


def tune(association: Any) -> Tuned | None:
    """Put the faster data plane under `association`, an `aiortc.RTCSctpTransport` that has not started.

    Returns None, having changed nothing, if it is not as this module knows it.
    """
    strange = _strange(association)
    if strange:
        if not _told:
            _told.append(strange)
            _log.warning("WebRTC runs with aiortc's own SCTP, which is slow where packets get lost: %s", strange)
        return None
    plain = type(association)
    if plain not in _classes:
        _classes[plain] = type("TunedAssociation", (Tuned, plain), {})
    module: Any = inspect.getmodule(plain)
    tuned: Any = association
    tuned.__class__ = _classes[plain]
    tuned._tuned_start(module.crc32c, module.CHUNK_TYPES)
    return tuned  # type: ignore[no-any-return]


def _strange(association: Any) -> str:
    """Say what about this aiortc is not as the subclass needs it; empty if all is."""
    if association is None:
        return "there is no association"
    plain = type(association)
    for name, parameters in _METHODS.items():
        method = getattr(plain, name, None)
        if not inspect.iscoroutinefunction(method):
            return f"{name} is no coroutine"
        if tuple(inspect.signature(method).parameters)[1:] != parameters:
            return f"{name} is called differently"
    for name, kind in _FIELDS.items():
        if name not in vars(association) or not isinstance(vars(association)[name], kind):
            return f"{name} is not there or something else"
    state = getattr(plain, "State", None)
    if not hasattr(state, "ESTABLISHED") or association._association_state is not getattr(state, "CLOSED", state):
        return "the association has other states"
    if association._sent_queue or association._outbound_queue or not callable(getattr(plain, "_set_state", None)):
        return "the association has started"
    if not inspect.iscoroutinefunction(getattr(type(association.transport), "_send_data", None)):
        return "the transport below can't be written to"
    module = inspect.getmodule(plain)
    crc32c, chunk_types = getattr(module, "crc32c", None), getattr(module, "CHUNK_TYPES", None)
    if not callable(crc32c) or crc32c(b"123456789") != 0xE306_9283 or not isinstance(chunk_types, dict):
        return "its checksum or its chunks are elsewhere"
    return ""
