"""The lab does to packets what it says, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.netlab import Netlab, NetlabUnavailable, compiler
from tests.netlab import lab as lab_module

PROBE = Path(__file__).with_name("probe.py")


def until(condition: Callable[[], bool], what: str, timeout: float = 5.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def opened(**settings: Any) -> Iterator[Netlab]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(Netlab(**settings))
        except NetlabUnavailable as error:
            pytest.skip(f"NO NETLAB HERE: {error}")
        yield made


def probe(lab: Netlab, end: str, *arguments: object) -> Any:
    return json.loads(lab.run(end, [sys.executable, PROBE, *map(str, arguments)]).stdout)


def start_probe(lab: Netlab, end: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROBE), *map(str, arguments)]
    process: subprocess.Popen[str] = lab.popen(end, command, stdout=subprocess.PIPE, text=True)
    if arguments[0] in {"echo", "sink"}:
        assert process.stdout is not None
        assert process.stdout.readline() == '"ready"\n'
    return process


def end_of(process: subprocess.Popen[str]) -> Any:
    out, _ = process.communicate(timeout=20)
    return json.loads(out)


@contextlib.contextmanager
def echoing(lab: Netlab, end: str = "right", address: str = "") -> Iterator[str]:
    place = address or lab.addresses[end]
    process = start_probe(lab, end, "echo", place)
    try:
        yield place
    finally:
        process.kill()
        process.communicate()


def round_trips(lab: Netlab, address: str, count: int = 3, gap_s: float = 0.0) -> list[float]:
    """Milliseconds of those that were answered in time."""
    return [trip for trip in probe(lab, "left", "pings", address, count, gap_s) if trip is not None]


def reaches(lab: Netlab, address: str) -> bool:
    return bool(round_trips(lab, address))


@pytest.mark.parametrize("delay_ms", [0, 5, 25])
def test_a_round_trip_takes_twice_the_delay(delay_ms: int) -> None:
    with opened(delay_ms=delay_ms) as lab, echoing(lab) as address:
        trips = round_trips(lab, address, 30, 0.002)
        # the quickest of many: a busy machine makes any single one late, and none early
        assert 2 * delay_ms <= min(trips) <= 2 * delay_ms + 3


def test_loss_is_random_per_direction_and_as_large_as_asked_for() -> None:
    with opened(loss=0.05) as lab:
        lab.shape("right-to-left", loss=0.0)
        count = 20_000
        probe(lab, "left", "flood", lab.addresses["right"], count, 100)
        until(lambda: (c := lab.counts("left-to-right")).delivered + c.lost == c.packets, "all came or were lost")
        there = lab.counts("left-to-right")
        assert there.packets == count
        assert 0.04 <= there.lost / count <= 0.06
        assert lab.counts("right-to-left").lost == 0


def test_100_mbit_both_ways_at_once_are_reached_not_exceeded_and_cost_little() -> None:
    tried: list[tuple[float, ...]] = []
    with opened(delay_ms=2, rate_mbit=100) as lab:
        while len(tried) < 4:  # a busy machine doesn't reach it every time
            *rates, share = _both_ways(lab, seconds=1.5)
            assert max(rates) <= 101
            tried.append((*rates, share))
            if min(rates) >= 80 and share <= 0.5:
                return
    raise AssertionError(f"Mbit/s there and back, share of a core: {tried}")


def _both_ways(lab: Netlab, seconds: float) -> tuple[float, float, float]:
    sinks = [start_probe(lab, end, "sink", lab.addresses[end], seconds) for end in ("left", "right")]
    before, began = psutil.Process(lab.pid).cpu_times(), time.monotonic()
    ways = (("left", "right"), ("right", "left"))
    sources = [start_probe(lab, a, "pour", lab.addresses[b], seconds + 0.5) for a, b in ways]
    one, other = (end_of(sink) * 8 / 1e6 for sink in sinks)
    after, took = psutil.Process(lab.pid).cpu_times(), time.monotonic() - began
    for source in sources:
        end_of(source)
    return one, other, (after.user + after.system - before.user - before.system) / took


def test_what_does_not_fit_into_the_queue_is_dropped_and_what_does_waits_for_the_line() -> None:
    with opened(rate_mbit=10, queue_kb=125) as lab, echoing(lab) as address:  # 125 KiB are 102 ms of this line
        flood = start_probe(lab, "left", "flood", lab.addresses["right"], 2000, 1000)
        until(lambda: lab.counts("left-to-right").overflowed > 0, "the queue is full")
        trips = round_trips(lab, address, 5)
        end_of(flood)
        assert all(trip <= 160 for trip in trips)
        assert lab.counts("left-to-right").overflowed >= 1000


def test_a_cut_of_one_direction_leaves_the_other_and_restore_takes_it_back() -> None:
    with opened() as lab, echoing(lab) as address:
        assert reaches(lab, address)
        lab.cut("right-to-left")
        heard = lab.counts("left-to-right").delivered
        assert not reaches(lab, address)
        assert lab.counts("left-to-right").delivered == heard + 3
        lab.restore()
        assert reaches(lab, address)
        lab.cut("left")
        assert not reaches(lab, address)


def test_udp_can_be_taken_away_alone() -> None:
    with opened() as lab, echoing(lab) as address:
        lab.cut(only="udp")
        sink = start_probe(lab, "right", "sink", address, 0.8)
        start_probe(lab, "left", "pour", address, 1.2)
        assert end_of(sink) > 0
        assert not reaches(lab, address)
        lab.cut(only="tcp")
        assert reaches(lab, address)


def test_what_is_under_way_is_lost_with_a_cut() -> None:
    with opened(delay_ms=400) as lab:
        probe(lab, "left", "flood", lab.addresses["right"], 10, 100)
        lab.cut("left-to-right")
        until(lambda: lab.counts("left-to-right").dropped == 10, "they are dropped, not delivered")
        assert lab.counts("left-to-right").delivered == 0


def test_a_new_address_works_and_the_former_one_is_gone() -> None:
    with opened() as lab:
        former = lab.addresses["right"]
        address = lab.readdress("right")
        assert address == lab.addresses["right"] != former
        with echoing(lab, address=address):
            assert reaches(lab, address)
            assert not reaches(lab, former)


def test_the_shape_changes_while_packets_flow() -> None:
    with opened(delay_ms=30) as lab, echoing(lab) as address:
        assert min(round_trips(lab, address)) >= 60
        lab.shape(delay_ms=5)
        assert 10 <= min(round_trips(lab, address, 10)) <= 40


def test_three_ends_have_lines_of_their_own() -> None:
    with opened(ends=("left", "right", "hub")) as lab, echoing(lab, "right") as right, echoing(lab, "hub") as hub:
        lab.cut("left-to-right")
        assert not reaches(lab, right)
        given = lab.counts("left-to-right").packets
        assert reaches(lab, hub)
        assert lab.counts("left-to-right").packets == given


def test_ends_see_nothing_of_the_machine_but_the_line() -> None:
    with opened() as lab:
        names = lab.run("left", [sys.executable, "-c", "import socket; print(socket.if_nameindex())"]).stdout
        assert eval(names) == [(1, "lo"), (2, "line0")]


def test_leaving_ends_what_runs_at_the_ends() -> None:
    with opened() as lab:
        sleeper = lab.popen("left", ["sh", "-c", "echo inside; exec sleep 600"], stdout=subprocess.PIPE, text=True)
        assert sleeper.stdout is not None and sleeper.stdout.readline() == "inside\n"
        pid = lab.pid
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not psutil.pid_exists(pid)


def test_nobody_enters_a_lab_that_ends_and_stays() -> None:
    for _ in range(20):
        with opened() as lab:
            late = [lab.popen("left", ["sleep", "600"], stderr=subprocess.DEVNULL) for _ in range(4)]
        for process in late:  # killed inside, or turned away at the door
            assert process.wait(5) in {-signal.SIGKILL, 126}


def test_a_crashed_owner_leaves_nothing_behind() -> None:
    with opened():
        pass  # there can be one
    code = """
