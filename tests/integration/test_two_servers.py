"""Two real Jupyter servers, real kernels: what only shows there (F3, F14, F16; discovery; ways to join)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import p2pnb
from p2pnb.demo.kernels import ServerKernel
from p2pnb.demo.servers import JupyterServer
from tests.integration.meeting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SETUP = """
import threading, time, p2pnb
def until(condition, timeout=30):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)
    return True
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[JupyterServer, JupyterServer]]:
    """Ada's at the root, Ben's as a JupyterHub would place it."""
    folder = tmp_path_factory.mktemp("servers")
    ada = JupyterServer("ada", folder, lab=False)
    ben = JupyterServer("ben", folder, lab=False, base_url="/user/ben/")
    with ada, ben:
        yield ada, ben


@asynccontextmanager
async def _kernels(*servers: JupyterServer) -> AsyncIterator[list[ServerKernel]]:
    kernels = [ServerKernel(server) for server in servers]
    started: list[ServerKernel] = []
    try:
        started = list(await asyncio.gather(*(kernel.__aenter__() for kernel in kernels)))
        await asyncio.gather(*(kernel.run(SETUP) for kernel in started))
        yield started
    finally:
        await asyncio.gather(*(kernel.__aexit__(None, None, None) for kernel in started))


async def _meet(ada: ServerKernel, ben: ServerKernel, *, how: str = "room.invite.link", settings: str = "") -> None:
    await ada.run(f'room = p2pnb.create(name="Ada", accept=True{settings})')
    invite = await ada.value(how)
    await ben.run(f'room = p2pnb.join({invite!r}, name="Ben", accept=True{settings})')
    await ada.run('until(lambda: "Ben" in room.peers)')
    await ben.run('until(lambda: "Ada" in room.peers)')


async def _direct(*kernels: ServerKernel, over: str = "tcp") -> None:
    for kernel in kernels:
        await kernel.run(f'until(lambda: all(p.path == "{over}" for p in room.peers.values()), 20)')


# ── the way in ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.asyncio
async def test_kernels_find_their_own_server_and_reach_each_other_directly(
    servers: tuple[JupyterServer, JupyterServer],
) -> None:
    ada_server, ben_server = servers
    async with _kernels(ada_server, ben_server) as (ada, ben):
        await _meet(ada, ben)
        assert (await ada.value("room.invite.link")).startswith(f"{ada_server.url}p2pnb/join/")
        await _direct(ada, ben)
        kinds = await ada.value("[(p.name, p.kind, p.path) for p in room.peers.values()]")
        assert kinds == [["Ben", "kernel", "tcp"]]
        await ben.run('other = p2pnb.create(name="Ben")')
        assert (await ben.value("other.invite.link")).startswith(f"{ben_server.url}p2pnb/join/")
        assert "/user/ben/" in await ben.value("other.invite.link")
        await ada.run(f'theirs = p2pnb.join({await ben.value("other.invite.link")!r}, name="Ada")')
        assert await ada.value("list(theirs.peers)") == ["Ben"]
        began = time.perf_counter()
        await ada.run('room.chat("direct")')
        await ben.run('until(lambda: [m.text for m in room.messages] == ["direct"])')
        assert time.perf_counter() - began < 1


@pytest.mark.asyncio
async def test_code_and_invite_work_between_kernels_of_one_server(servers: tuple[JupyterServer, JupyterServer]) -> None:
    async with _kernels(servers[1], servers[1], servers[1]) as (ada, ben, carl):
        await _meet(ada, ben, how="room.invite.code")
        room, words, hub = await ada.value("[room.invite.room, room.invite.words, room.invite.hub]")
        await carl.run(f'room = p2pnb.join(p2pnb.Invite({room!r}, {words!r}, {hub!r}), name="Carl")')
        await ada.run('until(lambda: set(room.peers) == {"Ben", "Carl"})')


