"""The thread behind a panel: it runs the commands of front ends and sends them what changed.

One thread per panel, begun when the first front end speaks. Widget messages arrive on the kernel's main
thread or on a subshell that all widgets share, and room events on the engine's thread: both only leave a
note here. Sending is safe from any thread, setting traits is not; so nothing here sets traits.

Creating, joining and leaving block for as long as the network takes and run in a thread of their own,
one at a time: the panel shows what else happens meanwhile.
"""

from __future__ import annotations

import importlib
import logging
import queue
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from p2pnb.errors import P2PError, PeerGoneError, RoomClosedError, UsageError
from p2pnb.panel import protocol, rooms, state
from p2pnb.panel.feed import Feed
from p2pnb.panel.protocol import MAX_NOTICES, MAX_REMEMBERED_ACKS, Command
from p2pnb.panel.rooms import Room
from p2pnb.panel.uploads import Uploads

__all__ = ["Desk", "PublicRooms"]

MAX_QUEUED: Final = 4096  # notes to the thread; a front end never has that many commands under way
POLL_PEERS_S: Final = 2.0  # round trips change without an event
POLL_TRANSFERS_S: Final = 0.5  # so does the time left, when nothing moves
WATCHED_S: Final = 120.0  # a front end speaks every 15 s; polling ends when none did for so long
FORGET_S: Final = 60.0  # how often abandoned uploads are looked for

_SLICES_OF_EVENT: Final = {
    "message": ("messages",),
    "object": ("items", "offers"),
    "file": ("items", "offers"),
    "peer": ("peers",),
    "offer": ("offers",),
    "transfer": ("transfers", "offers"),
    "share": ("shares",),
    "state": ("room", "invite", "peers", "messages", "transfers", "offers", "shares", "items"),
}
_ALL: Final = ("room", "invite", "peers", "messages", "transfers", "offers", "shares", "items", "notices")
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.\-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:\d{1,5})?")

_logger = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], None]
Task = Callable[[], None]


class PublicRooms:
    """How a lobby gets rooms: by the functions that users call."""

    def create(self, name: str | None) -> Room:
        return cast(Room, importlib.import_module("p2pnb").create(name))

    def join(self, invite: str, name: str | None) -> Room:
        return cast(Room, importlib.import_module("p2pnb").join(invite, name))


