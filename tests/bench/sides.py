"""Processes to measure in, which take code and give values: kernels of Jupyter servers, and plain scripts.

Both kinds are driven alike, so that a row says what it measures and not how to reach it. A script can live at an end
of a netlab. Whatever a side prints goes to its log, and the end of that into the error if the side fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from p2pnb.demo.kernels import ServerKernel
from p2pnb.demo.servers import JupyterServer
from tests.netlab import Netlab

__all__ = ["ROOT", "ScriptSide", "Side", "call", "hub", "hub_in_lab", "kernel_pair", "scripts"]

ROOT: Final = Path(__file__).resolve().parents[2]
START_TIMEOUT_S: Final = 30.0
END_TIMEOUT_S: Final = 5.0
LINE_LIMIT_BYTES: Final = 16 << 20
SETUP: Final = f"""
import os, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "jupyter_extension")!r}]
from tests.bench import peer
"""


class Side(Protocol):
    """One process to measure in."""

    async def run(self, code: str) -> object:
        """Run statements there."""

    async def value(self, expression: str) -> Any:
        """Return the value of an expression there that JSON can carry."""


def call(function: str, *arguments: object, **named: object) -> str:
    """Return the expression that calls a function there; arguments by their repr."""
    given = [repr(argument) for argument in arguments] + [f"{name}={value!r}" for name, value in named.items()]
    return f"{function}({', '.join(given)})"


class SideError(Exception):
    """The code in the side raised; the text begins with what, and ends with the traceback."""


class ScriptSide:
    """A Python process of its own (`tests.bench.side`), here or at an end of a netlab."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self._process = process
        self._name = name
        self._log = log
        self._one_at_a_time = asyncio.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self, code: str) -> None:
        await self._ask("run", code)

    async def value(self, expression: str) -> Any:
        return await self._ask("value", expression)

    async def _ask(self, what: str, code: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._one_at_a_time:
            self._process.stdin.write(json.dumps([what, code]).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line:
            raise SideError(f"{self._name} ended. Its log ends with:\n{self._log.read_text(errors='replace')[-2000:]}")
        good, answer = json.loads(line)
        if not good:
            raise SideError(f"{answer.strip().splitlines()[-1]}\nin {self._name}: {answer}")
        return answer

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def scripts(
    *names: str, lab: Netlab | None = None, ends: Sequence[str] = (), setup: str = SETUP
) -> AsyncIterator[list[ScriptSide]]:
    """Start plain processes, at `ends` of a lab if one is given; they end with the block."""
    sides: list[ScriptSide] = []
    with tempfile.TemporaryDirectory(prefix="p2pnb-bench-") as folder:
        try:
            for index, name in enumerate(names):
                command = [sys.executable, "-m", "tests.bench.side"]
                log = Path(folder) / f"{index}-{name}.log"
                with log.open("ab") as errors:
                    process = await asyncio.create_subprocess_exec(
                        *(lab.command(ends[index], command) if lab is not None else command),
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=errors,
                        limit=LINE_LIMIT_BYTES,
                        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'jupyter_extension'}"},
                        start_new_session=True,  # Ctrl-C is for the bench
                    )
                sides.append(ScriptSide(process, name, log))
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.gather(*(side.run(setup) for side in sides))
            yield sides
        finally:
            await asyncio.gather(*(side.end() for side in sides))


@contextlib.asynccontextmanager
async def kernel_pair() -> AsyncIterator[tuple[ServerKernel, ServerKernel, JupyterServer]]:
    """Start two Jupyter servers with a kernel each; gives the kernels, and the server that is Ada's and the hub."""
    with tempfile.TemporaryDirectory(prefix="p2pnb-bench-") as folder:
        place = Path(folder)
        with JupyterServer("ada", place, lab=False) as one, JupyterServer("ben", place, lab=False) as other:
            async with ServerKernel(one) as ada, ServerKernel(other) as ben:
                await asyncio.gather(ada.run(SETUP), ben.run(SETUP))
                yield ada, ben, one


@contextlib.asynccontextmanager
async def hub() -> AsyncIterator[JupyterServer]:
    """Start a Jupyter server to be the hub of scripts."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pnb-bench-"))
        yield stack.enter_context(JupyterServer("hub", Path(folder), lab=False))


@contextlib.asynccontextmanager
async def hub_in_lab(lab: Netlab, end: str) -> AsyncIterator[str]:
    """Start a Jupyter server at an end of a lab; gives the address for `p2pnb.create(hub=…)`."""
    async with scripts("hub", lab=lab, ends=[end], setup="") as (side,):
        await side.run("from tests.bench import hub_side")
        try:
            yield await side.value(call("hub_side.start", lab.addresses[end]))
        finally:
            await side.run("hub_side.stop()")
