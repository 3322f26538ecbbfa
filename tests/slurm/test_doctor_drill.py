"""The doctor on a real Slurm: its drills, what it reads, and what it would refuse."""

import json
import os
import signal
import subprocess

import pytest
from making import command, environment

from spine_tasks.cluster import check, read_cluster
from spine_tasks.errors import SiteError
from spine_tasks.sites import Site

USER = ("user", "root", "where", "account=spine")


def doctor(results, *flags, site="dev_cluster"):
    where = ("--site", site, "--results", results, "--json")
    answer = command("doctor", *where, *flags, env=environment(**slurm_conf()))
    report = json.loads(answer.stdout)
    assert answer.returncode == (0 if report["ready"] else 1), answer.stderr
    return {one["topic"]: (one["kind"], one["said"]) for one in report["findings"]}


def slurm_conf():
    return {"SLURM_CONF": os.environ["SLURM_CONF"]}


def slurm(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def in_queue():
    return [line for line in slurm("squeue", "-h", "-o", "%j").split() if "doctor" in line]


def check_all_went_well(found, results):
    drill = [found[f"drill: {one}"] for one in ("submit", "cancel", "stop", "go on", "no return")]
    assert [kind for kind, _ in drill] == ["fact"] * 5
    assert "is complete" in found["drill: go on"][1]
    assert list(results.iterdir()) == []
    assert in_queue() == []


@pytest.mark.parametrize("partition", ["low", "low_cancel_nograce"])
def test_a_preempted_cell_goes_on_and_a_cancelled_one_does_not(slurm_cluster, tmp_path, partition):
    found = doctor(tmp_path, "--partition", partition, "--preempt-from", "high")
    assert "preempted by jobs of gpu, high" in found["preemption"][1]
    check_all_went_well(found, tmp_path)


def test_a_drill_that_cannot_start_gives_up_and_says_where_it_stands(slurm_cluster, tmp_path):
    blocker = slurm("sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive",
                    "--output=/dev/null", "--wrap", "sleep 600").strip()  # fmt: skip
    try:
        found = doctor(tmp_path, "--patience", "3")
    finally:
        slurm("scancel", blocker)
    kind, said = found["drill: stop"]
    assert kind == "mend"
    assert "not in time: job" in said
    assert "waiting" in said
    assert in_queue() == []
    assert (tmp_path / "doctor-dev_cluster").exists()  # its logs are needed now

    check_all_went_well(doctor(tmp_path), tmp_path)  # what was left is no hindrance


def test_a_node_that_cannot_start_a_worker_is_said_at_once_with_its_last_words(
    slurm_cluster, tmp_path
):
    profile = tmp_path / "broken.yaml"
    profile.write_text("setup: ['echo no such module >&2', 'exit 3']\n")
    kind, said = doctor(tmp_path / "results", site=profile)["drill: stop"]
    assert kind == "mend"
    assert "never: job" in said
    assert "no such module" in said


def test_limits_are_read_as_they_are_set(slurm_cluster):
    assert read_cluster(Site(account="spine")).max_submit is None
    slurm("sacctmgr", "-i", "modify", *USER, "set", "MaxSubmitJobs=7")
    try:
        assert read_cluster(Site(account="spine")).max_submit == 7
        slurm("sacctmgr", "-i", "modify", "qos", "normal", "set", "MaxSubmitJobsPerUser=3")
        assert read_cluster(Site()).max_submit == 3
    finally:
        slurm("sacctmgr", "-i", "modify", *USER, "set", "MaxSubmitJobs=-1")
        slurm("sacctmgr", "-i", "modify", "qos", "normal", "set", "MaxSubmitJobsPerUser=-1")


@pytest.mark.parametrize(
    ("site", "asked"),
    [
        (Site(), {}),
        (Site(), {"cpus": 4, "mem_gb": 16.0, "gpus": 4}),
        (Site(), {"cpus": 5}),
        (Site(), {"mem_gb": 16.001}),
        (Site(), {"gpus": 5}),
        (Site(gpu_type="a100"), {"gpus": 1}),
        (Site(constraint="ib"), {}),
        (Site(partition="low,high"), {}),
        (Site(partition="low,nowhere"), {}),
        (Site(account="spine"), {}),
        (Site(account="nobody"), {}),
        (Site(qos="normal"), {}),
    ],
)
def test_what_is_refused_is_what_slurm_refuses(slurm_cluster, site, asked):
    asked = {"cpus": 1, "mem_gb": 1.0, "gpus": 0, "time_min": 60} | asked
    flags = {
        "partition": ",".join(site.partitions) or None,
        **{name: getattr(site, name) for name in ("account", "qos", "constraint")},
        "cpus-per-task": asked["cpus"],
        "mem": f"{round(asked['mem_gb'] * 1024)}M",
        "gres": site.gres_of(asked["gpus"]),
    }
    words = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    tried = subprocess.run(
        ["sbatch", "--test-only", *words, "--wrap", "true"], capture_output=True, check=False
    )
    if tried.returncode == 0:
        check(read_cluster(), site, **asked)
    else:
        with pytest.raises(SiteError):
            check(read_cluster(), site, **asked)


def test_a_drill_goes_well_without_slurmdbd(slurm_cluster, dev_cluster, tmp_path):
    pids = json.loads((slurm_cluster / "daemons.json").read_text())
    os.kill(pids["slurmdbd"]["pid"], signal.SIGTERM)
    try:
        found = doctor(tmp_path)
    finally:
        dev_cluster("start", slurm_cluster).communicate()
    assert "sacctmgr does not answer" in found["accounting"][1]
    check_all_went_well(found, tmp_path)
