"""AP50 and F1 of resampled persons, against the same metrics of data repeated as often."""

import math
from dataclasses import replace

import numpy as np
import pytest
from box_making import at_random, case, found, perfect
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_tasks.metrics.box_rates import counts_at, rates
from spine_tasks.metrics.boxes import matched
from spine_tasks.metrics.coco_ap import coco_ap
from spine_tasks.metrics.resampling import (
    ap50_replicates,
    f1_replicates,
    interval_of,
    person_weights,
)

laws = settings(deadline=None, max_examples=15, derandomize=True)
PERSONS = ["b", "a", "b", "c", "a", "b"]


def same(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)


@laws
@given(st.integers(0, 2**32 - 1))
def test_whole_weights_are_the_ap50_of_coco_with_every_image_so_often(seed):
    cases, results = at_random(seed, images=4, levels=2**20)
    weights = np.random.default_rng(seed).integers(0, 4, (2, 4))
    replicates = {
        label: ap50_replicates(matched(cases, results, 3), weights.astype(float), index)
        for index, label in [*enumerate("abc"), (None, "all")]
    }
    for replicate, row in enumerate(weights):
        often = [(image, copy) for image, times in enumerate(row) for copy in range(times)]
        repeated = [replace(cases[image], id=f"{image} {copy}") for image, copy in often]
        ap = coco_ap(repeated, [results[image] for image, _ in often], "abc")
        for label, metric, value in ap:
            if metric == "AP50":
                assert replicates[label][replicate] == same(value)


@laws
@given(st.integers(0, 2**32 - 1))
def test_whole_weights_are_the_f1_with_every_image_so_often(seed):
    cases, results = at_random(seed)
    counts = counts_at(matched(cases, results, 3), np.full(3, 0.4))
    weights = np.random.default_rng(seed).integers(0, 4, (1, len(cases)))
    rows = np.repeat(np.arange(len(cases)), weights[0])
    repeated = type(counts)(*(count[rows].sum(axis=0) for count in counts))
    for label in range(3):
        assert f1_replicates(counts, weights, label)[0] == same(rates(repeated)["F1"][label])
    pooled = type(counts)(*(count.sum() for count in repeated))
    assert f1_replicates(counts, weights)[0] == same(float(rates(pooled)["F1"]))


def test_a_label_without_weight_is_undefined_and_leaves_the_mean_to_the_others():
    cases = [case("a", (0, 0, 9, 9, 0)), case("b", (0, 0, 9, 9, 1))]
    results = [found((0, 0, 9, 9, 0, 0.9)), found()]
    matches = matched(cases, results, 2)
    weights = np.array([[1.0, 0], [0, 1], [1, 1], [0, 0]])
    nan = math.nan
    assert ap50_replicates(matches, weights, 0) == same(np.array([1, nan, 1, nan]))
    assert ap50_replicates(matches, weights, 1) == same(np.array([nan, 0, 0, nan]))
    assert ap50_replicates(matches, weights) == same(np.array([1, 0, 0.5, nan]))
    f1 = f1_replicates(counts_at(matches, np.zeros(2)), weights)
    assert f1 == same(np.array([1, 0, 2 / 3, nan]))


def test_images_of_a_person_are_drawn_together_and_as_many_persons_as_there_are():
    weights = person_weights(PERSONS, 500, seed=3)
    assert weights.shape == (500, 6)
    assert (weights[:, [0, 0, 1]] == weights[:, [2, 5, 4]]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    # Each person is drawn once on average, and not at all in (2/3)**3 of the draws.
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.15)
    assert (weights == 0).mean() == pytest.approx(8 / 27, abs=0.06)


def test_weights_follow_from_persons_and_seed_and_not_from_the_order_of_images():
    order = [5, 3, 1, 0, 2, 4]
    weights = person_weights(PERSONS, 20, seed=1)
    assert (person_weights([PERSONS[i] for i in order], 20, seed=1) == weights[:, order]).all()
    assert (person_weights(PERSONS, 20, seed=1) == weights).all()
    assert (person_weights(PERSONS, 20, seed=2) != weights).any()


def test_one_weight_for_two_runs_gives_the_interval_of_a_paired_difference():
    cases, results = at_random(5, images=20)
    weights = person_weights([one.subject for one in cases], 300, seed=0)
    first = ap50_replicates(matched(cases, results, 3), weights)
    best = ap50_replicates(matched(cases, perfect(cases), 3), weights)
    assert interval_of(first - first) == (0, 0)
    low, high = interval_of(best - first)
    assert 0 < low < high
    assert (high - low) == same(np.subtract(*interval_of(first)[::-1]))  # the other one is always 1


def test_the_interval_leaves_undefined_replicates_out_and_says_when_there_is_none():
    values = np.append(np.arange(201.0), [math.nan] * 50)
    assert interval_of(values) == same((5.0, 195.0))
    assert interval_of(np.array([math.nan])) == same((math.nan, math.nan))


def test_the_interval_of_f1_covers_the_true_value_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    counts_of = [rng.binomial(10, 0.7, (40, 1)) for _ in range(200)]
    zeros = np.zeros((40, 1), int)
    covered = 0
    for tp in counts_of:
        weights = person_weights([str(i) for i in range(40)], 200, seed=int(rng.integers(1000)))
        low, high = interval_of(f1_replicates((tp, zeros, 10 - tp), weights))
        covered += low <= 2 * 0.7 / 1.7 <= high
    assert 0.88 <= covered / 200 <= 0.99
