"""Measure p2pnb beside others on this machine; print the table and write JSON.

    make bench                                     everything (about 20 minutes)
    make bench ARGS="--only 'webrtc*' --only relay"  some rows; --list names them
    make bench ARGS="--quick"                      small sizes: shows that it works, proves nothing
    make bench ARGS="--json FILE"                  the JSON goes to FILE (default: bench.json)
    make bench ARGS="--check"                      exit code 1 if a goal is missed, too

The exit code is 1 if a measurement failed (the others are made all the same), 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import json
import sys
import time
import traceback
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tests.bench import machine
from tests.bench.registry import Row, Run, Unavailable
from tests.bench.report import Outcome, missed, table, write_json
from tests.bench.rows import in_order
from tests.bench.sides import ROOT

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    rows = in_order()
    chosen = [row for row in rows if any(fnmatchcase(row.key, pattern) for pattern in options.only or ["*"])]
    if not chosen:
        known = ", ".join(row.key for row in rows)
        print(f"bench: no row is named {' or '.join(options.only)}; there are {known}", file=sys.stderr)
        return 2
    if options.list:
        for row in chosen:
            print(f"{row.key:<18} {row.work}")
            for goal in row.goals:
                print(f"{'':<18}   {goal}")
        return 0
    for package in ("p2pnb", "jupyter_extension/p2pnb_server"):  # as an installation leaves it; a checkout may not be
        compileall.compile_dir(ROOT / package, quiet=1)
    facts = machine.facts()
    print(json.dumps(facts, indent=1), file=sys.stderr)
    outcomes: list[Outcome] = []
    try:
        for row in chosen:
            outcomes.append(asyncio.run(measure(row, quick=options.quick)))
    except KeyboardInterrupt:
        print("bench: interrupted; this is what there is", file=sys.stderr)
    write_json(options.json, facts, outcomes, quick=options.quick)
    print(table(outcomes))
    if options.quick:
        print("\n(--quick: sizes are too small for these figures to mean anything)")
    failed = [outcome.row.key for outcome in outcomes if outcome.failed]
    behind = missed(outcomes)
    summary = f"{len(outcomes)} rows; goals missed: {len(behind)}; failed: {', '.join(failed) or 'none'}"
    print(f"\n{summary}; all samples: {options.json}")
    return 1 if failed or (options.check and behind) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="rows by name (shell pattern); repeatable")
    parser.add_argument("--list", action="store_true", help="name the rows and their goals")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a goal is missed")
    return parser


async def measure(row: Row, *, quick: bool) -> Outcome:
    """Measure one row, whatever happens to it."""
    run = Run(row, quick)
    run.say(row.work)
    began = time.monotonic()
    try:
        async with asyncio.timeout(row.limit_s):
            await row.measure(run)
    except Unavailable as error:
        run.say(f"**** NOT MEASURED HERE: {error} ****")
        return Outcome.of(run, time.monotonic() - began, lacking=str(error))
    except TimeoutError:
        problem = f"given up after {row.limit_s:g} s"
    except Exception as error:  # noqa: BLE001 - the other rows are measured all the same
        traceback.print_exc()
        problem = f"{type(error).__name__}: {error}"
    else:
        return Outcome.of(run, time.monotonic() - began)
    run.say(f"**** BROKE OFF: {problem} ****")
    return Outcome.of(run, time.monotonic() - began, problem=problem)


if __name__ == "__main__":
    sys.exit(main())
