"""Sizes as people write and read them. Decimal units, as file managers and disks have them: 1 kB is 1000 bytes."""

from __future__ import annotations

import re
from typing import Final

from p2pnb.errors import UsageError

__all__ = ["human_size", "parse_size"]

_UNITS: Final = ("kB", "MB", "GB", "TB", "PB", "EB")
_FACTORS: Final[dict[str, int]] = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    **{letter: 1000**power for power, letter in enumerate("kmgtpe", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgtpe", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgtpe", 1)},
}
_SIZE: Final = re.compile(
    r"(\d{1,18}|\d{1,3}(?:[,_]\d{3}){1,6}|\d{0,18}\.\d{1,18})\s*([a-z]*)", re.ASCII | re.IGNORECASE
)


def human_size(size_bytes: int) -> str:
    """Return a size for people: ``"1 byte"``, ``"999 bytes"``, ``"12.3 MB"``."""
    if abs(size_bytes) < 1000:
        return f"{size_bytes} byte{'' if abs(size_bytes) == 1 else 's'}"
    value = float(size_bytes)
    for unit in _UNITS:
        value /= 1000
        if round(abs(value), 1) < 1000:
            return f"{value:.1f} {unit}"
    return f"{value:.1f} {_UNITS[-1]}"


def parse_size(size: str | int) -> int:
    """Return the bytes that ``"100 MB"``, ``"1.5GB"``, ``"64 KiB"``, ``"1,000"`` or a plain integer mean.

    Units are decimal (kB, MB, GB, TB, PB, EB) or binary (KiB, MiB, …); case makes no difference, the B may be
    left out. Fractions of a byte are cut off. UsageError for anything else, negative sizes included.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UsageError(
            f"{size!r:.60} is not a size. Write it like '100 MB', '1.5 GB' or '64 KiB', or as a number of bytes."
        )
    whole, _, fraction = match[1].replace(",", "").replace("_", "").partition(".")
    # Integers throughout: a float would turn large sizes into their neighbours.
    places = int("1" + "0" * len(fraction))
    return (int(whole or 0) * places + int(fraction or 0)) * factor // places
