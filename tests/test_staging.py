"""Copies of data on the node's own disk: whole, current, and nothing in them that is no more."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from making import cell, environment, python, run_folder

from spine_tasks import staging
from spine_tasks.cell import Cell
from spine_tasks.configs import make_config
from spine_tasks.data.bids import find_cases
from spine_tasks.data.cases import cord_cases_of
from spine_tasks.data.phantom_cords import ensure
from spine_tasks.data.staged import STAGED, staged
from spine_tasks.errors import DataError, RunError, SiteError
from spine_tasks.nnunet.sources import SOURCES_FILE
from spine_tasks.splits import load_split
from spine_tasks.staging import node_folder, stage, staged_variables


@pytest.fixture
def root(tmp_path):
    """A data folder with three files, one of them behind a link as git-annex makes them."""
    folder = tmp_path / "shared" / "data"
    for name in ("sub-1/anat/a.nii", "sub-2/anat/b.nii", "participants.tsv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "key").write_text("content of an annex")
    (folder / "sub-2" / "anat" / "c.nii").symlink_to("../../../../objects/key")
    return folder


def all_of(root):
    return [file for file in root.rglob("*") if not file.is_dir()]


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in all_of(folder)}


def inodes(folder):
    return {file.name: file.stat().st_ino for file in all_of(folder)}


def test_the_copy_has_the_same_names_contents_and_times(root, tmp_path):
    copy = stage(all_of(root), root, tmp_path / "node")
    assert copy.parent == tmp_path / "node"
    assert contents(copy) == contents(root)
    assert not any(file.is_symlink() for file in copy.rglob("*"))
    for file in all_of(root):
        assert (copy / file.relative_to(root)).stat().st_mtime_ns == file.stat().st_mtime_ns
    assert list((tmp_path / "node").iterdir()) == [copy]


def test_only_what_is_asked_for_is_copied(root, tmp_path):
    copy = stage([root / "sub-1/anat/a.nii"], root, tmp_path / "node")
    assert list(contents(copy)) == ["sub-1/anat/a.nii"]


def test_what_is_there_is_not_copied_again_and_what_changed_is(root, tmp_path):
    copy = stage(all_of(root), root, tmp_path / "node")
    before = inodes(copy)
    changed = root / "sub-1/anat/a.nii"
    times = changed.stat()
    changed.write_text(changed.read_text().upper())  # of the same size
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    (root / "sub-2/anat/b.nii").write_text("longer than it was before, by far")
    assert stage(all_of(root), root, tmp_path / "node") == copy
    assert contents(copy) == contents(root)
    again = {name for name, inode in inodes(copy).items() if inode != before[name]}
    assert again == {"a.nii", "b.nii"}


def test_a_copy_cut_off_is_made_whole(root, tmp_path):
    copy = stage(all_of(root), root, tmp_path / "node")
    (copy / "sub-1/anat/a.nii").write_text("content")
    assert contents(stage(all_of(root), root, tmp_path / "node")) == contents(root)


def test_what_has_gone_from_the_data_goes_from_the_copy(root, tmp_path):
    copy = stage(all_of(root), root, tmp_path / "node")
    shutil.rmtree(root / "sub-1")
    stage(all_of(root), root, tmp_path / "node")
    assert contents(copy) == contents(root)


def test_what_another_cell_asked_for_stays(root, tmp_path):
    stage(all_of(root), root, tmp_path / "node")
    copy = stage([root / "sub-1/anat/a.nii"], root, tmp_path / "node")
    assert contents(copy) == contents(root)


def test_two_data_folders_have_two_copies_and_two_names_of_one_have_one(root, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(root, other)
    (tmp_path / "link").symlink_to(root)
    to = tmp_path / "node"
    link = tmp_path / "link"
    assert stage(all_of(other), other, to) != stage(all_of(root), root, to)
    assert stage([link / "participants.tsv"], link, to) == stage(all_of(root), root, to)


def test_a_killed_copier_leaves_nothing_that_looks_like_an_image(root, tmp_path):
    # As after SIGKILL in the middle of a file, on a disk that outlives the job.
    code = """
import os, shutil, signal, sys
from pathlib import Path
from spine_tasks.staging import stage
def half(source, stream, _length):
    stream.write(source.read(7)); stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
