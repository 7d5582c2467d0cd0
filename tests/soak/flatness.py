"""Whether what a process holds stays flat: a line through the low points of the second half of its samples.

Memory breathes with what is under way, so the floor of every span of time counts, not its peaks, and what a room
keeps for the next object is taken off. What it keeps by contract grows at first (its last 10,000 messages, its last
transfers); the bound leaves room for that, and none for a leak of one buffer per fault or one object per transfer.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Final

import numpy as np

SPANS: Final = 6
GROWTH_LIMITS: Final = {"used": 48 << 20, "fds": 6.0, "threads": 3.0, "tasks": 10.0}  # over the second half, in all


class Flatness:
    """The samples of one process between two moments."""

    def __init__(self, samples: list[dict[str, Any]], began: float, ended: float) -> None:
        middle = (began + ended) / 2
        for sample in samples:
            sample["used"] = sample["rss"] - sample["kept"]
        self._samples = [sample for sample in samples if middle <= sample["time"] <= ended]
        self._seconds = max(ended - middle, 1e-3)
        self._peak = max((sample["rss"] for sample in samples), default=0)

    def growth(self, what: str) -> float:
        """Growth over the second half: the median slope between the floors of its spans (Theil and Sen)."""
        if len(self._samples) < SPANS:
            return 0.0
        times = np.array([sample["time"] for sample in self._samples])
        values = np.array([sample[what] for sample in self._samples], float)
        spans = np.array_split(np.arange(len(values)), SPANS)
        centres = np.array([times[span].mean() for span in spans])
        floors = np.array([values[span].min() for span in spans])
        slopes = [(floors[b] - floors[a]) / (centres[b] - centres[a]) for a, b in combinations(range(SPANS), 2)]
        return float(np.median(slopes)) * self._seconds

    def problems(self) -> list[str]:
        """Say what grew beyond its limit."""
        return [
            f"{what} grew by {self.growth(what):,.0f} in the second half"
            for what, limit in GROWTH_LIMITS.items()
            if self.growth(what) > limit
        ]

    def summary(self) -> dict[str, Any]:
        last = self._samples[-1] if self._samples else {}
        return {
            "rss_mib": round(last.get("rss", 0) / 2**20, 1),
            "rss_peak_mib": round(self._peak / 2**20, 1),
            "used_slope_mib_per_min": round(self.growth("used") / 2**20 / (self._seconds / 60), 2),
            **{what: last.get(what) for what in ("fds", "threads", "tasks")},
            **{f"{what}_growth": round(self.growth(what), 1) for what in ("fds", "threads", "tasks")},
        }
