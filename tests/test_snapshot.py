"""Waiting jobs run the code as it was at their launch, whatever happens to the checkout."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from code_copy import CODE, checkout_copy, commit, git, plain_copy
from making import environment, python

from spine_tasks import snapshot as under_test
from spine_tasks.environment import code_sha256
from spine_tasks.errors import RunError

TAKE = """
import json, sys
from pathlib import Path
from spine_tasks.snapshot import take
taken = take(Path(sys.argv[1]))
print(json.dumps([str(taken.folder), taken.commit, taken.changes_sha256, taken.code_sha256,
                  taken.variables()]))
"""
# What a worker is started with: its module's name and nothing of its place.
WHERE = """
import spine_tasks
from spine_tasks import environment
from spine_tasks.grid import GRIDS
from spine_tasks.splits import DATA_SPLITS
environment.check_code()
print(spine_tasks.__file__, GRIDS, DATA_SPLITS, environment.commit(), sep="\\n")
print(environment.patch_sha256(environment.changes()))
"""


class Taken:
    """A snapshot that a process of a copy's own took."""

    def __init__(self, root, folder):
        answer = python(TAKE, folder, env=environment(root))
        assert answer.returncode == 0, answer.stderr
        folder, self.commit, self.changes_sha256, self.code_sha256, self.variables = json.loads(
            answer.stdout
        )
        self.folder = type(root)(folder)


@pytest.fixture
def checkout(tmp_path):
    root = checkout_copy(tmp_path / "copy")
    (root / "spine_tasks" / "where.py").write_text('"""Where."""\n' + WHERE)
    return root


def files(folder):
    return {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}


