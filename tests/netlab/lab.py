"""`Netlab`: the namespaces, what runs in them, and what happens to the line.

One forwarding process (`line.c`) holds everything: the namespaces have no names and vanish with it, and it ends when
this process does, since its standard input is a pipe of ours. So a crashed test leaves nothing behind.
"""

from __future__ import annotations

import ipaddress
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from types import TracebackType
from typing import Any, Final, Self

from tests.netlab.compiler import CannotCompile, compiled_line

__all__ = ["Counts", "Netlab", "NetlabUnavailable"]

MAX_ENDS: Final = 8  # as in line.c
ANSWER_TIMEOUT_S: Final = 10.0
END_TIMEOUT_S: Final = 5.0
NETWORK: Final = "10.99.0"
BOTH: Final = "both"
_DROP_MASKS: Final = {"": 1, "udp": 2, "tcp": 4}


class NetlabUnavailable(Exception):
    """This machine can't have a netlab; the text says what is missing. Tests skip with it, aloud."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one direction of the line has done so far."""

    packets: int  # given to it
    size_bytes: int
    delivered: int
    delivered_bytes: int
    lost: int  # at random
    overflowed: int  # no room in the queue
    dropped: int  # by a cut


@dataclass(frozen=True, slots=True)
class _Shape:
    delay_ms: float
    loss: float
    rate_mbit: float
    queue_kb: int

    def __post_init__(self) -> None:
        if self.delay_ms < 0 or self.rate_mbit < 0 or self.queue_kb < 0 or not 0 <= self.loss <= 1:
            raise ValueError(f"not the shape of a line: {self}")


