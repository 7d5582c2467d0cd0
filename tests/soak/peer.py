"""One peer of a soak, in a process of its own: it sends, says and receives all the time, and checks what comes.

It reads commands and writes reports, one JSON object per line; `tests.soak.run` is at the other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import random
import sys
import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

import p2pnb
from p2pnb.engine.thread import engine
from p2pnb.errors import P2PError
from tests.soak.content import Item, Noise

CHAT_EVERY_S: Final = 0.2
SAMPLE_EVERY_S: Final = 0.5
TRANSFER_TIMEOUT_S: Final = 300.0
SIZES: Final = (1_000, 20_000, 300_000, 2_000_000, 16_000_000, 48_000_000)
SMALL_AT_ONCE: Final = 8


class SoakPeer:
    """What this process does until it is told to stop."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.name: str = settings["name"]
        self._settings = settings
        self._noise = Noise(settings["seed"])
        self._folder = Path(settings["folder"])
        self._stop = threading.Event()
        self._arrived: queue.Queue[Any] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._out = threading.Lock()
        # tallies
        self.failures: list[str] = []
        self.sent: dict[str, int] = defaultdict(int)  # kind -> items
        self.said = 0
        self.sent_bytes = 0
        self.got: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))  # sender -> kind -> items
        self.got_bytes = 0
        self.heard: dict[str, int] = defaultdict(int)
        self.delays = array("f")
        self.path_changes = 0
        self.carried: dict[str, int] = defaultdict(int)  # transports of finished transfers
        self._seen: dict[tuple[str, str], tuple[int, set[int]]] = {}
        self._paths: dict[str, str | None] = {}

    def start(self) -> None:
        """Enter the room and begin."""
        self._folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {"accept": True, "folder": self._folder / "got", **self._settings["options"]}
        if "hub" in self._settings:
            self.room = p2pnb.create(self.name, hub=self._settings["hub"], **settings)
            invite = self.room.invite
            self.report(event="open", room=invite.room, words=list(invite.words))
        else:
            room, words, hub = self._settings["invite"]
            self.room = p2pnb.join(p2pnb.Invite(room, tuple(words), hub), self.name, **settings)
            self.report(event="open")
        self.room.on("message", self._on_message)
        self.room.on("object", self._arrived.put)
        self.room.on("file", self._arrived.put)
        self.room.on("peer", self._on_peer)

    def begin(self) -> None:
        """Everybody is here: send."""
        for work in (self._say, self._send_files, self._send_objects, self._send_small, self._check, self._sample):
            thread = threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)

    def drain(self) -> None:
        """Send no more, wait until all of our own has arrived, and say so."""
        self._stop.set()
        for thread in self._threads:
            if "_send" in thread.name or thread.name == "_say":
                thread.join(TRANSFER_TIMEOUT_S)
                if thread.is_alive():
                    self.failures.append(f"{self.name}: {thread.name} still waits")
        self.report(event="drained")

    def tally(self) -> dict[str, Any]:
        """What went out and what came in so far."""
        delays = sorted(self.delays)
        return {
            "sent": dict(self.sent), "said": self.said, "sent_bytes": self.sent_bytes,
            "got": {sender: dict(kinds) for sender, kinds in list(self.got.items())}, "got_bytes": self.got_bytes,
            "heard": dict(self.heard), "path_changes": self.path_changes, "carried": dict(self.carried),
            "failures": self.failures[:20], "waiting": self._arrived.qsize(),
            "chat_p50_s": round(delays[len(delays) // 2], 4) if delays else None,
            "chat_p99_s": round(delays[int(len(delays) * 0.99)], 3) if delays else None,
            "chat_worst_s": round(delays[-1], 3) if delays else None,
        }  # fmt: skip

    def report(self, **what: Any) -> None:
        with self._out:
            print(json.dumps(what), flush=True)

    # ── faults from inside: where there are no namespaces ───────────────────────────────────────────
    def break_direct(self, how: str, seconds: float) -> int:
        """Cut every direct path of ours ("cut"), or let nothing of ours out on them for a while ("mute")."""

        async def act() -> int:
            count = 0
            assert self.room._member is not None
            for link in list(self.room._member.links.values()):
                for path in list(link._paths.values()):
                    if path.transport == "relay":
                        continue
                    count += 1
                    if how == "cut":
                        link.path_failed(path, "the soak cut it")
                    else:
                        _mute(path.connection, seconds)
            return count

        return engine().call(act(), 10)

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────
    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - every failure is the soak's result
            self.failures.append(f"{self.name} {work.__name__}: {error!r}")

    def _say(self) -> None:
        while not self._stop.wait(CHAT_EVERY_S):
            self.room.chat(f"{self.said} {time.monotonic():.6f}")
            self.said += 1

    def _send_files(self) -> None:
        def send(item: Item) -> Any:
            return self.room.send_file(self._noise.write(item, self._folder))

        self._send_many("file", send, lambda item: (self._folder / item.name).unlink())

    def _send_objects(self) -> None:
        def send(item: Item) -> Any:
            value = np.empty(item.size, np.uint8)
            at = 0
            for piece in self._noise.pieces(item):
                value[at : at + len(piece)] = piece
                at += len(piece)
            return self.room.send(value, item.name)

        self._send_many("object", send, lambda item: None)

    def _send_many(self, kind: str, send: Callable[[Item], Any], forget: Callable[[Item], None]) -> None:
        dice = random.Random(f"{self._settings['seed']} {self.name} {kind}")
        pace: float = self._settings["pace"]
        while not self._stop.is_set():
            item = Item(self.name, kind, self.sent[kind], round(dice.choice(SIZES) * dice.uniform(0.5, 1.5)))
            began = time.monotonic()
            transfer = send(item)
            self.sent[kind] += 1
            self._finish(item, transfer)
            forget(item)
            self._stop.wait(max(0.0, item.size / pace - (time.monotonic() - began)))

    def _send_small(self) -> None:
        dice = random.Random(f"{self._settings['seed']} {self.name} small")
        while not self._stop.is_set():
            under_way = []
            for _ in range(SMALL_AT_ONCE):
                item = Item(self.name, "small", self.sent["small"], dice.randrange(1, 40_000))
                under_way.append((item, self.room.send(b"".join(self._noise.pieces(item)), item.name)))
                self.sent["small"] += 1
            for item, transfer in under_way:
                self._finish(item, transfer)
            self._stop.wait(0.5)

    def _finish(self, item: Item, transfer: Any) -> None:
        try:
            transfer.result(TRANSFER_TIMEOUT_S)
        except P2PError as error:
            self.failures.append(f"{item.name}: {error!r}")
            return
        self.sent_bytes += item.size
        for part in transfer.per_peer.values():
            for transport in part.paths:
                self.carried[transport] += 1

    # ── receiving ───────────────────────────────────────────────────────────────────────────────────
    def _on_message(self, message: Any) -> None:
        if message.mine:
            return
        number, said_at = message.text.split()
        if int(number) != self.heard[message.sender]:
            expected = self.heard[message.sender]
            self.failures.append(f"{self.name} heard {number} of {message.sender}, expected {expected}")
        self.heard[message.sender] = int(number) + 1
        self.delays.append(time.monotonic() - float(said_at))

    def _on_peer(self, peer: Any) -> None:
        if self._paths.get(peer.name) != peer.path:
            self._paths[peer.name] = peer.path
            self.path_changes += 1

    def _check(self) -> None:
        while True:
            arrived = self._arrived.get()
            item = Item.named(arrived.name)
            if arrived.sender != item.sender:
                self.failures.append(f"{arrived.name} came from {arrived.sender}")
            if self._came_before(item):
                self.failures.append(f"{arrived.name} came twice")
            if isinstance(arrived.value, Path):
                problem = self._noise.file_differs(item, arrived.value)
                arrived.value.unlink()
            else:
                problem = self._noise.differs(item, memoryview(arrived.value))
            if problem:
                self.failures.append(problem)
            self.room.inbox.discard(arrived.name)
            self.got[item.sender][item.kind] += 1
            self.got_bytes += item.size
            del arrived

    def _came_before(self, item: Item) -> bool:
        whole, scattered = self._seen.get((item.sender, item.kind), (0, set()))
        if item.number < whole or item.number in scattered:
            return True
        scattered.add(item.number)
        while whole in scattered:
            scattered.remove(whole)
            whole += 1
        self._seen[item.sender, item.kind] = whole, scattered
        return False

    # ── what it costs ───────────────────────────────────────────────────────────────────────────────
    def _sample(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while True:
            loop: Any = engine().loop
            tasks = engine().call(_count_tasks(loop), 60)
            with open("/proc/self/statm", encoding="ascii") as statm:
                resident = int(statm.read().split()[1]) * page
            self.report(
                event="sample", time=time.monotonic(), rss=resident, kept=self._kept_bytes(),
                fds=len(os.listdir("/proc/self/fd")), threads=threading.active_count(), tasks=tasks,
                got_bytes=self.got_bytes, failures=len(self.failures),
                paths={peer.name: peer.path for peer in self.room.peers.values()},
            )  # fmt: skip
            time.sleep(SAMPLE_EVERY_S)


    def _kept_bytes(self) -> int:
        """Memory that the room keeps for the next object, by contract for some seconds."""
        assert self.room._member is not None
        return self.room._member.arena.idle_bytes


def _mute(connection: Any, seconds: float) -> None:
    """Swallow all that goes out on this connection; its keys and counters go on, so it can't be healed, only left."""
    for name in dir(type(connection)):
        if name.startswith(("send", "_push")) and callable(getattr(connection, name)):
            setattr(connection, name, lambda *_, **__: None)


async def _count_tasks(loop: asyncio.AbstractEventLoop) -> int:
    return len(asyncio.all_tasks(loop))


def main() -> None:
    peer = SoakPeer(json.loads(sys.stdin.readline()))
    peer.start()
    for line in sys.stdin:
        match json.loads(line):
            case {"do": "begin"}:
                peer.begin()
            case {"do": "break", "how": how, "seconds": seconds}:
                peer.report(event="broken", count=peer.break_direct(how, seconds))
            case {"do": "drain"}:
                threading.Thread(target=peer.drain, name="drain", daemon=True).start()
            case {"do": "tally"}:
                peer.report(event="tally", **peer.tally())
            case {"do": "peers"}:
                peer.report(event="peers", peers={p.name: p.state for p in peer.room.peers.values()})
            case {"do": "leave"}:
                peer.room.leave()
                peer.report(event="left")
                return


if __name__ == "__main__":
    main()
