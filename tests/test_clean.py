"""Clean: checkpoints of complete cells go, and nothing else ever does."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
from making import ROOT, cell, command, environment, run_folder

from spine_tasks.clean import freeable
from spine_tasks.files import append_line, write_json
from spine_tasks.submissions import Tasks, begin, note


def clean(results, *flags, **variables):
    return command("clean", "--results", results, *flags, env=environment(**variables))


def made_run(results, seed=0, complete=True, name="grid"):
    """A run with a checkpoint of 3 kB and one of everything else that a run has."""
    run = run_folder(results / name, cell(seed=seed))
    for file in ("checkpoint/last.npz", "checkpoint/deep/er.npz", "predictions/a.nii.gz"):
        (run.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / file).write_bytes(bytes(1500))
    for file in ("model.weights.h5", "history.jsonl", "scores.csv", "log.txt"):
        (run.folder / file).write_text(file)
    if complete:
        write_json(run.folder / "done.json", {})
    return run


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_launched_grid_loses_its_checkpoints_alone_and_stays_complete(complete, toy):
    before = contents(complete)
    went = {file for file in before if file.parent.name == "checkpoint"}
    assert went
    answer = clean(complete, "--grid", "gm_transfer")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "gm_transfer: checkpoints freed: 5, " in answer.stdout
    assert contents(complete) == {file: before[file] for file in before.keys() - went}
    again = toy.launch(complete)
    assert "nothing to start" in again.stdout, again.stderr
    assert "checkpoints freed: 0, 0 bytes" in clean(complete, "--all").stdout


def test_what_is_not_complete_is_kept_and_named(tmp_path):
    done, half = made_run(tmp_path, 0), made_run(tmp_path, 1, complete=False)
    answer = clean(tmp_path, "--grid", "grid")
    assert answer.stdout.splitlines() == [
        "grid: checkpoints freed: 1, 3.0 kB",
        f"  kept 1, not complete: {half.folder.name}",
    ]
    assert not done.checkpoint.exists()
    assert len(contents(half.checkpoint)) == 2


def test_maps_and_preprocessed_data_go_when_no_cell_is_left_that_reads_them(tmp_path):
    half = made_run(tmp_path, 1, complete=False)
    maps = tmp_path / "grid" / "maps"
    maps.mkdir()
    (maps / "a.npy").write_bytes(bytes(2000))
    preprocessed = made_run(tmp_path, 0).folder / "nnunet" / "preprocessed"
    preprocessed.mkdir(parents=True)
    (preprocessed / "b.b2nd").write_bytes(bytes(500))
    results = preprocessed.with_name("Dataset001_cord")
    results.mkdir()
    assert "maps" not in clean(tmp_path, "--grid", "grid").stdout
    assert maps.exists()
    write_json(half.folder / "done.json", {})
    said = clean(tmp_path, "--grid", "grid").stdout
    assert "maps of frozen layers and preprocessed data freed: 2.5 kB" in said
    assert not maps.exists()
    assert not preprocessed.exists()
    assert results.exists()  # the trained model, as nnU-Net knows it


def test_a_dry_run_says_the_same_and_frees_nothing(tmp_path):
    made_run(tmp_path, 0)
    made_run(tmp_path, 1, complete=False)
    before = contents(tmp_path)
    would = clean(tmp_path, "--grid", "grid", "--dry-run").stdout
    assert contents(tmp_path) == before
    assert would.replace("that would be freed", "freed") == clean(tmp_path, "--grid", "grid").stdout


def test_one_grid_or_all_of_them(tmp_path):
    runs = {name: made_run(tmp_path, name=name) for name in ("a", "b", "c")}
    assert clean(tmp_path, "--grid", "b").stdout.startswith("b: checkpoints freed: 1, 3.0 kB")
    assert [name for name, run in runs.items() if run.checkpoint.exists()] == ["a", "c"]
    lines = clean(tmp_path, "--all").stdout.splitlines()
    assert [line.split(", ")[0] for line in lines] == [
        f"{name}: checkpoints freed: {count}" for name, count in (("a", 1), ("b", 0), ("c", 1))
    ]


def test_the_code_of_a_launch_is_kept_and_its_size_said(tmp_path):
    made_run(tmp_path)
    (tmp_path / "grid" / "code" / "abc").mkdir(parents=True)
    (tmp_path / "grid" / "code" / "abc" / "x.py").write_bytes(bytes(2000))
    assert "kept 2.0 kB of code" in clean(tmp_path, "--all").stdout
    assert (tmp_path / "grid" / "code" / "abc" / "x.py").exists()


@pytest.mark.parametrize("linked", ["results/grid", "run", "checkpoint"])
def test_nothing_is_deleted_through_a_link(tmp_path, linked):
    run = made_run(tmp_path / "results")
    link = {"results/grid": run.folder.parent, "run": run.folder}.get(linked, run.checkpoint)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(link, elsewhere)
    link.symlink_to(elsewhere)
    before = contents(elsewhere)
    answer = clean(tmp_path / "results", "--all")
    assert "kept 1, behind a link, which is not followed" in answer.stdout, answer.stderr
    assert contents(elsewhere) == before
    assert link.is_symlink()


def test_a_link_in_a_checkpoint_goes_without_what_it_leads_to(tmp_path):
    run = made_run(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("mine")
    (run.checkpoint / "link").symlink_to(outside)
    clean(tmp_path, "--all")
    assert not run.checkpoint.exists()
    assert (outside / "a").read_text() == "mine"


def test_a_results_folder_may_itself_be_a_link(tmp_path):
    run = made_run(tmp_path / "scratch")
    (tmp_path / "results").symlink_to(tmp_path / "scratch")
    clean(tmp_path / "results", "--all")
    assert not run.checkpoint.exists()


def fake_squeue(folder, text):
    """A Slurm that answers one thing."""
    for name in ("squeue", "sbatch"):
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def handed_over(run, name="grid-12345678"):
    tasks = Tasks(cells=[[run.folder.name]], worker=[sys.executable], mem_gb=1)
    begin(run.folder.parent, name, tasks)
    note(run.folder.parent, name, job="12", released=True)


def test_a_cell_in_slurms_queue_is_kept(tmp_path):
    run, other = made_run(tmp_path / "r", 0), made_run(tmp_path / "r", 1)
    handed_over(run)
    path = fake_squeue(tmp_path, "echo '12_0|RUNNING|None|grid-12345678'")
    answer = clean(tmp_path / "r", "--all", PATH=path)
    assert f"kept 1, in Slurm's queue: {run.folder.name}" in answer.stdout, answer.stderr
    assert run.checkpoint.exists()
    assert not other.checkpoint.exists()


def test_without_an_answer_of_slurm_nothing_is_freed(tmp_path):
    run = made_run(tmp_path / "r")
    handed_over(run)
    path = fake_squeue(tmp_path, "echo 'Unable to contact slurm controller' >&2; exit 1")
    answer = clean(tmp_path / "r", "--all", PATH=path, SPINE_SLURM_PATIENCE_S="0")
    assert answer.returncode == 2
    assert "Unable to contact slurm controller" in answer.stderr
    assert run.checkpoint.exists()


@pytest.mark.parametrize("event", ["started", "complete"])
def test_a_cell_whose_process_still_scores_is_kept(tmp_path, event):
    run = made_run(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", run.folder.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        process.stdout.readline()  # it has begun
        append_line(
            run.folder / "attempts.jsonl",
            {"event": event, "host": socket.gethostname(), "pid": process.pid},
        )
        found = freeable(run.folder.parent)
        assert (found.free == []) == (event == "started")
    finally:
        process.communicate(b"\n")
    assert freeable(run.folder.parent).free == [run.checkpoint]


def test_what_cannot_be_removed_is_told_and_the_rest_goes(tmp_path):
    # A file in place of the folder: permissions do not stop the root user of a test machine.
    first, second = sorted([made_run(tmp_path, 0), made_run(tmp_path, 1)], key=lambda r: r.folder)
    shutil.rmtree(first.checkpoint)
    first.checkpoint.write_text("")
    answer = clean(tmp_path, "--all")
    assert answer.returncode == 1
    assert f"error: {first.checkpoint} cannot be removed: Not a directory" in answer.stderr
    assert "grid: checkpoints freed: 1, 3.0 kB" in answer.stdout
    assert not second.checkpoint.exists()


def test_a_checkpoint_that_another_owns_is_told(tmp_path):
    run = made_run(tmp_path)
    run.checkpoint.chmod(0o555)
    # Root may remove everything, but for a root without its powers.
    powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]
    asked = [sys.executable, ROOT / "jobs" / "clean.py", "--all", "--results", tmp_path]
    answer = subprocess.run(
        [*powerless, *asked] if os.getuid() == 0 else asked,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    run.checkpoint.chmod(0o755)
    assert answer.returncode == 1
    assert f"error: {run.checkpoint} cannot be removed: Permission denied" in answer.stderr


def test_what_was_never_launched_is_answered_with_what_was(tmp_path):
    made_run(tmp_path)
    answer = clean(tmp_path, "--grid", "other")
    assert answer.returncode == 2
    assert "nothing was launched as 'other' in " in answer.stderr
    assert "launched there: grid" in answer.stderr


@pytest.mark.parametrize("name", ["..", "../elsewhere", "", "."])
def test_a_name_cannot_lead_out_of_the_results_folder(tmp_path, name):
    made_run(tmp_path / "results")
    run = made_run(tmp_path, name="elsewhere")
    assert clean(tmp_path / "results", "--grid", name).returncode == 2
    assert run.checkpoint.exists()


def test_a_missing_results_folder_and_an_empty_one(tmp_path):
    answer = clean(tmp_path / "gone", "--all")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "gone: no such folder; give the one of the launches by --results" in answer.stderr
    assert clean(tmp_path, "--all").returncode == 0


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    run = made_run(tmp_path)
    (run.folder / "cell.json").unlink()
    assert clean(tmp_path, "--all").returncode == 0
    assert run.checkpoint.exists()


def test_a_run_by_hand_is_cleaned_too(tmp_path):
    run = made_run(tmp_path, name="by_hand")
    assert clean(tmp_path, "--grid", "by_hand").returncode == 0
    assert not run.checkpoint.exists()
