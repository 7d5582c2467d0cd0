"""A Jupyter server as the hub at an end of a netlab; runs in a script there."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from p2pnb.demo import servers

__all__ = ["start", "stop"]

_open = contextlib.ExitStack()


def start(address: str) -> str:
    """Start it on this address of the namespace and return what `p2pnb.create(hub=…)` takes."""
    vars(servers)["LOOPBACK"] = address  # it listens, and is asked for its health, there
    folder = _open.enter_context(tempfile.TemporaryDirectory(prefix="p2pnb-bench-"))
    return _open.enter_context(servers.JupyterServer("hub", Path(folder), lab=False)).hub


def stop() -> None:
    """End it."""
    _open.close()
