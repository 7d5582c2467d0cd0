"""Time zones as data: by their key where they have one, by their offset otherwise.

A key comes from a peer and ends in a file name inside the zone database, so it is held to a grammar without dots before
any library sees it. A pytz zone is a `zoneinfo.ZoneInfo` where pytz is missing.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from typing import Any, Final, cast

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects.preview import cell

__all__ = ["build_zone", "describe_zone"]

_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+\-]{0,63}(?:/[A-Za-z0-9_+\-]{1,64}){0,3}")


def describe_zone(zone: dt.tzinfo) -> list[Any]:
    """Return a time zone as data; raises `NotSupportedError`."""
    if zone is dt.UTC:
        return ["utc"]
    if type(zone) is dt.timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        default = dt.timezone(offset).tzname(None)
        return ["fixed", offset.days * 86400 + offset.seconds, offset.microseconds, None if name == default else name]
    if type(zone) is zoneinfo.ZoneInfo and zone.key and _ZONE_KEY.fullmatch(zone.key):
        return ["zoneinfo", zone.key]
    if type(zone).__module__.split(".", 1)[0] == "pytz":
        if type(zone).__name__ == "_FixedOffset":
            return ["pytz-fixed", int(cast(dt.timedelta, zone.utcoffset(None)).total_seconds()) // 60]
        key = getattr(zone, "zone", None)
        if isinstance(key, str) and _ZONE_KEY.fullmatch(key):
            return ["pytz", key]
    raise NotSupportedError(
        f"the time zone {cell(zone)} can't be sent; use zoneinfo.ZoneInfo('Area/City') or a fixed datetime.timezone"
    )


def build_zone(parts: list[Any]) -> dt.tzinfo:
    """Rebuild a time zone from a peer's description; a pytz zone is a ZoneInfo where pytz is missing."""
    match parts:
        case ["utc"]:
            return dt.UTC
        case ["fixed", int(seconds), int(micros), None | str() as name]:
            offset = dt.timedelta(seconds=seconds, microseconds=micros)
            return dt.timezone(offset) if name is None else dt.timezone(offset, name)
        case ["pytz-fixed", int(minutes)]:
            try:
                import pytz  # type: ignore[import-untyped]
            except ImportError:
                return dt.timezone(dt.timedelta(minutes=minutes))
            return cast(dt.tzinfo, pytz.FixedOffset(minutes))
        case ["zoneinfo" | "pytz" as library, str(key)] if _ZONE_KEY.fullmatch(key):
            try:
                if library == "pytz":
                    try:
                        import pytz
                    except ImportError:
                        pass
                    else:
                        return cast(dt.tzinfo, pytz.timezone(key))
                return zoneinfo.ZoneInfo(key)
            except (LookupError, OSError, ValueError) as error:
                raise NotSupportedError(
                    f"this machine does not know the time zone {key}; install the package tzdata"
                ) from error
    raise CorruptDataError("the received time zone is malformed")
