"""What has to hold of files on their way in: inside the folder, whole or not at all, and nothing overwritten."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnb.errors import (
    CodecError,
    CorruptDataError,
    DiskFullError,
    P2PError,
    TransferCancelledError,
    TransferError,
    UnsafeNameError,
)
from p2pnb.files import FileEntry, FolderHead, IncomingFiles, OutgoingFiles, clean_leftovers, encode_head
from p2pnb.files import _directory as directory_module
from p2pnb.files._directory import Directory, move_to_free
from p2pnb.files.head import MAX_ENTRIES
from p2pnb.files.incoming import MAX_RANGES
from p2pnb.files.tree import MAX_OPEN
from p2pnb.protocol.wire import MAX_HEAD_BYTES, MAX_SIZE_BYTES
from tests.unit.files.processes import die


def file_head(size: int, mtime: int = 0, path: str = "x") -> bytes:
    return encode_head(FolderHead([FileEntry(path, size, mtime)]))


def folder_head(*entries: tuple[str, int], folders: tuple[str, ...] = ()) -> bytes:
    return encode_head(FolderHead([FileEntry(path, size) for path, size in entries], list(folders)))


def receive_file(folder: Path, name: str, data: bytes) -> Path:
    incoming = IncomingFiles(file_head(len(data)), name, "file", len(data), folder)
    incoming.write(0, data)
    return incoming.finish()


def receive_folder(
    folder: Path, name: str, *members: tuple[str, bytes], folders: tuple[str, ...] = ()
) -> IncomingFiles:
    data = b"".join(content for _, content in members)
    head = folder_head(*((path, len(content)) for path, content in members), folders=folders)
    incoming = IncomingFiles(head, name, "folder", len(data), folder)
    incoming.write(0, data)
    return incoming


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"), key=str)
    }


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ── arriving ────────────────────────────────────────────────────────────────────────────────────────
def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    incoming = IncomingFiles(file_head(6), "a.txt", "file", 6, tmp_path)
    incoming.write(3, b"def")
    assert [name[:7] for name in os.listdir(tmp_path)] == [".p2pnb-"]
    assert stat.S_IMODE(next(tmp_path.iterdir()).stat().st_mode) == 0o700
    with pytest.raises(CorruptDataError, match="3 bytes of the 6 bytes"):
        incoming.finish()
    assert not (tmp_path / "a.txt").exists()
    incoming.write(0, memoryview(b"abc"))
    assert incoming.finish() == tmp_path / "a.txt"
    assert everything(tmp_path) == {"a.txt": b"abcdef"}


def test_the_same_bytes_twice_do_not_count_as_the_missing_ones(tmp_path: Path) -> None:
    incoming = IncomingFiles(file_head(6), "a.txt", "file", 6, tmp_path)
    incoming.write(0, b"abc")
    incoming.write(0, b"abc")
    incoming.write(1, b"bcd")
    assert (incoming.received_bytes, incoming.ranges) == (4, [(0, 4)])
    with pytest.raises(CorruptDataError):
        incoming.finish()
    incoming.abort()
    assert everything(tmp_path) == {}


def test_a_folder_arrives_as_a_whole_with_empty_files_and_folders(tmp_path: Path) -> None:
    members = [("a", b"1"), ("d/empty", b""), ("d/b", b"22"), ("d/e/f/c", b"333"), ("last", b"")]
    incoming = receive_folder(tmp_path, "box", *members, folders=("hollow", "x/y/z"))
    assert not (tmp_path / "box").exists()
    assert incoming.finish() == tmp_path / "box"
    assert everything(tmp_path / "box") == {
        "a": b"1", "d": None, "d/b": b"22", "d/e": None, "d/e/f": None, "d/e/f/c": b"333", "d/empty": b"",
        "hollow": None, "last": b"", "x": None, "x/y": None, "x/y/z": None,
    }  # fmt: skip
    assert os.listdir(tmp_path) == ["box"]


@pytest.mark.parametrize("members", [(), (("a", b""),)])
def test_nothing_at_all_arrives_too(tmp_path: Path, members: tuple[tuple[str, bytes], ...]) -> None:
    assert receive_folder(tmp_path, "box", *members).finish().is_dir()
    assert receive_file(tmp_path, "empty", b"").read_bytes() == b""


def test_a_folder_is_made_if_the_inbox_is_missing(tmp_path: Path) -> None:
    assert receive_file(tmp_path / "in" / "box", "a", b"x") == tmp_path / "in" / "box" / "a"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_is_sent_is_what_arrives(data: st.DataObject) -> None:
    names = st.text("ab.\u00e9 :C", min_size=1, max_size=5).filter(lambda name: name.strip(". "))
    paths = st.lists(names, min_size=1, max_size=3).map("/".join)
    members = data.draw(st.dictionaries(paths, st.binary(max_size=40), max_size=8))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "sent")
        root.mkdir()
        for path, content in members.items():
            try:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(content)
            except OSError:
                continue  # a file and a folder of one name
        outgoing = OutgoingFiles.scan(root)
        content_bytes = outgoing.size_bytes - len(outgoing.head)
        incoming = IncomingFiles(outgoing.head, outgoing.name, outgoing.kind, content_bytes, Path(scratch, "in"))
        cuts = data.draw(st.lists(st.integers(0, content_bytes), max_size=6))
        edges = sorted({0, content_bytes, *cuts})
        pieces = list(pairwise(edges))
        data.draw(st.randoms(use_true_random=False)).shuffle(pieces)
        for start, end in pieces:
            incoming.write(start, outgoing.read(start, end - start))
        outgoing.check_unchanged()
        outgoing.close()
        arrived = incoming.finish()
        sent = [path.read_bytes() for path in root.rglob("*") if path.is_file() and "/." not in str(path)]
        assert sorted(sent) == sorted(path.read_bytes() for path in arrived.rglob("*") if path.is_file())
        assert os.listdir(Path(scratch, "in")) == ["sent"]


def test_times_are_kept_where_they_make_sense_and_nothing_becomes_executable(tmp_path: Path) -> None:
    now = time.time()
    cases = [(1_600_000_000_500, 1_600_000_000.5), (0, None), (1, None), (int((now + 30 * 86400) * 1000), None)]
    cases += [(int((now + 3600) * 1000), now + 3600), (1 << 53, None)]
    old = os.umask(0o027)
    try:
        for number, (mtime, expected) in enumerate(cases):
            incoming = IncomingFiles(file_head(1, mtime), f"run{number}.sh", "file", 1, tmp_path)
            incoming.write(0, b"x")
            found = incoming.finish().stat()
            assert found.st_mtime == pytest.approx(expected or now, abs=5)
            assert stat.S_IMODE(found.st_mode) == 0o640
        assert stat.S_IMODE(receive_folder(tmp_path, "box", ("a", b"1")).finish().stat().st_mode) == 0o750
        assert stat.S_IMODE((tmp_path / "box" / "a").stat().st_mode) == 0o640
    finally:
        os.umask(old)


def test_the_times_of_a_folders_files_are_kept(tmp_path: Path) -> None:
    head = encode_head(FolderHead([FileEntry("d/a", 1, 1_500_000_000_000), FileEntry("d/b", 0, 1_400_000_000_000)]))
    incoming = IncomingFiles(head, "box", "folder", 1, tmp_path)
    incoming.write(0, b"x")
    final = incoming.finish()
    assert [(final / "d" / name).stat().st_mtime for name in "ab"] == [1_500_000_000, 1_400_000_000]


def test_the_time_of_a_file_is_its_own_whatever_was_written_last(tmp_path: Path) -> None:
    head = encode_head(FolderHead([FileEntry("a", 10, 1_500_000_000_000), FileEntry("b", 10, 1_500_000_000_000)]))
    incoming = IncomingFiles(head, "box", "folder", 20, tmp_path)
    incoming.write(0, b"x" * 20)
    incoming.forget(3, 5)
    incoming.write(3, b"yy")
    final = incoming.finish()
    assert (final / "a").read_bytes() == b"xxxyyxxxxx"
    assert [(final / name).stat().st_mtime for name in "ab"] == [1_500_000_000] * 2


# ── names ───────────────────────────────────────────────────────────────────────────────────────────
def test_a_taken_name_is_never_overwritten(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    inbox = tmp_path / "in"
    inbox.mkdir()
    (inbox / "file.txt").write_text("mine")
    (inbox / "folder.txt").mkdir()
    (inbox / "link.txt").symlink_to(outside)
    (inbox / "dangling.txt").symlink_to(tmp_path / "created by a stranger")
    os.mkfifo(inbox / "pipe.txt")
    for name in ("file", "folder", "link", "dangling", "pipe"):
        assert receive_file(inbox, f"{name}.txt", b"new") == inbox / f"{name} (2).txt"
        assert receive_folder(inbox, f"{name}.txt", ("a", b"new")).finish() == inbox / f"{name} (3).txt"
    assert outside.read_text() == "precious"
    assert (inbox / "file.txt").read_text() == "mine"
    assert not (tmp_path / "created by a stranger").exists()
    assert os.listdir(inbox / "folder.txt") == []


def test_one_name_arriving_many_times_at_once_gives_as_many_files(tmp_path: Path) -> None:
    def receive(number: int) -> Path:
        data = bytes([number])
        if number % 2:
            return receive_file(tmp_path, "same.txt", data)
        return receive_folder(tmp_path, "same.txt", ("a", data)).finish()

    with ThreadPoolExecutor(8) as pool:
        finals = list(pool.map(receive, range(40)))
    assert len(set(finals)) == 40
    for number, final in enumerate(finals):
        assert (final if number % 2 else final / "a").read_bytes() == bytes([number])
    assert len(os.listdir(tmp_path)) == 40


def test_what_programs_obey_unasked_arrives_under_another_name(tmp_path: Path) -> None:
    incoming = receive_folder(
        tmp_path,
        "code",
        ("conftest.py", b"1"),
        ("src/__pycache__/a.pyc", b"2"),
        ("src/x.pth", b"3"),
        ("src/a.py", b"4"),
    )
    final = incoming.finish()
    assert [name for name, content in everything(final).items() if content] == [
        "conftest.py.received",
        "src/__pycache__.received/a.pyc",
        "src/a.py",
        "src/x.pth.received",
    ]
    assert incoming.renamed == [
        ("conftest.py", "conftest.py.received"),
        ("src/__pycache__", "src/__pycache__.received"),
        ("src/x.pth", "src/x.pth.received"),
    ]
    assert receive_file(tmp_path, "sitecustomize.py", b"x").name == "sitecustomize.py.received"


def test_names_that_collide_anywhere_become_distinct(tmp_path: Path) -> None:
    members = [("a.txt", b"1"), ("A.txt", b"2"), ("\u00e9", b"3"), ("e\u0301", b"4"), ("D/x", b"5"), ("d/x", b"6")]
    members += [("D/X", b"7"), ("a.txt", b"8"), ("d", b"9"), ("a.txt/y", b"0")]
    incoming = receive_folder(tmp_path, "box", *members)
    files = {name: content for name, content in everything(incoming.finish()).items() if content}
    assert sorted(files.values()) == [b"%d" % number for number in range(10)]
    assert len({name.casefold() for name in files}) == 10
    assert files["a.txt"] == b"1"
    assert files["A (2).txt"] == b"2"
    assert files["d (2)/x"] == b"6"
    assert len(incoming.renamed) == 7


def test_the_name_is_the_one_that_was_accepted_not_the_heads(tmp_path: Path) -> None:
    incoming = IncomingFiles(file_head(1, path="other.exe"), "a.txt", "file", 1, tmp_path)
    incoming.write(0, b"x")
    assert incoming.finish().name == "a.txt"


@pytest.mark.parametrize(
    "path",
    ["../evil", "/tmp/evil", "a/../../evil", ".ssh/authorized_keys", "C:\\evil", "a/con", "x\x00", "a//b", "a\\..\\b"],
)
def test_a_member_that_leads_out_refuses_the_whole_offer(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnsafeNameError):
        IncomingFiles(folder_head(("good", 1), (path, 1)), "box", "folder", 2, tmp_path)
    with pytest.raises(UnsafeNameError):
        IncomingFiles(folder_head(folders=(path,)), "box", "folder", 0, tmp_path)
    with pytest.raises(UnsafeNameError):
        IncomingFiles(file_head(1), path, "file", 1, tmp_path)
    assert everything(tmp_path) == {}


_hostile_component = st.one_of(
    st.sampled_from(
        ["..", ".", "", "~", "a", "A", "con", ".ssh", "evil\x00", "link", "\u202e", "conftest.py", "C:", "x" * 300]
    ),
    st.text(st.characters(codec="utf-8"), max_size=6),
)
_hostile_path = st.lists(_hostile_component, max_size=4).flatmap(
    lambda parts: st.sampled_from(["/", "\\", "//"]).map(lambda separator: separator.join(parts))
)


@settings(max_examples=150, deadline=None)
@given(
    name=_hostile_path,
    paths=st.lists(_hostile_path, max_size=4),
    folders=st.lists(_hostile_path, max_size=3),
    kind=st.sampled_from(["file", "folder", "object"]),
)
def test_nothing_ever_lands_outside_the_inbox(name: str, paths: list[str], folders: list[str], kind: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(os.path.realpath(scratch))
        inbox, outside = top / "a" / "b" / "in", top / "outside"
        inbox.mkdir(parents=True)
        outside.mkdir()
        (inbox / "link").symlink_to(outside)
        (inbox / "a").symlink_to(outside / "new")
        head = msgspec.msgpack.encode([[[path, 1, 0] for path in paths], folders])
        try:
            incoming = IncomingFiles(head, name, kind, len(paths), inbox)
        except CodecError:
            incoming = None
        if incoming is not None:
            if paths:
                incoming.write(0, b"x" * len(paths))
            final = Path(os.path.realpath(incoming.finish()))
            assert final.parent == inbox
            for path in (final, *final.rglob("*")):
                assert path.resolve().is_relative_to(inbox)
                assert not path.name.startswith(".")
            assert len([path for path in (final, *final.rglob("*")) if path.is_file()]) == len(paths)
        assert {path.name for path in top.rglob("*") if not path.is_relative_to(inbox)} == {"a", "b", "outside"}
        assert not any(path.startswith(".p2pnb") for path in os.listdir(inbox))


def test_an_inbox_swapped_for_a_link_leads_nothing_elsewhere(tmp_path: Path) -> None:
    inbox, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    elsewhere.mkdir()
    incoming = IncomingFiles(file_head(3), "a.txt", "file", 3, inbox)
    inbox.rename(tmp_path / "moved")
    inbox.symlink_to(elsewhere)
    incoming.write(0, b"abc")
    incoming.finish()
    assert os.listdir(elsewhere) == []
    assert everything(tmp_path / "moved") == {"a.txt": b"abc"}


def test_a_folder_swapped_for_a_link_under_our_hands_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    count = 100  # more than stay open
    head = folder_head(*((f"d{number}/a", 1) for number in range(count)), ("d0/b", 1))
    incoming = IncomingFiles(head, "box", "folder", count + 1, tmp_path / "in")
    incoming.write(0, b"x" * count)
    [part] = (tmp_path / "in").iterdir()
    shutil.rmtree(part / "content" / "d0")
    (part / "content" / "d0").symlink_to(elsewhere)
    with pytest.raises(TransferError):
        incoming.write(count, b"y")
    incoming.abort()
    assert os.listdir(elsewhere) == []
    assert everything(tmp_path / "in") == {}


# ── lies ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "head",
    [
        b"", b"\x00", b"\xc1", b"\x93", b"[]", b"\x90", b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\xdc\xff\xff" + b"\x92\xa1a\x00" * 9, b"\x91\x91\x92\xa1\x80\x01",
        *(msgspec.msgpack.encode(value) for value in [
            {}, [[]], [["a"]], [[["a"]]], [[["a", -1]]], [[["a", 1.5]]], [[["a", float("nan")]]], [[["a", "1"]]],
            [[["a", True]]], [[["a", 2**63]]], [[["a", 2**64 - 1]]], [[["a", MAX_SIZE_BYTES + 1]]], [[["a", 1, -1]]],
            [[["a", 1, 2**60]]], [[["", 1]]], [[[b"a", 1]]], [[["x" * 3000, 1]]], [[["a", 1], ["b", 1]]], [[["a", 2]]],
            [[["a", 0]]], [[["a", 1]], ["d"]], [[["a", 1]], [7]],
        ]),
        b"\x91" + b"\x91" * 5000,
    ],
)  # fmt: skip
def test_a_head_that_lies_is_refused_before_anything_is_made(tmp_path: Path, head: bytes) -> None:
    with pytest.raises(CorruptDataError):
        IncomingFiles(head, "a", "file", 1, tmp_path)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("size", [-1, 2**63, 2**64, MAX_SIZE_BYTES + 1])
def test_an_impossible_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(CorruptDataError):
        IncomingFiles(file_head(1), "a", "file", size, tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: file_head(1) + tail))
def test_any_head_is_taken_or_refused(head: bytes) -> None:
    with tempfile.TemporaryDirectory() as inbox:
        try:
            incoming = IncomingFiles(head, "a", "folder", 1, inbox)
        except P2PError:
            assert os.listdir(inbox) == []
        else:
            incoming.abort()


def test_a_head_too_large_or_of_too_many_files_is_refused_unread(tmp_path: Path) -> None:
    many = b"\x91\xdd" + (MAX_ENTRIES + 1).to_bytes(4, "big") + b"\x92\xa1a\x00" * (MAX_ENTRIES + 1)
    tracemalloc.start()
    try:
        for head in (bytes(MAX_HEAD_BYTES + 1), many):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(CorruptDataError):
                IncomingFiles(head, "a", "folder", 0, tmp_path)
            assert tracemalloc.get_traced_memory()[1] - before < 1_000_000
    finally:
        tracemalloc.stop()


def test_paths_that_unfold_into_countless_folders_are_refused(tmp_path: Path) -> None:
    entries = [(f"{number}" + "/d" * 60, 0) for number in range(2000)]
    with pytest.raises(CorruptDataError, match="more folders"):
        IncomingFiles(folder_head(*entries), "a", "folder", 0, tmp_path)


def test_an_announced_size_takes_no_room(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    size = free // 2
    incoming = IncomingFiles(file_head(size), "a", "file", size, tmp_path)
    incoming.write(size - 1, b"x")
    [part] = tmp_path.iterdir()
    assert sum(path.stat().st_blocks * 512 for path in part.rglob("*")) < 1_000_000
    incoming.abort()
    with pytest.raises(DiskFullError, match=r"needs 1\.1 PB"):
        IncomingFiles(file_head(MAX_SIZE_BYTES), "a", "file", MAX_SIZE_BYTES, tmp_path)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    ("offset", "data"), [(5, b"x"), (4, b"xy"), (-1, b"x"), (0, b"123456"), (2**63, b"x"), (6, b"")]
)
def test_more_than_announced_is_refused(tmp_path: Path, offset: int, data: bytes) -> None:
    incoming = IncomingFiles(file_head(5), "a", "file", 5, tmp_path)
    with pytest.raises(CorruptDataError, match="More bytes"):
        incoming.write(offset, data)
    incoming.abort()
    assert everything(tmp_path) == {}


def test_crumbs_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    size = 4 * MAX_RANGES
    incoming = IncomingFiles(file_head(size), "a", "file", size, tmp_path)
    for offset in range(0, size // 2, 2):
        incoming.write(offset, b"x")
    with pytest.raises(CorruptDataError, match="too many pieces"):
        incoming.write(size - 1, b"x")
    assert len(incoming.ranges) == MAX_RANGES
    incoming.abort()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30))
def test_received_ranges_are_exactly_the_written_bytes(writes: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as inbox:
        incoming = IncomingFiles(file_head(80), "a", "file", 80, inbox)
        model: set[int] = set()
        for start, length in writes:
            incoming.write(start, bytes(length))
            model |= set(range(start, start + length))
            assert incoming.received_bytes == len(model)
        assert {place for start, end in incoming.ranges for place in range(start, end)} == model
        assert all(end < start for (_, end), (start, _) in pairwise(incoming.ranges))
        incoming.abort()


# ── failing ─────────────────────────────────────────────────────────────────────────────────────────
def test_abort_leaves_nothing_and_ends_everything(tmp_path: Path) -> None:
    before = open_descriptors()
    incoming = receive_folder(tmp_path, "box", ("a/b/c", b"1"), ("d", b"2"))
    incoming.abort()
    incoming.abort()
    assert everything(tmp_path) == {}
    assert open_descriptors() == before
    for use in (lambda: incoming.write(0, b"x"), incoming.finish):
        with pytest.raises(TransferCancelledError):
            use()
    assert everything(tmp_path) == {}


def test_abort_after_finish_keeps_what_arrived(tmp_path: Path) -> None:
    incoming = IncomingFiles(file_head(1), "a", "file", 1, tmp_path)
    incoming.write(0, b"x")
    incoming.finish()
    incoming.abort()
    with pytest.raises(TransferCancelledError):
        incoming.finish()
    assert everything(tmp_path) == {"a": b"x"}


def test_abort_while_other_threads_write_leaves_nothing(tmp_path: Path) -> None:
    before = open_descriptors()
    for _ in range(10):
        count = 400
        head = folder_head(*((f"{number % 20}/{number}", 10) for number in range(count)))
        incoming = IncomingFiles(head, "box", "folder", count * 10, tmp_path)
        under_way = threading.Barrier(4)

        def write(lane: int, incoming: IncomingFiles = incoming, under_way: threading.Barrier = under_way) -> bool:
            under_way.wait()
            try:
                for number in range(lane, 400, 3):
                    incoming.write(number * 10, b"x" * 10)
            except TransferCancelledError:
                return True
            return False

        with ThreadPoolExecutor(3) as pool:
            lanes = [pool.submit(write, lane) for lane in range(3)]
            under_way.wait()
            incoming.abort()
            for lane in lanes:
                lane.result()
        assert everything(tmp_path) == {}
    assert open_descriptors() == before


def test_a_full_disk_is_said_and_cleaned_up(small_disk: Path) -> None:
    size = 10_000_000
    with pytest.raises(DiskFullError, match="free"):
        IncomingFiles(file_head(size), "a", "file", size, small_disk)
    assert everything(small_disk) == {}
    size = 200_000
    incoming = IncomingFiles(file_head(size), "a", "file", size, small_disk)
    (small_disk / "somebody else's").write_bytes(bytes(100_000))
    with pytest.raises(DiskFullError, match="is full"):
        incoming.write(0, bytes(size))
    assert incoming.received_bytes == 0
    incoming.abort()
    assert list(everything(small_disk)) == ["somebody else's"]
    (small_disk / "somebody else's").unlink()
    assert receive_file(small_disk, "a", bytes(size)).stat().st_size == size


def test_a_disk_without_room_for_more_files_is_said_at_the_end(small_disk: Path) -> None:
    head = folder_head(*((f"{number}", 0) for number in range(300)))
    incoming = IncomingFiles(head, "box", "folder", 0, small_disk)
    with pytest.raises(DiskFullError):
        incoming.finish()
    incoming.abort()
    assert everything(small_disk) == {}


def test_an_inbox_that_cannot_be_written_is_named(ordinary_folder: Path) -> None:
    locked = ordinary_folder / "locked"
    locked.mkdir(mode=0o500)
    (ordinary_folder / "file").write_text("x")
    before = open_descriptors()
    for inbox in (locked, ordinary_folder / "file", ordinary_folder / "file" / "below", locked / "below"):
        with pytest.raises(TransferError, match=str(inbox)):
            IncomingFiles(file_head(1), "a", "file", 1, inbox)
    assert open_descriptors() == before


# ── many and much ───────────────────────────────────────────────────────────────────────────────────
def test_a_folder_of_many_files_takes_few_descriptors(tmp_path: Path) -> None:
    count = 3000
    data = random.Random(1).randbytes(count * 5)
    head = folder_head(*((f"{number % 50}/{number % 7}/{number}", 5) for number in range(count)))
    before = open_descriptors()
    incoming = IncomingFiles(head, "box", "folder", len(data), tmp_path)
    most = 0
    pieces = [(start, min(start + 997, len(data))) for start in range(0, len(data), 997)]

    def write(piece: tuple[int, int]) -> None:
        nonlocal most
        incoming.write(piece[0], data[slice(*piece)])
        most = max(most, open_descriptors() - before)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, pieces))
    final = incoming.finish()
    assert MAX_OPEN < most < 160
    assert open_descriptors() == before
    for number in range(0, count, 37):
        path = final / f"{number % 50}/{number % 7}/{number}"
        assert path.read_bytes() == data[number * 5 : number * 5 + 5]


def test_deeply_nested_folders_arrive(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 63)
    incoming = receive_folder(tmp_path, "box", (f"{deep}/x", b"1"), *((f"{n}/{deep[:-2]}/y", b"2") for n in range(40)))
    assert (incoming.finish() / deep / "x").read_bytes() == b"1"


def test_a_hundred_thousand_entries_are_planned_quickly_and_small(tmp_path: Path) -> None:
    count = 100_000
    head = folder_head(*((f"{number % 300}/file{number}.txt", 1) for number in range(count)))
    tracemalloc.start()
    try:
        incoming = IncomingFiles(head, "box", "folder", count, tmp_path)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 25_000_000
    incoming.abort()


# ── the last step ───────────────────────────────────────────────────────────────────────────────────
MOVES = [directory_module._exclusive_rename, directory_module._link, directory_module._reserve_and_rename]


@pytest.mark.parametrize(
    ("move", "kind"),
    [(move, kind) for move in MOVES for kind in ("file", "folder") if (move, kind) != (MOVES[1], "folder")],
)
def test_every_way_to_move_refuses_a_taken_name(
    tmp_path: Path, move: Callable[[Directory, str, Directory, str], None], kind: str
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (target / "file").write_text("mine")
    (target / "empty").mkdir()
    (target / "link").symlink_to(tmp_path / "elsewhere")
    if kind == "file":
        (source / "content").write_text("new")
    else:
        (source / "content").mkdir()
        (source / "content" / "a").write_text("new")
    from_, to = Directory.open(str(source)), Directory.open(str(target))
    for taken in ("file", "empty", "link"):
        with pytest.raises(OSError, match=r"File exists|Directory not empty|Not a directory|Is a directory"):
            move(from_, "content", to, taken)
        assert (source / "content").exists()
    move(from_, "content", to, "free")
    assert (target / "free" / "a" if kind == "folder" else target / "free").read_text() == "new"
    assert not (source / "content").exists()
    assert (target / "file").read_text() == "mine"
    assert os.listdir(target / "empty") == []
    assert (target / "link").is_symlink()
    from_.close()
    to.close()


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("missing", [1, 2])
def test_where_the_best_way_is_missing_the_next_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, missing: int
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EINVAL, "no such thing on this file system")

    for move in MOVES[:missing]:
        monkeypatch.setattr(directory_module, move.__name__, unsupported)
    (tmp_path / "same").write_text("mine")
    for expected in ("same (2)", "same (3)"):
        if kind == "file":
            assert receive_file(tmp_path, "same", b"new") == tmp_path / expected
        else:
            assert receive_folder(tmp_path, "same", ("a", b"new")).finish() == tmp_path / expected
    assert (tmp_path / "same").read_text() == "mine"


def test_a_reserved_name_filled_by_somebody_else_stays_his(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "content").mkdir()
    replace = os.replace

    def somebody_is_faster(*args: str, **options: int) -> None:
        (tmp_path / "name" / "theirs").write_text("precious")
        replace(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(directory_module, "_exclusive_rename", _enosys)
    monkeypatch.setattr(os, "replace", somebody_is_faster)
    source, target = Directory.open(str(tmp_path / "part")), Directory.open(str(tmp_path))
    assert move_to_free(source, "content", target, "name") is False
    assert (tmp_path / "name" / "theirs").read_text() == "precious"
    source.close()
    target.close()


def _enosys(*_: object) -> None:
    raise OSError(errno.ENOSYS, "not here")


def test_without_directory_descriptors_all_of_it_works_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "_BY_DESCRIPTOR", False)
    (tmp_path / "a").write_text("mine")
    assert receive_file(tmp_path, "a", b"new") == tmp_path / "a (2)"
    assert everything(receive_folder(tmp_path, "box", ("d/a", b"1"), folders=("e",)).finish()) == {
        "d": None,
        "d/a": b"1",
        "e": None,
    }
    receive_folder(tmp_path, "box", ("d/a", b"1")).abort()
    assert sorted(os.listdir(tmp_path)) == ["a", "a (2)", "box"]


# ── leftovers ───────────────────────────────────────────────────────────────────────────────────────
def test_only_old_leftovers_of_ours_are_removed(tmp_path: Path) -> None:
    for number in range(3):
        die(receive_folder(tmp_path, "box", ("d/a", b"1")))
        assert len(list(tmp_path.iterdir())) == number + 1
    (tmp_path / ".p2pnb-notes.part").mkdir()
    (tmp_path / ".p2pnb-0123456789abcdef.part").write_text("a file of the user's")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    (tmp_path / ".p2pnb-00000000000000ff.part").symlink_to(tmp_path / "elsewhere")
    assert clean_leftovers(tmp_path) == 0
    assert clean_leftovers(tmp_path, older_than_s=-5) == 3
    assert sorted(os.listdir(tmp_path)) == [
        ".p2pnb-00000000000000ff.part",
        ".p2pnb-0123456789abcdef.part",
        ".p2pnb-notes.part",
        "elsewhere",
    ]
    assert (tmp_path / "elsewhere" / "precious").exists()
    assert clean_leftovers(tmp_path / "missing") == 0
