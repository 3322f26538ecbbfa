"""The state of a cell, from what Slurm answers about its job and what its job's log says."""

import signal

import pytest
from fake_slurm import FakeSlurm
from making import attempt_on_node as record
from making import cell, run_folder
from making import hand_over as submitted

from spine_tasks.errors import SiteError
from spine_tasks.states import State, states
from spine_tasks.submissions import folder_of, note

ONE, TWO = cell(), cell(seed=1)


@pytest.fixture(autouse=True)
def slurm(tmp_path_factory, monkeypatch):
    """Commands of Slurm on the PATH."""
    return FakeSlurm.on_path(tmp_path_factory.mktemp("slurm"), monkeypatch)


def state(results):
    return states(results, [ONE])[ONE.id]


def write_log(results, name, job, text):
    """The end of a job's log."""
    file = folder_of(results, name) / f"{job}_0_log.out"
    file.write_text("x" * 100000 + "\n" + text)


# What is in Slurm's queue


@pytest.mark.parametrize(
    ("of_slurm", "kind"),
    [
        ("PENDING", "waiting"),
        ("REQUEUED", "waiting"),
        ("RUNNING", "running"),
        ("COMPLETING", "running"),
        ("CONFIGURING", "running"),
        ("SUSPENDED", "running"),
    ],
)
def test_a_cell_is_where_slurm_says_its_task_is(tmp_path, slurm, of_slurm, kind):
    submitted(tmp_path, "grid-1", "7", [TWO], [ONE])
    slurm.put("7", "grid-1", "RUNNING", of_slurm, reason="Priority")
    assert state(tmp_path) == State(kind, "job 7, Priority", "7_1")


def test_an_array_that_is_held_before_its_number_is_known_is_waiting(tmp_path, slurm):
    # The launcher was killed after sbatch: else the next one would submit the cells again.
    submitted(tmp_path, "grid-1", None, [ONE])
    slurm.put("7", "grid-1", "PENDING", reason="JobHeldUser")
    assert state(tmp_path) == State("waiting", "job 7, JobHeldUser", "7_0")


def test_an_array_that_slurm_had_denied_and_that_never_starts_is_no_work_under_way(tmp_path, slurm):
    submitted(tmp_path, "grid-1", None, [ONE])
    note(tmp_path, "grid-1", gone=True)
    slurm.put("7", "grid-1", "PENDING", reason="JobHeldUser")
    assert state(tmp_path).kind == "new"


def test_an_array_of_another_experiment_is_not_this_ones(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE])
    slurm.put("7", "grid-11", "RUNNING")
    assert state(tmp_path).kind == "new"


def test_a_cell_in_two_jobs_is_running_where_one_of_them_runs(tmp_path, slurm):
    for number in "123":
        submitted(tmp_path, f"grid-{number}", number, [ONE])
    slurm.put("1", "grid-1", "PENDING")
    slurm.put("2", "grid-2", "RUNNING")
    slurm.put("3", "grid-3", "PENDING")
    assert state(tmp_path) == State("running", "job 2", "2_0")


def test_without_an_answer_nothing_is_said_to_have_stopped(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE])
    slurm.fail("squeue", "Unable to contact slurm controller (connect failure)")
    with pytest.raises(SiteError, match="Unable to contact"):
        state(tmp_path)


def test_of_a_packed_task_the_failed_cell_has_failed_and_the_other_runs(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE, TWO])
    slurm.put("7", "grid-1", "RUNNING")
    record(run_folder(tmp_path, ONE), "failed", error="bad", cause="code")
    record(run_folder(tmp_path, TWO), "started")
    found = states(tmp_path, [ONE, TWO])
    assert [found[one.id].kind for one in (ONE, TWO)] == ["failed", "running"]


def test_a_cell_that_failed_and_waits_in_another_job_is_waiting(tmp_path, slurm):
    record(run_folder(tmp_path, ONE), "failed", error="bad", cause="code", job="7_0")
    submitted(tmp_path, "grid-2", "8", [ONE])
    slurm.put("8", "grid-2", "PENDING")
    assert state(tmp_path) == State("waiting", "job 8", "8_0")


def test_a_cell_whose_preempted_task_waits_again_is_waiting(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE])
    record(run_folder(tmp_path, ONE), "interrupted")
    slurm.put("7", "grid-1", "PENDING", reason="BeginTime")
    assert state(tmp_path) == State("waiting", "job 7, BeginTime", "7_0")


# What became of a job that has left the queue


def test_a_cancelled_cell_is_told_apart_from_an_interrupted_one(tmp_path):
    run = run_folder(tmp_path, ONE)
    record(run, "interrupted")
    record(run, "cancelled")
    assert state(tmp_path) == State("interrupted", "cancelled", cancelled=True)


def test_a_cell_that_was_cancelled_while_it_waited_was_cancelled(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE])
    slurm.ended(j7_0="CANCELLED by 1000")
    assert state(tmp_path) == State("new", "job 7_0 was cancelled", cancelled=True)


