"""The handshake of two peers across a hub that does what it likes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import ProtocolError
from p2pnb.protocol import handshake as module
from p2pnb.protocol.cpace import lv_cat
from p2pnb.protocol.handshake import Established, Handshake, HandshakeFailed
from p2pnb.protocol.keys import verification_commitment
from p2pnb.protocol.wire import Commitment, HandshakeType, HelloInfo, RejectCode
from tests.pairs.fuzzing import tries
from tests.pairs.handshakes import ADA, BEN, FEATURES, Side, fixed_random, introduce, run

HELLO, KEYSHARE, CONFIRM, REJECT = (HandshakeType[name] for name in ("HELLO", "KEYSHARE", "CONFIRM", "REJECT"))
CARL = bytes(range(32, 48))
SHARE_AT = 1 + 8  # of a KEYSHARE: kind, id


def keys_agree(a: Side, b: Side) -> bool:
    ours, theirs = a.established, b.established
    here = ours.session.path("relay", b"1" * 16, b"2" * 16)
    there = theirs.session.path("relay", b"1" * 16, b"2" * 16)
    return (here.send, here.receive, here.send_proof) == (there.receive, there.send, there.receive_proof)


def nobody_established(*sides: Side) -> bool:
    return not any(isinstance(side.event, Established) for side in sides)


# ── what should work ────────────────────────────────────────────────────────────────────────────────
def test_two_who_know_the_words_agree_on_keys_and_on_nothing_else() -> None:
    a, b = introduce()
    run(a, b)
    assert keys_agree(a, b)
    assert a.established.initiator and not b.established.initiator
    assert a.established.features == b.established.features == FEATURES
    assert a.established.peer_commitment == verification_commitment(b.random.verification_nonce)
    assert (a.established.my_nonce, a.established.peer_nonce) == (b.established.peer_nonce, b.established.my_nonce)
    assert not a.handshake.guess_given and not b.handshake.guess_given


def test_features_are_those_of_both() -> None:
    a, b = Side(ADA, BEN, "ada", features=("tcp", "webrtc")), Side(BEN, ADA, "ben", features=("webrtc", "future"))
    run(a, b)
    assert a.established.features == b.established.features == ("webrtc",)


def test_a_key_share_may_come_before_the_budget_grants_ours() -> None:
    a, b = Side(ADA, BEN, "ada", budget=False), Side(BEN, ADA, "ben")
    run(a, b)
    assert a.handshake.waits_to_share and a.event is None
    a.share()
    run(a, b)
    assert keys_agree(a, b)


def test_two_handshakes_of_the_same_peers_share_no_key() -> None:
    sent: set[bytes] = set()
    for seed in "12":
        a, b = Side(ADA, BEN, "ada" + seed), Side(BEN, ADA, "ben" + seed)
        run(a, b)
        keys = {a.established.root.root, a.established.session.secret, *a.sent, *b.sent}
        assert not keys & sent
        sent |= keys


# ── wrong words, and what a guess costs ─────────────────────────────────────────────────────────────
def test_wrong_words_end_in_wrong_code_on_both_sides_and_leave_no_key() -> None:
    a, b = Side(ADA, BEN, "ada"), Side(BEN, ADA, "ben", words="amber boat cedar dunes")
    run(a, b)
    assert a.failed.code is b.failed.code is RejectCode.WRONG_CODE
    assert a.handshake.guess_given and b.handshake.guess_given


@pytest.mark.parametrize("other", [{"room": "another-room"}, {"words": ""}])
def test_another_room_or_no_words_is_a_wrong_code(other: dict[str, Any]) -> None:
    a, b = Side(ADA, BEN, "ada"), Side(BEN, ADA, "ben", **other)
    run(a, b)
    assert a.failed.code is b.failed.code is RejectCode.WRONG_CODE


ENDINGS: dict[str, Callable[[Side], bytes | None]] = {
    "wrong tag": lambda me: bytes([CONFIRM]) + me.handshake._id + bytes(32),
    "short tag": lambda me: bytes([CONFIRM]) + me.handshake._id,
    "reject wrong code": lambda me: bytes([REJECT]) + me.handshake._id + bytes([RejectCode.WRONG_CODE]),
    "reject locked": lambda me: bytes([REJECT]) + me.handshake._id + bytes([RejectCode.LOCKED]),
    "reject malformed": lambda me: bytes([REJECT]) + me.handshake._id + bytes([RejectCode.MALFORMED]),
    "reject of no kind": lambda me: bytes([REJECT]) + me.handshake._id,
    "key share again": lambda me: bytes([KEYSHARE]) + me.handshake._id + bytes(80),
    "hello again": lambda me: bytes([HELLO]) + bytes(64),
    "unknown kind": lambda me: b"\x7f",
    "nothing": lambda me: b"",
    "silence": lambda me: None,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_who_saw_our_tag_has_had_a_guess_however_the_handshake_ends(ending: str) -> None:
    """Else somebody could compare the tag with a guess and get the guess back by a polite excuse."""
    a, b = introduce()
    run(a, b, lambda source, message: None if source is b and message[0] == CONFIRM else message)
    assert a.handshake.guess_given
    last = ENDINGS[ending](a)
    if last is not None:
        a.receive(last)
        assert a.handshake.ended
    assert a.handshake.guess_given


def test_no_guess_is_given_before_the_tag() -> None:
    a, b = introduce()
    run(a, b, lambda source, message: None if source is b and message[0] >= KEYSHARE else message)
    assert a.message(KEYSHARE) and not a.handshake.guess_given
    a.receive(bytes([REJECT]) + a.handshake._id + bytes([RejectCode.WRONG_CODE]))
    assert a.failed.told_by_peer and not a.handshake.guess_given


# ── legality ────────────────────────────────────────────────────────────────────────────────────────
def side_in(state: str) -> tuple[Side, Side]:
    """Ada in this state, and Ben with everything he would say next."""
    a, b = Side(ADA, BEN, "ada", budget=state not in ("greeted", "greeted and heard")), Side(BEN, ADA, "ben")
    stop = {"greeted": HELLO, "greeted and heard": KEYSHARE, "shared": KEYSHARE, "confirmed": CONFIRM}.get(state, 255)
    run(a, b, lambda source, message: None if source is b and message[0] >= stop else message)
    if state == "failed":
        a, b = introduce()
        a.receive(bytes([HELLO]) + b"rubbish")
    return a, b


STATES = {
    "greeted": module._State.GREETED,
    "greeted and heard": module._State.GREETED,
    "shared": module._State.SHARED,
    "confirmed": module._State.CONFIRMED,
    "done": module._State.DONE,
    "failed": module._State.FAILED,
}
# what each message of this very handshake does: goes on, is ignored, or fails it
EXPECTED = {
    "greeted": {HELLO: "on", KEYSHARE: "ignored", CONFIRM: "ignored", REJECT: "ignored"},
    "greeted and heard": {HELLO: "fails", KEYSHARE: "on", CONFIRM: "fails", REJECT: "fails"},
    "shared": {HELLO: "fails", KEYSHARE: "on", CONFIRM: "fails", REJECT: "fails"},
    "confirmed": {HELLO: "fails", KEYSHARE: "fails", CONFIRM: "on", REJECT: "fails"},
    "done": dict.fromkeys((HELLO, KEYSHARE, CONFIRM, REJECT), "ignored"),
    "failed": dict.fromkeys((HELLO, KEYSHARE, CONFIRM, REJECT), "ignored"),
}


@pytest.mark.parametrize("kind", [HELLO, KEYSHARE, CONFIRM, REJECT])
@pytest.mark.parametrize("state", STATES)
def test_every_message_in_every_state_does_what_the_table_says(state: str, kind: HandshakeType) -> None:
    # Ben's messages of the handshake that Ada is in, from a run that went through
    mirror_a, mirror_b = introduce()
    run(mirror_a, mirror_b)
    message = (
        bytes([REJECT]) + mirror_b.handshake._id + bytes([RejectCode.LOCKED])
        if kind is REJECT
        else mirror_b.message(kind)
    )
    a, _ = side_in(state)
    assert snapshot(a)[0] is STATES[state]
    a.event = None
    before = snapshot(a)
    a.receive(message)
    after = snapshot(a)
    outcome = "ignored" if after == before else "fails" if after[0] is module._State.FAILED else "on"
    assert outcome == EXPECTED[state][kind]
    assert isinstance(after[1], HandshakeFailed) == (outcome == "fails")


def snapshot(side: Side) -> tuple[object, ...]:
    """All that a message could change."""
    machine = side.handshake
    return machine._state, side.event, len(side.sent), len(machine._early), machine.greeted


def test_relay_messages_that_are_no_handshake_fail_it() -> None:
    for kind in set(range(256)) - {HELLO, KEYSHARE, CONFIRM, REJECT}:
        a, _ = introduce()
        a.receive(bytes([kind]) + bytes(64))
        assert a.failed.code is RejectCode.MALFORMED


def test_nobody_shakes_hands_with_himself() -> None:
    with pytest.raises(ProtocolError):
        Handshake(room="r", words="w", my_id=ADA, peer_id=ADA, random=fixed_random("x"))


# ── a hostile hub ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", [HELLO, KEYSHARE, CONFIRM])
def test_our_own_message_back_never_establishes(kind: HandshakeType) -> None:
    a, b = introduce()
    run(a, b, lambda source, message: a.message(kind) if source is b and message[0] == kind else message)
    assert nobody_established(a)


def test_a_mirror_of_everything_fails_at_once() -> None:
    a, _ = introduce()
    a.receive(a.message(HELLO))
    assert a.failed.code is RejectCode.MALFORMED and len(a.sent) == 1


def test_two_handshakes_of_one_peer_cannot_be_joined() -> None:
    """Ada talks to Ben and to Carl; the hub joins her two ends to each other."""
    to_ben, to_carl = Side(ADA, BEN, "one"), Side(ADA, CARL, "two")
    run(to_ben, to_carl)
    assert nobody_established(to_ben, to_carl)


def test_a_recorded_handshake_is_worth_nothing_later() -> None:
    a, b = introduce()
    run(a, b)
    again = Side(ADA, BEN, "ada, later")
    for message in b.sent:
        again.receive(message)
    assert nobody_established(again)


def test_messages_of_an_earlier_try_are_not_taken_for_a_wrong_code() -> None:
    """Ben was asleep: he answers both of Ada's HELLOs, and the answer to the first comes first."""
    earlier, later, b = Side(ADA, BEN, "ada 1"), Side(ADA, BEN, "ada 2"), Side(BEN, ADA, "ben")
    b.receive(earlier.message(HELLO))
    b_again = Side(BEN, ADA, "ben")  # same HELLO: Ben's nonce stands until a handshake with it ended
    b_again.receive(later.message(HELLO))
    for message in (*b.sent, bytes([REJECT]) + b.handshake._id + bytes([RejectCode.WRONG_CODE])):
        later.receive(message)
    later.taken = b_again.taken = 1  # the HELLOs are there
    run(later, b_again)
    assert isinstance(later.event, Established) and isinstance(b_again.event, Established)


