"""Bulk between two kernels of one machine: a DataFrame, a file, and what goes only through the hub."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import os
from pathlib import Path
from typing import Any, Final

from tests.bench.machine import (
    MEBIBYTE,
    TMPFS,
    PeakMemory,
    fill_fresh_memory,
    room_for_files,
    settle_disks,
    warm_memory,
)
from tests.bench.references.wormhole import Mailbox, mailbox
from tests.bench.registry import MEDIAN, WORST, Contestant, Goal, Run, row
from tests.bench.rows.channels import bare_channel
from tests.bench.sides import Side, call, kernel_pair, scripts

RUNS: Final = 6
SLOW: Final = 50.0  # MB/s: a gigabyte takes 20 s and more, and one sample says it
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


async def timed_object(ada: Side, ben: Side, name: str, size_bytes: int, wanted: str) -> float:
    """Send the value that Ada has; returns MB/s, of a value that came as `wanted` (its fingerprint)."""
    await asyncio.to_thread(warm_memory, 6 * size_bytes // 5)
    sent, came = await asyncio.gather(ada.value(call("peer.send", name)), ben.value(call("peer.arrived", name)))
    if await ben.value(call("peer.fingerprint", name)) != wanted:
        raise AssertionError("what arrived is not what was sent")
    await ben.run(call("peer.forget", name))
    return float(size_bytes / (max(sent["finished"], came) - sent["began"]) / 1e6)


def objects(ada: Side, ben: Side, size_bytes: int, wanted: str) -> Contestant:
    """Return the contestant that sends Ada's value again and again."""
    names = (f"bulk {number}" for number in itertools.count())
    return Contestant(OURS, lambda: timed_object(ada, ben, next(names), size_bytes, wanted), hopeless=SLOW)


@row(
    "dataframe",
    "kernel → kernel, 1 GB DataFrame, same machine",
    Goal(OURS, least=10, against=WORMHOLE),
    Goal(OURS, least=0.7, against=LOOP),
    limit_s=600,
)
async def dataframe(run: Run) -> None:
    megabytes = 50 if run.quick else 1000
    size = megabytes * 1_000_000
    notes = {}
    async with contextlib.AsyncExitStack() as stack:
        contestants: list[Contestant] = []
        with run.attempt(OURS, "MB/s"):
            ada, ben, _ = await stack.enter_async_context(kernel_pair())
            notes[OURS] = f"over {(await meet(ada, ben))[0]}, values equal"
            made = await ada.value(call("peer.frame", megabytes))
            contestants.append(objects(ada, ben, made, await ada.value(call("peer.fingerprint"))))
        contestants += [
            Contestant(name, functools.partial(tcp_loop, size, memory))
            for memory, name in (
                ("reused", LOOP),
                ("fresh", "bare TCP + AES-GCM, into fresh memory"),
                ("huge", "bare TCP + AES-GCM, fresh, huge pages"),
            )
        ]
        with run.attempt(WORMHOLE, "MB/s"):
            folder, place = stack.enter_context(room_for_files(2 * size))
            _write_noise(folder / "content", megabytes)
            wormhole = Wormhole(await stack.enter_async_context(mailbox(folder)), folder / "content", place)
            contestants.append(Contestant(WORMHOLE, wormhole.once, most=3))
        samples = await run.by_turns(1 if run.quick else RUNS, contestants)
        for name, rates in samples.items():
            if rates:
                run.add(name, "MB/s", rates, note=wormhole.note if name == WORMHOLE else notes.get(name, ""))
        if ours := samples.get(OURS):
            run.add(f"{OURS}, first in its kernels", "MB/s", ours, how="first")
            run.add(f"{OURS}, median", "MB/s", ours, how=MEDIAN)
    for huge, name in ((False, "writing to fresh memory"), (True, "writing to fresh memory, huge pages")):
        with run.attempt(name, "MB/s"):
            took: list[float] = []
            for _ in range(3):
                await asyncio.to_thread(warm_memory, size)
                took.append(await asyncio.to_thread(fill_fresh_memory, size, huge_pages=huge))
            run.add(name, "MB/s", [size / seconds / 1e6 for seconds in took], note="no transfer: what memory costs")
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


