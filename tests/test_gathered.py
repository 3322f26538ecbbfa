"""What complete cells left is read whole or refused, and the second time only where it changed."""

import json
import math
import shutil
import threading

import numpy as np
import pandas as pd
import pytest
from left_making import DONE, experiment_of, rows_of, write_scores
from making import attempt_on_node

from spine_tasks.collect import cell_files, reading
from spine_tasks.collect.gathered import gather
from spine_tasks.collect.long_table import load_cases
from spine_tasks.collect.schema import COLUMNS
from spine_tasks.errors import DataError, IncompleteGrid, RunError
from spine_tasks.experiment import opened
from spine_tasks.files import read_json, write_json
from spine_tasks.score import to_csv
from spine_tasks.stats.persons import by_person

HEADER = b"person,subject,case,slice,label,metric,value\n"


@pytest.fixture
def grid(tmp_path):
    return experiment_of(tmp_path)


@pytest.fixture
def at_rest(monkeypatch):
    """Files count as unchanged since long, though the test has written them just now."""
    monkeypatch.setattr(cell_files, "SETTLED_S", -1.0)


@pytest.fixture
def opened_cells(monkeypatch):
    """The ids of the cells whose files are read."""
    ids = []

    def noting(folder):
        ids.append(folder.name)
        return cell_files.read_cell(folder)

    monkeypatch.setattr(reading, "read_cell", noting)
    return ids


def run_of(experiment, number=0):
    return experiment.run(experiment.cells[number])


def assert_same(one, other):
    """Two gathered views are the same to the last bit and type."""
    for name in ("cases", "histories", "runs"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)
    assert one.computed_with == other.computed_with
    assert one.left_out == other.left_out


def test_the_long_table_has_every_row_of_the_arms_in_the_order_of_the_grid(grid):
    cases = gather(grid).cases
    assert list(cases) == COLUMNS
    assert list(cases["cell"].unique()) == [cell.id for cell in grid.cells]
    for number, cell in enumerate(grid.everything):
        own = cases[cases["cell"] == cell.id]
        if not cell.arm:
            assert own.empty
            continue
        assert set(own["arm"]) == {cell.arm_name}
        assert set(own["seed"]) == {cell.seed}
        expected = rows_of(number)
        assert list(own["person"]) == [row[0] for row in expected]
        np.testing.assert_array_equal(own["value"], [row[-1] for row in expected])


def test_runs_have_the_means_over_persons_that_the_statistics_have(grid):
    gathered = gather(grid)
    runs = gathered.runs.set_index("cell")
    for cell, own in gathered.cases.groupby("cell", observed=True):
        means = by_person(own).groupby("metric", observed=True)["value"].mean()
        for metric, mean in means.items():
            assert runs.loc[cell, metric] == pytest.approx(mean, rel=1e-15)


def test_a_metric_of_several_labels_is_not_averaged_over_them(grid):
    run = run_of(grid)
    both = [*rows_of(1, "gm"), *rows_of(5, "cord")]
    write_scores(run, to_csv(both).encode())
    runs = gather(grid).runs.set_index("cell")
    assert runs.loc[run.folder.name, "gm_MSD"] == pytest.approx(1.1)
    assert runs.loc[run.folder.name, "cord_MSD"] == pytest.approx(5.1)
    assert math.isnan(runs.loc[run.folder.name, "MSD"])


def test_slices_of_a_person_count_as_one_value(grid):
    rows = [
        *(("p1", "p1", "p1", index, "cord", "DSC_slice", 0.0) for index in range(9)),
        ("p2", "p2", "p2", 0, "cord", "DSC_slice", 1.0),
    ]
    write_scores(run_of(grid), to_csv(rows).encode())
    assert gather(grid).runs.set_index("cell").loc[grid.cells[0].id, "DSC_slice"] == 0.5


