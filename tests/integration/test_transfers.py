"""Offers, policies, refusals and cancellations, from either side and in every phase; the room lives on."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from p2pnb import Offer, Transfer
from p2pnb.engine.link import Link
from p2pnb.errors import (
    CorruptDataError,
    DeclinedError,
    DiskFullError,
    NotSupportedError,
    P2PError,
    PeerGoneError,
    SourceChangedError,
    TransferCancelledError,
    TransferError,
    UnsafeNameError,
    UsageError,
    WaitTimeoutError,
)
from p2pnb.files import FileEntry, FolderHead, encode_head
from p2pnb.objects import encode
from p2pnb.protocol import wire
from tests.integration.hostile_hub import Delivery, HostileHub
from tests.integration.meeting import (
    Meeting,
    leftovers,
    link_of,
    on_engine,
    peer_id,
    see_each_other,
    still_lives,
    texts,
    until,
)

BIG = 3_000_000
MOVING_BYTES = 100_000  # payloads above this are bulk


def _hold_bulk(hub: HostileHub, after: int = 3) -> threading.Event:
    """Let some bulk pass and then stall the hub; the event is set once it stalls."""
    held = threading.Event()
    seen = 0

    def stall(delivery: Delivery) -> list[Delivery]:
        nonlocal seen
        seen += len(delivery.payload) > MOVING_BYTES
        if seen > after and len(delivery.payload) > MOVING_BYTES:
            held.set()
            hub.deaf = True
        return [delivery]

    hub.on_payload = stall
    return held


def _release(hub: HostileHub) -> None:
    hub.on_payload = lambda delivery: [delivery]
    hub.deaf = False


# ── what is taken ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        (True, True),
        (False, False),
        (10_000, False),
        ("10 kB", False),
        ("1 MB", True),
        (lambda offer: offer.name == "item", True),
        (lambda offer: offer.sender == "Eve", False),
        (lambda offer: offer.size_bytes < 10, False),
    ],
)
def test_accept_policy_decides(meeting: Meeting, accept: Any, taken: bool) -> None:
    ada, ben = meeting.create("Ada"), meeting.join("Ben", accept=accept)
    until(lambda: ada.peers and ben.peers)
    transfer = ada.send(b"x" * 50_000, "item")
    if taken:
        assert transfer.result(5) is transfer
        assert ben.receive("item", 5) == b"x" * 50_000
        return
    offer = until(lambda: ben.offers)[0]
    assert (offer.name, offer.sender, offer.kind) == ("item", "Ada", "object")
    assert offer.waiting
    assert "item" not in ben.inbox
    assert transfer.state == "offered"
    assert ben.transfers == []
    offer.accept()
    transfer.result(5)
    assert ben.inbox["item"] == b"x" * 50_000
    assert (ben.offers, offer.waiting) == ([], False)


def test_accept_function_that_fails_lets_the_offer_wait_and_is_told(meeting: Meeting) -> None:
    def broken(offer: Offer) -> bool:
        raise ZeroDivisionError("my mistake")

    ada, ben = meeting.create("Ada"), meeting.join("Ben", accept=broken)
    until(lambda: ada.peers and ben.peers)
    ada.send([1], "item")
    until(lambda: ben.offers)
    assert "ZeroDivisionError" in str(ben.notices[-1])
    assert "'item'" in str(ben.notices[-1])
    still_lives(ada, ben)


def test_accept_function_may_take_its_time(meeting: Meeting) -> None:
    """It runs on a worker thread: chat goes on."""
    go = threading.Event()
    ada, ben = meeting.create("Ada"), meeting.join("Ben", accept=lambda offer: go.wait(10))
    until(lambda: ada.peers and ben.peers)
    transfer = ada.send([1], "item")
    still_lives(ada, ben)
    assert transfer.state == "offered"
    go.set()
    transfer.result(5)


def test_size_policy_ends_after_twenty_times_its_size(meeting: Meeting) -> None:
    ada, ben = meeting.create("Ada"), meeting.join("Ben", accept=10_000)
    until(lambda: ada.peers and ben.peers)
    sent = [ada.send(b"x" * 9_000, f"item {number}") for number in range(30)]
    until(lambda: len(ben.offers) + len(ben.inbox.all()) == 30)
    assert 20 <= len(ben.inbox.all()) <= 22
    for offer in ben.offers:
        offer.accept()
    for transfer in sent:
        transfer.result(5)
    assert len(ben.inbox) == 30


def test_receiving_by_name_accepts_the_offer_that_waits(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    other, wanted = ada.send([1], "other"), ada.send({"a": 1}, "wanted")
    assert ben.receive("wanted", 5) == {"a": 1}
    wanted.result(5)
    assert other.state == "offered"
    assert [offer.name for offer in ben.offers] == ["other"]


def test_receiving_by_name_accepts_an_offer_that_comes_later(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    waiting = threading.Thread(target=lambda: got.append(ben.receive("later", 10)))
    got: list[Any] = []
    waiting.start()
    ada.send("here it is", "later").result(5)
    waiting.join(5)
    assert got == ["here it is"]


# ── decline and cancel ──────────────────────────────────────────────────────────────────────────────
def test_declined_offer_tells_the_sender_why(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    transfer = ada.send(b"x" * 50_000, "item")
    until(lambda: ben.offers)[0].decline("no room\x1b[31m\u202e here")
    with pytest.raises(DeclinedError, match=r"declined 'item': no room\\x1b\[31m\\u202e here"):
        transfer.result(5)
    assert transfer.state == "declined"
    assert transfer.per_peer["Ben"].state == "declined"
    assert until(lambda: not ben.offers)
    still_lives(ada, ben)


def test_decline_and_accept_after_the_end_do_nothing(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    transfer = ada.send([1], "item")
    offer = until(lambda: ben.offers)[0]
    offer.accept()
    transfer.result(5)
    offer.decline()
    offer.accept()
    still_lives(ada, ben)
    assert transfer.state == "done"
    assert len(ben.inbox.all()) == 1


def test_sender_takes_an_offer_back(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    transfer = ada.send(b"x" * 50_000, "item")
    offer = until(lambda: ben.offers)[0]
    transfer.cancel()
    with pytest.raises(TransferCancelledError, match="You cancelled"):
        transfer.result(5)
    until(lambda: not ben.offers)
    offer.accept()
    still_lives(ada, ben)
    assert ben.inbox.all() == []


@pytest.mark.parametrize("kind", ["object", "file"])
@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_cancel_in_the_middle_ends_both_sides(
    hub: HostileHub, meeting: Meeting, tmp_path: Path, who: str, kind: str
) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    held = _hold_bulk(hub)
    content = os.urandom(BIG)
    (tmp_path / "big.bin").write_bytes(content)
    out = ada.send(content, "big.bin") if kind == "object" else ada.send_file(tmp_path / "big.bin")
    into = until(lambda: [t for t in ben.transfers if t.direction == "in"])[0]
    assert held.wait(5)
    assert out.state == into.state == "moving"
    assert 0 <= out.progress < 1
    (out if who == "sender" else into).cancel()
    _release(hub)
    for transfer in (out, into):
        with pytest.raises(TransferCancelledError):
            transfer.result(5)
        assert transfer.state == "cancelled"
    assert ben.inbox.all() == []
    assert not ben.folder.exists() or [p for p in ben.folder.iterdir() if not p.name.startswith(".")] == []
    until(lambda: not leftovers(ben.folder), "the temporary is removed")
    still_lives(ada, ben)
    again = ada.send(b"again" * 10_000, "again")
    again.result(10)


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_cancel_after_the_end_changes_nothing(meeting: Meeting, who: str) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    out = ada.send(b"x" * 200_000, "item").result(5)
    into = until(lambda: ben.transfers)[0]
    (out if who == "sender" else into).cancel()
    still_lives(ada, ben)
    assert (out.state, into.state) == ("done", "done")
    assert out.error is None
    assert out.progress == into.progress == 1.0


@pytest.mark.parametrize("who", ["receiver", "sender"])
def test_file_cut_off_by_leaving_is_kept_and_gone_on_with(
    hub: HostileHub, meeting: Meeting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Whoever leaves, the receiver says what it kept; the same file sent again goes on from there."""
    monkeypatch.setattr("p2pnb.engine.member.GONE_AFTER_S", 0.5)
    hub.peer_grace_s = 0.2  # the stalled hub may swallow the goodbye
    names = ("Ada", "Ben") if who == "receiver" else ("Ben", "Ada")  # the creator stays
    people = dict(zip(names, meeting.people(*names, accept=True), strict=True))
    ada, ben = people["Ada"], people["Ben"]
    folder = ben.folder
    held = _hold_bulk(hub, after=24)
    content = os.urandom(8_000_000)
    (tmp_path / "big.bin").write_bytes(content)
    out = ada.send_file(tmp_path / "big.bin")
    assert held.wait(10)
    into = until(lambda: ben.transfers)[0]
    until(lambda: into.progress > 0.3, "more than two blocks are here")
    leaving, staying = (ben, ada) if who == "receiver" else (ada, ben)
    leaving.leave()
    _release(hub)
    for transfer in (out, into):
        with pytest.raises(PeerGoneError):
            transfer.result(5)
    assert re.search(r"\d+% of 'big.bin' \(.*B\) are kept for a week", str(into.error))
    assert "kept" not in str(out.error)
    until(lambda: len(leftovers(folder)) == 1, "the part stays")
    assert [path for path in folder.iterdir() if not path.name.startswith(".")] == []

    until(lambda: not staying.peers, "it is seen leaving")
    settings: dict[str, Any] = {"folder": folder} if who == "receiver" else {}
    back = meeting.join(leaving.name, accept=True, **settings)
    see_each_other([staying, back])
    ada, ben = (ada, back) if who == "receiver" else (back, ben)
    again = ada.send_file(tmp_path / "big.bin").result(20)
    got = ben.receive("big.bin", 5)
    assert got.read_bytes() == content
    resumed = next(t for t in ben.transfers if t.state == "done").per_peer["Ada"].resumed_bytes
    assert resumed >= 2 * 2**20
    sent, missing = again.per_peer["Ben"].sent_bytes, len(content) - resumed  # what was held up may all have come late
    assert sent <= again.size_bytes - resumed
    assert bool(sent) == bool(missing)
    assert not leftovers(folder)


