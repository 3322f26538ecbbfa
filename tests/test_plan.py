"""What a launch starts, with how much memory, and what it says."""

import json
from dataclasses import replace

import pytest
from making import attempt_on_node, planned_grid, small_data

from spine_tasks import board
from spine_tasks.causes import Cause, stopped
from spine_tasks.cell import Resources
from spine_tasks.errors import ConfigError, DataError, RunError
from spine_tasks.files import write_json
from spine_tasks.plan import make_ready, raised, report, to_start, with_needed
from spine_tasks.states import State, states

MEMORY = State("failed", "killed", cause=Cause("host memory", "killed"))


@pytest.fixture
def experiment(tmp_path):
    return planned_grid(tmp_path / "results")


def found(experiment, *kinds):
    """States of the needed cell and then of the grid's own, in their order."""
    return {cell.id: State(kind) for cell, kind in zip(experiment.everything, kinds, strict=True)}


def numbers(experiment, cells):
    """The places of cells in the experiment; 0 is the needed one, 3 and 4 need it."""
    return [experiment.everything.index(cell) for cell in cells]


@pytest.mark.parametrize(
    ("kinds", "retry_failed", "start"),
    [
        (["new"] * 5, False, [0, 1, 2, 3, 4]),
        (["complete"] * 5, False, []),
        (["complete", "waiting", "running", "interrupted", "new"], False, [3, 4]),
        (["new", "new", "failed", "new", "failed"], False, [0, 1, 3]),
        (["new", "new", "failed", "new", "failed"], True, [0, 1, 2, 3, 4]),
        (["failed", "new", "new", "new", "new"], False, [1, 2]),  # what needs it waits with it
        (["failed", "new", "new", "new", "new"], True, [0, 1, 2, 3, 4]),
        (["running", "new", "new", "new", "new"], False, [1, 2, 3, 4]),
        (["waiting", "waiting", "waiting", "new", "failed"], True, [3, 4]),
        (["interrupted", "complete", "complete", "new", "complete"], False, [0, 3]),
    ],
)
def test_what_is_started(experiment, kinds, retry_failed, start):
    todo = to_start(experiment, experiment.everything, found(experiment, *kinds), retry_failed)
    assert numbers(experiment, todo) == start


def test_of_a_part_of_the_grid_only_what_it_needs_is_added(experiment):
    needed, *cells = experiment.everything
    assert with_needed(experiment, cells[:2]) == cells[:2]
    assert with_needed(experiment, cells[3:]) == [needed, cells[3]]


def test_after_the_same_error_in_several_cells_only_what_has_begun_is_started(experiment):
    write_json(experiment.folder / "stopped.json", {"why": "3 cells failed alike"})
    kinds = found(experiment, "complete", "new", "failed", "interrupted", "new")
    assert numbers(experiment, to_start(experiment, experiment.everything, kinds, False)) == [3]
    todo = to_start(experiment, experiment.everything, kinds, True)
    assert numbers(experiment, todo) == [1, 2, 3, 4]


def test_a_cell_that_had_too_little_memory_gets_more_and_others_do_not(experiment):
    first, second = experiment.cells[:2]
    states_ = {first.id: MEMORY, second.id: State("failed", cause=Cause("code", "bad"))}
    asked = raised([first, second], states_, {}, 2)
    assert [one.resources.mem_gb for one in asked] == [0.2, 0.1]
    assert [one.id for one in asked] == [first.id, second.id]


def test_memory_is_raised_from_what_was_given_last_and_stays_so(experiment):
    cell = experiment.cells[0]
    given = {cell.id: 0.4}
    assert raised([cell], {cell.id: MEMORY}, given, 2)[0].resources.mem_gb == 0.8
    assert raised([cell], {cell.id: State("interrupted")}, given, 1)[0].resources.mem_gb == 0.4
    more = replace(cell, resources=Resources(mem_gb=1))  # asked for since
    assert raised([more], {cell.id: State("new")}, given, 1)[0].resources.mem_gb == 1


@pytest.mark.parametrize("factor", [0.5, 0, -1])
def test_memory_is_never_lowered(experiment, factor):
    with pytest.raises(ConfigError, match="--mem-factor must be at least 1"):
        raised(experiment.cells, {}, {}, factor)


def test_what_is_ready_to_start_has_its_folders(tmp_path, data):
    experiment = planned_grid(tmp_path, data=str(data))
    make_ready(experiment, experiment.cells[:1], False)
    assert (experiment.folder / "grid.yaml").exists()
    cells = sorted(file.parent.name for file in experiment.folder.glob("*/cell.json"))
    assert cells == [experiment.cells[0].id]


