"""The folder of a run, and one attempt at it with a task that learns nothing."""

import gc
import json
import logging
import os
import re
import signal

import pytest
from making import cell, run_folder

from spine_tasks import owner, worker
from spine_tasks.cell import Resources
from spine_tasks.configs import GmSegmentation
from spine_tasks.errors import DataError, Interrupted, RunError
from spine_tasks.files import sha256
from spine_tasks.run import Run
from spine_tasks.slurm import this_job
from spine_tasks.worker import attempt


@pytest.fixture
def toy_run(tmp_path, monkeypatch, data):
    """A run whose task is the toy."""
    monkeypatch.setattr(GmSegmentation, "entry", "toy_task:train")
    return run_folder(tmp_path, cell({"data": str(data), "epochs": 4}))


@pytest.fixture
def task(monkeypatch, toy_run):
    """Choose the toy run's task; returns the run."""

    def choose(train):
        monkeypatch.setattr("toy_task.train", train)
        return toy_run

    return choose


def events(run):
    return [record["event"] for record in run.attempts()]


def test_a_run_gives_back_the_cell_it_was_created_for(tmp_path):
    one = cell({"epochs": 5}, seed=3, arm={"epochs": 5}, needs=("first",))
    assert run_folder(tmp_path, one).cell() == one


def test_creating_a_run_again_takes_over_only_what_is_asked_for(tmp_path):
    one = cell(resources=Resources(checkpoint_s=5))
    run = run_folder(tmp_path, one)
    before = (run.folder / "cell.json").stat().st_mtime_ns
    run.create(one)
    assert (run.folder / "cell.json").stat().st_mtime_ns == before
    run.create(cell(resources=Resources(checkpoint_s=7)))
    assert run.cell().resources.checkpoint_s == 7
    assert run.cell().id == one.id


def test_a_folder_without_cell_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"is not a run's folder: it has no cell\.json"):
        Run(tmp_path).cell()


@pytest.mark.parametrize(
    "edit", [lambda saved: saved["knobs"].update(epochs=1), lambda saved: saved.update(seed=9)]
)
def test_a_cell_edited_by_hand_is_refused(tmp_path, edit):
    run = run_folder(tmp_path)
    saved = json.loads((run.folder / "cell.json").read_text())
    edit(saved)
    (run.folder / "cell.json").write_text(json.dumps(saved))
    with pytest.raises(RunError, match=f"not {run.folder.name}: it was edited"):
        run.cell()


def test_the_needed_run_must_be_complete(tmp_path):
    first = run_folder(tmp_path, cell(seed=1))
    run = run_folder(tmp_path, cell(needs=(first.folder.name,)))
    with pytest.raises(RunError, match=f"starts from {first.folder.name}, which is not complete"):
        run.needed()
    (first.folder / "done.json").write_text("{}")
    assert run.needed().folder == first.folder


def test_history_is_cut_back_to_the_epoch_of_the_checkpoint(tmp_path):
    run = run_folder(tmp_path)
    for epoch in range(5):
        run.add_history(epoch=epoch, loss=0.5)
    run.forget_history_from(3)
    run.add_history(epoch=3, loss=0.25)
    assert [(one["epoch"], one["loss"]) for one in run.history()] == [
        (0, 0.5),
        (1, 0.5),
        (2, 0.5),
        (3, 0.25),
    ]


def test_a_run_without_predictions_is_never_complete(tmp_path):
    run = run_folder(tmp_path)
    with pytest.raises(RunError, match="predictions: the task wrote no prediction"):
        run.finish()
    run.predictions.mkdir()
    (run.predictions / ".partial-1-a.nii.gz").write_text("half")
    with pytest.raises(RunError, match="the task wrote no prediction"):
        run.finish()
    assert not run.complete


def test_done_has_the_digest_of_every_prediction(tmp_path):
    run = run_folder(tmp_path)
    run.predictions.mkdir()
    for name in ("b.nii.gz", "a.nii.gz"):
        (run.predictions / name).write_text(name)
    run.finish(commit="c")
    done = json.loads((run.folder / "done.json").read_text())
    assert done["predictions_sha256"] == {
        name: sha256(run.predictions / name) for name in ("a.nii.gz", "b.nii.gz")
    }
    assert done["commit"] == "c"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", done["time"])
    assert run.complete


