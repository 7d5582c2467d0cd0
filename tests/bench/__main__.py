"""Measure p2pnb between two kernels of two Jupyter servers on this machine; print a table and write JSON.

    make bench                      all rows
    make bench ARGS="--json FILE"   the JSON goes to FILE (default: bench.json)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from p2pnb.demo.kernels import ServerKernel
from p2pnb.demo.servers import JupyterServer

SETUP = """
import statistics, threading, time
import numpy as np
import p2pnb

def first_message(link, **settings):
    "Seconds until join returned, and until the other side's answer to a first message was here."
    answered = threading.Event()
    began = time.perf_counter()
    room = p2pnb.join(link, name="Ben", **settings)
    joined = time.perf_counter() - began
    room.on("message", lambda m: answered.set() if not m.mine else None)
    room.chat("hello")
    assert answered.wait(30)
    return room, joined, time.perf_counter() - began

def meet_directly(room):
    until = time.monotonic() + 20
    while room.meet().path == "relay" and time.monotonic() < until:
        time.sleep(0.05)
    return room.meet().path

def round_trips(room, count):
    "Seconds for an object of 1 kB to the other side and one of 1 kB back."
    value, times = b"x" * 1000, []
    for _ in range(count):
        began = time.perf_counter()
        room.send(value, "ping")
        room.receive("pong", timeout=30)
        times.append(time.perf_counter() - began)
    return times

def bulk(room, mb):
    "Bytes per second of one array."
    value = np.random.default_rng(0).random(mb * 125_000)
    began = time.perf_counter()
    room.send(value, "bulk").result(600)
    return value.nbytes / (time.perf_counter() - began)
"""

ECHO = """
def serve(**settings):
    room = p2pnb.create(name="Ada", accept=True, **settings)
    room.on("message", lambda m: None if m.mine else room.chat("hello yourself"))
    room.on("object", lambda item: room.send(item.value, "pong") if item.name == "ping" else None)
    return room
"""


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    rows = {"import p2pnb over bare Python, ms": import_cost_ms()}
    with tempfile.TemporaryDirectory(prefix="p2pnb-bench-") as folder:
        place = Path(folder)
        with JupyterServer("ada", place, lab=False) as ada, JupyterServer("ben", place, lab=False) as ben:
            rows |= asyncio.run(between_kernels(ada, ben))
    for name, value in rows.items():
        print(f"{name:<58} {value:>10.2f}")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def import_cost_ms() -> float:
    """Return the median cost of `import p2pnb` in a fresh interpreter, in milliseconds."""
    code = "import time; t = time.perf_counter(); import p2pnb; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(9)]
    return 1000 * statistics.median(float(run.stdout) for run in runs)


async def between_kernels(ada_server: JupyterServer, ben_server: JupyterServer) -> dict[str, float]:
    """Measure joining, small objects and bulk, over the relay and directly."""
    rows: dict[str, float] = {}
    async with ServerKernel(ada_server) as ada, ServerKernel(ben_server) as ben:
        await ada.run(SETUP + ECHO)
        await ben.run(SETUP)
        for which in ("first in its process", "later"):
            await ada.run("room = serve()")
            link = await ada.value("room.invite.link")
            await ben.run(f"room, joined, answered = first_message({link!r})")
            rows[f"join, {which}, ms"] = 1000 * await ben.value("joined")
            rows[f"join to first answer, {which}, ms"] = 1000 * await ben.value("answered")
            if which == "later":
                break
            await ben.run("room.leave()")
            await ada.run("room.leave()")
        for path in ("webrtc", "relay"):
            if path == "relay":
                await ada.run("room.leave(); room = serve(relay='only')")
                link = await ada.value("room.invite.link")
                await ben.run(f"room.leave(); room, *_ = first_message({link!r}, relay='only')")
            else:
                path = await ben.value("meet_directly(room)")  # noqa: PLW2901 - what there really is
            times = await ben.value("round_trips(room, 200)")
            rows[f"1 kB object there and back, {path}, p50, ms"] = 1000 * statistics.median(times)
            rows[f"100 MB array, {path}, MB/s"] = await ben.value("bulk(room, 100)") / 1e6
    return rows


if __name__ == "__main__":
    main()
