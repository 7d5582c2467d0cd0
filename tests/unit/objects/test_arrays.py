"""numpy arrays arrive with type, shape, order and bytes; descriptions that lie are refused before memory is taken."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects import decode, encode, layout

ARRAYS = [
    np.arange(5),
    np.arange(6.0).reshape(2, 3, order="F"),
    np.arange(6.0)[::2],
    np.arange(6.0)[::-1],
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.array(5),
    np.array([]),
    np.zeros((0, 3)),
    np.float64(-0.0),
    np.str_("x"),
    np.bytes_(b"x\x00y"),
    np.bool_(True),
    np.datetime64("2020", "D"),
    np.datetime64("NaT"),
    np.array(["2020", "NaT"], "M8[D]"),
    np.array([1], "m8[25s]"),
    np.array(["ab", "ü🙂"]),
    np.array(["", ""]),
    np.array([b"ab", b""]),
    np.array([1, 2], ">i4"),
    np.array([1 + 2j], ">c8"),
    np.array([True, False]),
    np.array([1], "f2"),
    np.array([np.nan, np.inf, -0.0]),
    np.array([(1, 2.5, "x")], [("a", "i1"), ("b", "f8", (1,)), ("c", "U3")]),
    np.array([((1, 2), 3)], [("n", [("x", "i2"), ("y", ">f4")]), ("z", "?")]),
    np.array([1], [(("title", "a"), "i4")]),
    np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.zeros(3, "V5"),
    np.zeros(3, []),
    np.zeros(100_000),
]


@pytest.mark.parametrize("sent", ARRAYS, ids=lambda array: f"{type(array).__name__} {array.dtype} {array.shape}")
def test_array_comes_back_equal(sent, travel):
    got = travel(sent)
    assert type(got) is type(sent)
    assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
    assert got.dtype.type is sent.dtype.type
    assert got.tobytes() == sent.tobytes()
    if isinstance(sent, np.ndarray):
        assert got.flags.writeable
        assert got.flags.f_contiguous == (sent.flags.f_contiguous or not got.size or got.ndim < 2)


@pytest.mark.parametrize("code", ["longdouble", "clongdouble"])
def test_long_doubles_come_back_equal(code, travel):
    sent = np.array([1, -0.0, np.inf, 1 / 3], code)
    assert np.array_equal(travel(sent), sent)
    assert travel(sent).dtype == sent.dtype


@pytest.mark.parametrize("code", ["longdouble", np.dtype([("a", "i1"), ("b", "f8")], align=True)], ids=str)
def test_bytes_that_belong_to_no_value_do_not_travel(code):
    sent = np.zeros(4, code)
    sent.view("u1")[:] = 0xAA
    gap = (10, 16) if code == "longdouble" else (1, 8)
    content = b"".join(encode(sent).chunks())
    assert content[gap[0] : gap[1]] == bytes(gap[1] - gap[0])


def test_masked_array_comes_back_equal(travel):
    sent = np.ma.array([[1, 2], [3, 4]], mask=[[False, True], [False, False]], fill_value=9, hard_mask=True)
    got = travel(sent)
    assert type(got) is type(sent)
    assert got.data.tolist() == sent.data.tolist()
    assert got.mask.tolist() == sent.mask.tolist()
    assert (got.fill_value, got.hardmask) == (9, True)
    assert travel(np.ma.array([1, 2])).mask is np.ma.nomask


def test_array_of_plain_objects_comes_back(travel):
    got = travel(np.array([["a", None], [[1, 2], 3.5]], dtype=object))
    assert got.dtype == object
    assert got.tolist() == [["a", None], [[1, 2], 3.5]]


def test_contiguous_array_is_not_copied():
    array = np.arange(100_000.0)
    assert np.shares_memory(np.frombuffer(encode(array).buffers[0], "u1"), array)


def test_received_array_lies_on_the_received_memory():
    encoded = encode(np.arange(100_000.0))
    content = bytearray(b"".join(encoded.chunks()))
    got = decode(encoded.codec, encoded.head, memoryview(content))
    assert isinstance(got, np.ndarray)
    assert np.shares_memory(got, np.frombuffer(content, "u1"))


def test_read_only_content_still_gives_a_writable_array():
    encoded = encode(np.arange(100_000.0))
    got = decode(encoded.codec, encoded.head, memoryview(b"".join(encoded.chunks())))
    assert isinstance(got, np.ndarray)
    got[0] = 1


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(
    "value", [np.zeros(1).view(np.matrix), np.array(["a"], dtype=np.dtypes.StringDType())], ids=["matrix", "text"]
)
def test_what_is_refused_says_what_to_send(value):
    with pytest.raises(NotSupportedError, match="send "):
        encode(value)


def head(kind: str, dtype: list[object], shape: list[int], lengths: list[int]) -> bytes:
    return msgspec.msgpack.encode([1, lengths, msgspec.msgpack.encode([kind, dtype, shape])])


@pytest.mark.parametrize(
    ("dtype", "shape", "length"),
    [
        (["<f8"], [2**62], 8),
        (["<f8"], [2**61], 0),
        (["<f8"], [2**32, 2**32], 0),
        (["<f8"], [-1, -8], 8),
        (["<f8"], [1] * 65, 8),
        (["<f8"], [2], 8),
        (["<f8"], [2], 24),
        (["|S0"], [2**40], 0),
        (["|V99999999999"], [1], 8),
        (["<U2000000000"], [1], 8),
        (["|O"], [1], 8),
        (["O8"], [1], 8),
        (["os.system"], [1], 8),
        (["<f8,<f8"], [1], 16),
        (["(2,)<f8"], [1], 16),
        (["", [["a", None, ["<f8"], 4, []]], 8], [1], 8),
        (["", [["a", None, ["<f8"], -8, []]], 8], [1], 8),
        (["", [["a", None, ["|O"], 0, []]], 8], [1], 8),
        (["", [["a", None, ["<f8"], 0, [2**60]]], 8], [1], 8),
        (["", [["a", None, ["<f8"], 0, []], ["a", None, ["<f8"], 0, []]], 8], [1], 8),
        (["", [], -8], [1], 8),
        (["", [], 2**40], [1], 8),
    ],
)
def test_lying_description_is_refused_before_content(dtype, shape, length):
    with pytest.raises(CorruptDataError):
        layout("numpy", head("array", dtype, shape, [length]), length)


@pytest.mark.parametrize("kind", ["", "pickle", "masked", "scalar"])
def test_unknown_kind_is_refused(kind):
    with pytest.raises(CorruptDataError):
        layout("numpy", head(kind, ["<f8"], [1], [8]), 8)


def test_deeply_nested_type_is_refused():
    dtype: list[object] = ["<f8"]
    for _ in range(40):
        dtype = ["", [["a", None, dtype, 0, []]], 8]
    with pytest.raises(CorruptDataError):
        layout("numpy", head("array", dtype, [1], [8]), 8)


def test_long_double_of_another_machine_is_refused_in_words():
    with pytest.raises(NotSupportedError, match="float64"):
        layout("numpy", head("array", ["<f16", [], 0, False, False, 112], [1], [16]), 16)


def test_impossible_truth_values_are_refused():
    encoded = encode({"a": np.array([True, False])})
    content = bytearray(b"".join(encoded.chunks()))
    content[-1] = 2
    with pytest.raises(CorruptDataError, match="neither true nor false"):
        decode(encoded.codec, encoded.head, memoryview(content))