def where(taken, cwd):
    """What the module `where` says when it is started in `cwd` with a snapshot's variables."""
    return subprocess.run(
        [sys.executable, "-m", "spine_tasks.where"],
        cwd=cwd,
        env=environment() | taken.variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def test_what_waits_runs_the_snapshot_although_the_checkout_changes(checkout, tmp_path):
    taken = Taken(checkout, tmp_path / "code")
    (checkout / "spine_tasks" / "where.py").write_text("print('changed')\n")
    # In the checkout: its package lies in the working directory, and an editable install of
    # the package that the tests run is in this Python too.
    answer = where(taken, checkout)
    assert answer.returncode == 0, answer.stderr
    package, grids, splits, commit_said, changes = answer.stdout.split("\n")[:5]
    assert package == str(taken.folder / "spine_tasks" / "__init__.py")
    assert grids == str(taken.folder / "jobs" / "grids")
    assert splits == str(taken.folder / "data_splits")
    assert (commit_said, changes) == (taken.commit, taken.changes_sha256)


def test_without_the_variables_the_checkout_would_be_run(checkout, tmp_path):
    # Else the test above would show nothing.
    taken = Taken(checkout, tmp_path / "code")
    (checkout / "spine_tasks" / "where.py").write_text("print('changed')\n")
    del taken.variables["PYTHONSAFEPATH"]
    assert where(taken, checkout).stdout == "changed\n"


def test_a_worker_that_imports_the_checkout_after_all_is_refused(checkout, tmp_path):
    taken = Taken(checkout, tmp_path / "code")
    taken.variables["PYTHONPATH"] = os.pathsep.join([str(checkout), taken.variables["PYTHONPATH"]])
    answer = where(taken, tmp_path)
    assert answer.returncode == 1
    assert f"Python imported {checkout / 'spine_tasks'}" in answer.stderr


def test_a_snapshot_that_was_edited_is_refused_by_workers_and_launches(checkout, tmp_path):
    taken = Taken(checkout, tmp_path / "code")
    file = taken.folder / "spine_tasks" / "score.py"
    file.chmod(0o644)
    file.write_text("# edited\n")
    answer = where(taken, tmp_path)
    assert answer.returncode == 1
    assert f"launched as {taken.code_sha256}" in answer.stderr
    again = python(TAKE, tmp_path / "code", env=environment(checkout))
    assert "was changed since it was taken" in again.stderr


def test_it_holds_what_git_tracks_or_does_not_ignore(checkout, tmp_path):
    (checkout / "jobs" / "ignored.big").write_text("")
    (checkout / "jobs" / "__pycache__").mkdir()
    (checkout / "jobs" / "__pycache__" / "x.pyc").write_text("")
    (checkout / "jobs" / ".#lock").symlink_to("nobody@nowhere")
    (checkout / "notes.txt").write_text("no code")
    (checkout / "jobs" / "grids" / "gm_epochs.yaml").unlink()
    tracked = {name for name in git(checkout, "ls-files", *CODE).split("\n")}
    taken = Taken(checkout, tmp_path / "code")
    expected = tracked - {"jobs/grids/gm_epochs.yaml"} | {"spine_tasks/where.py"}
    assert {str(name) for name in files(taken.folder)} == expected | {
        "snapshot.json",
        "changes.diff",
    }
    for name in expected:
        assert (taken.folder / name).read_bytes() == (checkout / name).read_bytes()


def test_its_record_is_true(checkout, tmp_path):
    head = git(checkout, "rev-parse", "HEAD")
    taken = Taken(checkout, tmp_path / "code")
    record = json.loads((taken.folder / "snapshot.json").read_text())
    patch = (taken.folder / "changes.diff").read_bytes()
    assert b"+++ b/spine_tasks/where.py" in patch
    assert taken.commit == record["commit"] == f"{head}+changes"
    assert taken.changes_sha256 == hashlib.sha256(patch).hexdigest() == record["changes_sha256"]
    assert taken.code_sha256 == record["code_sha256"] == code_sha256(checkout / "spine_tasks")
    commit(checkout)
    (checkout / "jobs" / "job.py").write_text("")
    commit(checkout)
    clean = Taken(checkout, tmp_path / "code")
    assert clean.commit == git(checkout, "rev-parse", "HEAD")
    assert (clean.changes_sha256, clean.code_sha256) == (None, taken.code_sha256)
    assert clean.folder != taken.folder  # other files in jobs, though the package is the same
    assert (clean.folder / "changes.diff").read_bytes() == b""


def test_nothing_is_copied_twice_and_every_change_is_another_snapshot(checkout, tmp_path):
    code = tmp_path / "code"
    first = Taken(checkout, code)
    inode = (first.folder / "snapshot.json").stat().st_ino
    assert Taken(checkout, code).folder == first.folder
    assert (first.folder / "snapshot.json").stat().st_ino == inode
    split = checkout / "data_splits" / "gm_phantom.csv"
    split.write_text(split.read_text() + "\n")
    assert Taken(checkout, code).folder != first.folder
    assert len(list(code.iterdir())) == 2


def test_its_files_cannot_be_written_and_it_can_be_deleted(checkout, tmp_path):
    taken = Taken(checkout, tmp_path / "code")
    writable = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    assert not [
        name for name in files(taken.folder) if (taken.folder / name).stat().st_mode & writable
    ]
    shutil.rmtree(taken.folder)
    assert Taken(checkout, tmp_path / "code").folder == taken.folder


def test_without_git_it_holds_the_code_all_the_same(tmp_path):
    root = plain_copy(tmp_path / "installed")
    (root / "unrelated").mkdir()
    taken = Taken(root, tmp_path / "code")
    assert (taken.commit, taken.changes_sha256) == ("unknown", None)
    copied = {name for name in files(taken.folder) if name.parts[0] in CODE}
    assert copied == {name for name in files(root) if "__pycache__" not in name.parts}


def test_a_snapshot_taken_by_code_that_is_one_is_the_same(checkout, tmp_path):
    taken = Taken(checkout, tmp_path / "code")
    again = Taken(taken.folder, tmp_path / "code2")
    assert again.folder.name == taken.folder.name
    assert (again.commit, again.changes_sha256) == (taken.commit, taken.changes_sha256)
    assert again.code_sha256 == taken.code_sha256


def test_launches_at_once_end_with_one(tmp_path):
    with ThreadPoolExecutor(8) as several:
        taken = list(several.map(under_test.take, [tmp_path / "code"] * 8))
    assert len(set(taken)) == 1
    assert list((tmp_path / "code").iterdir()) == [taken[0].folder]


def test_a_copy_that_was_killed_half_way_is_never_used(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(under_test, "write_json", _killed)
        broken.setattr(under_test.shutil, "rmtree", lambda *_args, **_more: None)
        with pytest.raises(KeyboardInterrupt):
            under_test.take(tmp_path / "code")
    (half,) = (tmp_path / "code").iterdir()
    taken = under_test.take(tmp_path / "code")
    assert taken.folder != half
    assert (taken.folder / "snapshot.json").exists()


def _killed(*_args):
    raise KeyboardInterrupt


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "code").write_text("a file")
    with pytest.raises(RunError, match="cannot be copied there: Not a directory"):
        under_test.take(tmp_path / "code")


def test_data_among_the_code_is_refused_before_it_is_read(checkout, tmp_path):
    with (checkout / "jobs" / "weights.h5").open("wb") as stream:
        stream.truncate(200_000_000)
    answer = python(TAKE, tmp_path / "code", env=environment(checkout))
    assert "The largest is jobs/weights.h5, 200 MB" in answer.stderr
    assert not (tmp_path / "code").exists()


def test_the_users_own_python_path_stays_behind_the_snapshot(tmp_path, monkeypatch):
    taken = under_test.Snapshot(tmp_path, "unknown", None, "0")
    monkeypatch.setenv("PYTHONPATH", "mine:other")
    assert taken.variables()["PYTHONPATH"] == f"{tmp_path}:mine:other"
    monkeypatch.setenv("PYTHONPATH", "")  # an empty entry would be the working directory
    assert taken.variables()["PYTHONPATH"] == str(tmp_path)


def test_a_planned_snapshot_is_the_one_that_would_be_taken_and_writes_nothing(tmp_path):
    planned = under_test.planned(tmp_path / "code")
    assert not (tmp_path / "code").exists()
    assert under_test.take(tmp_path / "code") == planned
