"""What killed a worker: known answers from logs that Slurm wrote, and its word for a job's end."""

import signal
from textwrap import dedent

import pytest

from spine_tasks.causes import cause_of_death, slurm_ends

# Logs of jobs on Slurm 22.05 (their first line is their end), but for CGROUP and STEP_CGROUP: what
# newer and older versions write on sites that confine memory with cgroups.
OVER_MEMORY = """
slurmstepd-node1: error: StepId=12.0 exceeded memory limit (532537344 > 209715200), being killed
slurmstepd-node1: error: Exceeded job memory limit
slurmstepd-node1: error: *** STEP 12.0 ON node1 CANCELLED AT 2026-11-22T13:55:23 ***
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
srun: error: node1: task 0: Killed
"""
CGROUP = """
slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch. Some of the step tasks have been \
OOM Killed.
srun: error: gpu03: task 0: Out Of Memory
"""
STEP_CGROUP = """
slurmstepd: error: Detected 1 oom-kill event(s) in StepId=14.0 cgroup. Some of your processes may \
have been killed by the cgroup out-of-memory handler.
"""
TIME_LIMIT = """
slurmstepd-node2: error: *** JOB 18 ON node2 CANCELLED AT 2026-11-22T14:02:40 DUE TO TIME LIMIT ***
slurmstepd-node2: error: *** STEP 18.0 ON node2 CANCELLED AT 2026-11-22T14:02:40 DUE TO TIME \
LIMIT ***
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
srun: got SIGCONT
srun: forcing job termination
srun: error: node2: task 0: Killed
"""
PREEMPTED = """
slurmstepd-node3: error: *** STEP 7.0 ON node3 CANCELLED AT 2026-11-22T13:56:10 ***
slurmstepd-node3: error: *** JOB 7 ON node3 CANCELLED AT 2026-11-22T13:56:40 DUE TO PREEMPTION ***
srun: forcing job termination
srun: error: node3: task 0: Killed
"""
CANCELLED = """
srun: got SIGCONT
slurmstepd-node2: error: *** JOB 4 ON node2 CANCELLED AT 2026-11-22T13:55:29 ***
srun: forcing job termination
slurmstepd-node2: error: *** STEP 4.0 ON node2 CANCELLED AT 2026-11-22T13:55:29 ***
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
srun: error: node2: task 0: Terminated
srun: Force Terminated StepId=4.0
"""
NODE_DIED = """
srun: error: Node failure on node1
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
"""
WARNED_TOO_EARLY = "srun: error: node1: task 0: User defined signal 2\n"
KILLED = "srun: error: node3: task 0: Killed\nsrun: Force Terminated StepId=10.0\n"


@pytest.mark.parametrize(
    ("log", "end"),
    [(OVER_MEMORY, "FAILED"), (CGROUP, None), (STEP_CGROUP, None), ("", "OUT_OF_MEMORY")],
)
@pytest.mark.parametrize("signum", [None, signal.SIGKILL])
def test_too_little_memory_is_a_failure_with_a_remedy(log, end, signum):
    death = cause_of_death(log, signum, end)
    assert death.cause.kind == "host memory"
    assert "--mem-factor" in death.cause.remedy
    assert death.why == death.cause.why


@pytest.mark.parametrize(
    ("log", "end", "why"),
    [
        (TIME_LIMIT, None, "stopped at its time limit"),
        ("", "TIMEOUT", "stopped at its time limit"),
        (PREEMPTED, None, "preempted"),
        ("", "PREEMPTED", "preempted"),
        (CANCELLED, None, "cancelled"),
        ("", "CANCELLED by 1000", "cancelled"),
        (NODE_DIED, None, "its node failed"),
        ("", "NODE_FAIL", "its node failed"),
        (WARNED_TOO_EARLY, "FAILED", "killed by SIGUSR2 (User defined signal 2)"),
        (KILLED, "FAILED", "killed by SIGKILL (Killed)"),
        ("", None, "ended without a word: killed, or its node died"),
        ("", "", "ended without a word: killed, or its node died"),
    ],
)
def test_what_the_next_launch_continues_is_no_failure(log, end, why):
    death = cause_of_death(log, None, end)
    assert death.why == why
    assert death.cause is None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR2, signal.SIGHUP])
def test_a_worker_that_somebody_killed_is_no_failure(signum):
    death = cause_of_death("", signum, None)
    assert death.cause is None
    assert signal.Signals(signum).name in death.why


