"""More than two: one sender with eight receivers, and a room of thirty."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from tests.bench.machine import room_for_files, warm_memory
from tests.bench.registry import Goal, Run, row
from tests.bench.sides import call, hub, scripts

RECEIVERS: Final = 8
PEERS: Final = 30
PROCESSES: Final = 5  # 6 peers each: as many processes as peers would measure this machine's scheduler
PATIENCE_S: Final = 40.0


@row(
    "eight-receivers",
    "one sender, 8 receivers: aggregate against one receiver",
    Goal("eight receivers, together", least=0.8, against="one receiver"),
    Goal("times that a file was read for eight", most=1.1, unit="×"),
    limit_s=300,
)
async def eight_receivers(run: Run) -> None:
    megabytes = 20 if run.quick else 200
    names = [f"R{number}" for number in range(RECEIVERS)]
    async with _folder(run) as folder, hub() as server, scripts("ada", *names) as (ada, *receivers):
        link = await ada.value(call("peer.create", hub=server.hub))
        landed = [str(folder / name) for name in names]
        joins = [call("peer.join", link, name=name, folder=place) for name, place in zip(names, landed, strict=True)]
        await asyncio.gather(*(side.run(join) for side, join in zip(receivers, joins, strict=True)))
        paths = await ada.value(call("peer.direct", 40.0, RECEIVERS))
        size = await ada.value(call("peer.array", megabytes))
        rates: dict[int, list[float]] = {1: [], RECEIVERS: []}
        began = time.monotonic()
        for number in range(1 if run.quick else 6):
            for count, samples in rates.items():
                await asyncio.to_thread(warm_memory, (count + 1) * size)
                item, to = f"bulk {number} {count}", names[:count]
                sent, *came = await asyncio.gather(
                    ada.value(call("peer.send", item, to)),
                    *(side.value(call("peer.arrived", item)) for side in receivers[:count]),
                )
                samples.append(count * size / (max(sent["finished"], *came) - sent["began"]) / 1e6)
                for side in receivers[:count]:
                    await side.run(call("peer.forget", item))
                run.say(f"{count}: {samples[-1]:.0f} MB/s")
            if time.monotonic() - began > 120:
                break
        note = f"{megabytes} MB array over {', '.join(sorted(set(paths)))}"
        run.add("one receiver", "MB/s", rates[1], note=note)
        run.add("eight receivers, together", "MB/s", rates[RECEIVERS], note=note)
        file = folder / "content"
        file.write_bytes(os.urandom(_file_bytes(run)))
        before = await ada.value("peer.read_bytes()")
        await ada.run(call("peer.send_file", str(file)))
        read = await ada.value("peer.read_bytes()") - before
        run.add("times that a file was read for eight", "×", [read / _file_bytes(run)])


def _file_bytes(run: Run) -> int:
    return (5 if run.quick else 50) * 1_000_000


@contextlib.asynccontextmanager
async def _folder(run: Run) -> AsyncIterator[Path]:
    with room_for_files((RECEIVERS + 1) * _file_bytes(run)) as (folder, _):
        yield folder


@row(
    "thirty-peers",
    f"room of {PEERS} peers",
    Goal("all see each other", most=5, unit="s"),
    Goal("chat that did not arrive", most=0, unit="messages"),
    limit_s=180,
)
async def thirty_peers(run: Run) -> None:
    peers = 10 if run.quick else PEERS
    names = [f"P{number}" for number in range(1, peers)]
    processes = [f"crowd{number}" for number in range(PROCESSES)]
    async with hub() as server, scripts("ada", *processes) as (ada, *crowds):
        link = await ada.value(call("peer.create", hub=server.hub))
        shares = [names[number::PROCESSES] for number in range(PROCESSES)]
        everybody = [ada, *crowds]
        starts = await asyncio.gather(
            *(side.value(call("peer.crowd", link, share)) for side, share in zip(crowds, shares, strict=True))
        )
        ends = await asyncio.gather(*(side.value(call("peer.crowd_sees", peers - 1, PATIENCE_S)) for side in everybody))
        note = f"{PROCESSES + 1} processes"
        run.add("all see each other", "s", [max(ends) - min(starts)], note=note)
        began = time.perf_counter()
        await asyncio.gather(*(side.run("peer.crowd_says()") for side in everybody))
        heard = await asyncio.gather(
            *(side.value(call("peer.crowd_heard", peers - 1, PATIENCE_S)) for side in everybody)
        )
        run.add("everybody has heard everybody", "s", [max(heard) - began], note=f"{peers * (peers - 1)} messages")
        lost = sum(await asyncio.gather(*(side.value(call("peer.crowd_misses", peers - 1)) for side in everybody)))
        run.add("chat that did not arrive", "messages", [lost])
        await asyncio.gather(*(side.run("peer.crowd_leaves()") for side in everybody))
