"""One content, many pullers: the owner's line is spared, everybody gets all of it, and nobody can spoil it."""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import CorruptDataError, ProtocolError
from p2pnb.protocol import manifest, swarm
from p2pnb.protocol import serving as serving_module
from p2pnb.protocol.manifest import (
    Descriptor,
    Manifest,
    block_bytes_for,
    block_hash,
    blocks_to_ranges,
)
from p2pnb.protocol.serving import Serving
from p2pnb.protocol.swarm import BlockState, Pulling, Writer
from p2pnb.protocol.wire import HASH_BYTES

BLOCK = manifest.MIN_BLOCK_BYTES
OWNER = b"owner"


def content_block(block: int) -> bytes:
    return block_hash(b"right %d" % block)


def hashes(count: int) -> bytes:
    return b"".join(content_block(block) for block in range(count))


def a_pulling(count: int = 10, *, me: bytes = b"me", now: float = 0.0) -> Pulling:
    pulling = Pulling(owner=OWNER, content_bytes=count * BLOCK, block_bytes=BLOCK, hashes=hashes(count), me=me)
    pulling.source_added(OWNER, now)
    return pulling


def blocks_of(ranges: list[tuple[int, int]]) -> list[int]:
    return [block for first, end in ranges for block in range(first, end)]


def deliver(pulling: Pulling, peer: bytes, block: int, now: float = 0.0, *, wrong: bool = False) -> BlockState:
    assert pulling.arrived(peer, block, BLOCK, now)
    return pulling.checked(peer, block, b"x" * HASH_BYTES if wrong else content_block(block), now)


# ── a room on a fake clock ──────────────────────────────────────────────────────────────────────────
@dataclass
class Node:
    """A peer with a line of its own: so many blocks per second up, and as many down."""

    name: bytes
    rate: float  # blocks per second
    pulling: Pulling | None = None
    serving: Serving | None = None
    lies: bool = False
    silent: bool = False
    gone: bool = False
    queues: dict[bytes, deque[int]] = field(default_factory=lambda: defaultdict(deque))  # asked of us, by puller
    sent_blocks: float = 0.0
    up: float = 0.0
    down: float = 0.0
    finished_at: float | None = None
    found_out: set[bytes] = field(default_factory=set)


