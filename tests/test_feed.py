"""Feeding a grid to Slurm: what is taken now, in which order, and what is said of the rest."""

from dataclasses import replace

import pytest
from fake_slurm import FakeSlurm
from making import cell, planned_grid

from spine_tasks.cell import Resources
from spine_tasks.cluster import read_cluster
from spine_tasks.errors import SiteError
from spine_tasks.feed import feed, share, throttle, waiting_arrays
from spine_tasks.sites import Site
from spine_tasks.states import State
from spine_tasks.submissions import submissions
from spine_tasks.submit import Setting

# As Slurm 22.05 says it.
POLICY = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, "
POLICY += "user's size and/or time limits)"
ACCOUNT = "Batch job submission failed: Invalid account or account/partition combination specified"
TIME = (
    "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)"
)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm on the PATH."""
    return FakeSlurm.on_path(tmp_path, monkeypatch)


@pytest.fixture
def setting(tmp_path):
    """A launch of an experiment that asks the site for at most 8 tasks at once."""
    experiment = planned_grid(tmp_path / "results")
    return Setting(experiment=experiment, site=Site(max_parallel=8), variables={})


def cluster(**limits):
    """The cluster of the recorded answers, with limits of its own."""
    return replace(read_cluster(), **limits)


def cells(count, **resources):
    """So many cells, of which none needs another."""
    return [cell(seed=seed, resources=Resources(**resources)) for seed in range(count)]


def submitted(slurm):
    """The number of tasks of each array in the queue, oldest first."""
    return [len(slurm.jobs[job]["tasks"]) for job in sorted(slurm.jobs, key=int)]


def throttles(slurm):
    """What each array's tasks are limited to, oldest first."""
    texts = [(slurm.folder / f"{job}.sbatch").read_text() for job in sorted(slurm.jobs, key=int)]
    return [text.partition("%")[2].partition("\n")[0] for text in texts]


def test_all_cells_of_a_kind_are_one_array(slurm, setting):
    todo = cells(5)
    fed = feed(setting, cluster(), todo, {}, None)
    (job,) = slurm.jobs
    assert fed.jobs == {one.id: f"{job}_{index}" for index, one in enumerate(todo)}
    assert (fed.left, fed.why) == ([], "")
    assert throttles(slurm) == ["5"]


def test_packed_cells_have_the_task_that_computes_them(slurm, setting):
    todo = cells(3, pack=2)
    fed = feed(setting, cluster(), todo, {}, None)
    (job,) = slurm.jobs
    assert [fed.jobs[one.id] for one in todo] == [f"{job}_0", f"{job}_0", f"{job}_1"]


def test_no_array_is_larger_than_the_site_takes_and_no_cell_is_lost(slurm, setting):
    todo = cells(10)
    fed = feed(setting, cluster(max_array_size=4), todo, {}, None)
    assert submitted(slurm) == [4, 4, 2]
    assert list(fed.jobs) == [one.id for one in todo]
    indices = [int(job.partition("_")[2]) for job in fed.jobs.values()]
    assert indices == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_later_cells_wait_for_the_tasks_of_the_cells_that_they_need(slurm, setting):
    experiment = setting.experiment
    fed = feed(setting, cluster(), experiment.everything, {}, None)
    first, later = (slurm.jobs[job] for job in sorted(slurm.jobs, key=int))
    assert (len(first["tasks"]), len(later["tasks"])) == (3, 2)
    assert first["after"] == ""
    (needed,) = experiment.needed
    assert later["after"] == f"afterany:{fed.jobs[needed.id]}"


def test_a_needed_cell_that_is_under_way_is_waited_for_and_a_complete_one_is_not(slurm, setting):
    experiment = setting.experiment
    later = [one for one in experiment.cells if one.needs]
    (needed,) = experiment.needed
    feed(setting, cluster(), later, {needed.id: State("running", job="9_4")}, None)
    feed(setting, cluster(), later, {needed.id: State("complete")}, None)
    after = [slurm.jobs[job]["after"] for job in sorted(slurm.jobs, key=int)]
    assert after == ["afterany:9_4", ""]


@pytest.mark.parametrize(
    "limits", [{"max_job_count": 5}, {"max_submit": 5}, {"max_job_count": 50, "max_submit": 5}]
)
def test_what_the_site_has_no_room_for_is_left_and_said(slurm, setting, limits):
    slurm.put("7", "of-others", "RUNNING", "PENDING")
    todo = cells(9)
    fed = feed(setting, cluster(**limits), todo, {}, None)
    assert submitted(slurm) == [2, 3]
    assert fed.left == todo[3:]
    assert list(fed.jobs) == [one.id for one in todo[:3]]
    assert fed.why == "the site takes no more jobs at the moment"