class Netlab:
    """Ends in network namespaces of their own, joined pairwise by lines. A context manager.

    ends       names of the ends, 2 to 8; each has a namespace, a device "line0" (MTU 1500, IPv4) and an address
    delay_ms   one way, each direction; the round trip is twice that
    loss       share of packets lost at random, per direction: 0.01 is 1 %
    rate_mbit  10**6 bits per second, per direction, IP headers counted; 0: no limit
    queue_kb   KiB that may wait for the line; what comes on top is dropped (with a rate only)
    seed       of the losses

    A direction is "left-to-right"; an end's name stands for all directions from and to it; "both" for all there
    are. Entering raises NetlabUnavailable without root, TUN devices or a C compiler. Leaving kills what still runs
    in the namespaces. Not for several threads at once.
    """

    def __init__(
        self,
        ends: Sequence[str] = ("left", "right"),
        *,
        delay_ms: float = 0.0,
        loss: float = 0.0,
        rate_mbit: float = 0.0,
        queue_kb: int = 256,
        seed: int = 7,
    ) -> None:
        if not 2 <= len(set(ends)) == len(ends) <= MAX_ENDS or not all(end.isalnum() and len(end) < 16 for end in ends):
            raise ValueError(f"a lab has 2 to {MAX_ENDS} ends with different plain names, not {ends!r}")
        self._seed = seed
        self._shapes = dict.fromkeys(permutations(ends, 2), _Shape(delay_ms, loss, rate_mbit, queue_kb))
        self._addresses = {end: f"{NETWORK}.{number}" for number, end in enumerate(ends, 1)}
        self._next_host = 100
        self._process: subprocess.Popen[str] | None = None
        self._namespaces: dict[str, str] = {}
        self._program = ""

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────
    @property
    def addresses(self) -> dict[str, str]:
        """Present address of each end."""
        return dict(self._addresses)

    @property
    def pid(self) -> int:
        """Process id of the forwarder: what the line itself costs can be read there."""
        return self._running.pid

    def counts(self, direction: str) -> Counts:
        """Return what one direction did so far."""
        (pair,) = self._pairs(direction)
        return Counts(*(int(word) for word in self._command(f"counts {pair[0]} {pair[1]}")))

    # ── what runs at its ends ───────────────────────────────────────────────────────────────────────
    def command(self, end: str, command: Sequence[str | os.PathLike[str]]) -> list[str]:
        """Return the command line that runs `command` at this end, for any way of starting processes."""
        place = self._namespaces[end]
        return [self._program, "enter", str(self.pid), place, *(os.fspath(word) for word in command)]

    def popen(self, end: str, command: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
        """Start a process at this end; the options are those of `subprocess.Popen`."""
        return subprocess.Popen(self.command(end, command), **options)

    def run(
        self, end: str, command: Sequence[str | os.PathLike[str]], *, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command at this end to its end and return what it printed; CalledProcessError if it fails."""
        return subprocess.run(self.command(end, command), capture_output=True, text=True, timeout=timeout, check=True)

    # ── what happens to the line ────────────────────────────────────────────────────────────────────
    def shape(
        self,
        direction: str = BOTH,
        *,
        delay_ms: float | None = None,
        loss: float | None = None,
        rate_mbit: float | None = None,
        queue_kb: int | None = None,
    ) -> None:
        """Change some of the line's properties; packets under way keep the delay they have, and never overtake."""
        given = {"delay_ms": delay_ms, "loss": loss, "rate_mbit": rate_mbit, "queue_kb": queue_kb}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        for pair in self._pairs(direction):
            self._set(pair, replace(self._shapes[pair], **changes))

    def cut(self, direction: str = BOTH, *, only: str = "") -> None:
        """Drop everything silently, or "udp" or "tcp" only, also what is under way; until `restore`."""
        for source, target in self._pairs(direction):
            self._command(f"drop {source} {target} {_DROP_MASKS[only]}")

    def restore(self, direction: str = BOTH) -> None:
        """Take back what `cut` did."""
        for source, target in self._pairs(direction):
            self._command(f"drop {source} {target} 0")

    def readdress(self, end: str, address: str = "") -> str:
        """Give an end another address (by default a fresh one), as after a change of Wi-Fi; returns it.

        The former one is gone: what is still sent from or to it goes nowhere.
        """
        if not address:
            address, self._next_host = f"{NETWORK}.{self._next_host}", self._next_host + 1
        self._command(f"address {end} {ipaddress.IPv4Address(address)}")
        self._addresses[end] = address
        return address

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def __enter__(self) -> Self:
        if not sys.platform.startswith("linux"):
            raise NetlabUnavailable("a netlab needs Linux (network namespaces and TUN devices)")
        try:
            self._program = str(compiled_line())
        except CannotCompile as error:
            raise NetlabUnavailable(f"a netlab needs its forwarder: {error}") from error
        ends = [f"{end}={address}" for end, address in self._addresses.items()]
        self._process = subprocess.Popen(
            [self._program, "carry", str(self._seed), *ends],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            _pid, *namespaces = self._answer()
        except RuntimeError as error:
            self._close()
            raise NetlabUnavailable(
                f"a netlab needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and /dev/net/tun; here: {error}"
            ) from error
        self._namespaces = dict(zip(self._addresses, namespaces, strict=True))
        for pair, shape in self._shapes.items():
            self._set(pair, shape)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    @property
    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the lab is not there: use it as a context manager")
        return self._process

    def _pairs(self, direction: str) -> Iterator[tuple[str, str]]:
        source, _, target = direction.partition("-to-")
        chosen = [
            pair
            for pair in self._shapes
            if direction == BOTH or pair == (source, target) or (not target and direction in pair)
        ]
        if not chosen:
            known = ", ".join(f"{a}-to-{b}" for a, b in self._shapes)
            raise ValueError(f"{direction!r} is no direction of this lab; there are {known}, {BOTH!r} and the ends")
        return iter(chosen)

    def _set(self, pair: tuple[str, str], shape: _Shape) -> None:
        self._shapes[pair] = shape
        delay_us, loss_ppm = round(shape.delay_ms * 1000), round(shape.loss * 1_000_000)
        rate, queue = round(shape.rate_mbit * 1_000_000), shape.queue_kb * 1024
        self._command(f"set {pair[0]} {pair[1]} {delay_us} {loss_ppm} {rate} {queue}")

    def _command(self, text: str) -> list[str]:
        process = self._running
        assert process.stdin is not None
        try:
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError(f"the forwarder has ended ({process.poll()})") from error
        return self._answer()

    def _answer(self) -> list[str]:
        stdout = self._running.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], ANSWER_TIMEOUT_S)[0]:
            raise RuntimeError(f"the forwarder did not answer within {ANSWER_TIMEOUT_S:.0f} s")
        verdict, *words = stdout.readline().split() or ["error", "the forwarder has ended"]
        if verdict != "ok":
            raise RuntimeError(" ".join(words))
        return words
