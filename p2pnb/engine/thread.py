"""The background thread: one per process, with an event loop of its own.

A cell may run for minutes and the room goes on, since nothing here needs the main thread. C code that holds
the GIL stops this thread too; the protocol's time-outs allow for it. The thread is a daemon and ends cleanly
at interpreter exit, within EXIT_BUDGET_S. A forked child has neither thread nor keys: everything it still
holds says `EngineStoppedError`.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from p2pnb.errors import EngineStoppedError, UsageError

__all__ = ["Engine", "ForkSensitive", "engine", "register_fork_sensitive"]

EXIT_BUDGET_S: Final = 2.0
START_TIMEOUT_S: Final = 10.0
WORKERS: Final = 4  # file reads and writes, object decoding; each releases the GIL for most of its time

T = TypeVar("T")
_log = logging.getLogger("p2pnb.engine")


class ForkSensitive(Protocol):
    """Holds keys or sockets that a forked child must not use."""

    def forget_after_fork(self) -> None:
        """Drop them; called in the child, with one thread and no loop."""


_fork_sensitive: weakref.WeakSet[Any] = weakref.WeakSet()


def register_fork_sensitive(thing: ForkSensitive) -> None:
    """Have `thing.forget_after_fork()` called in forked children while it lives."""
    _fork_sensitive.add(thing)


class Engine:
    """A thread with an event loop, and the ways into it."""

    def __init__(self) -> None:
        self._loop = asyncio.SelectorEventLoop()  # on every system: direct TCP drives its sockets itself
        self._started = threading.Event()
        self._stopped = False
        self._closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.workers = concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="p2pnb-worker")
        self._thread = threading.Thread(target=self._run, name="p2pnb-engine", daemon=True)
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S):
            raise EngineStoppedError("p2pnb's background thread did not start within 10 s; restart the kernel.")

    @property
    def alive(self) -> bool:
        """True while calls into the engine are answered."""
        return not self._stopped and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """True on the engine's own thread."""
        return threading.current_thread() is self._thread

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the engine from any thread."""
        if not self.alive:
            work.close()
            raise EngineStoppedError(
                "p2pnb is not running in this process (it ended, or this is a forked child). "
                "Create or join the room again."
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the engine and wait for it; not from the engine's own thread."""
        if self.is_current:
            work.close()
            raise UsageError(
                "This call waits, and callbacks of p2pnb may not wait. Await the call's result instead, "
                "or make it from your own thread."
            )
        future = self.submit(work)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError as error:
            raise EngineStoppedError("p2pnb ended while this call was under way.") from error
        except BaseException:
            future.cancel()
            raise

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Run a plain function on the engine, soon; does nothing once it has ended."""
        if self.alive:
            with contextlib.suppress(RuntimeError):  # the loop closed in between
                self._loop.call_soon_threadsafe(function, *args)

    def at_exit(self, closer: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Have `closer` awaited before the engine ends; returns a function that takes it back."""
        self._closers.append(closer)
        return lambda: self._closers.remove(closer) if closer in self._closers else None

    def stop(self, budget_s: float = EXIT_BUDGET_S) -> None:
        """Say goodbye everywhere and end the thread, within `budget_s` seconds."""
        if not self.alive or self.is_current:
            return
        future = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        with contextlib.suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            future.result(budget_s)
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(budget_s)
        self.workers.shutdown(wait=False, cancel_futures=True)

    def abandon(self) -> None:
        """In a forked child: mark as dead, and let go of the parent's sockets.

        Loop and thread are the parent's and stay untouched. The child's copies of its sockets would keep the hub
        and the peers from noticing the parent's end. They are replaced, not closed: whoever holds the file
        objects would later close a number that something else has got by then.
        """
        self._stopped = True
        selector = getattr(self._loop, "_selector", None)
        with contextlib.suppress(OSError, AttributeError, RuntimeError):
            nothing = os.open(os.devnull, os.O_RDWR)
            numbers = [key.fd for key in selector.get_map().values()]  # type: ignore[union-attr]
            for number in (*numbers, selector.fileno()):  # type: ignore[union-attr]
                os.dup2(nothing, number)
            os.close(nothing)

    async def _close(self) -> None:
        closers, self._closers = self._closers, []
        await asyncio.gather(*(closer() for closer in closers), return_exceptions=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._started.set)
        try:
            while not self._stopped:
                try:
                    self._loop.run_forever()
                    break
                except BaseException:  # noqa: BLE001 - asyncio lets an exit out of any callback: the rooms go on
                    _log.exception("something tried to end p2pnb's thread")
        finally:
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            with contextlib.suppress(RuntimeError):
                self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


# Kept when the module is reloaded (%autoreload): rooms go on using the engine they have.
_state: dict[str, Any] = globals().get("_state") or {"engine": None, "lock": threading.Lock()}


def engine() -> Engine:
    """Return this process's engine; starts it at the first call."""
    with _state["lock"]:
        current: Engine | None = _state["engine"]
        if current is None or not current.alive:
            current = _state["engine"] = Engine()
        return current


def _stop_at_exit() -> None:
    current: Engine | None = _state["engine"]
    if current is not None:
        current.stop()


def _after_fork_in_child() -> None:
    _state["lock"] = threading.Lock()
    current: Engine | None = _state["engine"]
    if current is not None:
        current.abandon()
    _state["engine"] = None
    for thing in list(_fork_sensitive):
        thing.forget_after_fork()
    _fork_sensitive.clear()


if not _state.get("hooked"):
    _state["hooked"] = True
    atexit.register(_stop_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork_in_child)
