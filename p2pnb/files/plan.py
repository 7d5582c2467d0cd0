"""Where each file of a received head goes: decided once, before anything is made on the disk.

The plan follows from head, name and kind alone, so a part that an earlier process left (see `parts`) fits a new
offer exactly if their plans' digests are equal.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import Final, Literal

from p2pnb.errors import CorruptDataError
from p2pnb.files.head import FolderHead, decode_head
from p2pnb.files.names import free_name, harmless_name, safe_components, safe_name
from p2pnb.protocol.wire import MAX_SIZE_BYTES

__all__ = ["CONTENT", "Plan"]

CONTENT: Final = "content"  # what the whole is called until it gets its final name
MAX_FOLDERS: Final = 100_000  # they come from paths, up to 63 each, and cost more memory than their head


class Plan:
    """Parallel lists instead of objects, because there may be hundreds of thousands of files.

    File `n` has the content bytes [starts[n], starts[n + 1]), the name `names[n]` in folder `parents[n]` and the
    time `mtimes[n]` (milliseconds, not checked). Folder `n` is called `folder_names[n]` in folder
    `folder_parents[n]`, a smaller number; folder 0 is the whole. A single file lies beside folder 0, not in it.
    `renamed` pairs the path a member was offered as with the one it gets, where they differ.
    """

    def __init__(self, head: bytes, name: str, kind: str, content_bytes: int) -> None:
        """Check an offer; CorruptDataError if it contradicts itself, UnsafeNameError for names that can't be used."""
        if not 0 <= content_bytes <= MAX_SIZE_BYTES:
            raise CorruptDataError("The offer's size is not a size. Ask the sender to send it again.")
        parsed = decode_head(head, kind, content_bytes)
        self.kind: Literal["file", "folder"] = "file" if kind == "file" else "folder"  # decode_head takes no other
        self.name = harmless_name(safe_name(name))
        self.content_bytes = content_bytes
        self.renamed: list[tuple[str, str]] = [] if self.name == safe_name(name) else [(name, self.name)]
        self.mtimes = array("q", (entry.mtime for entry in parsed.entries))
        self.starts = array("Q", [0])
        for entry in parsed.entries:
            self.starts.append(self.starts[-1] + entry.size)
        self.folder_names: list[str] = [CONTENT]
        self.folder_parents = array("L", [0])
        self.names: list[str] = []
        self.parents = array("L")
        if kind == "file":
            safe_components(parsed.entries[0].path)
            self.names.append(CONTENT)
            self.parents.append(0)
        else:
            _Placing(self).place(parsed)

    def digest(self, head: bytes) -> bytes:
        """Return what two equal plans for equal heads share: 32 bytes."""
        digest = hashlib.sha256(head)
        for names in (self.names, self.folder_names):
            digest.update(b"\0" + "\0".join(names).encode())
        for numbers in (self.parents, self.folder_parents, self.starts):
            digest.update(numbers)
        digest.update("\0".join((self.kind, self.name)).encode())
        return digest.digest()


class _Placing:
    """Fills the lists of a plan; what it needs for that is not needed for writing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._numbers = {"": 0}  # of folders by their offered path
        self._taken: list[dict[str, int]] = [{}]

    def place(self, head: FolderHead) -> None:
        plan = self._plan
        for entry in head.entries:
            *above, name = safe_components(entry.path)
            parent = self._folder("/".join(above))
            plan.names.append(self._landing(parent, name, entry.path))
            plan.parents.append(parent)
        for path in head.folders:
            self._folder("/".join(safe_components(path)))

    def _folder(self, path: str) -> int:
        """Return the number of a folder, entering it and those above it where they are new."""
        number = self._numbers.get(path)
        if number is not None:
            return number
        above, _, name = path.rpartition("/")  # recursion ends at MAX_DEPTH
        parent = self._folder(above)
        plan = self._plan
        number = len(plan.folder_names)
        if number >= MAX_FOLDERS:
            raise CorruptDataError("The offer has more folders than a transfer takes.")
        landing = self._landing(parent, name, path)
        self._numbers[path] = number
        plan.folder_names.append(landing)
        plan.folder_parents.append(parent)
        self._taken.append({})
        return number

    def _landing(self, parent: int, name: str, path: str) -> str:
        plan = self._plan
        landing = free_name(harmless_name(name), self._taken[parent])
        if landing != name:
            above = []
            while parent:
                above.append(plan.folder_names[parent])
                parent = plan.folder_parents[parent]
            plan.renamed.append((path, "/".join((*reversed(above), landing))))
        return landing
