"""Run by test_fuzz.py in a process of its own: decode damaged objects for some seconds, then say how many.

Every mutant is written to a file before it is tried, so that one that kills the process can be looked at. Accepted
mutants are used as a notebook would use them: shown, summed, converted.
"""

from __future__ import annotations

import datetime as dt
import decimal
import faulthandler
import io
import random
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from p2pnb.errors import CodecError, DiskFullError
from p2pnb.objects import arrow_stream, decode, encode, layout

WORDS = [0, 1, -1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**62, 8, 16, 64, 4, 2**20, 2**16]


def arrow_seeds() -> Iterator[pa.Table]:
    yield pa.table(
        {
            "i": pa.array([1, 2, None, 4]),
            "f": [1.5, 2, 3, None],
            "s": ["x", "yy", None, "zzz"],
            "l": [[1], [2, 3], None, []],
            "st": [{"a": 1, "b": "x"}, None, {"a": 2, "b": None}, {"a": 3, "b": "q"}],
        }
    )
    yield pa.table(
        {
            "d": pa.array(["a", "b", None, "a"]).dictionary_encode(),
            "n": pa.nulls(4),
            "m": pa.array([[("a", 1)], None, [], [("b", 2)]], pa.map_(pa.string(), pa.int64())),
            "fl": pa.array([[1, 2], [3, 4], None, [5, 6]], pa.list_(pa.int8(), 2)),
            "fb": pa.array([b"ab", None, b"cd", b"ef"], pa.binary(2)),
        }
    )
    yield pa.table(
        {
            "sv": pa.array(["a", "a text of more than twelve bytes", None, "b"], pa.string_view()),
            "bv": pa.array([b"x" * 30, None, b"a", b"b"], pa.binary_view()),
            "lv": pa.array([[1], [2, 3], None, []], pa.list_view(pa.int32())),
            "ls": pa.array(["x", "yy", None, "zzz"], pa.large_string()),
            "ll": pa.array([["a"], [], None, ["c", "d"]], pa.large_list(pa.string())),
        }
    )
    yield pa.table(
        {
            "t": pa.array([dt.datetime(2020, 1, 1)] * 4, pa.timestamp("us", "Europe/Berlin")),  # noqa: DTZ001
            "dec": pa.array([decimal.Decimal("1.5")] * 4),
            "tm": pa.array([dt.time(1)] * 4),
            "du": pa.array([dt.timedelta(1)] * 4),
            "da": pa.array([dt.date(2020, 1, 1)] * 4),
            "b": [True, False, None, True],
            "mdn": pa.array([(1, 2, 3)] * 4, pa.month_day_nano_interval()),
        }
    )
    sparse = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    dense = pa.UnionArray.from_dense(
        pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["a"])]
    )
    nested = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array([[1, 2], [3]]))
    yield pa.table({"u": sparse, "v": dense, "dl": nested})


def seeds() -> list[tuple[str, Any]]:
    frame = pd.DataFrame(
        {
            "i": [1, 2, 3, 4],
            "j": [5, 6, 7, 8],
            "x": [0.5, 1.5, 2.5, None],
            "y": [1.0, 2.0, 3.0, 4.0],
            "t": ["a", None, "ccc", "d"],
            "c": pd.Categorical(["x", None, "y", "x"], ordered=True),
            "z": pd.date_range("2020", periods=4, tz="Europe/Berlin"),
            "m": pd.array([1, None, 3, 4], dtype="Int16"),
            "n": pd.array([1.5, None, 3, 4], dtype="Float64"),
            "v": pd.array([True, None, False, True], dtype="boolean"),
            "p": pd.period_range("2020", periods=4, freq="M"),
            "iv": pd.interval_range(0, 4).array,
            "o": [1, "a", None, [1.5]],
            "b": [True, False, True, True],
        }
    )
    other = pd.DataFrame(
        {
            "s": pd.arrays.SparseArray([0, 0, 1, 2]),
            "u": pd.Series(["a", None, "b", "c"], dtype=object),
            "x": [1j, 2, 3, 4],
        },
        index=pd.MultiIndex.from_product([["a", "b"], pd.to_datetime(["2020", "2021"])], names=["l", None]),
    )
    polars = pl.DataFrame(
        {
            "s": ["a", None, "long enough to leave the view"],
            "e": pl.Series(["a", "b", "a"], dtype=pl.Enum(["a", "b"])),
            "c": pl.Series(["a", "b", None], dtype=pl.Categorical),
            "l": [[1], [], None],
            "st": [{"a": 1}, {"a": 2}, None],
            "d": pl.Series([decimal.Decimal("1.5"), None, None], dtype=pl.Decimal(10, 2)),
            "t": [dt.time(1), None, dt.time(2)],
            "i": pl.Series([1, 2, 3], dtype=pl.Int128),
            "n": [None, None, None],
            "z": pl.Series([dt.datetime(2020, 1, 1)] * 3).dt.replace_time_zone("Europe/Berlin"),  # noqa: DTZ001
        }
    )
    plain = {
        "a": [1, 2.5, None, b"x", "y", 2**70, 1j],
        (1, "b"): {dt.date(2020, 1, 1), uuid.UUID(int=5)},
        "z": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "n": np.arange(4),
        "d": decimal.Decimal("1.5"),
    }
    from PIL import Image

    noise = Image.frombytes("RGB", (8, 8), bytes(range(192)))
    arrays = [
        np.array([(1, 2.5, True)], [("a", "i1"), ("b", "f8"), ("c", "?")]),
        np.ma.array([1, 2], mask=[False, True]),
    ]
    return [
        *[("arrow", table) for table in arrow_seeds()],
        ("", frame),
        ("", other),
        ("", polars),
        ("", plain),
        ("", arrays),
        ("", noise),
    ]


