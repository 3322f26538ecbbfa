"""One box for one thing: answers by hand, and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_tasks.errors import DataError
from spine_tasks.metrics.boxes import box_iou
from spine_tasks.predictions import Detections
from spine_tasks.tasks.detection.merging import fuse, merge_duplicates


def found(*rows):
    """Detections of rows (x1, y1, x2, y2, label, score)."""
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4].astype(np.int64), table[:, 5])


def rows(detections):
    return [
        (*box, label, score)
        for box, label, score in zip(
            detections.boxes.tolist(),
            detections.labels.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]


edges = st.integers(1, 12)
boxes = st.tuples(
    st.integers(0, 20), st.integers(0, 20), edges, edges, st.integers(0, 2), st.integers(0, 8)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3], b[4], b[5] / 8))
detections = st.lists(boxes, max_size=8).map(lambda many: found(*many))


# Duplicates


def test_of_two_duplicates_the_surer_stays_whatever_their_labels():
    sure, unsure = (0, 0, 10, 10, 1, 0.9), (0, 0, 10, 9, 0, 0.8)
    assert rows(merge_duplicates(found(unsure, sure), 0.65)) == [sure]


def test_at_the_iou_both_stay():
    pair = (0, 0, 10, 10, 0, 0.9), (0, 0, 10, 5, 0, 0.8)  # IoU .5
    assert rows(merge_duplicates(found(*pair), 0.5)) == list(pair)
    assert rows(merge_duplicates(found(*pair), 0.49)) == [pair[0]]


def test_small_overlaps_with_many_neighbours_do_not_add_up():
    # Each neighbour has IoU 1/3 with the middle box; a running sum would reach 2/3 and drop it.
    three = (0, 0, 10, 10, 0, 0.9), (5, 0, 15, 10, 0, 0.8), (10, 0, 20, 10, 0, 0.7)
    assert rows(merge_duplicates(found(*three), 0.65)) == list(three)


def test_a_box_gives_way_only_to_one_that_stays():
    # Of a chain, the second overlaps both others, which do not overlap each other above the IoU.
    chain = (0, 0, 10, 10, 0, 0.9), (3, 0, 13, 10, 0, 0.8), (6, 0, 16, 10, 0, 0.7)
    assert rows(merge_duplicates(found(*chain), 0.5)) == [chain[0], chain[2]]


def test_no_boxes_stay_none():
    for made in (merge_duplicates(found(), 0.5), fuse([found(), found()])):
        assert (made.boxes.shape, made.labels.dtype, len(made.scores)) == ((0, 4), np.int64, 0)


@settings(max_examples=200, deadline=None)
@given(many=detections, iou=st.sampled_from([0.0, 0.3, 0.65, 1.0]))
def test_what_stays_is_disjoint_and_what_falls_has_a_surer_cause(many, iou):
    stayed = merge_duplicates(many, iou)
    assert set(rows(stayed)) <= set(rows(many))
    assert (np.diff(stayed.scores) <= 0).all()
    mutual = box_iou(stayed.boxes, stayed.boxes)
    assert (mutual[~np.eye(len(mutual), dtype=bool)] <= iou).all()
    for row in set(rows(many)) - set(rows(stayed)):
        with_stayed = box_iou(np.array([row[:4]]), stayed.boxes)[0]
        assert (stayed.scores[with_stayed > iou] >= row[5]).any()
    assert rows(merge_duplicates(stayed, iou)) == rows(stayed)


# Fusion


def test_a_fused_box_is_the_mean_weighted_by_scores():
    # By hand: weights .9 and .3, so x1 = (0 * .9 + 4 * .3) / 1.2 = 1; score (.9 + .3) / 2.
    one, other = found((0, 0, 12, 8, 1, 0.9)), found((4, 0, 16, 8, 1, 0.3))
    fused = fuse([one, other], iou=0.45)  # IoU .5
    np.testing.assert_allclose(rows(fused), [(1, 0, 13, 8, 1, 0.6)], rtol=1e-12)


def test_a_box_that_one_of_three_runs_found_has_a_third_of_its_score():
    fused = fuse([found((0, 0, 4, 4, 0, 0.6)), found(), found()])
    np.testing.assert_allclose(rows(fused), [(0, 0, 4, 4, 0, 0.2)], rtol=1e-12)


def test_more_boxes_than_runs_do_not_raise_a_score_beyond_the_mean():
    thrice = found(*[(0, 0, 4, 4, 0, score) for score in (0.9, 0.6, 0.3)])
    np.testing.assert_allclose(rows(fuse([thrice])), [(0, 0, 4, 4, 0, 0.6)], rtol=1e-12)


def test_labels_are_not_mixed():
    fused = fuse([found((0, 0, 4, 4, 0, 0.8)), found((0, 0, 4, 4, 1, 0.6))])
    np.testing.assert_allclose(
        rows(fused), [(0, 0, 4, 4, 0, 0.4), (0, 0, 4, 4, 1, 0.3)], rtol=1e-12
    )


def test_a_box_joins_the_cluster_it_overlaps_most():
    near, far = (0, 0, 10, 10, 0, 0.9), (6, 0, 16, 10, 0, 0.8)
    between = (4, 0, 14, 10, 0, 0.4)  # IoU 3/7 with the first, 2/3 with the second
    fused = fuse([found(near, far), found(between)], iou=0.4)
    x1 = (6 * 0.8 + 4 * 0.4) / 1.2
    expected = [(x1, 0, x1 + 10, 10, 0, 0.6), (0, 0, 10, 10, 0, 0.45)]
    np.testing.assert_allclose(rows(fused), expected, rtol=1e-12)


def test_a_cluster_is_compared_by_its_fused_box_and_not_by_its_first():
    # The third box has IoU .5 with the first, 2/3 with the mean of the first two.
    first, second, third = ((x, 0, x + 12, 10, 0, 0.5) for x in (0, 3, 4))
    assert len(fuse([found(first), found(second), found(third)], iou=0.55).scores) == 1


def test_boxes_of_score_0_are_fused_too():
    fused = fuse([found((0, 0, 4, 4, 0, 0.0)), found((1, 0, 5, 4, 0, 0.0))])
    assert rows(fused) == [(0.5, 0, 4.5, 4, 0, 0.0)]


def test_without_a_run_there_is_nothing_to_fuse():
    with pytest.raises(DataError, match="no run"):
        fuse([])


@settings(max_examples=100, deadline=None)
@given(many=st.lists(detections, min_size=1, max_size=4), data=st.data())
def test_the_order_of_runs_does_not_matter(many, data):
    shuffled = data.draw(st.permutations(many))
    assert rows(fuse(many)) == rows(fuse(shuffled))


@settings(max_examples=100, deadline=None)
@given(many=detections)
def test_one_run_without_duplicates_stays_as_it_was_and_so_do_its_copies(many):
    apart = merge_duplicates(many, 0.55)
    np.testing.assert_allclose(rows(fuse([apart])), rows(apart), rtol=1e-12)
    np.testing.assert_allclose(rows(fuse([apart] * 3)), rows(apart), rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(many=st.lists(detections, min_size=1, max_size=3))
def test_one_run_more_that_found_nothing_scales_every_score(many):
    apart = [merge_duplicates(one, 0.0) for one in many]
    scale = len(many) / (len(many) + 1)
    np.testing.assert_allclose(
        fuse([*apart, found()]).scores, fuse(apart).scores * scale, rtol=1e-12
    )