def test_kept_part_of_another_version_is_never_spliced(hub: HostileHub, meeting: Meeting, tmp_path: Path) -> None:
    """Same name, size and time, other bytes: only blocks whose hashes are the sender's count."""
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    held = _hold_bulk(hub, after=40)
    old = os.urandom(8_000_000)
    new = old[: 2**20] + os.urandom(len(old) - 2**20)
    source = tmp_path / "big.bin"
    source.write_bytes(old)
    os.utime(source, (1_700_000_000, 1_700_000_000))
    ada.send_file(source)
    assert held.wait(10)
    into = until(lambda: ben.transfers)[0]
    until(lambda: into.progress > 0.5)
    ben.leave()
    _release(hub)
    until(lambda: not ada.peers)
    source.write_bytes(new)
    os.utime(source, (1_700_000_000, 1_700_000_000))
    ben = meeting.join("Ben", accept=True, folder=ben.folder)
    see_each_other([ada, ben])
    ada.send_file(source).result(20)
    assert ben.receive("big.bin", 5).read_bytes() == new
    assert ben.transfers[-1].per_peer["Ada"].resumed_bytes == 2**20, "the one block that is the same"


def test_small_file_cut_off_by_leaving_is_removed(hub: HostileHub, meeting: Meeting, tmp_path: Path) -> None:
    """Below a megabyte nothing is gone on with, and nothing is left lying about."""
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    held = _hold_bulk(hub, after=2)
    (tmp_path / "small.bin").write_bytes(os.urandom(900_000))
    out = ada.send_file(tmp_path / "small.bin")
    assert held.wait(5)
    into = until(lambda: ben.transfers)[0]
    ben.leave()
    _release(hub)
    with pytest.raises(PeerGoneError):
        out.result(5)
    until(lambda: not leftovers(ben.folder), "the temporary is removed")
    assert [p.name for p in ben.folder.iterdir() if p.name.startswith(".")] == []
    assert "kept" not in str(into.error)


