"""Submission: each array exactly once, wherever a launcher is killed and whatever Slurm says."""

import multiprocessing
import pickle
from collections import Counter

import pytest
from fake_slurm import FakeSlurm
from making import planned_grid

from spine_tasks import submit as submitting
from spine_tasks.errors import RunError, SiteError
from spine_tasks.sites import Site
from spine_tasks.submissions import begin, folder_of, note, read_tasks, submissions
from spine_tasks.submit import Array, Setting, finish_begun, submit, tasks_of

TIMED_OUT = "Batch job submission failed: Socket timed out on send/recv operation"
REFUSED = "Batch job submission failed: Invalid account or account/partition combination specified"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm on the PATH."""
    return FakeSlurm.on_path(tmp_path, monkeypatch)


def setting_of(experiment, site=None, **changes):
    fields = {"variables": {"SPINE_CODE": "/code"}} | changes
    return Setting(experiment=experiment, site=site or Site(), **fields)


def of(experiment, *numbers):
    """An array of some of the experiment's cells."""
    cells = [experiment.everything[number] for number in numbers]
    return Array(cells[0].resources, "tensorflow", cells)


def test_what_the_tasks_compute_is_what_the_node_is_told(tmp_path):
    experiment = planned_grid(tmp_path)
    site = Site(umask="0007", stage=True, stage_to="/local", python={"tensorflow": "/tf/python"})
    tasks = tasks_of(setting_of(experiment, site), of(experiment, 1, 2))
    assert tasks.cells == [[one.id] for one in experiment.everything[1:3]]
    assert (tasks.worker, tasks.umask, tasks.stage_to) == (["/tf/python"], 0o007, "/local")
    assert tasks.mem_gb == experiment.cells[0].resources.mem_gb


def test_an_array_is_held_until_all_is_on_disk_and_then_let_start(slurm, tmp_path):
    experiment = planned_grid(tmp_path)
    job = submit(setting_of(experiment), of(experiment, 0, 1), ["7_0"], 4)
    (known,) = submissions(experiment.folder)
    assert (known.job, known.released) == (job, True)
    assert known.tasks.cells == [[one.id] for one in experiment.everything[:2]]
    assert slurm.jobs[job] == {
        "name": known.name,
        "after": "afterany:7_0",
        "tasks": {"0": ["PENDING", "None"], "1": ["PENDING", "None"]},
    }
    assert slurm.calls("sbatch") == [["sbatch", "--parsable", "--hold"]]
    folder = folder_of(experiment.folder, known.name)
    script = (folder / "submission.sh").read_text()
    assert script == (slurm.folder / f"{job}.sbatch").read_text()
    for index in (0, 1):  # what submitit looks for on the node, and calls with the folder
        delayed = pickle.loads((folder / f"{job}_{index}_submitted.pkl").read_bytes())
        assert (type(delayed.function).__name__, delayed.args) == ("Supervise", (str(folder),))


def test_two_arrays_never_have_one_name(slurm, tmp_path):
    experiment = planned_grid(tmp_path)
    for number in range(3):
        submit(setting_of(experiment), of(experiment, number), [], 4)
    assert len({one["name"] for one in slurm.jobs.values()}) == 3


def stop_at(slurm, monkeypatch, *beginning):
    """What is on disk when a command of Slurm is about to be given."""
    seen = []
    real = submitting.slurm.ask_once

    def look(*command, **more):
        if command[: len(beginning)] == beginning:
            seen.append({file.name for file in slurm.folder.parent.rglob("*")})
        return real(*command, **more)

    monkeypatch.setattr(submitting.slurm, "ask_once", look)
    return seen


def test_the_intent_and_the_tasks_are_on_disk_before_sbatch_is_called(slurm, tmp_path, monkeypatch):
    seen = stop_at(slurm, monkeypatch, "sbatch")
    experiment = planned_grid(tmp_path)
    submit(setting_of(experiment), of(experiment, 0), [], 4)
    assert {"submissions.jsonl", "tasks.json", "submission.sh"} <= seen[0]


def test_what_the_node_needs_is_on_disk_before_the_array_may_start(slurm, tmp_path, monkeypatch):
    seen = stop_at(slurm, monkeypatch, "scontrol", "release")
    experiment = planned_grid(tmp_path)
    job = submit(setting_of(experiment), of(experiment, 0, 1), [], 4)
    assert {f"{job}_0_submitted.pkl", f"{job}_1_submitted.pkl"} <= seen[0]


def test_a_launcher_whose_place_was_taken_submits_nothing(slurm, tmp_path):
    def taken_over():
        raise RunError("taken over")

    experiment = planned_grid(tmp_path)
    with pytest.raises(RunError, match="taken over"):
        submit(setting_of(experiment, still_mine=taken_over), of(experiment, 0), [], 4)
    assert slurm.calls("sbatch") == []


def test_an_array_that_was_taken_though_slurm_timed_out_is_not_submitted_again(slurm, tmp_path):
    experiment = planned_grid(tmp_path)
    slurm.fail("sbatch", TIMED_OUT, when="after")
    job = submit(setting_of(experiment), of(experiment, 0, 1), [], 4)
    assert list(slurm.jobs) == [job]
    assert len(slurm.calls("sbatch")) == 1
    assert slurm.jobs[job]["tasks"]["0"] == ["PENDING", "None"]
    assert [(one.job, one.released) for one in submissions(experiment.folder)] == [(job, True)]


