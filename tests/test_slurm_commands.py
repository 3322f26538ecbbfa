"""Slurm's commands: when they are repeated, what is made of their errors and of their answers.

The texts are those of a real Slurm 22.05; that a real one gives them is tested in tests/slurm.
"""

import time
from types import SimpleNamespace

import pytest
from fake_slurm import FakeSlurm

from spine_tasks import slurm
from spine_tasks.errors import SiteError
from spine_tasks.slurm import QueuedTask, SlurmError

AWAY = "Unable to contact slurm controller (connect failure)"
REFUSED = "Batch job submission failed: Invalid partition name specified"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Commands of Slurm on the PATH; there is patience, and pauses between repeats are short."""
    fake = FakeSlurm.on_path(tmp_path, monkeypatch)
    monkeypatch.setenv("SPINE_SLURM_PATIENCE_S", "60")
    monkeypatch.setattr(slurm, "FIRST_PAUSE_S", 0.01)
    return fake


@pytest.mark.parametrize(
    "words",
    [
        AWAY,
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        "slurm_load_jobs error: Zero Bytes were transmitted or received",
        "Slurm backup controller in standby mode",
    ],
)
def test_a_controller_that_is_away_is_asked_again_until_it_answers(fake, words):
    fake.put("7", "grid-1", "RUNNING")
    fake.fail("squeue", words, times=3)
    assert slurm.queue() == [QueuedTask("7_0", "RUNNING", "None", "grid-1")]
    assert len(fake.calls("squeue")) == 4


def test_patience_ends_and_says_what_is_the_matter(fake, monkeypatch):
    monkeypatch.setenv("SPINE_SLURM_PATIENCE_S", "3")
    fake.fail("squeue", AWAY, times=1000)
    with pytest.raises(SlurmError) as error:
        slurm.queue()
    assert error.value.unreachable
    assert AWAY in str(error.value)
    assert "the controller is out of reach: try again later" in str(error.value)
    assert len(fake.calls("squeue")) > 1


def test_pauses_grow_and_are_not_longer_than_the_longest(fake, monkeypatch):
    pauses = []
    # Not time.sleep itself, by which other threads pause too.
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append)
    monkeypatch.setattr(slurm, "time", clock)
    monkeypatch.setattr(slurm, "LONGEST_PAUSE_S", 0.05)
    fake.fail("squeue", AWAY, times=5)
    slurm.ask("squeue")
    assert pauses == [0.01, 0.02, 0.04, 0.05, 0.05]


def test_patience_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("SPINE_SLURM_PATIENCE_S", "3")
    assert slurm.patience_s() == 3
    monkeypatch.delenv("SPINE_SLURM_PATIENCE_S")
    assert slurm.patience_s() == 90


def test_a_refusal_is_not_repeated_and_has_slurms_own_words(fake):
    fake.fail("scontrol", "Invalid job id specified")
    with pytest.raises(SlurmError) as error:
        slurm.ask("scontrol", "release", "7")
    assert str(error.value) == "scontrol: scontrol: error: Invalid job id specified"
    assert not error.value.unreachable
    assert len(fake.calls("scontrol")) == 1


def test_what_may_not_be_done_twice_is_not_repeated(fake):
    fake.fail("sbatch", AWAY)
    with pytest.raises(SlurmError, match="Unable to contact"):
        slurm.ask_once("sbatch", stdin="#SBATCH --array=0-1\n#SBATCH --job-name=a")
    assert len(fake.calls("sbatch")) == 1


def test_without_munge_the_admins_are_named(fake):
    fake.fail("squeue", 'Munge encode failed: Failed to access "/run/munge/munge.socket.2"')
    with pytest.raises(SiteError, match="munge, which proves who you are, does not work here"):
        slurm.queue()


def test_an_error_without_words_is_one_all_the_same(fake):
    (fake.folder / "squeue").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(SiteError, match="squeue: failed without a word"):
        slurm.queue()


def test_a_command_that_is_not_there_is_said_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm.installed()
    with pytest.raises(SiteError, match=r"squeue is not on this machine: .* --site local"):
        slurm.queue()


def test_warnings_beside_an_answer_are_no_part_of_it(fake):
    said = 'echo "sbatch: warning: Ignoring --mem" >&2; echo 17\n'
    (fake.folder / "sbatch").write_text(f"#!/bin/sh\n{said}")
    assert slurm.ask("sbatch") == "17\n"


def test_the_queue_has_every_task_and_names_may_have_bars(fake):
    fake.put("7", "a|b", "RUNNING", "PENDING", reason="Priority")
    assert slurm.queue() == [
        QueuedTask("7_0", "RUNNING", "Priority", "a|b"),
        QueuedTask("7_1", "PENDING", "Priority", "a|b"),
    ]
    fake.remove("7")
    assert slurm.queue() == []
    # By user, and one task a line: an array of waiting tasks is `7_[0-9]` otherwise.
    assert all({"--array", "--user"} <= {*words} for words in fake.calls("squeue"))


def test_the_job_of_the_last_array_task_is_not_the_whole_array(monkeypatch):
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert slurm.this_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm.this_job() == "7"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert slurm.this_job() == "7_3"


def test_the_count_of_restarts_is_slurms(monkeypatch):
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert slurm.restart_count() == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert slurm.restart_count() == 2


PREEMPTED = "2026-11-22T13:56:10"


@pytest.mark.parametrize(
    ("restart", "fields", "means"),
    [
        (0, {}, "going on"),
        (0, {"JobState": "COMPLETING"}, "cancelled"),  # as after scancel
        (0, {"JobState": "CANCELLED"}, "cancelled"),
        (0, {"PreemptTime": PREEMPTED}, "to stop"),  # in its grace time
        (0, {"PreemptTime": PREEMPTED, "JobState": "COMPLETING"}, "ending"),
        (0, {"JobState": "COMPLETING", "Reason": "TimeLimit"}, "ending"),
        (0, {"JobState": "COMPLETING", "ExitCode": "141:0"}, "ending"),  # srun lost its node
        (0, {"JobState": "COMPLETING", "ExitCode": "0:15"}, "cancelled"),
        (0, {"Restarts": 1, "JobState": "PENDING"}, "requeued"),  # preempted without grace
        (2, {"Restarts": 2}, "going on"),
        (2, {"Restarts": 2, "JobState": "COMPLETING"}, "cancelled"),
        (2, {"Restarts": 3, "JobState": "RUNNING"}, "requeued"),  # it runs elsewhere
    ],
)
def test_what_slurm_means_to_do_with_a_job(fake, restart, fields, means):
    fake.show(JobId=8, ArrayJobId=7, ArrayTaskId=1, PreemptEligibleTime=PREEMPTED, **fields)
    assert slurm.intention("7_1", restart) == means
    assert fake.calls("scontrol") == [["scontrol", "show", "job", "7_1"]]


def test_a_job_is_requeued_once_and_by_its_own_number(fake):
    fake.show()
    assert slurm.requeue("7_1", 0) == "requeued"
    assert fake.calls("scontrol", "requeue") == [["scontrol", "requeue", "7_1"]]


def test_a_job_that_slurm_has_started_again_is_not_touched(fake):
    fake.show(Restarts=1)
    assert slurm.requeue("7_1", 0) == "Slurm runs it again"
    assert fake.calls("scontrol", "requeue") == []


def test_a_job_that_may_not_be_requeued_is_said_with_what_to_do(fake):
    fake.show()
    fake.fail("scontrol requeue", "Requested operation is presently disabled for job 7_1")
    assert slurm.requeue("7_1", 0) == (
        "Slurm does not requeue it (scontrol: error: Requested operation is presently disabled "
        "for job 7_1); launch the grid again to continue"
    )


def test_a_job_that_waits_already_needs_no_requeue(fake):
    fake.show(PreemptTime=PREEMPTED)
    fake.fail("scontrol requeue", "Job is pending execution")
    assert slurm.requeue("7_1", 0) == "requeued"
