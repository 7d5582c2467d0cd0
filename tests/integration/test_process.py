"""What a process may suffer: interrupts, forks, its end; and that nothing is left behind (F33, F34)."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

import p2pnb
from p2pnb.engine.thread import engine
from p2pnb.errors import RoomClosedError, WaitTimeoutError
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import Meeting, link_of, on_engine, still_lives, until


# ── interrupts ──────────────────────────────────────────────────────────────────────────────────────
def _interrupted(call: Any) -> None:
    """Press Ctrl-C while `call` waits in the main thread."""
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            call()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupt_of_a_wait_leaves_the_room_usable(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    _interrupted(lambda: ada.receive("never", 10))
    transfer = ada.send([1], "item")
    _interrupted(lambda: transfer.result(10))
    still_lives(ada, ben)
    until(lambda: ben.offers)[0].accept()
    assert transfer.result(5).state == "done"
    assert ben.receive("item", 1) == [1]


def test_interrupt_of_create_and_join_leaves_nothing(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = meeting.create("Ada")
    tasks = on_engine(lambda: len(asyncio.all_tasks(engine().loop)))
    hub.silent = True
    _interrupted(lambda: meeting.join("Ben"))
    _interrupted(lambda: meeting.create("Carl"))
    hub.silent = False
    until(lambda: on_engine(lambda: len(asyncio.all_tasks(engine().loop))) <= tasks, "no task is left", 5)
    until(lambda: not ada.peers)
    still_lives(ada, meeting.join("Ben"))


# ── forks ───────────────────────────────────────────────────────────────────────────────────────────
def _in_child(work: Any) -> str:
    """Fork, run `work` in the child and return what it says."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            os.write(write, work().encode())
            code = 0
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            os.write(write, f"raised {error!r}".encode())
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said
    return said


def test_forked_child_can_not_use_the_room_and_the_parent_is_unharmed(meeting: Meeting, tmp_path: Path) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    link = link_of(ada, "Ben")

    def child() -> str:
        refused = []
        for call in (
            lambda: ada.chat("from the child"), lambda: ada.send(1), lambda: ada.send_file(tmp_path),
            lambda: ada.receive(timeout=1), ada.unlock,
        ):  # fmt: skip
            try:
                call()
            except RoomClosedError:
                refused.append("refused")
        ada.leave()
        return f"{ada.state} {len(refused)} {link.session} {link._established} {len(link._paths)} {link.state}"

    assert _in_child(child) == "closed 5 None None 0 gone"
    assert link.session is not None
    still_lives(ada, ben)


def test_forked_child_holds_no_keys(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    held = [path.cipher for room, name in ((ada, "Ben"), (ben, "Ada")) for path in link_of(room, name)._paths.values()]
    assert held

    def child() -> str:
        return " ".join(str(cipher._send is None and cipher._receive is None) for cipher in held if cipher is not None)

    assert _in_child(child) == " ".join(["True"] * len(held))
    still_lives(ada, ben)


def test_forked_child_holds_no_sockets(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")

    def child() -> str:
        mine = [c for c in psutil.Process().net_connections("tcp") if c.raddr and c.raddr.port == hub.port]
        return str(len(mine))

    assert _in_child(child) == "0"
    still_lives(ada, ben)


def test_forked_child_can_open_rooms_of_its_own(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    link = ada.invite.link

    def child() -> str:
        room = p2pnb.join(link, "Child", relay="only")
        said = room.chat("I have an engine of my own")
        names = sorted(room.peers)
        room.leave()
        return f"{names} {said.mine}"

    assert _in_child(child) == "['Ada', 'Ben'] True"
    still_lives(ada, ben)


def _double(number: int) -> int:
    return 2 * number


def test_multiprocessing_pool_beside_a_room(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_double, range(20)) == [2 * number for number in range(20)]
        still_lives(ada, ben)
    still_lives(ada, ben)


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────
_SCRIPT = """
import sys, p2pnb
room = p2pnb.join(sys.stdin.readline().strip(), "Ben", relay=sys.argv[1], folder=sys.argv[2])
assert "Ada" in room.peers, room.peers
transfer = room.send(b"x" * 5_000_000, "item") if "send" in sys.argv else None
print(room.chat("hello").text)
if "raise" in sys.argv:
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how", ["end", "raise", "send"])
def test_script_that_just_ends_says_goodbye_and_nothing_else(meeting: Meeting, tmp_path: Path, how: str) -> None:
    ada = meeting.create("Ada", accept=False)
    said: list[str] = []
    ada.on("message", lambda message: said.append(message.text))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "default", "-X", "faulthandler", "-c", _SCRIPT, "only", str(tmp_path / "ben"), how],
        input=f"{ada.invite.link}\n", capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (3 if how == "raise" else 0, "hello\n", "")
    assert time.monotonic() - began < 8
    until(lambda: said == ["hello"], "the last words arrive")
    until(lambda: not ada.peers, "it is seen leaving", 1)


# ── leaks ───────────────────────────────────────────────────────────────────────────────────────────
def test_thirty_rooms_leave_nothing_behind(meeting: Meeting) -> None:
    """Threads, descriptors, tasks and timers after thirty rooms are what they were after three."""
    process = psutil.Process()
    loop: Any = engine().loop

    def cycle() -> None:
        ada = meeting.create("Ada")
        ben = meeting.join("Ben")
        until(lambda: ada.peers and ben.peers)
        ada.send(b"x" * 20_000, "item").result(5)
        ben.leave()
        ada.leave()
        meeting.rooms.clear()

    def held() -> dict[str, int]:
        gc.collect()
        return {
            "threads": threading.active_count(),
            "descriptors": process.num_fds(),
            "tasks": on_engine(lambda: len(asyncio.all_tasks(loop))),
            "timers": on_engine(lambda: sum(not handle.cancelled() for handle in loop._scheduled)),
            "closers": len(engine()._closers),
            "members": sum(type(thing).__name__ == "Member" for thing in gc.get_objects()),
            "links": sum(type(thing).__name__ == "Link" for thing in gc.get_objects()),
        }

    for _ in range(3):
        cycle()
    before = held()
    for _ in range(30):
        cycle()
    # heartbeats of aiohttp's sockets come and go; sixty members that left something would show
    slack = {"descriptors": 2, "timers": 8}
    until(lambda: all(now <= before[what] + slack.get(what, 0) for what, now in held().items()),
          f"back to {before}, now {held()}", 5)  # fmt: skip


def test_failed_joins_leave_nothing_behind(hub: HostileHub, meeting: Meeting) -> None:
    meeting.create("Ada")
    loop: Any = engine().loop

    def held() -> tuple[int, int, int]:
        return len(asyncio.all_tasks(loop)), len(engine()._closers), psutil.Process().num_fds()

    def fail() -> None:
        with pytest.raises(p2pnb.errors.P2PError):
            meeting.join("Eve", meeting.wrong_invite())
        with pytest.raises(p2pnb.errors.HubError):
            meeting.join("Eve", p2pnb.Invite("zzzzzzzz", ("no", "room"), hub.url))

    fail()
    before = on_engine(held)
    for _ in range(5):
        fail()
    until(lambda: on_engine(held) <= before, f"back to {before}", 3)


def test_waiting_with_a_timeout_is_on_time(meeting: Meeting) -> None:
    ada, _ = meeting.people("Ada", "Ben", accept=False)
    for call in (lambda: ada.receive("x", 0.1), lambda: ada.send(1).result(0.1), lambda: ada.receive(timeout=0)):
        began = time.monotonic()
        with pytest.raises(WaitTimeoutError):
            call()
        assert time.monotonic() - began < 0.5
