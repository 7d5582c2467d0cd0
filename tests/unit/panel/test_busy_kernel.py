"""A real kernel that runs a cell, and a panel whose user goes on clicking."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from p2pnb.panel import widget

CELL_S = 4.0
REPO = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(not widget._BUILT, reason="the front end is not built: run `make build`")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingKernelClient]:
    path = os.pathsep.join([str(REPO), str(REPO / "jupyter_extension")])
    monkeypatch.setenv("PYTHONPATH", path)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    """Run a cell to its end; return the data of the comm that it opened."""
    opened: list[dict[str, Any]] = []

    def look(message: dict[str, Any]) -> None:
        if message["msg_type"] == "comm_open" and message["content"]["data"]["state"].get("view") == "all":
            opened.append(message["content"])

    reply = client.execute_interactive(code, timeout=60, output_hook=look)
    assert reply["content"]["status"] == "ok", reply["content"]
    return opened[0] if opened else {}


def subshell_of(client: BlockingKernelClient) -> str:
    request = client.session.msg("create_subshell_request", {})
    client.control_channel.send(request)
    while True:
        reply = client.control_channel.get_msg(timeout=10)
        if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
            return str(reply["content"]["subshell_id"])


def tell(client: BlockingKernelClient, comm_id: str, subshell: str, content: dict[str, Any]) -> None:
    """Send a widget's custom message as JupyterLab from 4.4 on does: on a subshell."""
    data = {"method": "custom", "content": content}
    message = client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
    message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)


def answer(client: BlockingKernelClient, command_id: int) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        message = client.get_iopub_msg(timeout=30)
        content = message["content"].get("data", {}).get("content", {}) if message["msg_type"] == "comm_msg" else {}
        if content.get("kind") == "ack" and content.get("id") == command_id:
            return dict(content)
    raise AssertionError("no answer")


def test_a_chat_message_goes_out_while_a_cell_runs_and_another_came_in(kernel: BlockingKernelClient) -> None:
    comm = run(
        kernel,
        "from p2pnb.panel import Panel\n"
        "from tests.unit.panel.fake_room import FakeRoom, FakeMessage\n"
        "import time, threading\n"
        "room = FakeRoom(); panel = Panel(room)",
    )["comm_id"]
    subshell = subshell_of(kernel)
    tell(kernel, comm, subshell, {"id": 1, "cmd": "snapshot"})
    assert answer(kernel, 1)["ok"]
    # A message from somebody else arrives during the cell: the panel sends from its own thread then, which is what
    # makes ipykernel 7.4 send the front end's next message to the main shell.
    kernel.execute(
        "def come():\n"
        "    room.messages.append(FakeMessage('x', 'hello')); room.emit('message')\n"
        f"threading.Timer(0.3, come).start(); time.sleep({CELL_S})"
    )
    while True:
        message = kernel.get_iopub_msg(timeout=30)
        content = message["content"].get("data", {}).get("content", {}) if message["msg_type"] == "comm_msg" else {}
        if content.get("kind") == "patch" and "messages" in content["changes"] | content["appends"]:
            break
    begun = time.monotonic()
    tell(kernel, comm, subshell, {"id": 2, "cmd": "chat", "text": "still here"})
    assert answer(kernel, 2)["ok"]
    assert time.monotonic() - begun < CELL_S / 2
