"""Files from the browser: whole, within bounds, and gone afterwards."""

from __future__ import annotations

import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pnb.errors import DiskFullError, P2PError, UnsafeNameError, UsageError
from p2pnb.panel import uploads as module
from p2pnb.panel.protocol import MAX_PIECE_BYTES, MAX_UPLOADS
from p2pnb.panel.uploads import Uploads
from tests.unit.panel.fake_room import FakePeer, FakeRoom, FakeTransfer


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def uploads() -> Iterator[Uploads]:
    there = Uploads()
    yield there
    there.close()


def wait_for_cleanup() -> None:
    for thread in threading.enumerate():  # started by the caller's own thread, so it is in the list
        if thread.name == "p2pnb-upload-cleanup":
            thread.join(10)


def test_a_file_arrives_whole_and_goes_to_whom_it_should(uploads: Uploads) -> None:
    room, ben = FakeRoom(), FakePeer()
    uploads.begin(1, [("a.bin", 5)], [ben], None, 0.0)
    uploads.piece(1, 0, 0, b"abc", 0.0)
    uploads.piece(1, 0, 3, memoryview(b"de"), 0.0)
    transfer = uploads.end(1, room)
    assert room.transfers[0] is transfer
    assert room.transfers[0].sent.read_bytes() == b"abcde"
    assert room.transfers[0].sent.name == "a.bin"
    assert room.transfers[0].to == [ben]


def test_a_folder_is_sent_as_one(uploads: Uploads) -> None:
    room = FakeRoom()
    uploads.begin(1, [("photos/a", 1), ("photos/sub/b", 1), ("photos/empty", 0)], None, None, 0.0)
    uploads.piece(1, 1, 0, b"B", 0.0)
    uploads.piece(1, 0, 0, b"A", 0.0)
    uploads.end(1, room)
    sent: Path = room.transfers[0].sent
    assert sent.name == "photos"
    found = {str(path.relative_to(sent)): path.read_bytes() for path in sent.rglob("*") if path.is_file()}
    assert found == {"a": b"A", "sub/b": b"B", "empty": b""}


def test_loose_files_are_sent_as_several_paths(uploads: Uploads) -> None:
    room = FakeRoom()
    uploads.begin(1, [("a", 0), ("b", 0)], None, None, 0.0)
    uploads.end(1, room)
    assert [path.name for path in room.transfers[0].sent] == ["a", "b"]


def test_nobody_else_can_look_into_an_upload(uploads: Uploads, temporary: Path) -> None:
    uploads.begin(1, [("sub/a", 1)], None, None, 0.0)
    (folder,) = temporary.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "sub" / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a//b",
        ".",
        "..",
        "",
        "a/",
        "x\0y",
        "a\\..\\b",
        "d/" * 65 + "x",
        "n" * 256,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(uploads: Uploads, temporary: Path, name: str) -> None:
    with pytest.raises(UnsafeNameError):
        uploads.begin(1, [("good", 1), (name, 1)], None, None, 0.0)
    assert not list(temporary.parent.rglob("evil"))
    assert not list(temporary.iterdir())


def test_names_that_clash_or_that_the_disk_refuses_leave_nothing_behind(uploads: Uploads, temporary: Path) -> None:
    for names in (["a", "a"], ["a", "a/b"], ["\ud800"]):
        with pytest.raises(P2PError):
            uploads.begin(1, [(name, 0) for name in names], None, None, 0.0)
        assert not list(temporary.iterdir())


def test_pieces_out_of_place_or_bounds_are_refused(uploads: Uploads) -> None:
    uploads.begin(1, [("a", 10)], None, None, 0.0)
    uploads.piece(1, 0, 0, b"12345", 0.0)
    for file, offset, data in ((0, 0, b"x"), (0, 6, b"x"), (0, 5, b"123456"), (1, 0, b"x"), (-1, 0, b"x")):
        with pytest.raises(UsageError):
            uploads.piece(1, file, offset, data, 0.0)
    with pytest.raises(UsageError):
        uploads.piece(1, 0, 5, bytes(MAX_PIECE_BYTES + 1), 0.0)
    with pytest.raises(UsageError):
        uploads.piece(2, 0, 0, b"x", 0.0)