# ── failures of disks and sources ───────────────────────────────────────────────────────────────────
def _slowly(hub: HostileHub, done: Callable[[], object]) -> None:
    """Call `done` once, when the third piece of bulk passes."""
    seen: list[int] = []

    def watch(delivery: Delivery) -> list[Delivery]:
        if len(delivery.payload) > MOVING_BYTES:
            seen.append(1)
            if len(seen) == 3:
                done()
        return [delivery]

    hub.on_payload = watch


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten", "vanishes", "is replaced"])
def test_source_that_changes_while_it_is_sent_is_told_to_both(
    hub: HostileHub, meeting: Meeting, tmp_path: Path, change: str
) -> None:
    """F19. One file of a folder, so that nothing of the folder may look complete."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.bin").write_bytes(os.urandom(BIG))
    victim = folder / "b.bin"
    victim.write_bytes(os.urandom(BIG))
    os.utime(victim, (1_700_000_000, 1_700_000_000))

    def strike() -> None:
        match change:
            case "grows":
                with victim.open("ab") as file:
                    file.write(b"more")
            case "shrinks":
                os.truncate(victim, 1000)
            case "is rewritten":
                victim.write_bytes(os.urandom(BIG))
            case "vanishes":
                victim.unlink()
            case "is replaced":
                other = tmp_path / "other"
                other.write_bytes(os.urandom(BIG))
                os.utime(other, (1_700_000_000, 1_700_000_000))
                other.rename(victim)

    ada, ben = meeting.people("Ada", "Ben", accept=True)
    _slowly(hub, strike)
    out = ada.send_file(folder)
    with pytest.raises(SourceChangedError, match="again"):
        out.result(10)
    into = until(lambda: ben.transfers)[0]
    with pytest.raises(SourceChangedError):
        into.result(5)
    assert (out.state, into.state) == ("failed", "failed")
    until(lambda: not leftovers(ben.folder))
    assert list(ben.folder.iterdir()) == []
    assert ben.inbox.all() == []
    still_lives(ada, ben)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk (mounting a small tmpfs needs root)")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk (mount: {mounted.stderr.strip()})")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_disk_too_small_is_told_to_both_before_anything_moves(
    meeting: Meeting, tmp_path: Path, small_disk: Path
) -> None:
    ada = meeting.create("Ada")
    ben = meeting.join("Ben", accept=True, folder=small_disk / "here")
    until(lambda: ada.peers and ben.peers)
    (tmp_path / "big.bin").write_bytes(os.urandom(BIG))
    out = ada.send_file(tmp_path / "big.bin")
    with pytest.raises(DiskFullError, match="free"):
        out.result(5)
    with pytest.raises(DiskFullError, match="free"):
        until(lambda: ben.transfers)[0].result(5)
    assert leftovers(small_disk) == []
    still_lives(ada, ben)


def test_disk_that_fills_up_in_the_middle_is_told_to_both(
    hub: HostileHub, meeting: Meeting, tmp_path: Path, small_disk: Path
) -> None:
    """F18."""
    ada = meeting.create("Ada")
    ben = meeting.join("Ben", accept=True, folder=small_disk / "here")
    until(lambda: ada.peers and ben.peers)
    (tmp_path / "big.bin").write_bytes(os.urandom(1_500_000))
    _slowly(hub, lambda: (small_disk / "somebody else's").write_bytes(bytes(1_000_000)))
    out = ada.send_file(tmp_path / "big.bin")
    with pytest.raises(DiskFullError):
        out.result(10)
    with pytest.raises(DiskFullError):
        until(lambda: ben.transfers)[0].result(5)
    until(lambda: not leftovers(small_disk), "the temporary is removed")
    assert list((small_disk / "here").iterdir()) == []
    (small_disk / "somebody else's").unlink()
    still_lives(ada, ben)
    ada.send_file(tmp_path / "big.bin").result(10)
    assert ben.receive("big.bin", 5).read_bytes() == (tmp_path / "big.bin").read_bytes()


@pytest.mark.parametrize("obstacle", ["a file is in the way", "a dangling link is in the way", "no such device"])
def test_folder_that_can_not_be_written_is_told_to_both(meeting: Meeting, tmp_path: Path, obstacle: str) -> None:
    place = tmp_path / "inbox"
    match obstacle:
        case "a file is in the way":
            place.write_text("not a folder")
        case "a dangling link is in the way":
            place.symlink_to(tmp_path / "nowhere" / "at all")
        case _:
            place = Path("/proc/p2pnb-no-such-folder")
    ada = meeting.create("Ada")
    ben = meeting.join("Ben", accept=True, folder=place)
    until(lambda: ada.peers and ben.peers)
    (tmp_path / "note.txt").write_text("hello")
    out = ada.send_file(tmp_path / "note.txt")
    with pytest.raises(TransferError):
        out.result(5)
    with pytest.raises(TransferError, match=r"folder|inbox|proc"):
        until(lambda: ben.transfers)[0].result(5)
    still_lives(ada, ben)
    ada.send([1], "objects need no folder").result(5)


def test_two_files_of_one_name_are_both_kept(meeting: Meeting, tmp_path: Path) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    for text in ("one", "two", "three"):
        (tmp_path / "a.txt").write_text(text)
        ada.send_file(tmp_path / "a.txt").result(5)
    assert {path.name: path.read_text() for path in ben.folder.iterdir()} == {
        "a.txt": "one", "a (2).txt": "two", "a (3).txt": "three",
    }  # fmt: skip
    assert [item.name for item in ben.inbox.all()] == ["a.txt", "a (2).txt", "a (3).txt"]


# ── hostile offers ──────────────────────────────────────────────────────────────────────────────────
def _offer(link: Link, **fields: Any) -> int:
    """Send an offer that no honest room would."""
    number = link.exchange.next_transfer()
    offer = {
        "transfer": number, "kind": "file", "name": "a.txt", "size_bytes": 0, "head_bytes": 0,
        "preview": wire.Preview("file"), **fields,
    }  # fmt: skip
    link.exchange.offer(wire.Offer(**offer))
    link.flush()
    return number


def _file_offer(content: bytes, path: str = "a.txt", **fields: Any) -> dict[str, Any]:
    head = encode_head(FolderHead([FileEntry(path, len(content))]))
    return {"head": head, "head_bytes": len(head), "content": content, "size_bytes": len(head) + len(content), **fields}


HOSTILE_NAMES = [
    "../evil.txt", "/etc/cron.d/evil", "..", ".", "", "C:evil.txt", "C:\\evil.txt", "a\\b.txt", "~/evil", "a:b.txt",
    "con", "NUL.txt", "evil.txt.", "evil.txt ", ".bashrc", ".ssh/authorized_keys", "a\0b", "a\nb", "\u202etxt.exe",
    "x" * 256, "\U0001f4a9" * 100, ".p2pnb-0123456789abcdef.part", ".ipynb_checkpoints/x.ipynb", "\ufeffa", "a\u200bb",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_file_name_lands_nowhere(meeting: Meeting, tmp_path: Path, name: str) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    outside = set(tmp_path.rglob("*"))
    on_engine(lambda: _offer(link_of(ada, "Ben"), name=name, **_file_offer(b"evil")))
    still_lives(ada, ben)
    failed = until(lambda: not [t for t in ben.transfers if t.state in ("offered", "moving")])
    assert failed
    assert [type(t.error) for t in ben.transfers] in ([UnsafeNameError], []), "refused, by name or as a whole"
    assert ben.inbox.all() == []
    created = set(tmp_path.rglob("*")) - outside - {ben.folder, ben.folder.parent}
    assert created == set()
    shown = f"{ben.transfers!r} {[str(t.error) for t in ben.transfers]}"
    assert not set(shown) & {"\0", "\n", "\u202e", "\u200b", "\ufeff"}


@pytest.mark.parametrize(
    "member", ["../evil", "/etc/evil", "a/../../evil", "a/.ssh/x", "a//b", "a/con", "a/b\0", "a/" * 70 + "b"]
)
def test_hostile_member_of_a_folder_lands_nowhere(meeting: Meeting, tmp_path: Path, member: str) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    outside = set(tmp_path.rglob("*"))
    head = encode_head(FolderHead([FileEntry("fine.txt", 4), FileEntry(member, 4)]))
    fields = {"head": head, "head_bytes": len(head), "content": b"evilevil", "size_bytes": len(head) + 8}
    on_engine(lambda: _offer(link_of(ada, "Ben"), kind="folder", name="folder", count=2, **fields))
    transfer = until(lambda: ben.transfers)[0]
    with pytest.raises((UnsafeNameError, CorruptDataError)):
        transfer.result(5)
    until(lambda: not leftovers(ben.folder))
    assert set(tmp_path.rglob("*")) - outside - {ben.folder, ben.folder.parent} == set()
    still_lives(ada, ben)


@pytest.mark.parametrize("name", ["conftest.py", "sitecustomize.py", "evil.pth", "jupyter_server_config.py"])
def test_name_that_some_program_runs_arrives_harmless(meeting: Meeting, name: str) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    on_engine(lambda: _offer(link_of(ada, "Ben"), name=name, **_file_offer(b"evil", name)))
    until(ben.inbox.all)
    assert [path.name for path in ben.folder.iterdir()] == [f"{name}.received"]


IMPOSSIBLE_OFFERS: dict[str, dict[str, Any]] = {
    "2^63 bytes": {"size_bytes": 2**63, "head_bytes": 0},
    "negative size": {"size_bytes": -1},
    "head larger than all": {"size_bytes": 10, "head_bytes": 11},
    "head of a gigabyte": {"size_bytes": 2**30, "head_bytes": 2**30},
    "content not as announced": {"size_bytes": 10, "head_bytes": 1, "head": b"x", "content": b"abc"},
    "unknown kind": {"kind": "program"},
    "number again": {"transfer": 0},
    "number too high": {"transfer": 2**32},
    "endless name": {"name": "n" * 5000},
    "more rows than a preview has": {"preview": wire.Preview("t", rows=[["x"]] * 500)},
}


@pytest.mark.parametrize("what", IMPOSSIBLE_OFFERS)
def test_impossible_offer_is_refused_and_the_room_lives_on(meeting: Meeting, what: str) -> None:
    """T31, T50. The path that carried it ends; the session and what else is said on it go on."""
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    on_engine(lambda: _offer(link_of(ada, "Ben"), **IMPOSSIBLE_OFFERS[what]))
    still_lives(ada, ben)
    assert ben.transfers == []
    assert ben.inbox.all() == []


_HUGE = msgspec.msgpack.encode([1, [100 * 2**40], b""])  # one buffer

LYING_OFFERS: dict[str, dict[str, Any]] = {
    "a file's list that is no list": {"head": b"\xc1", "head_bytes": 1, "size_bytes": 1},
    "a list that says more than announced": _file_offer(b"four") | {
        "head": encode_head(FolderHead([FileEntry("a.txt", 5000)])),
    },
    "a petabyte": {"size_bytes": 2**50, "head_bytes": len(encode_head(FolderHead([FileEntry("a", 2**50 - 10)]))),
                   "head": encode_head(FolderHead([FileEntry("a", 2**50 - 10)]))},
    "an object of no codec": {"kind": "object", "codec": "pickle", "size_bytes": 4, "content": b"evil"},
    "an object that is none": {"kind": "object", "codec": "plain", "head": b"\xc1", "head_bytes": 1, "size_bytes": 1},
    "an object of 100 terabytes": {
        "kind": "object", "codec": "plain", "head": _HUGE, "head_bytes": len(_HUGE),
        "size_bytes": len(_HUGE) + 100 * 2**40,
    },
}  # fmt: skip


@pytest.mark.parametrize("what", LYING_OFFERS)
def test_offer_that_lies_fails_on_both_sides(meeting: Meeting, what: str) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    fields = dict(LYING_OFFERS[what])
    if "head" in fields and "size_bytes" in fields and "content" in fields:
        fields["head_bytes"] = len(fields["head"])
        fields["size_bytes"] = len(fields["head"]) + len(fields["content"])
    on_engine(lambda: _offer(link_of(ada, "Ben"), **fields))
    transfer = until(lambda: ben.transfers)[0]
    with pytest.raises(P2PError):
        transfer.result(5)
    assert isinstance(transfer.error, (CorruptDataError, DiskFullError, NotSupportedError, TransferError))
    assert ben.inbox.all() == []
    until(lambda: not leftovers(ben.folder))
    still_lives(ada, ben)


def test_more_offers_than_may_be_open_wait_their_turn(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pnb.protocol.exchange.MAX_OPEN_TRANSFERS", 20)
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    sent = [ada.send([number], f"item {number}") for number in range(50)]
    until(lambda: len(ben.offers) == 20)
    still_lives(ada, ben)
    assert {offer.name for offer in ben.offers} == {f"item {number}" for number in range(20)}
    ben.on("offer", lambda offer: offer.accept())
    for offer in ben.offers:
        offer.accept()
    for transfer in sent:
        transfer.result(5)
    assert sorted(ben.inbox.values()) == [[number] for number in range(50)]


def test_flood_of_offers_is_bounded(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pnb.protocol.exchange.MAX_OPEN_TRANSFERS", 20)
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    sent = [ada.send([number], f"item {number}") for number in range(20)]
    until(lambda: len(ben.offers) == 20)
    link = link_of(ada, "Ben")
    assert link.session is not None
    for _ in range(50):  # a sender that doesn't wait its turn
        flood = wire.Offer(on_engine(link.exchange.next_transfer), "object", "flood", 1, 1, wire.Preview("t"))
        on_engine(link.session.send, flood, 0.0)
    on_engine(link.flush)
    still_lives(ada, ben)
    assert {offer.name for offer in ben.offers} == {f"item {number}" for number in range(20)}
    for offer in ben.offers:
        offer.decline()
    until(lambda: all(transfer.state == "declined" for transfer in sent))
    still_lives(ada, ben)


# ── what can't be sent ──────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "value", [object(), lambda: 1, np.array([object()], dtype=object), threading.Lock(), open(os.devnull)]  # noqa: SIM115
)
def test_unsupported_object_says_what_to_send_instead(meeting: Meeting, value: object) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    with pytest.raises(NotSupportedError, match=r"\w{3,}"):
        ada.send(value, "thing")
    assert ada.transfers == []
    still_lives(ada, ben)


def test_sending_to_nobody_says_so(meeting: Meeting, tmp_path: Path) -> None:
    ada = meeting.create("Ada")
    for call in (lambda: ada.chat("hello?"), lambda: ada.send([1]), lambda: ada.send_file(tmp_path)):
        with pytest.raises(UsageError, match=r"Nobody else.*invite"):
            call()
    assert (ada.messages, ada.transfers) == ([], [])


@pytest.mark.parametrize("to", ["Carl", ["Ben", "Carl"], [], "", "ben"])
def test_unknown_receiver_is_named(meeting: Meeting, to: Any) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    for call in (lambda: ada.chat("x", to=to), lambda: ada.send([1], to=to)):
        with pytest.raises(UsageError, match=r"there is Ben|names nobody"):
            call()
    assert texts(ben) == []
    still_lives(ada, ben)


@pytest.mark.parametrize("path", ["nothing-here.txt", "dangling", "pipe", ""])
def test_file_that_can_not_be_read_is_named(meeting: Meeting, tmp_path: Path, path: str) -> None:
    ada, _ben = meeting.people("Ada", "Ben")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(P2PError, match=path or r"\w"):
        ada.send_file(tmp_path / path if path else [])
    assert ada.transfers == []


def test_wide_table_with_long_names_can_be_offered(meeting: Meeting) -> None:
    """Its preview alone would be larger than a control frame may be."""
    ada, ben = meeting.people("Ada", "Ben")
    columns = [f"{number} " + "\U0001f600" * 100 for number in range(80)]
    frame = pd.DataFrame({column: ["\U0001f4a9" * 100] * 12 for column in columns})
    ada.send(frame, "\U0001f600" * 250).result(10)
    pd.testing.assert_frame_equal(ben.receive(timeout=5), frame)


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 131_071, 131_072, 131_073, 1_000_000])
def test_every_size_comes_equal(meeting: Meeting, tmp_path: Path, size: int) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    content = os.urandom(size)
    (tmp_path / "file.bin").write_bytes(content)
    transfers = [ada.send(content, "object"), ada.send_file(tmp_path / "file.bin")]
    assert [transfer.result(10).state for transfer in transfers] == ["done", "done"]
    assert ben.receive("object", 5) == content
    assert ben.receive("file.bin", 5).read_bytes() == content


def test_folder_comes_equal_and_leaves_out_what_leads_elsewhere(meeting: Meeting, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.txt").write_text("Grüße")
    (folder / "deep" / "er" / "b.bin").write_bytes(os.urandom(300_000))
    (folder / "nothing").write_bytes(b"")
    (folder / "away").symlink_to("/etc/passwd")
    (folder / ".hidden").write_text("secret")
    ada, ben = meeting.people("Ada", "Ben")
    ada.send_file(folder).result(10)
    got = ben.receive("work", 5)
    (folder / "away").unlink()
    (folder / ".hidden").unlink()
    assert subprocess.run(["diff", "-r", folder, got], capture_output=True, check=False).stdout == b""
    shutil.rmtree(got)


# ── several receivers ───────────────────────────────────────────────────────────────────────────────
def test_broadcast_of_which_one_fails(hub: HostileHub, meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    ben, carl, dora = (meeting.join(n, accept=a) for n, a in (("Ben", True), ("Carl", False), ("Dora", True)))
    until(lambda: len(ada.peers) == 3)
    transfer = ada.send(os.urandom(300_000), "item")
    assert set(transfer.peers) == {"Ben", "Carl", "Dora"}
    until(lambda: carl.offers)[0].decline("not now")
    with pytest.raises(TransferError, match=r"1 of 3 peers.*Carl.*not now"):
        transfer.result(10)
    assert {name: part.state for name, part in transfer.per_peer.items()} == {
        "Ben": "done", "Carl": "declined", "Dora": "done",
    }  # fmt: skip
    assert isinstance(transfer.per_peer["Carl"].error, DeclinedError)
    assert transfer.per_peer["Ben"].paths == ("relay",)
    assert ben.receive("item", 5) == dora.receive("item", 5)
    still_lives(ada, ben, carl, dora)


def test_broadcast_reads_and_encodes_its_source_once(
    meeting: Meeting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def counting(value: object) -> object:
        calls.append(value)
        return encode(value)

    monkeypatch.setattr("p2pnb.objects.encode", counting)
    ada, *others = meeting.people("Ada", "Ben", "Carl", "Dora")
    ada.send(list(range(10_000)), "item").result(10)
    assert len(calls) == 1
    assert all(other.receive("item", 5) == list(range(10_000)) for other in others)


def test_receiver_that_leaves_does_not_end_it_for_others(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl", accept=False)
    transfer = ada.send(os.urandom(300_000), "item")
    until(lambda: ben.offers and carl.offers)
    ben.leave()
    carl.offers[0].accept()
    with pytest.raises(TransferError, match="Ben"):
        transfer.result(10)
    assert transfer.per_peer["Carl"].state == "done"
    assert isinstance(transfer.per_peer["Ben"].error, PeerGoneError)


# ── watching and waiting ────────────────────────────────────────────────────────────────────────────
def test_progress_rate_and_eta_tell_the_truth(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    held = _hold_bulk(hub, after=8)
    seen: list[float] = []
    ada.on("transfer", lambda transfer: seen.append(transfer.progress))
    transfer = ada.send(os.urandom(BIG), "item")
    assert held.wait(5)
    with pytest.raises(WaitTimeoutError, match=r"not through after 0.05 s \(\d+%\); it goes on"):
        transfer.result(0.05)
    assert transfer.state == "moving"
    _release(hub)
    transfer.result(10)
    assert (transfer.progress, transfer.eta, transfer.state) == (1.0, 0.0, "done")
    assert transfer.rate > 0
    assert seen == sorted(seen)
    assert "done, 100% of 3.0 MB" in repr(transfer)
    into = until(lambda: ben.transfers)[0]
    assert (into.direction, into.progress, into.eta, into.peers) == ("in", 1.0, 0.0, ("Ada",))


def test_transfer_can_be_awaited_from_any_loop(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)

    async def both() -> tuple[Transfer, object]:
        transfer = ada.send([1, 2], "item")
        value = await asyncio.wait_for(ben.areceive("item", 5), 5)
        assert await transfer is transfer
        refused = ada.send([3], "other")
        while not ben.offers:
            await asyncio.sleep(0.002)
        ben.offers[0].decline()
        with pytest.raises(DeclinedError):
            await refused
        return transfer, value

    transfer, value = asyncio.run(both())
    assert (transfer.state, value) == ("done", [1, 2])


def test_cancelled_wait_does_not_cancel_the_transfer(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)

    async def give_up() -> Transfer:
        transfer = ada.send([1, 2], "item")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await transfer
        return transfer

    transfer = asyncio.run(give_up())
    until(lambda: ben.offers)[0].accept()
    transfer.result(5)


def test_receive_raises_what_the_named_transfer_failed_of(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    held = _hold_bulk(hub)
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            ben.receive("item", 10)
        except P2PError as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    transfer = ada.send(os.urandom(BIG), "item")
    assert held.wait(5)
    transfer.cancel()
    _release(hub)
    thread.join(5)
    assert [type(error) for error in failed] == [TransferCancelledError]


def test_receive_gives_each_item_once_and_oldest_first(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    for number in range(3):
        ada.send(number, "n").result(5)
    ada.send("other", "o").result(5)
    assert [ben.receive(name, 1) for name in ("n", "o", None, None)] == [0, "other", 1, 2]
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError, match="arrived within"):
        ben.receive(timeout=0.05)
    assert time.monotonic() - began < 0.5
    assert dict(ben.inbox) == {"n": 2, "o": "other"}
    assert len(ben.inbox.all()) == 4
    ben.inbox.discard("n")
    assert list(ben.inbox) == ["o"]


def test_both_ways_at_once_with_chat_in_between(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    values = [os.urandom(700_000) for _ in range(6)]
    sent = [(ada, ben)[number % 2].send(value, f"{number}") for number, value in enumerate(values)]
    for number in range(50):
        ada.chat(f"a{number}")
        ben.chat(f"b{number}")
    for transfer in sent:
        transfer.result(20)
    for number, value in enumerate(values):
        assert (ben, ada)[number % 2].receive(f"{number}", 5) == value
    until(lambda: len(texts(ada)) == len(texts(ben)) == 50)
    assert texts(ada) == [f"b{number}" for number in range(50)]
    assert texts(ben) == [f"a{number}" for number in range(50)]


def test_peer_ids_and_names_stay_apart(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    assert peer_id(ada) != peer_id(ben)
    assert msgspec.json.encode(ada.peers["Ben"].id).decode().strip('"') == peer_id(ben).hex()
