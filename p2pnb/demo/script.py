"""What Ada and Ben do in the demo, and the report of it."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from p2pnb.demo.kernels import ServerKernel
from p2pnb.demo.servers import JupyterServer, copy_notebooks
from p2pnb.errors import P2PError
from p2pnb.files.sizes import human_size

__all__ = ["demo"]

_ROWS: Final = 6_250_000  # × 2 columns × 8 bytes = 100 MB
_DIRECT_WAIT_S: Final = 10.0

# Both kernels get these: a digest says "every byte" without sending anything a second way.
_SETUP: Final = """
import hashlib, json, pathlib, time
import numpy as np
import p2pnb

def digest(value):
    h = hashlib.sha256()
    if isinstance(value, pathlib.Path):
        files = sorted(p for p in value.rglob("*") if p.is_file()) if value.is_dir() else [value]
        for p in files:
            h.update(str(p.relative_to(value)).encode() + b"\\0" + p.read_bytes())
    elif hasattr(value, "dtypes"):
        h.update(repr((list(value.columns), [str(t) for t in value.dtypes], repr(value.index))).encode())
        for column in value.columns:
            h.update(np.ascontiguousarray(value[column].to_numpy()))
    else:
        h.update(repr((value.dtype, value.shape)).encode() + np.ascontiguousarray(value).tobytes())
    return h.hexdigest()

def sent(transfer):
    transfer.result(600)
    (part,) = transfer.per_peer.values()
    return {"name": transfer.name, "size": transfer.size_bytes, "rate": transfer.rate, "paths": part.paths}
"""

_MAKE: Final = f"""
seed = {{seed}}
rng = np.random.default_rng(seed)
try:
    import pandas as pd
    prices = pd.DataFrame({{{{"open": rng.random({_ROWS}), "close": rng.random({_ROWS})}}}})
except ImportError:
    prices = rng.random(({_ROWS}, 2))