class Classroom:
    """An owner and pullers; a quarter of a block moves per turn of a line."""

    PIECES = 4

    def __init__(self, count: int, pullers: int, *, rate: float = 40.0, late: float = 0.0) -> None:
        self.count = count
        self.now = 0.0
        self.owner = Node(OWNER, rate, serving=Serving(count, whole=True))
        self.nodes: dict[bytes, Node] = {OWNER: self.owner}
        self.waiting = [(late * number, Node(b"peer %02d" % number, rate)) for number in range(pullers)]
        self.waiting.sort(key=lambda pair: pair[0])
        self.pullers = [node for _, node in self.waiting]

    def join(self, node: Node) -> None:
        self.nodes[node.name] = node
        node.pulling = a_pulling(self.count, me=node.name, now=self.now)
        node.serving = Serving(self.count, whole=False)
        assert self.owner.serving is not None
        if not self.owner.gone:
            self.owner.serving.joined(node.name)
            for other in self.owner.serving.introductions(node.name):
                self.meet(node, self.nodes[other])
                self.meet(self.nodes[other], node)

    def meet(self, puller: Node, holder: Node) -> None:
        """`puller` pulls from `holder` from now on."""
        if puller.pulling is not None and puller.pulling.wants_source(holder.name) and not holder.gone:
            puller.pulling.source_added(holder.name, self.now)
            assert holder.serving is not None
            holder.serving.joined(puller.name)

    def leave(self, node: Node) -> None:
        node.gone = True
        for other in self.nodes.values():
            if other.pulling is not None:
                other.pulling.source_gone(node.name)
            if other.serving is not None:
                other.serving.left(node.name, here=False)
            other.queues.pop(node.name, None)
        self.nodes.pop(node.name)

    def step(self, seconds: float = 0.01) -> None:
        self.now += seconds
        while self.waiting and self.waiting[0][0] <= self.now:
            self.join(self.waiting.pop(0)[1])
        for node in list(self.nodes.values()):
            node.up = min(node.up + node.rate * self.PIECES * seconds, 2 * self.PIECES)
            node.down = min(node.down + node.rate * self.PIECES * seconds, 2 * self.PIECES)
            self.tell(node)
            self.ask(node)
        for node in list(self.nodes.values()):
            self.send(node)

    def tell(self, node: Node) -> None:
        assert node.serving is not None
        if node.pulling is not None:
            node.serving.expects(node.pulling.coming_blocks)
        for peer, ranges, coming in node.serving.news(self.now):
            puller = self.nodes.get(peer)
            if puller is not None and puller.pulling is not None:
                puller.pulling.source_has(node.name, ranges, coming, self.now)

    def ask(self, node: Node) -> None:
        if node.pulling is None:
            return
        for peer in node.pulling.silent(self.now):
            node.pulling.source_gone(peer)
        for peer in node.pulling.sources:
            wanted = blocks_of(node.pulling.want(peer, self.now))
            self.nodes[peer].queues[node.name].extend(b for b in wanted for _ in range(self.PIECES))

    def send(self, node: Node) -> None:
        """In turns, a piece each, as long as both lines can take one."""
        busy = True
        while node.up >= 1 and busy and not node.silent:
            busy = False
            for puller in sorted(node.queues, key=lambda name: sha256(name + str(self.now).encode()).digest()):
                queue, receiver = node.queues[puller], self.nodes[puller]
                if queue and receiver.down >= 1 and node.up >= 1:
                    busy = True
                    node.up -= 1
                    receiver.down -= 1
                    node.sent_blocks += 1 / self.PIECES
                    self.arrive(receiver, node, queue.popleft())

    def arrive(self, receiver: Node, sender: Node, block: int) -> None:
        pulling = receiver.pulling
        assert pulling is not None and receiver.serving is not None
        if not pulling.arrived(sender.name, block, BLOCK // self.PIECES, self.now):
            return
        digest = b"x" * HASH_BYTES if sender.lies else content_block(block)
        match pulling.checked(sender.name, block, digest, self.now):
            case BlockState.NEW:
                receiver.serving.verified(block)
            case BlockState.WRONG:
                receiver.found_out.add(sender.name)
                sender.queues.pop(receiver.name, None)
        if pulling.finished and receiver.finished_at is None:
            receiver.finished_at = self.now
            for other in self.nodes.values():
                assert other.serving is not None
                if other is not self.owner:
                    other.serving.left(receiver.name)
                else:
                    other.serving.completed(receiver.name)
                    other.serving.left(receiver.name)

    def run(self, seconds: float, until: Callable[[], bool] | None = None, *, step: float = 0.01) -> None:
        """Let time pass until every puller that is here has everything."""
        done = until or (lambda: not self.waiting and all(n.finished_at is not None or n.gone for n in self.pullers))
        end = self.now + seconds
        while not done():
            self.step(step)
            missing = [
                f"{n.name!r} {n.pulling.done_bytes // BLOCK}"
                for n in self.pullers
                if n.finished_at is None and n.pulling
            ]
            assert self.now < end, f"not through after {seconds} s: {missing}"


def test_thirty_pullers_cost_the_owner_less_than_twice_the_content_and_take_about_as_long_as_one() -> None:
    room = Classroom(count=100, pullers=30)
    room.run(20, step=0.025)
    alone = 100 / 40.0  # one puller with the owner's whole line
    assert room.owner.sent_blocks < 2 * 100, "not thirty times"
    assert room.now < 2 * alone, "not thirty times as long"


def test_a_line_that_is_faster_than_the_news_does_not_make_the_owner_repeat_itself() -> None:
    room = Classroom(count=46, pullers=8, rate=400.0)
    room.run(5, step=0.001)
    assert room.owner.sent_blocks < 2 * 46


def test_pullers_that_come_one_after_the_other_are_served_by_those_before() -> None:
    room = Classroom(count=60, pullers=12, late=0.5)
    room.run(20)
    assert room.owner.sent_blocks < 2.5 * 60


def test_one_puller_gets_all_of_the_owners_line() -> None:
    room = Classroom(count=100, pullers=1)
    room.run(5)
    assert room.owner.sent_blocks == 100
    assert room.now < 1.2 * 100 / 40


def test_pullers_that_leave_take_nothing_along_that_others_need() -> None:
    room = Classroom(count=80, pullers=12)
    room.run(5, until=lambda: room.now > 0.8)
    for node in room.pullers[::2]:
        room.leave(node)
    room.run(20)
    assert all(node.finished_at is not None for node in room.pullers[1::2])


def test_liars_are_found_out_by_everybody_and_cost_little() -> None:
    room = Classroom(count=80, pullers=12)
    for node in room.pullers[:4]:
        node.lies = True
    room.run(20)
    liars = {node.name for node in room.pullers[:4]}
    for node in room.pullers[4:]:
        assert node.found_out <= liars, "nobody else is blamed"
        assert node.found_out, "and they were asked"
    assert room.owner.sent_blocks < 4 * 80


def test_a_puller_that_claims_and_never_gives_holds_nobody_up_for_long() -> None:
    """It says that it asked the owner for everything, and has everything; and sends nothing."""
    room = Classroom(count=60, pullers=4)
    room.pullers[0].silent = True
    brag = room.pullers[0]

    def tell(node: Node) -> None:
        if node is brag:
            for peer in node.serving.peers if node.serving else ():
                puller = room.nodes.get(peer)
                if puller is not None and puller.pulling is not None:
                    puller.pulling.source_has(brag.name, [(0, 60)], [(0, 60)], room.now)
        else:
            Classroom.tell(room, node)

    room.tell = tell  # type: ignore[method-assign]
    room.run(60, until=lambda: all(node.finished_at is not None for node in room.pullers[1:]))
    assert room.now < 20


def test_slow_peers_do_not_hold_the_fast_ones_up() -> None:
    room = Classroom(count=80, pullers=10)
    for node in room.pullers[:5]:
        node.rate = 1.0
    fast = room.pullers[5:]
    room.run(40, until=lambda: all(node.finished_at is not None for node in fast))
    assert room.now < 4 * 80 / 40


def test_an_owner_that_leaves_once_everything_is_out_is_not_missed() -> None:
    room = Classroom(count=40, pullers=6)
    room.run(10, until=lambda: not _unseen(room))
    assert any(node.finished_at is None for node in room.pullers)
    room.leave(room.owner)
    room.run(10)


def test_without_the_owner_and_without_a_block_it_is_hopeless_and_said_so_after_a_while() -> None:
    pulling = a_pulling(4)
    pulling.source_added(b"ben", 0.0)
    pulling.source_has(b"ben", [(0, 3)], [], 0.0)
    assert not pulling.hopeless(100.0), "the owner is there"
    pulling.source_gone(OWNER)
    assert not pulling.hopeless(100.0), "news may be on their way"
    assert pulling.hopeless(100.0 + swarm.HOPELESS_S + 0.1)
    pulling.source_has(b"ben", [(3, 4)], [], 110.0)
    assert not pulling.hopeless(110.0)


def _unseen(room: Classroom) -> int:
    everywhere = 0
    for node in room.pullers:
        if node.pulling is not None:
            everywhere |= node.pulling._done
    return (1 << room.count) - 1 & ~everywhere


# ── one puller's choices ────────────────────────────────────────────────────────────────────────────
def test_what_another_source_has_is_not_asked_of_the_owner() -> None:
    pulling = a_pulling(10)
    pulling.source_added(b"ben", 0.0)
    pulling.source_has(b"ben", [(0, 9)], [], 0.0)
    assert pulling.want(OWNER, 0.0) == [(9, 10)]
    assert set(blocks_of(pulling.want(b"ben", 0.0))) < set(range(9))


def test_what_another_asked_the_owner_for_is_waited_for_but_not_for_ever() -> None:
    pulling = a_pulling(10)
    pulling.source_added(b"ben", 0.0)
    pulling.source_has(b"ben", [], [(0, 10)], 0.0)
    assert pulling.want(OWNER, 0.0) == []
    assert pulling.want(OWNER, swarm.CLAIMS_HOLD_S - 0.1) == []
    assert pulling.want(OWNER, swarm.CLAIMS_HOLD_S + 0.1) != []


def test_a_claim_to_everything_counts_for_nothing() -> None:
    pulling = a_pulling(2 * swarm.MAX_CLAIMED)
    pulling.source_added(b"eve", 0.0)
    pulling.source_has(b"eve", [], [(0, 2 * swarm.MAX_CLAIMED)], 0.0)
    assert pulling.want(OWNER, 0.0) != []


def test_the_rarest_blocks_are_asked_first() -> None:
    pulling = a_pulling(10)
    for peer in (b"ben", b"carl", b"dora"):
        pulling.source_added(peer, 0.0)
        pulling.source_has(peer, [(0, 8)], [], 0.0)
    pulling.source_has(b"dora", [(8, 10)], [], 0.0)
    assert pulling.want(b"dora", 0.0) == [(8, 10)]


def test_two_pullers_take_turns_at_the_owner_without_a_word() -> None:
    ada, ben = a_pulling(40, me=b"ada"), a_pulling(40, me=b"ben")
    ada.source_added(b"ben", 0.0)
    ben.source_added(b"ada", 0.0)
    assert ada._my_turn() & ben._my_turn() == 0
    assert ada._my_turn() | ben._my_turn() == ada._all


def test_as_much_is_asked_as_a_source_delivers_in_a_moment() -> None:
    pulling = a_pulling(1000)
    first = blocks_of(pulling.want(OWNER, 0.0))
    assert len(first) == swarm.MIN_ASKED_BLOCKS
    now = 0.0
    owed = list(first)
    for _ in range(200):
        now += 0.01  # a hundred blocks per second
        deliver(pulling, OWNER, owed.pop(0), now)
        owed += blocks_of(pulling.want(OWNER, now))
    assert 0.5 * 100 * swarm.ASK_AHEAD_S <= len(owed) <= 1.5 * 100 * swarm.ASK_AHEAD_S


def test_a_block_that_is_late_is_asked_elsewhere_and_whoever_comes_first_counts() -> None:
    pulling = a_pulling(2)
    pulling.source_added(b"ben", 0.0)
    pulling.source_has(b"ben", [(0, 2)], [], 0.0)
    assert pulling.want(b"ben", 0.0) == [(0, 2)]
    assert pulling.want(OWNER, 1.0) == []
    late = swarm.STALL_S + 1
    assert pulling.want(OWNER, late) == [(0, 2)]
    assert pulling.writer(b"ben", 0) is Writer.PLACE
    assert pulling.writer(OWNER, 0) is Writer.SCRATCH
    assert deliver(pulling, OWNER, 0, late) is BlockState.NEW
    assert pulling.writer(b"ben", 0) is Writer.NOWHERE
    assert not pulling.arrived(b"ben", 0, BLOCK, late), "late, and not hashed any more"
    assert deliver(pulling, b"ben", 1, late) is BlockState.NEW
    assert pulling.finished
    assert pulling._doubles == 0


def test_a_wrong_block_drops_its_source_for_good_and_is_asked_elsewhere() -> None:
    pulling = a_pulling(3)
    pulling.source_added(b"eve", 0.0)
    pulling.source_has(b"eve", [(0, 3)], [], 0.0)
    asked = blocks_of(pulling.want(b"eve", 0.0))
    assert deliver(pulling, b"eve", asked[0], wrong=True) is BlockState.WRONG
    assert b"eve" not in pulling.sources
    assert not pulling.wants_source(b"eve")
    pulling.source_added(b"eve", 1.0)
    assert pulling.want(b"eve", 1.0) == []
    while (wanted := blocks_of(pulling.want(OWNER, 1.0))) != []:
        for block in wanted:
            assert deliver(pulling, OWNER, block, 1.0) is BlockState.NEW
    assert pulling.finished


def test_what_a_source_owes_when_it_goes_is_asked_elsewhere() -> None:
    pulling = a_pulling(4)
    pulling.source_added(b"ben", 0.0)
    pulling.source_has(b"ben", [(0, 4)], [], 0.0)
    owed = blocks_of(pulling.want(b"ben", 0.0))
    pulling.arrived(b"ben", owed[0], 10, 0.0)
    assert sorted(pulling.source_gone(b"ben")) == owed
    assert pulling.writer(b"ben", owed[0]) is Writer.NOWHERE
    got: list[int] = []
    while wanted := blocks_of(pulling.want(OWNER, 0.0)):
        for block in wanted:
            deliver(pulling, OWNER, block)
        got += wanted
    assert sorted(got) == [0, 1, 2, 3]


def test_a_silent_source_is_better_dropped_but_never_the_owner() -> None:
    pulling = a_pulling(10)
    pulling.source_added(b"ben", 0.0)
    pulling.source_has(b"ben", [(0, 5)], [], 0.0)
    pulling.want(b"ben", 0.0)
    pulling.want(OWNER, 0.0)
    assert pulling.silent(swarm.GIVE_UP_S - 1) == []
    assert pulling.silent(swarm.GIVE_UP_S + 1) == [b"ben"]


@pytest.mark.parametrize("blocks", [[(-1, 2)], [(3, 3)], [(5, 4)], [(0, 11)], [(0, 1 << 62)]])
def test_blocks_that_do_not_exist_are_refused_without_room_for_them(blocks: list[tuple[int, int]]) -> None:
    pulling = a_pulling(10)
    pulling.source_added(b"eve", 0.0)
    with pytest.raises(ProtocolError):
        pulling.source_has(b"eve", blocks, [], 0.0)
    with pytest.raises(ProtocolError):
        pulling.source_has(b"eve", [], blocks, 0.0)


def test_another_number_of_hashes_than_blocks_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Pulling(owner=OWNER, content_bytes=3 * BLOCK, block_bytes=BLOCK, hashes=hashes(2), me=b"me")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "arrive", "has", "gone", "add", "wrong", "time"]),
        st.sampled_from([OWNER, b"ben", b"carl", b"eve"]),
        st.integers(0, 11),
        st.integers(0, 11),
    ),
    max_size=80,
)


