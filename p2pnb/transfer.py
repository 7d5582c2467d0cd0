"""`Transfer` and `Offer`: things on their way, as a user sees them."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from p2pnb.engine.pull import Pull
from p2pnb.engine.receiving import Incoming
from p2pnb.engine.sending import Outgoing, OutgoingPart, TransferState
from p2pnb.engine.thread import Engine
from p2pnb.errors import P2PError, TransferError, UsageError, WaitTimeoutError
from p2pnb.files.sizes import human_size
from p2pnb.protocol.wire import Preview

if TYPE_CHECKING:
    from p2pnb.panel.progress import ProgressBar

__all__ = ["Offer", "Transfer", "TransferPart"]


class TransferPart(msgspec.Struct, frozen=True):
    """One receiver's (or the sender's) part of a transfer at this moment."""

    state: str
    progress: float  # 0 to 1
    rate: float  # bytes per second
    paths: tuple[str, ...]  # transports that carried bytes of it
    error: P2PError | None
    sent_bytes: int = 0  # to this receiver, what went out again after a loss included
    resumed_bytes: int = 0  # that the receiver had from an earlier try
    paused_here: bool = False  # by `Transfer.pause` on this side
    paused_there: bool = False  # by the peer


class Transfer:
    """A file, folder or object on its way, to one or several peers.

    Can be awaited, or waited for with `result`. As the last line of a cell it shows a live progress bar.
    """

    def __init__(
        self,
        engine: Engine,
        inner: Outgoing | Incoming | Pull,
        names: Callable[[Any], str],
        retry: Callable[[Outgoing, list[str]], Transfer],
    ) -> None:
        self._engine = engine
        self._inner = inner
        self._names = names
        self._retry = retry
        self._shown: dict[int, str] = {}
        self._finished: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._bar: ProgressBar | None = None
        self._remember_names()

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────
    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def kind(self) -> str:
        """ "object", "file" or "folder"."""
        return self._inner.kind

    @property
    def direction(self) -> str:
        """ "out" or "in"."""
        return self._inner.direction

    @property
    def size_bytes(self) -> int:
        return self._inner.size_bytes

    @property
    def preview(self) -> Preview:
        return self._inner.preview

    # ── how it goes ─────────────────────────────────────────────────────────────────────────────────
    @property
    def state(self) -> str:
        """ "offered", "moving", "paused", "done", "failed", "cancelled" or "declined"; of several the least far."""
        states = [part.state for part in self._parts()]
        if self.paused:
            return "paused"
        for state in (TransferState.MOVING, TransferState.OFFERED):
            if state in states:
                return state.value
        for state in (TransferState.FAILED, TransferState.CANCELLED, TransferState.DECLINED):
            if state in states:
                return state.value
        return TransferState.DONE.value

    @property
    def progress(self) -> float:
        """Share that has landed at its receivers, 0 to 1."""
        parts = self._parts()
        return sum(_progress(part) for part in parts) / len(parts) if parts else 0.0

    @property
    def rate(self) -> float:
        """Bytes per second, all receivers together: lately while it moves, on the whole at the end."""
        return sum(part.meter.rate for part in self._parts())

    @property
    def eta(self) -> float | None:
        """Seconds until the slowest receiver has it, None while nobody can tell."""
        etas = [part.meter.eta for part in self._parts() if not part.state.ended]
        known = [eta for eta in etas if eta is not None]
        return max(known, default=0.0 if not etas else None)

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the receivers, or of the sender."""
        return tuple(self._shown.values())

    @property
    def per_peer(self) -> dict[str, TransferPart]:
        """State by peer name."""
        return {
            self._shown[id(part)]: TransferPart(
                "paused" if _paused(part) else part.state.value,
                _progress(part),
                part.meter.rate,
                tuple(sorted(part.carriers)),
                part.error,
                getattr(part, "sent_bytes", 0),
                getattr(part, "resumed_bytes", 0) or 0,
                not part.state.ended and part.paused_here,
                not part.state.ended and part.paused_there,
            )
            for part in self._parts()
        }

    @property
    def error(self) -> P2PError | None:
        """Why it failed, None if it did not."""
        failed = [(self._shown[id(part)], part.error) for part in self._parts() if part.error is not None]
        if not failed:
            return None
        if len(self._parts()) == 1:
            return failed[0][1]
        reasons = "; ".join(f"{name}: {error}" for name, error in failed)
        return TransferError(f"{self.name!r} did not reach {len(failed)} of {len(self._parts())} peers ({reasons})")

    # ── what to do with it ──────────────────────────────────────────────────────────────────────────
    def result(self, timeout: float | None = None) -> Transfer:
        """Wait until it has arrived everywhere, and return it.

        `timeout` is in seconds. Raises the reason if it failed, WaitTimeoutError if it takes longer; it goes on then.
        """
        if self._engine.is_current:
            raise UsageError("result() waits, and callbacks of p2pnb may not wait. Await the transfer instead.")
        try:
            self._finished.result(timeout)
        except concurrent.futures.TimeoutError as error:
            raise WaitTimeoutError(
                f"{self.name!r} is not through after {timeout} s ({self.progress:.0%}); it goes on."
            ) from error
        if (problem := self.error) is not None:
            raise problem
        return self

    def __await__(self) -> Generator[Any, None, Transfer]:
        import asyncio

        # shielded: a wait that is given up must not end what others wait for
        yield from asyncio.shield(asyncio.wrap_future(self._finished)).__await__()
        if (problem := self.error) is not None:
            raise problem
        return self

    def cancel(self) -> None:
        """Stop it at all receivers that don't have it yet."""
        self._engine.post(self._inner.cancel)

    @property
    def paused(self) -> bool:
        """True while this side or the other paused everything that is left of it."""
        left = [part for part in self._parts() if not part.state.ended]
        return bool(left) and all(_paused(part) for part in left)

    def pause(self) -> None:
        """Let nothing of it move until `resume`; what is under way arrives. The other side sees it."""
        self._engine.post(self._inner.pause, True)

    def resume(self) -> None:
        """Let it go on, as far as this side is concerned."""
        self._engine.post(self._inner.pause, False)

    def retry(self) -> Transfer:
        """Send files again to the receivers that failed to get them, or that came back under the same names.

        What a receiver holds of them already is verified and not sent again. Returns the new Transfer. Raises
        UsageError if nothing failed, nobody of them is here, or it was no file.
        """
        inner = self._inner
        if not isinstance(inner, Outgoing) or not inner.can_retry:
            raise UsageError("Only what you sent and what failed can be tried again.")
        names = [self._shown[id(part)] for part in inner.parts if part.state is TransferState.FAILED]
        return self._retry(inner, names)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _changed(self) -> None:
        """Engine thread: something moved."""
        self._remember_names()
        if self._parts() and all(part.state.ended for part in self._parts()) and not self._finished.done():
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self._finished.set_result(None)
        if self._bar is not None:
            self._bar.update(self)

    def _parts(self) -> list[OutgoingPart] | list[Incoming | Pull]:
        return self._inner.parts if isinstance(self._inner, Outgoing) else [self._inner]

    def _remember_names(self) -> None:
        for part in self._parts():
            self._shown.setdefault(id(part), self._names(part.link))

    def __repr__(self) -> str:
        way = "to" if self.direction == "out" else "from"
        names = ", ".join(self.peers)
        rate = f", {human_size(int(self.rate))}/s" if self.rate else ""
        share = f"{self.progress:.0%} of {human_size(self.size_bytes)}"
        return f"<Transfer {self.name!r} {way} {names}: {self.state}, {share}{rate}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        from p2pnb.panel.progress import ProgressBar

        if self._bar is None:
            self._bar = ProgressBar(self)
        return self._bar.mimebundle(repr(self))


