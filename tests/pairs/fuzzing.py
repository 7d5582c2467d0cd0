"""How hard the property tests try: a little by default, for hours with P2PNB_FUZZ=deep."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["DEEP", "tries"]

DEEP = os.environ.get("P2PNB_FUZZ") == "deep"


def tries(examples: int, *, steps: int = 50) -> settings:
    """Settings for `examples` runs (a hundred times as many in depth), state machines of `steps` steps."""
    return settings(
        max_examples=examples * 100 if DEEP else examples,
        stateful_step_count=steps * 2 if DEEP else steps,
        deadline=None,
        database=None,  # runs leave nothing in the tree; a failure prints what repeats it
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
