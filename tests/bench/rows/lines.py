"""WebRTC alone, on a clean and on a lossy line; and direct TCP on the same line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from tests.bench.registry import Goal, Run, Unavailable, row
from tests.bench.rows.channels import bare_channel
from tests.bench.sides import ScriptSide, call, hub, hub_in_lab, scripts
from tests.netlab import Netlab, NetlabUnavailable

LINE: Final = {"delay_ms": 25.0, "rate_mbit": 100.0}
ENDS: Final = ("left", "right", "hub")
ENGINES: Final = {"aiortc": "p2pnb, default engine", "libwebrtc": "p2pnb, libwebrtc"}


@contextlib.asynccontextmanager
async def lab_with_hub(loss: float) -> AsyncIterator[tuple[Netlab, str]]:
    """A lab whose third end is the hub; all three lines are alike, so that the way over the hub is no better one."""
    try:
        opened = Netlab(ENDS, loss=loss, **LINE)  # type: ignore[arg-type]
        with opened as lab:
            async with hub_in_lab(lab, "hub") as address:
                yield lab, address
    except NetlabUnavailable as error:
        raise Unavailable(str(error)) from error


@contextlib.asynccontextmanager
async def pair(
    address: str, path: str, lab: Netlab | None = None, **settings: Any
) -> AsyncIterator[tuple[ScriptSide, ScriptSide]]:
    """Two scripts in a room of this hub, joined over this path."""
    ends: Sequence[str] = ("left", "right") if lab is not None else ()
    async with scripts("ada", "ben", lab=lab, ends=ends) as (ada, ben):
        link = await ada.value(call("peer.create", hub=address, relay="never", **settings))
        await ben.run(call("peer.join", link, relay="never", **settings))
        await asyncio.gather(*(side.value(call("peer.direct", path=path)) for side in (ada, ben)))
        yield ada, ben


def _engine_settings(engine: str) -> dict[str, Any]:
    if engine == "libwebrtc" and find_spec("wrtc") is None:
        raise Unavailable("wrtc is not installed: pip install 'p2pnb[fast]'")
    return {"direct_tcp": False, "engine": engine}


@dataclass(frozen=True, slots=True)
class _Sent:
    """One transfer that was given some time: MB/s from the call of send, and in the second half of that time."""

    rate: float
    second_half: float
    note: str


async def _send(run: Run, ada: ScriptSide, megabytes: int, seconds: float) -> _Sent:
    """Send an array for at most so long; what had landed by then counts."""
    await ada.run(call("peer.array", megabytes))
    seen = await ada.value(call("peer.send_within", seconds))
    landed: list[list[float]] = seen["landed"]
    ended, total = landed[-1][0], seen["size"] if seen["whole"] else landed[-1][1]
    half = next(point for point in landed if point[0] >= ended / 2)
    later = (total - half[1]) / max(ended - half[0], 1e-3) / 1e6
    paths = [" ".join(str(peer[key]) for key in ("path", "lanes", "engine")).strip() for peer in seen["peers"].values()]
    sent = _Sent(total / ended / 1e6, later, "; ".join([f"{total / 1e6:.0f} MB in {ended:.1f} s", *paths]))
    run.say(f"{sent.rate:.2f} MB/s, {sent.second_half:.2f} in the second half ({sent.note})")
    return sent


def _add(run: Run, name: str, sent: _Sent) -> None:
    run.add(name, "MB/s", [sent.rate], note=sent.note)
    run.add(f"{name}, second half", "MB/s", [sent.second_half], note="without the beginning")


async def _both_engines(run: Run, measure: Callable[[str, str], Any]) -> None:
    for engine, name in ENGINES.items():
        with run.attempt(name, "MB/s"):
            await measure(engine, name)


@row(
    "webrtc-lossy",
    "WebRTC only, 50 ms RTT, 1 % loss, 100 Mbit/s",
    Goal(ENGINES["aiortc"], least=8, unit="MB/s"),
    Goal(ENGINES["libwebrtc"], least=8, unit="MB/s"),
    limit_s=400,
)
async def webrtc_lossy(run: Run) -> None:
    megabytes, seconds = (20, 6.0) if run.quick else (200, 40.0)

    async def measure(engine: str, name: str) -> None:
        settings = _engine_settings(engine)
        async with lab_with_hub(0.01) as (lab, address), pair(address, "webrtc", lab, **settings) as (ada, _):
            _add(run, name, await _send(run, ada, megabytes, seconds))

    await _both_engines(run, measure)
    for library in ("aiortc", "wrtc"):
        name = f"bare {library} channel"
        with run.attempt(name, "MB/s"):
            async with lab_with_hub(0.01) as (lab, _):
                run.add(name, "MB/s", [await bare_channel(library, 4.0 if run.quick else 15.0, lab)])


@row(
    "webrtc-clean",
    "WebRTC only, clean line (loopback)",
    Goal(ENGINES["aiortc"], least=1, against="bare aiortc channel"),
    Goal(ENGINES["libwebrtc"], least=60, unit="MB/s"),
    limit_s=300,
)
async def webrtc_clean(run: Run) -> None:
    megabytes, seconds = (20, 4.0) if run.quick else (300, 15.0)
    runs = 1 if run.quick else 2

    async def measure(engine: str, name: str) -> None:
        settings = _engine_settings(engine)
        async with hub() as server, pair(server.hub, "webrtc", **settings) as (ada, _):
            sent = [await _send(run, ada, megabytes, seconds) for _ in range(runs)]
            run.add(name, "MB/s", [one.rate for one in sent], note=sent[-1].note)

    await _both_engines(run, measure)
    for library in ("aiortc", "wrtc"):
        name = f"bare {library} channel"
        with run.attempt(name, "MB/s"):
            run.add(name, "MB/s", [await bare_channel(library, 2.0 if run.quick else 6.0) for _ in range(runs)])


@row("tcp-line", "direct TCP, 50 ms RTT, 100 Mbit/s, 0 % and 1 % loss", limit_s=300)
async def tcp_line(run: Run) -> None:
    megabytes, seconds = (20, 6.0) if run.quick else (150, 25.0)
    for loss in (0.0, 0.01):
        at = f"{loss:.0%} loss"
        with run.attempt(f"p2pnb, {at}", "MB/s"):
            async with lab_with_hub(loss) as (lab, address), pair(address, "tcp", lab, direct_tcp=True) as (ada, _):
                _add(run, f"p2pnb, {at}", await _send(run, ada, megabytes, seconds))
        name = f"one bare TCP connection, {at}"
        with run.attempt(name, "MB/s"):
            async with lab_with_hub(loss) as (lab, _):
                run.add(name, "MB/s", [await _bare_stream(lab, 4.0 if run.quick else 12.0)])


async def _bare_stream(lab: Netlab, seconds: float) -> float:
    setup = "from tests.bench.references import tcp_stream"
    async with scripts("sender", "receiver", lab=lab, ends=("left", "right"), setup=setup) as (sender, receiver):
        place = lab.addresses["right"]
        port = await receiver.value(call("tcp_stream.serve", place))
        rate, _ = await asyncio.gather(
            receiver.value(call("tcp_stream.receive", seconds)),
            sender.run(call("tcp_stream.pour", place, port, seconds + 1)),
        )
        return float(rate / 1e6)
