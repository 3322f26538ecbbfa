"""Cells that were computed with different code or data are told apart, and only those."""

import pytest
from making import cell, run_folder

from spine_tasks.environment import code_sha256
from spine_tasks.files import write_json
from spine_tasks.versions import codes, mixed, other_code, summary

CELLS = [cell(seed=seed) for seed in range(3)]
COMMIT = "0123456789abcdef"


def done(*versions):
    """A done.json for each of `CELLS`."""
    return {one.id: version for one, version in zip(CELLS, versions, strict=True)}


def by(code="a", data="d", commit=COMMIT, **more):
    return {"commit": commit, "code_sha256": code * 64, "data_sha256": data * 64} | more


def test_equal_versions_are_not_mixed():
    assert mixed(CELLS, done(by(), by(), by(commit="another commit, the same code"))) == []


def test_different_code_is_named_with_commit_digest_and_cells():
    (said,) = mixed(CELLS, done(by(), by("b", commit=f"{COMMIT}+changes"), by()))
    first, second, third = said.split("\n")
    assert first == "different code:"
    assert second == f"  aaaaaaaa (commit 0123456): 2 cells, {CELLS[0].id}, {CELLS[2].id}"
    assert third == f"  bbbbbbbb (commit 0123456+changes): 1 cell, {CELLS[1].id}"


def test_the_version_that_is_here_is_said():
    (said,) = mixed(CELLS, done(by(), by(), {"code_sha256": code_sha256()}))
    assert f"{code_sha256()[:8]}, the code here: 1 cell" in said


def test_a_cell_that_other_code_continued_is_mixed_in_itself():
    continued = by("b", code_sha256_of_attempts=["a" * 64, "b" * 64])
    (said,) = mixed(CELLS, done(continued, continued, continued))
    assert "aaaaaaaa then bbbbbbbb (commit 0123456): 3 cells" in said
    same = by(code_sha256_of_attempts=["a" * 64])
    assert mixed(CELLS, done(same, by(), same)) == []


def test_different_data_of_the_same_files_is_named():
    (said,) = mixed(CELLS, done(by(), by(data="e"), by()))
    assert said.startswith("different data of gm_phantom:\n")
    assert f"eeeeeeee: 1 cell, {CELLS[1].id}" in said


def test_cells_that_read_other_files_may_have_other_data():
    cells = [cell(), cell({"crop": "cord"}), cell(split="gm_phantom_adult")]
    read = {one.id: by(data=digest) for one, digest in zip(cells, "def", strict=True)}
    assert mixed(cells, read) == []


def test_code_and_data_are_both_named():
    said = mixed(CELLS, done(by(), by("b", "e"), by()))
    assert [paragraph.split(":")[0] for paragraph in said] == [
        "different code",
        "different data of gm_phantom",
    ]


@pytest.mark.parametrize("silent", [{}, {"commit": COMMIT}, {"code_sha256": "a" * 64}])
def test_what_an_older_version_did_not_record_is_said_and_not_refused(silent):
    versions = done(by(), silent, by())
    assert mixed(CELLS, versions) == []
    line, unknown = summary(CELLS, versions)
    assert line == "code aaaaaaaa (commit 0123456); data dddddddd (gm_phantom)"
    assert unknown.startswith("1 of 3 runs do not say")
    assert CELLS[1].id in unknown


def test_where_no_run_says_anything_only_that_is_said():
    (unknown,) = summary(CELLS, done({}, {}, {}))
    assert unknown.startswith("3 of 3 runs do not say")


def test_a_task_that_reads_no_data_is_not_silent():
    versions = done(*[by() | {"data_sha256": None}] * 3)
    assert list(summary(CELLS, versions)) == ["code aaaaaaaa (commit 0123456)"]
    assert mixed(CELLS, versions) == []


def test_the_codes_of_a_run_are_in_order_and_once():
    assert codes({"code_sha256": "b", "code_sha256_of_attempts": ["a", "b"]}) == ("a", "b")
    assert codes({"code_sha256": "b", "code_sha256_of_attempts": []}) == ("b",)


def test_a_launch_is_told_of_cells_that_other_code_computed_or_began(tmp_path):
    complete, begun, failed, new = (run_folder(tmp_path, cell(seed=seed)) for seed in range(4))
    write_json(complete.folder / "done.json", by("b"))
    for one in (begun, failed):
        one.record_attempt("started", code_sha256="b" * 64, saved_ns=None)
    write_json(begun.checkpoint / "last", 0)
    runs = [complete, begun, failed, new]
    assert other_code(runs, "b" * 64) is None
    said = other_code(runs, "a" * 64)
    assert said.startswith(f"2 cells, {complete.folder.name}, {begun.folder.name}: computed or")
    assert "this launch's aaaaaaaa" in said
