"""How a process finds the Jupyter server that hosts its rooms.

In this order, and never "the first server that happens to run":

1. `hub=` or the environment variable P2PNB_HUB: the address the user gave;
2. the file named by P2PNB_SERVER_FILE, which the server extension puts into its kernels' environment: local
   address and a secret that is good for p2pnb's own routes only;
3. ``jpserver-<pid>.json`` of the parent process (or its parents), if that server answers on p2pnb's health route.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from p2pnb.engine.hub_client import HubAddress
from p2pnb.errors import HubError, HubUnavailableError, NoHubError, UsageError
from p2pnb.protocol.hub import KERNEL_SECRET_HEADER, RoomCreated

__all__ = ["OwnServer", "create_room", "find_server"]

CALL_TIMEOUT_S: Final = 10.0
PROBE_TIMEOUT_S: Final = 2.0
_MAX_ANCESTORS: Final = 8


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A Jupyter server that takes this process's word for its user's."""

    address: HubAddress
    headers: dict[str, str] = field(repr=False, default_factory=dict)
    public_url: str = ""
    own: bool = False  # this kernel's own server, which its user's browser sees, too
    needs_probe: bool = False  # found by process id: make sure that it is alive and has p2pnb

    @property
    def url(self) -> str:
        return self.address.url


def find_server(hub: str | None = None) -> OwnServer:
    """Return the server for this process's rooms. Raises NoHubError, or UsageError for an address that is none."""
    given = hub or os.environ.get("P2PNB_HUB", "")
    if given:
        return _from_url(given)
    path = os.environ.get("P2PNB_SERVER_FILE", "")
    if path and (server := _from_kernel_file(Path(path))) is not None:
        return server
    for pid in _ancestors():
        if (server := _from_jupyter_file(pid)) is not None:
            return server
    raise NoHubError(
        "No Jupyter server with p2pnb was found for this process. In a notebook: install p2pnb in the environment "
        "of the Jupyter server and restart it. Elsewhere: give its address, as in "
        'hub="http://localhost:8888/?token=…", or set P2PNB_HUB to it.'
    )


async def create_room(server: OwnServer) -> RoomCreated:
    """Ask a server for a new room."""
    import aiohttp
    import msgspec

    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    try:
        async with await server.address.session() as http:
            if server.needs_probe:
                await _probe(http, server)
            async with http.post(
                server.address.route("api/rooms"),
                headers=server.headers,
                json={},
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                body = await answer.content.read(64 * 1024)
                if answer.status != 201:
                    raise _creation_refused(answer.status, body, server.url)
        return msgspec.json.decode(body, type=RoomCreated)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        reason = str(error) or "it does not answer"
        raise HubUnavailableError(
            f"The Jupyter server at {server.url} can't be reached ({reason}). Check that it runs."
        ) from error
    except msgspec.MsgspecError as error:
        raise HubError(f"The server at {server.url} did not answer as a p2pnb hub. Update p2pnb there.") from error


async def _probe(http: Any, server: OwnServer) -> None:
    import aiohttp

    try:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with http.get(server.address.route("health"), timeout=timeout, allow_redirects=False) as answer:
            found = answer.status == 200 and "p2pnb" in await answer.json()
    except (aiohttp.ClientError, ValueError):
        found = False
    if not found:
        raise NoHubError(
            f"The Jupyter server of this kernel ({server.url}) has no p2pnb. Install p2pnb in the environment of the "
            "server (not only of the kernel), restart it, and see `jupyter server extension list`."
        )


def _creation_refused(status: int, body: bytes, url: str) -> HubError:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    # p2pnb's own refusals have a code; Jupyter's talk of what its own pages lack
    message = str(answer.get("message", ""))[:500] if isinstance(answer, dict) and "code" in answer else ""
    if message:
        return HubError(f"The server at {url} did not create a room: {message}")
    if status in (301, 302, 303, 307, 308, 401, 403):
        return HubError(
            f"The server at {url} does not take this process for its user (status {status}). Give its token, as in "
            'hub="http://localhost:8888/?token=…".'
        )
    if status == 404:
        return HubError(f"The server at {url} has no p2pnb. Install p2pnb in its environment and restart it.")
    return HubError(f"The server at {url} did not create a room (status {status}).")


def _from_url(text: str) -> OwnServer:
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{_without_query(text)!r} is not the address of a server; it must begin with http:// or https://."
        )
    token = parse_qs(parts.query).get("token", [""])[0] or os.environ.get("P2PNB_HUB_TOKEN", "")
    path = parts.path.rstrip("/")
    for page in ("/lab", "/tree", "/notebooks"):  # what people copy from the browser
        if page in path:
            path = path[: path.index(page)]
    url = urlunsplit((parts.scheme, parts.netloc, f"{path}/", "", ""))
    return OwnServer(HubAddress(url), {"Authorization": f"token {token}"} if token else {})


def _without_query(text: str) -> str:
    return text.split("?", maxsplit=1)[0][:200]


def _from_kernel_file(path: Path) -> OwnServer | None:
    data = _private_json(path)
    if data is None or not isinstance(data.get("url"), str) or not isinstance(data.get("secret"), str):
        return None
    parent = os.environ.get("JPY_PARENT_PID", "")
    if os.name == "posix" and parent.isdigit() and data.get("pid") != int(parent):
        return None  # inherited: this kernel's server was itself started from a terminal of that one
    address = HubAddress(_slashed(data["url"]), str(data.get("sock") or ""))
    return OwnServer(address, {KERNEL_SECRET_HEADER: data["secret"]}, str(data.get("public_url") or ""), own=True)


def _from_jupyter_file(pid: int) -> OwnServer | None:
    from jupyter_core.paths import jupyter_runtime_dir

    data = _private_json(Path(jupyter_runtime_dir()) / f"jpserver-{pid}.json")
    if data is None or not isinstance(data.get("url"), str):
        return None
    sock = str(data.get("sock") or "")
    url = f"http://localhost{data.get('base_url') or '/'}" if sock else data["url"]
    token = str(data.get("token") or "")
    headers = {"Authorization": f"token {token}"} if token else {}
    return OwnServer(HubAddress(_slashed(url), sock), headers, own=True, needs_probe=True)


def _private_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file that only this user can write; None if there is none."""
    try:
        info = path.stat()
        if os.name == "posix" and (info.st_uid != os.getuid() or info.st_mode & stat.S_IWOTH):
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _ancestors() -> Iterator[int]:
    """Yield the process ids that may be this kernel's Jupyter server, the nearest first."""
    named = os.environ.get("JPY_PARENT_PID", "")
    if os.name == "posix" and named.isdigit():
        yield int(named)
    pid = os.getppid()
    for _ in range(_MAX_ANCESTORS):
        if pid <= 1:
            return
        yield pid
        pid = _parent(pid)


def _parent(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return int(fields[1])
    except (OSError, ValueError, IndexError):
        return 0


def _slashed(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"