@pytest.mark.asyncio
async def test_wrong_code_between_kernels_is_told_within_two_seconds(
    servers: tuple[JupyterServer, JupyterServer],
) -> None:
    async with _kernels(*servers) as (ada, ben):
        await ada.run('room = p2pnb.create(name="Ada")')
        link = await ada.value("room.invite.link")
        wrong = link.rpartition("-")[0] + "-wrongword"
        await ben.run(
            f"began = time.monotonic()\ntry:\n    p2pnb.join({wrong!r})\n"
            "except p2pnb.errors.WrongCodeError:\n    seconds = time.monotonic() - began"
        )
        assert await ben.value("seconds") < 2
        await ada.run("until(lambda: room.notices, 2)")
        assert await ada.value("[type(n).__name__ for n in room.notices]") == ["WrongCodeError"]


def _environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY_", "P2PNB"))}
    return env | {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "HOME": str(tmp_path)} | variables


def _script(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


_WHERE = "import p2pnb\nfrom p2pnb.discovery import find_server\nprint(find_server().url)"


def test_script_without_a_server_is_told_what_to_do_although_servers_run(
    servers: tuple[JupyterServer, JupyterServer], tmp_path: Path
) -> None:
    """The runtime folder lists Ada's server: it is not this process's, so it is not used."""
    runtime = servers[0]._private / "runtime"
    assert list(runtime.glob("jpserver-*.json"))
    done = _script(
        "import p2pnb\ntry:\n    p2pnb.create()\nexcept p2pnb.errors.NoHubError as e:\n    print(e)",
        _environment(tmp_path, JUPYTER_RUNTIME_DIR=str(runtime)),
    )
    assert "No Jupyter server with p2pnb was found" in done.stdout, done.stderr
    assert "hub=" in done.stdout


def test_address_in_the_environment_comes_before_the_file_and_the_file_before_the_parent(
    servers: tuple[JupyterServer, JupyterServer], tmp_path: Path
) -> None:
    ada, ben = servers
    kernel_file = tmp_path / "kernel.json"
    kernel_file.write_text(json.dumps({"url": ada.url, "secret": "s"}))
    kernel_file.chmod(0o600)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    (runtime / f"jpserver-{os.getpid()}.json").write_text(json.dumps({"url": "http://parent:1/", "token": "t"}))
    everything = _environment(tmp_path, P2PNB_HUB=ben.hub, P2PNB_SERVER_FILE=str(kernel_file))
    assert _script(_WHERE, everything).stdout == f"{ben.url}\n"
    del everything["P2PNB_HUB"]
    assert _script(_WHERE, everything).stdout == f"{ada.url}\n"
    kernel_file.chmod(0o666)
    assert _script(_WHERE, everything).stdout == "http://parent:1/\n", "a file that others may write is not believed"
    del everything["P2PNB_SERVER_FILE"]
    assert _script(_WHERE, everything).stdout == "http://parent:1/\n"


def test_server_of_the_parent_process_is_used_with_its_token(
    servers: tuple[JupyterServer, JupyterServer], tmp_path: Path
) -> None:
    ada = servers[0]
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    server_file = runtime / f"jpserver-{os.getpid()}.json"
    server_file.write_text(json.dumps({"url": ada.url, "token": ada.token, "base_url": "/", "sock": ""}))
    code = "import p2pnb\nwith p2pnb.create('x') as room: print(room.invite.hub, flush=True)"
    done = _script(code, _environment(tmp_path))
    assert (done.stdout, done.stderr) == (f"{ada.url}\n", "")
    server_file.write_text(json.dumps({"url": "http://127.0.0.1:9/", "token": "t"}))
    assert "NoHubError" in _script(code, _environment(tmp_path)).stderr


def test_server_that_does_not_know_the_kernels_user_refuses(
    servers: tuple[JupyterServer, JupyterServer],
) -> None:
    with pytest.raises(p2pnb.errors.HubError, match="token"):
        p2pnb.create(hub=f"{servers[0].url}?token=wrong")
    with pytest.raises(p2pnb.errors.HubError, match="token"):
        p2pnb.create(hub=servers[0].url)


def test_addresses_that_people_copy_from_the_browser_work(servers: tuple[JupyterServer, JupyterServer]) -> None:
    ben = servers[1]
    for page in ("lab", "lab/tree/a/b.ipynb", "tree", "notebooks/x.ipynb"):
        with p2pnb.create(hub=f"{ben.url}{page}?token={ben.token}") as room:
            assert room.invite.hub == ben.url


# ── while a cell runs ───────────────────────────────────────────────────────────────────────────────
# One call into C at a time, each of which keeps the GIL for about a second.
_HOLDS_THE_GIL = """
end = time.monotonic() + 4
while time.monotonic() < end:
    sum(range(40_000_000))
"""


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("cell", "over"),
    [("time.sleep(4)", "tcp"), (_HOLDS_THE_GIL, "tcp"), (_HOLDS_THE_GIL, "webrtc")],
    ids=["sleeps", "holds the GIL", "holds the GIL, WebRTC"],
)
async def test_room_goes_on_while_a_cell_runs(
    servers: tuple[JupyterServer, JupyterServer], cell: str, over: str
) -> None:
    """F16. Ben's cell is busy: he still receives, and is not taken for gone."""
    async with _kernels(*servers) as (ada, ben):
        await _meet(ada, ben, settings="" if over == "tcp" else ", direct_tcp=False")
        await _direct(ada, ben, over=over)
        await ada.run("states = []; room.on('peer', lambda p: states.append(p.state))")
        await ben.run("arrived = {}\nroom.on('object', lambda item: arrived.setdefault(item.name, time.monotonic()))\n"
                      "room.on('message', lambda m: arrived.setdefault(m.text, time.monotonic()))")  # fmt: skip
        busy = asyncio.create_task(ben.run(f"began = time.monotonic()\n{cell}\nended = time.monotonic()"))
        await asyncio.sleep(0.5)
        await ada.run('room.chat("while you compute")\nsent = room.send(b"x" * 3_000_000, "while")\nsent.result(60)')
        assert not busy.done() or "sleep" not in cell
        await busy
        times = await ben.value("[arrived['while you compute'], arrived['while'], began, ended]")
        assert times[2] < times[0] < times[3] + 2
        if "sleep" in cell:
            assert times[1] < times[3], "it arrived while the cell ran"
        assert "gone" not in await ada.value("states")
        assert await ada.value("list(room.peers)") == ["Ben"]


