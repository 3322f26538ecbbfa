"""All scores of one run's boxes as rows of a long table."""

import logging
import math
import subprocess
import sys

import numpy as np
import pytest
from box_making import at_random, case, found, perfect

from spine_tasks.errors import DataError
from spine_tasks.metrics import OF_BOXES, cord_published, discs_published
from spine_tasks.metrics.box_scores import score_boxes

CASES = [
    case("a", (0, 0, 40, 40, 0), (100, 0, 140, 40, 1), subject="ann"),
    case("b", (0, 0, 40, 40, 0), subject="bob"),
    case("c", subject="cid"),
]
FOUND = [
    found((0, 0, 40, 40, 0, 0.9), (100, 0, 140, 40, 0, 0.7), (200, 0, 240, 40, 1, 0.3)),
    found((0, 0, 40, 40, 0, 0.6)),
    found((0, 0, 40, 40, 1, 0.8)),
]
# The best threshold of both labels is .7.
VAL = [case("v", (0, 0, 40, 40, 0), (100, 0, 140, 40, 1))]
VAL_FOUND = [found((0, 0, 40, 40, 0, 0.7), (100, 0, 140, 40, 1, 0.7), (200, 0, 240, 40, 0, 0.2))]
NAMES = ("disc", "cord")


def same(value):
    return pytest.approx(value, rel=1e-12, nan_ok=True)


def scored(cases=CASES, results=FOUND, val=VAL, val_found=VAL_FOUND, names=NAMES):
    return list(score_boxes(cases, results, val, val_found, names))


def of_set(rows):
    return {(label, metric): value for subject, _, label, metric, value in rows if subject == "*"}


def test_each_image_has_precision_recall_and_f1_of_each_category_and_of_all():
    rows = scored()
    nan = math.nan
    expected = [
        ("ann", "a", "disc", (1 / 2, 1, 2 / 3)),
        ("ann", "a", "cord", (nan, 0, 0)),
        ("ann", "a", "all", (1 / 2, 1 / 2, 1 / 2)),
        ("bob", "b", "disc", (nan, 0, 0)),
        ("bob", "b", "cord", (nan, nan, nan)),
        ("bob", "b", "all", (nan, 0, 0)),
        ("cid", "c", "disc", (nan, nan, nan)),
        ("cid", "c", "cord", (0, nan, 0)),
        ("cid", "c", "all", (0, nan, 0)),
    ]
    flat = [
        (subject, name, label, metric, value)
        for subject, name, label, values in expected
        for metric, value in zip(("precision", "recall", "F1"), values, strict=True)
    ]
    assert [row[:4] for row in rows[:27]] == [row[:4] for row in flat]
    assert [row[4] for row in rows[:27]] == same([row[4] for row in flat])
    assert all(row[:2] == ("*", "*") for row in rows[27:])


def test_scores_of_the_set_worked_out_by_hand():
    scores = of_set(scored())
    # disc, falling: right, wrong, (.7 | below) right; cord: wrong, (below) wrong.
    expected = {
        ("disc", "threshold"): 0.7,
        ("cord", "threshold"): 0.7,
        ("disc", "precision_set"): 1 / 2,
        ("disc", "recall_set"): 1 / 2,
        ("disc", "F1_set"): 1 / 2,
        ("cord", "precision_set"): 0,
        ("all", "precision_set"): 1 / 3,
        ("all", "recall_set"): 1 / 3,
        ("disc", "AP50"): (51 + 50 * 2 / 3) / 101,
        ("cord", "AP50"): 0,
        ("all", "AP50"): (51 + 50 * 2 / 3) / 202,
        ("disc", "FROC_0.125"): 1 / 2,
        ("disc", "FROC_0.25"): 1 / 2,
        ("disc", "FROC_0.5"): 1,
        ("disc", "FROC"): 6 / 7,
        ("cord", "FROC"): 0,
        ("all", "FROC"): 3 / 7,
        ("disc", "sensitivity_image"): 1 / 2,
        ("disc", "specificity_image"): 1,
        ("cord", "sensitivity_image"): 0,
        ("cord", "specificity_image"): 1 / 2,
        ("all", "sensitivity_image"): 1 / 2,
        ("all", "specificity_image"): 0,
        ("disc", "found_as_disc"): 1,
        ("disc", "found_as_cord"): 0,
        ("disc", "found_as_background"): 1,
        ("cord", "found_as_disc"): 1,
        ("cord", "found_as_background"): 0,
        ("background", "found_as_cord"): 1,
        ("background", "found_as_disc"): 0,
    }
    assert {key: scores[key] for key in expected} == same(expected)


def test_froc_between_the_marks_does_not_interpolate():
    # One false positive in three images, 1/3, is more than 1/4 and less than 1/2.
    scores = of_set(scored())
    assert scores["disc", "FROC_0.25"] < scores["disc", "FROC_0.5"]


