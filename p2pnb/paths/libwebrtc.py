"""libwebrtc, the engine of Chrome, behind aiortc's interface: the optional package `wrtc` (``p2pnb[fast]``).

It does in threads of its own, without the interpreter's lock, what aiortc does in Python. Its interface for
aiortc's users (`webrtc.aiortc`) has aiortc's names and events, so `webrtc.py` needs nothing else from here.

What to know of wrtc 0.1, all of it held by `tests/conformance/test_libwebrtc.py`:

* Without servers it asks nobody: no STUN, no mDNS, no host names. `webrtc.py` always gives it a list.
* It offers TCP candidates too; the other end's screen drops them, as ours drops the other's.
* Its queue ends at 16 MiB: a sender beyond that gets an exception, which `webrtc.py` makes the end of the lane.
* `bufferedAmount` counts what is not in packets yet, not what is under way; there is no window to look at.
* One packet tells the other end of a close. Where that is lost on a full line, the other end hears after some 30 s.
* After a fork its threads exist in the parent only. In the child its objects may be dropped, and new connections
  may be made, but a call on an old one waits for ever: the engine forgets its paths there, and closes none.
* Its congestion control is SCTP's: 0.3 MB/s per connection at 50 ms and 1 % loss, where several add up; aiortc with
  our data plane (`_sctp`) is faster there with one.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["load"]


def load() -> Any:
    """Import and return the module with aiortc's interface; ImportError where it is missing or broken."""
    return importlib.import_module("webrtc.aiortc")