@given(STEPS)
def test_whatever_happens_the_books_balance_and_the_owner_can_finish_it(
    steps: list[tuple[str, bytes, int, int]],
) -> None:
    pulling, now = a_pulling(12), 0.0
    owed: dict[bytes, list[int]] = defaultdict(list)
    for kind, peer, low, high in steps:
        match kind:
            case "want":
                owed[peer] += blocks_of(pulling.want(peer, now))
            case "arrive" | "wrong" if owed[peer]:
                block = owed[peer].pop(low % len(owed[peer]))
                if pulling.arrived(peer, block, BLOCK, now):
                    wrong = kind == "wrong" and peer != OWNER
                    pulling.checked(peer, block, b"x" * HASH_BYTES if wrong else content_block(block), now)
            case "has":
                pulling.source_has(peer, [(min(low, high), max(low, high) + 1)], [(low, low + 1)], now)
            case "gone" if peer != OWNER:
                pulling.source_gone(peer)
                owed[peer].clear()
            case "add":
                pulling.source_added(peer, now)
            case "time":
                now += low
        check_books(pulling)
    for _ in range(100):  # from here on nobody but the owner delivers
        now += swarm.CLAIMS_HOLD_S + swarm.STALL_S
        for peer in pulling.sources:
            if peer != OWNER:
                pulling.want(peer, now)
        owed[OWNER] += blocks_of(pulling.want(OWNER, now))
        for block in owed[OWNER]:
            if pulling.arrived(OWNER, block, BLOCK, now):
                pulling.checked(OWNER, block, content_block(block), now)
        owed[OWNER].clear()
    assert pulling.finished