shutil.copyfileobj = half
root, to = map(Path, sys.argv[1:])
stage([root / "sub-1/anat/a.nii"], root, to)
"""
    assert python(code, root, tmp_path / "node").returncode == -9
    copies = [folder for folder in (tmp_path / "node").iterdir() if folder.is_dir()]
    assert [contents(copy) for copy in copies] == [{}]
    assert contents(stage(all_of(root), root, tmp_path / "node")) == contents(root)


def _stage_all(arguments):
    return stage(*arguments)


def test_several_processes_may_copy_at_once(root, tmp_path):
    for number in range(50):
        (root / f"{number}.nii").write_bytes(os.urandom(100_000))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        asked = [(all_of(root), root, tmp_path / "node")] * 8
        copies = pool.map(_stage_all, asked, chunksize=1)
    assert len(set(copies)) == 1
    assert contents(copies[0]) == contents(root)
    assert list((tmp_path / "node").iterdir()) == [copies[0]]


def test_a_broken_link_is_named_with_where_it_leads(root, tmp_path):
    (tmp_path / "objects" / "key").unlink()
    with pytest.raises(DataError, match=r"c\.nii cannot be copied: a broken link to .*objects/key"):
        stage(all_of(root), root, tmp_path / "node")


@pytest.mark.parametrize("made", [lambda file: None, lambda file: file.symlink_to(file)])
def test_a_missing_file_and_a_link_to_itself_are_named(root, tmp_path, made):
    made(root / "d.nii")
    with pytest.raises(DataError, match=r"d\.nii cannot be copied"):
        stage([root / "d.nii"], root, tmp_path / "node")


def test_a_folder_in_place_of_a_file_is_named(root, tmp_path):
    with pytest.raises(DataError, match=r"sub-1 cannot be read: Is a directory"):
        stage([root / "sub-1"], root, tmp_path / "node")


def test_a_disk_without_room_is_told_before_anything_is_copied(root, tmp_path):
    with (root / "huge.nii").open("wb") as stream:
        stream.truncate(1 << 43)  # 9 TB that take no room themselves
    with pytest.raises(RunError, match=r"node: 8\.8 TB needed for .*data, .* free; name another"):
        stage(all_of(root), root, tmp_path / "node")
    assert [all_of(copy) for copy in (tmp_path / "node").iterdir()] == [[]]


def test_a_place_that_cannot_be_written_to_is_told(root, tmp_path):
    (tmp_path / "node").write_text("a file")
    with pytest.raises(RunError, match=r"node: the data cannot be copied there: .*stage_to"):
        stage(all_of(root), root, tmp_path / "node")


def test_a_file_that_changes_while_it_is_copied_is_not_taken(root, tmp_path, monkeypatch):
    copied = shutil.copyfileobj

    def changing(source, stream, length):
        copied(source, stream, length)
        Path(source.name).write_text("a new version")

    monkeypatch.setattr(staging.shutil, "copyfileobj", changing)
    with pytest.raises(DataError, match=r"a\.nii changed while it was copied"):
        stage([root / "sub-1/anat/a.nii"], root, tmp_path / "node")
    assert [all_of(copy) for copy in (tmp_path / "node").iterdir()] == [[]]


def test_somebody_elses_copy_is_not_trusted(root, tmp_path, monkeypatch):
    stage(all_of(root), root, tmp_path / "node")
    monkeypatch.setattr(staging.os, "getuid", lambda: 12345)
    with pytest.raises(RunError, match="belongs to another user"):
        stage(all_of(root), root, tmp_path / "node")


# What the node's folder is


def test_variables_are_those_of_the_node(monkeypatch):
    monkeypatch.setenv("SLURM_TMPDIR", "/local/job-7")
    monkeypatch.setenv("ME", "x")
    assert node_folder("$SLURM_TMPDIR") == Path("/local/job-7")
    assert node_folder("/scratch/${ME}/data") == Path("/scratch/x/data")


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("text", ["$SLURM_TMPDIR", "/local/${SLURM_TMPDIR}/x"])
def test_a_variable_that_the_node_does_not_have_is_named(monkeypatch, text, value):
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    if value is not None:  # an empty one would mean the root of the file system
        monkeypatch.setenv("SLURM_TMPDIR", value)
    with pytest.raises(SiteError, match=r"\$SLURM_TMPDIR is not set on .*stage: false"):
        node_folder(text)


def test_a_relative_folder_is_refused(monkeypatch):
    monkeypatch.setenv("SLURM_TMPDIR", "here")
    with pytest.raises(SiteError, match=r"absolute path on the node, got \$SLURM_TMPDIR \(here\)"):
        node_folder("$SLURM_TMPDIR")


# What workers are told


def test_what_was_not_staged_is_read_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv(STAGED, raising=False)
    assert staged(tmp_path) == tmp_path
    monkeypatch.setenv(STAGED, json.dumps({str(tmp_path / "other"): "/copy"}))
    assert staged(tmp_path) == tmp_path


def test_a_staged_folder_is_found_under_each_way_to_write_it(monkeypatch, tmp_path):
    monkeypatch.setenv(STAGED, json.dumps({str(tmp_path / "data"): "/copy"}))
    monkeypatch.chdir(tmp_path)
    assert staged(Path("data")) == staged(tmp_path / "data") == Path("/copy")
    assert staged(Path(f"{tmp_path}/data/")) == Path("/copy")


@pytest.mark.parametrize("crop", ["centre", "cord"])
def test_a_cell_finds_the_same_cases_in_the_copy(data, tmp_path, crop):
    # With the cord's masks where the cell reads them.
    run = run_folder(tmp_path / "results", cell({"data": str(data), "crop": crop}))
    variables = staged_variables([run], str(tmp_path / "node"))
    copy = Path(json.loads(variables[STAGED])[str(data)])
    subjects = list(load_split("gm_phantom").person_of)
    suffix = "seg-manual" if crop == "cord" else None
    found, original = (find_cases(one, subjects, cord_suffix=suffix) for one in (copy, data))
    assert [case.id for case in found] == [case.id for case in original]
    assert len(all_of(copy)) == sum(1 + len(case.masks) for case in original)
    assert variables["APPTAINER_BIND"].split(",")[-1] == str(tmp_path / "node")


def test_packed_cells_share_one_copy_and_what_a_container_saw_it_still_sees(
    data, tmp_path, monkeypatch
):
    monkeypatch.setenv("APPTAINER_BIND", "/project")
    runs = [run_folder(tmp_path / "r", cell({"data": str(data)}, seed=seed)) for seed in (0, 1)]
    variables = staged_variables(runs, str(tmp_path / "node"))
    assert list(json.loads(variables[STAGED])) == [str(data)]
    assert variables["APPTAINER_BIND"] == f"/project,{tmp_path / 'node'}"


def test_nothing_is_staged_without_the_site_asking_for_it_nor_for_made_up_data(data, tmp_path):
    run = run_folder(tmp_path / "results", cell({"data": str(data)}))
    assert staged_variables([run], None) == {}
    phantom = run_folder(tmp_path / "results", cell())
    assert staged_variables([phantom], str(tmp_path / "node")) == {}
    assert not (tmp_path / "node").exists()


def test_data_that_is_not_there_is_told_as_without_staging(tmp_path):
    run = run_folder(tmp_path / "results", cell({"data": str(tmp_path / "gone")}))
    with pytest.raises(DataError, match="gone: no such folder"):
        staged_variables([run], str(tmp_path / "node"))


def test_no_framework_and_no_image_reader_is_needed_to_copy():
    code = "import sys, spine_tasks.staging; print(*sys.modules)"
    imported = {name.partition(".")[0] for name in python(code, env=environment()).stdout.split()}
    assert not imported & {"tensorflow", "torch", "nibabel", "scipy", "pandas", "submitit"}


def test_a_worker_reads_the_copy_alone(data, toy, tmp_path):
    original = tmp_path / "shared"
    shutil.copytree(data, original)
    run = run_folder(tmp_path / "results", cell({"data": str(original), "epochs": 1}))
    variables = staged_variables([run], str(tmp_path / "node"))
    shutil.rmtree(original)
    answer = subprocess.run(
        [sys.executable, "-m", "spine_tasks.worker", run.folder],
        capture_output=True,
        text=True,
        check=False,
        env=toy.env(**variables),
    )
    assert answer.returncode == 0, answer.stderr
    assert run.complete


def test_each_data_set_of_a_file_is_staged_and_read_from_its_copy(tmp_path, monkeypatch):
    split = load_split("cords_phantom")
    made = ensure(tmp_path / "shared", list(split.person_of))
    of = Cell(
        job="cord_unet",
        config=make_config("cord_unet", {"data": str(made / SOURCES_FILE)}),
        split="cords_phantom",
        split_sha256=split.digest,
        fold=0,
        seed=0,
    )
    before = cord_cases_of(of, "test", tmp_path)
    variables = staged_variables([run_folder(tmp_path, of)], str(tmp_path / "node"))
    copies = json.loads(variables[STAGED])
    assert set(copies) == {str(made / name) for name in ("siteA", "siteB", "unseen")}
    monkeypatch.setenv(STAGED, variables[STAGED])
    after = cord_cases_of(of, "test", tmp_path)
    assert [pair.id for pair in after] == [pair.id for pair in before]
    for pair in after:
        assert pair.image.is_relative_to(tmp_path / "node")
        assert pair.label.is_relative_to(tmp_path / "node")
        assert pair.image.exists()
        assert pair.label.exists()