class Desk:
    """Between one room (or a lobby) and the front ends of one widget.

    `send` takes a message to all front ends, from any thread. `expression` says what the user types to get at
    a room. Everything public may be called from any thread and returns at once.
    """

    def __init__(
        self,
        send: Send,
        room: Room | None = None,
        *,
        opener: PublicRooms | None = None,
        expression: Callable[[Room], str] = lambda _room: "room",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._opener = opener or PublicRooms()
        self._expression = expression
        self._clock = clock
        self._room: Room | None = None
        self._location: str | None = None
        self._unsubscribe: list[Callable[[], object]] = []
        self._notices: deque[dict[str, Any]] = deque(maxlen=MAX_NOTICES)
        self._notice_count = 0
        self._uploads = Uploads()
        self._retried: OrderedDict[str, None] = OrderedDict()  # transfers whose files were sent again
        self._acks: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._running: set[int] = set()
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._seen = float("-inf")
        self._next_poll = {"peers": 0.0, "transfers": 0.0, "uploads": 0.0}
        self._feed = Feed({name: partial(self._describe, name) for name in _ALL})
        if room is not None:
            self._attach(room)

    @property
    def room(self) -> Room | None:
        """The room shown: None in a lobby; one that was closed stays until another takes its place."""
        return self._room

    def submit(self, content: Any, buffers: Sequence[bytes | memoryview] = ()) -> None:
        """Take a front end's message; it is read and run on the desk's thread."""
        if self._closed:
            return
        if self._tasks.qsize() >= MAX_QUEUED:
            _logger.warning("a panel's command was dropped: %d are waiting already", MAX_QUEUED)
            return
        self._tasks.put(partial(self._receive, content, list(buffers)))
        self._start()

    def close(self) -> None:
        """End the thread and every subscription. The room lives on."""
        with self._start_lock:
            if self._closed:
                return
            self._closed = True
        self._detach()
        self._tasks.put(None)
        if self._thread is None:
            self._uploads.close()

    # ── the thread ──────────────────────────────────────────────────────────────────────────────────
    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="p2pnb-panel", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._step()
            except Exception:
                # The root of the thread: one bad turn must not leave the panel dead.
                _logger.exception("a panel's turn failed")
        self._uploads.close()
        self._drain()

    def _drain(self) -> None:
        """Leave a room that came too late to be shown: nobody is there any more who could."""
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            if isinstance(task, _Finished):
                task.abandon()

    def _step(self) -> None:
        try:
            task = self._tasks.get(timeout=self._patience())
        except queue.Empty:
            task = None
        if task is not None and not self._closed:
            task()
        now = self._clock()
        self._poll(now)
        self._flush(now)

    def _patience(self) -> float | None:
        now = self._clock()
        times = [self._feed.next_time()]
        if self._watched(now):
            times.append(min(self._next_poll.values()))
        return min((max(0.0, at - now) for at in times if at is not None), default=None)

    def _watched(self, now: float) -> bool:
        return now - self._seen < WATCHED_S

    def _poll(self, now: float) -> None:
        """Look at what changes without an event."""
        if not self._watched(now):
            return
        room_open = self._room is not None and self._room.state != "closed"
        if now >= self._next_poll["peers"]:
            self._next_poll["peers"] = now + POLL_PEERS_S
            if room_open:
                # The user may have given the room a name meanwhile, and others may have fetched a share.
                self._feed.mark("peers", "room", "shares")
        if now >= self._next_poll["transfers"]:
            self._next_poll["transfers"] = now + POLL_TRANSFERS_S
            if room_open:
                self._feed.mark("transfers")
        if now >= self._next_poll["uploads"]:
            self._next_poll["uploads"] = now + FORGET_S
            self._uploads.forget(now)

    def _flush(self, now: float, *, all_marked: bool = False) -> None:
        patch = self._feed.patch(now, all_marked=all_marked)
        if patch is not None:
            self._send(patch)

    def _mark(self, *names: str) -> None:
        if self._feed.mark(*names) and self._thread is not None:
            self._tasks.put(_nothing)  # it may be asleep without a time to wake up at

    # ── the room ────────────────────────────────────────────────────────────────────────────────────
    def _attach(self, room: Room) -> None:
        self._detach()
        self._room = room
        if room.state != "closed":
            self._unsubscribe = [
                room.on(event, partial(self._on_event, names)) for event, names in _SLICES_OF_EVENT.items()
            ]
            self._unsubscribe.append(room.on("notice", self._on_notice))
        self._tell_location()
        self._mark(*_ALL)

    def _detach(self) -> None:
        unsubscribe, self._unsubscribe = self._unsubscribe, []
        for stop in unsubscribe:
            stop()

    def _on_event(self, names: tuple[str, ...], _event: object) -> None:
        """Note that slices changed; on the engine's thread."""
        self._mark(*names)

    def _open_room(self) -> Room:
        room = self._room
        if room is None or room.state == "closed":
            raise RoomClosedError("there is no open room here; create or join one first")
        return room

    def _recipients(self, room: Room, ids: Sequence[str] | None) -> list[rooms.Peer] | None:
        try:
            return rooms.chosen(room.peers.values(), ids)
        except KeyError:
            raise PeerGoneError("that person is not in the room any more; choose somebody else") from None

    def _tell_location(self) -> None:
        if self._location is not None and self._room is not None and self._room.state != "closed":
            self._room.use_address(self._location)

    def _on_notice(self, error: object) -> None:
        """Keep what the room has to say to its user; on the engine's thread."""
        self._tasks.put(partial(self._notice, str(error)))

    def _describe(self, name: str) -> Any:
        room = self._room
        try:
            match name:
                case "room":
                    return state.room(room, "" if room is None else self._expression(room))
                case "notices":
                    return list(self._notices)
                case "transfers":
                    return state.transfers(room, self._retried)
                case _:
                    return getattr(state, name)(room)
        except Exception as error:
            # One slice that can't be shown (a peer's doing, perhaps) must not take the others with it.
            if not isinstance(error, P2PError):
                _logger.exception("a panel can't show its %s", name)
                self._notice(f"This panel can't show the room's {name}.")
            return None if name in {"room", "invite"} else []

    def _notice(self, text: str) -> None:
        if any(notice["text"] == text for notice in self._notices):
            return
        self._notice_count += 1
        self._notices.append({"id": self._notice_count, "text": text})
        self._feed.mark("notices")

    # ── commands ────────────────────────────────────────────────────────────────────────────────────
    def _receive(self, content: Any, buffers: list[bytes | memoryview]) -> None:
        self._seen = self._clock()
        try:
            command = protocol.decode_command(content)
        except ValueError as error:
            command_id = content.get("id") if isinstance(content, dict) else None
            if isinstance(command_id, int):
                self._refuse(command_id, UsageError(str(error)))
            return
        if command.id in self._acks:
            self._send(self._acks[command.id])
        elif command.id not in self._running:
            self._run_command(command, buffers)

    def _run_command(self, command: Command, buffers: list[bytes | memoryview]) -> None:
        try:
            match command:
                case protocol.Create():
                    self._ready_for_room()
                    self._begin(command.id, partial(self._opener.create, command.name or None), self._opened)
                case protocol.Join():
                    self._ready_for_room()
                    join = partial(self._opener.join, command.invite, command.name or None)
                    self._begin(command.id, join, self._opened)
                case protocol.Leave():
                    self._begin(command.id, self._open_room().leave, lambda _: None)
                case _:
                    self._answer(command.id, self._run_quick(command, buffers), flush=_changes_state(command))
        except Exception as error:  # noqa: BLE001 — a command's root: whatever it was is the answer
            self._refuse(command.id, error)

    def _run_quick(self, command: Command, buffers: list[bytes | memoryview]) -> Any:
        match command:
            case protocol.Snapshot():
                self._send(self._feed.snapshot())
            case protocol.Sync(seq=seq, ids=ids):
                return self._sync(seq, ids)
            case protocol.Location(origin=origin, base_url=base_url):
                self._locate(origin, base_url)
            case protocol.Unlock():
                self._open_room().unlock()
                self._feed.mark("room")
            case protocol.Chat(text=text, to=to):
                room = self._open_room()
                room.chat(text, to=self._recipients(room, to))
                self._feed.mark("messages")
            case protocol.Accept(offer=offer):
                self._find(self._open_room().offers, offer, "This offer").accept()
                self._feed.mark("offers", "transfers")
            case protocol.Decline(offer=offer):
                self._find(self._open_room().offers, offer, "This offer").decline()
                self._feed.mark("offers", "transfers")
            case protocol.Cancel(transfer=transfer):
                self._transfer(transfer).cancel()
                self._feed.mark("transfers")
            case protocol.Pause(transfer=transfer):
                self._transfer(transfer).pause()
                self._feed.mark("transfers")
            case protocol.Resume(transfer=transfer):
                self._transfer(transfer).resume()
                self._feed.mark("transfers")
            case protocol.Retry(transfer=transfer):
                return self._retry(self._transfer(transfer))
            case protocol.FetchShare(share=key, owner=owner, columns=columns, rows=rows):
                return self._fetch(key, owner, columns, rows)
            case protocol.Unshare(share=key):
                self._unshare(key)
            case protocol.Verify(peer=peer, value=value):
                self._find(self._open_room().peers.values(), peer, "This person").verify(value)
                self._feed.mark("peers")
            case _:
                return self._run_upload(command, buffers)
        return None

    def _run_upload(self, command: Command, buffers: list[bytes | memoryview]) -> Any:
        now = self._clock()
        match command:
            case protocol.UploadBegin(upload=upload, files=files, to=to):
                room = self._open_room()
                recipients = self._recipients(room, to)
                self._uploads.begin(upload, files, recipients, Path(str(room.folder)), now)
            case protocol.UploadPiece(upload=upload, file=file, offset=offset):
                self._uploads.piece(upload, file, offset, buffers[0] if buffers else b"", now)
            case protocol.UploadEnd(upload=upload):
                transfer = self._uploads.end(upload, self._open_room())
                self._feed.mark("transfers")
                return {"transfer": transfer.id}
            case protocol.UploadAbort(upload=upload):
                self._uploads.abort(upload)
            case _:
                raise UsageError("this panel does not know that command")
        return None

    def _transfer(self, wanted: str) -> rooms.Transfer:
        found: rooms.Transfer = self._find(self._open_room().transfers, wanted, "This transfer")
        return found

    def _retry(self, failed: rooms.Transfer) -> dict[str, str]:
        if failed.id in self._retried:
            raise UsageError(f"{failed.name!r} was sent again already; see its newer transfer.")
        transfer = failed.retry()
        self._retried[failed.id] = None
        while len(self._retried) > protocol.MAX_TRANSFERS:
            self._retried.popitem(last=False)
        self._uploads.retried(failed, transfer)
        self._feed.mark("transfers")
        return {"transfer": transfer.id}

    def _share(self, key: str, *, mine: bool) -> rooms.Share:
        share = self._open_room().shares.get(key)
        if share is None or share.mine is not mine:
            raise UsageError("This is not shared any more.")
        return share

    def _fetch(
        self, key: str, owner: str, columns: list[str] | None, rows: tuple[int, int | None] | None
    ) -> dict[str, str]:
        share = self._share(key, mine=False)
        if share.owner != owner:
            raise UsageError(f"{owner} does not share this any more; somebody else has this name now.")
        transfer = share.pull(columns, None if rows is None else slice(*rows))
        self._feed.mark("transfers", "shares")
        return {"transfer": transfer.id}

    def _unshare(self, key: str) -> None:
        share = self._share(key, mine=True)
        self._open_room().unshare(share.name)
        self._feed.mark("shares")

    def _sync(self, seq: int, ids: list[int]) -> dict[str, list[int]]:
        unknown = []
        for command_id in ids:
            if command_id in self._acks:
                self._send(self._acks[command_id])
            elif command_id not in self._running:
                unknown.append(command_id)
        if seq != self._feed.seq:
            self._send(self._feed.snapshot())
        return {"unknown": unknown}

    def _locate(self, origin: str, base_url: str) -> None:
        if _ORIGIN.fullmatch(origin) is None or not (base_url.startswith("/") and base_url.endswith("/")):
            raise UsageError("that is no address of a Jupyter server")
        self._location = origin + base_url
        self._tell_location()
        self._feed.mark("invite", "room")

    @staticmethod
    def _find(things: Any, wanted: str, what: str) -> Any:
        for thing in list(things):
            if thing.id == wanted:
                return thing
        raise UsageError(f"{what} is not there any more.")

    # ── commands that take their time ───────────────────────────────────────────────────────────────
    def _ready_for_room(self) -> None:
        if self._room is not None and self._room.state != "closed":
            raise UsageError("this panel shows a room already; leave it first")

    def _begin(self, command_id: int, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        if self._running:
            raise UsageError("the panel is busy with another room; wait a moment")
        self._running.add(command_id)
        self._send({"kind": "started", "id": command_id})
        name = "p2pnb-panel-room"
        threading.Thread(target=self._work, args=(command_id, work, then), name=name, daemon=True).start()

    def _work(self, command_id: int, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 — the thread's root: the command's answer says what it was
            result = error
        finished = _Finished(self._finish, command_id, result, then)
        with self._start_lock:
            closed = self._closed
            if not closed:
                self._tasks.put(finished)
        if closed:
            finished.abandon()

    def _finish(self, command_id: int, result: Any, then: Callable[[Any], None]) -> None:
        self._running.discard(command_id)
        if isinstance(result, Exception):
            self._refuse(command_id, result)
            return
        then(result)
        self._feed.mark(*_ALL)
        self._answer(command_id, None, flush=True)

    def _opened(self, room: Room) -> None:
        self._attach(room)

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────
    def _answer(self, command_id: int, value: Any, *, flush: bool) -> None:
        if flush:
            self._flush(self._clock(), all_marked=True)  # who reads the answer finds its effect on the screen
        self._remember({"kind": "ack", "id": command_id, "ok": True, "value": value})

    def _refuse(self, command_id: int, error: Exception) -> None:
        name = type(error).__name__
        if isinstance(error, P2PError):
            text = str(error) or (type(error).__doc__ or name)
        else:
            _logger.error("a panel's command failed", exc_info=error)
            text = f"{name}: {error}"
        self._remember({"kind": "ack", "id": command_id, "ok": False, "error": {"code": name, "message": text}})

    def _remember(self, ack: dict[str, Any]) -> None:
        self._acks[ack["id"]] = ack
        while len(self._acks) > MAX_REMEMBERED_ACKS:
            self._acks.popitem(last=False)
        self._send(ack)


class _Finished:
    """The note that a command which took its time is done."""

    def __init__(
        self, finish: Callable[[int, Any, Callable[[Any], None]], None], command_id: int, result: Any, then: Any
    ) -> None:
        self._finish = finish
        self._command_id = command_id
        self._result = result
        self._then = then

    def __call__(self) -> None:
        self._finish(self._command_id, self._result, self._then)

    def abandon(self) -> None:
        """Nobody waits any more: a room that was opened is left."""
        leave = getattr(self._result, "leave", None)
        if leave is not None:
            leave()


def _nothing() -> None:
    """Wake the thread up."""


def _changes_state(command: Command) -> bool:
    """Tell whether an answer should be preceded by what the command changed."""
    return not isinstance(
        command,
        protocol.Snapshot | protocol.Sync | protocol.UploadBegin | protocol.UploadPiece | protocol.UploadAbort,
    )
