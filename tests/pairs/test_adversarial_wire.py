"""Whatever happens to the records between two honest peers, what they say and send arrives once and whole."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from p2pnb.protocol import records
from tests.pairs.fuzzing import tries
from tests.pairs.line import Line, Wire
from tests.pairs.oracle import NonceOracle

END = st.sampled_from(["a", "b"])
PICK = st.integers(0, 1 << 16)


class AdversarialWire(RuleBasedStateMachine):
    """Two users who chat and send, and somebody between them who holds every record."""

    @initialize()
    def start(self) -> None:
        setattr(records, "AESGCM", NonceOracle())  # noqa: B010 - mypy knows that it is not ours
        self.line = Line()
        self.open_path(0, proven=True)

    def wire(self, pick: int) -> Wire | None:
        """One of the latest path instances; older ones can at most replay."""
        wires = list(self.line.wires.values())[-4:]
        return wires[pick % len(wires)] if wires else None

    # ── the users ───────────────────────────────────────────────────────────────────────────────────
    @rule(name=END, count=st.integers(1, 5))
    def say(self, name: str, count: int) -> None:
        for _ in range(count):
            self.line.peer(name).say(self.line.now)

    @rule(name=END, size=st.sampled_from([0, 1, 300, 999, 5000, 12_345]), head=PICK, inline=st.booleans())
    def offer(self, name: str, size: int, head: int, inline: bool) -> None:
        self.line.peer(name).offer(size, head % 200, inline, self.line.now)

    @rule(name=END)
    def accept(self, name: str) -> None:
        peer = self.line.peer(name)
        for number, receiving in peer.receiving.items():
            if receiving.state == "offered":
                peer.accept(number, self.line.now)
                return

    @rule(name=END, pick=PICK, outgoing=st.booleans())
    def cancel(self, name: str, pick: int, outgoing: bool) -> None:
        peer = self.line.peer(name)
        transfers: dict[int, Any] = peer.sending if outgoing else peer.receiving
        running = [number for number, transfer in transfers.items() if transfer.state in ("offered", "moving")]
        if running:
            peer.cancel(running[pick % len(running)], outgoing, self.line.now)

    @rule(name=END)
    def accept_on_request(self, name: str) -> None:
        peer = self.line.peer(name)
        for number, receiving in peer.receiving.items():
            if receiving.state == "offered":
                peer.accept(number, self.line.now, on_request=True)
                return

    @rule(name=END, pick=PICK, start=PICK, length=st.integers(1, 4000), all_missing=st.booleans())
    def want(self, name: str, pick: int, start: int, length: int, all_missing: bool) -> None:
        """Bytes are asked for in any order, some of them again."""
        peer = self.line.peer(name)
        asking = [number for number, receiving in peer.receiving.items() if receiving.on_request]
        if asking:
            number = asking[pick % len(asking)]
            start %= max(1, peer.receiving[number].offer.size_bytes)
            if all_missing:
                peer.want_missing(number, self.line.now)
            else:
                peer.want(number, [(start, start + length)], self.line.now)

    @rule(name=END, pick=PICK, outgoing=st.booleans(), paused=st.booleans())
    def pause(self, name: str, pick: int, outgoing: bool, paused: bool) -> None:
        peer = self.line.peer(name)
        transfers: dict[int, Any] = peer.sending if outgoing else peer.receiving
        if transfers:
            peer.pause(sorted(transfers)[pick % len(transfers)], outgoing, paused, self.line.now)

    @rule(name=END, pick=PICK, count=st.integers(1, 20))
    def send_bulk(self, name: str, pick: int, count: int) -> None:
        """Chunks may take any path, not just the preferred one."""
        if wire := self.wire(pick):
            self.line.peer(name).send_bulk(wire.number, count, self.line.now)

    @rule(count=st.integers(1, 6))
    def work(self, count: int) -> None:
        """What would happen by itself: offers are taken, bulk goes, and some of it stays under way."""
        self.deliver_all()
        for peer in (self.line.a, self.line.b):
            self.accept(peer.name)
        self.deliver_all()
        for peer in (self.line.a, self.line.b):
            peer.write_pieces(count, self.line.now)
            if peer.session.preferred is not None:
                peer.send_bulk(peer.session.preferred, count, self.line.now)
            peer.say(self.line.now)

    @rule(name=END, count=st.integers(1, 10))
    def write(self, name: str, count: int) -> None:
        self.line.peer(name).write_pieces(count, self.line.now)

    # ── the line ────────────────────────────────────────────────────────────────────────────────────
    @rule(rank=st.integers(0, 2), proven=st.booleans())
    def open_path(self, rank: int, proven: bool) -> None:
        wire = self.line.open_path(rank)
        if proven:
            self.line.deliver(wire, "a")
            self.line.deliver(wire, "b")

    @rule(pick=PICK, to=END, count=st.sampled_from([1, 2, 1000]))
    def deliver(self, pick: int, to: str, count: int) -> None:
        if wire := self.wire(pick):
            self.line.deliver(wire, to, count)

    @rule()
    def deliver_all(self) -> None:
        for wire in self.line.wires.values():
            for name in ("a", "b"):
                self.line.deliver(wire, name, 1000)

    @rule(seconds=st.sampled_from([0.01, 0.03, 1.0, 3.0, 7.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.line.advance(seconds)

    # ── the adversary ───────────────────────────────────────────────────────────────────────────────
    @rule(pick=PICK, ends=st.sampled_from([("a",), ("b",), ("a", "b")]))
    def cut(self, pick: int, ends: tuple[str, ...]) -> None:
        if wire := self.wire(pick):
            self.line.close_path(wire, *ends)

    @rule(pick=PICK, to=END)
    def silence(self, pick: int, to: str) -> None:
        """From now on nothing arrives in this direction; the other one works on."""
        if wire := self.wire(pick):
            wire.silent.add(to)
            wire.queues[to].clear()

    @rule(pick=PICK, to=END, at=PICK, verb=st.sampled_from(["drop", "double", "swap", "flip", "cut", "invent"]))
    def tamper(self, pick: int, to: str, at: int, verb: str) -> None:
        wire = self.wire(pick)
        if wire is None or not wire.queues[to]:
            return
        queue = wire.queues[to]
        at %= len(queue)
        match verb:
            case "drop":
                del queue[at]
            case "double":
                queue.insert(at, queue[at])
            case "swap":
                queue.append(queue[at])
                del queue[at]
            case "flip" if queue[at]:
                record = bytearray(queue[at])
                record[at % len(record)] ^= 1 << at % 8
                queue[at] = bytes(record)
            case "cut":
                queue[at] = queue[at][: len(queue[at]) // 2]
            case _:
                queue.insert(at, bytes(40))

    @rule(source=PICK, which=PICK, onto=PICK, to=END)
    def replay(self, source: int, which: int, onto: int, to: str) -> None:
        """An old record of any path, either direction, comes again on any path."""
        old, wire = self.wire(source), self.wire(onto)
        if old and wire and old.recorded:
            wire.queues[to].append(old.recorded[which % len(old.recorded)][1])

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────
    @invariant()
    def holds(self) -> None:
        if hasattr(self, "line"):
            self.line.check_always()

    def teardown(self) -> None:
        if not hasattr(self, "line"):
            return
        line = self.line
        line.settle(40)
        for _ in range(8):  # what was tampered with kills paths still; then there are new ones, and they work
            line.open_path(1)
            line.settle(80)
            line.advance(40.0)
            line.settle(20)
            if line.done:
                break
        line.check_always()
        line.check_settled()


def test_everything_arrives_once_in_order_and_whole_and_no_nonce_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "AESGCM", AESGCM)  # restores what `start` puts in its place
    run_state_machine_as_test(AdversarialWire, settings=tries(100, steps=60))