def test_no_row_is_there_twice_and_every_metric_is_in_the_table_with_its_range():
    data = {
        "any": (*at_random(1), "abc"),
        "discs": (*at_random(2, labels=2), discs_published.CATEGORIES),
        "cord": (*at_random(3, labels=7), cord_published.GRADES),
    }
    seen = set()
    for cases, results, names in data.values():
        rows = scored(cases, results, cases, results, names)
        assert len({row[:4] for row in rows}) == len(rows)
        for subject, _, label, name, value in rows:
            assert label in {*names, "all", "background"}
            known = "found_as_<label>" if name.startswith("found_as_") else name
            metric = OF_BOXES[known]
            assert metric.scope == ("set" if subject == "*" else "image")
            assert type(value) is float
            assert math.isnan(value) or metric.minimum <= value <= metric.maximum
            seen.add(known)
    assert seen == set(OF_BOXES)


def test_published_figures_are_there_for_their_categories_alone():
    cases, results = at_random(4, labels=2)
    swapped = discs_published.CATEGORIES[::-1]
    for names, there in ((discs_published.CATEGORIES, True), (swapped, False), (NAMES, False)):
        metrics = {row[3] for row in scored(cases, results, cases, results, names)}
        assert ("AP_published" in metrics) is there
        assert "kappa_central" not in metrics


def test_the_disc_figures_are_of_boxes_after_the_studys_post_processing():
    twice = [case("a", (0, 0, 20, 10, 0))]
    mixed = [found((0, 0, 20, 10, 0, 0.9), (1, 0, 21, 10, 1, 0.3))]
    scores = of_set(scored(twice, mixed, twice, mixed, discs_published.CATEGORIES))
    assert scores["all", "recall_published"] == 1


def test_a_perfect_run_has_1_wherever_it_is_defined():
    val = perfect(VAL)
    for (label, metric), value in of_set(scored(results=perfect(CASES), val_found=val)).items():
        if metric.startswith("found_as_"):
            right = {"disc": 2, "cord": 1}.get(label, 0) if metric == f"found_as_{label}" else 0
            assert value == right
        else:
            assert math.isnan(value) or value == same(1)


def test_a_category_absent_from_the_reference_is_undefined_where_it_takes_a_reference():
    scores = of_set(scored(CASES[1:], FOUND[1:]))
    needs = ("AP", "AP50", "AP75", "recall_set", "FROC", "FROC_1", "sensitivity_image")
    assert [scores["cord", name] for name in needs] == same([math.nan] * len(needs))
    assert scores["all", "AP50"] == scores["disc", "AP50"]  # the mean is of what is defined
    assert scores["all", "FROC"] == scores["disc", "FROC"]
    # What was found nevertheless is wrong.
    assert (scores["cord", "precision_set"], scores["cord", "F1_set"]) == (0, 0)
    assert scores["cord", "specificity_image"] == 1 / 2


def test_without_a_choice_on_the_validation_part_boxes_from_a_half_on_count(caplog):
    with caplog.at_level(logging.WARNING):
        rows = scored(val_found=[found((0, 0, 40, 40, 0, 0.1))])
    assert "no box of cord, or none was found; boxes from 0.5 on count" in caplog.text
    assert "disc" not in caplog.text
    scores = of_set(rows)
    assert scores["cord", "threshold"] == same(math.nan)
    assert scores["disc", "threshold"] == 0.1
    assert scores["background", "found_as_cord"] == 1  # .8, not .3


def test_thresholds_come_from_the_validation_part_and_never_from_the_test_part():
    low = [found((0, 0, 40, 40, 0, 0.05), (100, 0, 140, 40, 1, 0.05))]
    scores = of_set(scored(val_found=low))
    assert (scores["disc", "threshold"], scores["disc", "recall_set"]) == (0.05, 1)


def test_order_of_images_changes_only_the_order_of_rows():
    cases, results = at_random(6, levels=5)
    forth = scored(cases, results, VAL, VAL_FOUND, "abc")
    back = scored(cases[::-1], results[::-1], VAL, VAL_FOUND, "abc")
    assert {row[:4]: row[4] for row in forth} == same({row[:4]: row[4] for row in back})


def test_nothing_found_anywhere_is_scored():
    scores = of_set(scored(results=[found()] * 3, val_found=[found()]))
    assert scores["all", "AP50"] == scores["all", "recall_set"] == scores["all", "FROC"] == 0
    assert scores["all", "precision_set"] == same(math.nan)
    assert scores["all", "specificity_image"] == 1


@pytest.mark.parametrize("name", ["all", "background", "*"])
def test_a_category_whose_name_stands_for_something_else_is_refused_at_the_call(name):
    with pytest.raises(DataError, match=f"named '[{name[0]}]{name[1:]}', which scores use"):
        score_boxes(CASES, FOUND, VAL, VAL_FOUND, (name, "cord"))


def test_boxes_of_other_images_are_refused_at_the_call():
    with pytest.raises(DataError, match="3 images but boxes found in 2"):
        score_boxes(CASES, FOUND[:2], VAL, VAL_FOUND, NAMES)


def test_the_scorer_is_imported_without_a_deep_learning_or_plotting_framework():
    code = "import sys, spine_tasks.metrics.box_scores; "
    code += "sys.exit(bool({'torch', 'tensorflow', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_values_are_of_plain_types_that_a_table_takes():
    for row in scored():
        assert [type(part) for part in row] == [str] * 4 + [float]
    assert not any(isinstance(row[4], np.generic) for row in scored())
