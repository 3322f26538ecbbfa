"""Scores of grades: what is scored, of whom, and by which part."""

import math

import numpy as np
import pytest

from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.data.rsna_names import CONDITIONS as CONDITIONS_OF_CHALLENGE
from spine_tasks.data.rsna_names import GRADES
from spine_tasks.errors import RunError
from spine_tasks.grade_predictions import load_grades, save_grades
from spine_tasks.metrics import METRICS
from spine_tasks.metrics.grade_scores import (
    ALL,
    SET,
    grades_known,
    places_of,
    score_grades,
)

CONDITIONS = {"bulging": ("no", "yes"), "pfirrmann": ("1", "2", "3")}
LEVELS = ("1", "2")


def case(study, level, **grades):
    known = {name: grades.get(name) for name in CONDITIONS}
    return GradeCase(
        id=f"{study}_{level}",
        subject=study,
        study=study,
        level=level,
        series=(),
        index=0,
        x=0,
        y=0,
        grades=known,
    )


CASES = [
    case("a", "1", bulging=0, pfirrmann=0),
    case("a", "2", bulging=1, pfirrmann=1),
    case("b", "1", bulging=1),
    case("b", "2", bulging=0, pfirrmann=2),
]
FOUND = {
    ("a_1", "bulging"): [0.9, 0.1],
    ("a_2", "bulging"): [0.6, 0.4],
    ("b_1", "bulging"): [0.2, 0.8],
    ("b_2", "bulging"): [0.7, 0.3],
    ("a_1", "pfirrmann"): [0.8, 0.1, 0.1],
    ("a_2", "pfirrmann"): [0.1, 0.2, 0.7],
    ("b_1", "pfirrmann"): [0.3, 0.3, 0.4],
    ("b_2", "pfirrmann"): [0.0, 0.1, 0.9],
}


def places(cases=CASES, found=FOUND, conditions=CONDITIONS):
    return places_of(cases, {key: np.array(p) for key, p in found.items()}, conditions)


def scored(test=None, val=None, train=CASES, conditions=CONDITIONS):
    known = grades_known(train, conditions)
    rows = list(
        score_grades(test or places(), places() if val is None else val, known, conditions, LEVELS)
    )
    keys = [row[:4] for row in rows]
    assert len(set(keys)) == len(keys)
    return {row[:4]: row[4] for row in rows}


def test_each_place_that_has_a_grade_is_scored():
    rows = scored()
    assert rows["a", "a_1", "bulging", "right"] == 1
    assert rows["a", "a_2", "bulging", "right"] == 0
    assert rows["a", "a_2", "bulging", "log_loss_place"] == pytest.approx(-math.log(0.4))
    assert ("b", "b_1", "pfirrmann", "right") not in rows


def test_sets_by_hand():
    rows = scored()
    assert rows[SET, SET, "bulging", "accuracy"] == 0.75
    assert rows[SET, SET, "bulging", "AUROC"] == 1  # .4 and .8 against .1 and .3
    assert rows[SET, SET, "bulging", "accuracy_majority"] == 0.5
    assert rows[SET, SET, "bulging", "log_loss_prior"] == pytest.approx(math.log(2))
    assert rows[SET, SET, "pfirrmann", "accuracy"] == pytest.approx(2 / 3)
    assert rows[SET, SET, "pfirrmann", "balanced_accuracy"] == pytest.approx(2 / 3)
    assert math.isnan(rows[SET, SET, "pfirrmann", "precision_macro"])  # nobody was given 2
    assert rows[SET, SET, "pfirrmann: 3", "recall_grade"] == 1
    assert rows[SET, SET, "pfirrmann: 3", "precision_grade"] == 0.5


def test_confusions_are_of_all_levels_and_of_each():
    rows = scored()
    assert rows[SET, SET, "bulging: yes", "graded_as_no"] == 1
    assert rows[SET, SET, "bulging 2: yes", "graded_as_no"] == 1
    assert rows[SET, SET, "bulging 1: yes", "graded_as_no"] == 0
    assert rows[SET, SET, "bulging 1: yes", "graded_as_yes"] == 1


