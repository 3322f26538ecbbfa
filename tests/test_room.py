"""Room on a disk, asked before anything is written."""

import errno
import os
from collections import namedtuple
from pathlib import Path

import pytest
from making import python

from spine_tasks import files
from spine_tasks.errors import RunError
from spine_tasks.files import check_room

MB = 1_000_000
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def plenty(monkeypatch):
    """A disk that says it is nearly empty, as one does to a user whose quota is used up."""
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: Usage(1 << 60, 0, 1 << 60))


def test_what_fits_is_let_through_and_nothing_is_left(tmp_path):
    check_room(tmp_path, 300 * MB, "the grid")  # more than is reserved at once
    check_room(tmp_path, 0, "nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_still_to_be_made_is_that_of_the_nearest_there_is(tmp_path, monkeypatch):
    check_room(tmp_path / "new" / "er", MB, "the grid")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(tmp_path)
    check_room(Path("results"), MB, "the grid")
    with pytest.raises(RunError, match=f"^{tmp_path}: the grid needs"):
        check_room(tmp_path / "new", 1 << 60, "the grid")


def test_too_little_room_says_where_how_much_and_what_to_do(tmp_path):
    with pytest.raises(RunError) as told:
        check_room(tmp_path, 10**18, "gm_transfer, 15 cells,")
    message = str(told.value)
    assert message.startswith(f"{tmp_path}: gm_transfer, 15 cells, needs 1.0 EB, and ")
    assert "jobs/clean.py" in message
    assert told.value.__cause__.errno == errno.ENOSPC  # what a failure's cause is told by


@pytest.mark.parametrize("problem", [errno.EDQUOT, errno.ENOSPC])
def test_a_quota_counts_where_the_disk_itself_has_room(tmp_path, monkeypatch, plenty, problem):
    given = []

    def two_parts(descriptor, start, length):
        given.append((start, length))
        return 0 if len(given) < 3 else problem

    monkeypatch.setattr(files, "_fallocate", two_parts)
    with pytest.raises(RunError, match=r"your quota there has 536\.9 MB left"):
        check_room(tmp_path, 10**9, "the grid")
    part = files.RESERVED_AT_ONCE
    assert given == [(0, part), (part, part), (2 * part, part)]


def test_just_what_is_needed_is_reserved(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(files, "_fallocate", lambda *asked: given.append(asked[1:]) or 0)
    part = files.RESERVED_AT_ONCE
    check_room(tmp_path, part + 5, "the grid")
    assert given == [(0, part), (part, 5)]


def test_a_call_that_a_signal_broke_off_is_made_again(tmp_path, monkeypatch):
    answers = iter([errno.EINTR, 0, errno.EINTR, errno.EINTR, 0])
    monkeypatch.setattr(files, "_fallocate", lambda *asked: next(answers))
    check_room(tmp_path, files.RESERVED_AT_ONCE + 1, "the grid")
    assert next(answers, None) is None


@pytest.mark.parametrize("problem", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_reserve_is_believed(tmp_path, monkeypatch, problem):
    monkeypatch.setattr(files, "_fallocate", lambda *asked: problem)
    check_room(tmp_path, MB, "the grid")


def test_a_disk_that_fails_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_fallocate", lambda *asked: errno.EIO)
    with pytest.raises(RunError, match="cannot be written: Input/output error") as told:
        check_room(tmp_path, MB, "the grid")
    assert told.value.__cause__.errno == errno.EIO


def test_the_reservation_is_real(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        problem = files._fallocate(file.fileno(), 0, MB)
    if problem == errno.EOPNOTSUPP:
        assert (tmp_path / "a").stat().st_size == 0
    else:
        assert problem == 0
        assert (tmp_path / "a").stat().st_blocks * 512 >= MB
    reading = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        assert files._fallocate(reading, 0, MB) == errno.EBADF
    finally:
        os.close(reading)


def test_a_killed_check_leaves_no_file_behind(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from spine_tasks import files
files._fallocate = lambda *asked: os.kill(os.getpid(), signal.SIGKILL)
files.check_room(Path(sys.argv[1]), 1000, "the grid")
"""
    assert python(code, tmp_path).returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_told():
    with pytest.raises(RunError, match=r"/proc/self: cannot be written: "):
        check_room(Path("/proc/self/results"), 0, "the grid")
