"""Small values that came whole with their offer: taken on the spot, and checked like all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from p2pnb.engine.transfers import QUICK_CODECS, receive_inline
from p2pnb.errors import CodecError
from p2pnb.objects import encode
from p2pnb.protocol.wire import Offer, Preview


def offer_of(value: Any) -> Offer:
    encoded = encode(value)
    content = bytes(encoded.read(0, encoded.content_bytes)) if encoded.content_bytes else b""
    size = len(encoded.head) + len(content)
    return Offer(
        1, "object", "x", size, len(encoded.head), Preview("x"), codec=encoded.codec, head=encoded.head, content=content
    )


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**100), 1.5, "Größe", b"", b"bytes" * 100, bytearray(b"mutable"), [1, [2, {"a": b"x"}]],
              {"k": (1, 2), "s": {3}}, [b"x" * 1000, b"y" * 1000]]
)  # fmt: skip
def test_simple_values_come_equal_and_of_their_type(value: Any) -> None:
    offer = offer_of(value)
    assert offer.codec in QUICK_CODECS
    assert receive_inline(offer) == (value,)
    (got,) = receive_inline(offer) or (None,)
    assert type(got) is type(value)


def test_values_of_other_kinds_are_left_to_a_worker() -> None:
    """Their codecs may import a library first."""
    offer = offer_of(np.arange(10))
    assert offer.codec not in QUICK_CODECS
    assert receive_inline(offer) is None
    assert receive_inline(Offer(1, "object", "x", 0, 0, Preview("x"), codec="pickle")) is None


def test_what_a_receiver_changes_is_its_own() -> None:
    offer = offer_of(bytearray(b"mutable"))
    (got,) = receive_inline(offer) or (None,)
    assert isinstance(got, bytearray)
    got[:] = b"changed"
    assert receive_inline(offer) == (bytearray(b"mutable"),)


@pytest.mark.parametrize(
    ("head", "content"), [(b"", b""), (b"\xc1", b""), (b"\x00" * 50, b"abc"), (b"\x93\x01\x02\x03", b"")]
)
def test_rubbish_is_refused(head: bytes, content: bytes) -> None:
    with pytest.raises(CodecError):
        receive_inline(
            Offer(1, "object", "x", len(head) + len(content), len(head), Preview("x"), codec="plain", head=head,
                  content=content)
        )  # fmt: skip


def test_content_cut_or_grown_is_refused() -> None:
    offer = offer_of([b"x" * 5000])
    for content in (offer.content[:-1], offer.content + b"x", b""):
        with pytest.raises(CodecError):
            receive_inline(
                Offer(1, "object", "x", len(offer.head) + len(content), len(offer.head), Preview("x"), codec="plain",
                      head=offer.head, content=content)
            )  # fmt: skip