def test_missing_data_and_weights_are_found_before_anything_is_made(tmp_path):
    adults = small_data(tmp_path / "adults", "gm_phantom_adult")
    missing = planned_grid(tmp_path / "results", data=str(adults))
    with pytest.raises(DataError, match="subjects are not there"):
        make_ready(missing, missing.cells, False)
    assert not (tmp_path / "results").exists()


def test_a_disk_without_room_is_found_before_anything_is_started(tmp_path, data, monkeypatch):
    experiment = planned_grid(tmp_path, data=str(data))
    asked = []
    monkeypatch.setattr("spine_tasks.plan.check_room", lambda *words: asked.append(words))
    make_ready(experiment, experiment.cells, False)
    (folder, least, what) = asked[0]
    assert (folder, what) == (experiment.folder, "4 cells of grid")
    large = experiment.run(experiment.cells[1]).folder / "predictions"
    large.mkdir()
    with (large / "one").open("wb") as file:
        file.truncate(10**9)  # a complete cell tells what the others will write
    make_ready(experiment, experiment.cells, False)
    assert least < 4 * 10**9 <= asked[1][1]


def test_a_full_disk_is_said_with_what_to_do(tmp_path, data, monkeypatch):
    experiment = planned_grid(tmp_path, data=str(data))
    monkeypatch.setattr("spine_tasks.plan.LEAST_ROOM", 10**18)
    with pytest.raises(RunError, match=r"4 cells of grid needs .* jobs/clean.py"):
        make_ready(experiment, experiment.cells, False)


def test_what_stopped_the_grid_is_forgotten_only_when_failed_cells_are_retried(tmp_path, data):
    experiment = planned_grid(tmp_path, data=str(data))
    write_json(experiment.folder / "stopped.json", {"why": "3 cells failed alike"})
    make_ready(experiment, experiment.cells, False)
    assert stopped(experiment.folder) == "3 cells failed alike"
    make_ready(experiment, experiment.cells, True)
    assert stopped(experiment.folder) is None


def fail(experiment, *places):
    for place in places:
        run = experiment.run(experiment.everything[place])
        run.create(experiment.everything[place])
        attempt_on_node(run, "failed", error="KeyError: 'x' at gm.py:1", cause="code")


def test_a_report_says_what_was_submitted_what_failed_and_what_to_do(experiment, capsys):
    fail(experiment, 1, 2)
    jobs = {experiment.cells[2].id: "17_0", experiment.cells[3].id: "17_1"}
    report(experiment, experiment.everything, 2, jobs, ["a note"], False)
    said = capsys.readouterr().out
    first, second = (experiment.everything[place].id[-8:] for place in (1, 2))
    assert said.splitlines()[0] == "grid: 2 failed, 3 new"
    assert "submitted as Slurm job 17\n" in said
    assert "\na note\n" in said
    assert f"2 failed ({first}, {second}): jobs/status.py says why; --retry-failed starts" in said
    assert said.endswith("next: python jobs/status.py --grid grid\n")


def test_a_report_of_a_complete_grid_points_to_its_tables(experiment, capsys):
    for cell in experiment.everything:
        write_json(experiment.run(cell).folder / "done.json", {})
    report(experiment, experiment.everything, 0, {}, [], False)
    said = capsys.readouterr().out
    assert "nothing to start" in said
    assert said.endswith("next: python jobs/collect.py --grid grid\n")


def test_a_report_says_why_no_further_cell_is_started(experiment, capsys):
    write_json(experiment.folder / "stopped.json", {"why": "3 cells failed alike"})
    report(experiment, experiment.everything, 0, {}, [], False)
    said = capsys.readouterr().out
    assert "\nno new cell is started: 3 cells failed alike" in said


def test_a_report_for_programs_is_json_and_has_cause_and_remedy(experiment, capsys):
    fail(experiment, 1)
    report(experiment, experiment.everything, 0, {}, ["a note"], True)
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["started"], said["notes"]) == ("grid", 0, ["a note"])
    states_ = {cell["cell"]: cell for cell in said["cells"]}
    failed = states_[experiment.everything[1].id]
    assert (failed["state"], failed["cause"]) == ("failed", "code")
    assert "--retry-failed" in failed["remedy"]


def test_the_table_says_each_remedy_once(experiment):
    fail(experiment, 1, 2)
    table = board.table(experiment, states(experiment.folder, experiment.everything))
    said = [line for line in table.renderables if isinstance(line, str)]
    assert sum("then launch with --retry-failed" in line for line in said) == 1
