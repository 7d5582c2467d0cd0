"""The line to the hub breaks, stalls, lies or is slow, and everything goes through it.

F1, F2, F4, F6, F8, F9 (relay), F17, F24, F25, F31.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import pytest

from p2pnb.engine.transfers import FileSink
from p2pnb.protocol.wire import WINDOW_BYTES
from tests.integration.faults.conftest import LinedMeeting
from tests.integration.faults.ledger import Ledger
from tests.integration.meeting import see_each_other, still_lives, texts, until

CUTS: Final = int(os.environ.get("P2PNB_CUTS", "30"))  # 1,000 by hand
SEED: Final = int(os.environ.get("P2PNB_SEED", "1"))
RESUME_S: Final = 2.0

Open = Callable[..., Ledger]


@pytest.mark.slow
@pytest.mark.timeout(60 + CUTS * 2)
def test_reset_at_random_bytes_resumes_within_two_seconds_and_repeats_only_what_was_under_way(
    lined: LinedMeeting, ledger: Open
) -> None:
    """F1."""
    ada, ben = lined.people("Ada", "Ben", accept=True)
    book, dice = ledger(ada, ben), random.Random(SEED)
    line = lined.lines["Ben"]
    size = 400_000 * CUTS
    transfer = book.send(ada, size)
    until(lambda: transfer.progress > 0, "it moves")
    before = line.down.passed
    line.cut_at(islice(iter(lambda: dice.randrange(600_000), None), CUTS))
    worst, seen = 0.0, 0
    while transfer.state == "moving":
        if len(line.cut_times) > seen:
            seen, began, at = len(line.cut_times), line.cut_times[-1], transfer.progress
            book.say(ada)
            book.say(ben)
            until(
                lambda: transfer.progress > at or transfer.state != "moving" or len(line.cut_times) > seen,  # noqa: B023
                f"it goes on after cut {seen}",
                20,
            )
            if len(line.cut_times) == seen:
                worst = max(worst, time.monotonic() - began)
        time.sleep(0.002)
    book.settle()
    assert len(line.cut_times) >= CUTS * 0.8
    assert worst < RESUME_S, f"it took {worst:.2f} s to go on"
    repeated = line.down.passed - before - size
    assert repeated < 0.05 * size + (CUTS + 1) * WINDOW_BYTES / 4, "only what was not acknowledged goes again"


@pytest.mark.parametrize("at", range(1, 60, 2))
def test_cut_inside_a_message_loses_and_repeats_nothing(lined: LinedMeeting, ledger: Open, at: int) -> None:
    """F24: offsets through the WebSocket's header, the peer id and the sealed frame; the rest by F1's dice."""
    ada, ben = lined.people("Ada", "Ben")
    book = ledger(ada, ben)
    line = lined.lines["Ada"]
    for way in range(2):
        line.cut_at(iter([at + 40 * way]))
        for _ in range(3):
            book.say(ada)
            book.say(ben)
        until(lambda way=way: len(line.cut_times) > way, "the line was cut")  # type: ignore[misc]
        book.settle(15)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["up", "down"])
def test_flipped_bits_cost_a_path_and_nothing_else(
    lined: LinedMeeting, ledger: Open, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """F25: in the WebSocket's own bytes or in the sealed ones."""
    monkeypatch.setattr("p2pnb.engine.link.RELAY_RETRY_S", 0.1)  # who breaks every path has to wait, but not here
    ada, ben = lined.people("Ada", "Ben", accept=True)
    book, dice = ledger(ada, ben), random.Random(SEED)
    direction = getattr(lined.lines["Ada"], way)
    for number in range(5):
        flipped = direction.flipped
        direction.flip_after(dice.randrange(150_000))
        transfer = book.send(ada if way == "up" else ben, 500_000, "file" if number % 2 else "object")
        book.say(ada)
        book.say(ben)
        transfer.result(30)
        until(lambda: direction.flipped > flipped, "a bit was flipped")  # noqa: B023
    book.settle()
    still_lives(ada, ben)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), [("Ben", "both"), ("Ada", "up"), ("Ben", "up"), ("Ada", "down")])
def test_black_hole_under_a_transfer_is_left_within_ten_seconds(
    lined: LinedMeeting, ledger: Open, name: str, way: str
) -> None:
    """F2, active, and F9 on the relay: no FIN, no RST, not even for one direction; new connections work."""
    ada, ben = lined.people("Ada", "Ben", accept=True)
    book = ledger(ada, ben)
    line = lined.lines[name]
    line.up.bytes_per_s = line.down.bytes_per_s = 3_000_000
    transfer = book.send(ada, 60_000_000)
    until(lambda: transfer.progress > 0.05, "it moves")
    tried = line.tried
    line.hold(up=way != "down", down=way != "up")
    began = time.monotonic()
    until(lambda: line.tried > tried, "the dead line is given up", 15)
    took = time.monotonic() - began
    line.cut()
    line.let_go()
    line.up.bytes_per_s = line.down.bytes_per_s = None
    book.say(ada)
    book.say(ben)
    book.settle(30)
    assert took < 10.5