def test_where_the_site_is_full_nothing_is_submitted(slurm, setting):
    slurm.put("7", "of-others", *["RUNNING"] * 6)
    todo = cells(2)
    fed = feed(setting, cluster(max_job_count=5), todo, {}, None)
    assert slurm.calls("sbatch") == []
    assert (fed.jobs, fed.left) == ({}, todo)


def test_room_is_counted_in_tasks_not_in_cells(slurm, setting):
    todo = cells(9, pack=3)
    fed = feed(setting, cluster(max_submit=2), todo, {}, None)
    assert submitted(slurm) == [2]
    assert fed.left == todo[6:]


def test_needed_cells_get_the_room_before_those_that_need_them(slurm, setting):
    experiment = setting.experiment
    everything = [*experiment.cells, *experiment.needed]
    fed = feed(setting, cluster(max_submit=4), everything, {}, None)
    assert experiment.needed[0].id in fed.jobs
    assert [bool(one.needs) for one in fed.left] == [True]


def test_of_a_limit_that_the_site_does_not_show_half_is_tried(slurm, setting):
    slurm.fail("sbatch", POLICY, times=2)
    todo = cells(8)
    fed = feed(setting, cluster(), todo, {}, None)
    assert submitted(slurm) == [2]
    assert fed.left == todo[2:]
    assert POLICY in fed.why
    assert [one.gone for one in submissions(setting.experiment.folder)] == [True, True, False]


def test_a_limit_that_takes_nothing_at_all_ends_and_leaves_everything(slurm, setting):
    slurm.fail("sbatch", POLICY, times=100)
    todo = cells(8)
    fed = feed(setting, cluster(), todo, {}, None)
    assert (fed.jobs, fed.left) == ({}, todo)
    assert len(slurm.calls("sbatch")) == 4  # 8, 4, 2, 1


@pytest.mark.parametrize("words", [ACCOUNT, TIME])
@pytest.mark.parametrize("name", ["grid", "limit_study"])
def test_a_refusal_that_asking_for_less_does_not_mend_is_an_error(slurm, tmp_path, words, name):
    setting = Setting(experiment=planned_grid(tmp_path, name), site=Site(), variables={})
    slurm.fail("sbatch", words)
    with pytest.raises(SiteError, match="Slurm does not take 4 cells"):
        feed(setting, cluster(), cells(4), {}, None)
    assert len(slurm.calls("sbatch")) == 1


def test_what_the_cluster_can_never_run_is_refused_before_anything_is_submitted(slurm, setting):
    todo = [*cells(2), cell(seed=9, resources=Resources(cpus=2000))]
    with pytest.raises(SiteError, match="2000 CPUs"):
        feed(setting, cluster(), todo, {}, None)
    assert slurm.calls("sbatch") == []


def test_packed_cells_must_fit_on_a_node_together(slurm, setting):
    with pytest.raises(SiteError, match="1200 CPUs"):
        feed(setting, cluster(), cells(4, cpus=300, pack=4), {}, None)
    assert slurm.calls("sbatch") == []


@pytest.mark.parametrize(("asked", "each"), [(None, "4"), (6, "3"), (1, "1")])
def test_arrays_share_what_may_run_at_once(slurm, setting, asked, each):
    feed(setting, cluster(max_array_size=10), cells(20), {}, asked)
    assert throttles(slurm) == [each, each]


def test_arrays_that_wait_already_give_up_a_part_of_their_share(slurm, setting):
    feed(setting, cluster(), cells(20), {}, None)
    todo = [cell(seed=seed) for seed in range(20, 40)]
    feed(setting, cluster(), todo, {}, None)
    old, new = sorted(slurm.jobs, key=int)
    assert throttles(slurm) == ["8", "4"]
    updates = slurm.calls("scontrol", "update")
    assert [f"jobid={old}", "ArrayTaskThrottle=4"] in [call[2:] for call in updates]
    assert [f"jobid={new}", "ArrayTaskThrottle=4"] in [call[2:] for call in updates]


def test_only_arrays_of_this_experiment_that_have_tasks_waiting_are_throttled(slurm, setting):
    feed(setting, cluster(max_array_size=2), cells(6), {}, None)
    first, second, third = sorted(slurm.jobs, key=int)
    slurm.put(first, slurm.jobs[first]["name"], "RUNNING", "RUNNING")
    slurm.put(second, slurm.jobs[second]["name"], "RUNNING", "PENDING")
    slurm.put("7", "of-another", "PENDING")
    assert waiting_arrays(setting.experiment) == [second, third]
    assert throttle(setting.experiment, 4) == [second, third]
    told = [call[2:] for call in slurm.calls("scontrol", "update")][-2:]
    assert told == [[f"jobid={one}", "ArrayTaskThrottle=2"] for one in (second, third)]


def test_each_array_runs_at_least_one_task():
    assert share(3, 7) == 1
    assert share(7, 0) == 7