class Offer:
    """Something a peer offers that waits for your decision."""

    def __init__(self, engine: Engine, inner: Incoming, sender: str, folder: Path) -> None:
        self._engine = engine
        self._inner = inner
        self._folder = folder
        self.sender = sender

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def kind(self) -> str:
        """ "object", "file" or "folder"."""
        return self._inner.kind

    @property
    def type(self) -> str:
        """The sender's word for the type, such as "pandas.DataFrame"."""
        return self._inner.preview.type

    @property
    def size_bytes(self) -> int:
        return self._inner.size_bytes

    @property
    def count(self) -> int:
        """Files in a folder."""
        return self._inner.count

    @property
    def preview(self) -> Preview:
        """What the sender says it looks like; plain text."""
        return self._inner.preview

    @property
    def waiting(self) -> bool:
        """True until it is accepted, declined or taken back."""
        return self._inner.state is TransferState.OFFERED

    def accept(self) -> None:
        """Take it; it appears in `room.transfers` and then in `room.inbox`."""
        self._engine.post(self._inner.accept, self._folder)

    def decline(self, reason: str = "") -> None:
        """Refuse it; the sender hears the reason."""
        self._engine.post(self._inner.decline, reason)

    def __repr__(self) -> str:
        what = f"{self.type}, " if self.type else ""
        return f"<Offer {self.name!r} from {self.sender} ({what}{human_size(self.size_bytes)})>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self)}


def _paused(part: OutgoingPart | Incoming | Pull) -> bool:
    return not part.state.ended and (part.paused_here or part.paused_there)


def _progress(part: OutgoingPart | Incoming | Pull) -> float:
    if part.state is TransferState.DONE:
        return 1.0
    return min(1.0, part.meter.done_bytes / part.meter.size_bytes) if part.meter.size_bytes else 0.0
