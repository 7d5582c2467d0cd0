"""Peers whose lines to the hub lead through forwarders, and an oracle for what a fault may leave behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from p2pnb.engine.thread import engine
from p2pnb.room import Room
from tests.integration.faults.forwarder import Forwarder
from tests.integration.faults.ledger import Ledger
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import Errors, Meeting, leftovers, on_engine, until


def held() -> dict[str, int]:
    """Count what this process holds that a fault could leave behind."""
    gc.collect()
    loop: Any = engine().loop
    pools = ("p2pnb-worker", "asyncio_")  # filled up to their bound as they are needed
    return {
        "threads": sum(not thread.name.startswith(pools) for thread in threading.enumerate()),
        "descriptors": psutil.Process().num_fds(),
        "tasks": on_engine(lambda: len(asyncio.all_tasks(loop))),
        "timers": on_engine(lambda: sum(not handle.cancelled() for handle in loop._scheduled)),
    }


def running() -> list[str]:
    """Name the tasks there are and where each waits: what a failed comparison is looked up in."""
    loop: Any = engine().loop
    return on_engine(lambda: [f"{task.get_name()}: {task.get_stack(limit=1)}" for task in asyncio.all_tasks(loop)])


# heartbeats of aiohttp's sockets come and go; what a test leaves per fault shows beside them
SLACK = {"threads": 0, "descriptors": 3, "tasks": 0, "timers": 8}


@pytest.fixture(autouse=True)
def leaks() -> Iterator[None]:
    """No thread, descriptor, task or timer outlives a test's rooms, hub and forwarders."""
    before = held()
    yield
    try:
        until(lambda: all(now <= before[what] + SLACK[what] for what, now in held().items()), "back to before", 10)
    except AssertionError as error:
        raise AssertionError(f"{before} before, {held()} now; tasks: {running()}") from error


class LinedMeeting(Meeting):
    """A meeting in which everybody's line to the hub is a forwarder of its own, under `lines`."""

    def __init__(self, hub: HostileHub, folder: Path, open_line: Callable[[], Forwarder]) -> None:
        super().__init__(hub, folder)
        self.lines: dict[str, Forwarder] = {}
        self._open_line = open_line

    def create(self, name: str = "Ada", **settings: Any) -> Room:
        line = self.lines[name] = self._open_line()
        direct, self.hub = self.hub, _Behind(self.hub, line)  # type: ignore[assignment]
        try:
            return super().create(name, **settings)
        finally:
            self.hub = direct

    def join(self, name: str, invite: Any = None, **settings: Any) -> Room:
        line = self.lines[name] = self._open_line()
        invite = invite or self._invite
        return super().join(name, invite.with_hub(line.address(self.hub.url)), **settings)


class _Behind:
    """The hub as it is seen through a forwarder."""

    def __init__(self, hub: HostileHub, line: Forwarder) -> None:
        self.hub = line.address(hub.hub)


@pytest.fixture
def lined(hub: HostileHub, tmp_path: Path, nonces: None, log: Errors) -> Iterator[LinedMeeting]:
    with ExitStack() as stack:
        meeting = LinedMeeting(hub, tmp_path / "received", lambda: stack.enter_context(Forwarder(hub.port)))
        yield meeting
        for line in meeting.lines.values():
            line.let_go()
        meeting.end()
        until(lambda: not leftovers(meeting.folder), "no unfinished files are left", 5)


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[..., Ledger]:
    return lambda *rooms: Ledger(tmp_path / "sent", *rooms)
