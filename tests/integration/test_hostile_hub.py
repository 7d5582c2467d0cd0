"""A hub that lies: an error or a stall with a clear state, never wrong data (T2, T5-T10, T13, T47, T48).

What each test ends in: nobody saw anything that was not said, in that order; and once the hub behaves again,
the room goes on.
"""

from __future__ import annotations

import itertools
import random
import secrets
import time
from collections.abc import Callable, Iterable

import msgspec
import pytest

import p2pnb
from p2pnb.engine.member import Member
from p2pnb.errors import AuthenticationError, HubError, HubUnavailableError, P2PError, WaitTimeoutError, WrongCodeError
from p2pnb.protocol import handshake
from p2pnb.protocol.cpace import lv_cat
from p2pnb.protocol.hub import Error, ErrorCode, Joined, Left, Limits, PeerEntry, Restarting, Welcome
from p2pnb.protocol.wire import HandshakeType
from p2pnb.room import Room
from tests.integration.hostile_hub import Delivery, HostileHub
from tests.integration.meeting import Meeting, peer_id, see_each_other, still_lives, texts, until

SAID = [f"message {number}" for number in range(12)]


def _passes(delivery: Delivery) -> list[Delivery]:
    return [delivery]


def _in_order(heard: list[str]) -> bool:
    """Tell whether what was heard is a beginning of what was said: nothing lost in between, doubled or changed."""
    return heard == SAID[: len(heard)]


@pytest.fixture
def quick_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for the protocol's patience with slow kernels."""
    monkeypatch.setattr("p2pnb.engine.link.RELAY_RETRY_S", 0.2)
    monkeypatch.setattr("p2pnb.engine.link.PROOF_TIMEOUT_S", 0.5)
    monkeypatch.setattr("p2pnb.engine.greeting.HANDSHAKE_TIMEOUT_S", 0.5)
    monkeypatch.setattr("p2pnb.protocol.session.PING_ACTIVE_S", 0.3)
    monkeypatch.setattr("p2pnb.protocol.session.PATH_DOUBT_S", 1.0)


# ── between members whose session stands ────────────────────────────────────────────────────────────
class Nth:
    """Does something to every n-th record of `source`."""

    def __init__(self, source: bytes, every: int, act: Callable[[Delivery], Iterable[Delivery]]) -> None:
        self.source, self.every, self.act = source, every, act
        self.count = 0
        self.acted = 0

    def __call__(self, delivery: Delivery) -> Iterable[Delivery]:
        if delivery.source == self.source and delivery.is_record:
            self.count += 1
            if self.count % self.every == 0:
                self.acted += 1
                return self.act(delivery)
        return [delivery]


def _flip(delivery: Delivery) -> list[Delivery]:
    place = 1 + secrets.randbelow(len(delivery.payload) - 1)
    changed = bytearray(delivery.payload)
    changed[place] ^= 1 << secrets.randbelow(8)
    return [delivery.changed(payload=bytes(changed))]


def _held_back() -> Callable[[Delivery], list[Delivery]]:
    kept: list[Delivery] = []

    def swap(delivery: Delivery) -> list[Delivery]:
        kept.append(delivery)
        return [kept.pop(), kept.pop()] if len(kept) == 2 else []

    return swap


