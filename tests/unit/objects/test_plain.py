"""Plain Python data arrives with its exact types; what is no data, or too much of it, is refused in words."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import sys
import zoneinfo
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnb.errors import CorruptDataError, NotSupportedError, TooLargeError, UsageError
from p2pnb.objects import Record, decode, encode, register_dataclass
from tests.unit.objects.conftest import receive


def same(left: Any, right: Any) -> bool:
    """Equality that also wants the same types, the sign of zero, and takes nan for nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and (
            left == right or (math.isnan(left) and math.isnan(right))
        )
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    if isinstance(left, dt.datetime | dt.time):
        return (
            left.replace(tzinfo=None) == right.replace(tzinfo=None)
            and left.fold == right.fold
            and (type(left.tzinfo) is type(right.tzinfo) and str(left.tzinfo) == str(right.tzinfo))
        )
    if isinstance(left, decimal.Decimal):
        return str(left) == str(right)
    return bool(left == right)


zones = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.sampled_from([zoneinfo.ZoneInfo(key) for key in ("Europe/Berlin", "America/St_Johns", "UTC", "Etc/GMT+5")]),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))),
    st.just(dt.timezone(dt.timedelta(hours=1), "named")),
)
hashable = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**200), 2**200),
        st.floats(allow_nan=False),
        st.text(st.characters(codec=None)),
        st.binary(),
        st.decimals(allow_nan=False),
        st.uuids(),
        st.dates(),
        st.timedeltas(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4)),
    max_leaves=6,
)
values = st.recursive(
    st.one_of(
        hashable,
        st.floats(),
        st.complex_numbers(),
        st.binary(max_size=40).map(bytearray),
        st.datetimes(timezones=zones, allow_imaginary=True),
        st.times(timezones=st.one_of(st.none(), st.just(dt.UTC))),
        st.decimals(),
        st.just(...),
        st.builds(range, st.integers(), st.integers(), st.integers(1)),
        st.builds(slice, st.none() | st.integers(), st.none() | st.text(), st.none() | st.integers()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.sets(hashable, max_size=5),
        st.dictionaries(hashable, inner, max_size=5),
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(values)
def test_any_plain_value_comes_back_the_same(value):
    assert same(receive(encode(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        10**5000,
        float("nan"),
        -0.0,
        "\ud800",
        "x" * 100_000,
        "\udfff" * 20_000,
        b"y" * 100_000,
        bytearray(100_000),
        [],
        (),
        {},
        set(),
        frozenset(),
        {1: "a", "1": "b", (1, 2): None, None: 3, 1.5: 2},
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
        [[[[]]]],
        list(range(1000)),
    ],
    ids=lambda value: f"{type(value).__name__} {str(value)[:20]!a}" if not isinstance(value, int) else "int",
)
def test_edge_comes_back_the_same(value, travel):
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert same(travel(value), value)
    finally:
        sys.set_int_max_str_digits(limit)


def test_memoryview_comes_back_as_one(travel):
    assert travel(memoryview(b"abc")).tobytes() == b"abc"
    assert travel([memoryview(b"abcdef")[::2]])[0].tobytes() == b"ace"


def test_large_bytes_are_not_copied_for_sending():
    data = bytes(1_000_000)
    assert any(piece.obj is data for piece in encode({"data": data}).buffers)


def test_arrays_and_frames_inside_containers(travel):
    frame = pd.DataFrame({"a": [1, 2], "t": ["x", None]})
    got = travel({"frames": [frame, frame], "weights": {"w": np.arange(70_000.0), "n": np.float32(2)}})
    pd.testing.assert_frame_equal(got["frames"][1], frame)
    assert got["weights"]["w"].tolist() == list(range(70_000))
    assert type(got["weights"]["n"]) is np.float32


# ── records ─────────────────────────────────────────────────────────────────────────────────────────
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: float = 0.0

    def __post_init__(self) -> None:
        ran.append(self)


class Pair(NamedTuple):
    left: int
    right: str


ran: list[object] = []


def test_unregistered_classes_arrive_as_read_only_records(travel):
    @dataclasses.dataclass
    class Local:
        a: int
        b: list[int]

    got = travel([Local(1, [2]), Pair(1, "x")])
    assert isinstance(got[0], Record)
    assert (got[0].a, got[0].b, got[0]["a"]) == (1, [2], 1)
    assert dict(got[0]) == {"a": 1, "b": [2]}
    assert dict(got[1]) == {"left": 1, "right": "x"}
    assert "a=1" in repr(got[0])
    assert got[0] == travel(Local(1, [2]))
    with pytest.raises(AttributeError):
        got[0].a = 3
    with pytest.raises(AttributeError):
        _ = got[0].missing


def test_registered_classes_come_back_without_running_their_code(travel):
    register_dataclass(Point)
    register_dataclass(Pair, name="tests.pair")
    sent = [Point(1, 2.5), Pair(1, "x")]
    ran.clear()
    got = travel(sent)
    assert got == sent
    assert [type(item) for item in got] == [Point, Pair]
    assert not ran


def test_record_whose_fields_differ_from_the_registered_class_stays_a_record():
    register_dataclass(Point)
    sent = encode(Point(1, 2.5))
    content = bytearray(b"".join(sent.chunks()).replace(b"\xa1y", b"\xa1z"))
    assert isinstance(decode(sent.codec, sent.head, memoryview(content)), Record)


def test_fields_of_a_record_cannot_pose_as_its_methods():
    record = Record("n", {"__class__": 1, "keys": 2, "_Record__fields": 3})
    assert type(record) is Record
    assert callable(record.keys)
    assert record["keys"] == 2


def test_only_dataclasses_and_named_tuples_can_be_registered():
    with pytest.raises(UsageError):
        register_dataclass(dict)


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────
class Colour(enum.Enum):
    RED = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (lambda: 1, "code can't be sent"),
        (print, "code can't be sent"),
        (int, "code can't be sent"),
        (Colour.RED, r"value\.value"),
        (pathlib.Path("a"), "send_file"),
        (collections.OrderedDict(), r"dict\(value\)"),
        (collections.defaultdict(list), r"dict\(value\)"),
        (Text("a"), r"str\(value\)"),
        (iter(()), r"list\(value\)"),
        (object(), "register_codec"),
        (sys, "register_codec"),
        (dt.datetime(2020, 1, 1, tzinfo=type("Zone", (dt.tzinfo,), {})()), "zoneinfo"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_plain_data_is_refused_with_advice(value, advice):
    for sent in (value, [{"deep": (value,)}]):
        with pytest.raises(NotSupportedError, match=advice):
            encode(sent)


def test_cycles_are_refused():
    items: list[Any] = []
    items.append({"again": items})
    with pytest.raises(NotSupportedError, match="contains itself"):
        encode(items)


def test_shared_parts_are_no_cycle(travel):
    part = [1]
    assert travel([part, part, {"a": part}]) == [[1], [1], {"a": [1]}]


def test_depth_is_bounded_but_generous(travel):
    deep: Any = 1
    for level in range(99):
        deep = {"k": deep} if level % 2 else [deep]
    assert travel(deep) == deep
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(NotSupportedError, match="nested deeper"):
        encode(deep)


def test_too_many_values_are_refused_with_advice():
    with pytest.raises(TooLargeError, match="numpy array"):
        encode([None] * 10_000_001)
    with pytest.raises(TooLargeError, match="numpy array"):
        encode([float(n) for n in range(8_000_000)])


def test_parts_that_double_at_each_level_end_in_words(monkeypatch):
    monkeypatch.setattr("p2pnb.objects.plain.MAX_VALUES", 100_000)
    part: Any = [1]
    for _ in range(60):
        part = [part, part]
    with pytest.raises(TooLargeError):
        encode(part)


# ── what a hostile peer may send ────────────────────────────────────────────────────────────────────
def decode_tree(tree: Any) -> Any:
    data = tree if isinstance(tree, bytes) else msgspec.msgpack.encode(tree)
    return decode("plain", msgspec.msgpack.encode([1, [len(data)], b""]), memoryview(bytearray(data)))


@pytest.mark.parametrize(
    "tree",
    [
        {"a": 1},
        [],
        ["list"],
        [99],
        [-1],
        [True, 1],
        [4, [0, 1], [0]],
        [4, [0, [0]], [0, 1]],
        [2, [0]],
        [5, "text"],
        [6, b"\xff"],
        [10, 2020, 13, 1, 0, 0, 0, 0, 0, None],
        [10, 2020, 1, 1, 0, 0, 0, 0, 0, ["zoneinfo", "../../etc/passwd"]],
        [10, 2020, 1, 1, 0, 0, 0, 0, 0, ["zoneinfo", "/etc/passwd"]],
        [10, "x", 1, 1, 0, 0, 0, 0, 0, None],
        [11, 10**12],
        [13, 10**12, 0, 0],
        [14, "fixed", 10**9, 0, None],
        [14, "system"],
        [15, "os.system"],
        [15, "1" * 20_000],
        [16, b"short"],
        [17, 0, 1, 0],
        [17, "a"],
        [19, "x", ["a", "a"], [0, 1, 2]],
        [19, "x", ["a"], [0]],
        [19, "x", [1], [0, 1]],
        [20, 0, 0],
        [20, 0, -1],
        [21, "numpy", b"", 0, 0],
        [21, "numpy", b"", 0, 5],
        [21, "numpy", b"", -1, 1],
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000 + b"\xc0",
        b"\x92\x00" * 100_000 + b"\xc0",
        b"\xd4\x00\x00",
        b"",
    ],
    ids=lambda tree: repr(tree)[:40],
)
def test_malformed_tree_is_refused(tree):
    with pytest.raises(CorruptDataError):
        decode_tree(tree)


def test_unknown_codec_inside_is_refused_in_words():
    with pytest.raises(NotSupportedError, match="not known here"):
        decode_tree([21, "pickle", b"", 0, 0])


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", [2, 3, 4])
def test_keys_made_to_collide_are_refused_before_they_are_filled_in(kind):
    step = 2**61 - 1  # sys.hash_info.modulus: all these integers have one hash
    keys = [[5, (n * step).to_bytes(12, "little", signed=True)] for n in range(100_000)]
    tree = [kind, *keys] if kind != 4 else [4, [0, *keys], [0, *[None] * len(keys)]]
    with pytest.raises(CorruptDataError, match="hash"):
        decode_tree(tree)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_do_more_than_be_refused(data):
    with contextlib.suppress(CorruptDataError, NotSupportedError):
        decode_tree(data)
