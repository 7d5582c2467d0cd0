"""What runs in the measured processes: one room (or several), and a stop-watch.

Times are `time.perf_counter()`: on one machine all processes read the same clock, so a moment here can be compared
with a moment there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import p2pnb

if TYPE_CHECKING:
    from p2pnb import InboxItem, Message, Room, Transfer

__all__ = [
    "array", "arrived", "chat_until", "create", "crowd", "crowd_heard", "crowd_leaves", "crowd_misses",
    "crowd_says", "crowd_sees", "direct", "fingerprint", "forget", "frame", "join", "join_first", "late_by",
    "leave", "pid", "read_bytes", "round_trips", "send", "send_and_chat", "send_file", "send_within", "state",
]  # fmt: skip

WAIT_S: Final = 600.0
_tick = threading.Event()  # never set


class _Here:
    """What this process has. One room is enough for all rows but the crowd."""

    room: Room
    arrivals: dict[str, float]
    late: list[float]  # how old chat was when it came, in seconds
    values: dict[str, Any]


_here = _Here()
_here.arrivals, _here.late, _here.values = {}, [], {}
_came = threading.Condition()


def pid() -> int:
    """Return the process id."""
    return os.getpid()


# ── rooms ─────────────────────────────────────────────────────────────────────────────────────────────
def create(**settings: Any) -> str:
    """Open a room that takes everything, echoes "ping" objects and answers "hello"; returns the link."""
    _listen(p2pnb.create(**_settings("Ada", settings)))
    return _here.room.invite.link


def join(link: str, **settings: Any) -> None:
    """Join it."""
    _listen(p2pnb.join(link, **_settings("Ben", settings)))


def join_first(link: str, **settings: Any) -> dict[str, float]:
    """Join, say hello and wait for the answer; seconds since the call of join, and the moment of that call."""
    answered = threading.Event()
    began = time.perf_counter()
    room = p2pnb.join(link, **_settings("Ben", settings))
    joined = time.perf_counter() - began
    room.on("message", lambda m: answered.set() if not m.mine else None)
    room.chat("hello")
    if not answered.wait(30):
        raise TimeoutError("nobody answered")
    took = time.perf_counter() - began
    _listen(room)
    return {"began": began, "joined": joined, "answered": took}


def _settings(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "accept": True, **settings}


def leave() -> None:
    """Leave the room."""
    _here.room.leave()


def _listen(room: Room) -> None:
    _here.room = room
    _here.arrivals.clear()

    def thing(item: InboxItem) -> None:
        now = time.perf_counter()
        with _came:
            _here.arrivals[item.name] = now
            _came.notify_all()
        if item.name == "ping":
            room.send(item.value, "pong")

    def message(said: Message) -> None:
        now = time.perf_counter()
        if said.mine:
            return
        if said.text == "hello":
            with _came:
                _here.arrivals["hello"] = now
            room.chat("hello yourself")
        elif said.text.startswith("at "):
            _here.late.append(now - float(said.text[3:]))

    room.on("object", thing)
    room.on("file", thing)
    room.on("message", message)


def direct(timeout: float = 20.0, count: int = 1, path: str = "") -> list[str]:
    """Wait until so many peers are here, none of them over the relay (or all over `path`); returns their paths."""
    until = time.monotonic() + timeout
    room = _here.room
    while True:
        paths = [str(peer.path) for peer in room.peers.values() if peer.state == "here"]
        settled = len(paths) >= count and all(p == path if path else p not in {"relay", "None"} for p in paths)
        if settled or time.monotonic() > until:
            if path and not settled:
                raise TimeoutError(f"not over {path} within {timeout} s, but {paths}")
            return paths
        _tick.wait(0.02)


def state() -> dict[str, Any]:
    """Return what the peers' paths look like now."""
    return {
        peer.name: {name: getattr(peer, name, None) for name in ("path", "paths", "lanes", "engine", "rtt")}
        for peer in _here.room.peers.values()
    }


# ── values ────────────────────────────────────────────────────────────────────────────────────────────
def frame(megabytes: int) -> int:
    """Make a DataFrame of numbers and times under the name "value"; returns its size in bytes."""
    import numpy as np
    import pandas as pd

    rows = megabytes * 1_000_000 // (12 * 8)
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {f"f{i}": random.random(rows) for i in range(8)}
    columns |= {f"i{i}": random.integers(0, 1 << 40, rows) for i in range(3)}
    columns["t"] = pd.to_datetime(random.integers(0, 1 << 50, rows), unit="us")
    _here.values["value"] = made = pd.DataFrame(columns)
    return int(made.memory_usage(index=False).sum())


def array(megabytes: int) -> int:
    """Make an array of random numbers under the name "value"; returns its size in bytes."""
    import numpy as np

    _here.values["value"] = made = np.random.default_rng(0).random(megabytes * 125_000)
    return int(made.nbytes)


def fingerprint(name: str = "") -> str:
    """Return a digest of the value here, or of the received one of this name: equal if and only if they are."""
    import numpy as np

    value = _here.room.inbox[name] if name else _here.values["value"]
    digest = hashlib.sha256(type(value).__name__.encode())
    if isinstance(value, Path):
        with value.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    columns = {"": value} if isinstance(value, np.ndarray) else {c: value[c].to_numpy() for c in value.columns}
    for label, column in columns.items():
        digest.update(f"{label} {column.dtype} {column.shape}".encode())
        digest.update(np.ascontiguousarray(column).view(np.uint8).data)
    return digest.hexdigest()


