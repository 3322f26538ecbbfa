"""Published figures of discs and of cervical stenosis: toys, quirks, and honest counterparts."""

import math

import numpy as np
import pytest
from box_making import at_random, case, found, perfect
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from spine_tasks.metrics import discs_published as discs
from spine_tasks.metrics.box_rates import confusions
from spine_tasks.metrics.boxes import box_iou
from spine_tasks.metrics.cord_grades import cord_grades, quadratic_kappa
from spine_tasks.metrics.cord_published import cord_published, merge_box_max, merged, pairs_of
from spine_tasks.metrics.discs_published import discs_published
from spine_tasks.metrics.resampling import interval_of, person_weights

NAN = math.nan


def same(value):
    return pytest.approx(value, rel=1e-12, nan_ok=True)


# Discs

HEALTHY, SICK = 0, 1
DISCS = case(
    "a",
    (0, 0, 20, 10, HEALTHY),
    (0, 20, 20, 30, SICK),
    (0, 40, 20, 50, HEALTHY),
    (0, 60, 20, 70, SICK),
)
FOUND = found(
    (0, 0, 20, 10, HEALTHY, 0.9),
    (0, 20, 20, 30, HEALTHY, 0.8),
    (0, 40, 20, 50, HEALTHY, 0.7),
    (100, 100, 120, 110, SICK, 0.6),
    (1, 0, 21, 10, SICK, 0.3),
)


def figures(precision, recall, f1, ap):
    names = ("precision", "recall", "F1", "AP")
    values = (precision, recall, f1, ap)
    return same({f"{name}_published": one for name, one in zip(names, values, strict=True)})


def test_the_toy_of_the_disc_study_before_and_after_its_post_processing():
    assert discs_published([DISCS], [FOUND]) == figures(0.5, 0.5, 0.5, 0.5)
    kept = discs.merged(FOUND)
    assert kept.scores.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert discs_published([DISCS], [kept]) == figures(0.5, 2 / 3, 4 / 7, 0.5)


@pytest.mark.parametrize(
    ("other", "first", "expected"),
    [((5, 0, 14, 9), (0, 0, 9, 9), 1 / 3), ((10, 0, 20, 10), (0, 0, 10, 10), 0.047619)],
)
def test_iou_of_corners_that_are_pixels(first, other, expected):
    ious = box_iou(np.array([first], float), np.array([other], float), pixel=1.0)
    assert ious[0, 0] == pytest.approx(expected, abs=1e-6)


def test_the_disc_study_pairs_boxes_by_the_pixels_inside():
    # 6 of 12 pixels, but 2 of 6 px where corners are points.
    pair = [case("a", (0, 0, 2, 2, SICK))], [found((1, 0, 3, 2, SICK, 0.9))]
    assert discs_published(*pair) == figures(1, 1, 1, 1)


def test_the_disc_studys_precision_sees_no_false_positive():
    nowhere = [found((200 + x, 0, 210 + x, 10, SICK, 0.9)) for x in (0, 20)]
    more = [
        discs.Detections(*map(np.concatenate, zip(*map(vars_of, [FOUND, *nowhere]), strict=True)))
    ]
    assert discs_published([DISCS], more) == discs_published([DISCS], [FOUND])


def vars_of(one):
    return one.boxes, one.labels, one.scores


def test_the_disc_studys_figures_pool_the_counts_of_all_images():
    second = case("b", (0, 0, 20, 10, SICK))
    both = discs_published([DISCS, second], [FOUND, found((0, 0, 20, 10, SICK, 0.95))])
    # TP 2 + 1 of 5 boxes, FN 2; the new pair is the surest and a sick one.
    assert both == figures(3 / 5, 3 / 5, 3 / 5, 1 / 2 + 1 / 2 * 2 / 3)


def test_the_disc_studys_figures_are_0_where_they_are_undefined_but_for_ap():
    assert discs_published([DISCS], [found()]) == figures(0, 0, 0, NAN)
    assert discs_published([case("a")], [FOUND]) == figures(0, 0, 0, NAN)
    assert discs_published([], []) == figures(0, 0, 0, NAN)


def test_a_second_pair_of_one_label_is_not_counted_and_one_of_another_label_is():
    one = case("a", (0, 0, 20, 10, SICK))
    twice = found((0, 0, 20, 10, SICK, 0.9), (0, 0, 20, 11, SICK, 0.8))
    assert discs_published([one], [twice]) == figures(1, 1, 1, 1)
    mixed = found((0, 0, 20, 10, HEALTHY, 0.9), (0, 0, 20, 11, SICK, 0.8))
    assert discs_published([one], [mixed]) == figures(1, 1 / 2, 2 / 3, 1)