@pytest.mark.parametrize(
    ("signum", "kind"),
    [(signal.SIGSEGV, "code"), (signal.SIGABRT, "code"), (signal.SIGBUS, "node")],
)
def test_a_crash_is_a_failure_whoever_saw_it(signum, kind):
    seen = cause_of_death("", signum, "FAILED")
    said = f"srun: error: node3: task 0: {signal.strsignal(signum)}"
    assert seen.cause.kind == kind
    assert signum.name in seen.why
    assert cause_of_death(said, None, "FAILED") == seen
    assert cause_of_death(f"{said} (core dumped)\n", None, None) == seen
    # The worker crashed; that its job was cancelled later does not undo it.
    assert cause_of_death(CANCELLED, signum, "CANCELLED").cause == seen.cause


def test_a_time_limit_before_the_first_checkpoint_would_be_met_again():
    for log, end in ((TIME_LIMIT, None), ("", "TIMEOUT")):
        assert cause_of_death(log, None, end, saved=True).cause is None
        death = cause_of_death(log, None, end, saved=False)
        assert death.cause.kind == "time"
        assert "resources.time" in death.cause.remedy
    assert cause_of_death(PREEMPTED, None, "PREEMPTED", saved=False).cause is None


def test_what_the_log_says_of_an_earlier_start_is_not_taken_for_the_end():
    assert cause_of_death(OVER_MEMORY, None, "TIMEOUT").why == "stopped at its time limit"
    assert cause_of_death(PREEMPTED + OVER_MEMORY, None, "FAILED").cause.kind == "host memory"


def test_a_job_over_its_memory_is_not_taken_for_a_cancelled_one():
    assert cause_of_death(OVER_MEMORY, None, "CANCELLED by 0").cause.kind == "host memory"


@pytest.mark.parametrize(
    "line",
    ["epoch 3: oom_kill", "CANCELLED AT noon", "x: slurmstepd: error: Exceeded job memory limit"],
)
def test_lines_of_others_are_not_believed(line):
    assert cause_of_death(line, None, None).why.startswith("ended without a word")


# What the commands answer, on Slurm 22.05.
SACCT = """\
2|FAILED
4_0|CANCELLED by 0
4_1|CANCELLED by 0
18_0|TIMEOUT
18_1|RUNNING
21_[0-5%2]|PENDING
"""
SHOW_18 = (
    "JobId=18 ArrayJobId=18 ArrayTaskId=1 JobName=a b UserId=root(0) JobState=NODE_FAIL "
    "Reason=NodeDown Comment=(null)\n"
    "JobId=22 ArrayJobId=18 ArrayTaskId=0 JobName=a b UserId=root(0) JobState=TIMEOUT "
    "Reason=TimeLimit\n"
)
SHOW_30 = "JobId=30 JobName=x JobState=OUT_OF_MEMORY Reason=OutOfMemory\n"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Make a command that answers what is wanted, in place of Slurm's; it notes its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name, script):
        calls = tmp_path / f"{name}.calls"
        calls.touch()
        file = folder / name
        file.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n{dedent(script)}\n')
        file.chmod(0o755)
        return calls

    return make


def answers(text):
    return f"cat <<'END'\n{text}END"


def test_the_ends_of_many_jobs_are_asked_for_at_once(commands):
    sacct = commands("sacct", answers(SACCT))
    scontrol = commands("scontrol", "exit 1")
    ends = slurm_ends(["4_0", "2", "18_0", "4_1"])
    assert ends == {"4_0": "CANCELLED", "2": "FAILED", "18_0": "TIMEOUT", "4_1": "CANCELLED"}
    assert sacct.read_text() == "-nXP -j 4,2,18 -o JobID,State\n"
    assert scontrol.read_text() == ""


def test_what_the_accounting_does_not_know_yet_the_controller_does(commands):
    commands("sacct", answers(SACCT))
    scontrol = commands("scontrol", answers(SHOW_18))
    assert slurm_ends(["18_1", "18_0"]) == {"18_1": "NODE_FAIL", "18_0": "TIMEOUT"}
    assert scontrol.read_text() == "-o show job 18\n"


def test_without_accounting_the_controller_is_asked(commands):
    commands("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    commands("scontrol", f'case "$4" in 18) {answers(SHOW_18)}\n;;\n30) {answers(SHOW_30)}\n;;\n'
             "*) echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1;; esac"
             )  # fmt: skip
    ends = slurm_ends(["18_0", "30", "31_0"])
    assert ends == {"18_0": "TIMEOUT", "30": "OUT_OF_MEMORY"}  # 31 is forgotten


def test_jobs_that_wait_or_run_have_no_end(commands):
    commands("sacct", answers(SACCT))
    commands("scontrol", answers(SHOW_30.replace("OUT_OF_MEMORY", "RUNNING")))
    assert slurm_ends(["18_1", "21_3"]) == {}


def test_where_nothing_can_be_asked_no_end_is_known(commands, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # this machine may have a Slurm
    assert slurm_ends(["1_0"]) == {}
    assert slurm_ends([]) == {}
