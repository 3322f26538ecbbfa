"""What runs on the node for an array task: requeues, cancels, packing, and what is not due."""

import os
import signal

import pytest
from array_task import Task, end_all, wait_for
from fake_slurm import FakeSlurm
from making import attempt_on_node as record
from making import cell

from spine_tasks.files import write_json


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm on the PATH, which say that the job runs."""
    fake = FakeSlurm.on_path(tmp_path, monkeypatch)
    fake.show()
    yield fake
    end_all()


@pytest.fixture
def task(tmp_path, slurm):
    return Task(tmp_path, slurm, [cell()])


@pytest.fixture
def pair(tmp_path, slurm):
    return Task(tmp_path, slurm, [cell(), cell(seed=1)])


def test_a_worker_that_ends_well_is_neither_failed_nor_started_again(task):
    task.tell(0)
    task.run()
    assert len(task.begun()) == 1
    assert task.slurm.calls() == []
    assert "the worker of" in task.runs[0].log.read_text()


@pytest.mark.parametrize("code", [1, 2, 5])
def test_a_failed_cell_makes_the_job_fail_and_is_not_started_again(task, code):
    task.tell(code)
    assert f"failed: {task.runs[0].folder.name}; see log.txt" in task.run(1)
    assert task.requeues() == []


@pytest.mark.parametrize("code", [3, 4])
def test_an_attempt_that_another_one_took_the_place_of_is_no_failure(task, code):
    task.tell(code)
    task.run()
    assert task.slurm.calls() == []


@pytest.mark.parametrize("code", [126, 127, 255])
def test_a_worker_that_could_not_even_be_started_is_a_failure(task, code):
    # So end a shell and a container that do not find what they are to run; it would happen again.
    task.tell(code)
    assert "failed: " in task.run(1)
    assert task.requeues() == []


def test_a_task_that_was_warned_of_its_time_limit_is_requeued_once(task):
    task.tell("stop")
    process = task.start()
    wait_for(task.begun)
    process.send_signal(signal.SIGUSR2)
    task.end(process)
    assert task.requeues() == [["scontrol", "requeue", "7_0"]]


def test_a_preempted_task_is_requeued_once(task):
    task.tell("stop")
    task.slurm.show(PreemptTime="2026-11-22T13:56:10")
    process = task.start()
    wait_for(task.begun)
    process.send_signal(signal.SIGTERM)
    task.end(process)
    assert len(task.requeues()) == 1


def test_a_task_that_is_about_to_be_killed_is_requeued_before_its_worker_has_saved(task):
    task.tell("slow")
    process = task.start()
    wait_for(task.begun)
    task.slurm.show(PreemptTime="2026-11-22T13:56:10", JobState="COMPLETING")
    process.send_signal(signal.SIGTERM)
    wait_for(task.requeues)
    assert process.poll() is None
    task.slurm.show(Restarts=1, JobState="PENDING")
    (task.here / "saved").write_text("")
    task.end(process)
    assert task.requeues() == [["scontrol", "requeue", "7_0"]]
    assert task.events() == []


def test_a_cancelled_task_is_never_requeued(task):
    task.tell("stop")
    process = task.start()
    wait_for(task.begun)
    task.slurm.show(JobState="COMPLETING")
    process.send_signal(signal.SIGTERM)
    task.end(process)
    assert task.requeues() == []
    assert task.events() == ["cancelled"]


def test_a_cancel_after_a_warning_is_a_cancel(task):
    task.tell("deaf")
    process = task.start()
    wait_for(task.begun)
    process.send_signal(signal.SIGUSR2)
    task.slurm.show(JobState="COMPLETING")
    process.send_signal(signal.SIGTERM)
    task.end(process)
    assert task.requeues() == []


def test_a_worker_that_does_not_end_after_a_cancel_is_killed(task):
    task.tell("deaf")
    process = task.start()
    wait_for(task.begun)
    task.slurm.show(JobState="COMPLETING")
    process.send_signal(signal.SIGTERM)
    task.end(process)
    assert task.events() == ["cancelled"]
    with pytest.raises(ProcessLookupError):
        os.kill(task.begun()[0], 0)


def test_workers_killed_again_and_again_before_their_first_word_are_a_failure(task):
    task.tell(-9)
    task.run()
    task.run()
    assert len(task.requeues()) == 2
    assert "failed: " in task.run(1)
    assert len(task.requeues()) == 2
    assert task.events() == [*["killed"] * 3, "failed"]


def test_a_task_that_slurm_has_started_again_elsewhere_is_not_touched(task):
    task.tell("stop")
    process = task.start()
    wait_for(task.begun)
    task.slurm.show(Restarts=1, JobState="PENDING")
    process.send_signal(signal.SIGTERM)
    said = task.end(process)
    assert task.requeues() == []
    assert "Slurm runs it again" in said


def test_without_an_answer_of_slurm_the_work_is_kept_and_the_way_on_said(task):
    task.tell("stop")
    process = task.start()
    wait_for(task.begun)
    task.slurm.fail("scontrol", "Unable to contact slurm controller (connect failure)", times=99)
    process.send_signal(signal.SIGTERM)
    assert "launch the grid again to continue" in task.end(process)


@pytest.mark.parametrize("code", [-int(signal.SIGKILL), 128 + int(signal.SIGKILL)])
def test_a_task_whose_worker_was_killed_is_requeued(task, code):
    task.tell(code)  # the second: as a container says it
    task.run()
    assert len(task.requeues()) == 1


def test_packed_cells_run_at_once_each_with_a_log_of_its_own(pair):
    pair.tell("together", "together")
    pair.run()
    for number, run in enumerate(pair.runs):
        assert len(pair.begun(number)) == 1
        assert run.log.read_text() == f"the worker of {run.folder.name}\n"


def test_one_of_two_packed_cells_fails_and_the_other_is_requeued(pair):
    pair.tell(1, "stop")
    process = pair.start()
    wait_for(lambda: pair.begun(0) and pair.begun(1))
    process.send_signal(signal.SIGUSR2)
    assert f"failed: {pair.runs[0].folder.name};" in pair.end(process, 1)
    assert len(pair.requeues()) == 1


def test_a_packed_cell_that_had_too_little_memory_is_run_again_alone(pair):
    pair.tell([5, "alone"], "later")
    pair.run()
    assert len(pair.begun(0)) == 2
    assert len(pair.begun(1)) == 1
    assert pair.requeues() == []


def test_a_packed_cell_that_has_too_little_memory_alone_too_has_failed(pair):
    pair.tell(5, 0)
    assert f"failed: {pair.runs[0].folder.name};" in pair.run(1)
    assert len(pair.begun(0)) == 2


def test_a_task_that_is_to_stop_begins_nothing_anew(pair):
    pair.tell(5, "stop")
    process = pair.start()
    wait_for(lambda: pair.begun(0) and pair.begun(1))
    process.send_signal(signal.SIGUSR2)
    pair.end(process, 1)
    assert len(pair.begun(0)) == 1


def test_a_task_that_runs_again_leaves_complete_and_failed_cells_alone(pair):
    complete, failed = pair.runs
    write_json(complete.folder / "done.json", {})
    complete.scores.write_text("")
    record(failed, "failed", error="bad", cause="code", job="7_0")
    pair.tell(0, 0)
    pair.run(restart=1)
    assert (pair.begun(0), pair.begun(1)) == ([], [])


@pytest.mark.parametrize(
    "last",
    [
        {"event": "failed", "error": "bad", "cause": "code", "job": "6_0"},  # in another job
        {"event": "failed", "error": "bad", "cause": "GPU memory", "job": "7_0"},
        {"event": "interrupted", "job": "7_0"},
        {"event": "killed", "signal": 9, "job": "7_0"},
        {"event": "started", "job": "7_0"},
    ],
)
def test_a_task_that_runs_again_goes_on_with_the_others(task, last):
    record(task.runs[0], **last)
    task.tell(0)
    task.run(restart=1)
    assert len(task.begun()) == 1


def test_a_cell_whose_scores_are_missing_is_due(task):
    write_json(task.runs[0].folder / "done.json", {})
    task.tell(0)
    task.run()
    assert len(task.begun()) == 1


def test_after_the_same_error_in_several_cells_only_what_has_begun_goes_on(pair):
    write_json(pair.experiment / "stopped.json", {"why": "3 cells failed alike"})
    record(pair.runs[1], "interrupted")
    pair.tell(0, 0)
    assert "3 cells failed alike" in pair.run()
    assert (len(pair.begun(0)), len(pair.begun(1))) == (0, 1)


def test_a_group_may_write_what_workers_write(tmp_path, slurm):
    before = os.umask(0o077)
    try:
        task = Task(tmp_path, slurm, [cell()], umask=0o007)
        task.tell("touch")
        task.run()
    finally:
        os.umask(before)
    assert (task.runs[0].folder / "touched").stat().st_mode & 0o777 == 0o660


def test_data_that_cannot_be_copied_to_the_node_is_a_failure_of_its_cells(tmp_path, slurm, data):
    one = cell({"data": str(data)})
    task = Task(tmp_path, slurm, [one], stage_to="$SPINE_NOT_SET")
    task.tell(0)
    task.run(1)
    (last,) = task.runs[0].attempts()
    assert (last["event"], last["cause"], last["job_id"]) == ("failed", "settings", "7_0")
    assert "$SPINE_NOT_SET is not set" in last["error"]
    assert task.begun() == []
