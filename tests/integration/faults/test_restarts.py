"""A kernel dies in the middle of a file and comes back: it goes on by range, and never mixes two versions.

Real processes, killed with SIGKILL. The relay's line is slowed down, so that there is a middle.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from p2pnb.errors import PeerGoneError
from p2pnb.room import Room
from p2pnb.transfer import Transfer
from tests.integration.faults.conftest import LinedMeeting
from tests.integration.faults.remote import Remote
from tests.integration.hostile_hub import Delivery, HostileHub
from tests.integration.meeting import leftovers, texts, until

pytestmark = pytest.mark.slow

SIZE: Final = 200_000_000
RATE: Final = 60_000_000
UNDER_WAY: Final = ("offered", "moving")
JOURNAL: Final = 64 << 20  # what a killed receiver may have to get again


@pytest.fixture
def quick_end(hub: HostileHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed peer is given up soon; and the hub doesn't remember hundreds of megabytes."""
    monkeypatch.setattr("p2pnb.engine.member.GONE_AFTER_S", 0.3)
    hub.peer_grace_s = 0.1

    def forget(delivery: Delivery) -> list[Delivery]:
        hub.recording.clear()
        hub.deliveries.clear()
        return [delivery]

    hub.on_payload = forget


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "big.bin"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    yield path
    path.unlink()


@pytest.fixture
def ada(lined: LinedMeeting, quick_end: None) -> Room:
    ada = lined.create("Ada", accept=True)
    lined.lines["Ada"].up.bytes_per_s = lined.lines["Ada"].down.bytes_per_s = RATE
    return ada


def _ben(ada: Room, hub: HostileHub, folder: Path) -> Remote:
    """Ben, (again) in a process of his own, with the folder that he always has."""
    ben = Remote("Ben")
    link = ada.invite.with_hub(hub.url).link
    ben.run(f"room = watch(p2pnb.join({link!r}, 'Ben', folder={str(folder)!r}, relay='only', accept=True))")
    until(lambda: "Ben" in ada.peers and ada.peers["Ben"].state == "here")
    ben.until("'Ada' in room.peers")
    return ben


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _sent(transfer: Transfer) -> int:
    return transfer.per_peer["Ben"].sent_bytes


def _stopped_at(transfer: Transfer, share: float) -> None:
    until(lambda: transfer.progress >= share or transfer.state not in UNDER_WAY, f"{share:.0%} of it", 60)
    assert transfer.state == "moving"


def test_killed_receiver_goes_on_where_its_journal_ends(
    hub: HostileHub, ada: Room, source: Path, tmp_path: Path
) -> None:
    with _ben(ada, hub, tmp_path / "ben") as ben:
        first = ada.send_file(source)
        _stopped_at(first, 0.6)
        ben.kill()
    with pytest.raises(PeerGoneError):
        first.result(15)
    until(lambda: not ada.peers, "Ben is gone")
    with _ben(ada, hub, tmp_path / "ben") as ben:
        again = ada.send_file(source)
        again.result(60)
        ben.until("got")
        assert ben.value("len(got)") == 1
        assert ben.value("got[0][2]") == _digest(source)
        part = again.per_peer["Ben"]
        assert part.sent_bytes < SIZE - (0.6 * SIZE - JOURNAL - RATE / 10), "what was journalled is not sent again"
        assert ben.value("room.transfers[0].per_peer['Ada'].resumed_bytes") >= SIZE - part.sent_bytes
    assert not leftovers(tmp_path / "ben")


def test_receiver_killed_again_and_again_still_gets_there(
    hub: HostileHub, ada: Room, source: Path, tmp_path: Path
) -> None:
    sent = 0
    for tries in count(1):
        assert tries < 12, "it makes no progress"
        with _ben(ada, hub, tmp_path / "ben") as ben:
            transfer = ada.send_file(source)
            until(lambda: transfer.state not in UNDER_WAY or _sent(transfer) > 0.4 * SIZE, "more", 60)  # noqa: B023
            sent += _sent(transfer)
            if transfer.state == "done":
                ben.until("got")
                assert ben.value("got[0][2]") == _digest(source)
                break
            ben.kill()
        until(lambda: not ada.peers, "Ben is gone")
    assert sent < 3 * SIZE
    assert not leftovers(tmp_path / "ben")


