"""The oracle: what was said and sent, and that exactly this arrived.

Chat: from every sender once and in order. Items: every one once, byte-equal, with its sender's name. Calls:
every transfer ended, and ended well. `settle` waits for all of it and then looks for what came too much.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from p2pnb.room import Room
from p2pnb.transfer import Transfer
from tests.integration.meeting import until


class Ledger:
    """Everything that these rooms say and send to each other from now on."""

    def __init__(self, folder: Path, *rooms: Room) -> None:
        self.rooms = rooms
        self._folder = folder
        self._said: dict[str, list[str]] = defaultdict(list)
        self._heard: dict[tuple[str, str], list[str]] = defaultdict(list)  # (who heard, who said)
        self._sent: dict[str, dict[str, bytes]] = defaultdict(dict)  # sender -> name -> content
        self._got: dict[tuple[str, str], list[tuple[str, Any]]] = defaultdict(list)
        self._numbers = itertools.count()
        self.transfers: list[Transfer] = []
        folder.mkdir(parents=True, exist_ok=True)
        for room in rooms:
            self._watch(room)

    def say(self, room: Room) -> str:
        """Say something to everybody."""
        text = f"{room.name} {next(self._numbers)}"
        self._said[room.name].append(text)
        room.chat(text)
        return text

    def send(self, room: Room, size_bytes: int, kind: str = "object") -> Transfer:
        """Send noise to everybody, as an "object" or a "file"."""
        number = next(self._numbers)
        content = random.Random(number).randbytes(size_bytes)
        name = f"{room.name}-{number}.bin"
        self._sent[room.name][name] = content
        if kind == "file":
            path = self._folder / name
            path.write_bytes(content)
            transfer = room.send_file(path)
        else:
            transfer = room.send(content, name)
        self.transfers.append(transfer)
        return transfer

    def settle(self, timeout: float = 60.0) -> None:
        """Wait until everything has arrived everywhere, and check that nothing else did."""
        for transfer in self.transfers:
            transfer.result(timeout)
        for room, other in itertools.permutations(self.rooms, 2):
            pair = (room.name, other.name)
            until(
                lambda pair=pair: len(self._heard[pair]) >= len(self._said[pair[1]])  # type: ignore[misc]
                and len(self._got[pair]) >= len(self._sent[pair[1]]),
                f"{room.name} has all of {other.name}: {len(self._heard[pair])} of {len(self._said[other.name])} "
                f"messages, {len(self._got[pair])} of {len(self._sent[other.name])} items",
                timeout,
            )
            assert self._heard[pair] == self._said[other.name], f"{room.name} heard {other.name} differently"
            assert sorted(name for name, _ in self._got[pair]) == sorted(self._sent[other.name])
            for name, value in self._got[pair]:
                content = value.read_bytes() if isinstance(value, Path) else bytes(value)
                assert content == self._sent[other.name][name], f"{name} is not what {other.name} sent"

    def _watch(self, room: Room) -> None:
        def heard(message: Any) -> None:
            if not message.mine and message.text.startswith(tuple(one.name for one in self.rooms)):
                self._heard[room.name, message.sender].append(message.text)

        def got(item: Any) -> None:
            self._got[room.name, item.sender].append((item.name, item.value))

        room.on("message", heard)
        room.on("object", got)
        room.on("file", got)