def check_books(pulling: Pulling) -> None:
    asked = 0
    doubles = 0
    for source in pulling._sources.values():
        assert source.owed_bytes == sum(pulling._length(b) - n for b, n in source.asked.items())
        assert source.asked.keys() <= set(range(pulling.count))
        for block in source.asked:
            asked |= 1 << block
    for block in range(pulling.count):
        askers = [s.peer for s in pulling._sources.values() if block in s.asked]
        doubles += max(0, len(askers) - 1)
        writer = pulling._writers.get(block)
        assert writer is None or writer in askers
    assert pulling._asked == asked & ~pulling._done
    assert pulling._doubles == doubles
    assert pulling.done_bytes == sum((end - first) * BLOCK for first, end in pulling.done_blocks)


# ── whom to tell of whom ────────────────────────────────────────────────────────────────────────────
def test_a_newcomer_hears_of_a_bounded_number_of_others_and_the_load_is_even() -> None:
    serving = Serving(10, whole=True)
    peers = [b"peer %03d" % number for number in range(100)]
    told: dict[bytes, list[bytes]] = {}
    for peer in peers:
        serving.joined(peer)
        told[peer] = serving.introductions(peer)
        assert peer not in told[peer]
        assert len(told[peer]) <= serving_module.MAX_ACQUAINTANCES
    assert told[peers[0]] == []
    assert told[peers[1]] == [peers[0]]
    degrees = [len(known) for known in serving._knows.values()]
    assert max(degrees) <= swarm.MAX_SOURCES
    assert min(degrees) >= serving_module.MAX_ACQUAINTANCES