def forget(name: str) -> None:
    """Free what was received under this name."""
    _here.arrivals.pop(name, None)
    _here.room.inbox.discard(name)


# ── stop-watches ──────────────────────────────────────────────────────────────────────────────────────
def send(name: str, to: list[str] | None = None) -> dict[str, float]:
    """Send the value; the moments of the call and of the transfer's result."""
    began = time.perf_counter()
    transfer = _here.room.send(_here.values["value"], name, to)
    transfer.result(WAIT_S)
    return {"began": began, "finished": time.perf_counter()}


def send_file(path: str) -> dict[str, float]:
    """Send a file to everybody; the moments of the call and of the transfer's result."""
    began = time.perf_counter()
    _here.room.send_file(path).result(WAIT_S)
    return {"began": began, "finished": time.perf_counter()}


def read_bytes() -> int:
    """Return what this process has read so far by read and pread: files, but not what sockets received."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


def arrived(name: str, timeout: float = WAIT_S) -> float:
    """Wait for something of this name; returns the moment at which it was in the inbox."""
    with _came:
        if not _came.wait_for(lambda: name in _here.arrivals, timeout):
            raise TimeoutError(f"{name} has not come within {timeout} s")
    return _here.arrivals[name]


def send_within(seconds: float) -> dict[str, Any]:
    """Send the value for at most so long: how many bytes had landed when, and whether that was all."""
    transfer: Transfer = _here.room.send(_here.values["value"], "bulk")
    began, size = time.perf_counter(), transfer.size_bytes
    landed = [(0.0, 0.0)]
    lanes: dict[str, Any] = {}
    while transfer.state in {"offered", "moving", "paused"} and landed[-1][0] < seconds:
        _tick.wait(0.1)
        landed.append((time.perf_counter() - began, transfer.progress * size))
        lanes = state()
    if transfer.error is not None:
        raise transfer.error
    whole = transfer.state == "done"
    if not whole:
        transfer.cancel()
    return {"size": size, "landed": landed, "whole": whole, "peers": lanes}


def round_trips(count: int) -> list[float]:
    """Seconds for an object of 1 kB to the other side and one of 1 kB back, so often."""
    value, times = b"x" * 1000, []
    for _ in range(count):
        began = time.perf_counter()
        _here.room.send(value, "ping")
        _here.room.receive("pong", timeout=30)
        times.append(time.perf_counter() - began)
        _here.room.inbox.discard("pong")
    return times


def chat_until(name: str, every_s: float = 0.02, timeout: float = WAIT_S) -> int:
    """Say the time to everybody until something of this name has been sent or received whole; returns how often."""
    said, until = 0, time.monotonic() + timeout
    while time.monotonic() < until:
        _here.room.chat(f"at {time.perf_counter()!r}")
        said += 1
        with _came:
            if name in _here.arrivals:
                return said
        _tick.wait(every_s)
    raise TimeoutError(f"{name} has not come within {timeout} s")


def send_and_chat(name: str, every_s: float = 0.02) -> dict[str, float]:
    """Send the value, and say the time to everybody until it has landed."""
    began = time.perf_counter()
    transfer = _here.room.send(_here.values["value"], name)
    while transfer.state in {"offered", "moving", "paused"}:
        _here.room.chat(f"at {time.perf_counter()!r}")
        _tick.wait(every_s)
    transfer.result(WAIT_S)
    return {"began": began, "finished": time.perf_counter()}


def late_by() -> list[float]:
    """Return how old each message was when it came, in seconds, and forget that."""
    late, _here.late = _here.late, []
    return late


# ── a crowd ───────────────────────────────────────────────────────────────────────────────────────────
_crowd: list[Any] = []


def crowd(link: str, names: list[str]) -> float:
    """Join with several peers of this process at once; returns the moment of the first call."""
    began = time.perf_counter()
    problems: list[Exception] = []

    def one(name: str) -> None:
        try:
            _crowd.append(p2pnb.join(link, name, accept=True))
        except Exception as error:  # noqa: BLE001 - raised below
            problems.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return began


def crowd_sees(others: int, timeout: float) -> float:
    """Wait until each peer of this process (the creator included) sees so many others; returns the moment."""
    return _crowd_until(lambda room: sum(p.state == "here" for p in room.peers.values()) >= others, timeout)


def crowd_says() -> None:
    """Everybody of this process says their name."""
    for room in _everybody():
        room.chat(f"I am {room.name}")


def crowd_heard(others: int, timeout: float) -> float:
    """Wait until each peer of this process has heard so many different others; returns the moment."""
    with contextlib.suppress(TimeoutError):  # what is missing is counted
        return _crowd_until(lambda room: len({m.text for m in room.messages if not m.mine}) >= others, timeout)
    return time.perf_counter()


def crowd_misses(others: int) -> int:
    """Return how many messages of others the peers of this process lack."""
    return sum(others - len({m.text for m in room.messages if not m.mine}) for room in _everybody())


def crowd_leaves() -> None:
    """Everybody of this process leaves."""
    for room in _everybody():
        room.leave()
    _crowd.clear()


def _everybody() -> list[Room]:
    own = getattr(_here, "room", None)
    return [*_crowd, *([own] if own is not None else [])]


def _crowd_until(good: Any, timeout: float) -> float:
    until = time.monotonic() + timeout
    waiting = _everybody()
    while waiting:
        waiting = [room for room in waiting if not good(room)]
        if waiting and time.monotonic() > until:
            raise TimeoutError(f"{len(waiting)} of {len(_everybody())} peers are not there within {timeout} s")
        _tick.wait(0.01)
    return time.perf_counter()
