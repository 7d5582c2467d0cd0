"""The soak itself: hub, peers in processes of their own, a fault every few seconds, and what to make of it.

With root, every peer lives in a network namespace (see `tests.integration.faults.lab`) and direct paths are cut by
dropping packets; without, they are cut inside the peers. The hub is a real Jupyter server that is killed and
started again with nothing but its key; every peer reaches it through a forwarder that breaks, stalls and lies.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from p2pnb.demo.servers import JupyterServer
from tests.integration.faults.forwarder import LOOPBACK, Forwarder
from tests.integration.faults.lab import Lab, why_not
from tests.soak.flatness import Flatness

ROOT: Final = Path(__file__).absolute().parents[2]
PEERS: Final = ("ada", "ben", "carl")
DRAIN_S: Final = 240.0
ANSWER_S: Final = 30.0


@dataclass
class Settings:
    """What a soak is told."""

    minutes: float = 3.0
    seed: int = 1
    fault_every_s: tuple[float, float] = (5.0, 30.0)
    peers: int = 3
    pace: float = 6e6  # bytes per second that each sending thread aims at
    namespaces: bool = True  # if there can be any
    options: dict[str, Any] = field(default_factory=dict)  # for create and join
    progress: bool = False


class _Child:
    """A peer's process, and what it said."""

    def __init__(self, name: str, command: Sequence[str], settings: dict[str, Any], log: Path) -> None:
        self.name = name
        paths = os.pathsep.join([str(ROOT), str(ROOT / "jupyter_extension")])
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [*command, sys.executable, "-X", "faulthandler", "-m", "tests.soak.peer"],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, "MALLOC_ARENA_MAX": "2"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self.samples: list[dict[str, Any]] = []
        self._reports: dict[str, queue.Queue[dict[str, Any]]] = defaultdict(queue.Queue)
        threading.Thread(target=self._read, name=f"reports of {name}", daemon=True).start()
        self._write(settings)

    def ask(self, what: dict[str, Any], event: str, timeout: float = ANSWER_S) -> dict[str, Any]:
        """Send a command and wait for its report."""
        self._write(what)
        return self.wait(event, timeout)

    def tell(self, what: dict[str, Any]) -> None:
        self._write(what)

    def wait(self, event: str, timeout: float) -> dict[str, Any]:
        try:
            return self._reports[event].get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"{self.name}: no {event!r} within {timeout:.0f} s") from None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    def _write(self, what: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            report = json.loads(line)
            if report["event"] == "sample":
                self.samples.append(report)
            else:
                self._reports[report["event"]].put(report)


class Soak:
    """One run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults: Counter[str] = Counter()
        self.failures: list[str] = []
        self._dice = random.Random(settings.seed)
        self._names = PEERS[: settings.peers]
        self._heals: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lab: Lab | None = None

    def run(self) -> dict[str, Any]:
        """Do it; the summary says what happened, `failures` what must not have."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pnb-soak-")))
            reason = "not asked for" if not self.settings.namespaces else why_not()
            if not reason:
                self._lab = stack.enter_context(Lab(*self._names))
                self._lab.enter()  # the hub and the forwarders live in the middle
            self._begin(stack, folder)
            began = time.monotonic()
            self._break_things(began + self.settings.minutes * 60)
            ended = time.monotonic()
            tallies = self._settle()
            return self._summary(tallies, began, ended, reason)

    # ── setting up ──────────────────────────────────────────────────────────────────────────────────
    def _begin(self, stack: ExitStack, folder: Path) -> None:
        self.server = stack.enter_context(
            JupyterServer("hub", folder, lab=False, options=("--ServerApp.allow_remote_access=True",))
        )
        listen = LOOPBACK if self._lab is None else "0.0.0.0"
        self.lines = {name: stack.enter_context(Forwarder(self.server.port, listen=listen)) for name in self._names}
        self.children: dict[str, _Child] = {}
        invite: list[Any] = []
        for name in self._names:
            host = LOOPBACK if self._lab is None else self._lab.gateway(name)
            address = f"http://{host}:{self.lines[name].port}/"
            place: dict[str, Any] = (
                {"invite": [*invite, address]} if invite else {"hub": f"{address}?token={self.server.token}"}
            )
            self.children[name] = child = _Child(
                name,
                self._lab.command(name) if self._lab is not None else (),
                {
                    "name": name, "seed": self.settings.seed, "folder": str(folder / name), "pace": self.settings.pace,
                    "options": self.settings.options, **place,
                },
                folder / f"{name}.err",
            )  # fmt: skip
            stack.callback(child.end)
            opened = child.wait("open", ANSWER_S)
            invite = invite or [opened["room"], opened["words"]]
        self._folder = folder
        end = time.monotonic() + ANSWER_S
        while any(len(self._peers_of(child)) < len(self._names) - 1 for child in self.children.values()):
            if time.monotonic() > end:
                raise TimeoutError("the peers did not all meet")
            time.sleep(0.1)
        for child in self.children.values():
            child.tell({"do": "begin"})

    def _peers_of(self, child: _Child) -> dict[str, str]:
        peers: dict[str, str] = child.ask({"do": "peers"}, "peers")["peers"]
        return peers

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────
    def _break_things(self, until: float) -> None:
        kinds = self._kinds()
        least, most = self.settings.fault_every_s
        due = time.monotonic() + least
        while (now := time.monotonic()) < until:
            while self._heals and self._heals[0][0] <= now:
                heapq.heappop(self._heals)[2]()
            if now >= due:
                kind, act = next(kinds)
                self.faults[kind] += 1
                if self.settings.progress:
                    print(f"{now - until:8.1f} s  {kind}  {self._last()}", file=sys.stderr, flush=True)
                act()
                due = now + self._dice.uniform(least, most)
            time.sleep(0.05)
            for name, child in self.children.items():
                if child.process.poll() is not None:
                    raise RuntimeError(f"{name} ended: {self._log_of(name)}")
        for _, _, heal in self._heals:
            heal()
        self._heals.clear()

    def _kinds(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Every kind once in a random order, then again."""
        kinds: list[tuple[str, Callable[[], None]]] = [
            ("hub line reset", self._reset),
            ("hub line silent", lambda: self._silence(up=True, down=True)),
            ("hub line deaf", lambda: self._silence(up=False, down=True)),
            ("hub line mute", lambda: self._silence(up=True, down=False)),
            ("bits flipped", self._flip),
            ("hub killed", self._kill_hub),
        ]
        if self._lab is not None:
            kinds += [("direct paths silent", self._cut_direct), ("direct paths one-way", self._one_way)]
        else:
            kinds += [
                ("direct paths cut", lambda: self._break_inside("cut")),
                ("direct paths one-way", lambda: self._break_inside("mute")),
            ]
        while True:
            self._dice.shuffle(kinds)
            yield from kinds

    def _later(self, seconds: float, heal: Callable[[], None]) -> None:
        heapq.heappush(self._heals, (time.monotonic() + seconds, next(self._numbers), heal))

    def _reset(self) -> None:
        for name in self._dice.sample(self._names, self._dice.randint(1, len(self._names))):
            self.lines[name].cut()

    def _silence(self, *, up: bool, down: bool) -> None:
        line = self.lines[self._dice.choice(self._names)]
        line.hold(up=up, down=down)
        self._later(self._dice.uniform(1, 14), line.let_go)

    def _flip(self) -> None:
        line = self.lines[self._dice.choice(self._names)]
        self._dice.choice((line.up, line.down)).flip_after(self._dice.randrange(5_000))

    def _kill_hub(self) -> None:
        self.server.kill()
        self._later(self._dice.uniform(0, 4), lambda: threading.Thread(target=self.server.start).start())

    def _cut_direct(self) -> None:
        assert self._lab is not None
        self._lab.cut_direct(*self._dice.sample(self._names, 2))
        self._later(self._dice.uniform(1, 20), self._lab.heal)

    def _one_way(self) -> None:
        assert self._lab is not None
        self._lab.drop_direct(*self._dice.sample(self._names, 2))
        self._later(self._dice.uniform(1, 20), self._lab.heal)

    def _break_inside(self, how: str) -> None:
        child = self.children[self._dice.choice(self._names)]
        child.ask({"do": "break", "how": how, "seconds": 60}, "broken")

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────
    def _settle(self) -> dict[str, dict[str, Any]]:
        """Stop sending, wait until everything has arrived, and compare."""
        end = time.monotonic() + DRAIN_S
        while not self.server._answers():  # it may be starting
            if time.monotonic() > end:
                self.failures.append("the hub did not come back")
                break
            time.sleep(0.1)
        for child in self.children.values():
            child.tell({"do": "drain"})
        for child in self.children.values():
            try:
                child.wait("drained", max(1.0, end - time.monotonic()))
            except TimeoutError as error:
                self.failures.append(str(error))
        while True:
            tallies = {name: child.ask({"do": "tally"}, "tally") for name, child in self.children.items()}
            missing = self._missing(tallies)
            if not missing or time.monotonic() > end:
                break
            time.sleep(0.5)
        self.failures += missing
        for name, child in self.children.items():
            child.ask({"do": "leave"}, "left")
            if "Traceback" in (log := self._log_of(name)):
                self.failures.append(f"{name} logged: {log}")
        return tallies

    def _missing(self, tallies: dict[str, dict[str, Any]]) -> list[str]:
        missing = []
        for (name, mine), (other, theirs) in itertools.permutations(tallies.items(), 2):
            if mine["heard"].get(other, 0) != theirs["said"]:
                missing.append(f"{name} heard {mine['heard'].get(other, 0)} of {theirs['said']} messages of {other}")
            if mine["got"].get(other, {}) != theirs["sent"]:
                missing.append(f"{name} got {mine['got'].get(other)} of {other}, who sent {theirs['sent']}")
        return missing

    def _summary(
        self, tallies: dict[str, dict[str, Any]], began: float, ended: float, no_lab: str
    ) -> dict[str, Any]:
        flatness = {name: Flatness(child.samples, began, ended) for name, child in self.children.items()}
        for name, tally in tallies.items():
            self.failures += tally["failures"]
            self.failures += [f"{name}: {problem}" for problem in flatness[name].problems()]
        carried: Counter[str] = Counter()
        for tally in tallies.values():
            carried.update(tally["carried"])
        moved = sum(tally["got_bytes"] for tally in tallies.values())
        return {
            "seconds": round(ended - began, 1),
            "seed": self.settings.seed,
            "namespaces": no_lab or True,
            "bytes_moved": moved,
            "mb_per_s": round(moved / 1e6 / (ended - began), 1),
            "items": sum(sum(kinds.values()) for t in tallies.values() for kinds in t["got"].values()),
            "messages": sum(sum(t["heard"].values()) for t in tallies.values()),
            "faults": dict(self.faults),
            "path_changes": sum(t["path_changes"] for t in tallies.values()),
            "carried": dict(carried),
            "chat_p50_s": max((t["chat_p50_s"] or 0) for t in tallies.values()),
            "chat_p99_s": max((t["chat_p99_s"] or 0) for t in tallies.values()),
            "chat_worst_s": max((t["chat_worst_s"] or 0) for t in tallies.values()),
            "peers": {name: flat.summary() for name, flat in flatness.items()},
            "failures": self.failures,
        }

    def _last(self) -> str:
        return " | ".join(
            f"{name} {child.samples[-1]['got_bytes'] / 1e6:.0f} MB, {child.samples[-1]['rss'] / 1e6:.0f} MB resident, "
            f"{child.samples[-1]['fds']} fds, {child.samples[-1]['tasks']} tasks, {child.samples[-1]['paths']}"
            for name, child in self.children.items()
            if child.samples
        )

    def _log_of(self, name: str) -> str:
        return (self._folder / f"{name}.err").read_text(errors="replace")[-2000:]