def test_killed_sender_that_comes_back_is_gone_on_with(
    hub: HostileHub, lined: LinedMeeting, ada: Room, source: Path, tmp_path: Path
) -> None:
    with _ben(ada, hub, tmp_path / "ben") as ben:
        ben.run(f"transfer = room.send_file({str(source)!r})")
        ben.until("transfer.progress > 0.5", 60)
        ben.kill()
    until(lambda: not ada.peers, "Ben is gone")
    failed = next(transfer for transfer in ada.transfers if transfer.direction == "in")
    with pytest.raises(PeerGoneError, match="kept"):
        failed.result(5)
    assert leftovers(lined.folder), "what came is kept"
    with _ben(ada, hub, tmp_path / "ben") as ben:
        ben.run(f"transfer = room.send_file({str(source)!r})")
        ben.run("transfer.result(60)", 70)
        sent = ben.value("transfer.per_peer['Ada'].sent_bytes")
    assert sent < 0.6 * SIZE
    assert _digest(ada.receive("big.bin", 5)) == _digest(source)
    assert len(ada.inbox.all()) == 1


def test_source_that_changed_in_between_is_never_spliced(
    hub: HostileHub, ada: Room, source: Path, tmp_path: Path
) -> None:
    """The same size and the same times: only its bytes tell, in the part that came and in the one to come."""
    before = source.stat()
    with _ben(ada, hub, tmp_path / "ben") as ben:
        first = ada.send_file(source)
        _stopped_at(first, 0.6)
        ben.kill()
    until(lambda: not ada.peers, "Ben is gone")
    with source.open("r+b") as file:
        for share in (0.1, 0.9):
            file.seek(int(share * SIZE))
            file.write(b"another version of these bytes")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    with _ben(ada, hub, tmp_path / "ben") as ben:
        again = ada.send_file(source)
        again.result(60)
        ben.until("got")
        assert ben.value("got[0][2]") == _digest(source)
        assert again.per_peer["Ben"].sent_bytes < SIZE - (0.6 * SIZE - 2 * JOURNAL), "most of it was still good"


def test_pause_outlives_the_paths(
    hub: HostileHub, lined: LinedMeeting, ada: Room, source: Path, tmp_path: Path
) -> None:
    """Paused by either side: chat passes, a reset line changes nothing, and it goes on when it is let."""
    with _ben(ada, hub, tmp_path / "ben") as ben:
        transfer = ada.send_file(source)
        _stopped_at(transfer, 0.1)
        ben.run("theirs = until(lambda: [t for t in room.transfers if t.direction == 'in'])[0]")
        for pause, go_on in (
            (transfer.pause, transfer.resume),
            (lambda: ben.run("theirs.pause()"), lambda: ben.run("theirs.resume()")),
        ):
            pause()
            until(lambda: transfer.state == "paused", "Ada sees it")
            ben.until("theirs.state == 'paused'")
            lined.lines["Ada"].cut()
            ben.run("room.chat('still there')")
            until(lambda: texts(ada)[-1:] == ["still there"])
            at = until(lambda: _rests(transfer), "nothing moves")
            assert at < 1
            assert transfer.state == "paused"
            go_on()
            until(lambda: transfer.progress > at, "it moves again")  # noqa: B023
        transfer.result(60)
        ben.until("got")
        assert ben.value("got[0][2]") == _digest(source)


def _rests(transfer: Transfer, seconds: float = 0.6) -> float:
    """Return the progress if it doesn't change for a while, else 0."""
    before = transfer.progress
    try:
        until(lambda: transfer.progress != before, timeout=seconds)
    except AssertionError:
        return before
    return 0.0
