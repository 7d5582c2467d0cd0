"""Receivers that die: in this process by losing what the kernel takes away, or as processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pnb.files import IncomingFiles
from p2pnb.files._lock import may_inherit

ROOT = Path(__file__).parents[3]


def die(incoming: IncomingFiles) -> None:
    """Leave a part as the death of its process does: nothing is written any more, and the lock is gone."""
    incoming._tree.close()
    part = incoming._part
    descriptor, part._descriptor = part._descriptor, -1
    may_inherit(descriptor)
    for each in (descriptor, part.place.descriptor, part.target.descriptor):
        if each is not None:
            os.close(each)
    part.place.descriptor = part.target.descriptor = None


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python code with p2pnb at hand in another process, which is killed at the end."""
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def line_of(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def tell(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("go\n")
    running.stdin.flush()