class Wormhole:
    """magic-wormhole with one file, again and again."""

    def __init__(self, servers: Mailbox, file: Path, place: str) -> None:
        self._servers, self._file, self._place = servers, file, place
        self._peak_mib = 0.0

    @property
    def note(self) -> str:
        return f"a file on {self._place}, less start and key exchange; peak {self._peak_mib:.0f} MiB"

    async def once(self) -> float:
        """Return the MB/s of one run."""
        size = _size(self._file)
        await asyncio.to_thread(settle_disks)
        await asyncio.to_thread(warm_memory, 6 * size // 5)
        sent = await self._servers.send(self._file)
        self._peak_mib = max(self._peak_mib, sent.peak_mib)
        return size / sent.seconds / 1e6


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
    limit_s=900,
)
async def file_to_file(run: Run) -> None:
    megabytes = 100 if run.quick else 2000
    for in_memory in (False, True):
        suffix = f", on {TMPFS}" if in_memory else ""
        with run.attempt(f"{OURS}{suffix}", "MB/s"):
            await _files_in(run, megabytes, suffix, in_memory=in_memory)


async def _files_in(run: Run, megabytes: int, suffix: str, *, in_memory: bool) -> None:
    """Measure in one place: on the temporary folder's disk (its pages stay in the system's cache), or in memory."""
    async with contextlib.AsyncExitStack() as stack:
        folder, place = stack.enter_context(room_for_files(2 * megabytes * 1_000_000, in_memory=in_memory))
        file = folder / "content"
        _write_noise(file, megabytes)
        contestants: list[Contestant] = []
        ours = Files(file)
        with run.attempt(f"{OURS}{suffix}", "MB/s"):
            await ours.meet(*(await stack.enter_async_context(kernel_pair()))[:2])
            contestants.append(Contestant(f"{OURS}{suffix}", ours.once, hopeless=SLOW))
        with run.attempt(f"{WORMHOLE}{suffix}", "MB/s"):
            wormhole = Wormhole(await stack.enter_async_context(mailbox(folder)), file, place)
            contestants.append(Contestant(f"{WORMHOLE}{suffix}", wormhole.once, most=2 if in_memory else 3))
        samples = await run.by_turns(1 if run.quick else (3 if in_memory else RUNS), contestants)
        if rates := samples.get(f"{OURS}{suffix}"):
            run.add(f"{OURS}{suffix}", "MB/s", rates, note=f"over {ours.path}, on {place}, contents equal")
            run.add(f"{OURS}{suffix}, median", "MB/s", rates, how=MEDIAN)
            for name, over in ours.over_idle_mib.items():
                run.add(f"{name}'s memory over idle{suffix}", "MiB", over, how=WORST)
        if rates := samples.get(f"{WORMHOLE}{suffix}"):
            run.add(f"{WORMHOLE}{suffix}", "MB/s", rates, note=wormhole.note)


class Files:
    """One file between two kernels, again and again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._received = file.with_name("received")
        self.over_idle_mib: dict[str, list[float]] = {"sender": [], "receiver": []}
        self.path = ""

    async def meet(self, ada: Side, ben: Side) -> None:
        """Open a room with both."""
        self._ada, self._ben = ada, ben
        link = await ada.value(call("peer.create"))
        await ben.run(call("peer.join", link, folder=str(self._received)))
        self.path = (await ada.value(call("peer.direct")))[0]
        self._pids = {"sender": await ada.value("peer.pid()"), "receiver": await ben.value("peer.pid()")}
        self._wanted = await asyncio.to_thread(_digest, self._file)

    async def once(self) -> float:
        """Return the MB/s of one transfer, of a file that came as it was sent."""
        name, size = self._file.name, _size(self._file)
        await asyncio.to_thread(settle_disks)
        await asyncio.to_thread(warm_memory, 6 * size // 5)
        with PeakMemory(**self._pids) as memory:
            sent, came = await asyncio.gather(
                self._ada.value(call("peer.send_file", str(self._file))), self._ben.value(call("peer.arrived", name))
            )
        for side, samples in self.over_idle_mib.items():
            samples.append(memory.over_idle_mib(side))
        if await self._ben.value(call("peer.fingerprint", name)) != self._wanted:
            raise AssertionError("what arrived is not what was sent")
        await self._ben.run(call("peer.forget", name))
        for copy in self._received.iterdir():
            copy.unlink()
        return float(size / (max(sent["finished"], came) - sent["began"]) / 1e6)


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
            contestants = [
                objects(ada, ben, size, await ada.value(call("peer.fingerprint"))),
                Contestant(BARE_RELAY, lambda: _bare_relay(megabytes * 1_000_000)),
            ]
            with PeakMemory(hub=server.pid) as memory:
                samples = await run.by_turns(2 if run.quick else RUNS, contestants)
            peak = memory.peak_bytes["hub"] / MEBIBYTE
            run.add("hub's memory over idle", "MiB", [memory.over_idle_mib("hub")], note=f"peak {peak:.0f} MiB")
        for name, rates in samples.items():
            if rates:
                run.add(name, "MB/s", rates)


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
