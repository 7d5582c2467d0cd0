"""Bare data channels between two processes, here or over a lab's line."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Final

from tests.bench.registry import Unavailable
from tests.bench.sides import call, scripts
from tests.netlab import Netlab

__all__ = ["bare_channel"]

_MODULES: Final = {"aiortc": "aiortc", "wrtc": "wrtc"}


async def bare_channel(library: str, seconds: float, lab: Netlab | None = None) -> float:
    """Return the MB/s that one data channel of "aiortc" or "wrtc" brings in so many seconds."""
    if find_spec(_MODULES[library]) is None:
        raise Unavailable(f"{library} is not installed: pip install 'p2pnb[bench]'")
    ends = ("left", "right") if lab is not None else ()
    setup = f"from tests.bench.references import rtc_channel\nrtc_channel.use({library!r})"
    async with scripts("sender", "receiver", lab=lab, ends=ends, setup=setup) as (sender, receiver):
        answer = await receiver.value(call("rtc_channel.answer", await sender.value("rtc_channel.offer()")))
        await sender.run(call("rtc_channel.accept", answer))
        began = await sender.value(call("rtc_channel.send_for", seconds))
        rate = await receiver.value(call("rtc_channel.landed", began, seconds))
        await asyncio.gather(sender.run("rtc_channel.close()"), receiver.run("rtc_channel.close()"))
        return float(rate / 1e6)
