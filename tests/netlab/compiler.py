"""Builds `line.c` when it is needed, once per version of the source."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["CannotCompile", "compiled_line"]

SOURCE: Final = Path(__file__).with_name("line.c")
COMPILE_TIMEOUT_S: Final = 60.0


class CannotCompile(Exception):
    """There is no C compiler here, or it refused; the text says which."""


def compiled_line(cache: Path | None = None) -> Path:
    """Return the program, compiling it into the user's cache folder (not /tmp, where others could put one first)."""
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "p2pnb-netlab"
    version = hashlib.sha256(SOURCE.read_bytes() + platform.machine().encode()).hexdigest()[:16]
    program = folder / f"line-{version}"
    if program.exists():
        return program
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise CannotCompile("no C compiler (cc, gcc or clang) on PATH; on Debian: apt-get install gcc libc6-dev")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = folder / f".{program.name}-{os.getpid()}"
    try:
        subprocess.run(
            [compiler, "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(SOURCE)],
            check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S,
        )  # fmt: skip
        fresh.replace(program)  # whole or not at all, also with two runs at once
    except subprocess.CalledProcessError as error:
        raise CannotCompile(f"{compiler} could not build {SOURCE.name}:\n{error.stderr[-1500:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompile(f"{compiler} could not build {SOURCE.name}: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return program
