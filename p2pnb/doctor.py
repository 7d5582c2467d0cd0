"""`p2pnb doctor`: which parts work on this machine, and what to do about those that don't."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import sys
from typing import Final

from p2pnb.discovery import create_room, find_server
from p2pnb.engine.thread import engine
from p2pnb.errors import P2PError
from p2pnb.paths import webrtc

__all__ = ["report"]

# Where versions below these are installed, known holes are open.
_SAFE: Final = {"jupyter-server": (2, 20), "tornado": (6, 5, 5), "aiortc": (1, 15), "pyarrow": (23, 0, 1)}


def report() -> tuple[list[str], bool]:
    """Return the lines to print, and whether nothing is broken."""
    lines = [f"Python {platform.python_version()} on {platform.system()}, {sys.executable}"]
    good = True
    for package, least in _SAFE.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"✗ {package} is not installed")
            good = False
            continue
        numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
        fine = numbers >= least
        good = good and fine
        advice = "" if fine else f": update to {'.'.join(map(str, least))} or newer"
        lines.append(f"{'✓' if fine else '✗'} {package} {version}{advice}")
    has_webrtc = webrtc.available()
    if has_webrtc:
        lines.append("✓ WebRTC (aiortc) loads")
    else:
        lines.append("✗ aiortc can't be imported: rooms use the relay only")
    addresses = _own_addresses()
    shown = ", ".join(addresses) or "none; direct paths need one"
    lines.append(f"{'✓' if addresses else '·'} network addresses beyond loopback: {shown}")
    try:
        server = find_server()
        made = engine().call(create_room(server), 15)
        lines.append(f"✓ this process's Jupyter server hosts rooms: {server.url} (room {made.room})")
    except P2PError as error:
        lines.append(f"· no server for own rooms: {error}")
    return lines, good and has_webrtc


def _own_addresses() -> list[str]:
    """Return the address that packets to the outside would leave from, per family; nothing is sent."""
    found = []
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((outside, 9))  # UDP: chooses a route, sends no packet
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return found