ATTACKS: dict[str, Callable[[], Callable[[Delivery], Iterable[Delivery]]]] = {
    "drops": lambda: lambda delivery: [],
    "doubles": lambda: lambda delivery: [delivery, delivery],
    "changes a bit": lambda: _flip,
    "cuts": lambda: lambda delivery: [delivery.changed(payload=delivery.payload[: len(delivery.payload) // 2])],
    "empties": lambda: lambda delivery: [delivery.changed(payload=delivery.payload[:1])],
    "lengthens": lambda: lambda delivery: [delivery.changed(payload=delivery.payload + b"\0")],
    "reorders": _held_back,
    "reflects": lambda: lambda d: [d, d.changed(source=d.destination, destination=d.source)],
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("every", [2, 7])
def test_chat_comes_once_and_in_order_through_a_hub_that(
    hub: HostileHub, meeting: Meeting, quick_recovery: None, attack: str, every: int
) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    hostile = hub.on_payload = Nth(peer_id(ada), every, ATTACKS[attack]())
    for text in SAID:
        ada.chat(text)
        assert _in_order(texts(ben))

    def struck() -> bool:
        if not hostile.acted:
            ada.send(None, "more records")
        return bool(hostile.acted)

    until(struck, "the hub struck")
    hub.on_payload = _passes
    until(lambda: len(texts(ben)) >= len(SAID), "all arrives once the hub behaves", 5)
    assert texts(ben) == SAID
    still_lives(ada, ben)


@pytest.mark.parametrize("attack", ["drops", "doubles", "changes a bit", "reorders"])
def test_value_comes_equal_through_a_hub_that(
    hub: HostileHub, meeting: Meeting, quick_recovery: None, attack: str
) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    value = random.Random(7).randbytes(3_000_000)
    hostile = hub.on_payload = Nth(peer_id(ada), 9, ATTACKS[attack]())
    transfer = ada.send(value, "value")
    until(lambda: hostile.acted >= 2 or transfer.state == "done", "the hub struck twice")
    hub.on_payload = _passes
    transfer.result(20)
    assert ben.receive("value", 5) == value
    assert hostile.acted
    assert len(ben.inbox.all()) == 1


def test_duplicate_everything_delivers_nothing_twice(
    hub: HostileHub, meeting: Meeting, quick_recovery: None
) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    hub.on_payload = lambda delivery: [delivery, delivery]
    for text in SAID:
        ada.chat(text)
    end = time.monotonic() + 1
    until(lambda: time.monotonic() > end or len(texts(ben)) == len(SAID))
    assert _in_order(texts(ben))
    hub.on_payload = _passes
    until(lambda: texts(ben) == SAID, "all arrives once", 5)


def test_replay_of_a_whole_session_does_nothing(hub: HostileHub, meeting: Meeting, quick_recovery: None) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.chat("once")
    until(lambda: texts(ben) == ["once"])
    ada.send({"one": 1}, "item").result(5)
    assert ben.receive("item", 5) == {"one": 1}
    for one in list(hub.deliveries):
        hub.inject(one.room, one.source, one.destination, one.payload)
    still_lives(ada, ben)
    assert texts(ben)[0] == "once"
    assert texts(ben).count("once") == 1
    assert len(ben.inbox.all()) == 1


def test_replay_of_an_old_session_convinces_nobody(hub: HostileHub, meeting: Meeting, quick_recovery: None) -> None:
    """The hub plays what Ben once said to Ada, as the same peer, to the same Ada."""
    ada, ben = meeting.people("Ada", "Ben")
    ben.chat("old")
    until(lambda: texts(ada) == ["old"])
    gone, old = peer_id(ben), [d for d in hub.deliveries if d.source == peer_id(ben)]
    ben.leave()
    until(lambda: not ada.peers, "Ben left")
    hub.announce(ada.id, Joined(gone.hex()), to=peer_id(ada))
    for one in old:
        hub.inject(ada.id, gone, peer_id(ada), one.payload)
    carl = meeting.join("Carl")
    see_each_other([ada, carl])
    still_lives(ada, carl)
    assert set(ada.peers) == {"Carl"}
    assert [text for text in texts(ada) if text == "old"] == ["old"]


def test_record_of_one_pair_means_nothing_to_another(hub: HostileHub, meeting: Meeting, quick_recovery: None) -> None:
    """Ada's sealed records to Ben are handed to Carl as Ada's, and as Ben's (T6)."""
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    a, b, c = map(peer_id, (ada, ben, carl))

    def swap(delivery: Delivery) -> list[Delivery]:
        if delivery.source == a and delivery.destination == b and delivery.is_record:
            return [delivery.changed(destination=c), delivery.changed(source=b, destination=c)]
        return [delivery]

    hub.on_payload = swap
    ada.chat("for Ben alone", to="Ben")
    ada.chat("for all")
    until(lambda: "for all" in texts(carl))
    hub.on_payload = _passes
    until(lambda: texts(ben) == ["for Ben alone", "for all"], "Ben has both")
    assert texts(carl) == ["for all"]
    still_lives(ada, ben, carl)


@pytest.mark.parametrize("size", [0, 1, 17, 65_536, 262_000])
@pytest.mark.parametrize("kind", [*HandshakeType, 0x00, 0xFF])
def test_injected_bytes_change_nothing(
    hub: HostileHub, meeting: Meeting, quick_recovery: None, kind: int, size: int
) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    hub.inject(ada.id, peer_id(ben), peer_id(ada), bytes([kind]) + secrets.token_bytes(size))
    hub.inject(ada.id, secrets.token_bytes(16), peer_id(ada), bytes([kind]) + secrets.token_bytes(size))
    still_lives(ada, ben)
    assert set(ada.peers) == {"Ben"}


# ── at the handshake ────────────────────────────────────────────────────────────────────────────────
def _joins_or_says_why(meeting: Meeting, name: str = "Ben") -> Room | P2PError:
    try:
        return meeting.join(name)
    except P2PError as error:
        return error


def _cross_connected(hub: HostileHub, meeting: Meeting) -> tuple[Room, Room, Room | P2PError]:
    """Carl joins Ada and Ben at a hub that shows him each of them as the other."""
    hub.ids = [bytes([number]) * 16 for number in (1, 2, 3)]  # one order of ids: roles agree in spite of the swap
    ada, ben = meeting.people("Ada", "Ben")
    other = {peer_id(ada): peer_id(ben), peer_id(ben): peer_id(ada)}
    carl = bytes([3]) * 16

    def swap(delivery: Delivery) -> list[Delivery]:
        if carl in (delivery.source, delivery.destination):
            return [delivery.changed(source=other.get(delivery.source, delivery.source),
                                     destination=other.get(delivery.destination, delivery.destination))]  # fmt: skip
        return [delivery]

    hub.on_payload = swap
    return ada, ben, _joins_or_says_why(meeting, "Carl")


def test_cross_connection_of_three_who_share_a_code_fails(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben, outcome = _cross_connected(hub, meeting)
    assert isinstance(outcome, AuthenticationError)
    assert (set(ada.peers), set(ben.peers)) == ({"Ben"}, {"Ada"})
    still_lives(ada, ben)
    hub.on_payload = _passes
    carl = meeting.join("Carl")
    see_each_other([ada, ben, carl])


def test_cross_connection_would_succeed_without_ids_in_the_channel(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defence broken on purpose: Carl then takes Ben for Ada."""
    whole = lv_cat
    monkeypatch.setattr(handshake, "lv_cat", lambda *parts: whole(*parts[:2], *parts[4:]))
    ada, _, outcome = _cross_connected(hub, meeting)
    assert isinstance(outcome, Room)
    until(lambda: "Ben" in outcome.peers and "Ada" in outcome.peers)
    assert outcome.peers["Ben"].id == peer_id(ada).hex()


@pytest.mark.parametrize("kind", [HandshakeType.HELLO, HandshakeType.KEYSHARE, HandshakeType.CONFIRM])
@pytest.mark.parametrize("attack", ["changes a bit", "cuts", "empties", "lengthens"])
def test_changed_handshake_fails_without_exchange(
    hub: HostileHub, meeting: Meeting, quick_recovery: None, monkeypatch: pytest.MonkeyPatch, kind: int, attack: str
) -> None:
    monkeypatch.setattr(Member.join, "__defaults__", (0.6,))
    act = ATTACKS[attack]()
    ada = meeting.create("Ada")
    hub.on_payload = lambda delivery: act(delivery) if delivery.kind == kind else [delivery]
    began = time.monotonic()
    outcome = _joins_or_says_why(meeting)
    assert time.monotonic() - began < 4
    assert isinstance(outcome, Room | AuthenticationError)
    assert not ada.peers
    if isinstance(outcome, Room):
        assert not outcome.peers
        outcome.leave()
    assert not [delivery for delivery in hub.deliveries if delivery.is_record]
    hub.on_payload = _passes
    if ada.locked:
        ada.unlock()
    see_each_other([ada, meeting.join("Carl")])


@pytest.mark.parametrize("kind", [HandshakeType.HELLO, HandshakeType.KEYSHARE, HandshakeType.CONFIRM])
@pytest.mark.parametrize("attack", ["changes a bit", "cuts", "drops", "doubles"])
def test_handshake_is_tried_again_after_one_message_was_damaged(
    hub: HostileHub, meeting: Meeting, quick_recovery: None, monkeypatch: pytest.MonkeyPatch, kind: int, attack: str
) -> None:
    monkeypatch.setattr(Member.join, "__defaults__", (3.0,))
    ada = meeting.create("Ada")
    act = ATTACKS[attack]()
    struck: list[Delivery] = []

    def once(delivery: Delivery) -> Iterable[Delivery]:
        if delivery.kind == kind and not struck:
            struck.append(delivery)
            return act(delivery)
        return [delivery]

    hub.on_payload = once
    ben = _joins_or_says_why(meeting)
    assert struck
    if attack in ("changes a bit", "cuts") and isinstance(ben, AuthenticationError):
        return  # what a wrong guess or another version looks like: nobody can tell them apart
    assert isinstance(ben, Room), ben
    see_each_other([ada, ben], 3)


def test_stripped_features_are_noticed(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that takes "webrtc" and "tcp" out of both HELLOs, well-formed, to keep the traffic to itself (T8)."""
    monkeypatch.setattr(Member.join, "__defaults__", (1.5,))

    def strip(delivery: Delivery) -> list[Delivery]:
        if delivery.kind == HandshakeType.HELLO:
            protocol, _ = msgspec.msgpack.decode(delivery.payload[33:])
            stripped = delivery.payload[:33] + msgspec.msgpack.encode([protocol, []])
            assert stripped != delivery.payload
            return [delivery.changed(payload=stripped)]
        return [delivery]

    ada = meeting.create("Ada", relay="fallback")
    hub.on_payload = strip
    with pytest.raises(AuthenticationError):
        meeting.join("Ben", relay="fallback")
    assert not ada.peers


def test_hub_that_reflects_the_handshake_meets_nobody(
    hub: HostileHub, meeting: Meeting, quick_recovery: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Member.join, "__defaults__", (1.0,))
    ada = meeting.create("Ada")
    hub.on_payload = lambda d: [d.changed(source=d.destination, destination=d.source)]
    outcome = _joins_or_says_why(meeting)
    assert isinstance(outcome, Room | AuthenticationError)
    assert not isinstance(outcome, Room) or not outcome.peers
    assert not ada.peers


def test_hub_that_guesses_in_the_middle_is_seen_by_both(hub: HostileHub, meeting: Meeting) -> None:
    """It answers each side itself, with words it made up (T2)."""
    ada = meeting.create("Ada")
    middle: dict[tuple[bytes, bytes], handshake.Handshake] = {}

    def answer(delivery: Delivery) -> list[Delivery]:
        if delivery.is_record or delivery.kind == HandshakeType.OPEN:
            return []
        pair = (delivery.source, delivery.destination)
        if delivery.kind == HandshakeType.HELLO:
            random_bytes = handshake.HandshakeRandom(*(secrets.token_bytes(32) for _ in range(3)))
            middle[pair] = handshake.Handshake(
                room=ada.id, words="made up words", my_id=delivery.destination, peer_id=delivery.source,
                random=random_bytes, features=("webrtc",),
            )  # fmt: skip
            middle[pair].start()
        guess = middle.get(pair)
        if guess is None:
            return []
        guess.receive_message(delivery.payload)
        if guess.waits_to_share:
            guess.share()
        back = delivery.changed(source=delivery.destination, destination=delivery.source)
        return [back.changed(payload=message) for message in guess.messages_to_send()]

    hub.on_payload = answer
    with pytest.raises(WrongCodeError):
        meeting.join("Ben")
    until(lambda: [type(notice) for notice in ada.notices] == [WrongCodeError], "Ada is told")
    assert not ada.peers
    assert not [delivery for delivery in hub.deliveries if delivery.is_record]


# ── presence ────────────────────────────────────────────────────────────────────────────────────────
def test_peers_that_only_the_hub_has_seen_are_not_shown(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    for _ in range(40):
        hub.announce(ada.id, Joined(secrets.token_hex(16), owner=True), to=peer_id(ada))
    still_lives(ada, ben)
    assert set(ada.peers) == {"Ben"}


def test_join_ends_although_the_roster_is_made_up(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Member.join, "__defaults__", (1.0,))
    ada = meeting.create("Ada")
    ghosts = [PeerEntry(secrets.token_hex(16)) for _ in range(20)]
    hub.welcome = lambda welcome: msgspec.structs.replace(welcome, peers=[*ghosts, *welcome.peers])
    began = time.monotonic()
    ben = meeting.join("Ben")
    assert time.monotonic() - began < 2
    see_each_other([ada, ben])
    still_lives(ada, ben)


def test_left_and_joined_without_reason_lose_nothing(
    hub: HostileHub, meeting: Meeting, quick_recovery: None
) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    b = peer_id(ben).hex()
    for text in SAID:
        hub.announce(ada.id, Left(b), to=peer_id(ada))
        hub.announce(ada.id, Joined(b), to=peer_id(ada))
        until(lambda: ada.peers["Ben"].state == "here", "Ben is here again")
        ada.chat(text)
    until(lambda: texts(ben) == SAID, "all in order", 5)


def test_hub_can_not_make_a_stranger_of_the_owner(hub: HostileHub, meeting: Meeting) -> None:
    """`owner` is the hub's word: what it is good for is unlocking, not more."""
    ada, ben = meeting.people("Ada", "Ben")
    assert ben.peers["Ada"].owner
    assert not ada.peers["Ben"].owner


BAD_WELCOMES: dict[str, Callable[[Welcome], Welcome | str]] = {
    "an id that is no hex": lambda w: msgspec.structs.replace(w, id="zz" * 16),
    "a short id": lambda w: msgspec.structs.replace(w, id="ab"),
    "a peer id that is no hex": lambda w: msgspec.structs.replace(w, peers=[PeerEntry("zz" * 16)]),
    "a short peer id": lambda w: msgspec.structs.replace(w, peers=[PeerEntry("ab")]),
    "oneself as a peer": lambda w: msgspec.structs.replace(w, peers=[PeerEntry(w.id)]),
    "a limit of one byte": lambda w: msgspec.structs.replace(w, limits=Limits(payload_bytes=1)),
    "a negative limit": lambda w: msgspec.structs.replace(w, limits=Limits(payload_bytes=-1)),
    "no JSON": lambda w: "{",
    "too much text": lambda w: " " * 20_000,
}


@pytest.mark.parametrize("what", BAD_WELCOMES)
def test_bad_welcome_is_an_error_at_once(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(Member.join, "__defaults__", (1.5,))
    meeting.create("Ada")
    hub.welcome = BAD_WELCOMES[what]
    began = time.monotonic()
    outcome = _joins_or_says_why(meeting)
    assert isinstance(outcome, HubError), outcome
    assert "within" not in str(outcome), "an error, not a time-out"
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"type":"later-invention"}', '{"type":"joined","id":"zz"}', '{"type":"left"}', " " * 20_000,
     '{"type":"welcome","id":"00","secret":"","ticket":"","peers":[]}'],
)  # fmt: skip
def test_bad_text_in_the_session_costs_at_most_a_reconnection(
    hub: HostileHub, meeting: Meeting, quick_recovery: None, text: str
) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    hub.announce(ada.id, text, to=peer_id(ada))
    see_each_other([ada, ben])
    still_lives(ada, ben)


def test_smaller_payload_limit_of_the_hub_is_kept_to(hub: HostileHub, meeting: Meeting) -> None:
    """A hub may allow as little as a kilobyte a message; transfers then go in smaller pieces."""
    hub.welcome = lambda welcome: msgspec.structs.replace(welcome, limits=Limits(payload_bytes=64 * 1024))
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    value = secrets.token_bytes(1_000_000)
    ada.send(value, "value").result(5)
    assert ben.receive("value", 5) == value
    assert max(len(delivery.payload) for delivery in hub.deliveries) <= 64 * 1024
    ada.chat("x" * 30_000)
    until(lambda: len(texts(ben)) == 1, "long chat")


# ── silence ─────────────────────────────────────────────────────────────────────────────────────────
def _ends_within(seconds: float, call: Callable[[], object]) -> object:
    began = time.monotonic()
    try:
        outcome = call()
    except P2PError as error:
        outcome = error
    assert time.monotonic() - began < seconds
    return outcome


def test_hub_that_never_answers_ends_create_and_join(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnb.discovery.CALL_TIMEOUT_S", 0.3)
    monkeypatch.setattr("p2pnb.engine.hub_client.CONNECT_TIMEOUT_S", 0.3)
    meeting.create("Ada")
    hub.silent = True
    assert isinstance(_ends_within(2, lambda: meeting.create("Carl")), HubUnavailableError)
    assert isinstance(_ends_within(2, lambda: meeting.join("Ben", meeting.invite)), HubUnavailableError)
    assert isinstance(_ends_within(2, lambda: p2pnb.join(meeting.wrong_invite(), "Eve")), HubUnavailableError)


def test_every_call_ends_at_a_hub_that_stops_reading(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    hub.deaf = True
    hub.on_payload = lambda _: []  # what it reads once more is lost
    ada.chat("into the void")
    assert _ends_within(1, lambda: [ada.chat("again"), ada.state, ada.peers, ada.messages, repr(ada)])
    transfer = ada.send(b"x" * 200_000, "value")
    assert isinstance(_ends_within(1, lambda: transfer.result(0.2)), WaitTimeoutError)
    assert isinstance(_ends_within(1, lambda: ben.receive("value", 0.2)), WaitTimeoutError)
    assert transfer.state == "offered"
    _ends_within(1, ada.unlock)
    _ends_within(1, transfer.cancel)
    _ends_within(4, ada.leave)
    assert ada.state == "closed"
    hub.deaf = False


def test_backlog_of_a_silent_peer_is_bounded_and_said(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20: with nobody answering, a flood of messages ends in an error, not in memory; Carl hears all of it."""
    monkeypatch.setattr("p2pnb.protocol.session.MAX_UNACKED_FRAMES", 64)
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    b = peer_id(ben)
    hub.on_payload = lambda delivery: [] if b in (delivery.source, delivery.destination) else [delivery]

    def flood() -> None:
        for number in itertools.count():
            ada.chat(f"{number}", to="Ben")

    with pytest.raises(P2PError, match=r"wait|does not answer"):
        flood()
    assert not texts(ben)
    with pytest.raises(P2PError):
        ada.send([1], "item", to="Ben").result(0.5)
    ada.chat("to Carl", to="Carl")
    until(lambda: texts(carl) == ["to Carl"], "others are not concerned")
    hub.on_payload = _passes


@pytest.mark.parametrize(
    ("code", "error"),
    [(ErrorCode.ROOM_FULL, HubError), (ErrorCode.TOO_MANY_JOINS, HubError), (ErrorCode.OPEN_SERVER, HubError),
     (ErrorCode.ROOM_NOT_FOUND, p2pnb.errors.RoomNotFoundError), ("later-invention", HubError)],
)  # fmt: skip
def test_refusal_is_told_in_the_hubs_words(
    hub: HostileHub, meeting: Meeting, code: str, error: type[Exception]
) -> None:
    meeting.create("Ada")
    hub.refusal = Error(code, "Said by the hub.", retry_after=7)
    with pytest.raises(error, match=r"Said by the hub.*7 s|no such room"):
        meeting.join("Ben")


def test_hub_names_a_time_to_come_back(hub: HostileHub, meeting: Meeting, quick_recovery: None) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    hub.announce(ada.id, Restarting(retry_after=0.3))
    still_lives(ada, ben)
    states: list[str] = []
    ada.on("state", lambda room: states.append(room.state))
    began = time.monotonic()
    hub.cut()
    until(lambda: states == ["reconnecting", "open"], "Ada is back")
    assert time.monotonic() - began >= 0.15
    see_each_other([ada, ben])
    still_lives(ada, ben)