weights = rng.standard_normal((512, 1024)).astype("float32")
folder = pathlib.Path("{{folder}}")
(folder / "notes").mkdir(parents=True, exist_ok=True)
(folder / "notes" / "read me.txt").write_text("Grüße from {{folder}}\\n" * 100)
(folder / "empty.bin").write_bytes(b"")
(folder / "noise.bin").write_bytes(rng.bytes(3_000_000))
"""


@dataclass(frozen=True, slots=True)
class _Row:
    what: str
    way: str
    size_bytes: int
    seconds: float
    rate: float
    paths: str
    equal: bool


def demo(*, stay: bool) -> int:
    """Run the demo and print what happened. With `stay`, leave JupyterLab open until Ctrl-C. Returns an exit code."""
    with _temporary_folder() as folder:
        ada, ben = JupyterServer("ada", folder), JupyterServer("ben", folder)
        print("Starting two Jupyter servers, Ada's and Ben's, with different tokens …", flush=True)
        with ada, ben:
            try:
                good = asyncio.run(_meet(ada, ben))
            except P2PError as error:
                print(f"\nThe demo failed: {error}", file=sys.stderr)
                return 1
            if stay:
                _stay(ada, ben)
    return 0 if good else 1


async def _meet(ada_server: JupyterServer, ben_server: JupyterServer) -> bool:
    print("Starting a kernel on each …", flush=True)
    async with ServerKernel(ada_server) as ada, ServerKernel(ben_server) as ben:
        await asyncio.gather(ada.run(_SETUP), ben.run(_SETUP))
        began = time.perf_counter()
        await ada.run('room = p2pnb.create(name="Ada")')
        link = await ada.value("room.invite.link")
        created = time.perf_counter()
        join_ms = await ben.value(f"(t := time.perf_counter(), room := p2pnb.join({link!r}, name='Ben'), "
                                  "1000 * (time.perf_counter() - t))[-1]")  # fmt: skip
        print(f"Ada opened room {await ada.value('room.id')} on {ada_server.url} ({1000 * (created - began):.0f} ms); "
              f"Ben joined from {ben_server.url} in {join_ms:.0f} ms.")  # fmt: skip
        words = await asyncio.gather(
            ada.value('room.peers["Ben"].verification'), ben.value('room.peers["Ada"].verification')
        )
        print(f"Verification words: {' '.join(words[0])} (Ada), {' '.join(words[1])} (Ben).")
        await _chat(ada, ben)
        path = await _direct(ada)
        print(f"Path between the kernels: {path}.\n")
        await asyncio.gather(
            ada.run(_MAKE.format(seed=1, folder="from-ada")), ben.run(_MAKE.format(seed=2, folder="from-ben"))
        )
        rows: list[_Row] = []
        _print_header()
        for sender, receiver, way, folder in ((ada, ben, "Ada → Ben", "from-ada"), (ben, ada, "Ben → Ada", "from-ben")):
            for what, call, source, key in (
                ("folder", f'room.send_file("{folder}")', f'pathlib.Path("{folder}")', folder),
                ("DataFrame", 'room.send(prices, "prices")', "prices", "prices"),
                ("numpy array", 'room.send(weights, "weights")', "weights", "weights"),
            ):
                rows.append(await _exchange(sender, receiver, way, what, call, source, key))
                _print_row(rows[-1])
        await asyncio.gather(ada.run("room.leave()"), ben.run("room.leave()"))
    good = words[0] == words[1] and all(row.equal for row in rows)
    print("\nEvery byte was compared on both sides: " + ("all equal." if good else "NOT EQUAL."), flush=True)
    return good


async def _chat(ada: ServerKernel, ben: ServerKernel) -> None:
    await ada.run('room.chat("Hello Ben, can you read this?")')
    await ben.run(
        'while not room.messages: time.sleep(0.005)\nroom.chat("Every word. 👋")'
    )
    await ada.run("while len(room.messages) < 2: time.sleep(0.005)")
    for sender, text in await ada.value("[(m.sender, m.text) for m in room.messages]"):
        print(f"  {sender}: {text}")


async def _direct(kernel: ServerKernel) -> str:
    """Wait until a direct path stands, or it is clear that there will be none."""
    until = time.monotonic() + _DIRECT_WAIT_S
    while time.monotonic() < until:
        path = await kernel.value("[p.path for p in room.peers.values()][0]")
        if path not in (None, "relay"):
            return f"{path}, direct"
        await asyncio.sleep(0.1)
    return "relay, through Ada's server (no direct connection was possible here)"


async def _exchange(
    sender: ServerKernel, receiver: ServerKernel, way: str, what: str, call: str, source: str, key: str
) -> _Row:
    waiting = asyncio.create_task(receiver.run(f"got = room.receive({key!r}, timeout=600)"))
    began = time.perf_counter()
    facts: dict[str, Any] = await sender.value(f"sent({call})")
    await waiting
    seconds = time.perf_counter() - began
    digests = await asyncio.gather(sender.value(f"digest({source})"), receiver.value("digest(got)"))
    return _Row(what, way, facts["size"], seconds, facts["rate"], "+".join(facts["paths"]), digests[0] == digests[1])


def _print_header() -> None:
    print(f"  {'what':<12} {'way':<10} {'size':>9} {'time':>8} {'rate':>12}  {'path':<14} bytes")


def _print_row(row: _Row) -> None:
    rate = f"{human_size(int(row.size_bytes / row.seconds))}/s"
    equal = "equal" if row.equal else "DIFFER"
    size = human_size(row.size_bytes)
    line = f"  {row.what:<12} {row.way:<10} {size:>9} {row.seconds:>7.2f}s {rate:>12}  {row.paths:<14} {equal}"
    print(line, flush=True)


def _stay(ada: JupyterServer, ben: JupyterServer) -> None:
    copy_notebooks(ada)
    copy_notebooks(ben)
    print("\nNow you: open these side by side in a browser and run the cells from the top.\n")
    print(f"  Ada  {ada.page('ada.ipynb')}")
    print(f"  Ben  {ben.page('ben.ipynb')}")
    print("\nCtrl-C ends both servers.", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("\nEnding the servers …")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="p2pnb-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


