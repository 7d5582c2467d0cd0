"""The hub of p2pnb: hosts rooms on a Jupyter server.

`router` decides (no I/O), `switchboard` drives it over sockets, `jupyter` is the server extension.
"""

from __future__ import annotations

from typing import Any

__all__ = ["_jupyter_server_extension_points"]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell a Jupyter server what to load."""
    from p2pnb_server.jupyter import P2PApp  # only a Jupyter server needs it

    return [{"module": "p2pnb_server.jupyter", "app": P2PApp}]