def test_who_left_is_told_to_nobody_and_who_finished_is() -> None:
    serving = Serving(10, whole=True)
    for peer in (b"ben", b"carl", b"dora"):
        serving.joined(peer)
        serving.introductions(peer)
    serving.completed(b"ben")
    serving.left(b"ben")
    serving.left(b"carl")
    serving.joined(b"emil")
    assert sorted(serving.introductions(b"emil")) == [b"ben", b"dora"]
    assert serving.finished == {b"ben"}
    serving.left(b"ben", here=False)
    assert serving.finished == frozenset()
    assert sorted(serving.introductions(b"emil")) == [b"dora"], "asked again, it begins anew"


def test_new_blocks_are_told_in_bundles_to_those_who_don_t_know_them() -> None:
    serving = Serving(10, whole=False)
    serving.verified(1)
    serving.joined(b"ben")
    assert serving.news_due
    assert serving.news(0.0) == [(b"ben", [(1, 2)], [])]
    assert not serving.news_due
    serving.verified(2)
    serving.verified(3)
    serving.expects([(7, 8)])
    assert serving.news(serving_module.NEWS_S / 2) == [], "not yet"
    assert serving.news(serving_module.NEWS_S) == [(b"ben", [(2, 4)], [(7, 8)])]
    serving.expects([])
    assert serving.news(2 * serving_module.NEWS_S) == [(b"ben", [], [])]
    serving.left(b"ben")
    serving.verified(4)
    assert not serving.news_due