# ── ends and new beginnings ─────────────────────────────────────────────────────────────────────────
async def _restart_kernel(kernel: ServerKernel) -> None:
    assert kernel._http is not None
    async with kernel._http.post(f"api/kernels/{kernel.id}/restart") as answer:
        assert answer.status == 200


@pytest.mark.asyncio
async def test_restarted_kernel_is_seen_leaving_and_may_come_again(
    servers: tuple[JupyterServer, JupyterServer],
) -> None:
    async with _kernels(*servers) as (ada, ben):
        await _meet(ada, ben)
        link = await ada.value("room.invite.link")
        began = time.monotonic()
        await _restart_kernel(ben)
        await ada.run('until(lambda: "Ben" not in room.peers or room.peers["Ben"].state == "away", 20)')
        assert time.monotonic() - began < 15
        async with ServerKernel(servers[1], "again.ipynb") as again:
            await again.run(SETUP)
            await again.run(f'room = p2pnb.join({link!r}, name="Ben")')
            await ada.run('until(lambda: any(p.state == "here" for p in room.peers.values()))')
            await again.run('room.chat("back again")')
            await ada.run('until(lambda: "back again" in [m.text for m in room.messages])')


_ENDS = """
import sys, p2pnb
over, link = sys.stdin.readline().split()
room = p2pnb.join(link, "Ben", accept=True, direct_tcp=over == "tcp")
ada = room.peers["Ada"]
import time
end = time.monotonic() + 20
while ada.path != over and time.monotonic() < end: time.sleep(0.01)
print(ada.path, flush=True)
room.send(b"x" * 20_000_000, "unfinished")
"""


@pytest.mark.parametrize("over", ["tcp", "webrtc"])
def test_script_that_ends_with_a_direct_path_ends_cleanly(
    servers: tuple[JupyterServer, JupyterServer], tmp_path: Path, over: str
) -> None:
    """aiortc's tasks and sockets included: no traceback, no warning, no hang, a goodbye."""
    with p2pnb.create("Ada", hub=servers[0].hub, folder=tmp_path) as ada:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-W", "default", "-c", _ENDS], input=f"{over} {ada.invite.link}\n", capture_output=True,
            text=True, timeout=60, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, f"{over}\n")
        ours = [line for line in done.stderr.splitlines() if "site-packages" not in line and "Warning" not in line]
        assert "Traceback" not in done.stderr, done.stderr
        assert "Task was destroyed" not in done.stderr, done.stderr
        assert len(ours) == done.stderr.count("ResourceWarning"), done.stderr
        assert time.monotonic() - began < 20
        until(lambda: not ada.peers, "it is seen leaving", 2)


