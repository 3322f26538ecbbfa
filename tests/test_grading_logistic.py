"""Regression on features: scikit-learn's own numbers, and a start for steps."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from box_run import small_split, worked
from making import run_folder

pytest.importorskip("torch", reason="PyTorch is not installed (extra `grading`)")
pytest.importorskip("pydicom", reason="pydicom is not installed (extra `grading`)")

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from spine_tasks.cell import Cell
from spine_tasks.configs import StenosisGrading, make_config
from spine_tasks.data import phantom_lumbar
from spine_tasks.data.cases import grade_cases_of
from spine_tasks.data.grades import read_grades
from spine_tasks.errors import Interrupted
from spine_tasks.grade_predictions import load_grades
from spine_tasks.splits import load_split
from spine_tasks.tasks.grading.logistic import fit_logistic
from spine_tasks.tasks.grading.model import Grader
from spine_tasks.tasks.grading.places import Places

KNOBS = {"backbone": "test_resnet", "image_px": 32, "slices": 1, "threads": 1, "augment": "none"}
KNOBS |= {"freeze": True, "hidden": [], "level_embedding": "one_hot", "fit": "logistic"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = phantom_lumbar.ensure(
        tmp_path_factory.mktemp("lumbar") / "data", ["sub-s01", "sub-s02", "sub-s03"]
    )
    return read_grades(folder, ["subarticular_stenosis"])


def grader(data, **knobs):
    torch.manual_seed(0)
    config = StenosisGrading(**KNOBS | {"hidden": (), "logistic_c": 0.1} | knobs)
    weights = {name: torch.tensor([1.0, 2.0, 4.0]) for name in data.conditions}
    model = Grader(config, data.conditions, len(data.levels), weights)
    return model, Places(data.cases, config, data.conditions, data.levels, seed=0)


@pytest.mark.parametrize("features", ["last", "stages"])
def test_the_network_gives_the_probabilities_of_the_regression(data, features):
    model, places = grader(data, features=features)
    [name] = data.conditions
    given = (places.inputs([(0, at) for at in range(len(data.cases))]), places.levels)
    fit_logistic(SimpleNamespace(stop_requested=False), model, places)
    with torch.inference_mode():
        x = model.eval().features(*given).double().numpy()
        found = model(*given, places.groups)[name].exp().numpy()
    x = StandardScaler().fit_transform(x)
    truth = places.grades[:, 0].numpy()
    weight = {0: 1.0, 1: 2.0, 2: 4.0}
    own = LogisticRegression(C=0.1, max_iter=5000, class_weight=weight).fit(x, truth)
    assert set(own.classes_) == {0, 1, 2}
    assert found == pytest.approx(own.predict_proba(x), abs=1e-4)


def test_a_wish_to_stop_is_heard(data):
    model, places = grader(data)
    with pytest.raises(Interrupted):
        fit_logistic(SimpleNamespace(stop_requested=True), model, places)


def predicted(results, **knobs):
    config, split = make_config("stenosis_grading", KNOBS | knobs), small_split(results)
    digest = load_split(split).digest
    cell = Cell(
        job="stenosis_grading", config=config, split=split, split_sha256=digest, fold=0, seed=0
    )
    run = worked(run_folder(results, cell))
    cases, data = grade_cases_of(cell, "test", run.folder.parent)
    found = load_grades(run.predictions / "test.csv", cases, data.conditions)
    history = [json.loads(line) for line in (run.folder / "history.jsonl").open()]
    return np.concatenate(list(found.values())), history


def test_steps_begin_with_the_regression(tmp_path):
    at_once, alone = predicted(tmp_path)
    steps = {"fit": "both", "epochs": 2, "schedule": "constant"}
    unmoved, history = predicted(tmp_path, learning_rate=1e-9, **steps)
    assert (len(alone), len(history)) == (1, 2)
    assert unmoved == pytest.approx(at_once, abs=1e-4)
    moved, _ = predicted(tmp_path, learning_rate=1e-2, **steps)
    assert np.abs(moved - at_once).max() > 1e-2
