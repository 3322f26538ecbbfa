"""The live table: all of a small grid, and of a large one what a terminal can hold."""

import json
from io import StringIO

import pytest
from making import attempt_on_node as record
from making import command, planned_grid
from rich.console import Console

from spine_tasks import board
from spine_tasks.causes import Cause
from spine_tasks.eta import Watcher, spoken
from spine_tasks.experiment import create
from spine_tasks.states import State


@pytest.fixture
def experiment(tmp_path):
    """150 cells: 120 of the grid, and what some of them need; only some have folders."""
    planned = planned_grid(tmp_path, **{"seeds": 30, "epochs": 10})
    create(planned, [])
    return planned


def drawn(what, width=100, height=24):
    console = Console(record=True, width=width, height=height, file=StringIO())
    console.print(what)
    return console.export_text()


def at_height(experiment, height, width=100):
    return board.Drawing(experiment, Console(width=width, height=height, force_terminal=True))


def all_of(experiment, kind="complete", **changed):
    found = dict.fromkeys((cell.id for cell in experiment.everything), State(kind))
    return found | changed


def train(experiment, cell, epochs=2, seconds=60.0):
    run = experiment.run(cell)
    record(run, "started", time="2026-01-01T10:00:00+00:00")
    for epoch in range(epochs):
        run.add_history(epoch=epoch, loss=0.5, val_dice=0.25, seconds=seconds, best_epoch=0)


def test_a_table_for_a_file_has_every_cell(experiment):
    said = drawn(board.table(experiment, all_of(experiment)), height=24)
    assert all(cell.id[-8:] in said for cell in experiment.everything)


def test_of_very_many_cells_the_complete_ones_are_counted_not_listed(experiment, monkeypatch):
    monkeypatch.setattr(board, "ROWS", 2)
    running, failed = experiment.everything[7], experiment.everything[-1]
    found = all_of(experiment) | {running.id: State("running"), failed.id: State("failed")}
    said = drawn(board.table(experiment, found))
    assert [cell for cell in experiment.everything if cell.id[-8:] in said] == [running, failed]
    assert "and 148 more: 148 complete" in said


def test_a_running_cell_says_its_epoch_and_about_how_long_it_takes(experiment):
    cell = experiment.cells[3]
    train(experiment, cell)
    found = all_of(experiment) | {cell.id: State("running")}
    said = drawn(board.table(experiment, found), width=140)
    [row] = [line for line in said.splitlines() if cell.id[-8:] in line]
    assert row.split()[-7:-2] == ["running", "2/10", "0.5000", "0.250", "~"]
    assert row.rstrip().endswith(("7 min", "8 min"))
    assert "about 7 min left" in said or "about 8 min left" in said


def test_a_grid_that_fits_is_shown_whole(experiment):
    found = all_of(experiment)
    high = len(found) + 4
    assert drawn(at_height(experiment, high)(found)) == drawn(board.table(experiment, found))


@pytest.mark.parametrize("height", [16, 24, 50])
@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_large_grid_fits_the_terminal(experiment, height, width):
    cells = experiment.cells
    long = "x" * 150 + " [end]"
    cause = Cause("code", long)
    found = all_of(experiment, "waiting")
    found |= {cell.id: State("running", f"process {n}") for n, cell in enumerate(cells[:40])}
    found |= {cell.id: State("failed", long, cause=cause) for cell in cells[40:50]}
    lines = drawn(at_height(experiment, height, width)(found), width, height).splitlines()
    assert len(lines) <= height
    assert "100 waiting" in " ".join(lines)


def test_the_rest_is_counted(experiment):
    cells = experiment.cells
    found = all_of(experiment) | {cells[5].id: State("running"), cells[9].id: State("new")}
    said = drawn(at_height(experiment, 24)(found))
    assert cells[5].id[-8:] in said
    assert "and 149 more: 148 complete, 1 new" in said
    assert sum("complete" in line for line in said.splitlines()) == 2  # the title and the rest


def test_what_changed_lately_is_shown_for_a_while(experiment, monkeypatch):
    ended, failed = experiment.cells[7], experiment.cells[8]
    draw = at_height(experiment, 24)
    clock = [1000.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: clock[0])
    before = all_of(experiment, "new") | {one.id: State("running") for one in (ended, failed)}
    draw(before)
    after = before | {ended.id: State("complete"), failed.id: State("failed", "why not")}
    assert ended.id[-8:] in drawn(draw(after))
    clock[0] += board.LATELY_S - 1
    assert ended.id[-8:] in drawn(draw(after))
    clock[0] += 2
    said = drawn(draw(after))
    assert ended.id[-8:] not in said
    assert failed.id[-8:] in said  # what failed stays


def test_text_from_outside_is_no_markup(experiment):
    found = all_of(experiment) | {experiment.cells[0].id: State("failed", "bad [red]thing[/] [/x]")}
    for what in (board.table(experiment, found), at_height(experiment, 24)(found)):
        assert "bad [red]thing[/] [/x]" in drawn(what)


def test_failures_are_explained_before_what_waits(experiment):
    cells = experiment.cells
    found = all_of(experiment)
    found |= {cell.id: State("waiting", f"job {n}") for n, cell in enumerate(cells[:10])}
    found |= {cells[-1].id: State("failed", "the disk is full")}
    said = drawn(at_height(experiment, 24)(found))
    assert "failed " + cells[-1].id[-8:] + ": the disk is full" in said


def test_for_programs_there_is_the_same_and_it_is_json(experiment):
    cell = experiment.cells[3]
    train(experiment, cell)
    experiment.run(cell).add_history(epoch=2, loss=float("nan"), val_dice=0.5, seconds=60.0)
    found = all_of(experiment, "new") | {cell.id: State("running")}
    rows = board.as_json(experiment, found, Watcher(experiment))
    [row] = [one for one in rows if one["cell"] == cell.id]
    assert (row["epoch"], row["epochs"], row["loss"], row["score"]) == (3, 10, None, 0.5)
    assert 6 * 60 <= row["left_s"] <= 7 * 60
    assert json.dumps(rows, allow_nan=False)
    other = rows[0]
    assert (other["epoch"], other["left_s"], other["seconds"]) == (None, None, 0.0)


def test_status_prints_totals_and_cells_for_programs(experiment):
    train(experiment, experiment.cells[0])
    flags = ("--grid", experiment.name, "--results", experiment.folder.parent)
    answer = command("status", *flags, "--json")
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert said["name"] == experiment.name
    assert said["states"]["new"] == len(said["cells"]) - 1 == 149
    assert said["left_s"] is None
    assert said["attempts_without_end"] == 1  # begun on another host, which says nothing


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.9, "< 1 min"), (3599, "59 min"), (86400, "1 d 0 h")]
)
def test_a_duration_has_two_units(seconds, text):
    assert spoken(seconds) == text