def test_slow_answers_of_an_old_line_change_nothing(lined: LinedMeeting, ledger: Open) -> None:
    """F8: records that are two seconds late meet those of the new path, and are dropped."""
    ada, ben = lined.people("Ada", "Ben", accept=True)
    book = ledger(ada, ben)
    line = lined.lines["Ben"]
    line.down.delay_s = 1.0
    for number in range(6):
        book.say(ada)
        book.say(ben)
        if number == 2:
            book.send(ada, 300_000)
        if number % 2:
            line.cut()
            line.down.delay_s = 0.2 * number
    line.down.delay_s = 0.0
    book.settle(30)


@pytest.mark.slow
def test_line_that_flaps_every_second_still_carries(lined: LinedMeeting, ledger: Open) -> None:
    """F6 on real sockets: some two seconds up and a second down, while the machine may be busy with other tests."""
    ada, ben = lined.people("Ada", "Ben", accept=True)
    book = ledger(ada, ben)
    line = lined.lines["Ben"]
    line.down.bytes_per_s = 2_000_000
    transfer = book.send(ada, 6_000_000)
    marks = []
    for _ in range(5):
        time.sleep(1.8)
        line.refusing = True
        line.cut()
        marks.append(transfer.progress)
        book.say(ada)
        book.say(ben)
        time.sleep(1)
        line.refusing = False
    line.down.bytes_per_s = None
    book.settle()
    assert marks[-1] > marks[0] or marks[0] == 1.0, "it made progress all the same"


def test_hub_gone_for_long_leaves_bounded_queues_and_a_clear_state(lined: LinedMeeting, ledger: Open) -> None:
    """F4: nothing is lost that was taken, what is too much is refused, and the state says why."""
    ada, ben = lined.people("Ada", "Ben", accept=True)
    book = ledger(ada, ben)
    for line in lined.lines.values():
        line.refusing = True
        line.cut()
    until(lambda: ada.state == ben.state == "reconnecting")
    assert "hub" in str(ada.error).lower()
    assert ada.peers["Ben"].state == "away"
    for _ in range(50):
        book.say(ada)
    transfer = book.send(ada, 2_000_000)
    assert transfer.state == "offered"
    for line in lined.lines.values():
        line.refusing = False
    book.settle(40)
    see_each_other([ada, ben])
    assert ada.error is None


@pytest.mark.slow
def test_proxy_that_closes_idle_lines_finds_none(lined: LinedMeeting, monkeypatch: pytest.MonkeyPatch) -> None:
    """F31, in a twentieth of the time: pings every second where the proxy's patience is 3 s."""
    monkeypatch.setattr("p2pnb.engine.hub_client.PING_INTERVAL_S", 1.0)
    ada, ben = lined.people("Ada", "Ben")
    for line in lined.lines.values():
        line.idle_limit_s = 3.0
    opened = [line.opened for line in lined.lines.values()]
    time.sleep(7)
    assert not any(line.idle_cuts for line in lined.lines.values())
    assert [line.opened for line in lined.lines.values()] == opened
    ada.chat("still the same line")
    until(lambda: texts(ben) == ["still the same line"], timeout=1)


@pytest.mark.slow
@pytest.mark.parametrize("relay", ["only", "fallback"])
def test_slow_reader_pushes_the_sender_back_and_chat_passes(
    lined: LinedMeeting, ledger: Open, monkeypatch: pytest.MonkeyPatch, relay: str
) -> None:
    """F17: a disk of 20 MB/s behind a fast line; what is under way stays bounded, and chat doesn't wait behind it."""
    write = FileSink.write

    def slowly(sink: FileSink, offset: int, data: Any) -> None:
        time.sleep(len(data) / 20e6)
        write(sink, offset, data)

    monkeypatch.setattr(FileSink, "write", slowly)
    ada, ben = lined.people("Ada", "Ben", accept=True, relay=relay)
    if relay == "fallback":
        until(lambda: ada.peers["Ben"].path == ben.peers["Ada"].path not in (None, "relay"), "a direct path", 20)
    book = ledger(ada, ben)
    transfer = book.send(ada, 60_000_000, "file")
    until(lambda: transfer.progress > 0, "it moves")
    delays, most = [], 0.0
    while transfer.state == "moving":
        began = time.monotonic()
        said = book.say(ada)
        until(lambda said=said: said in texts(ben), "Ben reads it")  # type: ignore[misc]
        delays.append(time.monotonic() - began)
        part = transfer.per_peer["Ben"]
        most = max(most, part.sent_bytes - part.progress * transfer.size_bytes)
        time.sleep(0.05)
    book.settle()
    assert len(delays) > 10
    assert sorted(delays)[int(0.95 * len(delays))] < 0.5, f"{sorted(delays)[-5:]}"
    assert most <= 1.25 * WINDOW_BYTES, f"{most:,.0f} bytes under way"