def test_scattered_news_are_cut_into_frames() -> None:
    serving = Serving(4 * serving_module.MAX_NEWS_RANGES, whole=False)
    serving.joined(b"ben")
    for block in range(0, 4 * serving_module.MAX_NEWS_RANGES, 2):
        serving.verified(block)
    told: list[int] = []
    now = 0.0
    while serving.news_due:
        ((_, ranges, _),) = serving.news(now)
        assert len(ranges) <= serving_module.MAX_NEWS_RANGES
        told += blocks_of(ranges)
        now += serving_module.NEWS_S
    assert told == list(range(0, 4 * serving_module.MAX_NEWS_RANGES, 2))


# ── numbers and descriptions ────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "size", [0, 1, BLOCK, BLOCK + 1, BLOCK * manifest.MAX_BLOCKS, BLOCK * manifest.MAX_BLOCKS + 1, 1 << 50]
)
def test_any_content_has_a_bounded_number_of_blocks(size: int) -> None:
    block_bytes = block_bytes_for(size)
    assert manifest.block_count(size, block_bytes) <= manifest.MAX_BLOCKS
    assert block_bytes == BLOCK or manifest.block_count(size, block_bytes // 2) > manifest.MAX_BLOCKS


@given(st.sets(st.integers(0, 300)))
def test_ranges_and_sets_of_blocks_are_the_same(blocks: set[int]) -> None:
    ranges = blocks_to_ranges(blocks)
    assert blocks_of(ranges) == sorted(blocks)
    assert all(end < first for (_, end), (first, _) in pairwise(ranges)), "no two touch"
    bits = sum(1 << block for block in blocks)
    assert manifest.ranges_of_blocks(bits) == ranges
    assert manifest.blocks_of_ranges(ranges) == bits


def a_manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "codec": "plain",
        "head": b"head",
        "content_bytes": 3 * BLOCK,
        "block_bytes": BLOCK,
        "hashes": hashes(3),
    }
    return Manifest(**(fields | changes))  # type: ignore[arg-type]


def test_a_manifest_is_known_by_its_root() -> None:
    packed = a_manifest().pack()
    assert Manifest.parse(packed, sha256(packed).digest()) == a_manifest()
    part = a_manifest(block_bytes=0, hashes=b"").pack()
    assert Manifest.parse(part, sha256(part).digest()).block_bytes == 0
    with pytest.raises(CorruptDataError):
        Manifest.parse(packed + b" ", sha256(packed).digest())


@pytest.mark.parametrize(
    "changes",
    [
        {"hashes": hashes(2)},
        {"content_bytes": -1},
        {"content_bytes": 1 << 60, "block_bytes": 1 << 60},
        {"block_bytes": -1},
        {"block_bytes": 1, "content_bytes": 1 << 30},
        {"block_bytes": 0},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    packed = a_manifest(**changes).pack()
    with pytest.raises(CorruptDataError):
        Manifest.parse(packed, sha256(packed).digest())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_description_or_refused(data: bytes) -> None:
    for parse in (lambda: Manifest.parse(data, sha256(data).digest()), lambda: Descriptor.parse(data, 1000)):
        with contextlib.suppress(CorruptDataError):
            parse()


@pytest.mark.parametrize(("manifest_bytes", "root"), [(0, 32), (-1, 32), (1001, 32), (10, 31), (1 << 60, 32)])
def test_a_descriptor_that_cannot_be_is_refused(manifest_bytes: int, root: int) -> None:
    with pytest.raises(CorruptDataError):
        Descriptor.parse(Descriptor(manifest_bytes, bytes(root)).pack(), 1000)
    with pytest.raises(CorruptDataError):
        Descriptor.parse(Descriptor(1 << 40, bytes(32)).pack(), 1 << 50)