def damage(data: bytes | bytearray, chance: random.Random) -> bytearray:
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if not found:
            break
        how, at = chance.random(), chance.randrange(len(found))
        if how < 0.35:
            found[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif how < 0.5:
            found[at] ^= 1 << chance.randrange(8)
        elif how < 0.75:
            at &= ~3
            found[at : at + 4] = (chance.choice(WORDS) & (2**32 - 1)).to_bytes(4, "little")[: len(found) - at]
        elif how < 0.97:
            at &= ~7
            found[at : at + 8] = (chance.choice(WORDS) & (2**64 - 1)).to_bytes(8, "little")[: len(found) - at]
        else:
            del found[at:]
    return found


def use(value: Any) -> None:
    """Do what a notebook does; exceptions are fine, signals are not."""
    try:
        out = io.StringIO()
        print(str(value)[:1000] if not isinstance(value, pa.Table) else value.to_string()[:1000], file=out)
        if isinstance(value, pa.Table):
            if value.num_rows < 10_000:
                value.to_pylist()
        elif isinstance(value, pd.DataFrame):
            value.describe(include="all")
            value.isna().sum()
            if len(value) < 10_000:
                value.sort_index()
                value.to_dict()
        elif isinstance(value, pl.DataFrame):
            value.describe()
            if value.height < 10_000:
                value.rows()
    except Exception:  # noqa: BLE001
        return
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise


def main(seed: int, seconds: float, trace: Path) -> None:
    warnings.simplefilter("ignore")
    faulthandler.enable()
    chance = random.Random(seed)
    whole = [encode(value) for _, value in seeds()]
    contents = [b"".join(each.chunks()) for each in whole]
    tried = accepted = 0
    end = time.monotonic() + seconds
    with trace.open("wb") as file:
        while time.monotonic() < end:
            number = chance.randrange(len(whole))
            head, content = whole[number].head, bytearray(contents[number])
            if chance.random() < 0.3:
                parsed = msgspec.msgpack.decode(head)
                parsed[2] = bytes(damage(parsed[2], chance))
                head = msgspec.msgpack.encode(parsed)
                if chance.random() < 0.3:
                    head = bytes(damage(head, chance))
            if chance.random() < 0.8:
                content = damage(content, chance)
                content += bytes(max(0, len(contents[number]) - len(content))) if chance.random() < 0.7 else b""
            file.seek(0)
            file.truncate()
            file.write(msgspec.msgpack.encode([whole[number].codec, head, bytes(content)]))
            file.flush()
            tried += 1
            try:
                layout(whole[number].codec, head, len(content))
                value = decode(whole[number].codec, head, memoryview(content))
            except (CodecError, DiskFullError):
                continue
            accepted += 1
            use(value)
    print(tried, accepted)


if __name__ == "__main__":
    if "without-validation" in sys.argv:
        arrow_stream._validate = lambda batch: None
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
