"""Grades of one's own studies, by the command: a row a place, and who is missing is said."""

import csv
import sys

import numpy as np
import pytest
from box_run import small_split, worked
from making import run_folder

from spine_tasks.cell import Cell
from spine_tasks.configs import make_config
from spine_tasks.data import phantom_lumbar
from spine_tasks.data.cases import grade_cases_of
from spine_tasks.grade_predictions import load_grades
from spine_tasks.predict import main
from spine_tasks.splits import load_split

pytest.importorskip("torch", reason="PyTorch is not installed (extra `grading`)")
pytest.importorskip("pydicom", reason="pydicom is not installed (extra `grading`)")

KNOBS = {"backbone": "test_resnet", "image_px": 32, "slices": 1, "threads": 1, "augment": "none"}
KNOBS |= {"fit": "logistic", "freeze": True, "hidden": [], "level_embedding": "one_hot"}


def made(results, seed):
    config, split = make_config("stenosis_grading", KNOBS), small_split(results)
    digest = load_split(split).digest
    cell = Cell(
        job="stenosis_grading",
        config=config,
        split=split,
        split_sha256=digest,
        fold=0,
        seed=seed,
    )
    return worked(run_folder(results, cell))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    return [made(results, seed) for seed in (0, 1)]


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def study(tmp_path):
    """A folder of two studies in the challenge's format."""
    return phantom_lumbar.ensure(tmp_path / "data", ["sub-s90", "sub-s91"])


def test_a_study_has_a_row_a_level_and_condition(tmp_path, monkeypatch, runs, study, capsys):
    out = tmp_path / "out"
    code = command(
        monkeypatch,
        *("--task", "stenosis_grading", "--run", runs[0].folder),
        *("--input", study / "train_images" / "sub-s90"),
        *("--places", study / "train_label_coordinates.csv", "--output", out),
    )
    assert code == 0
    assert "25 places of 1 studies graded" in capsys.readouterr().out
    graded = rows(out / "grades.csv")
    assert len({(row["level"], row["side"], row["condition"]) for row in graded}) == 25
    submitted = rows(out / "submission.csv")
    assert [row["row_id"] for row in submitted] == sorted(row["case"] for row in graded)
    for row in submitted:
        p = [float(row[name]) for name in ("normal_mild", "moderate", "severe")]
        assert sum(p) == pytest.approx(1, abs=1e-6)


def test_the_test_part_is_graded_as_the_run_did(tmp_path, monkeypatch, runs):
    cases, data = grade_cases_of(runs[0].cell(), "test", runs[0].folder.parent)
    out = tmp_path / "out"
    run, folder = runs[0].folder, data.folder
    assert command(monkeypatch, "--run", run, "--input", folder, "--output", out) == 0
    own = load_grades(run / "predictions" / "test.csv", cases, data.conditions)
    found = load_grades(out / "grades.csv", data.cases, data.conditions)
    for place, p in own.items():
        assert found[place] == pytest.approx(p, abs=1e-6)


def test_of_several_runs_the_mean_is_written(tmp_path, monkeypatch, runs, study):
    found = []
    for name, chosen in (("a", runs[:1]), ("b", runs[1:]), ("both", runs)):
        flags = [word for run in chosen for word in ("--run", run.folder)]
        out = tmp_path / name
        assert command(monkeypatch, *flags, "--input", study, "--output", out) == 0
        found.append(np.array([[float(row["p0"])] for row in rows(out / "grades.csv")]))
    assert found[2] == pytest.approx((found[0] + found[1]) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input", "gone"], "gone: neither train_label_coordinates.csv"),
        (["--task", "gm_segmentation"], "is a run of stenosis_grading"),
        (["--score", "0.5"], "--score is for boxes"),
        (["--reference", "x.json"], "--reference is for boxes and masks"),
        (["--set", "backbon=x"], "did you mean 'backbone'"),
        (["--places", "absent.csv"], "absent.csv: no table"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    tmp_path, monkeypatch, runs, study, capsys, words, said
):
    out = tmp_path / "out"
    given = ["--run", runs[0].folder, "--input", study, "--output", out, *words]
    assert command(monkeypatch, *given) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
