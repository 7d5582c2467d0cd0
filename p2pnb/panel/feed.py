"""Numbered snapshots and patches of a panel's state, coalesced.

A slice that changed is marked and waits for its time; what was marked in between goes in one patch. Time
is passed in. `mark` may be called from any thread, all else by the one that sends.

Rejected: sending each event as it comes, because a transfer makes thousands a second and the Jupyter
server drops everything of a kernel that sends more than a thousand messages a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["Feed"]

PATCH_INTERVAL_S: Final = 0.05  # at most 20 messages a second
PROGRESS_INTERVAL_S: Final = 0.25  # bars move four times a second
SHARES_INTERVAL_S: Final = 0.5  # the largest slice, with previews, and any peer can make it change
GROWING: Final = frozenset({"messages", "items"})  # lists with keys; what is added goes alone
_SLOW: Final = {"transfers": PROGRESS_INTERVAL_S, "shares": SHARES_INTERVAL_S}

Slices = Mapping[str, Callable[[], Any]]


class Feed:
    """The state as the front ends have it, and what they lack."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self._sent: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._marked: set[str] = set()
        self._last_patch = float("-inf")
        self._last_slow = dict.fromkeys(_SLOW, float("-inf"))
        self.seq = 0

    def mark(self, *names: str) -> bool:
        """Say that slices changed; True if that was not known yet."""
        with self._lock:
            before = len(self._marked)
            self._marked.update(names)
            return len(self._marked) > before

    def next_time(self) -> float | None:
        """Return when `patch` will have something to look at; None while nothing is marked."""
        with self._lock:
            times = [self._time(name) for name in self._marked]
        return min(times, default=None)

    def patch(self, now: float, *, all_marked: bool = False) -> dict[str, Any] | None:
        """Return what changed of the slices whose time has come (or of `all_marked` ones); None if nothing did."""
        with self._lock:
            due = {name for name in self._marked if all_marked or self._time(name) <= now}
            self._marked -= due
        if not due:
            return None
        self._last_patch = now
        self._last_slow |= dict.fromkeys(due & self._last_slow.keys(), now)
        changes: dict[str, Any] = {}
        appends: dict[str, list[Any]] = {}
        for name in sorted(due):
            value = self._slices[name]()
            before = self._sent.get(name)
            if name in self._sent and value == before:
                continue
            added = _added(before, value) if name in GROWING and before is not None else None
            if added:
                appends[name] = added
            else:
                changes[name] = value
            self._sent[name] = value
        if not changes and not appends:
            return None
        self.seq += 1
        return {"kind": "patch", "seq": self.seq, "changes": changes, "appends": appends}

    def snapshot(self) -> dict[str, Any]:
        """Return the whole state as of now. Other front ends that listen learn of changes by their next patch."""
        with self._lock:
            self._marked.clear()  # before looking: what changes meanwhile is marked again
        state = {name: describe() for name, describe in self._slices.items()}
        if any(self._sent.get(name) != value for name, value in state.items()):
            # It contains what no patch carried. A snapshot goes to every front end, so nothing is missed; but
            # one that is older than it, on its way still, must not be taken for the next.
            self.seq += 1
        self._sent = state
        return {"kind": "snapshot", "seq": self.seq, "state": state}

    def _time(self, name: str) -> float:
        if name in _SLOW:
            return self._last_slow[name] + _SLOW[name]
        return self._last_patch + PATCH_INTERVAL_S


def _added(before: list[Any], now: list[Any]) -> list[Any] | None:
    """Return what `now` has beyond `before`, from whose beginning entries may have been dropped; None if it differs."""
    if not before or not now:
        return None
    last = before[-1]["key"]
    for index in range(len(now) - 1, -1, -1):
        if now[index]["key"] == last:
            kept = index + 1
            return now[kept:] if kept <= len(before) and now[:kept] == before[len(before) - kept :] else None
    return None
