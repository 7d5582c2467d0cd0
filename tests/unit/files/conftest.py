"""What the tests of files share: a user without root's rights, and a disk that is soon full."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of a user whom permissions stop; the test runs as that user (root is stopped by none)."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        if os.geteuid() != 0:
            yield Path(scratch)
            return
        os.chown(scratch, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(scratch)
        finally:
            os.seteuid(0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB and 200 files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=200", "tmpfs", disk],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk; mounting a tmpfs needs root ({mounted.stderr.strip()})")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
