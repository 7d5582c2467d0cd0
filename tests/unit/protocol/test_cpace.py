"""CPace is the draft's: its own figures, its invalid points, and a second implementation agree."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cpace as second_opinion
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import ProtocolError
from p2pnb.protocol import cpace
from tests.pairs.fuzzing import tries

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "cpace-x25519.json").read_text())
DRAFT = {name: bytes.fromhex(value) for name, value in VECTORS["G_25519"].items()}
POINTS = {name: bytes.fromhex(value) for name, value in VECTORS["X25519_points"].items()}
LOW_ORDER = {"Invalid Y0", "Invalid Y1", "Invalid Y2", "Invalid Y3", "Invalid Y4", "Invalid Y5", "Invalid Y7"}
ROLE = second_opinion.CPaceRole


def test_every_step_gives_the_drafts_figures() -> None:
    base = cpace.generator(DRAFT["PRS"], DRAFT["CI"], DRAFT["sid"])
    assert base == DRAFT["g"]
    share_a, share_b = cpace.public_share(base, DRAFT["ya"]), cpace.public_share(base, DRAFT["yb"])
    assert (share_a, share_b) == (DRAFT["Ya"], DRAFT["Yb"])
    point = cpace.shared_point(DRAFT["ya"], share_b)
    assert point == cpace.shared_point(DRAFT["yb"], share_a) == DRAFT["K"]
    transcript = cpace.transcript_ir(share_a, DRAFT["ADa"], share_b, DRAFT["ADb"])
    assert cpace.intermediate_session_key(DRAFT["sid"], point, transcript) == DRAFT["ISK_IR"]


@pytest.mark.parametrize("name", sorted(LOW_ORDER))
def test_a_low_order_share_aborts_before_a_key_comes_of_it(name: str) -> None:
    with pytest.raises(ProtocolError):
        cpace.shared_point(DRAFT["ya"], POINTS[name])


@pytest.mark.parametrize("name", sorted(set(POINTS) - LOW_ORDER))
def test_a_share_that_is_only_oddly_written_gives_a_point_that_depends_on_the_scalar(name: str) -> None:
    points = {cpace.shared_point(DRAFT[scalar], POINTS[name]) for scalar in ("ya", "yb")}
    assert len(points) == 2
    assert bytes(32) not in points


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64, 1024 * 1024])
def test_a_share_of_the_wrong_length_aborts(length: int) -> None:
    with pytest.raises(ProtocolError):
        cpace.shared_point(DRAFT["ya"], bytes([9]) * length)


@tries(60)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80))
def test_any_bytes_as_a_share_give_a_point_or_abort(scalar: bytes, share: bytes) -> None:
    try:
        assert len(cpace.shared_point(scalar, share)) == 32
    except ProtocolError:
        assert len(share) != 32 or share in POINTS.values()


@tries(60)
@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=80), st.data())
def test_a_second_implementation_agrees(password: bytes, channel: bytes, sid: bytes, data: st.DataObject) -> None:
    scalars = [data.draw(st.binary(min_size=32, max_size=32)) for _ in range(2)]
    ads = [data.draw(st.binary(max_size=200)) for _ in range(2)]
    base = cpace.generator(password, channel, sid)
    assert base == second_opinion._calculate_generator(prs=password, ci=channel, sid=sid)
    shares = [cpace.public_share(base, scalar) for scalar in scalars]
    point = cpace.shared_point(scalars[0], shares[1])
    transcript = cpace.transcript_ir(shares[0], ads[0], shares[1], ads[1])
    ours = cpace.intermediate_session_key(sid, point, transcript)
    for role, me, other in ((ROLE.INITIATOR, 0, 1), (ROLE.RESPONDER, 1, 0)):
        theirs = second_opinion.CPace(role=role, sid=sid, ad=ads[me], scalar=scalars[me], public_share=shares[me])
        theirs.derive(shares[other], ads[other])
        assert theirs.isk == ours


@given(st.lists(st.binary(max_size=200), max_size=4), st.lists(st.binary(max_size=200), max_size=4))
def test_field_borders_cannot_be_moved(one: list[bytes], other: list[bytes]) -> None:
    assert (cpace.lv_cat(*one) == cpace.lv_cat(*other)) == (one == other)


def test_the_password_fills_its_own_hash_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its length must not show in how many blocks are hashed, up to the longest that fits."""
    real, hashed = hashlib.sha512, set[int]()

    def remember(data: bytes) -> Any:
        hashed.add(len(data))
        return real(data)

    monkeypatch.setattr(hashlib, "sha512", remember)
    for size in range(0, 110, 10):
        cpace.generator(b"p" * size, b"channel", b"sid")
    assert len(hashed) == 1
