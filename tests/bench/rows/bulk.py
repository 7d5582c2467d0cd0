"""Bulk between two kernels of one machine: a DataFrame, a file, and what goes only through the hub."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any, Final

from tests.bench.machine import MEBIBYTE, PeakMemory, fill_fresh_memory, room_for_files, warm_memory
from tests.bench.references.wormhole import Mailbox, Sent, mailbox
from tests.bench.registry import BEST, MEDIAN, WORST, Goal, Run, row
from tests.bench.rows.channels import bare_channel
from tests.bench.sides import Side, call, kernel_pair, scripts

RUNS: Final = 5
SPENT_S: Final = 90.0  # no further run of ours begins after this: a slow path need not be measured five times
OURS: Final = "p2pnb"
WORMHOLE: Final = "magic-wormhole"
LOOP: Final = "bare TCP + AES-GCM, reused buffer"


async def meet(ada: Side, ben: Side, **settings: Any) -> list[str]:
    """Open a room with both sides in it and wait for the best path; returns the paths."""
    link = await ada.value(call("peer.create", **settings))
    await ben.run(call("peer.join", link, **settings))
    path = "relay" if settings.get("relay") == "only" else ""
    paths = await asyncio.gather(*(side.value(call("peer.direct", path=path)) for side in (ada, ben)))
    await asyncio.sleep(1.0)  # better paths may follow the first direct one
    return [*map(str, paths[0])]


async def timed_object(run: Run, ada: Side, ben: Side, size_bytes: int, runs: int) -> list[float]:
    """Send the value that Ada has, several times; returns bytes per second, each for a value that came equal."""
    rates: list[float] = []
    wanted = await ada.value(call("peer.fingerprint"))
    began = time.monotonic()
    while len(rates) < runs and (not rates or time.monotonic() - began < SPENT_S):
        name = f"bulk {len(rates)}"
        await asyncio.to_thread(warm_memory, 6 * size_bytes // 5)
        sent, came = await asyncio.gather(ada.value(call("peer.send", name)), ben.value(call("peer.arrived", name)))
        rates.append(size_bytes / (max(sent["finished"], came) - sent["began"]) / 1e6)
        if await ben.value(call("peer.fingerprint", name)) != wanted:
            raise AssertionError("what arrived is not what was sent")
        await ben.run(call("peer.forget", name))
        run.say(f"{rates[-1]:.0f} MB/s")
    return rates


@row(
    "dataframe",
    "kernel → kernel, 1 GB DataFrame, same machine",
    Goal(OURS, least=10, against=WORMHOLE),
    Goal(OURS, least=0.7, against=LOOP),
    limit_s=600,
)
async def dataframe(run: Run) -> None:
    megabytes = 50 if run.quick else 1000
    with run.attempt(OURS, "MB/s"):
        async with kernel_pair() as (ada, ben, _):
            paths = await meet(ada, ben)
            size = await ada.value(call("peer.frame", megabytes))
            rates = await timed_object(run, ada, ben, size, RUNS)
            run.add(OURS, "MB/s", rates, note=f"over {paths[0]}, values equal")
            run.add(f"{OURS}, first in its kernels", "MB/s", rates, how="first")
            run.add(f"{OURS}, median", "MB/s", rates, how=MEDIAN)
    size = megabytes * 1_000_000
    kinds = {
        "reused": LOOP,
        "fresh": "bare TCP + AES-GCM, into fresh memory",
        "huge": "bare TCP + AES-GCM, fresh, huge pages",
    }
    loops: dict[str, list[float]] = {memory: [] for memory in kinds}
    with run.attempt(LOOP, "MB/s"):
        for _ in range(2 if run.quick else RUNS):  # by turns: a disturbance meets all of them
            for memory, samples in loops.items():
                samples.append(await tcp_loop(size, memory))
        for memory, name in kinds.items():
            run.add(name, "MB/s", loops[memory])
    for huge, name in ((False, "writing to fresh memory"), (True, "writing to fresh memory, huge pages")):
        with run.attempt(name, "MB/s"):
            took: list[float] = []
            for _ in range(3):
                await asyncio.to_thread(warm_memory, size)
                took.append(await asyncio.to_thread(fill_fresh_memory, size, huge_pages=huge))
            run.add(name, "MB/s", [size / seconds / 1e6 for seconds in took], note="no transfer: what memory costs")
    with run.attempt(WORMHOLE, "MB/s"):
        await wormhole_file(run, megabytes, 1 if run.quick else 3)
    for library in ("aiortc", "wrtc"):
        with run.attempt(f"bare {library} channel", "MB/s"):
            run.add(f"bare {library} channel", "MB/s", [await bare_channel(library, 2.0 if run.quick else 5.0)])


async def tcp_loop(size_bytes: int, memory: str) -> float:
    """Return the MB/s of one bare, encrypted TCP connection."""
    async with scripts("sender", "receiver", setup="from tests.bench.references import tcp_loop") as (sender, receiver):
        port = await receiver.value("tcp_loop.serve()")
        await asyncio.gather(sender.run(call("tcp_loop.connect", port, size_bytes)), receiver.run("tcp_loop.take()"))
        await asyncio.to_thread(warm_memory, 6 * size_bytes // 5)
        began, ended = await asyncio.gather(
            sender.value("tcp_loop.send()"), receiver.value(call("tcp_loop.receive", size_bytes, memory))
        )
        return float(size_bytes / (ended - began) / 1e6)


async def wormhole_file(run: Run, megabytes: int, runs: int) -> None:
    """Add magic-wormhole's figure for one file."""
    with room_for_files(2 * megabytes * 1_000_000) as (folder, place):
        file = folder / "content"
        _write_noise(file, megabytes)
        async with mailbox(folder) as servers:
            await _add_wormhole(run, servers, file, runs, place)