def test_the_running_sum_drops_boxes_that_hardly_overlap():
    # IoU of the first with the others .4, .3 (in sum .7) and 0; none is a duplicate.
    row = found(
        (0, 0, 99, 99, HEALTHY, 0.9),
        (0, 0, 39, 99, HEALTHY, 0.8),
        (70, 0, 99, 99, HEALTHY, 0.7),
        (300, 0, 399, 99, HEALTHY, 0.6),
    )
    assert discs.merged(row).scores.tolist() == [0.9, 0.8]
    reverse = found(*((*box, 0, 0.9) for box in row.boxes[[0, 1, 2]]), (300, 0, 399, 99, 0, 0.95))
    assert discs.merged(reverse).scores.tolist() == [0.9, 0.9, 0.95]  # of equals the first goes


def test_post_processing_of_nothing_is_nothing():
    assert [len(part) for part in vars_of(discs.merged(found()))] == [0, 0, 0]


# The cord

CORD_FOUND = found(
    (0, 0, 10, 10, 1, 0.9),
    (0, 0, 10, 9.5, 2, 0.95),
    (50, 50, 60, 60, 5, 0.8),
    (80, 80, 90, 90, 0, 0.6),
)
CORD = case("a", (0, 0, 10, 10, 2), (50, 50, 60, 60, 6), (20, 20, 25, 25, 3))


def test_the_toy_of_the_cervical_study():
    kept = merged(CORD_FOUND, score=0.5)
    boxes, labels, scores = zip(*kept, strict=True)
    assert labels == (2, 5, 0)
    assert boxes[0] == (0, 0, 10, 10)
    assert scores == (0.95, 0.8, 0.6)
    assert pairs_of(CORD, kept) == [(2, 2), (6, 5), (3, 7), (7, 0)]


def test_figures_of_the_toy_worked_out_by_hand():
    assert cord_published([CORD], [CORD_FOUND], score=0.5) == same(
        {
            "recall_overall_published": 2 / 3,
            "recall_central_published": 1 / 2,
            "recall_side_published": 1.0,
            "accuracy_7_published": 1 / 2,
            "accuracy_central_4_published": 1.0,
            "accuracy_side_3_published": 0.0,
            "accuracy_4_published": 1 / 2,
            "accuracy_central_2_published": 1.0,
            "accuracy_side_2_published": 0.0,
        }
    )


def test_joined_grades_agree_where_single_ones_do_not():
    boxes = [(50 * label, 0, 50 * label + 20, 20) for label in range(7)]
    cases = [case("a", *((*box, label) for label, box in enumerate(boxes)))]
    # Grades 0 <-> 1, 2 <-> 3 and 4 <-> 5 mixed up; 6 is found as the canal.
    guessed = (1, 0, 3, 2, 5, 4, 0)
    values = cord_published(
        cases, [found(*((*box, label, 0.9) for label, box in zip(guessed, boxes, strict=True)))]
    )
    # More than three boxes that do not touch stay.
    assert values == same(
        {
            "recall_overall_published": 1.0,
            "recall_central_published": 1.0,
            "recall_side_published": 2 / 3,
            "accuracy_7_published": 0.0,
            "accuracy_central_4_published": 0.0,
            "accuracy_side_3_published": 0.0,
            "accuracy_4_published": 6 / 7,
            "accuracy_central_2_published": 1.0,
            "accuracy_side_2_published": 1.0,
        }
    )


def test_only_surer_boxes_count_and_what_is_undefined_is_nan():
    values = cord_published([CORD], [found((0, 0, 10, 10, 2, 0.7))])
    assert {name: value for name, value in values.items() if not math.isnan(value)} == {
        "recall_overall_published": 0,
        "recall_central_published": 0,
        "recall_side_published": 0,
    }
    assert all(math.isnan(value) for value in cord_published([], []).values())


def boxes_in_a_row(shared):
    """Four boxes of 10 px, each sharing `shared` px with the next."""
    return found(*((x * (10 - shared), 0, x * (10 - shared) + 10, 10, 0, 0.9) for x in range(4)))


def test_only_more_than_three_boxes_are_merged_at_smaller_shares():
    four = boxes_in_a_row(6.5)
    assert len(merged(four)) < 4
    three = found(*np.c_[four.boxes, four.labels, four.scores][:3])
    assert len(merged(three)) == 3
    assert len(merged(boxes_in_a_row(4.5))) == 4


def test_a_merge_keeps_the_label_of_the_surer_and_of_the_first_of_equals():
    box = (0.0, 0.0, 10.0, 10.0)
    assert merge_box_max([(box, 1, 0.8), (box, 2, 0.9)], 0.9) == [(box, 2, 0.9)]
    assert merge_box_max([(box, 1, 0.8), (box, 2, 0.8)], 0.9) == [(box, 1, 0.8)]
    assert merge_box_max([], 0.9) == []


