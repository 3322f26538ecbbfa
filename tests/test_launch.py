"""The launch command in processes of its own: what it says, refuses, and leaves alone."""

import json
import signal
import subprocess
import sys
import time

import pytest
from making import ROOT, SMALL, command, environment, small_data

from spine_tasks import checkpoints
from spine_tasks.experiment import opened

HERE = ("--grid", "gm_transfer", "--site", "local")


def launch(results, *flags):
    return command("launch", "--results", results, *flags)


def refused(answer):
    """The message of a command that was refused: one line, no traceback, exit code 2."""
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
    return answer.stderr


def tree(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def test_an_unknown_grid_is_answered_with_those_there_are(tmp_path):
    assert "no grid 'gm'; grids in" in (message := refused(launch(tmp_path, "--grid", "gm")))
    assert "gm_transfer" in message


def test_a_dry_run_shows_every_cell_and_writes_nothing(tmp_path):
    results = tmp_path / "results"
    answer = launch(results, *HERE, "--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert "15 of 15 cells would be started on this machine; nothing was." in answer.stdout
    assert answer.stdout.count("new") >= 15
    assert not results.exists()


def test_a_dry_run_for_programs_is_json_and_json_alone(tmp_path):
    answer = launch(tmp_path, *HERE, "--dry-run", "--json", "--only", "init=pretrained")
    plan = json.loads(answer.stdout)
    assert (plan["site"], plan["to_start"], plan["scripts"]) == ("local", 9, [])
    assert [cell["state"] for cell in plan["cells"]] == ["new"] * 9
    assert plan["cells"][0]["arm"] == {}
    assert plan["cells"][3]["arm"] == {"init": "pretrained", "augment": False}
    assert tree(tmp_path) == []


def test_a_part_of_the_grid_takes_only_the_needed_cells_that_it_needs(tmp_path):
    answer = launch(tmp_path, *HERE, "--dry-run", "--json", "--only", "seed=1")
    cells = json.loads(answer.stdout)["cells"]
    assert {cell["seed"] for cell in cells} == {1}
    assert len(cells) == 5
    answer = launch(tmp_path, *HERE, "--dry-run", "--json", "--only", "init=scratch")
    assert len(json.loads(answer.stdout)["cells"]) == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--set", "epoch=5"), "no 'epoch', did you mean 'epochs'?"),
        (("--set", "epochs=0"), "epochs must be at least 1, got 0"),
        (("--set", "epochs=five"), "epochs must be int, got 'five'"),
        (("--set", "init=scratch"), "init is an axis of this grid"),
        (("--set", "epochs=5", "--set", "epochs=6"), "--set epochs is given twice"),
        (("--set", "seeds=none"), "seeds must be"),
        (("--set", "resources.time=2"), "resources.time must be text such as '02:00:00'"),
        (("--only", "init=random"), "no cell has ['random']"),
        (("--preset", "huge"), "no preset 'huge'"),
        (("--site", "nowhere"), "no site 'nowhere'"),
        (("--set", "split=nowhere"), "no such split"),
        (("--set", "epochs"), "expected name=value, got 'epochs'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(tmp_path, flags, message):
    assert message in refused(launch(tmp_path, *HERE, *flags))  # the last --site is taken
    assert tree(tmp_path) == []


def test_missing_data_is_told_before_anything_is_created(tmp_path, data):
    nowhere = tmp_path / "nowhere"
    message = refused(launch(tmp_path / "results", *HERE, "--set", f"data={nowhere}"))
    assert f"{nowhere}: no such folder" in message
    adults_only = small_data(tmp_path / "adults", "gm_phantom_adult")
    message = refused(launch(tmp_path / "results", *HERE, "--set", f"data={adults_only}"))
    assert "subjects are not there" in message
    assert not (tmp_path / "results").exists()


def test_missing_weights_are_told_before_anything_is_created(tmp_path, data):
    flags = ("--set", f"data={data}", "--set", "weights=nowhere.h5")
    message = refused(launch(tmp_path / "results", *HERE, *flags))
    assert "nowhere.h5: neither a file nor the name of known weights" in message
    assert not (tmp_path / "results").exists()


def test_a_second_launch_with_other_settings_is_refused_and_names_them(toy, complete):
    before = tree(complete)
    message = refused(toy.launch(complete, "--set", "patience=9"))
    assert "gm_transfer was launched with other settings (knobs:" in message
    assert "'patience': 9" in message
    assert tree(complete) == before


def test_a_complete_grid_is_not_started_again(toy, complete):
    attempts = {file: file.read_text() for file in complete.rglob("attempts.jsonl")}
    answer = toy.launch(complete, "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["started"] == 0
    assert {file: file.read_text() for file in complete.rglob("attempts.jsonl")} == attempts
    assert "nothing to start" in toy.launch(complete).stdout


def test_only_what_is_not_complete_is_started(toy, complete):
    experiment = opened("gm_transfer", complete)
    lost = experiment.run(experiment.cells[1])
    (lost.folder / "done.json").unlink()
    answer = toy.launch(complete, "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["started"] == 1
    assert sum(record["event"] == "started" for record in lost.attempts()) == 2
    assert {cell["state"] for cell in json.loads(answer.stdout)["cells"]} == {"complete"}


def test_a_cell_edited_by_hand_is_refused_before_any_cell_is_started(toy, complete):
    experiment = opened("gm_transfer", complete)
    other, edited = (experiment.run(cell) for cell in experiment.cells[:2])
    for run in (other, edited):
        (run.folder / "done.json").unlink()
    file = edited.folder / "cell.json"
    file.write_text(file.read_text().replace('"epochs": 3', '"epochs": 2'))
    assert "cell.json describes the cell" in refused(toy.launch(complete))
    assert [record["event"] for record in other.attempts()] == ["started", "complete"]


def test_status_shows_where_each_cell_stands(complete):
    experiment = opened("gm_transfer", complete)
    run = experiment.run(experiment.cells[0])
    (run.folder / "done.json").unlink()
    run.record_attempt("failed", error="DataError: [of] the test")
    answer = command("status", "--grid", "gm_transfer", "--results", complete)
    assert answer.returncode == 0, answer.stderr
    assert "4 complete, 1 failed" in answer.stdout
    assert "DataError: [of] the test" in answer.stdout
    assert "3/3" in answer.stdout  # epochs
    as_json = command("status", "--grid", "gm_transfer", "--results", complete, "--json")
    states = [cell["state"] for cell in json.loads(as_json.stdout)["cells"]]
    assert states == ["complete", "failed", "complete", "complete", "complete"]


def test_status_of_what_was_never_launched_is_refused(tmp_path):
    answer = command("status", "--grid", "gm_transfer", "--results", tmp_path)
    assert "nothing was launched as 'gm_transfer'" in refused(answer)


def test_training_interrupted_by_ctrl_c_continues_and_is_scored(tmp_path, data):
    # The real network: one cell, stopped in the middle, continued to its scores.
    pytest.importorskip("tensorflow", reason="the grey-matter task needs TensorFlow")
    settings = (f"data={data}", "epochs=10", "patience=10", "resources.checkpoint_s=0.001")
    flags = [*HERE, *SMALL, "--only", "init=scratch", "--only", "augment=false"]
    flags += [word for one in settings for word in ("--set", one)]
    first = subprocess.Popen(
        [sys.executable, ROOT / "jobs" / "launch.py", "--results", tmp_path, *flags],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not list(tmp_path.glob("*/*/checkpoint/previous.npz")):
        assert time.monotonic() < end
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    (folder,) = (file.parent for file in tmp_path.glob("*/*/cell.json"))
    assert checkpoints.load(folder / "checkpoint") is not None
    assert not (folder / "done.json").exists()
    before = (folder / "history.jsonl").read_text() if "history.jsonl" in tree(folder) else ""
    assert before.count("val_dice") < 10

    second = launch(tmp_path, *flags)
    assert second.returncode == 0, second.stdout + second.stderr
    history = [json.loads(line) for line in (folder / "history.jsonl").open()]
    assert [record["epoch"] for record in history] == list(range(10))
    assert history[-1]["loss"] < history[0]["loss"]
    assert len((folder / "scores.csv").read_text().splitlines()) > 10
