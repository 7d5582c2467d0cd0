"""`python -m tests.soak --minutes 3 --seed N`: prints a summary as JSON; fails if anything was lost, late or left."""

from __future__ import annotations

import argparse
import json

from tests.soak.run import Settings, Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", type=int, default=3, choices=(2, 3))
    parser.add_argument("--every", type=float, nargs=2, default=(5.0, 30.0), metavar=("LEAST", "MOST"),
                        help="seconds between faults")  # fmt: skip
    parser.add_argument("--pace", type=float, default=6.0, help="MB/s that each of two sending threads a peer aims at")
    parser.add_argument("--no-namespaces", action="store_true", help="cut direct paths inside the peers")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=JSON", help="for create() and join()")
    chosen = parser.parse_args()
    settings = Settings(
        minutes=chosen.minutes,
        seed=chosen.seed,
        fault_every_s=tuple(chosen.every),
        peers=chosen.peers,
        pace=chosen.pace * 1e6,
        namespaces=not chosen.no_namespaces,
        options={key: json.loads(value) for key, value in (option.split("=", 1) for option in chosen.option)},
        progress=True,
    )
    summary = Soak(settings).run()
    print(json.dumps(summary, indent=2))
    return 1 if summary["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
