"""What has to hold of files on their way out: all of it, unchanged, and nothing nobody meant to send."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnb.errors import SourceChangedError, UsageError
from p2pnb.files import FolderHead, IncomingFiles, OutgoingFiles, decode_head
from p2pnb.files.outgoing import MAX_OPEN
from p2pnb.protocol.wire import HASH_BYTES, MAX_CONTROL_BYTES, Offer, encode_control


def head_of(files: OutgoingFiles) -> FolderHead:
    return decode_head(files.head, files.kind, files.size_bytes - len(files.head))


def content_of(files: OutgoingFiles) -> bytes:
    return files.read(0, files.size_bytes)


def tree(root: Path, *members: str) -> Path:
    for member in members:
        path = root / member
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(member.encode())
    return root


def test_a_file_is_one_entry_and_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(range(256)) * 10)
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    files = OutgoingFiles.scan(path)
    assert (files.kind, files.name, files.count, files.skipped) == ("file", "data.bin", 1, 0)
    [entry] = head_of(files).entries
    assert (entry.path, entry.size, entry.mtime) == ("data.bin", 2560, 1_700_000_000_123)
    assert files.size_bytes == len(files.head) + 2560
    assert content_of(files) == path.read_bytes()
    assert files.read(255, 3) == b"\xff\x00\x01"
    assert files.read(2559, 100) == b"\xff"
    assert files.read(2560, 1) == files.read(10**15, 1) == b""
    files.check_unchanged()
    files.close()


def test_a_path_may_be_text_or_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert OutgoingFiles.scan(str(tmp_path / "a.txt")).name == OutgoingFiles.scan("~/a.txt").name == "a.txt"


def test_a_relative_dot_has_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree(tmp_path / "project", "a.txt"))
    assert OutgoingFiles.scan(".").name == "project"
    assert OutgoingFiles.scan("../project").name == "project"


def test_a_folder_is_sent_whole_in_order_with_its_empty_parts(tmp_path: Path) -> None:
    root = tree(tmp_path / "folder", "b/x.txt", "a.txt", "empty.txt", "hollow/", "deep/er/", "b/y/z.txt")
    (root / "empty.txt").write_bytes(b"")
    files = OutgoingFiles.scan(root)
    head = head_of(files)
    assert (files.kind, files.name, files.count) == ("folder", "folder", 4)
    assert [entry.path for entry in head.entries] == ["a.txt", "empty.txt", "b/x.txt", "b/y/z.txt"]
    assert sorted(head.folders) == ["deep/er", "hollow"]
    assert content_of(files) == b"a.txtb/x.txtb/y/z.txt"
    assert files.read(3, 5) == b"xtb/x"


def test_an_empty_folder_and_an_empty_file_can_be_sent(tmp_path: Path) -> None:
    empty = tree(tmp_path / "nothing", "in/")
    (empty / "in").rmdir()
    files = OutgoingFiles.scan(empty)
    assert (files.kind, files.count, content_of(files), head_of(files).folders) == ("folder", 0, b"", [])
    (tmp_path / "empty").write_bytes(b"")
    files = OutgoingFiles.scan(tmp_path / "empty")
    assert (files.kind, files.count, content_of(files)) == ("file", 1, b"")


def test_hidden_and_special_members_are_left_out_and_counted(tmp_path: Path) -> None:
    root = tree(tmp_path / "folder", "a.txt", ".env", ".git/config", "sub/.hidden", "__pycache__/a.pyc")
    secret = tree(tmp_path / "outside", "secret.txt")
    (root / "link.txt").symlink_to(secret / "secret.txt")
    (root / "link").symlink_to(secret)
    (root / "circle").symlink_to(root)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        files = OutgoingFiles.scan(root)
    assert content_of(files) == b"a.txt"
    assert head_of(files).folders == ["sub"]
    assert files.skipped == 9


def test_a_link_named_by_the_user_is_followed(tmp_path: Path) -> None:
    tree(tmp_path, "real/a.txt")
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "file.txt").symlink_to(tmp_path / "real/a.txt")
    assert content_of(OutgoingFiles.scan(tmp_path / "folder")) == b"real/a.txt"
    assert OutgoingFiles.scan(tmp_path / "folder").name == "folder"
    assert OutgoingFiles.scan(tmp_path / "file.txt").name == "file.txt"
    assert content_of(OutgoingFiles.scan(tmp_path / "file.txt")) == (tmp_path / "real/a.txt").read_bytes()


def test_several_paths_become_one_folder(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "sub/b.txt", "sub/c/d.txt", "other/a.txt", "hollow/")
    paths = [tmp_path / "a.txt", tmp_path / "sub", tmp_path / "other/a.txt", tmp_path / "a.txt", tmp_path / "hollow"]
    files = OutgoingFiles.scan(paths)
    assert (files.kind, files.name, files.count) == ("folder", "4 files", 4)
    assert [entry.path for entry in head_of(files).entries] == ["a.txt", "sub/b.txt", "sub/c/d.txt", "a.txt"]
    assert head_of(files).folders == ["hollow"]
    assert OutgoingFiles.scan([tmp_path / "a.txt"]).kind == "file"
    assert OutgoingFiles.scan(tmp_path / name for name in ("hollow", "sub")).name == "2 files"


def test_names_another_system_refuses_are_sent_under_portable_ones(tmp_path: Path) -> None:
    root = tree(tmp_path / "folder", "10:30.csv", "aux/x?.txt", "plain.txt")
    files = OutgoingFiles.scan(root)
    assert [entry.path for entry in head_of(files).entries] == ["10_30.csv", "plain.txt", "_aux/x_.txt"]
    assert [sent_as for _, sent_as in files.renamed] == ["10_30.csv", "_aux", "_aux/x_.txt"]
    (tmp_path / ".env").write_text("x")
    assert OutgoingFiles.scan(tmp_path / ".env").name == "_.env"
    undecodable = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(undecodable, "wb") as file:
        file.write(b"x")
    assert OutgoingFiles.scan(os.fsdecode(undecodable)).name == "caf_.txt"


def test_what_cannot_be_sent_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for paths, says in [
        ([], "nothing to send"),
        (tmp_path / "missing\x1b.txt", r"missing\\x1b.txt.*Check the path"),
        ([tmp_path, tmp_path / "missing.txt"], "missing.txt"),
        (tmp_path / "pipe", "pipe.*neither a file nor a folder"),
        (tmp_path / "dangling", "dangling"),
        (tmp_path / "circle", "circle"),
        ("/dev/null", "/dev/null.*neither"),
    ]:
        with pytest.raises(UsageError, match=says):
            OutgoingFiles.scan(paths)  # type: ignore[arg-type]


def test_an_unreadable_member_is_named(ordinary_folder: Path) -> None:
    root = tree(ordinary_folder / "folder", "a.txt", "locked/b.txt")
    (root / "a.txt").chmod(0)
    with pytest.raises(UsageError, match=r"a\.txt.*permission"):
        OutgoingFiles.scan(root)
    (root / "a.txt").chmod(0o600)
    (root / "locked").chmod(0)
    with pytest.raises(UsageError, match=r"locked.*[Pp]ermission"):
        OutgoingFiles.scan(root)
    (root / "locked").chmod(0o700)


def test_a_tree_too_deep_for_a_receiver_is_refused_with_a_way_out(tmp_path: Path) -> None:
    tree(tmp_path, "d/" * 65 + "x.txt")
    with pytest.raises(UsageError, match="archive"):
        OutgoingFiles.scan(tmp_path / "d")


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "replace", "remove", "link", "pipe"])
def test_a_changed_source_is_never_sent_as_if_whole(tmp_path: Path, change: str) -> None:
    root = tree(tmp_path / "folder", "a.txt", "b.txt")
    path = root / "b.txt"
    files = OutgoingFiles.scan(root)
    assert files.read(0, 5) == b"a.txt"  # b.txt is not open yet
    if change == "grow":
        path.write_bytes(b"b.txt and more")
    elif change == "shrink":
        path.write_bytes(b"b")
    elif change == "touch":
        os.utime(path, ns=(0, 1))
    elif change == "replace":
        (tmp_path / "new").write_bytes(b"B.TXT")
        os.utime(tmp_path / "new", ns=(path.stat().st_mtime_ns,) * 2)
        os.replace(tmp_path / "new", path)
    else:
        path.unlink()
        if change == "link":
            path.symlink_to(root / "a.txt")
        elif change == "pipe":
            os.mkfifo(path)
    with pytest.raises(SourceChangedError, match=r"b\.txt.*Send it again"):
        files.read(3, 5)
    with pytest.raises(SourceChangedError, match=r"b\.txt"):
        files.check_unchanged()
    assert files.read(0, 5) == b"a.txt"


def test_a_source_changed_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 100)
    files = OutgoingFiles.scan(path)
    assert files.read(0, 50) == b"x" * 50
    with path.open("r+b") as file:
        file.truncate(60)
    with pytest.raises(SourceChangedError):
        files.read(50, 50)


def test_many_threads_read_many_files_through_few_descriptors(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    root.mkdir()
    for number in range(200):
        (root / f"{number:03}").write_bytes(bytes([number]) * (number * 7 % 50))
    files = OutgoingFiles.scan(root)
    whole = b"".join((root / f"{number:03}").read_bytes() for number in range(200))
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    measured = threading.Lock()

    def read(offset: int) -> None:
        nonlocal most
        assert files.read(offset, 131) == whole[offset : offset + 131]
        with measured:
            most = max(most, len(os.listdir("/proc/self/fd")) - before)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, [offset * 37 % len(whole) for offset in range(1000)]))
    assert 0 < most <= MAX_OPEN + 16
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before
    for length in (1, len(whole)):
        with pytest.raises(ValueError, match="closed"):
            files.read(0, length)


def test_the_preview_of_a_text_is_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa;b\r\n1;ü\n".encode())
    preview = OutgoingFiles.scan(path).preview
    assert (preview.type, preview.summary, preview.text) == ("file", "13 bytes", "a;b\n1;ü\n")
    path.write_text("line of text\n" * 10_000)
    text = OutgoingFiles.scan(path).preview.text
    assert 1900 < len(text) <= 2000
    assert text.endswith("text\n")
    path.write_text("€" * 10_000)  # 8000 bytes cut one in two
    assert OutgoingFiles.scan(path).preview.text == "€" * 2000


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n\x00", b"\xff\xfe", b"caf\xe9 au lait", b"a\x1b[2J", b"a\xc3"]
)
def test_what_is_not_text_has_no_beginning_to_show(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    assert OutgoingFiles.scan(tmp_path / "a").preview.text == ""


def test_the_preview_of_a_folder_lists_its_first_names(tmp_path: Path) -> None:
    root = tree(tmp_path / "folder", *(f"{number:03}.txt" for number in range(123)), "hollow/")
    preview = OutgoingFiles.scan(root).preview
    assert (preview.type, preview.summary) == ("folder", "123 files, 861 bytes")
    lines = preview.text.splitlines()
    assert lines[:2] == ["000.txt", "001.txt"]
    assert (len(lines), lines[-1]) == (21, "… and 104 more")
    assert OutgoingFiles.scan(tree(tmp_path / "one", "x", "y/")).preview.text == "x\ny/"


def test_the_preview_always_fits_its_offer(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    root.mkdir()
    for number in range(30):
        (root / ("\U00020000" * 60 + f"{number:02}")).write_bytes(b"")
    files = OutgoingFiles.scan(root)
    offer = Offer(1, files.kind, files.name, files.size_bytes, len(files.head), files.preview, count=files.count)
    assert len(encode_control(offer)) < MAX_CONTROL_BYTES // 2


# ── into a buffer ───────────────────────────────────────────────────────────────────────────────────
def many(root: Path, sizes: list[int]) -> bytes:
    root.mkdir()
    content = random.Random(1).randbytes(sum(sizes))
    place = 0
    for number, size in enumerate(sizes):
        (root / f"{number:04}").write_bytes(content[place : place + size])
        place += size
    return content


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.data())
def test_a_buffer_is_filled_with_exactly_the_content(sizes: list[int], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        content = many(Path(scratch, "folder"), sizes)
        files = OutgoingFiles.scan(Path(scratch, "folder"))
        for _ in range(5):
            start = data.draw(st.integers(0, len(content)))
            end = data.draw(st.integers(start, len(content)))
            buffer = bytearray(b"?" * (end - start + 2))
            files.read_into(start, memoryview(buffer)[1:-1])
            assert buffer == b"?" + content[start:end] + b"?"
        for start, length in ((-1, 1), (0, len(content) + 1), (len(content), 1), (2**63, 1)):
            with pytest.raises(ValueError, match="offset"):
                files.read_into(start, memoryview(bytearray(length)))
        block = data.draw(st.integers(1, 60))
        count = -(-len(content) // block)
        first = data.draw(st.integers(0, count))
        end = data.draw(st.integers(first, count))
        assert files.hash_blocks(block, first, end) == b"".join(
            hashlib.sha256(content[number * block : (number + 1) * block]).digest()[:HASH_BYTES]
            for number in range(first, end)
        )
        for wrong in ((0, 0, 1), (block, -1, 1), (block, 1, 0), (block, 0, count + 1), (block, 2**70, 2**70 + 1)):
            with pytest.raises(ValueError, match="blocks"):
                files.hash_blocks(*wrong)
        files.close()


@pytest.mark.parametrize("change", ["touch", "rewrite", "shrink", "replace", "remove", "pipe"])
@pytest.mark.parametrize("whole", [True, False])
def test_no_buffer_and_no_hash_is_made_of_a_changed_source(tmp_path: Path, change: str, whole: bool) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    files = OutgoingFiles.scan(path)
    length = 100 if whole else 50
    files.read_into(0, memoryview(bytearray(length)))
    found = path.stat()
    if change == "touch":
        path.write_bytes(b"y" * 100)
        os.utime(path, ns=(0, found.st_mtime_ns + 1))
    elif change == "rewrite":
        while path.stat().st_ctime_ns == found.st_ctime_ns:  # the system's clock moves in steps
            path.write_bytes(b"y" * 100)
            os.utime(path, ns=(0, found.st_mtime_ns))
    elif change == "shrink":
        os.truncate(path, 50)
        os.utime(path, ns=(0, found.st_mtime_ns))
    else:
        path.rename(tmp_path / "old")  # else its inode may be used again
        if change == "replace":
            path.write_bytes(b"y" * 100)
            os.utime(path, ns=(0, found.st_mtime_ns))
        elif change == "pipe":
            os.mkfifo(path)
    if whole or change in {"touch", "rewrite", "shrink"}:  # else the file that was sent so far is still open, and whole
        with pytest.raises(SourceChangedError):
            files.read_into(0, memoryview(bytearray(length)))
    with pytest.raises(SourceChangedError):
        files.hash_blocks(100, 0, 1)
    with pytest.raises(SourceChangedError):
        files.check_unchanged()


# ── at once ─────────────────────────────────────────────────────────────────────────────────────────
CAN_TELL = hasattr(os, "RWF_NOWAIT")


@pytest.fixture
def sixty(tmp_path: Path) -> Iterator[OutgoingFiles]:
    (tmp_path / "a").write_bytes(bytes(range(60)))
    files = OutgoingFiles.scan(tmp_path / "a")
    files.read_into(0, memoryview(bytearray(10)))  # now it is open
    yield files
    files.close()


def test_what_the_system_has_in_memory_is_there_at_once(sixty: OutgoingFiles) -> None:
    for start, end in ((0, 60), (0, 1), (59, 60), (7, 43)):
        buffer = bytearray(end - start)
        if not sixty.read_at_once(start, memoryview(buffer)):
            assert not CAN_TELL or not sixty._tells_waiting
            pytest.skip("THIS FILE SYSTEM DOES NOT TELL WHETHER A READING WAITS")
        assert buffer == bytes(range(60))[start:end]


def test_what_has_to_wait_is_left_alone(sixty: OutgoingFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pnb.files._descriptors._NO_WAITING", 8)
    outcomes: list[int | OSError] = [BlockingIOError(errno.EAGAIN, "it is on the disk"), 20]

    def preadv(descriptor: int, buffers: object, offset: int, flags: int) -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    monkeypatch.setattr(os, "preadv", preadv)
    assert not sixty.read_at_once(0, memoryview(bytearray(50)))
    assert not sixty.read_at_once(0, memoryview(bytearray(50))), "only a part is in memory"
    outcomes += [OSError(errno.EOPNOTSUPP, "no"), 50]
    assert not sixty.read_at_once(0, memoryview(bytearray(50)))
    assert not sixty.read_at_once(0, memoryview(bytearray(50))), "who can't tell is not asked again"
    assert outcomes == [50]


def test_nothing_is_opened_and_no_border_crossed_at_once(tmp_path: Path) -> None:
    many(tmp_path / "folder", [10, 10, 10])
    files = OutgoingFiles.scan(tmp_path / "folder")
    assert not files.read_at_once(0, memoryview(bytearray(5))), "it is not open yet"
    files.read_into(0, memoryview(bytearray(5)))
    assert not files.read_at_once(5, memoryview(bytearray(10))), "of two files"
    for start, length in ((-1, 1), (30, 1), (0, 0), (2**63, 1)):
        assert not files.read_at_once(start, memoryview(bytearray(length)))
    files.close()
    assert not files.read_at_once(0, memoryview(bytearray(5)))


def test_nothing_of_a_changed_source_is_there_at_once(sixty: OutgoingFiles, tmp_path: Path) -> None:
    if not sixty.read_at_once(0, memoryview(bytearray(50))):
        pytest.skip("THIS FILE SYSTEM DOES NOT TELL WHETHER A READING WAITS")
    found = (tmp_path / "a").stat()
    (tmp_path / "a").write_bytes(b"y" * 60)
    os.utime(tmp_path / "a", ns=(0, found.st_mtime_ns + 1))
    with pytest.raises(SourceChangedError):
        sixty.read_at_once(0, memoryview(bytearray(50)))


def test_reading_and_hashing_take_no_memory_in_proportion(tmp_path: Path) -> None:
    size = 16 * 1024 * 1024
    (tmp_path / "a").write_bytes(bytes(size))
    files = OutgoingFiles.scan(tmp_path / "a")
    incoming = IncomingFiles(files.head, "a", "file", size, tmp_path / "in")
    buffer = memoryview(bytearray(size // 2))
    tracemalloc.start()
    try:
        for start in (0, size // 2):
            files.read_into(start, buffer)
            incoming.write(start, buffer)
        assert tracemalloc.get_traced_memory()[1] < 100_000
        digests = files.hash_blocks(size, 0, 1) + incoming.hash_blocks(size, 0, 1)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()
    assert digests == hashlib.sha256(bytes(size)).digest()[:HASH_BYTES] * 2
    incoming.abort()


def test_a_scan_of_many_files_is_small(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    for number in range(5_000):
        path = root / str(number % 50) / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    tracemalloc.start()
    try:
        files = OutgoingFiles.scan(root)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5_000 * (len(str(root)) + 200)
    files.close()


@pytest.mark.parametrize("seconds", [-(2**33), -1, 2**34])
def test_times_of_any_century_can_be_sent(tmp_path: Path, seconds: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    try:
        os.utime(path, (seconds, seconds))
    except OSError:
        pytest.skip("NOT TESTED: a time that this file system can't hold")
    files = OutgoingFiles.scan(path)
    files.check_unchanged()
    assert files.read(0, 1) == b"x"
