"""A Jupyter server as a child process, apart from whatever else this user runs.

Runtime, data and configuration folders are temporary ones; only the kernelspec of the running Python is used.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from p2pnb.errors import P2PError

__all__ = ["JupyterServer"]

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
LOOPBACK: Final = "127.0.0.1"


class JupyterServer:
    """One server. Use it as a context manager; it ends with the block."""

    def __init__(
        self, name: str, folder: Path, *, base_url: str = "/", lab: bool = True, options: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.token = secrets.token_hex(16)
        self.root = folder / name
        self.root.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        self.base_url = base_url
        self.log = folder / f"{name}.log"
        self._private = folder / f".{name}"
        self._lab = lab and find_spec("jupyterlab") is not None
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the server, ending in "/"."""
        return f"http://{LOOPBACK}:{self.port}{self.base_url}"

    @property
    def hub(self) -> str:
        """Address with the token, as `p2pnb.create(hub=…)` takes it."""
        return f"{self.url}?token={self.token}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def page(self, path: str = "") -> str:
        """Return the address at which a browser opens a notebook of this server."""
        place = f"lab/tree/{path}" if self._lab else f"tree/{path}"
        return f"{self.url}{place}?token={self.token}"

    def start(self) -> JupyterServer:
        """Start it and wait until its p2pnb answers."""
        app = "jupyterlab" if self._lab else "jupyter_server"
        command = [
            sys.executable, "-m", app,
            f"--ServerApp.ip={LOOPBACK}", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0",
            f"--ServerApp.base_url={self.base_url}", f"--ServerApp.root_dir={self.root}",
            "--ServerApp.open_browser=False", "--ServerApp.allow_root=True",
            "--ServerApp.jpserver_extensions={'p2pnb_server': True}",
            *(("--LabApp.news_url=None",) if self._lab else ()),
            *self._options,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                tail = self.log.read_text(errors="replace")[-2000:]
                raise P2PError(f"The Jupyter server for {self.name} did not start. Its log ends with:\n{tail}")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """End it and its kernels."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it as a crash would: nothing of it gets to say goodbye."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> JupyterServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY_", "P2PNB"))}
        for variable, name in (
            ("JUPYTER_RUNTIME_DIR", "runtime"), ("JUPYTER_DATA_DIR", "data"), ("JUPYTER_CONFIG_DIR", "config"),
            ("JUPYTERLAB_SETTINGS_DIR", "settings"), ("JUPYTERLAB_WORKSPACES_DIR", "workspaces"),
            ("IPYTHONDIR", "ipython"),
        ):  # fmt: skip
            place = self._private / name
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            env[variable] = str(place)
        quiet = self._private / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        quiet.parent.mkdir(parents=True, exist_ok=True)
        quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # no toast over the demo, no request
        env["JUPYTER_TOKEN"] = self.token  # not in the arguments: those every user of the machine can read
        return env

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}p2pnb/health", timeout=2) as answer:  # noqa: S310 - http on loopback
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


def notebooks() -> Path:
    """Return the folder of the demo notebooks: in the wheel, or in the checkout."""
    here = Path(__file__).resolve().parent
    for place in (here / "notebooks", here.parents[1] / "notebooks"):
        if place.is_dir():
            return place
    raise P2PError("The demo notebooks are missing from this installation of p2pnb.")


def copy_notebooks(server: JupyterServer) -> None:
    """Put the demo notebooks into a server's folder."""
    for source in notebooks().glob("*.ipynb"):
        shutil.copy(source, server.root / source.name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: Any = probe.getsockname()[1]
        return int(port)