def test_a_cell_that_was_cancelled_while_it_waited_to_go_on_was_cancelled(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE])
    record(run_folder(tmp_path, ONE), "interrupted")
    slurm.ended(j7_0="CANCELLED by 1000")
    found = state(tmp_path)
    assert (found.kind, found.cancelled) == ("interrupted", True)


def test_a_death_is_explained_by_the_jobs_log(tmp_path):
    submitted(tmp_path, "grid-1", "7", [ONE])
    record(run_folder(tmp_path, ONE), "started")
    write_log(tmp_path, "grid-1", "7_0", "slurmstepd: error: Detected 1 oom_kill event in StepId\n")
    found = state(tmp_path)
    assert (found.kind, found.cause.kind) == ("failed", "host memory")


def test_a_death_is_explained_by_slurm(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE])
    record(run_folder(tmp_path, ONE), "started")
    slurm.ended(j7_0="OUT_OF_MEMORY")
    assert state(tmp_path).cause.kind == "host memory"
    slurm.ended(j7_0="NODE_FAIL")
    assert state(tmp_path) == State("interrupted", "its node failed")


def test_a_time_limit_is_a_failure_only_before_the_first_checkpoint(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE])
    run = run_folder(tmp_path, ONE)
    record(run, "started")
    slurm.ended(j7_0="TIMEOUT")
    assert state(tmp_path).cause.kind == "time"
    run.checkpoint.mkdir()
    (run.checkpoint / "last.npz").write_text("")
    assert state(tmp_path) == State("interrupted", "stopped at its time limit")


def test_the_signal_of_a_worker_that_its_supervisor_saw_die_is_said(tmp_path):
    record(run_folder(tmp_path, ONE), "killed", signal=int(signal.SIGKILL))
    found = state(tmp_path)
    assert (found.kind, found.why) == ("interrupted", "killed by SIGKILL (Killed)")


@pytest.mark.parametrize(
    ("log", "said"),
    [("bash: /no/such/python: No such file\n", "No such file"), (None, "its log is empty")],
)
def test_a_job_that_failed_before_a_worker_started_has_failed_and_says_how(
    tmp_path, slurm, log, said
):
    submitted(tmp_path, "grid-1", "7", [ONE])
    if log is not None:
        write_log(tmp_path, "grid-1", "7_0", log)
    slurm.ended(j7_0="FAILED")
    found = state(tmp_path)
    assert (found.kind, found.cause.kind) == ("failed", "node")
    assert "job 7_0 ended (FAILED) before a worker started" in found.why
    assert said in found.why
    assert "jobs/doctor.py" in found.why


@pytest.mark.parametrize(
    ("end", "log", "how"),
    [
        (
            "FAILED",
            "srun: error: n1: task 0: Killed\nsrun: Force Terminated StepId=3.0\n",
            "was killed",
        ),
        ("FAILED", "srun: error: n1: tasks 0-3: Killed\n", "was killed"),
        ("NODE_FAIL", "", "lost its node"),
    ],
)
def test_a_job_that_was_killed_before_a_worker_started_leaves_the_cell_new(
    tmp_path, slurm, end, log, how
):
    submitted(tmp_path, "grid-1", "7", [ONE])
    write_log(tmp_path, "grid-1", "7_0", log)
    slurm.ended(j7_0=end)
    assert state(tmp_path) == State("new", f"job 7_0 {how} before a worker started")


@pytest.mark.parametrize("end", ["COMPLETED", "PREEMPTED"])
def test_a_job_that_was_not_to_start_the_cell_leaves_it_new(tmp_path, slurm, end):
    submitted(tmp_path, "grid-1", "7", [ONE])
    slurm.ended(j7_0=end)
    assert state(tmp_path) == State("new", "job 7_0 ended before it began")


def test_of_two_jobs_the_last_one_says_what_became_of_a_cell_that_never_began(tmp_path, slurm):
    submitted(tmp_path, "grid-1", "7", [ONE])
    submitted(tmp_path, "grid-2", "8", [ONE])
    slurm.ended(j7_0="FAILED", j8_0="CANCELLED")
    assert state(tmp_path) == State("new", "job 8_0 was cancelled", cancelled=True)


@pytest.mark.parametrize(
    ("end", "kind", "cancelled"),
    [("CANCELLED by 1000", "interrupted", True), ("FAILED", "failed", False)],
)
def test_a_job_that_was_to_continue_a_cell_and_did_not_start_says_why(
    tmp_path, slurm, end, kind, cancelled
):
    # Else a waiting launcher would submit it again and again.
    submitted(tmp_path, "grid-1", "7", [ONE])
    record(run_folder(tmp_path, ONE), "interrupted")
    submitted(tmp_path, "grid-2", "8", [ONE])
    slurm.ended(j7_0="COMPLETED", j8_0=end)
    found = state(tmp_path)
    assert (found.kind, found.cancelled) == (kind, cancelled)
    assert "job 8_0" in found.why
