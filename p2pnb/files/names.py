"""File names that are safe to show and safe to create.

A name from a peer is one of three things:

* **refused** (`UnsafeNameError`) where it could lead out of the folder, hide what it is, or mean something
  else on another system: separators, dots, control and bidi characters, device names, alternate data streams,
  hidden files. A well-meaning sender never offers one: `portable_name` replaced it before.
* **kept under a harmless name** (`harmless_name`) where the name is honest but some program runs such a file
  unasked: ``conftest.py`` in a folder of code arrives as ``conftest.py.received``. Refusing would make sending a
  project folder fail; keeping the name would run a stranger's code at the next ``pytest`` in that folder.
* **kept**.

The rules are the same on every system, so that a folder that arrives on Linux can be passed on to Windows.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import PurePosixPath
from typing import Final

from p2pnb.errors import UnsafeNameError

__all__ = ["harmless_name", "portable_name", "printable", "safe_name", "safe_relative"]

MAX_NAME_BYTES: Final = 255  # of UTF-8: ext4, XFS, APFS, NTFS all take that
MAX_DEPTH: Final = 64
MAX_PATH_BYTES: Final = 2048  # below PATH_MAX (4096 on Linux) together with the path of the inbox
RECEIVED: Final = ".received"

_MAX_SUFFIX_BYTES: Final = 32  # longer ones are part of the name
_MAX_STACKED_MARKS: Final = 4  # real writing stacks three; more paints over the lines around it
_ESCAPED_CATEGORIES: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
_ZWNJ, _ZWJ, _EMOJI_STYLE = "\u200c", "\u200d", "\ufe0f"
# Invisible or blank although Unicode calls them letters, marks or symbols (UTS #39, default ignorable).
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2065\u2800\u3164\uffa0\ufffc\U0001d159")
_BLANK_RANGES: Final = ((0x180B, 0x180F), (0xFDD0, 0xFDEF), (0xFE00, 0xFE0E), (0xFFF0, 0xFFFB), (0xE0000, 0xE0FFF))
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
# Most names: short, of ASCII, and right as they are unless they are a device's. Spares folders of many files the rest.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_ .()+,=-]{0,120}[A-Za-z0-9_)])?")
# Read or run unasked from the folder they lie in, by Python, pytest, IPython, Jupyter or a desktop.
_SPECIAL: Final = re.compile(
    r"(sitecustomize|usercustomize)(\..*)?|conftest\.py[cdo]?|.*\.pth|jupyter\w*_config\.(py|json)"
    r"|ipython\w*_config\.(py|json)|__pycache__|pyvenv\.cfg|desktop\.ini|autorun\.inf",
    re.IGNORECASE | re.DOTALL,
)
_RESERVED: Final = frozenset('<>"|?*' if os.name == "nt" else "")  # Windows can't create them


def printable(text: str, limit: int = 255) -> str:
    """Return `text` so that showing it can't change, hide or reorder anything on the screen.

    Control, bidi, zero-width and other invisible characters, line ends and lone surrogates appear as
    ``\\x1b`` or ``\\u202e``; joiners stay where emoji and joining scripts need them. At most `limit`
    characters; a longer text ends in ``…``. Only the first `limit` characters of `text` cost time.
    """
    parts: list[str] = []
    length = marks = 0
    for place, char in enumerate(text[: limit + 1]):
        marks = marks + 1 if unicodedata.category(char) in {"Mn", "Me"} else 0
        shown = _escaped(char) if marks > _MAX_STACKED_MARKS or _is_hidden(text, place) else char
        parts.append(shown)
        length += len(shown)
        if length > limit:
            break
    else:
        return "".join(parts)
    while parts and length > limit - 1:
        length -= len(parts.pop())
    return "".join(parts) + "…" if limit > 0 else ""


def safe_name(name: str) -> str:
    """Return `name`, NFC-normalised, if it can be one component of a path; raises UnsafeNameError otherwise."""
    if _is_plain(name):
        return name
    normal = unicodedata.normalize("NFC", name)
    reason = _objection(normal)
    if reason:
        raise UnsafeNameError(
            f"The file name '{printable(name, 80)}' {reason}, so it was not accepted. Ask the sender to rename it."
        )
    return normal


def safe_relative(path: str) -> PurePosixPath:
    """Return the path of a folder's member (separator ``/``), every component a `safe_name`.

    At most 64 components and 2048 bytes of UTF-8. Raises UnsafeNameError.
    """
    return PurePosixPath(*safe_components(path))


def safe_components(path: str) -> list[str]:
    """Do what `safe_relative` does, without the cost of a path object."""
    components = path.split("/", MAX_DEPTH) if len(path) <= MAX_PATH_BYTES else []
    if not 0 < len(components) <= MAX_DEPTH:
        raise UnsafeNameError(
            f"The path '{printable(path, 80)}' is nested too deeply or too long, so it was not accepted. "
            "Ask the sender to send an archive instead."
        )
    safe = [safe_name(component) for component in components]
    if sum(len(component.encode()) + 1 for component in safe) > MAX_PATH_BYTES + 1:
        raise UnsafeNameError(
            f"The path '{printable(path, 80)}' is too long, so it was not accepted. "
            "Ask the sender to send an archive instead."
        )
    return safe


def harmless_name(name: str) -> str:
    """Return a safe `name`, with ``.received`` added if some program would run or obey a file or folder called so."""
    return _with_suffix(name, RECEIVED) if _SPECIAL.fullmatch(name) else name


def portable_name(name: str) -> str:
    """Return the nearest name that `safe_name` accepts on any system; for the sender's own files.

    Forbidden characters become ``_``; a leading dot or tilde and a device name get ``_`` in front.
    """
    if _is_plain(name):
        return name
    kept = re.sub(r'[/\\:<>"|?*]', "_", unicodedata.normalize("NFC", name))
    while hidden := {place for place in range(len(kept)) if _is_hidden(kept, place)}:
        # Again, because what stands beside a character decides whether it can be seen.
        kept = "".join("_" if place in hidden else char for place, char in enumerate(kept))
    kept = re.sub(r"[.\s]+$", lambda end: "_" * len(end[0]), kept) or "_"
    if kept[0] in ".~" or _is_device(kept):
        kept = f"_{kept}"
    return _shortened(unicodedata.normalize("NFC", kept))


def numbered_name(name: str, number: int) -> str:
    """Return ``name (number)``, the number before the extension: ``a (2).txt``, ``b (2).tar.gz``."""
    stem, suffix = os.path.splitext(name)
    inner, archive = os.path.splitext(stem)
    if archive.lower() == ".tar" and inner:
        stem, suffix = inner, archive + suffix
    if len(suffix.encode()) > _MAX_SUFFIX_BYTES:
        stem, suffix = name, ""
    return _with_suffix(stem, f" ({number}){suffix}")


def collision_key(name: str) -> str:
    """Return what two names share that some file system takes for one: no case, no composition."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def free_name(name: str, taken: dict[str, int]) -> str:
    """Return `name`, or its first numbered form that no name in `taken` collides with, and enter it there.

    `taken` maps collision keys to the last number tried, so that a folder full of one name costs no square.
    """
    key = collision_key(name)
    number = taken.get(key, 0)
    if not number:
        taken[key] = 1
        return name
    while True:
        number += 1
        candidate = numbered_name(name, number)
        if collision_key(candidate) not in taken:
            taken[key] = number
            taken[collision_key(candidate)] = 1
            return candidate