@pytest.mark.asyncio
async def test_hub_killed_and_restarted_while_a_direct_path_carries(tmp_path: Path) -> None:
    """F3 with a real server: kill -9, nothing of it left but its key; the same port, an empty memory.

    The kernels belong to another server, since those of a killed one would go with it.
    """
    ben_server = JupyterServer("ben", tmp_path, lab=False)
    hub = JupyterServer("hub", tmp_path, lab=False)
    with ben_server:
        hub.start()
        try:
            async with _kernels(ben_server, ben_server) as (ada, ben):
                await _meet(ada, ben, settings=f", hub={hub.hub!r}")
                await _direct(ada, ben)
                await ada.run('sent = room.send(b"y" * 30_000_000, "through it all")')
                hub.kill()
                await ada.run('until(lambda: room.state == "reconnecting")')
                await ada.run('room.chat("the hub is dead")\nsent.result(60)')
                await ben.run('until(lambda: [m.text for m in room.messages] == ["the hub is dead"])')
                assert await ben.value('len(room.receive("through it all", 5))') == 30_000_000
                hub.start()
                for kernel in (ada, ben):
                    await kernel.run('until(lambda: room.state == "open", 40)')
                    await kernel.run('until(lambda: all("relay" in p.paths for p in room.peers.values()), 40)')
                assert await ada.value('room.peers["Ben"].path') == "tcp"
                async with ServerKernel(ben_server, "carl.ipynb") as carl:
                    await carl.run(SETUP)
                    await carl.run(f'room = p2pnb.join({await ada.value("room.invite.link")!r}, name="Carl")')
                    await carl.run('until(lambda: set(room.peers) == {"Ada", "Ben"})')
        finally:
            hub.stop()


# ── the main job at its size ────────────────────────────────────────────────────────────────────────
@pytest.mark.asyncio
async def test_table_of_ten_million_rows_comes_equal(servers: tuple[JupyterServer, JupyterServer]) -> None:
    make = """
import numpy as np, pandas as pd
rng = np.random.default_rng(7)
n = 10_000_000
table = pd.DataFrame({
    "when": pd.date_range("2020-01-01", periods=n, freq="s", tz="Europe/Berlin"),
    "price": rng.random(n, dtype="float32"),
    "kind": pd.Categorical.from_codes(rng.integers(0, 3, n, dtype="int8"), ["a", "b", "ü"]),
    "count": rng.integers(-100, 100, n, dtype="int16"),
})
"""
    async with _kernels(*servers) as (ada, ben):
        await _meet(ada, ben, settings=', relay="only"')  # the value is what is tested here, not the path
        await asyncio.gather(ada.run(make), ben.run(make))
        waiting = asyncio.create_task(ben.run('got = room.receive("table", 100)'))
        await ada.run('room.send(table, "table").result(100)')
        await waiting
        # not pd.testing: it takes more than a minute for so many times in a zone
        await ben.run("assert got.equals(table) and got.dtypes.equals(table.dtypes) and got.index.equals(table.index)")
        facts: Any = await ben.value("[len(got), list(got['kind'].cat.categories)]")
        assert facts == [10_000_000, ["a", "b", "ü"]]


def test_module_runs_as_the_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "p2pnb", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"p2pnb {p2pnb.__version__}\n")


def test_demo_runs_to_its_end(tmp_path: Path) -> None:
    entry = "import sys; from p2pnb.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", entry, "demo", "--exit"], env={**os.environ, "TMPDIR": str(tmp_path)}, cwd=tmp_path,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Every byte was compared on both sides: all equal." in done.stdout
    assert len(re.findall(r" equal$", done.stdout, re.MULTILINE)) == 6
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
