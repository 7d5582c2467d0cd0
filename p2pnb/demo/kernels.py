"""Code in a Jupyter server's kernel, over the server's own HTTP and WebSocket API, as a front end does it."""

from __future__ import annotations

import asyncio
import json
import uuid
from types import TracebackType
from typing import Any, Final

import aiohttp

from p2pnb.demo.servers import JupyterServer
from p2pnb.errors import P2PError

__all__ = ["KernelError", "ServerKernel"]

START_TIMEOUT_S: Final = 60.0
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024


class KernelError(P2PError):
    """The code raised; the text ends with the traceback."""


class ServerKernel:
    """One kernel of one server. An async context manager: the kernel ends with the block."""

    def __init__(self, server: JupyterServer, notebook: str = "") -> None:
        self._server = server
        self._notebook = notebook or f"{server.name}.ipynb"
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.id = ""

    async def __aenter__(self) -> ServerKernel:
        headers = {"Authorization": f"token {self._server.token}"}
        self._http = aiohttp.ClientSession(base_url=self._server.url, headers=headers)
        session = {"path": self._notebook, "type": "notebook", "name": self._notebook, "kernel": {"name": "python3"}}
        async with self._http.post("api/sessions", json=session) as answer:
            if answer.status != 201:
                raise P2PError(f"{self._server.name}'s server started no kernel: {await answer.text()}")
            self.id = (await answer.json())["kernel"]["id"]
        self._socket = await self._http.ws_connect(
            f"api/kernels/{self.id}/channels",
            max_msg_size=MAX_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=2),
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            await self.run("pass")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        if self._socket is not None:
            await self._socket.close()
        try:
            async with self._http.delete(f"api/kernels/{self.id}"):
                pass
        except aiohttp.ClientError:
            pass  # the server is gone, and the kernel with it
        await self._http.close()

    async def run(self, code: str) -> str:
        """Run code, wait for its end, and return what it printed. Raises KernelError if it raises."""
        assert self._socket is not None
        request = uuid.uuid4().hex
        header = {"msg_id": request, "msg_type": "execute_request", "username": "", "session": "demo", "version": "5.3"}
        await self._socket.send_json(
            {
                "channel": "shell",
                "header": header,
                "parent_header": {},
                "metadata": {},
                "content": {"code": code, "silent": False, "store_history": True, "allow_stdin": False},
                "buffers": [],
            }
        )
        printed: list[str] = []
        problem = ""
        idle = replied = False
        while not (idle and replied):
            frame = await self._socket.receive()
            if frame.type is not aiohttp.WSMsgType.TEXT:
                if frame.type is aiohttp.WSMsgType.BINARY:
                    continue  # widgets' messages with buffers
                raise P2PError(f"The connection to {self._server.name}'s kernel ended ({frame.type.name}).")
            message: dict[str, Any] = json.loads(frame.data)
            if message.get("parent_header", {}).get("msg_id") != request:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    printed.append(content["text"])
                case "error":
                    problem = "\n".join(content["traceback"])
                case "execute_reply":
                    replied = True
                case "status" if content["execution_state"] == "idle":
                    idle = True
        if problem:
            raise KernelError(f"{self._server.name}'s kernel raised:\n{problem}")
        return "".join(printed)

    async def value(self, expression: str) -> Any:
        """Return the value of an expression that JSON can carry."""
        printed = await self.run(f"import json as _json\nprint(_json.dumps({expression}))")
        return json.loads(printed.strip().splitlines()[-1])
