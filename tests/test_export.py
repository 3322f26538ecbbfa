"""Scripts to submit by hand: they ask for and do what a launch would."""

import difflib
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from making import cell, planned_grid

from spine_tasks.cell import Resources
from spine_tasks.cluster import read_cluster
from spine_tasks.errors import SiteError
from spine_tasks.experiment import create
from spine_tasks.export import export
from spine_tasks.run import Run
from spine_tasks.sites import Site
from spine_tasks.states import states
from spine_tasks.submissions import folder_of, submissions
from spine_tasks.submit import Array, Setting, parameters, script

RECORDED = Path(__file__).parent / "recorded" / "by_hand.sbatch"
SITE = Site(
    partition=["gpu", "low"],
    account="spine",
    constraint="a100",
    signal_lead_s=300,
    max_parallel=4,
    modules=["cuda/12.4"],
)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm on the PATH."""
    return FakeSlurm.on_path(tmp_path, monkeypatch)


@pytest.fixture
def experiment(tmp_path):
    return planned_grid(tmp_path / "results")


def exported(experiment, target, cells=None, site=SITE, max_parallel=None, **changes):
    """What is said of the scripts, and the scripts, in their order."""
    fields = {"variables": {"SPINE_CODE": "/my code"}} | changes
    setting = Setting(experiment=experiment, site=site, **fields)
    cluster = replace(read_cluster(), max_array_size=3, accounts_enforced=False)
    lines = export(setting, cluster, cells or experiment.everything, max_parallel, target)
    return lines, [file.read_text() for file in sorted(target.glob("*.sbatch"))]


def asked_for(text):
    """The `#SBATCH` lines but for the names, which are each submission's own."""
    lines = (line.replace("'", "") for line in text.splitlines() if line.startswith("#SBATCH"))
    return sorted(line for line in lines if not re.match("#SBATCH --(job-name|output)", line))


def test_the_scripts_are_the_recorded_ones(slurm, experiment, tmp_path):
    _, texts = exported(experiment, tmp_path / "scripts")
    now = "\n".join(texts)
    for path, word in {str(tmp_path): "FOLDER", sys.executable: "PYTHON"}.items():
        now = now.replace(path, word)
    now = re.sub(r"grid-[0-9a-f]{8}", "grid-NAME", now)
    diff = difflib.unified_diff(
        RECORDED.read_text().splitlines(), now.splitlines(), "recorded", "now", lineterm=""
    )
    if told := "\n".join(diff):
        pytest.fail(f"{told}\nif this is meant, write the new text to {RECORDED}", pytrace=False)


@pytest.mark.parametrize("pack", [1, 2])
def test_a_script_asks_for_what_a_launch_asks_for(slurm, experiment, tmp_path, pack):
    resources = Resources(gpus=1, cpus=2, mem_gb=1.5, pack=pack)
    cells = [cell(seed=seed, resources=resources) for seed in range(3)]
    _, (text,) = exported(experiment, tmp_path / "scripts", cells, exclude=["n1"])
    setting = Setting(experiment=experiment, site=SITE, variables={}, exclude=["n1"])
    array = Array(resources, "tensorflow", cells)
    launched = script(tmp_path, setting, array, parameters("name", setting, array))
    tasks = len(array.tasks)
    throttled = launched.replace(f"0-{tasks - 1}%{tasks}", f"0-{tasks - 1}%4")
    assert asked_for(text) == asked_for(throttled)


def test_scripts_are_bash_that_stops_where_a_line_fails(slurm, experiment, tmp_path):
    site = replace(SITE, modules=[], setup=["false"])
    _, texts = exported(experiment, tmp_path / "scripts", site=site)
    for text in texts:
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        begun = text.replace("srun ", "echo begun; exit 0; srun ")
        answer = subprocess.run(["bash"], input=begun, capture_output=True, text=True, check=False)
        assert (answer.returncode, answer.stdout) == (1, "")


def test_cells_that_start_from_others_come_later_and_it_is_said_how(slurm, experiment, tmp_path):
    lines, texts = exported(experiment, tmp_path / "scripts")
    files = sorted((tmp_path / "scripts").glob("*.sbatch"))
    assert lines == [
        f"3 cells: sbatch {files[0]}",
        f"2 cells: sbatch --dependency=afterany:<ids of the arrays before it> {files[1]}",
    ]
    assert "add --dependency=afterany:" in texts[1]
    assert "add --dependency" not in texts[0]


def test_what_is_said_can_be_pasted_into_a_shell(slurm, experiment, tmp_path):
    target = tmp_path / "my scripts"
    (line, _), _ = exported(experiment, target)
    assert shlex.split(line.partition(": ")[2]) == ["sbatch", str(target / "grid-1.sbatch")]


def test_no_script_has_more_tasks_than_the_site_takes_and_no_cell_is_lost(
    slurm, experiment, tmp_path
):
    cells = [cell(seed=seed) for seed in range(7)]
    _, texts = exported(experiment, tmp_path / "scripts", cells, max_parallel=2)
    arrays = [re.search("--array=(.*)", text)[1] for text in texts]
    assert arrays == ["0-2%2", "0-2%2", "0-0%2"]
    handed_over = [task for one in submissions(experiment.folder) for task in one.tasks.cells]
    assert handed_over == [[one.id] for one in cells]


def test_what_the_cluster_can_never_run_is_not_exported(slurm, experiment, tmp_path):
    with pytest.raises(SiteError, match="2000 CPUs"):
        exported(experiment, tmp_path / "scripts", [cell(resources=Resources(cpus=2000))])
    assert not (tmp_path / "scripts").exists()


def test_nothing_is_submitted_and_the_cells_are_known_by_the_name_of_the_job(
    slurm, experiment, tmp_path
):
    _, texts = exported(experiment, tmp_path / "scripts")
    assert slurm.calls("sbatch") == []
    assert {one.by_hand for one in submissions(experiment.folder)} == {True}
    first = experiment.everything[0]
    assert states(experiment.folder, [first])[first.id].kind == "new"
    name = re.search("--job-name='?([^'\n]*)", texts[0])[1]
    slurm.put("17", name, "PENDING", "RUNNING", "RUNNING")
    assert states(experiment.folder, [first])[first.id].job == "17_0"


def test_an_exported_script_computes_its_cells(slurm, tmp_path, toy):
    experiment = planned_grid(
        tmp_path / "my results", **{"data": str(toy.data), "epochs": 2, "resources.pack": 2}
    )
    cells = [one for one in experiment.cells if not one.needs]
    create(experiment, cells)
    _, (text,) = exported(experiment, tmp_path / "scripts", cells, Site())
    step = tmp_path / "bin" / "srun"  # Slurm runs what comes behind its flags
    step.write_text('#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n')
    step.chmod(0o755)
    job = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "0"}
    env = toy.env(**job)
    (submission,) = submissions(experiment.folder)
    answer = subprocess.run(
        ["bash"], input=text, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    for one in cells:
        run = Run(experiment.folder / one.id)
        assert run.complete
        assert {record["job_id"] for record in run.attempts()} == {"17_0"}
    assert f"{folder_of(experiment.folder, submission.name)}/%A_%a_0_log.out" in text
