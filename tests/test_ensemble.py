"""Ensembles of graders: the mean of what was predicted, scored and compared as any arm."""

import numpy as np
import pandas as pd
import pytest
from making import command

from spine_tasks.collect.set_scores import REPLICATES
from spine_tasks.data.cases import grade_cases_of
from spine_tasks.experiment import create, planned
from spine_tasks.grade_predictions import load_grades, save_grades
from spine_tasks.grid import Grid
from spine_tasks.metrics.resampling import interval_of, person_weights
from spine_tasks.score import score

pytest.importorskip("pydicom", reason="pydicom is not installed (extra `grading`)")

CONDITION = "spinal_canal_stenosis"


def predict(experiment, cell, seed):
    """Made-up probabilities that know something of the truth."""
    run, rng = experiment.run(cell), np.random.default_rng(seed)
    for part in ("test", "val"):
        cases, data = grade_cases_of(cell, part, experiment.folder)
        found = {}
        for case in cases:
            p = rng.dirichlet(np.ones(3)) + 0.6 * np.eye(3)[case.grades[CONDITION]]
            found[case.id, CONDITION] = p / p.sum()
        save_grades(run.predictions / f"{part}.csv", cases, found, data.conditions)
    run.finish()
    score(run)


def split_of_two_tested(folder):
    parts = ["train", "train", "val", "test", "test"]
    rows = [f"sub-s0{n},sub-s0{n},{part},0" for n, part in enumerate(parts, start=1)]
    file = folder / "two_tested.csv"
    file.write_text("\n".join(["subject,person,part,fold", *rows, ""]))
    return str(file)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    grid = Grid(
        job="stenosis_grading",
        split=split_of_two_tested(results),
        axes={"level_embedding": ["none", "learned"]},
        seeds=2,
        knobs={"conditions": [CONDITION]},
        baseline={"level_embedding": "none"},
    )
    made = planned("grades", grid, results)
    create(made, made.cells)
    for number, cell in enumerate(made.cells):
        predict(made, cell, number)
        run = made.run(cell)
        run.add_history(epoch=0, loss=1.0, val_score=-0.5, seconds=1.0, best_epoch=0)
        run.record_attempt("started")
    return made


def collect(experiment, *flags):
    results = experiment.folder.parent
    return command("collect", "--grid", experiment.name, "--results", results, *flags)


def log_loss(experiment):
    table = pd.read_csv(experiment.folder / "sets.csv")
    return table.query("label == @CONDITION and metric == 'log_loss'").set_index("arm")


def test_the_mean_of_all_runs_of_a_fold_is_one_more_arm(experiment):
    done = collect(experiment, "--ensemble")
    assert done.returncode == 0, done.stderr
    assert "ensemble" in done.stdout
    for file in ("reliability.png", f"confusion_{CONDITION}.png"):
        assert (experiment.folder / file).read_bytes().startswith(b"\x89PNG")
    table = log_loss(experiment)
    assert list(table.index) == ["level_embedding=none", "level_embedding=learned", "ensemble"]
    own = table.loc["ensemble"]
    assert own["mean"] < table["mean"].drop("ensemble").mean()  # by Jensen's inequality
    assert own["difference_low"] <= own["difference"] <= own["difference_high"]
    [folder] = [
        file.parent.parent
        for file in experiment.folder.glob("*/predictions/test.csv")
        if file.parent.parent.name not in {cell.id for cell in experiment.cells}
    ]
    cases, data = grade_cases_of(experiment.cells[0], "test", experiment.folder)
    found = load_grades(folder / "predictions" / "test.csv", cases, data.conditions)
    members = [
        load_grades(experiment.run(cell).predictions / "test.csv", cases, data.conditions)
        for cell in experiment.cells
    ]
    for place, p in found.items():
        assert p == pytest.approx(np.mean([one[place] for one in members], axis=0), abs=1e-7)


def test_intervals_of_an_arm_resample_the_persons_of_its_cells(experiment):
    assert collect(experiment).returncode == 0
    table = pd.read_csv(experiment.folder / "sets.csv")
    table = table.query("label == @CONDITION and metric == 'log_loss'").set_index("arm")
    of_cells = []
    for cell in experiment.cells:
        if cell.arm["level_embedding"] != "learned":
            continue
        cases, data = grade_cases_of(cell, "test", experiment.folder)
        file = experiment.run(cell).predictions / "test.csv"
        found = load_grades(file, cases, data.conditions)
        loss = [-np.log(found[c.id, CONDITION][c.grades[CONDITION]]) for c in cases]
        times = person_weights([case.subject for case in cases], REPLICATES, seed=cell.fold)
        of_cells.append((times * loss).sum(axis=1) / times.sum(axis=1))
    low, high = interval_of(np.mean(of_cells, axis=0))
    row = table.loc["level_embedding=learned"]
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["low"] < row["high"]


def test_it_follows_its_members_and_is_left_out_unless_asked_for(experiment):
    assert collect(experiment, "--ensemble").returncode == 0
    before = log_loss(experiment)["mean"]["ensemble"]
    predict(experiment, experiment.cells[0], 99)
    assert collect(experiment, "--ensemble").returncode == 0
    assert log_loss(experiment)["mean"]["ensemble"] != before
    assert collect(experiment).returncode == 0
    assert "ensemble" not in log_loss(experiment).index


def test_members_may_be_of_some_arms_alone(experiment):
    arm = "level_embedding=learned"
    assert collect(experiment, "--ensemble", arm).returncode == 0
    of_two = log_loss(experiment)["mean"]["ensemble"]
    members = [cell for cell in experiment.cells if cell.arm_name == arm]
    cases, data = grade_cases_of(members[0], "test", experiment.folder)
    files = [experiment.run(cell).predictions / "test.csv" for cell in members]
    found = [load_grades(file, cases, data.conditions) for file in files]
    losses = [
        -np.log(np.mean([one[case.id, CONDITION] for one in found], axis=0)[case.grades[CONDITION]])
        for case in cases
    ]
    assert of_two == pytest.approx(np.mean(losses), abs=1e-6)
    wrong = collect(experiment, "--ensemble", "level_embedding=learnt")
    assert wrong.returncode == 2
    assert "no arm 'level_embedding=learnt', did you mean 'level_embedding=learned'" in wrong.stderr


def test_a_single_run_is_no_ensemble(experiment, tmp_path):
    grid = Grid(
        job="stenosis_grading",
        split=experiment.grid.split,
        axes={"level_embedding": ["none"]},
        knobs={"conditions": [CONDITION]},
    )
    alone = planned("alone", grid, tmp_path)
    create(alone, alone.cells)
    predict(alone, alone.cells[0], 0)
    alone.run(alone.cells[0]).add_history(
        epoch=0, loss=1.0, val_score=0.0, seconds=1.0, best_epoch=0
    )
    done = collect(alone, "--ensemble")
    assert done.returncode == 2
    assert "needs two cells a fold or more; fold 0 has one" in done.stderr
