"""What the user types in this notebook to get at a room."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["expression_for"]

USUAL = "room"


def expression_for(room: object, panel: object) -> str:
    """Return a Python expression for `room`: a variable, else the panel's attribute, else the usual name."""
    names = _user_names()
    for wanted, suffix in ((room, ""), (panel, ".room")):
        found = [name for name, value in names.items() if value is wanted and name.isidentifier()]
        if found:
            # IPython keeps results as _, __ and _12: better a name that the user gave, then one that stays.
            return min(found, key=lambda name: (name.startswith("_"), name.strip("_") == "", len(name), name)) + suffix
    return USUAL


def _user_names() -> dict[str, Any]:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return {} if shell is None else dict(shell.user_ns)
