"""What the figures were measured on, and what its memory costs."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import mmap
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from tests.bench.registry import Unavailable

__all__ = [
    "MEBIBYTE", "TMPFS", "PeakMemory", "facts", "fill_fresh_memory", "room_for_files", "settle_disks", "warm_memory",
]  # fmt: skip

MEBIBYTE: Final = 1 << 20
TMPFS: Final = "tmpfs"
_PACKAGES: Final = (
    "p2pnb", "aiortc", "aiohttp", "cryptography", "pandas", "pyarrow", "numpy", "tornado", "jupyter-server", "wrtc",
    "magic-wormhole",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """Return machine, system and versions."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _first(Path("/proc/cpuinfo"), "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "huge_pages": _read(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "tcp_congestion_control": _read(Path("/proc/sys/net/ipv4/tcp_congestion_control")),
        "load_before": os.getloadavg()[0],
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(name: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _first(path: Path, key: str) -> str:
    lines = (line.partition(":") for line in _read(path).splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), platform.processor())


def fill_fresh_memory(size_bytes: int, *, huge_pages: bool) -> float:
    """Return the seconds that writing to so much memory costs which the process just got: what every receiver pays."""
    with mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:
        if huge_pages:
            fresh.madvise(mmap.MADV_HUGEPAGE)
        place = (ctypes.c_char * size_bytes).from_buffer(fresh)
        began = time.perf_counter()
        ctypes.memset(place, 1, size_bytes)
        took = time.perf_counter() - began
        del place
    return took


def warm_memory(size_bytes: int) -> None:
    """Have the machine hold so much free memory, for what is measured within the next second or two.

    The host of a virtual machine takes back what is free (free page reporting) and gives it again page by page, at
    a few hundred MB/s: who comes first would pay for that, and the host would be what is measured. Called before
    every run of bulk, ours or others', by the bench itself.
    """
    spare = psutil.virtual_memory().available - (2 << 30)
    if spare > 0:
        fill_fresh_memory(min(size_bytes, spare), huge_pages=True)


def settle_disks() -> None:
    """Have the system write out what waits for its disks, so that it does not do so during the next run."""
    if hasattr(os, "sync"):
        os.sync()


@contextlib.contextmanager
def room_for_files(need_bytes: int, *, in_memory: bool = True) -> Iterator[tuple[Path, str]]:
    """Give a folder with so much room and say what it is on; it is removed at the end.

    in_memory  tmpfs where there is plenty of memory, else as without: on the disk of the temporary folder. There the
               system's cache takes what is written, as long as that is a small part of the memory.
    """
    shared = Path("/dev/shm")
    fits = (
        in_memory
        and shared.is_dir()
        and shutil.disk_usage(shared).free > 1.5 * need_bytes
        and psutil.virtual_memory().available > 3 * need_bytes
    )
    place = shared if fits else Path(tempfile.gettempdir())
    if shutil.disk_usage(place).free < 1.2 * need_bytes:
        raise Unavailable(f"{place} has no room for {need_bytes / 1e9:.1f} GB")
    with tempfile.TemporaryDirectory(prefix="p2pnb-bench-", dir=place) as folder:
        yield Path(folder), TMPFS if fits else f"disk ({place})"


class PeakMemory:
    """Watches the resident memory of processes over what they have now; a context manager.

    Sampled in a thread of the bench, every 20 ms: the measured processes do nothing for it.
    """

    INTERVAL_S: Final = 0.02

    def __init__(self, **pids: int) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.idle_bytes = {name: process.memory_info().rss for name, process in self._processes.items()}
        self.peak_bytes = dict(self.idle_bytes)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="memory")

    def over_idle_mib(self, name: str) -> float:
        """Return the most that this process had over what it had at the beginning, in MiB."""
        return (self.peak_bytes[name] - self.idle_bytes[name]) / MEBIBYTE

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self.INTERVAL_S):
            for name, process in self._processes.items():
                with contextlib.suppress(psutil.Error):
                    self.peak_bytes[name] = max(self.peak_bytes[name], process.memory_info().rss)
