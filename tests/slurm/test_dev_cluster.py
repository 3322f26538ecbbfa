"""The cluster that every other Slurm test relies on does what a site's does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FOUR_NODES = ["--nodes=4", "--exclusive"]
TWO_NODES = ["--nodes=2", "--exclusive"]


def sbatch(script, *options, folder):
    """The job id of `script`, whose output goes to `folder`."""
    command = ["sbatch", "--parsable", f"--chdir={folder}", "--open-mode=append", *options]
    text = f"#!/bin/bash\n{script}\n"
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=True
    ).stdout.strip()


def sacct(job):
    """State of each array task or job: {'7_0': 'COMPLETED'}."""
    command = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State"]
    out = subprocess.run([*command, f"--jobs={job}"], capture_output=True, text=True, check=True)
    return dict(line.split("|") for line in out.stdout.splitlines())


def wait_until(holds, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {holds.__doc__ or 'see the line above'}")
        time.sleep(0.2)


def runs(pid):
    """Whether a process is there and is more than an entry that nobody has collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def said(process, code=0):
    """What a command of dev_cluster wrote, after it ended with `code`."""
    written = "".join(process.communicate())
    assert process.returncode == code, written
    return written


def pids(folder):
    return {name: known["pid"] for name, known in json.loads(record(folder).read_text()).items()}


def record(folder):
    return folder / "daemons.json"


def processes_of(folder):
    """Programs of the live processes that name `folder` in command, environment or folder."""
    programs = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program = (process / "exe").readlink().name  # a zombie has none
            texts = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            if os.fsencode(folder) in b"".join([*texts, bytes((process / "cwd").readlink())]):
                programs.add(program.removesuffix("-wlm"))  # Debian's
        except OSError:  # has ended meanwhile
            continue
    return programs


def test_an_array_runs_with_gpus_of_its_own_and_is_recorded(slurm_cluster, tmp_path):
    job = sbatch(
        'echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES" > "$SLURM_ARRAY_TASK_ID"; sleep 2',
        *["--array=0-3", "--gres=gpu:2"],
        folder=tmp_path,
    )
    wait_until(lambda: sacct(job) == {f"{job}_{task}": "COMPLETED" for task in range(4)}, 20)
    given = [(tmp_path / str(task)).read_text().split() for task in range(4)]
    gpus = [(node, gpu) for node, numbers in given for gpu in numbers.split(",")]
    assert len(set(gpus)) == len(gpus) == 8, f"shared between running tasks: {sorted(gpus)}"
    assert {gpu for _, gpu in gpus} <= {"0", "1", "2", "3"}


def test_preempted_jobs_are_warned_and_run_again(slurm_cluster, tmp_path):
    # It works on after the warning: a job that ends in the grace time is not requeued.
    script = """
        echo "$SLURM_JOB_PARTITION ${SLURM_RESTART_COUNT:-0} starts" >> events
        trap 'echo "$SLURM_JOB_PARTITION warned" >> events' TERM
        [ -n "$SLURM_RESTART_COUNT" ] || while true; do sleep 0.2; done
    """
    events = tmp_path / "events"
    jobs = [
        sbatch(script, *TWO_NODES, f"--partition={name}", folder=tmp_path)
        for name in ("low", "low_nograce")
    ]
    wait_until(lambda: events.exists() and events.read_text().count("starts") == 2, 10)
    winner = sbatch("true", *FOUR_NODES, "--partition=high", folder=tmp_path)
    for job in (winner, *jobs):
        wait_until(lambda job=job: sacct(job) == {job: "COMPLETED"}, 50)
    assert sorted(set(events.read_text().splitlines())) == [
        "low 0 starts",
        "low 1 starts",
        "low warned",
        "low_nograce 0 starts",
        "low_nograce 1 starts",
        "low_nograce warned",  # by the same signal, only KillWait before the kill
    ]


def test_a_job_over_its_memory_is_killed(slurm_cluster, tmp_path):
    hog = f"{sys.executable} -c 'import time; b = bytearray(200_000_000); time.sleep(60)'"
    job = sbatch(hog, "--mem=50M", folder=tmp_path)
    wait_until(lambda: sacct(job).get(job) in ("FAILED", "OUT_OF_MEMORY"), 20)


