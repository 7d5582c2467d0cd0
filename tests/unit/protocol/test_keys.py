"""The key schedule, held to a second writing of it with nothing but hmac; and the verification words."""

from __future__ import annotations

import hashlib
import hmac

from p2pnb.protocol.keys import RootKeys, SessionSecret, next_key, verification_commitment

ISK = bytes(range(64))


def lv(*fields: bytes) -> bytes:
    assert all(len(field) < 128 for field in fields)
    return b"".join(bytes([len(field)]) + field for field in fields)


def expand(key: bytes, label: str, context: bytes = b"") -> bytes:
    """HKDF-Expand of RFC 5869 for one block: T(1) = HMAC(key, info || 0x01)."""
    return hmac.new(key, lv(b"p2pnb/1 " + label.encode(), context) + b"\x01", hashlib.sha256).digest()


def test_the_schedule_is_the_written_one() -> None:
    root = hmac.new(b"p2pnb/1", ISK, hashlib.sha256).digest()
    keys = RootKeys.from_isk(ISK)
    assert keys.root == root
    session = expand(root, "session")
    assert keys.session(initiator=True) == SessionSecret(session, True)
    for initiator, role in ((True, "initiator"), (False, "responder")):
        tag = hmac.new(expand(root, f"confirm {role}"), lv(b"share", b"data"), hashlib.sha256).digest()
        assert keys.confirmation_tag(initiator=initiator, share=b"share", data=b"data") == tag
    base = expand(session, "path", lv(b"relay", b"i" * 16, b"r" * 16))
    path = keys.session(initiator=False).path("relay", b"i" * 16, b"r" * 16)
    assert (path.receive, path.send) == (expand(base, "i>r"), expand(base, "r>i"))
    assert (path.receive_proof, path.send_proof) == (expand(base, "proof initiator"), expand(base, "proof responder"))
    assert keys.verification(b"a" * 32, b"b" * 32) == expand(root, "verification", lv(b"a" * 32, b"b" * 32))
    assert next_key(root) == expand(root, "next")
    assert verification_commitment(b"n" * 32) == hashlib.sha256(b"p2pnb/1 verification" + b"n" * 32).digest()


def test_no_two_purposes_share_a_key() -> None:
    keys = RootKeys.from_isk(ISK)
    path = keys.session(initiator=True).path("relay", b"i" * 16, b"r" * 16)
    derived = [
        keys.root,
        keys.session(initiator=True).secret,
        keys.confirmation_tag(initiator=True, share=b"", data=b""),
        keys.confirmation_tag(initiator=False, share=b"", data=b""),
        keys.verification(b"a" * 32, b"b" * 32),
        path.send,
        path.receive,
        path.send_proof,
        path.receive_proof,
        next_key(path.send),
        next_key(path.receive),
    ]
    assert len(set(derived)) == len(derived)


# ── verification words: Mallory stands between Ada and Ben, knows the words and searches ────────────
BITS = 12  # the search of the mutant has to end; the real words have 44 bits
TRIES = 1 << 14


def words(root: RootKeys, initiator: bytes, responder: bytes) -> int:
    return int.from_bytes(root.verification(initiator, responder)[:2], "big") >> (16 - BITS)


def test_without_a_commitment_the_words_could_be_searched_for() -> None:
    """The mutant: Mallory sees Ben's nonce before he has to say his own to Ben."""
    with_ada, with_ben = RootKeys.from_isk(b"a" * 64), RootKeys.from_isk(b"b" * 64)
    ada, ben, to_ada = b"A" * 32, b"B" * 32, b"M" * 32
    wanted = words(with_ada, ada, to_ada)
    found = next(n for n in range(TRIES) if words(with_ben, n.to_bytes(32, "big"), ben) == wanted)
    assert words(with_ben, found.to_bytes(32, "big"), ben) == wanted


def test_with_the_commitment_a_found_nonce_does_not_open_it() -> None:
    """Mallory committed to a nonce towards Ben before Ben's was known: what he finds later is refused."""
    with_ada, with_ben = RootKeys.from_isk(b"a" * 64), RootKeys.from_isk(b"b" * 64)
    ada, ben, to_ada, to_ben = b"A" * 32, b"B" * 32, b"M" * 32, b"N" * 32
    committed = verification_commitment(to_ben)
    wanted = words(with_ada, ada, to_ada)
    assert words(with_ben, to_ben, ben) != wanted, "his one try"
    hits = 0
    for n in range(TRIES):
        nonce = n.to_bytes(32, "big")
        if words(with_ben, nonce, ben) == wanted:
            hits += 1
            assert verification_commitment(nonce) != committed
    assert hits, "the search did find nonces; the commitment is what refuses them"
