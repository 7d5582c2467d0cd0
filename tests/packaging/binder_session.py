"""Run notebooks the way a Binder visitor would, and end with an error if any cell fails.

Used by test_binder.py as a script, inside the environment that `binder/postBuild` made; so it needs nothing
but what that installs. Binder starts a plain Jupyter server with a token of its own and any origin allowed;
the server starts the kernels, one for each notebook, and the notebooks run side by side because they meet.
Not nbclient: it would start kernels without a Jupyter server, and a room needs the one its kernel belongs to.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient

__all__ = ["main"]

START_TIMEOUT = 60.0
CELL_TIMEOUT = 120.0


def main(notebooks: list[str]) -> None:
    """Start the server, run the notebooks, stop the server; the current folder is the checkout."""
    token = secrets.token_hex(16)
    runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--ServerApp.allow_origin=*"]
    options += [f"--IdentityProvider.token={token}", "--ServerApp.trust_xheaders=True"]
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options])
    try:
        url = _wait_for_server(server, runtime / f"jpserver-{server.pid}.json")
        with ThreadPoolExecutor(max_workers=len(notebooks)) as pool:
            runs = [pool.submit(_run, notebook, url, token, runtime) for notebook in notebooks]
        for run in runs:
            run.result()
    finally:
        server.terminate()
        server.wait(30)


def _wait_for_server(server: subprocess.Popen[bytes], file: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        if file.is_file():
            url: str = json.loads(file.read_text("utf-8"))["url"]
            return url
        time.sleep(0.05)
    raise TimeoutError("the Jupyter server did not start")


def _run(notebook: str, url: str, token: str, runtime: Path) -> None:
    body = {"path": notebook, "name": Path(notebook).name, "type": "notebook", "kernel": {"name": "python3"}}
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}api/sessions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        kernel = json.load(answer)["kernel"]["id"]
    client = BlockingKernelClient(connection_file=str(runtime / f"kernel-{kernel}.json"))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=START_TIMEOUT)
        for number, cell in enumerate(json.loads(Path(notebook).read_text("utf-8"))["cells"]):
            if cell["cell_type"] != "code":
                continue
            reply = client.execute_interactive("".join(cell["source"]), timeout=CELL_TIMEOUT, allow_stdin=False)
            if reply["content"]["status"] != "ok":
                trace = "\n".join(reply["content"].get("traceback", []))
                raise RuntimeError(f"{notebook}, cell {number}:\n{trace}")
        print(f"{notebook}: every cell ran")
    finally:
        client.stop_channels()


if __name__ == "__main__":
    main(sys.argv[1:])
