"""Two peers (session, exchange, sealed paths) and an adversary who holds every record between them.

The peers are driven the way the engine drives them, by a clock that the test turns. A record that was sent
lies in its path's queue until the test delivers it, or does something else with it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field

from p2pnb.errors import ProtocolError
from p2pnb.protocol import exchange as ex
from p2pnb.protocol import session as se
from p2pnb.protocol.keys import SessionSecret
from p2pnb.protocol.ranges import RangeSet
from p2pnb.protocol.records import PathCipher
from p2pnb.protocol.wire import MAX_UNACKED_FRAMES, Chat, Offer, Preview

__all__ = ["Line", "PathEnd", "Peer", "Wire", "content_of"]

SECRET = hashlib.sha256(b"the session").digest()
REKEY = 8
WINDOW = 4096
CHUNK = 700


def content_of(name: str, size_bytes: int) -> bytes:
    """The bytes of a transfer, known to the test at both ends."""
    return hashlib.shake_256(name.encode()).digest(size_bytes)


@dataclass
class Sending:
    """One transfer as its sender sees it."""

    name: str
    content: bytes
    sent: RangeSet = field(default_factory=RangeSet)
    state: str = "offered"
    paused: bool = False  # by us
    paused_there: bool = False


@dataclass
class Receiving:
    """One transfer as its receiver sees it."""

    offer: Offer
    buffer: bytearray
    state: str = "offered"
    paused: bool = False  # by us
    paused_there: bool = False
    on_request: bool = False
    written: RangeSet = field(default_factory=RangeSet)


@dataclass
class PathEnd:
    """One end of one path instance."""

    number: int
    rank: int
    cipher: PathCipher
    wire: Wire
    up: bool = False


@dataclass
class Wire:
    """One path instance: the records under way, per direction ("a" means towards a)."""

    number: int
    queues: dict[str, deque[bytes]] = field(default_factory=lambda: {"a": deque(), "b": deque()})
    silent: set[str] = field(default_factory=set)  # directions in which everything vanishes
    recorded: list[tuple[str, bytes]] = field(default_factory=list)


class Peer:
    """One end of the pair."""

    def __init__(self, name: str, now: float) -> None:
        self.name, self.other_name = name, "b" if name == "a" else "a"
        self.session = se.Session()
        self.exchange = ex.Exchange(window_bytes=WINDOW)
        self.paths: dict[int, PathEnd] = {}
        self.heard: list[str] = []
        self.said: list[str] = []
        self.sending: dict[int, Sending] = {}
        self.receiving: dict[int, Receiving] = {}
        self.pieces: deque[ex.PieceArrived] = deque()  # not yet written
        self.doubts = 0
        self.preferences: list[int | None] = []

    # ── what the user does ──────────────────────────────────────────────────────────────────────────
    def say(self, now: float) -> None:
        text = f"{self.name} {len(self.said)}"
        self.said.append(text)
        self.session.send(Chat(text, text, 0.0), now)
        self.flush(now)

    def offer(self, size_bytes: int, head_bytes: int, inline: bool, now: float) -> None:
        number = self.exchange.next_transfer()
        name = f"{self.name}/{number}"
        content = content_of(name, size_bytes)
        head_bytes = min(head_bytes, size_bytes)
        self.sending[number] = Sending(name, content)
        self.exchange.offer(
            Offer(
                transfer=number,
                kind="object",
                name=name,
                size_bytes=size_bytes,
                head_bytes=head_bytes,
                preview=Preview("bytes"),
                head=content[:head_bytes] if inline else b"",
                content=content[head_bytes:] if inline and size_bytes < 1000 else b"",
            )
        )
        self.flush(now)

    def accept(self, number: int, now: float, *, on_request: bool = False) -> None:
        receiving = self.receiving[number]
        receiving.state = "moving"
        offer = receiving.offer
        receiving.buffer[: len(offer.head)] = offer.head
        receiving.written.add(0, len(offer.head))
        if offer.content:
            receiving.buffer[offer.head_bytes :] = offer.content
        receiving.on_request = on_request and len(offer.head) + len(offer.content) < offer.size_bytes
        self.exchange.accept(number, on_request=on_request)
        if offer.head or not offer.head_bytes:
            self.exchange.open_window(number)
        self.take_events(now)
        self.flush(now)

    def write_pieces(self, count: int, now: float) -> None:
        """Bring some arrived pieces to their place."""
        for _ in range(min(count, len(self.pieces))):
            piece = self.pieces.popleft()
            receiving = self.receiving[piece.transfer]
            if receiving.state != "moving":
                continue
            receiving.buffer[piece.offset : piece.offset + len(piece.data)] = piece.data
            receiving.written.add(piece.offset, piece.offset + len(piece.data))
            self.exchange.landed(piece.transfer, piece.offset, piece.offset + len(piece.data))
            if self.exchange.landed_bytes(piece.transfer) >= receiving.offer.head_bytes:
                self.exchange.open_window(piece.transfer)
            if receiving.on_request and receiving.written.total == receiving.offer.size_bytes:
                assert bytes(receiving.buffer) == content_of(receiving.offer.name, receiving.offer.size_bytes)
                receiving.state = "done"
                self.exchange.completed(piece.transfer)
        self.take_events(now)
        self.flush(now)

    def want(self, number: int, ranges: list[tuple[int, int]], now: float) -> None:
        """Ask for bytes of a transfer taken on request; some of them may be here already."""
        receiving = self.receiving[number]
        if receiving.on_request and receiving.state == "moving":
            size, head = receiving.offer.size_bytes, len(receiving.offer.head)
            fitting = [(max(head, start), min(end, size)) for start, end in ranges]
            self.exchange.want(number, [(start, end) for start, end in fitting if start < end])
            self.flush(now)

    def want_missing(self, number: int, now: float) -> None:
        receiving = self.receiving[number]
        self.want(number, receiving.written.missing(0, receiving.offer.size_bytes), now)

    def pause(self, number: int, outgoing: bool, paused: bool, now: float) -> None:
        transfer: Sending | Receiving = self.sending[number] if outgoing else self.receiving[number]
        if transfer.state in ("offered", "moving"):
            transfer.paused = paused
            self.exchange.pause(number, outgoing=outgoing, paused=paused)
            self.flush(now)

    def resume_all(self, now: float) -> None:
        for number in self.sending:
            self.pause(number, True, False, now)
        for number in self.receiving:
            self.pause(number, False, False, now)

    def cancel(self, number: int, outgoing: bool, now: float) -> None:
        if outgoing:
            self.exchange.cancel_outgoing(number, "TransferCancelledError", "")
            self.sending[number].state = "cancelled"
        else:
            if self.receiving[number].state == "offered":
                self.exchange.decline(number)
            else:
                self.exchange.cancel_incoming(number, "TransferCancelledError", "")
            self.receiving[number].state = "cancelled"
        self.flush(now)

    def send_bulk(self, number: int, count: int, now: float) -> int:
        """Send some chunks over one path; return how many went."""
        end = self.paths.get(number)
        if end is None or not end.up:
            return 0
        for sent in range(count):
            chunk = self.exchange.next_chunk(number, CHUNK)
            if chunk is None:
                return sent
            sending = self.sending[chunk.transfer]
            assert sending.state == "moving"
            assert not sending.paused and not sending.paused_there, "nothing is sent while it is paused"
            sending.sent.add(chunk.offset, chunk.offset + chunk.length)
            data = sending.content[chunk.offset : chunk.offset + chunk.length]
            self._put(end, se.chunk_header(chunk.transfer, chunk.offset) + data)
        return count

    # ── paths ───────────────────────────────────────────────────────────────────────────────────────
    def add_path(self, end: PathEnd) -> None:
        self.paths[end.number] = end
        self._send_record(end, end.cipher.proof_record(self.session.received))

    def drop_path(self, number: int, now: float) -> None:
        end = self.paths.pop(number, None)
        if end is None:
            return
        end.cipher.forget()
        self.session.path_down(number, now)
        self.exchange.path_lost(number)
        self.take_events(now)
        self.flush(now)

    def receive(self, number: int, record: bytes, now: float) -> None:
        end = self.paths.get(number)
        if end is None:
            return
        try:
            if end.up:
                frame = end.cipher.open(record)
            else:
                received = end.cipher.open_proof(record)
        except ProtocolError:
            self.drop_path(number, now)
            return
        # from here on every byte is the honest peer's: nothing may raise
        if end.up:
            self.session.receive_frame(number, frame, now)
        else:
            end.up = True
            self.session.path_up(number, end.rank, received, now)
        self.take_events(now)
        self.flush(now)

    def turn_clock(self, now: float) -> None:
        due = self.session.next_timer()
        if due is not None and now >= due:
            self.session.handle_timer(now)
            again = self.session.next_timer()
            assert again is None or again > now, "a timer that was handled is not due again at once"
        self.exchange.report_landed()
        self.take_events(now)
        self.flush(now)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def flush(self, now: float) -> None:
        while (frame := self.exchange.next_frame(offers=self.session.can_send())) is not None:
            self.session.send(frame, now)
        for number, data in self.session.frames_to_send():
            if (end := self.paths.get(number)) is not None:
                self._put(end, data)
        self.session.busy = self.exchange.moving

    def _put(self, end: PathEnd, frame: bytes) -> None:
        self._send_record(end, end.cipher.seal(frame))

    def _send_record(self, end: PathEnd, record: bytes) -> None:
        end.wire.recorded.append((self.other_name, record))
        if self.other_name not in end.wire.silent:
            end.wire.queues[self.other_name].append(record)

    def take_events(self, now: float) -> None:
        while (event := self.session.next_event()) is not None:
            match event:
                case se.FrameReceived(frame=Chat(text=text)):
                    self.heard.append(text)
                case se.FrameReceived(frame=frame):
                    assert self.exchange.receive_frame(frame)
                case se.ChunkReceived(transfer=transfer, offset=offset, data=data):
                    self.exchange.receive_chunk(transfer, offset, data)
                case se.PathLost(path=path):
                    self.drop_path(path, now)
                case se.PathDoubted(path=path):
                    self.doubts += 1
                    self.exchange.path_lost(path)
                case se.PreferenceChanged(path=path):
                    self.preferences.append(path)
            self._take_exchange_events()
        self._take_exchange_events()

    def _take_exchange_events(self) -> None:
        while (event := self.exchange.next_event()) is not None:
            match event:
                case ex.OfferArrived(offer=offer):
                    assert offer.transfer not in self.receiving
                    self.receiving[offer.transfer] = Receiving(offer, bytearray(offer.size_bytes))
                case ex.PieceArrived(transfer=number):
                    assert self.receiving[number].state in ("moving", "cancelled", "cancelled by the sender")
                    self.pieces.append(event)
                case ex.AllArrived(transfer=number):
                    receiving = self.receiving[number]
                    assert receiving.state == "moving"
                    assert bytes(receiving.buffer) == content_of(receiving.offer.name, receiving.offer.size_bytes)
                    receiving.state = "done"
                    self.exchange.completed(number)
                case ex.Accepted(transfer=number):
                    assert self.sending[number].state == "offered"
                    self.sending[number].state = "moving"
                case ex.AllAcknowledged(transfer=number):
                    sending = self.sending[number]
                    assert sending.state == "moving"
                    assert sending.sent.total + (len(sending.content) if sending.sent.total == 0 else 0) > 0
                    self.exchange.finish(number)
                case ex.Completed(transfer=number):
                    assert self.sending[number].state in ("moving", "offered")
                    self.sending[number].state = "done"
                case ex.Declined(transfer=number):
                    self.sending[number].state = "cancelled by the receiver"
                case ex.CancelledByPeer(transfer=number, outgoing=True):
                    self.sending[number].state = "cancelled by the receiver"
                case ex.CancelledByPeer(transfer=number):
                    self.receiving[number].state = "cancelled by the sender"
                case ex.PauseChanged(transfer=number, outgoing=True, paused=paused):
                    self.sending[number].paused_there = paused
                case ex.PauseChanged(transfer=number, paused=paused):
                    self.receiving[number].paused_there = paused


class Line:
    """The pair, its clock, and every path instance that ever was between the two."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.a, self.b = Peer("a", self.now), Peer("b", self.now)
        self.wires: dict[int, Wire] = {}
        self._secrets = {"a": SessionSecret(SECRET, True), "b": SessionSecret(SECRET, False)}

    def peer(self, name: str) -> Peer:
        return self.a if name == "a" else self.b

    def open_path(self, rank: int = 0) -> Wire:
        """A new path instance: both ends have its keys and their proofs are under way."""
        number = len(self.wires) + 1
        wire = self.wires[number] = Wire(number)
        nonces = [hashlib.sha256(f"{number}{side}".encode()).digest()[:16] for side in "ab"]
        for peer in (self.a, self.b):
            cipher = PathCipher(self._secrets[peer.name].path("relay", *nonces), rekey_records=REKEY)
            peer.add_path(PathEnd(number, rank, cipher, wire))
        return wire

    def close_path(self, wire: Wire, *ends: str) -> None:
        """The connection ends at these ends; records under way towards them are gone."""
        for name in ends:
            wire.queues[name].clear()
            wire.silent.add(name)
            self.peer(name).drop_path(wire.number, self.now)

    def deliver(self, wire: Wire, to: str, count: int = 1) -> int:
        queue = wire.queues[to]
        for done in range(count):
            if not queue:
                return done
            self.peer(to).receive(wire.number, queue.popleft(), self.now)
        return count

    def advance(self, seconds: float) -> None:
        """Turn the clock, stopping wherever a timer of either side is due."""
        target = self.now + seconds
        for _ in range(10_000):
            dues = [due for peer in (self.a, self.b) if (due := peer.session.next_timer()) is not None]
            self.now = min([target, *(max(due, self.now) for due in dues)])
            self.a.turn_clock(self.now)
            self.b.turn_clock(self.now)
            if self.now >= target:
                return
        raise AssertionError("timers fire without end")

    @property
    def quiet(self) -> bool:
        return not any(queue for wire in self.wires.values() for queue in wire.queues.values())

    def settle(self, rounds: int = 400) -> None:
        """No more faults: everything under way is delivered, offers are taken, disks write, time passes."""
        for _ in range(rounds):
            for wire in self.wires.values():
                for name in ("a", "b"):
                    self.deliver(wire, name, 10_000)
            for peer in (self.a, self.b):
                peer.resume_all(self.now)
                for number, receiving in peer.receiving.items():
                    if receiving.state == "offered":
                        peer.accept(number, self.now)
                peer.write_pieces(10_000, self.now)
                for number in peer.receiving:
                    peer.want_missing(number, self.now)
                if peer.session.preferred is not None:
                    peer.send_bulk(peer.session.preferred, 100, self.now)
            self.advance(0.05)
            if self.quiet and self.done:
                return

    @property
    def done(self) -> bool:
        """Nothing is owed by anybody."""
        return all(
            peer.session.unacknowledged == 0
            and not peer.pieces
            and all(sending.state not in ("offered", "moving") for sending in peer.sending.values())
            for peer in (self.a, self.b)
        )

    def check_always(self) -> None:
        """What must hold at every moment."""
        for peer, other in ((self.a, self.b), (self.b, self.a)):
            assert peer.heard == other.said[: len(peer.heard)], "each once, in order"
            assert peer.session.unacknowledged <= MAX_UNACKED_FRAMES
            assert len(peer.session._early) <= MAX_UNACKED_FRAMES
            assert peer.session._early_bytes == sum(map(len, peer.session._early.values()))
            assert peer.session._unacked_bytes == sum(len(data) for _, data in peer.session._unacked)
            assert set(peer.session._paths) == {number for number, end in peer.paths.items() if end.up}
            assert peer.session.preferred in peer.session._paths or not peer.session._paths
            for number, out in peer.exchange._outgoing.items():
                sending = peer.sending[number]
                assert set(out.in_flight) <= set(peer.paths), "nothing is under way on a path that is gone"
                assert len(sending.content) >= out.credit >= 0
                assert sending.sent.total <= out.credit, "never more sent than the credit allows"
                held = other.receiving.get(number)
                landed = other.exchange.landed_bytes(number)
                waiting = held is not None and held.state == "moving" and number in other.exchange._incoming
                if held is not None and waiting and not held.on_request:  # what is asked for again counts as not landed
                    assert out.acked.total <= landed, "acknowledged is only what landed"

    def check_settled(self) -> None:
        """After the faults: everything said was heard, every transfer ended alike on both sides."""
        for peer, other in ((self.a, self.b), (self.b, self.a)):
            assert peer.heard == other.said
            assert peer.session.unacknowledged == 0
            for number, sending in peer.sending.items():
                receiving = other.receiving.get(number)
                there = receiving.state if receiving else "never seen"
                assert (sending.state, there) in {
                    ("done", "done"),
                    ("cancelled", "cancelled by the sender"),
                    ("cancelled", "cancelled"),
                    ("cancelled", "done"),  # the word of it came after the end
                    ("cancelled", "never seen"),
                    ("cancelled by the receiver", "cancelled"),
                }, (number, sending.state, there)
            assert not peer.exchange._outgoing and not peer.exchange._incoming
