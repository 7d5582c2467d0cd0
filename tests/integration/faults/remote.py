"""A Python process that a test drives line by line: a peer that can be killed, stopped, or live in another network."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).absolute().parents[3]

# What every child knows. `heard` and `got` are the room's news, for the test's oracle.
PREAMBLE: Final = """
import hashlib, os, time, p2pnb
heard, got = [], []
def until(condition, timeout=30):
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.002)
    return value
def watch(room):
    room.on("message", lambda m: None if m.mine else heard.append((m.sender, m.text, time.monotonic())))
    room.on("object", lambda i: got.append((i.sender, i.name, hashlib.sha256(bytes(i.value)).hexdigest())))
    room.on("file", lambda i: got.append((i.sender, i.name, hashlib.sha256(i.value.read_bytes()).hexdigest())))
    return room
"""


class RemoteError(AssertionError):
    """The child's code raised; the text is its traceback."""


class Remote:
    """One child process. A context manager; it is killed with the block."""

    def __init__(self, name: str, command: Sequence[str] = (), env: dict[str, str] | None = None) -> None:
        self.name = name
        paths = os.pathsep.join([str(ROOT), str(ROOT / "jupyter_extension")])
        self.process = subprocess.Popen(
            [*command, sys.executable, "-m", "tests.integration.faults.remote"],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, **(env or {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, name=f"remote {name}", daemon=True).start()
        self.run(PREAMBLE)

    def run(self, code: str, timeout: float = 60.0) -> None:
        """Execute statements in the child."""
        self._ask("run", code, timeout)

    def value(self, expression: str, timeout: float = 60.0) -> Any:
        """Evaluate an expression in the child; what comes back has been JSON."""
        return self._ask("value", expression, timeout)

    def until(self, condition: str, timeout: float = 30.0) -> Any:
        """Wait until an expression is true in the child."""
        return self.value(f"until(lambda: {condition}, {timeout})", timeout + 10)

    def stop(self) -> None:
        """Freeze it, as a laptop's lid does."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a goodbye."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, verb: str, code: str, timeout: float) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, code]) + "\n")
        self.process.stdin.flush()
        try:
            kind, answer = json.loads(self._answers.get(timeout=timeout))
        except queue.Empty:
            raise RemoteError(f"{self.name} did not answer within {timeout} s: {code}") from None
        if kind == "raised":
            raise RemoteError(f"in {self.name}: {code}\n{answer}")
        return answer

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put(json.dumps(["raised", f"{self.name} ended"]))


def main() -> None:
    """Obey the test at the other end of the pipes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code prints must not look like an answer
    names: dict[str, Any] = {"__name__": "remote"}
    for line in sys.stdin:
        verb, code = json.loads(line)
        try:
            answer = None
            if verb == "value":
                answer = eval(code, names)
            else:
                exec(code, names)
            said = json.dumps(["value", answer])
        except BaseException:  # noqa: BLE001 - the test raises it
            said = json.dumps(["raised", traceback.format_exc()])
        answers.write(said + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
