"""The script of an array: what it asks for, recorded, and how cells are put into arrays."""

import difflib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from making import ROOT, cell, command, environment, planned_grid

from spine_tasks.cell import Resources
from spine_tasks.sites import SITES, Site, load_site
from spine_tasks.submit import Array, Setting, arrays, in_order, minutes, parameters, script

RECORDED = Path(__file__).parent / "recorded" / "gm_transfer.sbatch"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A grid that is never launched."""
    return planned_grid(tmp_path_factory.mktemp("results"))


def lines(experiment, site=None, resources=None, after=(), count=1, folder="folder", **changes):
    """The lines of the script of an array of so many cells."""
    cells = [cell(seed=seed, resources=resources or Resources()) for seed in range(count)]
    fields = {"variables": {"SPINE_CODE": "/code"}} | changes
    setting = Setting(experiment=experiment, site=site or Site(), **fields)
    array = Array(cells[0].resources, "tensorflow", cells)
    asked = parameters("name", setting, array, after)
    return script(Path(folder), setting, array, asked).splitlines()


def plain(text):
    """The lines without the quotes that a value may need."""
    return [line.replace("'", "") for line in text]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The sbatch scripts that a dry run of gm_transfer shows, without this machine's paths.

    Where there is no Slurm, so that no cluster has its say.
    """
    results, nothing = (tmp_path_factory.mktemp(name) for name in ("results", "path"))
    flags = ("--grid", "gm_transfer", "--site", "example", "--dry-run", "--json")
    answer = command("launch", *flags, "--results", results, env=environment(PATH=str(nothing)))
    assert answer.returncode == 0, answer.stderr
    texts = json.loads(answer.stdout)["scripts"]
    paths = {str(results): "RESULTS", sys.executable: "PYTHON", str(ROOT): "CHECKOUT"}
    for path, word in paths.items():
        texts = [text.replace(path, word) for text in texts]
    digests = {r"/code/[0-9a-f]{16}": "/code/SNAPSHOT", r"(SHA256=)[0-9a-f]{64}": r"\1SHA256"}
    for digest, word in digests.items():
        texts = [re.sub(digest, word, text) for text in texts]
    return texts


def test_the_scripts_of_gm_transfer_are_the_recorded_ones(scripts):
    now = "\n".join(scripts)
    diff = difflib.unified_diff(
        RECORDED.read_text().splitlines(), now.splitlines(), "recorded", "now", lineterm=""
    )
    if told := "\n".join(diff):
        pytest.fail(f"{told}\nif this is meant, write the new text to {RECORDED}", pytrace=False)


def test_the_scripts_are_bash(scripts):
    assert len(scripts) == 2
    for text in scripts:
        answer = subprocess.run(
            ["bash", "-n"], input=text, capture_output=True, text=True, check=False
        )
        assert (answer.returncode, answer.stderr) == (0, "")


def test_what_a_cell_asks_for_stands_in_the_script(experiment):
    resources = Resources(gpus=2, cpus=7, mem_gb=1.5, time="1-00:00:01")
    text = plain(lines(experiment, Site(gpu_type="a100"), resources))
    for line in ("--gres=gpu:a100:2", "--cpus-per-task=7", "--mem=1536M", "--time=1441"):
        assert f"#SBATCH {line}" in text


def test_packed_cells_share_the_gpus_and_each_has_its_own_cpus_and_memory(experiment):
    resources = Resources(gpus=1, cpus=3, mem_gb=2, pack=4)
    text = plain(lines(experiment, resources=resources, count=10))
    for line in ("--gres=gpu:1", "--cpus-per-task=12", "--mem=8192M", "--array=0-2%3"):
        assert f"#SBATCH {line}" in text
    (srun,) = (line for line in text if line.startswith("srun"))
    assert "--cpus-per-task=12" in srun


def test_a_step_gets_the_cpus_of_its_job(experiment):
    text = lines(experiment, resources=Resources(cpus=7))
    (srun,) = (line for line in text if line.startswith("srun"))
    assert "--cpus-per-task=7" in srun


def test_what_the_site_says_stands_in_the_script(experiment):
    site = Site(partition=["p", "r"], account="a", qos="q", constraint="c", signal_lead_s=77)
    text = plain(lines(experiment, site))
    for line in ("partition=p,r", "account=a", "qos=q", "constraint=c", "signal=USR2@77"):
        assert f"#SBATCH --{line}" in text


def test_nodes_that_failed_are_left_out(experiment):
    assert "#SBATCH --exclude=n1,n2" in plain(lines(experiment, exclude=["n1", "n2"]))


def test_what_neither_says_is_left_to_the_cluster(experiment):
    text = "\n".join(lines(experiment))
    flags = ("partition", "account", "qos", "constraint", "gres", "dependency", "exclude", "wckey")
    for flag in flags:
        assert f"--{flag}" not in text