def test_a_refusal_is_said_in_slurms_words_and_leaves_nothing(slurm, tmp_path):
    experiment = planned_grid(tmp_path)
    slurm.fail("sbatch", REFUSED)
    with pytest.raises(SiteError) as error:
        submit(setting_of(experiment), of(experiment, 0, 1), [], 4)
    assert REFUSED in str(error.value)
    assert "Slurm does not take 2 cells of grid" in str(error.value)
    assert "correct the site profile" in str(error.value)
    assert slurm.jobs == {}
    assert [one.gone for one in submissions(experiment.folder)] == [True]
    assert finish_begun(experiment.folder) == []
    assert len(slurm.calls("sbatch")) == 1


def test_an_array_that_slurm_denied_and_has_later_never_starts(slurm, tmp_path):
    experiment = planned_grid(tmp_path)
    slurm.fail("sbatch", TIMED_OUT)
    with pytest.raises(SiteError):
        submit(setting_of(experiment), of(experiment, 0), [], 4)
    (known,) = submissions(experiment.folder)
    slurm.put("55", known.name, "PENDING", reason="JobHeldUser")
    slurm.put("56", "of-another", "PENDING")
    assert finish_begun(experiment.folder) == []
    assert list(slurm.jobs) == ["56"]


def test_where_slurm_does_not_answer_nothing_is_said_to_be_gone(slurm, tmp_path):
    experiment = planned_grid(tmp_path)
    slurm.fail("sbatch", TIMED_OUT, when="after")
    slurm.fail("squeue", "Unable to contact slurm controller (connect failure)")
    with pytest.raises(SiteError, match="out of reach"):
        submit(setting_of(experiment), of(experiment, 0), [], 4)
    assert submissions(experiment.folder)[0].begun
    (job,) = slurm.jobs
    assert finish_begun(experiment.folder) == [job]
    assert slurm.jobs[job]["tasks"]["0"] == ["PENDING", "None"]


def launch(experiment):
    """What a launch does for two cells: first what was begun, then what nobody computes."""
    finish_begun(experiment.folder)
    known = submissions(experiment.folder)
    there = {of for one in known if one.released for task in one.tasks.cells for of in task}
    for number in (0, 1):
        if experiment.everything[number].id not in there:
            submit(setting_of(experiment), of(experiment, number), [], 4)


def killed(experiment):
    """Launch in a process that a command of Slurm may kill; return whether it did."""
    process = multiprocessing.get_context("fork").Process(target=launch, args=(experiment,))
    process.start()
    process.join()
    return process.exitcode != 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", ["sbatch", "scontrol release"])
@pytest.mark.parametrize("again", [False, True])
def test_a_launcher_killed_at_any_call_leaves_each_cell_in_one_array(
    slurm, tmp_path, at, when, again
):
    experiment = planned_grid(tmp_path)
    if again:  # the first array is whole, the launcher dies of the second
        submit(setting_of(experiment), of(experiment, 0), [], 4)
    slurm.fail(at, when=when, kill=True)
    assert killed(experiment)
    launch(experiment)
    launch(experiment)
    known = submissions(experiment.folder)
    cells = [
        task
        for one in known
        if one.job in slurm.jobs
        for task in read_tasks(folder_of(experiment.folder, one.name)).cells
    ]
    assert Counter(map(tuple, cells)) == {(one.id,): 1 for one in experiment.everything[:2]}
    assert len(slurm.jobs) == 2
    for job in slurm.jobs.values():
        assert job["tasks"] == {"0": ["PENDING", "None"]}
    assert not any(one.begun for one in known)


def test_a_launcher_killed_while_it_finishes_what_was_begun_finishes_it_the_next_time(
    slurm, tmp_path
):
    experiment = planned_grid(tmp_path)
    slurm.fail("scontrol release", when="before", kill=True, times=3)
    for _ in range(3):
        assert killed(experiment)
    launch(experiment)
    assert len(slurm.jobs) == 2
    assert len(slurm.calls("sbatch")) == 2


@pytest.mark.parametrize("states", [("ENDED", "RUNNING"), ("RUNNING", "PENDING")])
def test_an_array_that_runs_already_is_finished_without_an_error(slurm, tmp_path, states):
    # The launcher was killed between the release and its record, and hours have passed. Slurm
    # refuses to release an array of which a task has ended.
    experiment = planned_grid(tmp_path)
    tasks = tasks_of(setting_of(experiment), of(experiment, 0, 1))
    begin(experiment.folder, "grid-1", tasks)
    note(experiment.folder, "grid-1", job="7")
    slurm.put("7", "grid-1", *states)
    finish_begun(experiment.folder)
    assert submissions(experiment.folder)[0].released


def test_an_array_that_has_ended_meanwhile_is_not_gone(slurm, tmp_path):
    experiment = planned_grid(tmp_path)
    begin(experiment.folder, "grid-1", tasks_of(setting_of(experiment), of(experiment, 0)))
    note(experiment.folder, "grid-1", job="7")
    assert finish_begun(experiment.folder) == []
    (known,) = submissions(experiment.folder)
    assert (known.released, known.gone) == (True, False)


def test_what_a_person_submits_is_not_submitted_by_a_launch(slurm, tmp_path):
    experiment = planned_grid(tmp_path)
    begin(experiment.folder, "grid-1", tasks_of(setting_of(experiment), of(experiment, 0)))
    note(experiment.folder, "grid-1", by_hand=True)
    assert finish_begun(experiment.folder) == []
    assert [one.gone for one in submissions(experiment.folder)] == [False]
    assert slurm.calls() == []
