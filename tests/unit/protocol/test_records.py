"""Records: whatever happens to them on the way ends the path, and no nonce is ever used twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import ProtocolError
from p2pnb.protocol import records
from p2pnb.protocol.keys import SessionSecret, next_key
from p2pnb.protocol.records import TAG_BYTES, PathCipher
from p2pnb.protocol.wire import MAX_BEFORE_PROOF_BYTES, FrameType
from tests.pairs.fuzzing import tries
from tests.pairs.oracle import NonceOracle

SECRET = bytes(range(32))
HERE, THERE = b"i" * 16, b"r" * 16


def ends(rekey: int = records.REKEY_RECORDS, transport: str = "relay") -> tuple[PathCipher, PathCipher]:
    return (
        PathCipher(SessionSecret(SECRET, True).path(transport, HERE, THERE), rekey_records=rekey),
        PathCipher(SessionSecret(SECRET, False).path(transport, HERE, THERE), rekey_records=rekey),
    )


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> NonceOracle:
    oracle = NonceOracle()
    monkeypatch.setattr(records, "AESGCM", oracle)
    return oracle


@pytest.mark.parametrize("rekey", [1, 2, 8, records.REKEY_RECORDS])
def test_both_ways_carry_frames_in_order_across_rekeys_and_no_nonce_repeats(rekey: int, oracle: NonceOracle) -> None:
    a, b = ends(rekey)
    for number in range(50):
        frame = bytes([number]) * number
        assert b.open(a.seal(frame)) == frame
        assert a.open(b.seal(memoryview(frame))) == frame
    assert len(oracle.sealed) == 100


def test_a_rekey_changes_the_key_after_exactly_the_limit(oracle: NonceOracle) -> None:
    a, _ = ends(8)
    for _ in range(17):
        a.seal(b"x")
    keys: dict[bytes, set[bytes]] = {}
    for key, nonce in oracle.sealed:
        keys.setdefault(key, set()).add(nonce)
    first = SessionSecret(SECRET, True).path("relay", HERE, THERE).send
    assert [len(keys[key]) for key in (first, next_key(first), next_key(next_key(first)))] == [8, 8, 1]


def test_the_default_limit_is_far_below_what_gcm_allows() -> None:
    assert records.REKEY_RECORDS * (1 << 20) // 16 <= 1 << 32


def test_path_instances_share_no_key_whatever_differs() -> None:
    secret = SessionSecret(SECRET, True)
    instances = [
        secret.path("relay", HERE, THERE),
        secret.path("webrtc", HERE, THERE),
        secret.path("relay", THERE, HERE),
        secret.path("relay", HERE + THERE[:1], THERE[1:]),  # borders between the nonces can't be moved
        secret.path("relay", HERE, bytes(16)),
        SessionSecret(bytes(32), True).path("relay", HERE, THERE),
    ]
    keys = [key for p in instances for key in (p.send, p.receive, p.send_proof, p.receive_proof)]
    assert len(set(keys)) == len(keys) == 24


TAMPERINGS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "replayed": lambda r: [r[0], r[0], *r[1:]],
    "first again at the end": lambda r: [*r, r[0]],
    "swapped": lambda r: [r[1], r[0], *r[2:]],
    "one lost": lambda r: r[1:],
    "one lost in the middle": lambda r: [r[0], *r[2:]],
    "cut by a byte": lambda r: [r[0][:-1], *r[1:]],
    "cut to nothing": lambda r: [b"", *r[1:]],
    "cut to a tag": lambda r: [r[0][:TAG_BYTES], *r[1:]],
    "made longer": lambda r: [r[0] + b"\0", *r[1:]],
    "two as one": lambda r: [r[0] + r[1], *r[2:]],
    "invented": lambda r: [bytes(40), *r],
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
@pytest.mark.parametrize("rekey", [2, 1000])
def test_tampering_ends_the_path_before_a_wrong_frame_comes_out(tampering: str, rekey: int) -> None:
    a, b = ends(rekey)
    frames = [bytes([number]) * 20 for number in range(6)]
    opened = []

    def open_all() -> None:
        for record in TAMPERINGS[tampering]([a.seal(frame) for frame in frames]):
            opened.append(b.open(record))

    with pytest.raises(ProtocolError):
        open_all()
    assert opened == frames[: len(opened)]
    with pytest.raises(ProtocolError):
        b.open(a.seal(b"later"))
    with pytest.raises(ProtocolError):
        b.seal(b"nor does anything leave any more")


@tries(100)
@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_bit_passes(frame: bytes, at: int, flip: int) -> None:
    a, b = ends()
    record = bytearray(a.seal(frame))
    record[at % len(record)] ^= flip
    with pytest.raises(ProtocolError):
        b.open(record)


def test_a_record_sent_back_to_its_sender_does_not_open() -> None:
    a, _ = ends()
    record = a.seal(b"frame")
    with pytest.raises(ProtocolError):
        a.open(record)


def test_a_record_of_another_path_does_not_open() -> None:
    a, _ = ends(transport="relay")
    _, b = ends(transport="webrtc")
    with pytest.raises(ProtocolError):
        b.open(a.seal(b"frame"))


# ── proofs ──────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("received", [0, 1, 2**63, 2**64 - 1])
def test_a_proof_proves_the_end_and_says_what_it_received(received: int) -> None:
    a, b = ends()
    assert b.open_proof(a.proof_record(received)) == received
    assert b.proven and not a.proven


def test_a_proof_fits_what_a_stranger_may_send() -> None:
    assert len(ends()[0].proof_record(0)) <= MAX_BEFORE_PROOF_BYTES


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes([FrameType.PROOF]),
        bytes([FrameType.PROOF]) + bytes(40),
        bytes([FrameType.CONTROL]) + bytes(40),
        bytes([FrameType.PROOF]) + bytes(41),
    ],
)
def test_anything_but_the_proof_as_first_record_ends_the_path(frame: bytes) -> None:
    a, b = ends()
    with pytest.raises(ProtocolError):
        b.open_proof(a.seal(frame))
    assert not b.proven


def test_our_own_proof_back_proves_nothing() -> None:
    a, _ = ends()
    record = a.proof_record(0)
    with pytest.raises(ProtocolError):
        a.open_proof(record)


def test_forgotten_keys_seal_and_open_nothing() -> None:
    a, b = ends()
    record = b.seal(b"frame")
    a.forget()
    for call in (lambda: a.seal(b""), lambda: a.open(record), lambda: a.proof_record(0), lambda: a.open_proof(record)):
        with pytest.raises(ProtocolError):
            call()


def test_secrets_do_not_show_in_repr() -> None:
    secret = SessionSecret(SECRET, True)
    path = secret.path("relay", HERE, THERE)
    for holder in (secret, path, PathCipher(path)):
        shown = repr(holder)
        assert not any(key.hex() in shown or repr(key) in shown for key in (SECRET, path.send, path.receive))