def test_a_box_inside_a_much_larger_one_merges_with_it_in_either_order():
    large, small = ((0.0, 0.0, 90.0, 90.0), 1, 0.8), ((5.0, 5.0, 9.0, 9.0), 2, 0.9)
    together = [((0.0, 0.0, 90.0, 90.0), 2, 0.9)]
    assert merge_box_max([large, small], 0.9) == merge_box_max([small, large], 0.9) == together


def test_a_box_without_an_area_merges_with_none_and_fails_nothing():
    point = (5.0, 5.0, 5.0, 5.0)
    assert len(merge_box_max([((0.0, 0.0, 10.0, 10.0), 1, 0.8), (point, 2, 0.9)], 0.9)) == 2


def test_two_reference_boxes_may_claim_one_found_box():
    one = case("a", (0, 0, 10, 10, 0), (0, 0, 10, 9, 1))
    assert pairs_of(one, [((0.0, 0.0, 10.0, 10.0), 0, 0.9)]) == [(0, 0), (1, 0)]


def test_of_several_found_boxes_the_larger_share_of_the_reference_wins_only_by_a_half():
    one = case("a", (0, 0, 10, 10, 0))
    inside, around = ((0.0, 0.0, 5.0, 10.0), 1, 0.9), ((0.0, 0.0, 20.0, 20.0), 2, 0.8)
    # Inside covers 1/2 and lies inside whole; around covers all, and 1/4 of it is covered.
    assert pairs_of(one, [inside, around])[0] == (0, 2)
    close = ((0.0, 0.0, 10.0, 9.9), 3, 0.7)
    assert pairs_of(one, [inside, close])[0] == (0, 1)  # the first


# The counterparts


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=4, max_size=4))
def test_kappa_equals_that_of_scikit_learn(rows):
    table = np.array(rows)
    true, predicted = np.repeat(np.indices((4, 4)).reshape(2, -1), table.ravel(), axis=1)
    grades = set(true) | set(predicted)
    if len(grades) < 2:
        assert math.isnan(quadratic_kappa(table))
        return
    expected = cohen_kappa_score(true, predicted, labels=range(4), weights="quadratic")
    assert float(quadratic_kappa(table)) == pytest.approx(expected, abs=1e-12)


def test_missed_boxes_are_neither_sensitive_nor_unspecific():
    boxes = [(50 * index, 0, 50 * index + 20, 20) for index in range(8)]
    true = (0, 1, 2, 3, 3, 4, 5, 6)
    guessed = {0: 1, 1: 2, 2: 3, 3: 6, 5: 4, 6: 6, 7: 5}  # the second box of grade 3 is missed
    cases = [case("a", *((*box, label) for box, label in zip(boxes, true, strict=True)))]
    results = [found(*((*boxes[index], label, 0.9) for index, label in guessed.items()))]
    scores = cord_grades(confusions(cases, results, np.zeros(7)).sum(axis=0))
    assert scores["sensitivity_central"] == pytest.approx(1 / 3)  # of 2, 3, 3 the first
    assert scores["specificity_central"] == pytest.approx(1 / 2)
    assert scores["sensitivity_side"] == 0
    assert scores["specificity_side"] == pytest.approx(1 / 2)
    kappa = cohen_kappa_score([0, 1, 2], [1, 2, 3], labels=range(4), weights="quadratic")
    assert scores["kappa_central"] == pytest.approx(kappa)


def test_intervals_hold_the_value_and_images_of_one_person_make_them_wider():
    cases, results = at_random(2, images=30, labels=7)
    tables = np.concatenate([confusions(cases, results, np.zeros(7))] * 2)  # scanned twice
    persons = [one.id for one in cases] * 2
    values = cord_grades(tables.sum(axis=0))

    def intervals(names):
        weights = person_weights(names, 400, seed=0)
        replicates = cord_grades(np.tensordot(weights, tables, axes=1))
        return {name: interval_of(replicates[name]) for name in values}

    by_person, by_image = intervals(persons), intervals([str(i) for i in range(60)])
    for name, (low, high) in by_person.items():
        assert low < values[name] < high
        assert high - low > 1.1 * (by_image[name][1] - by_image[name][0])


def test_perfect_grades_score_1():
    cases = [case("a", *((50 * x, 0, 50 * x + 20, 20, x) for x in range(7)))]
    scores = cord_grades(confusions(cases, perfect(cases), np.zeros(7)).sum(axis=0))
    assert {name: float(one) for name, one in scores.items()} == same(dict.fromkeys(scores, 1.0))
    figures = cord_published(cases, perfect(cases))
    assert figures == same(dict.fromkeys(figures, 1.0))
