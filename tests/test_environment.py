"""What a number depends on beside its cell."""

import json
import re
import shutil

import pytest
from code_copy import checkout_copy, git, plain_copy
from making import cell, environment, python

from spine_tasks import environment as under_test
from spine_tasks.errors import RunError

CODE = "from spine_tasks import environment as e; print(e.commit()); print(e.code_sha256())"

PATCH = """
import sys
from pathlib import Path
from spine_tasks import environment
Path(sys.argv[1]).write_bytes(environment.changes())
"""


@pytest.fixture
def checkout(tmp_path):
    return checkout_copy(tmp_path / "copy")


def commit_and_code(root):
    return python(CODE, env=environment(root)).stdout.split()


def test_the_commit_is_the_checkouts_and_says_where_files_differ_from_it(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    commit, code = commit_and_code(checkout)
    assert commit == head
    (checkout / "notes.txt").write_text("no code")
    assert commit_and_code(checkout) == [head, code]
    with (checkout / "spine_tasks" / "cell.py").open("a") as stream:
        stream.write("# changed\n")
    changed = commit_and_code(checkout)
    assert changed[0] == f"{head}+changes"
    assert changed[1] != code


def test_a_new_file_that_was_not_committed_is_a_change(checkout):
    (checkout / "spine_tasks" / "new.py").write_text("")
    assert commit_and_code(checkout)[0].endswith("+changes")


def test_the_digest_of_the_code_does_not_depend_on_git_or_place(checkout):
    before = commit_and_code(checkout)[1]
    shutil.rmtree(checkout / ".git")
    commit, code = commit_and_code(checkout)
    assert (commit, code) == ("unknown", before)


def test_a_renamed_file_is_other_code(checkout):
    before = commit_and_code(checkout)[1]
    (checkout / "spine_tasks" / "job.py").rename(checkout / "spine_tasks" / "job2.py")
    assert commit_and_code(checkout)[1] != before


def test_the_changes_are_a_patch_that_git_applies(checkout, tmp_path):
    (checkout / "spine_tasks" / "score.py").write_text("# other\n")
    (checkout / "spine_tasks" / "new.py").write_bytes(b"# new: \xff\0\n")
    (checkout / "data_splits" / "README.md").unlink()
    said = python(PATCH, tmp_path / "patch", env=environment(checkout))
    assert said.returncode == 0, said.stderr
    git(checkout, "clone", "-q", str(checkout), str(tmp_path / "clone"))
    git(tmp_path / "clone", "apply", str(tmp_path / "patch"))
    for part in ("spine_tasks/score.py", "spine_tasks/new.py"):
        assert (tmp_path / "clone" / part).read_bytes() == (checkout / part).read_bytes()
    assert not (tmp_path / "clone" / "data_splits" / "README.md").exists()


def test_an_installed_package_is_not_of_the_commit_of_the_repository_around_it(checkout):
    # A virtual environment inside another project's checkout is no checkout of this code.
    inner = plain_copy(checkout / "results" / "site-packages")
    assert commit_and_code(inner)[0] == "unknown"


def test_a_repository_without_a_commit_is_unknown(tmp_path):
    root = plain_copy(tmp_path / "copy")
    git(root, "init", "-q")
    git(root, "add", ".")
    assert commit_and_code(root)[0] == "unknown"


def test_codes_of_attempts_are_those_that_had_a_part_in_the_checkpoint():
    def started(code, saved_ns):
        return {"event": "started", "code_sha256": code, "saved_ns": saved_ns}

    of = under_test.codes_of_attempts
    assert of([]) == []
    assert of([started("a", None), {"event": "failed"}, started("b", None)]) == ["b"]
    assert of([started("a", None), started("b", 1), started("a", 2)]) == ["a", "b"]
    # Records of an older version say neither.
    assert of([{"event": "started"}, {"event": "started", "code_sha256": "c"}]) == ["c"]


def test_code_that_was_not_launched_is_refused(monkeypatch, tmp_path):
    package, here = under_test.PACKAGE, under_test.code_sha256()
    under_test.check_code()  # nothing was launched
    monkeypatch.setenv("SPINE_CODE_SHA256", here)
    monkeypatch.setenv("SPINE_CODE", str(package.parent))
    under_test.check_code()
    monkeypatch.setenv("SPINE_CODE", str(tmp_path))
    with pytest.raises(RunError, match=f"{tmp_path}.*Python imported {package}.*PYTHONPATH"):
        under_test.check_code()
    monkeypatch.delenv("SPINE_CODE")
    monkeypatch.setenv("SPINE_CODE_SHA256", "0" * 64)
    with pytest.raises(RunError, match=f"{here}, launched as {'0' * 64}"):
        under_test.check_code()


def test_the_description_is_json_and_names_versions_and_machine():
    described = json.loads(json.dumps(under_test.describe()))
    assert re.fullmatch(r"[0-9a-f]{64}", described["code_sha256"])
    assert {"numpy", "scipy", "nibabel"} <= set(described["packages"])
    assert all(described[name] for name in ("commit", "python", "host", "platform", "command"))
    assert described["node"] == described["host"]


def test_the_description_names_node_and_partition_of_a_slurm_job(monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "gpu")
    described = under_test.describe()
    assert (described["node"], described["partition"]) == ("node7", "gpu")


def test_a_worker_has_the_threads_of_its_cell():
    variables = under_test.worker_variables(cell({"threads": 3}))
    assert {variables[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")} == {"3"}
    assert all(isinstance(value, str) for value in variables.values())