async def _add_wormhole(run: Run, servers: Mailbox, file: Path, runs: int, place: str) -> None:
    size = _size(file)
    sent: list[Sent] = []
    for _ in range(runs):
        await asyncio.to_thread(warm_memory, 6 * size // 5)
        sent.append(await servers.send(file))
    peak = max(one.peak_mib for one in sent)
    note = f"a file on {place}, less start and key exchange; peak {peak:.0f} MiB"
    run.add(WORMHOLE, "MB/s", [size / one.seconds / 1e6 for one in sent], note=note)


def _write_noise(path: Path, megabytes: int) -> None:
    block = os.urandom(1_000_000)
    with path.open("wb") as file:
        for number in range(megabytes):
            file.write(number.to_bytes(8) + block[8:])  # no two blocks are alike


@row(
    "file",
    "file → file, 2 GB, same machine",
    Goal(OURS, least=5, against=WORMHOLE),
    Goal("sender's memory over idle", most=64, unit="MiB"),
    Goal("receiver's memory over idle", most=64, unit="MiB"),
    limit_s=600,
)
async def file_to_file(run: Run) -> None:
    megabytes = 100 if run.quick else 2000
    with room_for_files(2 * megabytes * 1_000_000) as (folder, place):
        file = folder / "content"
        _write_noise(file, megabytes)
        with run.attempt(OURS, "MB/s"):
            async with kernel_pair() as (ada, ben, _):
                await _files_between_kernels(run, ada, ben, file, place)
        with run.attempt(WORMHOLE, "MB/s"):
            async with mailbox(folder) as servers:
                await _add_wormhole(run, servers, file, 1 if run.quick else 2, place)


async def _files_between_kernels(run: Run, ada: Side, ben: Side, file: Path, place: str) -> None:
    link = await ada.value(call("peer.create"))
    received = file.with_name("received")
    await ben.run(call("peer.join", link, folder=str(received)))
    paths = await ada.value(call("peer.direct"))
    pids = {"sender": await ada.value("peer.pid()"), "receiver": await ben.value("peer.pid()")}
    wanted = await asyncio.to_thread(_digest, file)
    rates: list[float] = []
    over: dict[str, list[float]] = {name: [] for name in pids}
    for _ in range(1 if run.quick else 3):
        await asyncio.to_thread(warm_memory, 6 * _size(file) // 5)
        with PeakMemory(**pids) as memory:
            sent, came = await asyncio.gather(
                ada.value(call("peer.send_file", str(file))), ben.value(call("peer.arrived", file.name))
            )
        rates.append(_size(file) / (max(sent["finished"], came) - sent["began"]) / 1e6)
        for name, samples in over.items():
            samples.append(memory.over_idle_mib(name))
        if await ben.value(call("peer.fingerprint", file.name)) != wanted:
            raise AssertionError("what arrived is not what was sent")
        await ben.run(call("peer.forget", file.name))
        for copy in received.iterdir():
            copy.unlink()
        run.say(f"{rates[-1]:.0f} MB/s")
        if sum(rates) < 100:
            break  # minutes each; one says it
    run.add(OURS, "MB/s", rates, how=BEST, note=f"over {paths[0]}, on {place}, contents equal")
    for name, samples in over.items():
        run.add(f"{name}'s memory over idle", "MiB", samples, how=WORST)


def _size(file: Path) -> int:
    return file.stat().st_size


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


BARE_RELAY: Final = "bare tornado relay"


@row(
    "relay",
    "relay path only, same machine, through the Jupyter extension",
    Goal(OURS, least=0.5, against=BARE_RELAY),
    Goal("hub's memory over idle", most=64, unit="MiB"),
    limit_s=300,
)
async def relay(run: Run) -> None:
    megabytes = 50 if run.quick else 400
    with run.attempt(OURS, "MB/s"):
        async with kernel_pair() as (ada, ben, server):
            await meet(ada, ben, relay="only")
            size = await ada.value(call("peer.array", megabytes))
            with PeakMemory(hub=server.pid) as memory:
                rates = await timed_object(run, ada, ben, size, 2 if run.quick else RUNS)
            run.add(OURS, "MB/s", rates)
            peak = memory.peak_bytes["hub"] / MEBIBYTE
            run.add("hub's memory over idle", "MiB", [memory.over_idle_mib("hub")], note=f"peak {peak:.0f} MiB")
    with run.attempt(BARE_RELAY, "MB/s"):
        run.add(BARE_RELAY, "MB/s", [await _bare_relay(megabytes * 1_000_000) for _ in range(2 if run.quick else 4)])


async def _bare_relay(size_bytes: int) -> float:
    setup = "from tests.bench.references import websocket_relay"
    async with scripts("relay", "sender", "receiver", setup=setup) as (middle, sender, receiver):
        port = await middle.value("websocket_relay.serve()")
        for side in (sender, receiver):
            await side.run(call("websocket_relay.connect", port))
        began, ended = await asyncio.gather(
            sender.value(call("websocket_relay.send", size_bytes)),
            receiver.value(call("websocket_relay.receive", size_bytes)),
        )
        return float(size_bytes / (ended - began) / 1e6)
