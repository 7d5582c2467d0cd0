"""One bare TCP connection, unencrypted, with the congestion control that is this kernel's default."""

from __future__ import annotations

import socket
import time
from typing import Any, Final

__all__ = ["pour", "receive", "serve"]

BLOCK_BYTES: Final = 256 * 1024
_open: dict[str, Any] = {}


def serve(address: str) -> int:
    """Listen; returns the port."""
    _open["listener"] = listener = socket.create_server((address, 0))
    return int(listener.getsockname()[1])


def pour(address: str, port: int, seconds: float) -> None:
    """Connect, and send for so long."""
    with socket.create_connection((address, port)) as connection:
        connection.settimeout(seconds)
        until = time.perf_counter() + seconds
        try:
            while time.perf_counter() < until:
                connection.send(bytes(BLOCK_BYTES))
        except (TimeoutError, ConnectionError):
            pass  # the receiver has counted enough


def receive(seconds: float) -> float:
    """Take the connection; returns the bytes per second of the given time after that."""
    connection, _ = _open["listener"].accept()
    connection.settimeout(seconds)
    buffer = bytearray(BLOCK_BYTES)
    total, began = 0, time.perf_counter()
    try:
        while time.perf_counter() < began + seconds and (size := connection.recv_into(buffer)):
            total += size
    except TimeoutError:
        pass
    connection.close()
    return total / (time.perf_counter() - began)