def _is_plain(name: str) -> bool:
    """Tell quickly that there is no objection to a name, on any system."""
    return _PLAIN.fullmatch(name) is not None and not _is_device(name)


def _objection(name: str) -> str:
    """Say what is wrong with a normalised name; empty if nothing is."""
    if name in {"", ".", ".."}:
        return "is not a name"
    if not (name.isascii() and name.isprintable()) and any(_is_hidden(name, place) for place in range(len(name))):
        return "contains invisible characters"
    for char, reason in (("/", "contains a slash"), ("\\", "contains a backslash"), (":", "contains a colon")):
        if char in name:
            return reason
    if name[0] in ".~":
        return f"begins with '{name[0]}'"
    if name[-1] == "." or name[-1].isspace():
        return "ends in a dot or a space"
    if _is_device(name):
        return "is the name of a device on Windows"
    if len(name.encode()) > MAX_NAME_BYTES:
        return "is too long"
    return "contains characters that Windows refuses" if _RESERVED & set(name) else ""


def _is_device(name: str) -> bool:
    return _DEVICES.fullmatch(name.partition(".")[0].rstrip()) is not None


def _is_hidden(text: str, place: int) -> bool:
    """Tell whether the character can't be seen, or changes how others are seen."""
    char = text[place]
    if " " <= char <= "~":
        return False
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if char == _EMOJI_STYLE:
        return not (before and (unicodedata.category(before) in {"So", "Sm", "Po"} or after == "\u20e3"))
    if char in {_ZWNJ, _ZWJ} and before and after:
        if char == _ZWJ and unicodedata.category(after) == "So":
            return unicodedata.category(before) not in {"So", "Sk"} and before != _EMOJI_STYLE
        return not (_joins(before) and _joins(after))
    code = ord(char)
    return (
        unicodedata.category(char) in _ESCAPED_CATEGORIES
        or char in _BLANK
        or code & 0xFFFE == 0xFFFE  # never characters
        or any(first <= code <= last for first, last in _BLANK_RANGES)
    )


def _joins(char: str) -> bool:
    # Arabic to Sinhala: scripts in which (non-)joiners are part of the spelling.
    return "\u0600" <= char <= "\u0dff" and unicodedata.category(char)[0] in "LM"


def _escaped(char: str) -> str:
    code = ord(char)
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def _with_suffix(stem: str, suffix: str) -> str:
    room = MAX_NAME_BYTES - len(suffix.encode())
    if len(stem.encode()) > room:
        stem = stem.encode()[:room].decode(errors="ignore").rstrip(_ZWNJ + _ZWJ + _EMOJI_STYLE)
    return stem + suffix


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, suffix = os.path.splitext(name)
    if len(suffix.encode()) > _MAX_SUFFIX_BYTES:
        stem, suffix = name, ""
    return _with_suffix(stem, suffix).rstrip(". ")
