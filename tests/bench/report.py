"""The table that people read, and the JSON that programs read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.registry import Figure, Row, Run, Verdict

__all__ = ["Outcome", "missed", "table", "write_json"]

_MARKS: Final = {True: "met", False: "MISSED", None: "not judged"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row after it was measured; `problem` if its measurement broke off, `lacking` if it can't be had here."""

    row: Row
    figures: tuple[Figure, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    problem: str = ""
    lacking: str = ""
    failed: bool = False

    @classmethod
    def of(cls, run: Run, seconds: float, *, problem: str = "", lacking: str = "") -> Outcome:
        """Make it of what a run has."""
        figures, verdicts = tuple(run.figures.values()), tuple(run.verdicts())
        return cls(run.row, figures, verdicts, seconds, problem, lacking, run.failed or bool(problem))


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the table: per row its figures, then its goals with what was reached."""
    lines: list[str] = []
    for outcome in outcomes:
        lines += ["", f"{outcome.row.work}  [{outcome.row.key}, {outcome.seconds:.0f} s]"]
        lines += [f"    {_figure(figure)}" for figure in outcome.figures]
        for verdict, goal in zip(outcome.verdicts, outcome.row.goals, strict=True):
            reached = "–" if verdict.reached is None else f"{verdict.reached:.4g} {'×' if goal.against else goal.unit}"
            lines.append(f"    {'goal: ' + verdict.goal:<62} {reached:>14}   {_MARKS[verdict.met]}")
        if outcome.lacking:
            lines.append(f"    **** NOT MEASURED HERE: {outcome.lacking} ****")
        if outcome.problem:
            lines.append(f"    **** BROKE OFF: {outcome.problem.splitlines()[0]} ****")
    return "\n".join(lines).lstrip("\n")


def _figure(figure: Figure) -> str:
    if figure.value is None:
        why = (figure.problem.strip().splitlines() or [""])[0]
        return f"{figure.name:<46} {'–':>10} {figure.unit:<5} NOT MEASURED: {why[:200]}"
    how = f"{figure.how} of {len(figure.samples)}" if len(figure.samples) > 1 else ""
    notes = "; ".join(text for text in (how, figure.note) if text)
    return f"{figure.name:<46} {_number(figure.value):>10} {figure.unit:<5} {notes}".rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def missed(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the goals that were judged and not met."""
    return [verdict.goal for outcome in outcomes for verdict in outcome.verdicts if verdict.met is False]


def write_json(path: Path, machine: dict[str, Any], outcomes: Iterable[Outcome], *, quick: bool) -> None:
    """Write everything that was measured, raw samples included."""
    rows = [
        {
            "key": outcome.row.key,
            "work": outcome.row.work,
            "seconds": round(outcome.seconds, 1),
            "figures": [asdict(figure) for figure in outcome.figures],
            "goals": [asdict(verdict) for verdict in outcome.verdicts],
            "problem": outcome.problem,
            "lacking": outcome.lacking,
        }
        for outcome in outcomes
    ]
    path.write_text(json.dumps({"machine": machine, "quick": quick, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
