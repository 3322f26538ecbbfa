"""What is handed to Slurm: the text, recorded, and the parameters it is made from."""

import difflib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from making import cell, command

from spine_tasks.cell import Resources
from spine_tasks.sites import Site, load_site
from spine_tasks.submit import batches, minutes, parameters, script

RECORDED = Path(__file__).parent / "recorded" / "gm_transfer.sbatch"


def lines(site=None, resources=None, after=(), count=1):
    asked = parameters("name", site or Site(), resources or Resources(), after)
    return script(Path("folder"), asked, count).splitlines()


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The sbatch scripts that a dry run of gm_transfer shows, without this machine's paths."""
    results = tmp_path_factory.mktemp("results")
    flags = ("--grid", "gm_transfer", "--site", "example", "--dry-run", "--json")
    answer = command("launch", *flags, "--results", results)
    assert answer.returncode == 0, answer.stderr
    texts = json.loads(answer.stdout)["scripts"]
    return [t.replace(str(results), "RESULTS").replace(sys.executable, "PYTHON") for t in texts]


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


def test_what_a_cell_asks_for_stands_in_the_script():
    resources = Resources(gpus=2, cpus=7, mem_gb=1.5, time="1-00:00:01")
    text = lines(Site(gres="gpu:a100:{gpus}"), resources)
    for line in ("--gres=gpu:a100:2", "--cpus-per-task=7", "--mem=1536M", "--time=1441"):
        assert f"#SBATCH {line}" in [one.replace("'", "") for one in text]


def test_a_step_gets_the_cpus_of_its_job():
    (srun,) = (line for line in lines(resources=Resources(cpus=7)) if line.startswith("srun"))
    assert "--cpus-per-task=7" in srun


def test_what_the_site_says_stands_in_the_script():
    site = Site(partition="p", account="a", qos="q", constraint="c", signal_lead_s=77)
    text = lines(site)
    for line in ("partition=p", "account=a", "qos=q", "constraint=c", "signal=USR2@77"):
        assert f"#SBATCH --{line}" in text


def test_what_neither_says_is_left_to_the_cluster():
    text = "\n".join(lines())
    for flag in ("partition", "account", "qos", "constraint", "gres", "dependency", "array"):
        assert f"--{flag}" not in text


def test_a_job_is_requeued_and_its_log_appended_to():
    text = lines()
    assert "#SBATCH --requeue" in text
    assert "#SBATCH --open-mode=append" in text


def test_set_up_lines_come_before_the_command_and_end_the_job_where_they_fail():
    text = lines(Site(setup=["module load cuda", "source env"]))
    first = text.index("set -eo pipefail")
    assert text[first : first + 3] == ["set -eo pipefail", "module load cuda", "source env"]
    assert first + 2 < next(n for n, line in enumerate(text) if line.startswith("srun"))


def test_several_cells_are_one_array_throttled_by_the_site():
    assert "#SBATCH --array=0-11%4" in lines(Site(max_parallel=4), count=12)
    assert "#SBATCH --array=0-2%3" in lines(Site(max_parallel=256), count=3)


def test_jobs_wait_for_others_to_end_well_or_not():
    text = [line.replace("'", "") for line in lines(after=["12", "13"])]
    assert "#SBATCH --dependency=afterany:12:13" in text


def test_one_array_is_one_kind_of_resources_and_loses_no_cell():
    small, large = Resources(), Resources(mem_gb=64)
    cells = [cell(seed=n, resources=large if n in (1, 3) else small) for n in range(5)]
    assert [(r, f, [one.seed for one in group]) for r, f, group in batches(cells)] == [
        (small, "tensorflow", [0, 2, 4]),
        (large, "tensorflow", [1, 3]),
    ]
    assert batches([]) == []


def test_a_fraction_of_a_gigabyte_is_not_rounded_away():
    assert parameters("n", Site(), Resources(mem_gb=0.1))["mem"] == "102M"


def test_a_results_folder_may_have_spaces_in_its_name():
    text = script(Path("my results"), parameters("n", Site(), Resources()), 1).splitlines()
    (srun,) = (line for line in text if line.startswith("srun"))
    assert shlex.split(srun)[-1] == "my results"


def test_no_memory_is_never_asked_for():
    # `--mem=0` means all of the node's memory.
    assert parameters("n", Site(), Resources(mem_gb=0.0001))["mem"] != "0M"


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


@pytest.mark.parametrize("name", ["default", "example", "dev_cluster"])
def test_the_profiles_of_the_repository_make_scripts_that_are_bash(name):
    text = "\n".join(lines(load_site(name), Resources(gpus=1), ["1"], 3))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
