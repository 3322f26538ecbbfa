"""What a number depends on beside its cell."""

import json
import re
import shutil
import subprocess

import pytest
from making import ROOT, cell, environment, python

from spine_tasks import environment as under_test

CODE = "from spine_tasks import environment as e; print(e.commit()); print(e.code_sha256())"


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package in a repository of its own, with everything committed."""
    root = tmp_path / "copy"
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("spine_tasks", "jobs", "data_splits"):
        shutil.copytree(ROOT / part, root / part, ignore=ignore)
    (root / ".gitignore").write_text("__pycache__/\n")
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("init", "-q"), ("add", "."), (*name, "commit", "-qm", "all")):
        subprocess.run(["git", "-C", root, *words], check=True)
    return root


def commit_and_code(root):
    return python(CODE, env=environment(root)).stdout.split()


def test_the_commit_is_the_checkouts_and_says_where_files_differ_from_it(checkout):
    head = subprocess.run(
        ["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
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


def test_the_description_is_json_and_names_versions_and_machine():
    described = json.loads(json.dumps(under_test.describe()))
    assert re.fullmatch(r"[0-9a-f]{64}", described["code_sha256"])
    assert {"numpy", "scipy", "nibabel"} <= set(described["packages"])
    assert all(described[name] for name in ("commit", "python", "host", "platform", "command"))


def test_a_worker_has_the_threads_of_its_cell():
    variables = under_test.worker_variables(cell({"threads": 3}))
    assert {variables[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")} == {"3"}
    assert all(isinstance(value, str) for value in variables.values())