def test_a_wrong_account_is_refused(slurm_cluster, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        sbatch("true", "--account=nobody", folder=tmp_path)
    assert "Invalid account" in refused.value.stderr


def test_starting_a_running_cluster_changes_nothing(slurm_cluster, dev_cluster):
    before = pids(slurm_cluster)
    assert "runs already" in said(dev_cluster("start", slurm_cluster))
    refused = said(dev_cluster("start", slurm_cluster, "--conf-line", "MaxArraySize=5"), code=2)
    assert "['MaxArraySize=5'] would not be used" in refused
    assert pids(slurm_cluster) == before


def test_start_revives_what_has_died_and_nothing_else(slurm_cluster, dev_cluster):
    before = pids(slurm_cluster)
    os.kill(before["node2"], signal.SIGKILL)
    assert "node2      not running" in said(dev_cluster("status", slurm_cluster), code=1)
    assert f"{slurm_cluster}: started node2\n" in said(dev_cluster("start", slurm_cluster))
    after = pids(slurm_cluster)
    assert [name for name in before if before[name] != after[name]] == ["node2"]
    assert "node2      process" in said(dev_cluster("status", slurm_cluster))


def test_a_node_that_loses_its_power_takes_its_own_jobs_along_and_no_others(
    slurm_cluster, dev_cluster, tmp_path
):
    on = {}
    for node in ("node1", "node2"):
        script = f'echo "$$ $SLURMD_NODENAME" >> {node}; sleep 1000'
        on[node] = sbatch(script, f"--nodelist={node}", "--no-requeue", folder=tmp_path)
        wait_until((tmp_path / node).exists, 20)
    ran = {node: int((tmp_path / node).read_text().split()[0]) for node in on}
    assert "killed node1 and its jobs" in said(
        dev_cluster("kill", slurm_cluster, "node1", "--jobs")
    )
    assert not runs(ran["node1"])
    assert runs(ran["node2"])
    wait_until(lambda: sacct(on["node1"]) == {on["node1"]: "NODE_FAIL"}, 60)
    assert "node1 started" in said(dev_cluster("revive", slurm_cluster, "node1"))

    said(dev_cluster("kill", slurm_cluster, "slurmctld"))
    assert "slurmctld  not running" in said(dev_cluster("status", slurm_cluster), code=1)
    assert "slurmctld started" in said(dev_cluster("revive", slurm_cluster, "slurmctld"))
    assert runs(ran["node2"])  # a job does not need the controller
    subprocess.run(["scancel", on["node2"]], check=True)
    wait_until(lambda: sacct(on["node2"])[on["node2"]].startswith("CANCELLED"), 60)


def test_a_daemon_that_there_is_not_cannot_be_killed(slurm_cluster, dev_cluster):
    assert "daemons: munged" in said(dev_cluster("kill", slurm_cluster, "node9"), code=2)
    assert "slurmctld is no node" in said(
        dev_cluster("kill", slurm_cluster, "slurmctld", "--jobs"), code=2
    )


def test_a_second_cluster_dies_is_named_starts_once_and_leaves_nothing_behind(
    slurm_cluster, dev_cluster, new_folder, tmp_path, monkeypatch
):
    folder = new_folder()
    monkeypatch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
    died = said(dev_cluster("start", folder, "--conf-line", "SelectType=select/none"), code=2)
    assert f"slurmctld died; the end of {folder}/log/slurmctld.out" in died
    assert "Can't find plugin for select/none" in died
    said(dev_cluster("stop", folder))
    assert processes_of(folder) == set()

    two_at_once = [dev_cluster("start", folder) for _ in range(2)]
    told = sorted(said(start).splitlines()[0] for start in two_at_once)
    assert told == [f"{folder}: runs already", f"{folder}: started {' '.join(pids(folder))}"]
    sbatch('trap "" TERM; setsid sleep 1000 & touch runs; sleep 1000', folder=tmp_path)
    wait_until((tmp_path / "runs").exists, 10)
    assert {"slurmd", "sleep", "slurmstepd"} <= processes_of(folder)
    said(dev_cluster("stop", folder))
    assert processes_of(folder) == set()
    assert not folder.exists()
    assert "node4      process" in said(dev_cluster("status", slurm_cluster))  # the first one lives


def test_a_daemon_that_dies_at_its_start_is_started_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "slurm" / "dev_cluster")
    from daemons import Daemon, Daemons

    (tmp_path / "log").mkdir()
    died, answers = tmp_path / "died", tmp_path / "answers"
    script = f"if [ -e {died} ]; then touch {answers}; while :; do sleep .1; done; fi"
    script += f"; touch {died}; exit 1"
    daemons = Daemons(tmp_path)
    shy = Daemon("shy", ["sh", "-c", script], answers.exists)
    try:
        assert daemons.ensure(shy, dict(os.environ))
        assert not daemons.ensure(shy, dict(os.environ))  # alive
    finally:
        daemons.kill("shy")
    assert daemons.ensure(shy, dict(os.environ))  # dead, though its last answer is still there
    daemons.kill("shy")


def test_stop_leaves_a_stranger_with_a_recorded_id_alone(slurm_cluster, dev_cluster, new_folder):
    folder = new_folder()
    stranger = subprocess.Popen(["sleep", "1000"])
    known = {"pid": stranger.pid, "identity": "/usr/sbin/slurmctld since 12345"}
    record(folder).write_text(json.dumps({"slurmctld": known}))
    said(dev_cluster("stop", folder))
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@pytest.mark.parametrize("command", ["start", "stop"])
def test_a_folder_with_other_files_is_refused_and_kept(command, dev_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("f")
    (folder / "thesis.tex").write_text("years of work")
    said(dev_cluster(command, folder), code=2)
    assert [file.name for file in folder.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("line", ["MaxArraySize", "=5", "Max Array=5", "A=1\nB=2"])
def test_a_line_that_slurm_conf_cannot_hold_is_refused(
    line, slurm_cluster, dev_cluster, new_folder
):
    folder = new_folder()
    assert repr(line) in said(dev_cluster("start", folder, "--conf-line", line), code=2)
    assert processes_of(folder) == set()


def test_env_is_a_line_for_the_shell(dev_cluster):
    env = dev_cluster("env", "/tmp/somewhere")
    assert said(env) == "export SLURM_CONF=/tmp/somewhere/slurm.conf\n"


def test_the_examples_of_the_configuration_are_true():
    file = Path(__file__).parents[2] / "slurm" / "dev_cluster" / "configuration.py"
    subprocess.run([sys.executable, "-m", "doctest", file], check=True)
