"""The head tells the truth about the content, or nothing is read."""

from __future__ import annotations

import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects import decode, encode, layout
from p2pnb.protocol.wire import MAX_HEAD_BYTES, MAX_SIZE_BYTES

VALUE = {"a": np.arange(5_000.0), "b": b"x" * 20_001, "c": [np.arange(3, dtype="u1"), "text"], "d": np.array([])}


def test_sizes_add_up():
    encoded = encode(VALUE)
    content = b"".join(encoded.chunks())
    assert len(content) == encoded.content_bytes
    assert encoded.size_bytes == len(encoded.head) + len(content)
    assert sum(map(len, encoded.buffers)) <= len(content)
    assert all(piece.format == "B" and piece.c_contiguous for piece in encoded.chunks())


def test_buffers_start_at_multiples_of_64_bytes():
    encoded = encode([np.arange(n, dtype="u1") for n in range(1, 200, 13)])
    content = b"".join(encoded.chunks())
    for piece in encoded.buffers[1:]:
        assert any(content[at : at + len(piece)] == piece for at in range(0, len(content), 64))


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_any_range_can_be_read(offset, length):
    encoded = encode(VALUE)
    content = b"".join(encoded.chunks())
    assert bytes(encoded.read(offset, length)) == content[offset : offset + length]


def test_value_without_bulk_has_small_head():
    assert len(encode({"a": [1, 2, 3]}).head) < 20


def test_large_array_has_a_small_head():
    assert len(encode(np.zeros(1_000_000)).head) < 100


@pytest.mark.parametrize("announced", [0, 63, 1, -1, 10**18, MAX_SIZE_BYTES + 1])
def test_another_announced_size_is_refused(announced):
    encoded = encode(np.arange(64, dtype="u1"))
    with pytest.raises(CorruptDataError):
        layout(encoded.codec, encoded.head, announced)


def test_content_of_another_size_is_refused():
    encoded = encode(np.arange(64, dtype="u1"))
    content = bytearray(b"".join(encoded.chunks()))
    for wrong in (content[:-1], content + b"x", b""):
        with pytest.raises(CorruptDataError):
            decode(encoded.codec, encoded.head, memoryview(bytearray(wrong)))


@pytest.mark.parametrize(
    "lengths",
    [[-1], [2**63], [2**62, 2**62], [2**64 - 1], [0] * 300_000, [8, -8], [1.5], ["8"], None],
    ids=lambda lengths: repr(lengths)[:30],
)
@pytest.mark.parametrize("codec", ["plain", "numpy", "arrow", "pandas", "polars", "image", "picture"])
def test_impossible_lengths_are_refused(lengths, codec):
    head = msgspec.msgpack.encode([1, lengths, b""])
    with pytest.raises(CorruptDataError):
        layout(codec, head, 8)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc0",
        b"\x93\x01\x90",
        b"\x93\x02\x90\xc4\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 50_000,
        bytes(MAX_HEAD_BYTES + 1),
    ],
    ids=["empty", "nil", "cut", "version 2", "huge", "deep", "too long"],
)
def test_malformed_head_is_refused(head):
    with pytest.raises(CorruptDataError):
        layout("plain", head, 0)


@given(st.binary(max_size=100), st.sampled_from(["plain", "numpy", "arrow", "pandas", "polars", "image", "picture"]))
def test_arbitrary_note_is_refused_or_harmless(note, codec):
    head = msgspec.msgpack.encode([1, [8], note])
    with contextlib.suppress(CorruptDataError, NotSupportedError):
        layout(codec, head, 8)
        decode(codec, head, memoryview(bytearray(8)))
