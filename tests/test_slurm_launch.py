"""A launch on Slurm and what `--wait` does until the end, told as stories of a cluster."""

import json
from types import SimpleNamespace

import pytest
from fake_slurm import FakeSlurm
from making import attempt_on_node, hand_over

from spine_tasks import launch as launching
from spine_tasks import slurm_launch
from spine_tasks.errors import ConfigError
from spine_tasks.experiment import opened
from spine_tasks.files import write_json
from spine_tasks.submissions import submissions


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm on the PATH."""
    return FakeSlurm.on_path(tmp_path, monkeypatch)


class Story:
    """A grid on a cluster: what happens at each look of a waiting launcher."""

    def __init__(self, slurm, folder, data):
        self.slurm = slurm
        self.folder = folder
        (folder / "site.yaml").write_text("max_parallel: 8\n")
        settings = ("seeds=1", "resources.mem_gb=0.1", f"data={data}")
        self.flags = ["--grid", "gm_transfer", "--preset", "demo", "--site", folder / "site.yaml"]
        self.flags += ["--results", folder / "results"]
        self.flags += [word for one in settings for word in ("--set", one)]

    def launch(self, *more):
        """Launch; return the exit code."""
        words = [str(word) for word in (*self.flags, *more)]
        return launching.launch(launching._parser().parse_args(words))

    @property
    def experiment(self):
        return opened("gm_transfer", self.folder / "results")

    def run(self, number):
        """The run of one of the cells: the needed one, two that need none, two that need it."""
        return self.experiment.run(self.experiment.everything[number])

    def complete(self, *numbers):
        for number in numbers:
            write_json(self.run(number).folder / "done.json", {})
            self.run(number).scores.write_text("")

    def gone(self):
        """Every job has left the queue."""
        for job in self.slurm.jobs:
            self.slurm.remove(job)

    def submitted(self):
        """The numbers of the cells in each array in the queue, oldest first."""
        place = {cell.id: number for number, cell in enumerate(self.experiment.everything)}
        cells = {one.job: one.tasks.cells for one in submissions(self.experiment.folder)}
        queue = sorted(self.slurm.jobs, key=int)
        return [[place[cell] for task in cells[job] for cell in task] for job in queue]


@pytest.fixture
def story(slurm, tmp_path, data):
    return Story(slurm, tmp_path, data)


@pytest.fixture
def happens(monkeypatch):
    """Say what happens between the looks of a waiting launcher; after the last it must end."""

    def say(*events):
        left = list(events)

        def sleep(_seconds):
            assert left, "the launcher goes on waiting"
            left.pop(0)()

        clock = iter(range(10**6))
        # Each look is so late that Slurm is asked for more again.
        late = SimpleNamespace(sleep=sleep, monotonic=lambda: next(clock) * slurm_launch.FEED_S * 2)
        monkeypatch.setattr(slurm_launch, "time", late)
        return left

    return say


def test_a_grid_is_submitted_once_and_said(story, capsys):
    assert story.launch() == 0
    assert story.submitted() == [[0, 1, 2], [3, 4]]
    said = capsys.readouterr().out
    assert "gm_transfer: 5 waiting" in said
    assert "submitted as Slurm job 101, 102" in said
    assert story.launch() == 0
    assert "nothing to start" in capsys.readouterr().out
    assert story.submitted() == [[0, 1, 2], [3, 4]]


def test_a_dry_run_submits_nothing_and_writes_nothing(story, slurm, capsys):
    slurm.fail("sbatch", "", when="never")
    story.launch("--dry-run", "--json")
    assert json.loads(capsys.readouterr().out)["to_start"] == 5
    assert not (story.folder / "results").exists()
    assert all("--test-only" in words for words in slurm.calls("sbatch"))


def test_what_a_killed_launcher_began_is_finished_and_said(story, slurm, capsys):
    assert story.launch() == 0
    cells = story.experiment.everything
    hand_over(story.experiment.folder, "gm_transfer-x", None, *[[cell] for cell in cells])
    story.gone()
    slurm.put("7", "gm_transfer-x", *["PENDING"] * 5, reason="JobHeldUser")
    capsys.readouterr()
    assert story.launch() == 0
    said = capsys.readouterr().out
    assert "finished the submission of job 7" in said
    assert slurm.jobs["7"]["tasks"]["4"] == ["PENDING", "None"]
    assert list(slurm.jobs) == ["7"]


def test_the_number_of_tasks_at_once_can_be_changed_later(story, slurm, capsys):
    story.launch()
    story.launch("--max-parallel", "4")
    assert "job 101, 102: at most 4 tasks at once from now on" in capsys.readouterr().out
    told = [call[2:] for call in slurm.calls("scontrol", "update")]
    assert told == [[f"jobid={job}", "ArrayTaskThrottle=2"] for job in ("101", "102")]


def test_waiting_ends_when_every_cell_is_complete(story, happens):
    left = happens(lambda: None, lambda: (story.complete(0, 1, 2, 3, 4), story.gone()))
    assert story.launch("--wait") == 0
    assert left == []


def test_what_was_lost_is_submitted_again_also_where_its_needed_cell_is_complete(story, happens):
    seen = []
    happens(
        lambda: (story.complete(0, 1, 2), story.gone()),
        lambda: (seen.append(story.submitted()), story.complete(3, 4), story.gone()),
    )
    assert story.launch("--wait") == 0
    assert seen == [[[3, 4]]]


def test_what_was_lost_while_its_needed_cell_runs_waits_for_that(story, slurm, happens):
    def lose_the_second_array():
        slurm.put("101", slurm.jobs["101"]["name"], "RUNNING", "RUNNING", "RUNNING")
        slurm.remove("102")

    seen = []
    happens(
        lose_the_second_array,
        lambda: (
            seen.append([one["after"] for one in slurm.jobs.values()]),
            story.complete(0, 1, 2, 3, 4),
            story.gone(),
        ),
    )
    assert story.launch("--wait") == 0
    assert seen == [["", "afterany:101_0"]]


def test_waiting_ends_where_a_needed_cell_has_failed(story, happens):
    def fail():
        story.complete(1, 2)
        attempt_on_node(story.run(0), "failed", error="bad", cause="code", job="101_0")
        story.gone()

    happens(fail)
    assert story.launch("--wait") == 1
    assert story.submitted() == []


def test_waiting_ends_after_the_same_error_in_several_cells(story, happens):
    def stop():
        story.complete(0, 1)
        write_json(story.experiment.folder / "stopped.json", {"why": "3 cells failed alike"})
        story.gone()

    happens(stop)
    assert story.launch("--wait") == 1
    assert story.submitted() == []


def test_what_somebody_cancelled_is_not_started_again_nor_what_needs_it(story, slurm, happens):
    def cancel():
        story.complete(1, 2)
        attempt_on_node(story.run(0), "cancelled", job="101_0")
        slurm.ended(j102_0="COMPLETED", j102_1="COMPLETED")
        story.gone()

    happens(cancel)
    assert story.launch("--wait") == 1
    assert story.submitted() == []


def test_what_the_site_does_not_take_at_first_is_submitted_when_it_does(story, slurm, happens):
    config = (slurm.folder / "config.json").read_text()
    (slurm.folder / "config.json").write_text(config.replace("= 10000", "= 2"))
    seen = []

    def run_what_is_there():
        seen.append(story.submitted())
        story.complete(*(number for cells in seen[-1] for number in cells))
        story.gone()

    happens(*[run_what_is_there] * 3)
    assert story.launch("--wait") == 0
    assert seen == [[[0, 1]], [[2], [3]], [[4]]]


def test_one_look_does_not_submit_what_another_just_did(story, slurm, happens):
    happens(lambda: None, lambda: (story.complete(0, 1, 2, 3, 4), story.gone()))
    assert story.launch("--wait") == 0
    assert len(slurm.calls("sbatch")) == 2


def test_what_a_person_submits_cannot_be_waited_for(story, slurm, happens):
    happens()
    with pytest.raises(ConfigError, match="--export-sbatch"):
        story.launch("--export-sbatch", story.folder / "scripts", "--wait")
    assert not (story.folder / "scripts").exists()


@pytest.mark.parametrize("tasks", ["0", "-1"])
def test_at_least_one_task_must_be_let_run(story, tasks):
    with pytest.raises(ConfigError, match="--max-parallel must be at least 1"):
        story.launch("--max-parallel", tasks)
