import logging
import warnings

import numpy as np
import pytest
import scipy.stats
from stats_making import table

from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.intervals import bootstrap_t, draws, interval
from spine_tasks.stats.persons import by_person
from spine_tasks.stats.summary import summary


def skewed(n, seed=0):
    return np.random.default_rng(seed).beta(18, 2, n)


@pytest.mark.parametrize(
    ("n", "method"),
    [(2, "t"), (6, "t"), (7, "bootstrap-t"), (49, "bootstrap-t"), (50, "BCa"), (200, "BCa")],
)
def test_the_method_depends_on_n_and_is_told(n, method):
    cases = table(a=skewed(n), base=np.zeros(n))
    values = by_person(cases)["value"].to_numpy()[:n]  # p10 is before p2
    low, high, used = interval(values)
    assert used == method
    assert low < values.mean() < high
    only, _ = summary(cases).to_dict("records")
    assert (only["low"], only["high"], only["interval"]) == (low, high, method)
    (pair,) = comparisons(cases, "base").to_dict("records")
    assert pair["interval"] == method
    assert (pair["low"], pair["high"]) == pytest.approx((low, high), rel=1e-9)


def test_of_few_it_is_students_t():
    values = np.array([0.7, 0.9, 0.8, 0.85, 0.6])
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert interval(values)[:2] == pytest.approx(tuple(expected))


def test_of_many_it_is_bca():
    values = skewed(50)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert interval(values)[:2] == tuple(expected)


def test_bootstrap_t_by_hand():
    # Of 1 2 6 (mean 3, standard error sqrt(7 / 3)) the resamples 1 1 2 and 2 6 6 have the means
    # 4/3 and 14/3 and the standard errors 1/3 and 4/3, so t = -5 and 1.25. Of 39 values of t the
    # first and the last are the 2.5 % and 97.5 % points.
    counts = np.array([[2, 1, 0]] + [[1, 1, 1]] * 37 + [[0, 1, 2]], float)
    low, high = bootstrap_t(np.array([1.0, 2, 6]), counts)
    error = np.sqrt(7 / 3)
    assert (low, high) == pytest.approx((3 - 1.25 * error, 3 + 5 * error))


def test_bootstrap_t_of_a_published_example():
    # Survival of nine mice: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section
    # 12.5; 90 % interval (35.82, 116.74) by 1000 resamples.
    mice = np.array([52.0, 104, 146, 10, 50, 31, 40, 27, 46])
    low, high = bootstrap_t(mice, draws(9), confidence=0.9)
    assert (low, high) == pytest.approx((35.82, 116.74), abs=1.5)


def test_bootstrap_t_as_resampled_one_by_one():
    values = skewed(12)
    t = []
    for counts in draws(12).astype(int):
        again = np.repeat(values, counts)
        t.append((again.mean() - values.mean()) / (again.std(ddof=1) / 12**0.5))
    t.sort()
    error = scipy.stats.sem(values)
    expected = values.mean() - error * t[9749], values.mean() - error * t[249]
    assert interval(values)[:2] == pytest.approx(expected)


def test_resamples_are_always_the_same_and_as_large_as_the_sample():
    assert (draws(7).sum(axis=1) == 7).all()
    assert draws(7).mean(axis=0) == pytest.approx(np.ones(7), abs=0.05)
    before = interval(skewed(20))
    draws.cache_clear()
    assert interval(skewed(20)) == before


def test_bootstrap_t_of_many_studies_at_once_is_that_of_each():
    studies = np.array([skewed(9, seed) for seed in range(4)])
    low, high = bootstrap_t(studies, draws(9))
    for number, study in enumerate(studies):
        assert interval(study)[:2] == pytest.approx((low[number], high[number]))


@pytest.mark.parametrize("others", [0.0, 0.7, 1.1e-5])
def test_where_most_persons_share_a_value_it_is_students_t(others):
    values = np.array([others] * 9 + [0.1])  # a third of the resamples have one value only
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high, method = interval(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert (low, high) == pytest.approx(tuple(expected))
    assert method == "t"


def test_resamples_without_spread_whose_mean_did_not_move_have_t_0():
    values = np.array([0.0] * 8 + [0.1, -0.1])  # a tenth of the resamples have zeros only
    low, high, method = interval(values)
    assert method == "bootstrap-t"
    assert low < 0 < high
    assert low == pytest.approx(-high, rel=0.1)


@pytest.mark.parametrize("n", [4, 12, 60])
def test_the_interval_moves_and_grows_with_the_values(n):
    values = skewed(n)
    low, high, method = interval(values)
    assert interval(100 * values) == (pytest.approx(100 * low), pytest.approx(100 * high), method)
    assert interval(values + 3) == (pytest.approx(low + 3), pytest.approx(high + 3), method)
    mirrored = interval(-values)
    assert mirrored[2] == method
    assert mirrored[:2] == pytest.approx((-high, -low), rel=0.01 if method == "BCa" else 1e-12)


def test_equal_values_have_no_width_and_single_ones_no_interval():
    assert interval(np.full(30, 0.7)) == (0.7, 0.7, "constant")
    for few in (np.array([]), np.array([0.7])):
        low, high, method = interval(few)
        assert np.isnan([low, high]).all()
        assert method == ""


def test_where_bca_is_undefined_the_percentile_interval_is_given_and_logged(caplog):
    values = np.arange(1.0, 61) * 1e-120  # whose cubes, the skewness, are 0 / 0
    with caplog.at_level(logging.WARNING):
        low, high, method = interval(values)
    assert 1e-120 <= low < high <= 60e-120
    assert method == "percentile"
    assert "BCa interval of 60 values is undefined" in caplog.text


def test_quartiles_are_linear_between_persons():
    (only,) = summary(table(a=[0.1, 0.2, 0.4, 0.8, np.nan])).to_dict("records")
    assert (only["q25"], only["median"], only["q75"]) == pytest.approx((0.175, 0.3, 0.5))
    assert only["interval"] == "t"
    alone = summary(table(a=[0.4])).loc[0]
    assert (alone["q25"], alone["q75"], alone["interval"]) == (0.4, 0.4, "")