def test_an_incomplete_upload_is_never_sent(uploads: Uploads, temporary: Path) -> None:
    room = FakeRoom()
    uploads.begin(1, [("a", 2)], None, None, 0.0)
    uploads.piece(1, 0, 0, b"x", 0.0)
    with pytest.raises(UsageError, match="missing"):
        uploads.end(1, room)
    assert not room.transfers
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("how", ["done", "failed", "cancelled", "declined"])
def test_the_folder_goes_when_the_transfer_ended(uploads: Uploads, temporary: Path, how: str) -> None:
    room = FakeRoom()
    uploads.begin(1, [("a", 0)], None, None, 0.0)
    uploads.end(1, room)
    uploads.close()
    assert len(list(temporary.iterdir())) == 1  # the transfer still reads it, whatever became of the panel
    room.end(room.transfers[0], how)
    wait_for_cleanup()
    assert not list(temporary.iterdir())
    assert room.subscriptions == 0


def test_the_folder_stays_after_a_failure_until_another_try_went_well(uploads: Uploads, temporary: Path) -> None:
    room = FakeRoom()
    uploads.begin(1, [("a", 0)], None, None, 0.0)
    uploads.end(1, room)
    failed = room.transfers[0]
    for state in ("failed", "failed", "done"):
        room.end(failed, state)
        wait_for_cleanup()
        assert bool(list(temporary.iterdir())) is (state == "failed")
        if state == "failed":
            again = failed.retry()
            uploads.retried(FakeTransfer("another"), FakeTransfer("another-again"))
            uploads.retried(failed, again)
            failed = again
    assert room.subscriptions == 0


def test_what_failed_and_nobody_tried_again_is_forgotten(uploads: Uploads, temporary: Path) -> None:
    room = FakeRoom()
    for upload in range(MAX_UPLOADS + 3):
        uploads.begin(upload, [("a", 0)], None, None, 0.0)
        uploads.end(upload, room)
        room.end(room.transfers[-1], "failed")
    wait_for_cleanup()
    assert len(list(temporary.iterdir())) == MAX_UPLOADS
    uploads.forget(50.0)
    uploads.forget(50.0 + module.FORGOTTEN_S)
    wait_for_cleanup()
    assert len(list(temporary.iterdir())) == MAX_UPLOADS
    uploads.forget(51.0 + module.FORGOTTEN_S)
    wait_for_cleanup()
    assert not list(temporary.iterdir())
    assert room.subscriptions == 0


def test_what_failed_goes_when_the_panel_is_closed(uploads: Uploads, temporary: Path) -> None:
    room = FakeRoom()
    uploads.begin(1, [("a", 0)], None, None, 0.0)
    uploads.end(1, room)
    room.end(room.transfers[0], "failed")
    uploads.close()
    wait_for_cleanup()
    assert not list(temporary.iterdir())


def test_the_folder_goes_when_the_room_closes(uploads: Uploads, temporary: Path) -> None:
    room = FakeRoom()
    uploads.begin(1, [("a", 0)], None, None, 0.0)
    uploads.end(1, room)
    room.leave()
    wait_for_cleanup()
    assert not list(temporary.iterdir())


def test_what_is_given_up_or_forgotten_goes(uploads: Uploads, temporary: Path) -> None:
    for upload in range(3):
        uploads.begin(upload, [("a", 1)], None, None, 100.0 * upload)
    uploads.abort(0)
    uploads.abort(0)
    assert len(list(temporary.iterdir())) == 2
    uploads.forget(100.0 + module.FORGOTTEN_S + 1)
    assert len(list(temporary.iterdir())) == 1
    uploads.close()
    assert not list(temporary.iterdir())


def test_there_is_a_bound_to_everything(uploads: Uploads) -> None:
    for upload in range(MAX_UPLOADS):
        uploads.begin(upload, [("a", 0)], None, None, 0.0)
    with pytest.raises(UsageError):
        uploads.begin(99, [("a", 0)], None, None, 0.0)
    uploads.abort(0)
    for files in ([], [("a", -1)], [(str(number), 0) for number in range(10_001)]):
        with pytest.raises(UsageError):
            uploads.begin(99, files, None, None, 0.0)


def test_an_upload_larger_than_the_disk_is_refused_at_once(uploads: Uploads, temporary: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="free some space"):
        uploads.begin(1, [("a", 1 << 60)], None, tmp_path, 0.0)
    assert not list(temporary.iterdir())