def test_gpu_hours_are_of_the_cells_share_and_its_last_launch(tmp_path):
    asking = {"resources.gpus": 2, "resources.pack": 4, "resources.time": "02:00:00"}
    grid = experiment_of(tmp_path, **asking)
    first, second, third = (run_of(grid, number) for number in range(3))
    attempt_on_node(first, "started")
    attempt_on_node(first, "interrupted", seconds=3600.0)
    asked = read_json(second.folder / "cell.json")
    asked["resources"] |= {"gpus": 1, "pack": 1, "time": "1-00:00:00"}
    write_json(second.folder / "cell.json", asked)
    (third.folder / "cell.json").unlink()
    runs = gather(grid).runs.set_index("cell")
    columns = ["gpus", "seconds", "gpu_hours", "gpu_hours_asked", "attempts"]
    assert list(runs.loc[first.folder.name, columns]) == [0.5, 10800, 1.5, 2 * 2 * 0.5, 2]
    assert list(runs.loc[second.folder.name, columns]) == [1, 7200, 2, 24, 1]
    unknown = runs.loc[third.folder.name, ["gpus", "gpu_hours", "gpu_hours_asked"]]
    assert unknown.isna().all()


def test_no_gpu_hours_are_asked_where_no_gpu_is(grid):
    runs = gather(grid).runs
    assert set(runs["gpus"]) == {0}
    assert set(runs["gpu_hours"]) == {0}
    assert runs["gpu_hours_asked"].isna().all()


def test_the_seed_that_validation_chooses_is_marked_and_not_the_one_of_the_best_test(grid):
    cells = [cell for cell in grid.cells if cell.arm == grid.cells[0].arm]
    rows = [("p", "p", "p", "", "cord", "DSC", score) for score in (0.9, 0.1)]
    for cell, row, val in zip(cells, rows, (0.4, 0.6), strict=True):
        run = grid.run(cell)
        write_scores(run, to_csv([row]).encode())
        record = {"epoch": 0, "loss": 1.0, "val_dice": val, "best_epoch": 0}
        later = record | {"epoch": 1, "val_dice": 0.99}  # of an epoch that did not predict
        (run.folder / "history.jsonl").write_text(f"{json.dumps(record)}\n{json.dumps(later)}\n")
    runs = gather(grid).runs.set_index("cell")
    assert list(runs.loc[[cell.id for cell in cells], "val_score"]) == [0.4, 0.6]
    assert list(runs.loc[[cell.id for cell in cells], "chosen"]) == [False, True]
    assert runs.groupby("arm")["chosen"].sum().drop("").tolist() == [1, 1, 1, 1]
    assert not runs.loc[runs["role"] == "needed", "chosen"].any()


def test_no_seed_is_chosen_without_a_validation_score(grid):
    for cell in grid.everything:
        (grid.run(cell).folder / "history.jsonl").unlink()
    gathered = gather(grid)
    assert not gathered.runs["chosen"].any()
    assert gathered.runs["val_score"].isna().all()
    assert list(gathered.histories) == ["arm", "fold", "seed"]


def test_a_history_with_a_cut_last_line_keeps_the_epochs_before(grid, caplog):
    file = run_of(grid).folder / "history.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    gathered = gather(grid)
    runs = gathered.runs.set_index("cell")
    assert runs.loc[grid.cells[0].id, "epochs_trained"] == 1
    assert f"{file}, line 2: cut off by a kill" in caplog.text
    assert len(gathered.histories) == 2 * len(grid.cells) - 1


def test_an_undefined_loss_stays_undefined(grid):
    file = run_of(grid).folder / "history.jsonl"
    file.write_text('{"epoch": 0, "loss": NaN, "val_dice": 0.1, "best_epoch": 0, "extra": 3}\n')
    histories = gather(grid).histories
    assert histories["loss"].isna().sum() == 1
    assert histories["extra"].notna().sum() == 1
    assert histories["epoch"].dtype == np.int64


def test_a_history_that_is_no_number_is_named(grid):
    file = run_of(grid).folder / "history.jsonl"
    file.write_text('{"epoch": 0, "loss": "much", "best_epoch": 0}\n')
    with pytest.raises(RunError, match=f"{file}: holds numbers only"):
        gather(grid)


def test_an_arm_that_is_undefined_everywhere_stays_in(grid):
    rows = [(*row[:-1], math.nan) for row in rows_of()]
    for cell in grid.cells:
        if cell.arm == grid.cells[0].arm:
            write_scores(grid.run(cell), to_csv(rows).encode())
    gathered = gather(grid)
    own = gathered.cases[gathered.cases["arm"] == grid.cells[0].arm_name]
    assert len(own) == 2 * len(rows)
    assert own["value"].isna().all()
    assert gathered.runs.set_index("cell").loc[grid.cells[0].id, ["DSC", "MSD"]].isna().all()