def test_a_signal_asks_to_stop_but_not_in_a_forked_child(tmp_path):
    run = Run(tmp_path)
    before = signal.getsignal(signal.SIGUSR2)
    try:
        run.stop_on(signal.SIGUSR2)
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR2)
            os._exit(int(run.stop_requested))
        assert os.waitpid(child, 0)[1] == 0
        assert not run.stop_requested
        os.kill(os.getpid(), signal.SIGUSR2)
        assert run.stop_requested
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_the_slurm_job_is_named_as_squeue_names_it(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert this_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "125")
    assert this_job() == "125"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "123")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert this_job() == "123_4"


def test_an_attempt_that_succeeds_leaves_every_file_of_a_run(toy_run):
    assert attempt(toy_run) == 0
    assert events(toy_run) == ["started", "complete"]
    assert toy_run.complete
    assert {file.name for file in toy_run.folder.iterdir()} == {
        "attempts.jsonl",
        "cell.json",
        "checkpoint",
        "done.json",
        "environment.json",
        "history.jsonl",
        "predictions",
        "scores.csv",
        "scores.json",
    }
    started, ended = toy_run.attempts()
    assert started["pid"] == os.getpid()
    assert started["commit"] == json.loads((toy_run.folder / "done.json").read_text())["commit"]
    assert ended["seconds"] > 0


def test_an_attempt_at_a_complete_run_scores_and_does_not_train(task):
    def never(_cell, _run):
        raise AssertionError("trained again")

    run = task(never)
    assert attempt(run) == 1  # so it would be seen
    run.predictions.mkdir()
    (run.folder / "done.json").write_text("{}")
    assert attempt(run) == 2
    assert "is missing although the run is complete" in run.attempts()[-1]["error"]


def test_an_attempt_stopped_on_request_ends_with_75_and_the_next_one_completes(toy_run):
    toy_run.stop_requested = True
    assert attempt(toy_run) == os.EX_TEMPFAIL == 75
    assert not toy_run.complete
    again = Run(toy_run.folder)
    assert attempt(again) == 0
    assert events(again) == ["started", "interrupted", "started", "complete"]
    assert [record["epoch"] for record in again.history()] == [0, 1, 2, 3]


def test_a_problem_a_person_can_mend_ends_with_2_and_its_message(task):
    def fail(_cell, _run):
        raise DataError("image.nii.gz: is spoilt; fetch it again")

    run = task(fail)
    assert attempt(run) == 2
    assert run.attempts()[-1]["event"] == "failed"
    assert run.attempts()[-1]["error"] == "image.nii.gz: is spoilt; fetch it again"


def test_any_other_error_ends_with_1_and_says_where(task, caplog):
    def fail(_cell, _run):
        raise ZeroDivisionError("of the task")

    run = task(fail)
    with caplog.at_level(logging.ERROR):
        assert attempt(run) == 1
    last = run.attempts()[-1]
    assert re.fullmatch(r"ZeroDivisionError: of the task at test_run\.py:\d+", last["error"])
    assert last["cause"] == "code"
    assert "Traceback" in caplog.text


def test_garbage_is_looked_for_again_once_a_framework_is_imported_or_is_not(task, monkeypatch):
    found = []

    def look(_cell, _run):
        found.append(gc.isenabled())

    run = task(look)
    attempt(run)
    monkeypatch.setattr(type(run.cell().config), "entry", "no_such_package.task:train")
    assert attempt(run) != 0
    assert [*found, gc.isenabled()] == [True, True]


def test_a_task_that_predicts_nothing_is_not_complete(task):
    run = task(lambda _cell, _run: None)
    assert attempt(run) == 2
    assert not run.complete


def test_a_task_that_misses_a_case_is_never_scored_as_if_it_had_not(task):
    from toy_task import train

    def forgetful(cell, run):
        train(cell, run)
        sorted(run.predictions.iterdir())[0].unlink()

    run = task(forgetful)
    assert attempt(run) == 2
    assert not run.scores.exists()


def test_a_stop_within_the_task_is_no_failure(task):
    def stop(_cell, _run):
        raise Interrupted("stopped while predicting")

    assert attempt(task(stop)) == 75


def test_a_worker_stops_on_the_signals_of_slurm_and_of_people(toy_run, monkeypatch):
    monkeypatch.setattr(owner, "watch", lambda *_: None)  # it would end the tests with it
    heard = {}
    monkeypatch.setattr(worker, "attempt", lambda run: heard.update(run=run) or 0)
    wanted = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    before = {one: signal.getsignal(one) for one in wanted}
    try:
        assert worker.start(toy_run.folder) == 0
        for one in wanted:
            heard["run"].stop_requested = False
            os.kill(os.getpid(), one)
            assert heard["run"].stop_requested
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
