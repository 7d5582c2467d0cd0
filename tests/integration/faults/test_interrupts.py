"""Ctrl-C at any moment, and exceptions that are no errors in what users hand in (F33)."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from p2pnb.engine.thread import engine
from p2pnb.errors import P2PError
from tests.integration.meeting import Errors, Meeting, still_lives, texts, until


class _Keyboard:
    """Somebody who presses Ctrl-C at random moments; it counts only inside `listening`, where the test is ready."""

    def __init__(self, seed: int) -> None:
        self.pressed = 0
        self._dice = random.Random(seed)
        self._armed = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._press, name="keyboard")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let one Ctrl-C end this block, at any of its moments."""
        with suppress(KeyboardInterrupt):
            self._armed = True
            yield
            self._armed = False

    def __enter__(self) -> _Keyboard:
        self._before = signal.signal(signal.SIGINT, self._heard)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        signal.signal(signal.SIGINT, self._before)

    def _heard(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            self.pressed += 1
            raise KeyboardInterrupt

    def _press(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not self._over.wait(self._dice.uniform(0.001, 0.03)):
            signal.pthread_kill(main, signal.SIGINT)


@pytest.mark.parametrize("seed", range(4))
def test_interrupts_at_any_moment_leave_every_state_whole(meeting: Meeting, seed: int) -> None:
    """What returned has happened, what was interrupted has happened once or not at all, and all goes on."""
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    tried: list[str] = []
    sure: list[str] = []
    with _Keyboard(seed) as keyboard:
        for number in range(250):
            tried.append(str(number))
            with suppress(P2PError), keyboard.listening():
                ada.chat(str(number))
                sure.append(tried[-1])
                if number % 5 == 0:
                    ada.send(b"x" * 30_000, "thing").result(0.05)
                if number % 7 == 0:
                    ada.receive("never", timeout=0.01)
                list(ada.peers.values()), ada.transfers, ada.inbox.all(), repr(ada)
        assert keyboard.pressed > 10
    ada.chat("over")
    until(lambda: texts(ben)[-1:] == ["over"])
    heard = texts(ben)[:-1]
    assert len(set(heard)) == len(heard), "nothing twice"
    assert [text for text in tried if text in heard] == heard, "in order"
    assert set(sure) <= set(heard), "what returned was said"
    until(lambda: all(t.state in ("done", "failed", "cancelled") for t in ada.transfers), "no transfer hangs")
    still_lives(ada, ben)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_callback_that_raises_what_is_no_error_ends_nothing(
    meeting: Meeting, log: Errors, kind: type[BaseException]
) -> None:
    """It runs on the engine's thread, which belongs to every room of this process."""
    ada, ben = meeting.people("Ada", "Ben", accept=True)

    def callback(_: object) -> None:
        raise kind

    events = ("message", "object", "transfer", "peer", "state", "offer")
    deaf = [ben.on(event, callback) for event in events]
    ada.chat("one")
    ada.send([1, 2], "pair")
    until(lambda: texts(ben) == ["one"])
    assert ben.receive("pair", 5) == [1, 2]
    assert engine().alive
    still_lives(ada, ben)
    for stop in deaf:
        stop()
    assert log.texts(), "it is told in the log"
    log.records.clear()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_accept_function_that_raises_what_is_no_error_lets_the_offer_wait(
    meeting: Meeting, kind: type[BaseException]
) -> None:
    def accept(_: object) -> bool:
        raise kind

    ada, ben = meeting.people("Ada", "Ben", accept=accept)
    transfer = ada.send(b"x" * 50_000, "thing")
    until(lambda: ben.offers)[0].accept()
    transfer.result(5)
    assert engine().alive
    still_lives(ada, ben)


def test_interrupt_of_leave_is_no_reason_to_stay(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    with _Keyboard(1) as keyboard:
        while not keyboard.pressed and ben.state != "closed":
            with keyboard.listening():
                ben.leave()
    ben.leave()
    until(lambda: not ada.peers, "Ben left")
    assert ben.state == "closed"
