"""The bench judges rightly, loses nothing, and its references do what they are there for. Speed is not tested."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench import __main__ as bench
from tests.bench import machine
from tests.bench.registry import ROWS, Figure, Goal, Measure, Row, Run, Unavailable, pick
from tests.bench.report import Outcome, missed, table, write_json
from tests.bench.rows import ORDER, bulk, in_order
from tests.bench.rows.channels import bare_channel
from tests.bench.rows.small import _handshake_ms
from tests.bench.sides import ROOT, SideError, call, scripts


def fail(why: str) -> None:
    raise OSError(why)


def figures(**values: float | None) -> dict[str, Figure]:
    return {name: Figure(name, "MB/s", value) for name, value in values.items()}


# ── arithmetic ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("goal", "reached", "met"),
    [
        (Goal("ours", least=10, against="theirs"), 10.0, True),
        (Goal("ours", least=10.1, against="theirs"), 10.0, False),
        (Goal("ours", least=8), 50.0, True),
        (Goal("ours", most=50), 50.0, True),
        (Goal("ours", most=49.9), 50.0, False),
        (Goal("ours", least=1, against="nobody"), None, None),
        (Goal("missing", least=1), None, None),
        (Goal("failed", least=1), None, None),
        (Goal("ours", least=1, against="failed"), None, None),
        (Goal("ours", least=1, against="nothing"), None, None),
    ],
)
def test_a_goal_is_met_missed_or_not_judged(goal: Goal, reached: float | None, met: bool | None) -> None:
    verdict = goal.judge(figures(ours=50.0, theirs=5.0, failed=None, nothing=0.0))
    assert (verdict.reached, verdict.met) == (reached, met)


@pytest.mark.parametrize(
    ("how", "unit", "value"),
    [
        ("best", "MB/s", 9.0), ("worst", "MB/s", 1.0), ("best", "ms", 1.0), ("worst", "MiB", 9.0),
        ("median", "ms", 4.0), ("first", "ms", 4.0), ("p99", "ms", 9.0), ("p50", "ms", 4.0),
    ],
)  # fmt: skip
def test_which_sample_counts_depends_on_the_unit(how: str, unit: str, value: float) -> None:
    assert pick([4.0, 9.0, 1.0], unit, how) == value


def test_no_sample_is_no_figure() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        pick([], "ms", "best")


def test_p99_of_a_hundred_is_not_their_median() -> None:
    assert pick([1.0] * 99 + [70.0], "ms", "p99") == 70.0


# ── rows that fail ────────────────────────────────────────────────────────────────────────────────────
def measured(measure: Measure, *goals: Goal, limit_s: float = 5.0) -> Outcome:
    return asyncio.run(bench.measure(Row("row", "some work", goals, limit_s, measure), quick=True))


def test_a_failed_reference_says_why_and_the_rest_is_measured() -> None:
    async def measure(run: Run) -> None:
        with run.attempt("theirs", "MB/s"):
            fail("the port is taken")
        run.add("ours", "MB/s", [1.0, 2.0])

    outcome = measured(measure, Goal("ours", least=1, against="theirs"))
    assert outcome.failed
    assert [figure.value for figure in outcome.figures] == [None, 2.0]
    assert "the port is taken" in table([outcome])
    assert "not judged" in table([outcome])


def test_what_this_machine_lacks_is_said_aloud_and_is_no_failure() -> None:
    async def measure(run: Run) -> None:
        with run.attempt("theirs", "MB/s"):
            raise Unavailable("wrtc is not installed")
        raise Unavailable("a netlab needs root")

    outcome = measured(measure)
    assert not outcome.failed
    assert "**** NOT MEASURED HERE: a netlab needs root ****" in table([outcome])
    assert "wrtc is not installed" in table([outcome])


def test_a_row_that_breaks_off_keeps_what_it_had() -> None:
    async def measure(run: Run) -> None:
        run.add("ours", "MB/s", [3.0])
        raise RuntimeError("broken")

    outcome = measured(measure, Goal("ours", least=4))
    assert outcome.failed
    assert outcome.problem == "RuntimeError: broken"
    assert outcome.figures[0].value == 3.0
    assert missed([outcome]) == ["ours ≥ 4 "]


def test_a_row_is_given_up_when_its_time_is_over() -> None:
    async def measure(_: Run) -> None:
        await asyncio.sleep(60)

    began = time.monotonic()
    assert "given up" in measured(measure, limit_s=0.05).problem
    assert time.monotonic() - began < 5


# ── output ────────────────────────────────────────────────────────────────────────────────────────────
def test_every_row_is_in_the_table_once_and_every_goal_names_a_unit_or_a_reference() -> None:
    assert [row.key for row in in_order()] == list(ORDER)
    assert set(ORDER) == set(ROWS)
    for row in in_order():
        for goal in row.goals:
            assert (goal.least is None) != (goal.most is None)
            assert bool(goal.unit) != bool(goal.against), goal


def test_list_names_all_rows_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(key in out for key in ORDER)
    assert bench.main(["--list", "--only", "webrtc*"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "] == [
        "webrtc-lossy",
        "webrtc-clean",
    ]


def test_a_row_that_does_not_exist_is_an_error_that_names_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--only", "nothing"]) == 2
    assert "webrtc-lossy" in capsys.readouterr().err


def test_the_json_has_the_machine_and_all_samples(tmp_path: Path) -> None:
    async def measure(run: Run) -> None:
        run.add("ours", "MB/s", [1.0, 2.0], note="over tcp")

    write_json(
        tmp_path / "b.json", machine.facts(), [measured(measure, Goal("ours", least=2, unit="MB/s"))], quick=True
    )
    read: dict[str, Any] = json.loads((tmp_path / "b.json").read_text())
    assert read["quick"] is True
    assert read["machine"]["cores"] >= 1
    assert read["machine"]["versions"]["aiortc"]
    (row,) = read["rows"]
    assert (
        row["figures"][0] | {"samples": [1.0, 2.0], "value": 2.0, "unit": "MB/s", "note": "over tcp"}
        == row["figures"][0]
    )
    assert row["goals"] == [{"goal": "ours ≥ 2 MB/s", "reached": 2.0, "met": True}]


@pytest.mark.parametrize(("check", "code"), [([], 0), (["--check"], 1)])
def test_a_missed_goal_is_an_error_only_when_asked_for(
    check: list[str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def measure(run: Run) -> None:
        run.add("ours", "MB/s", [1.0])

    row = Row("slow", "slow work", (Goal("ours", least=2, unit="MB/s"),), 5, measure)
    monkeypatch.setattr(bench, "in_order", lambda: [row])
    assert bench.main(["--json", str(tmp_path / "b.json"), *check]) == code


# ── what it measures with ─────────────────────────────────────────────────────────────────────────────
def test_a_handshake_is_carried_to_its_end() -> None:
    assert 0 < _handshake_ms(1) < 1000


def test_peak_memory_sees_what_a_process_took_and_gave_back() -> None:
    async def peak() -> float:
        async with scripts("greedy", setup="import mmap") as (side,):
            with machine.PeakMemory(greedy=side.pid) as memory:
                code = "m = mmap.mmap(-1, 50 << 20, flags=34); m.write(bytes(50 << 20)); m.close()"
                for _ in range(5):
                    await side.run(code)
                    await asyncio.sleep(machine.PeakMemory.INTERVAL_S)
                await side.run(code.replace("m.close()", "import time; time.sleep(0.2); m.close()"))
            return memory.over_idle_mib("greedy")

    assert 50 <= asyncio.run(peak()) <= 130


def test_a_side_tells_what_went_wrong_in_it() -> None:
    async def fail() -> None:
        async with scripts("one", setup="x = 1") as (side,):
            assert await side.value("x + 1") == 2
            with pytest.raises(SideError, match=r"^ZeroDivisionError"):
                await side.run("x / 0")
            with pytest.raises(SideError, match="ended"):
                await side.run("import os; os._exit(3)")

    asyncio.run(fail())


def test_calls_carry_their_arguments() -> None:
    assert call("f", "a'b", 2, key=[None]) == """f("a'b", 2, key=[None])"""


@pytest.mark.slow
def test_the_bare_loop_decrypts_what_it_encrypted() -> None:
    for memory in ("reused", "fresh", "huge"):
        assert asyncio.run(bulk.tcp_loop(4 << 20, memory)) > 0


@pytest.mark.slow
def test_a_bare_channel_carries_bytes() -> None:
    assert asyncio.run(bare_channel("aiortc", 1.0)) > 0


@pytest.mark.slow
def test_the_command_measures_prints_and_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", "relay", "--only", "import"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "b.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    read = json.loads((tmp_path / "b.json").read_text())
    assert [row["key"] for row in read["rows"]] == ["relay", "import"]
    assert all(figure["value"] > 0 for row in read["rows"] for figure in row["figures"] if figure["unit"] != "MiB")
    assert "bare tornado relay" in done.stdout


def test_files_are_put_where_they_are_said_to_be_and_removed() -> None:
    with machine.room_for_files(1000) as (folder, place):
        assert place == "tmpfs" or place.startswith("disk")
        (folder / "x").write_bytes(hashlib.sha256(b"").digest())
    assert not folder.exists()
    with pytest.raises(Unavailable, match="no room"), machine.room_for_files(1 << 60):
        pass
