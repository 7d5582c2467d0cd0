"""What to send instead of a value that no codec takes."""

from __future__ import annotations

import enum
import io
import os
from collections.abc import Iterable

__all__ = ["advice_for"]


def advice_for(value: object) -> str:
    """Return what to send instead of a value no codec takes, as the second half of a sentence."""
    kind = type(value)
    modules = {base.__module__.split(".", 1)[0] for base in kind.__mro__}
    if isinstance(value, type) or (
        callable(value) and modules <= {"builtins", "__main__", "functools", kind.__module__}
    ):
        return "code can't be sent, only data; send its source as text, or its results"
    if isinstance(value, io.IOBase):
        return "send its content, or the file with room.send_file(path)"
    if isinstance(value, enum.Enum):
        return "send value.value or value.name"
    if isinstance(value, os.PathLike):
        return "send str(path), or the file itself with room.send_file(path)"
    if modules & {"torch", "tensorflow", "jax", "jaxlib", "cupy"}:
        if modules & {"torch"} and hasattr(value, "state_dict"):
            return "send its weights: {name: t.numpy(force=True) for name, t in model.state_dict().items()}"
        return "send it as a numpy array: t.numpy(force=True) or numpy.asarray(t)"
    if modules & {"sklearn", "xgboost", "lightgbm", "keras", "statsmodels"}:
        return "send its parameters as a dict of numpy arrays, or save it to a file and use room.send_file"
    if modules & {"scipy"}:
        return "send its parts as numpy arrays, such as (m.data, m.indices, m.indptr, m.shape)"
    if isinstance(value, tuple | list | dict | set | frozenset | str | bytes | int | float):
        base = next(base for base in kind.__mro__ if base.__module__ == "builtins")
        return f"send {base.__name__}(value)"
    if isinstance(value, Iterable):
        return "send list(value)"
    if hasattr(value, "__array__"):
        return "send numpy.asarray(value)"
    return "send its data as a dict, list, dataclass, numpy array or DataFrame, or register_codec one for it"