def test_a_job_is_requeued_and_its_log_appended_to(experiment):
    text = lines(experiment)
    assert "#SBATCH --requeue" in text
    assert "#SBATCH --open-mode=append" in text


def test_set_up_lines_come_before_the_command_and_end_the_job_where_they_fail(experiment):
    text = lines(experiment, Site(setup=["source env"], modules=["cuda/12"]))
    first = text.index("set -eo pipefail")
    assert text[first : first + 3] == ["set -eo pipefail", "source env", "module load cuda/12"]
    assert first + 2 < next(n for n, line in enumerate(text) if line.startswith("srun"))


def test_the_launched_code_wins_over_what_the_set_up_says_and_is_quoted(experiment, tmp_path):
    site = Site(setup=["export PYTHONPATH=/of/the/site"])
    variables = {"PYTHONPATH": "/my code/$HOME"}
    text = lines(experiment, site, variables=variables)
    before = [line for line in text if not line.startswith("srun")]
    told = 'printf %s "$PYTHONPATH"'
    answer = subprocess.run(
        ["bash"], input="\n".join([*before, told]), capture_output=True, text=True, check=True
    )
    assert answer.stdout == "/my code/$HOME"


def test_the_tasks_of_an_array_are_throttled_by_the_site(experiment):
    assert "#SBATCH --array=0-11%4" in lines(experiment, Site(max_parallel=4), count=12)
    assert "#SBATCH --array=0-2%3" in lines(experiment, Site(max_parallel=256), count=3)


def test_one_cell_is_an_array_too(experiment):
    # So that every job is `<array>_<index>`, and its log and its cell are found the same way.
    assert "#SBATCH --array=0-0%1" in lines(experiment)


def test_jobs_wait_for_others_to_end_well_or_not(experiment):
    text = plain(lines(experiment, after=["12_0", "13_4"]))
    assert "#SBATCH --dependency=afterany:12_0:13_4" in text


def test_a_fraction_of_a_gigabyte_is_not_rounded_away(experiment):
    assert "#SBATCH --mem=102M" in lines(experiment, resources=Resources(mem_gb=0.1))


def test_no_memory_is_never_asked_for(experiment):
    # `--mem=0` means all of the node's memory.
    assert "#SBATCH --mem=1M" in lines(experiment, resources=Resources(mem_gb=0.0001))


def test_a_results_folder_may_have_spaces_in_its_name(experiment):
    text = lines(experiment, folder="my results")
    (srun,) = (line for line in text if line.startswith("srun"))
    assert shlex.split(srun)[-1] == "my results"


@pytest.mark.parametrize("name", sorted(file.stem for file in SITES.glob("*.yaml")))
def test_the_profiles_of_the_repository_make_scripts_that_are_bash(experiment, name):
    text = "\n".join(lines(experiment, load_site(name), Resources(gpus=1), ["1"], 3))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("time", "whole"),
    [
        ("00:00:01", 1),
        ("00:01:00", 1),
        ("00:59:59", 60),
        ("2:00:00", 120),
        ("1-00:00:00", 1440),
        ("10-01:01:01", 14462),
    ],
)
def test_times_are_rounded_up_to_minutes(time, whole):
    assert minutes(time) == whole


def test_one_array_is_one_kind_of_resources_and_loses_no_cell():
    small, large = Resources(), Resources(mem_gb=64)
    cells = [cell(seed=n, resources=large if n in (1, 3) else small) for n in range(5)]
    found = [(one.resources, [of.seed for of in one.cells]) for one in arrays(cells, 1000)]
    assert found == [(small, [0, 2, 4]), (large, [1, 3])]
    assert arrays([], 1000) == []


@pytest.mark.parametrize(("pack", "sizes"), [(1, [3, 3, 1]), (2, [6, 1])])
def test_an_array_has_no_more_tasks_than_the_site_allows(pack, sizes):
    cells = [cell(seed=n, resources=Resources(pack=pack)) for n in range(7)]
    found = arrays(cells, 3)
    assert [len(one.cells) for one in found] == sizes
    assert [of for one in found for of in one.cells] == cells
    assert all(len(one.tasks) <= 3 for one in found)


def test_a_task_has_its_cells_and_the_last_one_what_is_left():
    cells = [cell(seed=n, resources=Resources(pack=2)) for n in range(5)]
    assert [len(task) for task in Array(cells[0].resources, "", cells).tasks] == [2, 2, 1]


def test_cells_that_start_from_others_come_last_in_arrays_of_their_own():
    later = [cell(seed=0, needs=("x",)), cell(seed=1, needs=("x",))]
    found = in_order([*later, cell(seed=2)], 1000)
    assert [[one.seed for one in array.cells] for array in found] == [[2], [0, 1]]
