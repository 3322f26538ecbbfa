"""Matching, rates, thresholds, FROC and AP of boxes: known values and laws."""

import math

import numpy as np
import pytest
from box_making import at_random, case, found, perfect
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_tasks.errors import DataError
from spine_tasks.metrics.box_rates import (
    BoxCounts,
    best_thresholds,
    confusions,
    counts_at,
    froc,
    of_images,
    rates,
)
from spine_tasks.metrics.boxes import box_iou, matched
from spine_tasks.metrics.coco_ap import coco_ap
from spine_tasks.metrics.resampling import ap50_replicates
from spine_tasks.predictions import Detections

NAN = math.nan
laws = settings(deadline=None, max_examples=20, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
EVERY = np.zeros(3)  # thresholds that keep all boxes of three labels


def same(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True)


def ap_of(cases, results, labels=3):
    names = "abc"[:labels]
    return {(label, metric): value for label, metric, value in coco_ap(cases, results, names)}


def reordered(one, order):
    return Detections(one.boxes[order], one.labels[order], one.scores[order])


def totals(counts):
    return [count.sum(axis=0).tolist() for count in counts]


# Known values


def test_iou_of_boxes_worked_out_by_hand():
    first = np.array([[0.0, 0, 10, 10], [0, 0, 9, 9], [3, 3, 3, 3]])
    second = np.array([[5.0, 0, 15, 10], [10, 0, 20, 10], [0, 0, 5, 10]])
    expected = [[1 / 3, 0, 1 / 2], [4 * 9 / (81 + 100 - 36), 0, 45 / (81 + 50 - 45)], [0, 0, 0]]
    assert box_iou(first, second) == pytest.approx(np.array(expected))


def test_iou_of_boxes_without_an_area_is_0_and_not_nan():
    point = np.array([[1.0, 1, 1, 1]])
    assert box_iou(point, point).tolist() == [[0]]


@pytest.mark.parametrize(("width", "tp"), [(5.0, 1), (4.999, 0)])
def test_half_the_area_is_enough_to_match(width, tp):
    counts = counts_at(
        matched([case("a", (0, 0, 10, 10, 0))], [found((0, 0, width, 10, 0, 0.9))], 1), np.zeros(1)
    )
    assert totals(counts) == [[tp], [1 - tp], [1 - tp]]


def test_a_box_found_twice_is_right_once_by_the_surer():
    one = case("a", (0, 0, 10, 10, 0))
    matches = matched([one], [found((0, 0, 10, 9, 0, 0.8), (0, 0, 10, 10, 0, 0.6))], 1)
    assert (matches.score.tolist(), matches.right.tolist()) == ([0.8, 0.6], [True, False])


def test_a_box_takes_the_next_best_reference_where_the_best_is_taken():
    one = case("a", (0, 0, 10, 10, 0), (0, 2, 10, 12, 0))
    both = found((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 11, 0, 0.8))
    assert matched([one], [both], 1).right.all()


def test_of_equally_near_reference_boxes_the_one_that_coco_takes_is_taken():
    # The surer box lies half-way between two; the other can only have the first.
    cases = [case("a", (0, 0, 10, 10, 0), (4, 0, 14, 10, 0))]
    results = [found((2, 0, 12, 10, 0, 0.9), (0, 0, 10, 10, 0, 0.8))]
    assert matched(cases, results, 1).right.all()
    assert ap_of(cases, results, 1)["a", "AP50"] == same(1)


def test_a_box_of_another_label_is_a_false_positive_and_a_false_negative():
    cases = [case("a", (0, 0, 10, 10, 0)), case("b")]
    results = [found((0, 0, 10, 10, 1, 0.9)), found((0, 0, 5, 5, 1, 0.4))]
    counts = counts_at(matched(cases, results, 3), EVERY)
    assert totals(counts) == [[0, 0, 0], [0, 2, 0], [1, 0, 0]]
    values = {name: list(value) for name, value in rates(counts).items()}
    assert values["precision"][0].tolist() == same([NAN, 0, NAN])
    assert values["recall"][0].tolist() == same([0, NAN, NAN])
    assert values["F1"][0].tolist() == same([0, 0, NAN])
    assert values["F1"][1].tolist() == same([NAN, 0, NAN])


def test_a_threshold_keeps_boxes_as_sure_as_it():
    one = [case("a", (0, 0, 10, 10, 0))]
    matches = matched(one, [found((0, 0, 10, 10, 0, 0.5), (50, 50, 60, 60, 0, 0.4))], 1)
    assert totals(counts_at(matches, np.array([0.5]))) == [[1], [0], [0]]
    assert totals(counts_at(matches, np.array([0.4]))) == [[1], [1], [0]]
    assert totals(counts_at(matches, np.array([0.51]))) == [[0], [0], [1]]


def test_the_best_threshold_of_each_label_is_that_of_the_best_f1():
    # Label 0: TP and FP are 1, 0 from .9 on; 1, 1; 2, 1; and 3, 2 from .6 on, where two boxes of
    # one score come together. F1 1/2, 2/5, 2/3, 3/4. Label 1 has no reference, 2 is never found.
    cases = [
        case("a", (0, 0, 10, 10, 0), (20, 0, 30, 10, 0), (0, 90, 9, 99, 2)),
        case("b", (0, 0, 10, 10, 0)),
    ]
    results = [
        found((0, 0, 10, 10, 0, 0.9), (70, 0, 80, 10, 0, 0.8), (20, 0, 30, 10, 0, 0.7)),
        found((0, 0, 10, 10, 0, 0.6), (70, 0, 80, 10, 0, 0.6), (0, 0, 9, 9, 1, 0.9)),
    ]
    assert best_thresholds(matched(cases, results, 3)).tolist() == same([0.6, NAN, NAN])


def test_of_equally_good_thresholds_the_highest_is_the_best():
    # F1 is 2/4 at .9, 2/7 with three wrong boxes, 4/8 with another right one.
    cases = [case("a", (0, 0, 9, 9, 0)), case("b", (0, 0, 9, 9, 0), (20, 0, 29, 9, 0))]
    wrong = [(x, 100, x + 9, 109, 0, 0.5) for x in (0, 20, 40)]
    results = [found((0, 0, 9, 9, 0, 0.9)), found(*wrong, (0, 0, 9, 9, 0, 0.2))]
    assert best_thresholds(matched(cases, results, 1)).tolist() == [0.9]


def test_froc_is_the_best_sensitivity_within_so_many_false_positives_an_image():
    # Falling: right, wrong, wrong, right, right (with a wrong one of its score).
    cases = [
        case("a", (0, 0, 9, 9, 0), (20, 0, 29, 9, 0)),
        case("b", (0, 0, 9, 9, 0)),
        case("c"),
        case("d", (0, 0, 9, 9, 0)),
    ]
    results = [
        found((0, 0, 9, 9, 0, 0.9), (20, 0, 29, 9, 0, 0.5), (60, 0, 69, 9, 0, 0.8)),
        found((0, 0, 9, 9, 0, 0.3), (60, 0, 69, 9, 0, 0.3)),
        found((0, 0, 9, 9, 0, 0.7)),
        found(),
    ]
    # False positives an image: 0, .25, .5, .75 -> sensitivities 1/4, 1/4, 2/4, 3/4
    curve = froc(matched(cases, results, 1), 0)
    assert curve.tolist() == [0.25, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75]


def test_froc_of_nothing_found_is_0_and_without_a_reference_undefined():
    cases = [case("a", (0, 0, 9, 9, 0))]
    matches = matched(cases, [found()], 2)
    assert froc(matches, 0).tolist() == [0] * 7
    assert np.isnan(froc(matches, 1)).all()


def test_images_are_called_positive_by_any_box_wherever_it_lies():
    counts = BoxCounts(
        tp=np.array([[1], [0], [0], [0]]),
        fp=np.array([[0], [2], [1], [0]]),
        fn=np.array([[1], [1], [0], [0]]),
    )
    values = of_images(counts)
    assert {name: value.tolist() for name, value in values.items()} == {
        "sensitivity_image": [1.0],
        "specificity_image": [0.5],
    }


def test_the_confusion_table_has_missed_boxes_and_boxes_on_nothing():
    cases = [
        case("a", (0, 0, 9, 9, 0), (20, 0, 29, 9, 1), (40, 0, 49, 9, 1)),
        case("b", (0, 0, 9, 9, 2)),
    ]
    results = [
        found(
            (0, 0, 9, 9, 1, 0.9),  # the wrong label takes the box ...
            (0, 0, 9, 9, 0, 0.8),  # ... so that the right one, less sure, is on nothing
            (20, 0, 29, 9, 1, 0.7),
            (40, 0, 49, 9, 1, 0.3),  # below the threshold of its label
        ),
        found((0, 0, 9, 9, 0, 0.3)),
    ]
    tables = confusions(cases, results, np.array([0.2, 0.5, 0.5]))
    assert tables[0].tolist() == [[0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert tables[1].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


# COCO's AP


def test_ap_worked_out_by_hand():
    cases = [case("a", (0, 0, 40, 40, 0), (100, 0, 140, 40, 0)), case("b")]
    results = [
        found((0, 0, 40, 40, 0, 0.9), (100, 0, 140, 32, 0, 0.5)),  # IoU 1 and .8
        found((0, 0, 40, 40, 0, 0.7)),  # on an image without a box: counted
    ]
    ap = ap_of(cases, results, 2)
    both, first = (51 + 50 * 2 / 3) / 101, 51 / 101  # precision 1 to recall .5, then 2/3 or none
    # An IoU of .8 is enough for .5, .55 ... .8: for 7 of 10.
    assert ap["a", "AP50"] == ap["a", "AP75"] == same(both)
    assert ap["a", "AP"] == ap["a", "AP_medium"] == same((7 * both + 3 * first) / 10)
    assert [ap["a", "AP_small"], ap["a", "AP_large"], ap["b", "AP"]] == same([NAN] * 3)
    assert ap["all", "AP50"] == ap["a", "AP50"]
    assert ap["a", "AR1"] == same(1 / 2)  # two boxes to find, and one counts
    assert ap["a", "AR10"] == ap["a", "AR100"] == ap["a", "AR_medium"] == same(8.5 / 10)
    assert [ap["a", "AR_small"], ap["b", "AR1"]] == same([NAN] * 2)


def test_ap_of_nothing_found_is_0_where_there_is_something_to_find():
    ap = ap_of([case("a", (0, 0, 40, 40, 0)), case("b")], [found(), found()], 2)
    assert ap["a", "AP"] == ap["all", "AP"] == ap["a", "AP_medium"] == ap["a", "AR10"] == 0
    assert ap["b", "AP"] == same(NAN)


@pytest.mark.parametrize("cases", [[], [case("a")]])
def test_ap_without_any_reference_box_is_undefined(cases):
    ap = ap_of(cases, [found((0, 0, 9, 9, 0, 0.9)) for _ in cases], 1)
    assert list(ap.values()) == same([NAN] * 24)
    assert ap50_replicates(
        matched(cases, [found() for _ in cases], 1), np.ones((2, len(cases)))
    ) == same(np.array([NAN, NAN]))


def test_the_first_reference_box_of_the_first_image_counts():
    # COCO's code takes a box with the id 0 for none.
    assert ap_of([case("a", (0, 0, 40, 40, 0))], perfect([case("a", (0, 0, 40, 40, 0))]), 1)[
        "a", "AP"
    ] == same(1)


def test_only_the_100_surest_boxes_of_a_label_in_an_image_count():
    wrong = [(x, 100, x + 2, 102, 0, 0.9) for x in range(100)]
    cases = [case("a", (0, 0, 40, 40, 0))]
    for number, ap50 in ((99, 1 / 100), (100, 0.0)):
        results = [found(*wrong[:number], (0, 0, 40, 40, 0, 0.5))]
        assert ap_of(cases, results, 1)["a", "AP50"] == pytest.approx(ap50, abs=1e-12)
        assert ap50_replicates(matched(cases, results, 1), np.ones((1, 1))) == pytest.approx(ap50)


# Laws


@laws
@given(seeds)
def test_order_of_images_and_boxes_changes_nothing_even_among_equal_scores(seed):
    cases, results = at_random(seed, images=4, levels=4)  # many equal scores
    rng = np.random.default_rng(seed)
    order = rng.permutation(4)
    mixed = [reordered(results[i], rng.permutation(len(results[i].scores))) for i in order]
    moved = [cases[i] for i in order]
    matches, again = matched(cases, results, 3), matched(moved, mixed, 3)
    for count, other in zip(counts_at(matches, EVERY), counts_at(again, EVERY), strict=True):
        assert (count[order] == other).all()
    assert best_thresholds(matches).tolist() == same(best_thresholds(again).tolist())
    assert froc(matches, 0).tolist() == same(froc(again, 0).tolist())
    tables = confusions(cases, results, EVERY)
    assert (tables[order] == confusions(moved, mixed, EVERY)).all()
    assert ap_of(cases, results) == same(ap_of(moved, mixed))
    ones = np.ones((1, 4))
    assert ap50_replicates(matches, ones) == same(ap50_replicates(again, ones))


@laws
@given(seeds)
def test_ap50_of_the_matches_equals_cocos(seed):
    cases, results = at_random(seed, levels=10)
    ap, matches, ones = ap_of(cases, results), matched(cases, results, 3), np.ones((1, len(cases)))
    for label, name in enumerate("abc"):
        assert ap50_replicates(matches, ones, label)[0] == same(ap[name, "AP50"])
    assert ap50_replicates(matches, ones)[0] == same(ap["all", "AP50"])


@laws
@given(seeds)
def test_counts_add_up_to_the_boxes_found_and_the_reference_boxes(seed):
    cases, results = at_random(seed)
    thresholds = np.array([0.0, 0.3, 0.7])
    tp, fp, fn = counts_at(matched(cases, results, 3), thresholds)
    for image, (one, boxes) in enumerate(zip(cases, results, strict=True)):
        kept = boxes.labels[boxes.scores >= thresholds[boxes.labels]]
        assert (tp + fp)[image].tolist() == np.bincount(kept, minlength=3).tolist()
        assert (tp + fn)[image].tolist() == np.bincount(one.labels, minlength=3).tolist()
    assert min(tp.min(), fp.min(), fn.min()) >= 0
    tables = confusions(cases, results, thresholds)
    assert (tables[:, :3].sum(axis=2) == tp + fn).all()
    assert (tables[:, :, :3].sum(axis=1) == tp + fp).all()
    assert (tables[:, 3, 3] == 0).all()


@laws
@given(seeds)
def test_leaving_out_less_sure_boxes_before_matching_gives_the_counts_of_a_threshold(seed):
    cases, results = at_random(seed)
    kept = [reordered(one, np.flatnonzero(one.scores >= 0.5)) for one in results]
    after = counts_at(matched(cases, results, 3), np.full(3, 0.5))
    before = counts_at(matched(cases, kept, 3), EVERY)
    assert totals(after) == totals(before)


@laws
@given(seeds)
def test_the_best_threshold_beats_every_other(seed):
    matches = matched(*at_random(seed, levels=10), 3)
    best = best_thresholds(matches)
    reached = _f1(matches, best)
    for score in np.arange(12) / 10:
        assert (_f1(matches, np.full(3, score)) <= reached + 1e-12)[~np.isnan(best)].all()


def _f1(matches, thresholds):
    return rates(BoxCounts(*(count.sum(axis=0) for count in counts_at(matches, thresholds))))["F1"]


@laws
@given(seeds, st.floats(0, 1))
def test_another_box_on_nothing_raises_neither_precision_nor_ap_nor_froc(seed, score):
    cases, results = at_random(seed, images=3)
    more = [*results[:-1], _with(results[-1], (400, 400, 410, 410), 0, score)]
    before, after = matched(cases, results, 3), matched(cases, more, 3)
    tp, fp, fn = totals(counts_at(before, EVERY))
    assert totals(counts_at(after, EVERY)) == [tp, [fp[0] + 1, *fp[1:]], fn]
    assert (froc(after, 0) <= froc(before, 0)).all() or not (before.true[:, 0]).any()
    old, new = ap_of(cases, results), ap_of(cases, more)
    assert all(not new[key] > old[key] + 1e-12 for key in old)


def _with(one, box, label, score):
    return Detections(
        np.r_[one.boxes, [box]], np.append(one.labels, label), np.append(one.scores, score)
    )


@laws
@given(seeds)
def test_another_less_sure_copy_of_a_right_box_is_a_false_positive(seed):
    rng = np.random.default_rng(seed)
    cases = [case("a", *((40 * x, 0, 40 * x + 20, 20, x % 2) for x in range(rng.integers(1, 9))))]
    right = perfect(cases, 0.9)
    copy = [_with(right[0], right[0].boxes[0], right[0].labels[0], 0.8)]
    once, twice = (counts_at(matched(cases, one, 2), np.zeros(2)) for one in (right, copy))
    assert totals(twice)[0] == totals(once)[0]
    assert totals(twice)[1] == [1, 0]


@laws
@given(seeds)
def test_a_perfect_prediction_scores_1_everywhere(seed):
    cases, _ = at_random(seed, images=3)
    matches = matched(cases, perfect(cases, 0.7), 3)
    counts = counts_at(matches, np.full(3, 0.7))
    values = [value for group in rates(counts).values() for value in group.flat]
    values += [value for group in of_images(counts).values() for value in group]
    values += [value for label in range(3) for value in froc(matches, label)]
    ap = ap_of(cases, perfect(cases, 0.7))
    values += [value for (_, name), value in ap.items() if name not in ("AR1", "AR10")]
    defined = [value for value in values if not math.isnan(value)]
    assert defined == same([1.0] * len(defined))
    assert bool(defined) == bool(matches.true.any())


@laws
@given(seeds)
def test_ap_and_froc_only_know_the_order_of_scores(seed):
    cases, results = at_random(seed, images=4)
    squeezed = [Detections(one.boxes, one.labels, one.scores**3 / 2 + 0.1) for one in results]
    assert ap_of(cases, results) == same(ap_of(cases, squeezed))
    first, second = matched(cases, results, 3), matched(cases, squeezed, 3)
    assert froc(first, 1).tolist() == same(froc(second, 1).tolist())


@laws
@given(seeds, st.sampled_from([0.25, 2.0, 8.0]))
def test_size_and_place_of_a_whole_image_change_no_match(seed, factor):
    cases, results = at_random(seed)
    moved = [case(one.id, *np.c_[one.boxes * factor + 32, one.labels]) for one in cases]
    boxes = [Detections(one.boxes * factor + 32, one.labels, one.scores) for one in results]
    assert totals(counts_at(matched(cases, results, 3), EVERY)) == totals(
        counts_at(matched(moved, boxes, 3), EVERY)
    )


# What is refused

GOOD = case("a", (0, 0, 9, 9, 0))


@pytest.mark.parametrize(
    ("cases", "results", "message"),
    [
        ([GOOD], [], "1 images but boxes found in 0"),
        ([GOOD, GOOD], [found(), found()], "two images share an id"),
        ([GOOD], [found((0, 0, 9, 9, 2, 0.5))], r"a: found labels must be 0 to 1, got \[2\]"),
        ([GOOD], [found((0, 0, 9, 9, -1, 0.5))], "a: found labels must be 0 to 1"),
        ([case("a", (0, 0, 9, 9, 2))], [found()], "a: reference labels must be 0 to 1"),
        ([GOOD], [found((9, 0, 0, 9, 0, 0.5))], "a: a found box is not x1, y1, x2, y2 px"),
        ([GOOD], [found((0, 0, NAN, 9, 0, 0.5))], "a: a found box is not x1, y1, x2, y2 px"),
        ([GOOD], [found((0, 0, math.inf, 9, 0, 0.5))], "a: a found box is not x1"),
        ([GOOD], [found((0, 0, 9, 9, 0, 1.5))], r"a: scores must be in \[0, 1\]"),
        ([GOOD], [found((0, 0, 9, 9, 0, NAN))], r"a: scores must be in \[0, 1\]"),
        (
            [GOOD],
            [Detections(np.zeros((2, 4)), np.zeros(1, int), np.zeros(1))],
            r"a: found boxes must be \(1, 4\), one a label, got \(2, 4\)",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(cases, results, message):
    with pytest.raises(DataError, match=message):
        matched(cases, results, 2)
    with pytest.raises(DataError, match=message):
        list(coco_ap(cases, results, "ab"))
