"""Notes of frames that lie about their parts are refused; each of these mutants is honest but for one thing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from p2pnb.errors import CorruptDataError
from p2pnb.objects import decode, encode, layout

FRAME = pd.DataFrame(
    {
        "i": [1, 2, 3],
        "j": [4, 5, 6],
        "k": [7, 8, 9],
        "x": [0.5, 1.5, 2.5],
        "y": [3.5, 4.5, 5.5],
        "n": pd.array([1, None, 3], dtype="Int64"),
        "f": pd.array([1.5, None, 3.5], dtype="Float64"),
        "v": pd.array([True, None, False], dtype="boolean"),
        "t": pd.array(["a", None, "c"], dtype="str"),
        "o": pd.Series([1, "a", None], dtype=object),
        "c": pd.Categorical(["x", None, "y"]),
        "z": pd.date_range("2020", periods=3, tz="UTC"),
        "g": pd.array([1.5, 2.5, 3.5], dtype="Float64"),
    }
)
I, J, K, X, Y, N, F, V, T, O, C, Z, G = range(13)  # noqa: E741


def taken_apart() -> tuple[list[Any], bytes]:
    encoded = encode(FRAME)
    return msgspec.msgpack.decode(encoded.head), b"".join(encoded.chunks())


def received(head: list[Any], content: bytes) -> Any:
    packed = msgspec.msgpack.encode(head)
    layout("pandas", packed, len(content))
    return decode("pandas", packed, memoryview(bytearray(content)))


def mutated(change: Callable[[list[Any], list[Any]], None]) -> Any:
    """Return what arrives when `change` was at the values and blocks of the note."""
    head, content = taken_apart()
    note = msgspec.msgpack.decode(head[2])
    change(note[3][1], note[3][2])
    head[2] = msgspec.msgpack.encode(note)
    return received(head, content)


def test_unchanged_note_is_taken():
    pd.testing.assert_frame_equal(mutated(lambda values, blocks: None), FRAME)


def put(place: int, at: int, new: Any) -> Callable[[list[Any], list[Any]], None]:
    def change(values: list[Any], _: list[Any]) -> None:
        values[place][at] = new

    return change


def swap(place: int, other: int) -> Callable[[list[Any], list[Any]], None]:
    def change(values: list[Any], _: list[Any]) -> None:
        values[place], values[other] = copy.copy(values[other]), values[place]

    return change


def same(place: int, other: int) -> Callable[[list[Any], list[Any]], None]:
    def change(values: list[Any], _: list[Any]) -> None:
        values[place] = copy.copy(values[other])

    return change


def shape(*lengths: int) -> Callable[[list[Any], list[Any]], None]:
    def change(_: list[Any], blocks: list[Any]) -> None:
        note = msgspec.msgpack.decode(blocks[0][1])
        note[2] = list(lengths)
        blocks[0][1] = msgspec.msgpack.encode(note)

    return change


def block_again(_: list[Any], blocks: list[Any]) -> None:
    blocks[1] = blocks[0]


def no_blocks(_: list[Any], blocks: list[Any]) -> None:
    blocks.clear()


def one_block_more(_: list[Any], blocks: list[Any]) -> None:
    blocks.append(blocks[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (same(J, I), "did not arrive"),
        (swap(I, K), "did not arrive"),
        (put(J, 2, 7), "did not arrive"),
        (put(J, 2, -1), "did not arrive"),
        (put(J, 1, 2), "did not arrive"),
        (put(J, 1, -1), "did not arrive"),
        (no_blocks, "did not arrive"),
        (block_again, "shape|one part"),
        (one_block_more, "one part"),
        (shape(9, 1), "another shape"),
        (shape(9), "another shape"),
        (shape(1, 9), "another shape"),
        (shape(3, 3, 1), "another shape"),
        (shape(4, 3), "another size"),
        (same(X, Y), "did not arrive"),
        (same(F, N), "one part"),
        (same(T, N), "one part"),
        (same(O, T), "one part"),
        (put(N, 3, "Float64"), "type its description names"),
        (put(F, 3, "Int64"), "type its description names"),
        (put(N, 3, "boolean"), "type its description names"),
        (put(V, 3, "Int8"), "type its description names"),
        (put(T, 3, "boolean"), "type its description names"),
        (put(V, 3, "complex"), "unknown type"),
        (put(N, 2, 1000), "lacks a column"),
        (put(N, 2, -1), "lacks a column"),
        (put(N, 1, 1000), "did not arrive"),
        (put(N, 1, -1), "did not arrive"),
        (put(C, 2, 1), "one part|no integers"),
        (put(Z, 3, "D"), "unknown unit"),
    ],
)
def test_note_with_one_lie_is_refused(change, says):
    with pytest.raises(CorruptDataError, match=says):
        mutated(change)


def test_times_with_gaps_are_refused():
    def change(values: list[Any], _: list[Any]) -> None:
        values[Z][2], values[N][2] = values[N][2], values[Z][2]

    with pytest.raises(CorruptDataError, match="gaps"):
        mutated(change)


def test_numbers_of_another_type_are_not_taken_for_times():
    def change(values: list[Any], _: list[Any]) -> None:
        place = values[G][2]
        values[G] = copy.copy(values[Z])
        values[Z][2] = place

    with pytest.raises(CorruptDataError, match="type its description names"):
        mutated(change)


def test_codes_with_gaps_are_refused():
    def change(values: list[Any], _: list[Any]) -> None:
        values[C][2], values[N][2] = values[N][2], values[C][2]

    with pytest.raises(CorruptDataError):
        mutated(change)


def test_column_of_an_index_cannot_be_one_of_a_block():
    head, content = taken_apart()
    note = msgspec.msgpack.decode(head[2])
    note[2][0] = ["flat", note[3][1][I], 3]
    head[2] = msgspec.msgpack.encode(note)
    with pytest.raises(CorruptDataError, match="unknown type"):
        received(head, content)


def test_truth_values_of_a_block_are_looked_at():
    encoded = encode(pd.DataFrame(np.ones((40_000, 3), dtype=bool)))
    content = bytearray(b"".join(encoded.chunks()))
    content[70_000] = 7
    with pytest.raises(CorruptDataError, match="neither true nor false"):
        decode(encoded.codec, encoded.head, memoryview(content))


@pytest.mark.parametrize("node", [[20, 0, 0], [20, 6, 0], [21, "numpy", b"", 0, 1]])
def test_part_of_plain_data_is_used_once(node):
    tree = msgspec.msgpack.encode([0, [20, 0, 0], node])
    content = tree + bytes(-len(tree) % 64) + bytes(100)
    head = msgspec.msgpack.encode([1, [len(tree), 100], b""])
    with pytest.raises(CorruptDataError, match="used twice"):
        decode("plain", head, memoryview(bytearray(content)))
