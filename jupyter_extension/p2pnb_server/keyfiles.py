"""The two files of a hub on disk, both for this user's eyes only (0600).

The *hub key* signs tickets and resume secrets. It lives in the data directory, since it has to outlive the
server. A key that somebody else could have read, or that is not a plain file of this user, is not used: it is
replaced by a fresh one, which costs no more than the reconnection of peers across that one restart (rejected:
refusing to start, because a careless `chmod -R` would then take rooms away for good). Where the file system
can't keep a file private, the key stays in memory.

The *kernel file* tells this server's kernels where their hub is and gives them a secret that is good for
p2pnb's own routes, so that no kernel handles the Jupyter token. It lives in the runtime directory, is found
through the environment variable SERVER_FILE_VARIABLE, and goes when the server goes. It is not written at all
where it can't be private.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from p2pnb_server.seals import HUB_KEY_BYTES

__all__ = ["SERVER_FILE_VARIABLE", "NotPrivateError", "load_hub_key", "read_secret", "remove_file", "write_kernel_file"]

SERVER_FILE_VARIABLE: Final = "P2PNB_SERVER_FILE"
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_OLD: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_SECRET_BYTES_MAX: Final = 4096


class NotPrivateError(OSError):
    """A file with a secret can be read by others, or isn't a plain file of this user."""


def load_hub_key(folder: Path) -> tuple[bytes, str]:
    """Return the hub key in `folder`, made if need be, and what to warn about ("" if nothing)."""
    path = folder / "hub-key"
    warning = ""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name != "nt":
            os.chmod(folder, 0o700)  # fails where the folder is somebody else's
        try:
            return _read_key(path), ""
        except FileNotFoundError:
            pass
        except OSError as error:
            warning = f"{error} It was replaced by a new one."
            path.unlink(missing_ok=True)
        return _make_key(path), warning
    except OSError as error:
        text = f"The key of the p2pnb hub can't be kept in a file ({error}); rooms will not outlive this server."
        return secrets.token_bytes(HUB_KEY_BYTES), text


def write_kernel_file(path: Path, content: dict[str, object]) -> None:
    """Write `content` as JSON into a new file with mode 0600; raises OSError where that can't be had."""
    path.unlink(missing_ok=True)  # of an earlier process with this pid
    _write_new(path, json.dumps(content).encode())


def read_secret(path: Path) -> bytes:
    """Return the content of a small secret file without surrounding space; raises NotPrivateError, OSError."""
    descriptor = os.open(path, _OLD)
    try:
        _check_private(os.fstat(descriptor), path)
        content = os.read(descriptor, _SECRET_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(content) > _SECRET_BYTES_MAX:
        raise NotPrivateError(f"{path} is too large for a file with a secret.")
    return content.strip()


def remove_file(path: Path) -> None:
    """Remove a file if it is there."""
    path.unlink(missing_ok=True)


def _read_key(path: Path) -> bytes:
    text = read_secret(path)
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != HUB_KEY_BYTES:
        raise NotPrivateError(f"{path} does not hold a hub key.")
    return key


def _make_key(path: Path) -> bytes:
    """Make the key file in one step that two servers can take at once: the first one wins."""
    draft = path.with_name(f"hub-key.{os.getpid()}.{secrets.token_hex(4)}")
    _write_new(draft, secrets.token_hex(HUB_KEY_BYTES).encode() + b"\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        remove_file(draft)
    return _read_key(path)


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _NEW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _check_private(os.fstat(file.fileno()), path)
            file.write(content)
    except BaseException:
        remove_file(path)
        raise


def _check_private(found: os.stat_result, path: Path) -> None:
    if os.name == "nt":  # no such modes there; the profile folder's access list protects it
        return
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise NotPrivateError(f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}) or not a plain file.")