def changed_commitment(message: bytes, **change: object) -> bytes:
    at = SHARE_AT + 32
    commitment = msgspec.msgpack.decode(message[at:], type=Commitment)
    return message[:at] + msgspec.msgpack.encode(msgspec.structs.replace(commitment, **change))


def changed_hello(message: bytes, **change: object) -> bytes:
    info = msgspec.msgpack.decode(message[33:], type=HelloInfo)
    return message[:33] + msgspec.msgpack.encode(msgspec.structs.replace(info, **change))


DOWNGRADES: dict[str, tuple[HandshakeType, Callable[[bytes], bytes]]] = {
    "feature stripped from HELLO": (HELLO, lambda m: changed_hello(m, features=["webrtc"])),
    "feature added to HELLO": (HELLO, lambda m: changed_hello(m, features=[*FEATURES, "pickle"])),
    "version changed": (HELLO, lambda m: changed_hello(m, protocol="p2pnb/0")),
    "HELLO written differently": (HELLO, lambda m: m + b"\xc0"),
    "nonce changed": (HELLO, lambda m: m[:5] + b"????" + m[9:]),
    "feature stripped from KEYSHARE": (KEYSHARE, lambda m: changed_commitment(m, features=["webrtc"])),
    "feature added to KEYSHARE": (KEYSHARE, lambda m: changed_commitment(m, features=[*FEATURES, "pickle"])),
    "commitment swapped": (KEYSHARE, lambda m: changed_commitment(m, verification=bytes(32))),
    "share swapped": (KEYSHARE, lambda m: m[:SHARE_AT] + bytes([9] + [0] * 31) + m[SHARE_AT + 32 :]),
    "share of low order": (KEYSHARE, lambda m: m[:SHARE_AT] + bytes(32) + m[SHARE_AT + 32 :]),
    "commitment of the wrong length": (KEYSHARE, lambda m: changed_commitment(m, verification=bytes(31))),
    "key share cut": (KEYSHARE, lambda m: m[:30]),
    "key share of a megabyte": (KEYSHARE, lambda m: m + bytes(1 << 20)),
    "tag changed": (CONFIRM, lambda m: m[:-1] + bytes([m[-1] ^ 1])),
    "tag cut": (CONFIRM, lambda m: m[:-1]),
}