GOOD = b"p,p-1,p-1_T2w,,cord,DSC,0.5\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: the columns are not person,"),
        (b"case,value\n", "line 1: the columns are not person,"),
        (HEADER + GOOD + GOOD, "line 3: a second value of one case, label and metric"),
        (HEADER + GOOD + GOOD.replace(b"0.5", b"0.7"), "line 3: a second value of one case"),
        (HEADER + GOOD + GOOD.replace(b"0.5", b"high"), "line 3: not a row .*invalid value 'high'"),
        (HEADER + GOOD + GOOD[:15] + b"\n", "line 3: not a row .*Expected 7 columns, got 5"),
        (HEADER + GOOD + GOOD.replace(b"cord", b"\xff\xfe"), "line 3: not a row .*UTF8"),
        (HEADER + GOOD.replace(b"0.5", b""), "line 2: value is missing"),
        (HEADER + GOOD.replace(b"0.5", b"inf"), "line 2: value is infinite"),
        (HEADER + GOOD.replace(b"0.5", b"87.5"), "line 2: metric DSC is 0 to 1, got 87.5"),
        (HEADER + GOOD.replace(b"DSC", b"dice"), "line 2: metric dice is not one of"),
        (HEADER + GOOD.replace(b"cord", b""), "line 2: label is empty"),
        (HEADER + GOOD.replace(b",,cord", b",3,cord"), "line 2: metric DSC is of no single slice"),
        (HEADER + GOOD.replace(b"DSC", b"AP50"), "line 2: metric AP50 is of a whole set"),
        (HEADER + b"\n" + GOOD, "a line is empty"),
    ],
)
def test_scores_that_are_wrong_as_they_were_written_are_named_with_their_line(grid, content, said):
    run = run_of(grid, 3)
    write_scores(run, content)
    with pytest.raises(DataError, match=said) as refused:
        gather(grid)
    assert str(run.scores) in str(refused.value)
    assert "delete the file and run" in str(refused.value)


def test_done_json_that_was_cut_off_is_named(grid):
    file = run_of(grid).folder / "done.json"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(RunError, match=f"{file}: not JSON"):
        gather(grid)


def test_spoilt_scores_of_any_kind_are_made_again(complete):
    def view():
        return gather(opened("gm_transfer", complete))

    whole = view()
    spoilt = [whole.experiment.run(cell).scores for cell in whole.experiment.everything]
    spoilt[0].unlink()
    spoilt[1].write_bytes(b"")
    spoilt[2].write_bytes(spoilt[2].read_bytes()[:1000])
    spoilt[3].write_bytes(b"\xff\xfe")
    spoilt[4].write_bytes(spoilt[4].read_bytes() * 2)
    assert_same(view(), whole)
    assert_same(view(), whole)


def test_names_of_any_kind_are_kept(tmp_path):
    persons = ("NA", 'a,"b"\nc', "Jürgen <b>&amp;</b> 🩻")
    grid = experiment_of(tmp_path, "Größe <script>")
    run = run_of(grid)
    write_scores(run, to_csv(rows_of(persons=persons)).encode())
    gathered = gather(grid)
    own = gathered.cases[gathered.cases["cell"] == run.folder.name]
    assert set(own["person"]) == set(persons)
    assert set(gathered.cases["grid"]) == {"Größe <script>"}
    gathered.keep()
    for name in ("cases.parquet", "cases.csv"):
        pd.testing.assert_frame_equal(load_cases(grid.folder / name), gathered.cases)


def test_a_cell_that_the_grid_has_no_more_is_named_and_left_out(grid, capsys, tmp_path):
    other = experiment_of(tmp_path / "other", epochs=99)
    gone = other.cells[0].id
    shutil.copytree(other.folder / gone, grid.folder / gone)
    (grid.folder / "code").mkdir()
    gathered = gather(grid)
    assert gathered.left_out == [gone]
    assert f"left out, as grid.yaml does not have them: 1 cell, {gone}" in capsys.readouterr().err
    assert gone not in set(gathered.runs["cell"])


def test_cells_that_complete_meanwhile_are_in_it_whole_or_not(tmp_path):
    grid = experiment_of(tmp_path, seeds=6)
    late = [grid.run(cell) for cell in grid.cells[1:]]
    rows = len(rows_of())
    for run in late:
        (run.folder / "done.json").unlink()

    def write():
        for run in late:
            write_json(run.folder / "done.json", DONE | {"predictions_sha256": {}}, durable=False)

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while writer.is_alive() or not seen:
        gathered = gather(grid, partial=True)
        gathered.keep()
        seen.append(gathered.complete)
        assert (gathered.cases.groupby("cell", observed=True).size() == rows).all()
        assert gathered.cases["cell"].nunique() == gathered.complete
    writer.join()
    assert seen == sorted(seen)
    assert gather(grid).complete == len(grid.cells)