import subprocess
from tests.netlab import Netlab
with Netlab() as lab:
    sleeper = lab.popen("right", ["sleep", "600"], stdout=subprocess.DEVNULL)
    print(lab.pid, sleeper.pid, flush=True)
    sleeper.wait()
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 2 and all(map(psutil.pid_exists, pids))
    owner.kill()
    owner.communicate()
    until(lambda: not any(_alive(pid) for pid in pids), "forwarder and inhabitants have ended")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NetlabUnavailable, match="no C compiler"), Netlab():
        pass


def test_a_source_that_does_not_compile_leaves_no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not _has_compiler():
        pytest.skip("NO C COMPILER HERE")
    broken = tmp_path / "line.c"
    broken.write_text("int main(void) { return nothing; }")
    monkeypatch.setattr(compiler, "SOURCE", broken)
    with pytest.raises(compiler.CannotCompile, match="nothing"):
        compiler.compiled_line(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_privilege_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not _has_compiler():
        pytest.skip("NO C COMPILER HERE")
    program = compiler.compiled_line(Path("/tmp") / f"p2pnb-netlab-test-{os.getpid()}")
    try:
        if os.geteuid() == 0:  # as nobody, who may read the program but makes no namespaces
            program.parent.chmod(0o755)
            plain = subprocess.Popen
            monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: plain(*a, **k, user=65534, group=65534))
        else:
            with contextlib.suppress(NetlabUnavailable), Netlab():
                pytest.skip("this user may make network namespaces")
        monkeypatch.setattr(lab_module, "compiled_line", lambda: program)
        with pytest.raises(NetlabUnavailable, match=r"root.*Operation not permitted"), Netlab():
            pass
    finally:
        program.unlink()
        program.parent.rmdir()


@pytest.mark.parametrize("wrong", [{"loss": 1.5}, {"delay_ms": -1}, {"ends": ("one",)}, {"ends": ("a b", "c")}])
def test_shapes_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"lab|line"):
        Netlab(**wrong)


def _has_compiler() -> bool:
    try:
        compiler.compiled_line()
    except compiler.CannotCompile:
        return False
    return True
