"""Small things: importing, the handshake, joining, one object there and back, and chat beside bulk."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time

from p2pnb.protocol.handshake import Established, Handshake, HandshakeRandom
from tests.bench.registry import MEDIAN, Goal, Run, row
from tests.bench.rows.bulk import meet
from tests.bench.sides import ROOT, call, kernel_pair


@row("import", "import p2pnb, over bare Python", Goal("import p2pnb", most=120, unit="ms"), limit_s=60)
async def import_cost(run: Run) -> None:
    code = "import time; t = time.perf_counter(); import p2pnb; print(time.perf_counter() - t)"

    def once() -> float:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
        return 1000 * float(done.stdout)

    run.add("import p2pnb", "ms", [await asyncio.to_thread(once) for _ in range(5 if run.quick else 15)], how=MEDIAN)


@row(
    "join",
    "join → first message received, same machine",
    Goal("first message received, first room of a kernel", most=250, unit="ms"),
    Goal("handshake, both sides' work", most=20, unit="ms"),
    limit_s=180,
)
async def join(run: Run) -> None:
    first: dict[str, list[float]] = {"joined": [], "heard": [], "answered": []}
    later: dict[str, list[float]] = {"joined": [], "heard": [], "answered": []}
    for _ in range(1 if run.quick else 3):
        async with kernel_pair() as (ada, ben, _server):
            for number in range(2 if run.quick else 5):
                link = await ada.value(call("peer.create"))
                times = await ben.value(call("peer.join_first", link))
                heard = await ada.value(call("peer.arrived", "hello", 10))
                for name, seconds in (
                    ("joined", times["joined"]),
                    ("heard", heard - times["began"]),
                    ("answered", times["answered"]),
                ):
                    (later if number else first)[name].append(1000 * seconds)
                await ben.run("peer.leave()")
                await ada.run("peer.leave()")
    names = {"joined": "join returns", "heard": "first message received", "answered": "its answer is here"}
    for times, which in ((first, "first room of a kernel"), (later, "later rooms")):
        for key, samples in times.items():
            run.add(f"{names[key]}, {which}", "ms", samples, how=MEDIAN)
    handshakes = [_handshake_ms(number) for number in range(30)]
    run.add("handshake, both sides' work", "ms", handshakes, how=MEDIAN, note="CPace, confirmed")


def _handshake_ms(number: int) -> float:
    """Carry one handshake from hello to confirmation, both sides in this process."""
    sides = [
        Handshake(
            room="bench-room", words="amber boat cedar dune", my_id=mine, peer_id=other,
            random=HandshakeRandom(*(bytes([number, part]) * 16 for part in (3 * side, 3 * side + 1, 3 * side + 2))),
            features=("webrtc", "tcp"),
        )
        for side, (mine, other) in enumerate(((bytes(16), bytes(15) + b"\x01"), (bytes(15) + b"\x01", bytes(16))))
    ]  # fmt: skip
    began = time.perf_counter()
    for side in sides:
        side.start()
    established = 0
    while established < 2:
        for source, target in (sides, sides[::-1]):
            for message in source.messages_to_send():
                events = [target.receive_message(message), target.share() if target.waits_to_share else None]
                established += sum(isinstance(event, Established) for event in events)
    return 1000 * (time.perf_counter() - began)


@row("round-trip", "1 kB object there and back, direct path", Goal("p50", most=1.5, unit="ms"), limit_s=120)
async def round_trip(run: Run) -> None:
    async with kernel_pair() as (ada, ben, _):
        paths = await meet(ada, ben)
        await ben.value(call("peer.round_trips", 20))
        times: list[float] = []
        medians: list[float] = []
        for _ in range(1 if run.quick else 5):  # in rounds: a disturbed one shows
            round_times = await ben.value(call("peer.round_trips", 50 if run.quick else 200))
            medians.append(1000 * statistics.median(round_times))
            times += [1000 * seconds for seconds in round_times]
        run.add("p50", "ms", times, how=MEDIAN, note=f"over {paths[0]}")
        run.add("p50 of the best round", "ms", medians)
        run.add("p99", "ms", times, how="p99")


@row(
    "chat-beside-bulk",
    "chat, one way, while 2 GB move between the same two peers",
    Goal("p99, with the bulk", most=50, unit="ms"),
    Goal("p99, against the bulk", most=50, unit="ms"),
    limit_s=300,
)
async def chat_beside_bulk(run: Run) -> None:
    megabytes = 50 if run.quick else 500
    async with kernel_pair() as (ada, ben, _):
        paths = await meet(ada, ben)
        await ada.value(call("peer.array", megabytes))
        way: dict[str, list[float]] = {"with": [], "against": []}
        moved, seconds, began = 0, 0.0, time.monotonic()
        while moved < (megabytes if run.quick else 2000) or len(way["with"]) < 100:
            name = f"bulk {moved}"
            times, _ = await asyncio.gather(
                ada.value(call("peer.send_and_chat", name)), ben.value(call("peer.chat_until", name))
            )
            moved, seconds = moved + megabytes, seconds + times["finished"] - times["began"]
            way["with"] += [1000 * late for late in await ben.value("peer.late_by()")]
            way["against"] += [1000 * late for late in await ada.value("peer.late_by()")]
            await ben.run(call("peer.forget", name))
            if time.monotonic() - began > 120:
                break
        note = f"{moved / 1000:g} GB at {moved / seconds:.0f} MB/s over {paths[0]}, a message every 20 ms each way"
        for which, late in way.items():
            run.add(f"p50, {which} the bulk", "ms", late, how=MEDIAN, note=note)
            run.add(f"p99, {which} the bulk", "ms", late, how="p99")
            run.add(f"slowest, {which} the bulk", "ms", late, how="worst")