def test_a_cell_deleted_while_it_is_read_is_said(grid, monkeypatch):
    run = run_of(grid)
    before = reading.read_cell

    def deleting(folder):
        if folder == run.folder:
            shutil.rmtree(folder, ignore_errors=True)
        return before(folder)

    monkeypatch.setattr(reading, "read_cell", deleting)
    with pytest.raises(RunError, match=r"done\.json is gone.*run the same command again"):
        gather(grid)
    with pytest.raises(IncompleteGrid, match=run.folder.name):
        gather(grid)


@pytest.mark.usefixtures("at_rest")
def test_the_second_time_only_changed_cells_are_read_with_the_same_result(grid, opened_cells):
    gather(grid).keep()
    opened_cells.clear()
    again = gather(grid)
    assert opened_cells == []
    again.keep()
    run = run_of(grid, 2)
    write_scores(run, to_csv(rows_of(50)).encode())
    attempt_on_node(run_of(grid, 5), "refused")
    changed = gather(grid)
    assert sorted(opened_cells) == sorted(run_of(grid, n).folder.name for n in (2, 5))
    changed.keep()
    assert_same(gather(grid), fresh(grid))
    assert_same(changed, fresh(grid))


def test_files_that_are_slow_to_come_are_read_by_threads_with_the_same_result(grid, monkeypatch):
    alone = gather(grid)
    monkeypatch.setattr(reading, "SLOW_S", 0.0)
    monkeypatch.setattr(reading, "TRIED", 1)
    threads = set()
    before = reading.read_cell

    def noting(folder):
        threads.add(threading.get_ident())
        return before(folder)

    monkeypatch.setattr(reading, "read_cell", noting)
    assert_same(gather(grid), alone)
    assert len(threads) > 1


def fresh(grid, **flags):
    """What is gathered where nothing is remembered."""
    kept = grid.folder / "collected"
    aside = kept.rename(grid.folder.parent / "aside")
    try:
        return gather(grid, **flags)
    finally:
        aside.rename(kept)


@pytest.mark.usefixtures("at_rest")
def test_cells_that_come_and_go_change_the_table_alone(grid):
    late = run_of(grid, 0)
    done = late.folder / "done.json"
    content = done.read_bytes()
    done.unlink()
    gather(grid, partial=True).keep()
    done.write_bytes(content)
    whole = gather(grid)
    assert_same(whole, fresh(grid))
    whole.keep()
    (run_of(grid, 4).folder / "done.json").unlink()
    assert_same(gather(grid, partial=True), fresh(grid, partial=True))


def spoil_bytes(file):
    content = file.read_bytes()
    file.write_bytes(content[:-9] + b"x" + content[-8:])


@pytest.mark.usefixtures("at_rest")
@pytest.mark.parametrize(
    "spoil",
    [
        *(lambda f, n=n: (f / n).unlink() for n in ("cases.parquet", "collected/index.json")),
        *(lambda f, n=n: spoil_bytes(f / n) for n in ("cases.parquet", "collected/index.json")),
        lambda f: (f / "collected/histories.parquet").write_bytes(b""),
        lambda f: (f / "collected/index.json").write_text('{"version": 0}'),
        lambda f: (f / "collected/index.json").write_text("[]"),
        lambda f: pd.read_parquet(f / "cases.parquet").to_parquet(f / "cases.parquet"),
    ],
)
def test_a_memory_that_is_lost_or_spoilt_is_made_anew(grid, opened_cells, spoil):
    whole = gather(grid)
    whole.keep()
    opened_cells.clear()
    spoil(grid.folder)
    again = gather(grid)
    assert len(opened_cells) == len(grid.everything)
    assert_same(again, whole)
    again.keep()
    opened_cells.clear()
    assert_same(gather(grid), whole)
    assert opened_cells == []


def test_a_file_that_changed_just_now_is_read_again(grid, opened_cells):
    # Within a tick of the clock a second change has the time of the first.
    gather(grid).keep()
    opened_cells.clear()
    gather(grid)
    assert len(opened_cells) == len(grid.everything)