def test_temperatures_are_those_of_the_validation_part():
    flat = {key: np.full(len(p), 1 / len(p)) for key, p in FOUND.items()}
    sure = scored(val=places())
    unsure = scored(
        val=places(found={k: 0.99 * np.array(v) + 0.01 / len(v) for k, v in flat.items()})
    )
    name = (SET, SET, "bulging", "temperature")
    assert sure[name] != unsure[name]
    assert sure[SET, SET, "bulging", "log_loss"] == unsure[SET, SET, "bulging", "log_loss"]
    none = scored(val=places(cases=[]))
    assert math.isnan(none[name])
    assert math.isnan(none[SET, SET, "bulging", "log_loss_tempered"])


def test_guesses_know_the_training_part_alone():
    rows = scored(train=[case("c", "1", bulging=1, pfirrmann=2), case("c", "2", bulging=1)])
    assert rows[SET, SET, "bulging", "accuracy_majority"] == 0.5
    assert rows[SET, SET, "bulging", "log_loss_prior"] > 10  # it never saw a `no`


def test_a_grade_that_the_test_part_lacks_is_undefined_and_said_so():
    rows = scored(test=places(cases=CASES[:1] + CASES[3:]))
    assert math.isnan(rows[SET, SET, "bulging", "AUROC"])
    assert math.isnan(rows[SET, SET, "bulging", "balanced_accuracy"])
    assert rows[SET, SET, "bulging", "accuracy"] == 1


def test_every_metric_is_in_the_table_with_its_range():
    for (_, case_id, _, metric), value in scored().items():
        known = METRICS["graded_as_<label>" if metric.startswith("graded_as_") else metric]
        assert (known.scope == "set") == (case_id == SET)
        assert math.isnan(value) or known.minimum <= value <= known.maximum, metric


def test_the_challenges_metric_is_there_for_its_conditions():
    conditions = dict.fromkeys(CONDITIONS_OF_CHALLENGE, GRADES)
    cases = [
        GradeCase(
            id=f"{study}_{name}_{level}",
            subject=study,
            study=study,
            level=level,
            series=(),
            index=0,
            x=0,
            y=0,
            grades={name: (at + int(level)) % 3},
        )
        for at, study in enumerate("abc")
        for name in conditions
        for level in LEVELS
    ]
    found = {(one.id, name): [1 / 3] * 3 for one in cases for name in one.grades}
    test = places(cases, found, conditions)
    rows = scored(test, test, cases, conditions)
    three = [rows[SET, SET, name, "log_loss_weighted"] for name in conditions]
    assert three == pytest.approx([math.log(3)] * 3)
    any_severe = rows[SET, SET, ALL, "any_severe_spinal"]
    assert rows[SET, SET, ALL, "rsna"] == pytest.approx((sum(three) + any_severe) / 4)
    assert (SET, SET, ALL, "rsna") not in scored()


# Tables of probabilities


def test_probabilities_come_back(tmp_path):
    file = tmp_path / "test.csv"
    given = {key: np.array(p) for key, p in FOUND.items()}
    save_grades(file, CASES, given, CONDITIONS)
    loaded = load_grades(file, CASES, CONDITIONS)
    assert set(loaded) == set(given)
    for key, p in given.items():
        assert loaded[key] == pytest.approx(p, abs=1e-8)
    assert file.read_text().splitlines()[:2] == [
        "case,study,level,side,condition,p0,p1,p2",
        "a_1,a,1,,bulging,0.9,0.1,",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a_1,a,1,,bulging,0.9", "a_1,a,1,,bulging,0.8", "sum to 1"),
        ("a_1,a,1,,bulging,0.9", "a_1,a,1,,bulging,1.9", "sum to 1"),
        ("a_1,a,1,,bulging,0.9", "a_1,a,1,,bulging,high", "2 probabilities are needed"),
        ("a_1,a,1,,bulging,0.9", "a_9,a,1,,bulging,0.9", "line 2: a_9 bulging is none of the data"),
        ("a_1,a,1,,bulging,0.9,0.1,\n", "", "no grade of 1 of 8 places, such as a_1 bulging"),
        (
            "a_2,a,2,,bulging,0.6,0.4,",
            "a_1,a,1,,bulging,0.6,0.4,",
            "line 4: a_1 bulging is there t",
        ),
    ],
)
def test_a_table_that_was_changed_is_refused(tmp_path, old, new, said):
    file = tmp_path / "test.csv"
    save_grades(file, CASES, {key: np.array(p) for key, p in FOUND.items()}, CONDITIONS)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=said):
        load_grades(file, CASES, CONDITIONS)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(RunError, match=r"val\.csv is missing; launch the grid again"):
        load_grades(tmp_path / "val.csv", CASES, CONDITIONS)