@pytest.mark.parametrize("name", DOWNGRADES)
@pytest.mark.parametrize("victim", ["initiator", "responder"])
def test_what_the_hub_changes_ends_the_handshake(name: str, victim: str) -> None:
    kind, change = DOWNGRADES[name]
    a, b = introduce()
    source = a if victim == "responder" else b
    run(a, b, lambda side, message: change(message) if side is source and message[0] == kind else message)
    if kind is CONFIRM:  # the one who sent it may be done; the other never is, and no record of his opens
        assert nobody_established(b if source is a else a)
    else:
        assert nobody_established(a, b)


@tries(150)
@given(st.integers(0, 2), st.integers(0, 200), st.integers(1, 255))
def test_no_changed_byte_anywhere_is_accepted(which: int, at: int, flip: int) -> None:
    a, b = introduce()
    kind = (HELLO, KEYSHARE, CONFIRM)[which]

    def change(side: Side, message: bytes) -> bytes:
        if side is not a or message[0] != kind:
            return message
        position = at % len(message)
        return message[:position] + bytes([message[position] ^ flip]) + message[position + 1 :]

    run(a, b, change)
    assert nobody_established(b)


@tries(60)
@given(st.lists(st.binary(max_size=120), max_size=6))
def test_rubbish_never_establishes_and_never_raises(messages: list[bytes]) -> None:
    a, _ = introduce()
    for message in messages:
        a.receive(message)
        a.receive(bytes([HELLO]) + message)
    assert nobody_established(a)


# ── three who share the words ───────────────────────────────────────────────────────────────────────
def cross_connected() -> tuple[Side, Side]:
    """Ada means to meet Ben; the hub hands her messages to Carl, who means to meet her, and his to her as Ben's."""
    ada, carl = Side(ADA, BEN, "ada"), Side(CARL, ADA, "carl")
    run(ada, carl)
    return ada, carl


def test_a_session_with_ben_cannot_be_turned_into_one_with_carl() -> None:
    ada, carl = cross_connected()
    assert ada.failed.code is carl.failed.code is RejectCode.WRONG_CODE


def test_without_ids_in_the_channel_the_hub_could_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant that shows the test above can fail."""
    ids = {ADA, BEN, CARL}
    monkeypatch.setattr(module, "lv_cat", lambda *fields: lv_cat(*(field for field in fields if field not in ids)))
    ada, carl = cross_connected()
    assert keys_agree(ada, carl)
