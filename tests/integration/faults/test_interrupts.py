"""Ctrl-C at any moment, and exceptions that are no errors in what users hand in (F33)."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from p2pnb.engine.thread import engine
from p2pnb.errors import P2PError
from tests.integration.meeting import Errors, Meeting, still_lives, texts, until


@contextmanager
def _keys_pressed(seed: int) -> Iterator[Callable[[], int]]:
    """Press Ctrl-C at random moments of the main thread, until the block ends."""
    main = threading.main_thread().ident
    assert main is not None
    dice, over, count = random.Random(seed), threading.Event(), 0

    def press() -> None:
        nonlocal count
        while not over.wait(dice.uniform(0.001, 0.03)):
            count += 1
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press, name="keyboard")
    armed = signal.getsignal(signal.SIGINT)
    try:
        thread.start()
        yield lambda: count
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, armed)


@pytest.mark.parametrize("seed", range(4))
def test_interrupts_at_any_moment_leave_every_state_whole(meeting: Meeting, seed: int) -> None:
    """What returned has happened, what was interrupted has happened once or not at all, and all goes on."""
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    tried, sure, number = [], [], 0
    with _keys_pressed(seed) as pressed:
        while number < 250:
            with suppress(KeyboardInterrupt, P2PError):
                number += 1
                tried.append(str(number))
                ada.chat(str(number))
                sure.append(tried[-1])
                if number % 5 == 0:
                    ada.send(b"x" * 30_000, "thing").result(0.05)
                if number % 7 == 0:
                    ada.receive("never", timeout=0.01)
                list(ada.peers.values()), ada.transfers, ada.inbox.all(), repr(ada)
        assert pressed() > 10
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

    for event in ("message", "object", "transfer", "peer", "state", "offer"):
        ben.on(event, callback)
    ada.chat("one")
    ada.send([1, 2], "pair")
    until(lambda: texts(ben) == ["one"])
    assert ben.receive("pair", 5) == [1, 2]
    assert engine().alive
    still_lives(ada, ben)
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
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.0, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with suppress(KeyboardInterrupt):
        ben.leave()
        time.sleep(0.2)
    timer.join()
    until(lambda: not ada.peers, "Ben is gone or can go", 1) if ben.state == "closed" else None
    ben.leave()
    until(lambda: not ada.peers, "Ben left")
    assert ben.state == "closed"
