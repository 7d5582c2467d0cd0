"""libwebrtc, the engine of Chrome, behind aiortc's interface: the optional package `wrtc` (``p2pnb[fast]``).

It does in threads of its own, without the interpreter's lock, what aiortc does in Python. Its interface for
aiortc's users (`webrtc.aiortc`) has aiortc's names and events, so `webrtc.py` needs nothing else from here.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["load"]


def load() -> Any:
    """Import and return the module with aiortc's interface; ImportError where it is missing or broken."""
    return importlib.import_module("webrtc.aiortc")
