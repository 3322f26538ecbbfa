"""How long is left and what was used, by arithmetic that a person can repeat."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from making import attempt_on_node as record
from making import cell, planned_grid

from spine_tasks import eta
from spine_tasks.cell import Resources
from spine_tasks.cost import Cost, cost, gpus_of, total
from spine_tasks.eta import Progress, Watcher, grid_left_s, left_s, summary, totals
from spine_tasks.experiment import create
from spine_tasks.files import write_json
from spine_tasks.run import Run
from spine_tasks.states import State

TEN = cell({"epochs": 10})
BEGUN = datetime.fromisoformat("2026-01-01T10:00:00+00:00")


def at(seconds):
    return (BEGUN + timedelta(seconds=seconds)).isoformat()


def attempts(*records):
    """Records of (event, seconds since the beginning, details)."""
    return [{"event": event, "time": at(when), **more} for event, when, more in records]


def history(*seconds):
    return [{"epoch": n, "loss": 1.0, "seconds": one} for n, one in enumerate(seconds)]


def on_gpus(**resources):
    return replace(TEN, resources=Resources(gpus=1, time="01:00:00") if not resources else
                   Resources(**resources))  # fmt: skip


def progress(name, kind, left=None, took=0.0, needs=(), **state):
    one = replace(TEN, seed=name, needs=needs)
    return Progress(one, State(kind, **state), Cost(seconds=took), left)


def test_the_epochs_left_are_counted_at_the_pace_of_the_last_ones():
    assert left_s(TEN, history(5.0, 5.0, 5.0)) == 35
    assert left_s(TEN, history(5.0, 5.0, 5.0), since_s=4.0) == 31
    # Not more than an epoch is taken off: a cell that was waiting did not train meanwhile.
    assert left_s(TEN, history(5.0, 5.0, 5.0), since_s=1e6) == 30
    long = cell({"epochs": 40})
    assert left_s(long, history(1000.0, *[2.0] * 10)) == 29 * 2  # the slow first is forgotten
    assert left_s(TEN, history(*[5.0] * 10)) == 0


def test_nothing_is_said_where_nothing_is_known():
    assert left_s(TEN, []) is None
    assert left_s(TEN, [{"epoch": 0, "loss": 1.0}]) is None  # without seconds
    assert left_s(replace(TEN, job="drill", config=object()), history(5.0)) is None
    assert grid_left_s([progress(0, "waiting", 10.0)], lambda _: 10.0) is None  # nothing runs
    both = [progress(0, "running", 10.0), progress(1, "waiting")]
    assert grid_left_s(both, lambda _: None) is None


def test_what_waits_follows_on_the_first_that_is_free():
    cells = [progress(0, "running", 10.0), progress(1, "running", 30.0)]
    cells += [progress(n, "waiting") for n in (2, 3, 4)]
    # By hand: 2 on 10-35, 3 on 30-55, 4 on 35-60.
    assert grid_left_s(cells, lambda _: 25.0) == 60


def test_a_cell_begins_only_after_what_it_needs():
    first, other = progress(0, "running", 100.0), progress(1, "running", 1.0)
    second = progress(2, "waiting", needs=(first.cell.id,))
    assert grid_left_s([first, other, second], lambda _: 5.0) == 105


@pytest.mark.parametrize(
    "state", [{"kind": "failed"}, {"kind": "complete"}, {"kind": "interrupted", "cancelled": True}]
)
def test_what_nobody_will_start_is_not_waited_for(state):
    kind = state.pop("kind")
    cells = [progress(0, "running", 10.0), progress(1, kind, **state)]
    assert grid_left_s(cells, lambda _: 1000.0) == 10


def test_a_cell_not_begun_takes_what_complete_ones_of_its_arm_did():
    def arm(name, kind, took, left=None):
        return replace(progress(name, kind, left, took), cell=replace(TEN, arm={"a": name}))

    expected = eta._expected([arm(1, "complete", 10.0), arm(1, "complete", 20.0),
                              arm(2, "complete", 90.0), arm(3, "running", 1.0, 400.0)])  # fmt: skip
    assert expected(replace(TEN, arm={"a": 1})) == 15
    assert expected(replace(TEN, arm={"a": 3})) == 40  # none complete: all of the job
    assert expected(replace(TEN, job="other")) is None
    alone = eta._expected([arm(3, "running", 1.0, 400.0)])
    assert alone(replace(TEN, arm={"a": 1})) == 401  # none is complete: what one is on the way to


def test_gpu_hours_are_those_of_the_share_of_a_cell():
    one = [("started", 0, {"job_id": "7_0"}), ("complete", 1800, {"seconds": 1800.0})]
    assert cost(on_gpus(), attempts(*one), running=False) == Cost(1800, 0.5, 1.0)
    many = on_gpus(gpus=2, nodes=3, time="00:10:00")
    assert gpus_of(many) == 6
    assert cost(many, attempts(*one), running=False) == Cost(1800, 3.0, 1.0)
    packed = on_gpus(gpus=1, pack=4, time="1-00:00:00")
    assert cost(packed, attempts(*one), running=False) == Cost(1800, 0.125, 6.0)
    assert cost(on_gpus(gpus=0), attempts(*one), running=False) == Cost(1800, 0.0, 0.0)


def test_every_attempt_counts_once_whatever_ended_it():
    records = attempts(
        ("started", 0, {"job_id": "7_0"}), ("refused", 5, {"job_id": "8_0"}),
        ("killed", 100, {"job_id": "7_0"}),  # says no seconds: by the clock
        ("started", 500, {"job_id": "7_0"}), ("interrupted", 700, {"seconds": 190.0}),
        ("cancelled", 701, {}),  # of an attempt that has ended
        ("started", 800, {"job_id": "9_0"}),  # its node was lost
        ("started", 5000, {"job_id": "9_0"}),
    )  # fmt: skip
    now = BEGUN + timedelta(seconds=5060)
    assert cost(on_gpus(), records, True, now) == Cost(350, 350 / 3600, 4.0, unknown=1)
    assert cost(on_gpus(), records, False, now) == Cost(290, 290 / 3600, 4.0, unknown=2)
    early = BEGUN - timedelta(seconds=60)  # the node's clock is ahead
    assert cost(on_gpus(), records[:1], True, early).seconds == 0


def test_a_machine_without_a_gpu_used_none(tmp_path):
    records = attempts(("started", 0, {"job_id": None}), ("complete", 3600, {"seconds": 3600.0}))
    write_json(tmp_path / "environment.json", {"gpus": []})
    assert cost(on_gpus(), records, False, folder=tmp_path) == Cost(3600, 0.0, 0.0)
    write_json(tmp_path / "environment.json", {"gpus": ["H100"]})
    assert cost(on_gpus(), records, False, folder=tmp_path) == Cost(3600, 1.0, 0.0)


def test_costs_add_up():
    assert total([Cost(1, 2, 3, 4), Cost(10, 20, 30, 40)]) == Cost(11, 22, 33, 44)
    assert total([]) == Cost()


@pytest.fixture
def experiment(tmp_path):
    planned = planned_grid(tmp_path, **{"epochs": 10})
    create(planned, [])
    return planned


def test_a_look_reads_real_folders(experiment):
    needed, running, waiting, *_ = experiment.everything
    run = experiment.run(running)
    record(run, "started", time=at(0))
    for one in history(60.0, 60.0):
        run.add_history(**one)
    record(experiment.run(needed), "started", time=at(0))
    record(experiment.run(needed), "complete", seconds=30.0)
    found = dict.fromkeys((one.id for one in experiment.everything), State("complete"))
    found |= {running.id: State("running"), waiting.id: State("waiting")}
    view = Watcher(experiment).look(found)
    assert 8 * 60 - 60 <= view.progress[running.id].left_s <= 8 * 60
    assert view.progress[needed.id].left_s is None
    # Nothing of its arm is complete, but the needed cell is one of the same job: 30 s.
    assert view.left_s == pytest.approx(view.progress[running.id].left_s + 30, abs=1)
    said = totals(view)
    assert said["states"] == {"complete": 3, "running": 1, "waiting": 1}
    assert said["left_s"] == view.left_s
    [line] = summary(view)
    assert line.startswith(("about 7 min left", "about 8 min left"))


def test_only_files_that_changed_are_read_again(experiment, monkeypatch):
    cells = experiment.everything
    for one in cells:
        record(experiment.run(one), "started", time=at(0))
        record(experiment.run(one), "complete", seconds=30.0)
    read = []
    of_run = Run.attempts
    monkeypatch.setattr(Run, "attempts", lambda run: read.append(run.folder.name) or of_run(run))
    watcher = Watcher(experiment)
    found = dict.fromkeys((one.id for one in cells), State("complete"))
    assert watcher.look(found).cost.seconds == 150
    assert sorted(read) == sorted(found)
    assert watcher.look(found).cost.seconds == 150
    assert len(read) == len(cells)
    record(experiment.run(cells[0]), "started", time=at(100))
    record(experiment.run(cells[0]), "complete", seconds=5.0)
    assert watcher.look(found).cost.seconds == 155
    assert read[len(cells) :] == [cells[0].id]


def test_no_history_of_a_complete_cell_is_read_for_a_look(experiment, monkeypatch):
    for one in experiment.everything:
        experiment.run(one).add_history(epoch=0, loss=1.0, seconds=1.0)
    monkeypatch.setattr(Run, "history", lambda _: pytest.fail("read"))
    found = dict.fromkeys((one.id for one in experiment.everything), State("complete"))
    Watcher(experiment).look(found)
