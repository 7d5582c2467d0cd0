"""What has to hold of sizes people read and write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import UsageError
from p2pnb.files.sizes import human_size, parse_size


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (10**9, "1.0 GB"),
        (1 << 50, "1.1 PB"),
        (10**24, "1000000.0 EB"),
        (-5_000, "-5.0 kB"),
    ],
)
def test_a_size_is_shown_with_one_digit_and_its_unit(size: int, shown: str) -> None:
    assert human_size(size) == shown


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100 MB", 100_000_000),
        ("100mb", 100_000_000),
        ("1.5 GB", 1_500_000_000),
        (".5kB", 500),
        ("2 TB", 2 * 10**12),
        ("1 PB", 10**15),
        ("64 KiB", 65_536),
        ("1.5MiB", 1_572_864),
        ("1 GiB", 1 << 30),
        ("2k", 2000),
        ("7", 7),
        ("7 B", 7),
        ("7 bytes", 7),
        ("1,000,000", 1_000_000),
        ("1_000 kB", 1_000_000),
        ("  3 MB ", 3_000_000),
        ("1.0000001 kB", 1000),
        ("9007199254740993", 9007199254740993),
        (123, 123),
        (0, 0),
    ],
)
def test_a_written_size_is_understood(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "MB", "ten MB", "-1", "-1 MB", "1,5 MB", "1.2.3", "1e6", "nan", "inf", "0x10", "1 XB", "1 MB/s", ".",
      "١٠ MB", "9" * 100, -1, True, None, 1.5],
)  # fmt: skip
def test_anything_else_is_refused_with_examples(text: object) -> None:
    with pytest.raises(UsageError, match="100 MB"):
        parse_size(text)  # type: ignore[arg-type]


@given(st.integers(0, 10**18))
def test_a_shown_size_is_a_written_size(size: int) -> None:
    assert abs(parse_size(human_size(size)) - size) <= size * 0.051
