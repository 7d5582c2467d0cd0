"""What has to hold of a transfer that breaks: nothing is trusted, nothing is spliced, nobody else writes the part."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnb.errors import CorruptDataError, DiskFullError, TransferCancelledError, TransferError
from p2pnb.files import FileEntry, FolderHead, IncomingFiles, OutgoingFiles, clean_leftovers, encode_head
from p2pnb.files import _lock as lock_module
from p2pnb.files import parts as parts_module
from p2pnb.files.incoming import MAX_RANGES
from p2pnb.files.part_state import MAX_JOURNAL_RANGES
from p2pnb.protocol.wire import HASH_BYTES
from tests.unit.files.processes import die, line_of, process, tell

KEY = b"a key of the item"
BLOCK = 1000


def write_sources(root: Path, content: bytes, *, files: int) -> Path:
    """A file, or a folder of some of different sizes, that holds `content`."""
    if not files:
        root.write_bytes(content)
        return root
    cuts = sorted(random.Random(3).sample(range(len(content)), files - 1))
    for number, (start, end) in enumerate(pairwise([0, *cuts, len(content)])):
        path = root / f"{number // 20:03}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[start:end])
    return root


def new(source: OutgoingFiles, folder: Path) -> IncomingFiles:
    return IncomingFiles(source.head, source.name, source.kind, content_bytes(source), folder, key=KEY)


def adopt(source: OutgoingFiles, folder: Path, key: bytes = KEY) -> IncomingFiles | None:
    return IncomingFiles.adopt(source.head, source.name, source.kind, content_bytes(source), folder, key=key)


def content_bytes(source: OutgoingFiles) -> int:
    return source.size_bytes - len(source.head)


def send(source: OutgoingFiles, incoming: IncomingFiles, start: int, end: int) -> None:
    buffer = memoryview(bytearray(end - start))
    source.read_into(start, buffer)
    incoming.write(start, buffer)


def verify(source: OutgoingFiles, incoming: IncomingFiles, block: int = BLOCK) -> int:
    """Hold what seems to be there against the source, as two rooms do; return how many bytes stay."""
    size = incoming.content_bytes
    for start, end in incoming.ranges:
        first, last = -(-start // block), -(-end // block) if end == size else end // block
        if first >= last:
            incoming.forget(start, end)
            continue
        incoming.forget(start, first * block)
        incoming.forget(min(last * block, size), end)
        ours, theirs = incoming.hash_blocks(block, first, last), source.hash_blocks(block, first, last)
        for number in range(last - first):
            place = slice(number * HASH_BYTES, (number + 1) * HASH_BYTES)
            if ours[place] != theirs[place]:
                incoming.forget((first + number) * block, (first + number + 1) * block)
    return incoming.received_bytes


def send_missing(source: OutgoingFiles, incoming: IncomingFiles) -> None:
    place = 0
    for start, end in [*incoming.ranges, (incoming.content_bytes, incoming.content_bytes)]:
        if place < start:
            send(source, incoming, place, start)
        place = end


def content_of(arrived: Path) -> bytes:
    paths = sorted(path for path in arrived.rglob("*") if path.is_file()) if arrived.is_dir() else [arrived]
    return b"".join(path.read_bytes() for path in paths)


@pytest.fixture
def source(tmp_path: Path) -> OutgoingFiles:
    content = random.Random(7).randbytes(10_500)
    (tmp_path / "source").mkdir()
    return OutgoingFiles.scan(write_sources(tmp_path / "source" / "item", content, files=0))


# ── killed ──────────────────────────────────────────────────────────────────────────────────────────
RECEIVER = """
    import random, sys
    from p2pnb.files import IncomingFiles, OutgoingFiles
    source = OutgoingFiles.scan(sys.argv[1])
    size = source.size_bytes - len(source.head)
    incoming = IncomingFiles(source.head, source.name, source.kind, size, sys.argv[2], key=b"a key of the item")
    pieces = [(start, min(start + 4096, size)) for start in range(0, size, 4096)]
    random.Random(1).shuffle(pieces)
    del pieces[len(pieces) * 7 // 10:]  # and over and over again: it dies in the middle of a write, never finishes
    while True:
        for number, (start, end) in enumerate(pieces):
            incoming.write(start, source.read(start, end - start))
            if number % 50 == 49:
                incoming.journal()
                print(incoming.received_bytes, flush=True)
"""


@pytest.mark.parametrize("files", [0, 400])
def test_what_a_killed_process_received_is_taken_up_and_finished(tmp_path: Path, files: int) -> None:
    content = random.Random(5).randbytes(4_000_000)
    (tmp_path / "source").mkdir()
    outgoing = OutgoingFiles.scan(write_sources(tmp_path / "source" / "item", content, files=files))
    inbox = tmp_path / "in"
    with process(RECEIVER, tmp_path / "source" / "item", inbox) as running:
        for _ in range(6):
            known = int(line_of(running))
        assert adopt(outgoing, inbox) is None  # its writer lives
        assert clean_leftovers(inbox, older_than_s=-5, kept_for_s=-5) == 0
    incoming = adopt(outgoing, inbox)
    assert incoming is not None
    assert known <= incoming.received_bytes < len(content)
    assert verify(outgoing, incoming) > 0
    send_missing(outgoing, incoming)
    final = incoming.finish()
    assert final == inbox / "item"
    assert content_of(final) == content
    assert os.listdir(inbox) == ["item"]


def test_a_fork_of_a_killed_process_holds_nothing_back(source: OutgoingFiles, tmp_path: Path) -> None:
    code = """
        import os, sys
        from p2pnb.files import IncomingFiles, OutgoingFiles
        source = OutgoingFiles.scan(sys.argv[1])
        size = source.size_bytes - len(source.head)
        incoming = IncomingFiles(source.head, source.name, source.kind, size, sys.argv[2], key=b"a key of the item")
        incoming.write(0, source.read(0, 5000))
        incoming.journal()
        ready, forked = os.pipe()
        if not os.fork():
            os.write(forked, b"x")
            sys.stdin.read()  # lives on
            os._exit(0)
        os.read(ready, 1)
        print("ready", flush=True)
        sys.stdin.read()
    """
    with process(code, tmp_path / "source" / "item", tmp_path / "in") as running:
        assert line_of(running) == "ready"
        assert adopt(source, tmp_path / "in") is None
        os.kill(running.pid, 9)
        running.wait()
        incoming = adopt(source, tmp_path / "in")
        assert incoming is not None
        assert incoming.ranges == [(0, 5000)]
        incoming.abort()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_breaks_in_between_what_arrives_is_the_source(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        content = random.Random(data.draw(st.integers(0, 99))).randbytes(data.draw(st.integers(60, 3000)))
        files = data.draw(st.sampled_from([0, 1, 2, 5, 30]))
        (top / "source").mkdir()
        outgoing = OutgoingFiles.scan(write_sources(top / "source" / "item", content, files=files))
        inbox, block = top / "in", data.draw(st.sampled_from([1, 7, 100, 5000]))
        incoming: IncomingFiles = new(outgoing, inbox)
        for _ in range(data.draw(st.integers(0, 25))):
            action = data.draw(st.sampled_from(["write", "write", "write", "forget", "journal", "die", "keep", "lose"]))
            start = data.draw(st.integers(0, len(content) - 1))
            end = data.draw(st.integers(start, min(len(content), start + 900)))
            if action == "write":
                send(outgoing, incoming, start, end)
            elif action == "forget":
                incoming.forget(start, end)
            elif action == "journal":
                incoming.journal()
            else:
                if action == "die":
                    die(incoming)
                else:
                    incoming.keep()
                part = incoming.part_path / "content"
                if action == "lose" and part.exists():  # the machine crashed: the journal was on the disk, this not
                    some = [path for path in (part, *part.rglob("*")) if path.is_file()]
                    if some:
                        path = data.draw(st.sampled_from(sorted(some)))
                        os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))
                taken = adopt(outgoing, inbox)
                if taken is not None:
                    verify(outgoing, taken, block)
                incoming = taken or new(outgoing, inbox)
        send_missing(outgoing, incoming)
        assert incoming.ranges == [(0, len(content))]
        final = incoming.finish()
        assert content_of(final) == content
        clean_leftovers(inbox, older_than_s=-5, kept_for_s=-5)
        assert os.listdir(inbox) == [final.name]


# ── never two versions ──────────────────────────────────────────────────────────────────────────────
def test_another_version_of_equal_size_and_time_is_never_spliced(source: OutgoingFiles, tmp_path: Path) -> None:
    path = tmp_path / "source" / "item"
    incoming = new(source, tmp_path / "in")
    send(source, incoming, 0, 9_500)
    incoming.keep()
    before, found = path.read_bytes(), path.stat()
    other = before[:4_200] + b"\xff" + before[4_201:]
    path.write_bytes(other)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    changed = OutgoingFiles.scan(path)
    assert changed.head == source.head  # nothing but the bytes tells them apart
    taken = adopt(changed, tmp_path / "in")
    assert taken is not None
    assert verify(changed, taken) == 8_000  # of ten blocks received nine as a whole, one of them of the other version
    assert taken.ranges == [(0, 4_000), (5_000, 9_000)]
    send_missing(changed, taken)
    assert taken.finish().read_bytes() == other


def test_a_part_is_for_its_own_item_only(source: OutgoingFiles, tmp_path: Path) -> None:
    inbox = tmp_path / "in"
    incoming = new(source, inbox)
    send(source, incoming, 0, 5_000)
    part = incoming.keep()
    size, head = content_bytes(source), source.head
    longer = encode_head(FolderHead([FileEntry("item", size + 1)]))
    newer = encode_head(FolderHead([FileEntry("item", size, 1)]))
    assert adopt(source, inbox, b"another key") is None
    assert adopt(source, inbox, b"") is None
    for other in (
        (head, "other", "file", size),
        (head, "item", "folder", size),
        (longer, "item", "file", size + 1),
        (newer, "item", "file", size),
    ):
        assert IncomingFiles.adopt(*other, inbox, key=KEY) is None
    with pytest.raises(CorruptDataError):
        IncomingFiles.adopt(b"", "item", "file", size, inbox, key=KEY)
    assert adopt(source, tmp_path / "elsewhere") is None
    assert part.exists()
    taken = adopt(source, inbox)
    assert taken is not None
    assert taken.part_path == part
    taken.abort()


# ── one writer ──────────────────────────────────────────────────────────────────────────────────────
def test_of_processes_racing_for_one_part_exactly_one_gets_it(source: OutgoingFiles, tmp_path: Path) -> None:
    code = """
        import sys
        from p2pnb.files import IncomingFiles, OutgoingFiles
        source = OutgoingFiles.scan(sys.argv[1])
        size = source.size_bytes - len(source.head)
        print("ready", flush=True)
        sys.stdin.readline()
        taken = IncomingFiles.adopt(source.head, source.name, source.kind, size, sys.argv[2], key=b"a key of the item")
        print("none" if taken is None else taken.received_bytes, flush=True)
        sys.stdin.read()
    """
    incoming = new(source, tmp_path / "in")
    send(source, incoming, 0, 5_000)
    incoming.keep()
    with ExitStack() as stack:
        racers = [stack.enter_context(process(code, tmp_path / "source" / "item", tmp_path / "in")) for _ in range(4)]
        assert [line_of(racer) for racer in racers] == ["ready"] * 4
        for racer in racers:
            tell(racer)
        assert sorted(line_of(racer) for racer in racers) == ["5000", "none", "none", "none"]


def test_of_threads_racing_for_one_part_exactly_one_gets_it(source: OutgoingFiles, tmp_path: Path) -> None:
    incoming = new(source, tmp_path / "in")
    send(source, incoming, 0, 5_000)
    for _ in range(30):
        incoming.keep()
        start = threading.Barrier(6)

        def race(start: threading.Barrier = start) -> IncomingFiles | None:
            start.wait()
            return adopt(source, tmp_path / "in")

        with ThreadPoolExecutor(6) as pool:
            [incoming] = [taken for racer in [pool.submit(race) for _ in range(6)] if (taken := racer.result())]
    assert incoming.ranges == [(0, 5_000)]
    incoming.abort()
    assert os.listdir(tmp_path / "in") == []


def test_of_several_parts_the_fullest_is_taken_and_those_nobody_writes_go(
    source: OutgoingFiles, tmp_path: Path
) -> None:
    inbox = tmp_path / "in"
    parts = [new(source, inbox) for _ in range(4)]
    for number, part in enumerate(parts):
        send(source, part, 0, 1_000 + 2_000 * number)
        part.journal()
    for part in parts[:3]:
        part.keep()
    taken = adopt(source, inbox)
    assert taken is not None
    assert taken.part_path == parts[2].part_path  # the fullest is being written
    assert sorted(inbox.iterdir()) == sorted((parts[2].part_path, parts[3].part_path))
    taken.abort()
    parts[3].abort()
    assert os.listdir(inbox) == []


def test_a_write_under_way_is_over_before_another_may_take_the_part(tmp_path: Path) -> None:
    size = 64 * 1024 * 1024
    data = memoryview(bytes(size))
    head = encode_head(FolderHead([FileEntry("item", size)]))
    deadline = time.monotonic() + 30
    overlapped = False
    while not overlapped:
        assert time.monotonic() < deadline
        incoming = IncomingFiles(head, "item", "file", size, tmp_path, key=KEY)
        content = incoming.part_path / "content"
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(incoming.write, 0, data)
            while not content.exists():
                pass
            overlapped = not writing.done()
            part = incoming.keep()
            landed, length = incoming.ranges, content.stat().st_size
            writing.exception()
        assert content.stat().st_size == length
        assert incoming.ranges == landed
        shutil.rmtree(part)


def test_an_end_in_the_middle_of_many_writes_leaves_what_was_noted(source: OutgoingFiles, tmp_path: Path) -> None:
    incoming = new(source, tmp_path / "in")
    data = source.read(0, content_bytes(source))
    for _ in range(20):
        start = threading.Barrier(4)

        def write(lane: int, incoming: IncomingFiles = incoming, start: threading.Barrier = start) -> None:
            start.wait()
            for place in range(lane * 100, len(data) - 100, 300):
                try:
                    incoming.write(place, data[place : place + 100])
                except TransferCancelledError:
                    return

        with ThreadPoolExecutor(3) as pool:
            lanes = [pool.submit(write, lane) for lane in range(3)]
            start.wait()
            incoming.keep()
            landed = incoming.ranges
            taken = adopt(source, tmp_path / "in") if landed else new(source, tmp_path / "in")
            for lane in lanes:
                lane.result()
        assert taken is not None
        assert taken.ranges == landed == incoming.ranges
        incoming = taken
    assert verify(source, incoming, 100) == incoming.received_bytes
    incoming.abort()


# ── keeping ─────────────────────────────────────────────────────────────────────────────────────────
def test_keep_ends_it_and_leaves_what_came(source: OutgoingFiles, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    incoming = new(source, tmp_path / "in")
    send(source, incoming, 100, 300)
    part = incoming.keep()
    assert incoming.keep() == part
    incoming.abort()  # too late
    incoming.journal()
    assert len(os.listdir("/proc/self/fd")) == before
    assert sorted(path.name for path in part.iterdir()) == ["content", "state"]
    for use in (lambda: incoming.write(0, b"x"), lambda: incoming.hash_blocks(100, 1, 2)):
        with pytest.raises(TransferCancelledError):
            use()
    taken = adopt(source, tmp_path / "in")
    assert taken is not None
    assert taken.ranges == [(100, 300)]
    taken.abort()
    assert os.listdir(tmp_path / "in") == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_key_nothing_can_be_kept(source: OutgoingFiles, tmp_path: Path) -> None:
    incoming = IncomingFiles(source.head, "item", "file", content_bytes(source), tmp_path / "in")
    incoming.write(0, b"x")
    incoming.journal()
    with pytest.raises(ValueError, match="key"):
        incoming.keep()
    die(incoming)
    assert adopt(source, tmp_path / "in") is None
    assert clean_leftovers(tmp_path / "in", older_than_s=-5, kept_for_s=1000) == 1


def test_a_part_with_nothing_in_it_is_not_taken_up(source: OutgoingFiles, tmp_path: Path) -> None:
    new(source, tmp_path / "in").keep()
    assert adopt(source, tmp_path / "in") is None
    assert os.listdir(tmp_path / "in") == []


def test_what_finished_while_it_died_is_not_taken_up(source: OutgoingFiles, tmp_path: Path) -> None:
    incoming = new(source, tmp_path / "in")
    send(source, incoming, 0, content_bytes(source))
    incoming.journal()
    part = incoming.part_path
    (part / "content").rename(tmp_path / "in" / "item")  # the last step, and then the lights went out
    die(incoming)
    assert adopt(source, tmp_path / "in") is None
    assert os.listdir(tmp_path / "in") == ["item"]


def test_the_rest_needs_room_and_the_part_stays_without_it(small_disk: Path, tmp_path: Path) -> None:
    content = bytes(180_000)
    (tmp_path / "item").write_bytes(content)
    outgoing = OutgoingFiles.scan(tmp_path / "item")
    incoming = new(outgoing, small_disk)
    send(outgoing, incoming, 0, 90_000)
    part = incoming.keep()
    taken = adopt(outgoing, small_disk)
    assert taken is not None  # half of it is there, and only the other half has to fit
    assert taken.keep() == part
    (small_disk / "other").write_bytes(bytes(100_000))
    with pytest.raises(DiskFullError, match=r"needs 90\.0 kB"):
        adopt(outgoing, small_disk)
    assert part.exists()
    with pytest.raises(DiskFullError, match=r"broke .* hold 90\.0 kB"):
        IncomingFiles(encode_head(FolderHead([FileEntry("b", 10**6)])), "b", "file", 10**6, small_disk)
    (small_disk / "other").unlink()
    taken = adopt(outgoing, small_disk)
    assert taken is not None
    assert verify(outgoing, taken) == 90_000
    send_missing(outgoing, taken)
    assert taken.finish().read_bytes() == content


def send_in_pieces(source: OutgoingFiles, incoming: IncomingFiles) -> None:
    for start in range(0, incoming.content_bytes, 10_000):
        send(source, incoming, start, start + 10_000)
        incoming.journal()


@pytest.mark.parametrize("files", [0, 60])
def test_a_full_disk_has_its_room_back_after_abort(small_disk: Path, tmp_path: Path, files: int) -> None:
    content = bytes(180_000)
    outgoing = OutgoingFiles.scan(write_sources(tmp_path / "item", content, files=files))
    free = os.statvfs(small_disk).f_bfree
    incoming = new(outgoing, small_disk)
    (small_disk / "other").write_bytes(bytes(100_000))
    with pytest.raises(DiskFullError, match="is full"):
        send_in_pieces(outgoing, incoming)
    incoming.journal()
    assert incoming.received_bytes < len(content)
    incoming.abort()
    (small_disk / "other").unlink()
    assert os.listdir(small_disk) == []
    assert os.statvfs(small_disk).f_bfree == free


def test_a_disk_too_full_for_a_note_keeps_the_one_before(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "item").write_bytes(bytes(100_000))
    outgoing = OutgoingFiles.scan(tmp_path / "item")
    incoming = new(outgoing, small_disk)
    send(outgoing, incoming, 0, 5_000)
    incoming.journal()
    for place in range(10_000, 100_000, 200):  # so many pieces that the note takes more room
        incoming.write(place, b"x")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "other").write_bytes(bytes(300_000))
    incoming.journal()
    incoming.keep()
    (small_disk / "other").unlink()
    taken = adopt(outgoing, small_disk)
    assert taken is not None
    assert (0, 5_000) in taken.ranges
    taken.abort()


# ── the journal ─────────────────────────────────────────────────────────────────────────────────────
def test_a_note_torn_in_the_middle_leaves_the_one_before(source: OutgoingFiles, tmp_path: Path) -> None:
    incoming = new(source, tmp_path / "in")
    state = incoming.part_path / "state"
    send(source, incoming, 0, 1_000)
    incoming.journal()
    before = state.read_bytes()
    send(source, incoming, 5_000, 6_000)
    incoming.journal()
    after = state.read_bytes().ljust(len(before), b"\0")
    before = before.ljust(len(after), b"\0")
    die(incoming)
    changed = [place for place in range(len(after)) if before[place] != after[place]]
    torn = 0
    for cut in range(changed[0], changed[-1] + 2):
        state.write_bytes(after[:cut] + before[cut:])
        taken = adopt(source, tmp_path / "in")
        assert taken is not None
        assert taken.ranges in ([(0, 1_000)], [(0, 1_000), (5_000, 6_000)])
        torn += taken.ranges == [(0, 1_000)]
        die(taken)
    assert torn == changed[-1] + 1 - changed[0]


def test_notes_stay_small_and_keep_the_longest_pieces(tmp_path: Path) -> None:
    size = 1_000_000
    (tmp_path / "item").write_bytes(bytes(size))
    outgoing = OutgoingFiles.scan(tmp_path / "item")
    incoming = new(outgoing, tmp_path / "in")
    for place in range(0, 60_000, 20):
        incoming.write(place, b"x" * (2 if place % 40 else 1))
    send(outgoing, incoming, 500_000, 900_000)
    incoming.journal()
    incoming.journal()
    assert (incoming.part_path / "state").stat().st_size <= 128 * 1024
    die(incoming)
    taken = adopt(outgoing, tmp_path / "in")
    assert taken is not None
    assert len(taken.ranges) == MAX_JOURNAL_RANGES
    assert (500_000, 900_000) in taken.ranges
    assert sum(end - start == 2 for start, end in taken.ranges) == 1_500
    taken.abort()


def test_forgetting_cuts_no_more_pieces_than_there_may_be(tmp_path: Path) -> None:
    size = 4 * MAX_RANGES
    (tmp_path / "item").write_bytes(bytes(size))
    outgoing = OutgoingFiles.scan(tmp_path / "item")
    incoming = new(outgoing, tmp_path / "in")
    send(outgoing, incoming, 0, size)
    for place in range(0, size, 2):
        incoming.forget(place, place + 1)
    assert len(incoming.ranges) <= MAX_RANGES
    send_missing(outgoing, incoming)
    assert incoming.finish().read_bytes() == bytes(size)


# ── leftovers ───────────────────────────────────────────────────────────────────────────────────────
def test_parts_are_kept_for_days_and_worthless_ones_for_one(
    source: OutgoingFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = tmp_path / "in"
    kept, empty, broken, held = (new(source, inbox) for _ in range(4))
    for part in (kept, broken, held):
        send(source, part, 0, 1_000)
        part.journal()
    kept.keep()
    empty.journal()
    die(empty)
    die(broken)
    (broken.part_path / "state").write_bytes(b"what?")
    old = inbox / ".p2pnb-0123456789abcdef.part"  # as earlier versions left them
    (old / "content").mkdir(parents=True)
    (old / "content" / "x").write_bytes(b"x")
    now = time.time()

    def names() -> set[Path]:
        return set(inbox.iterdir())

    for days, removed, left in [
        (0.9, 0, {kept.part_path, empty.part_path, broken.part_path, held.part_path, old}),
        (1.1, 3, {kept.part_path, held.part_path}),
        (6.9, 0, {kept.part_path, held.part_path}),
        (7.1, 1, {held.part_path}),
        (700, 0, {held.part_path}),
    ]:
        monkeypatch.setattr(time, "time", lambda days=days: now + days * 86_400)
        assert clean_leftovers(inbox) == removed
        assert names() == left
    held.abort()


def test_where_there_are_no_locks_only_what_this_process_kept_is_taken_up(
    source: OutgoingFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "lock", lambda _: None)
    incoming = new(source, tmp_path / "in")
    send(source, incoming, 0, 5_000)
    incoming.journal()
    assert adopt(source, tmp_path / "in") is None  # it is being written
    incoming.keep()
    taken = adopt(source, tmp_path / "in")
    assert taken is not None
    assert taken.ranges == [(0, 5_000)]
    assert adopt(source, tmp_path / "in") is None
    taken.keep()
    lock_module._left.clear()  # another process
    assert adopt(source, tmp_path / "in") is None
    assert clean_leftovers(tmp_path / "in") == 0
    assert clean_leftovers(tmp_path / "in", kept_for_s=-5) == 1


# ── hashes ──────────────────────────────────────────────────────────────────────────────────────────
def test_what_did_not_arrive_as_a_whole_has_no_hash(source: OutgoingFiles, tmp_path: Path) -> None:
    incoming = new(source, tmp_path / "in")
    send(source, incoming, 0, 1_999)
    assert incoming.hash_blocks(1_000, 0, 1) == source.hash_blocks(1_000, 0, 1)
    with pytest.raises(ValueError, match="as a whole"):
        incoming.hash_blocks(1_000, 0, 2)
    send(source, incoming, 10_000, 10_500)
    assert incoming.hash_blocks(1_000, 10, 11) == source.hash_blocks(1_000, 10, 11)
    with pytest.raises(ValueError, match="blocks"):
        incoming.hash_blocks(1_000, 10, 12)
    incoming.abort()


@pytest.mark.parametrize("files", [0, 20])
def test_a_part_that_shrinks_under_our_hands_is_named(tmp_path: Path, files: int) -> None:
    content = random.Random(5).randbytes(20_000)
    outgoing = OutgoingFiles.scan(write_sources(tmp_path / "item", content, files=files))
    incoming = new(outgoing, tmp_path / "in")
    send(outgoing, incoming, 0, len(content))
    whole = incoming.part_path / "content"
    os.truncate(whole if whole.is_file() else max(whole.glob("*/*"), key=lambda path: path.stat().st_size), 3)
    with pytest.raises(TransferError, match=str(incoming.part_path)):
        incoming.hash_blocks(BLOCK, 0, 20)
    incoming.abort()
