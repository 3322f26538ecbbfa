import numpy as np
import pandas as pd
import pytest
import scipy.stats
from stats_making import MAIZE, table
from statsmodels.stats.multitest import multipletests

from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.power import detectable
from spine_tasks.stats.rank_tests import holm, rank_biserial, signed_rank_p

# Hamilton's depression scale before and after a tranquillizer: Hollander and Wolfe, Nonparametric
# Statistical Methods, 1973, page 29; in R's help of wilcox.test V = 40, one-sided p = 0.01953.
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def test_wilcoxon_of_a_published_example():
    assert signed_rank_p(BEFORE - AFTER) == 2 * 10 / 2**9  # 2 x 0.01953
    (pair,) = comparisons(table(after=AFTER, before=BEFORE), "after").to_dict("records")
    assert pair["p"] == 20 / 512
    assert pair["rank_biserial"] == pytest.approx((40 - 5) / 45)


def test_wilcoxon_known_value():
    assert signed_rank_p(MAIZE) == pytest.approx(0.041259765625)
    pair = comparisons(table(base=np.zeros(15), a=MAIZE), "base").loc[0]
    assert pair["p"] == pytest.approx(0.041259765625)
    assert pair["mean_difference"] == pytest.approx(MAIZE.mean())


def test_ties_are_exact_where_all_signs_can_be_tried():
    # Ranks 1.5 1.5 3 4 with the 1.5 negative: W- = 1.5. Of 16 sign patterns, W- <= 1.5 has 3
    # (none, either 1.5), so p = 2 x 3/16. The normal approximation gives 0.19.
    assert signed_rank_p(np.array([-1.0, 1.0, 2.0, 3.0])) == 6 / 16


def test_zeros_are_discarded_before_ranking():
    assert signed_rank_p(np.array([0, 0, 1.0, 2, 3])) == 2 / 2**3
    # Ranks 2.5 x 4 and 5, W- = 5: of 32 patterns 1 + 4 + 1 + 6 have W- <= 5. With the zeros
    # ranked (Pratt) it would be 12 / 32.
    assert signed_rank_p(np.array([0, 0, 0, 1.0, 1, 1, 1, -3])) == 24 / 32


@pytest.mark.parametrize("n", [8, 15])
def test_tied_p_counts_all_patterns_of_signs(n):
    tied = np.round(np.random.default_rng(n).uniform(-1, 2, n), 1) + 0.01  # no zeros
    ranks = scipy.stats.rankdata(abs(tied))
    assert len(set(ranks)) < n
    positive = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    sums, seen = positive @ ranks, ranks[tied > 0].sum()
    expected = min(1, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))
    assert signed_rank_p(tied) == pytest.approx(expected)


def test_many_ties_agree_with_the_normal_approximation():
    tied = np.round(np.random.default_rng(2).normal(0.4, 1, 40), 1)
    approximate = scipy.stats.wilcoxon(tied, method="asymptotic").pvalue
    assert signed_rank_p(tied) == pytest.approx(approximate, rel=0.15)
    many = np.round(np.random.default_rng(2).normal(0.1, 1, 80), 1)
    assert signed_rank_p(many) == scipy.stats.wilcoxon(many, method="asymptotic").pvalue


def test_differences_of_one_sign_have_the_smallest_p_also_with_ties():
    for n in range(1, 12):
        assert signed_rank_p(np.arange(1.0, n + 1) // 2 + 1) == 2 / 2**n


@pytest.mark.parametrize(
    ("n", "p"), [(0, np.nan), (1, 1), (2, 0.5), (3, 0.25), (4, 0.125), (5, 0.0625)]
)
def test_p_of_few_pairs_of_one_sign(n, p):
    assert signed_rank_p(np.arange(1.0, n + 1)) == pytest.approx(p, nan_ok=True)
    assert signed_rank_p(-np.arange(1.0, n + 1)) == pytest.approx(p, nan_ok=True)


@pytest.mark.parametrize("n", [3, 20, 49, 50])
def test_p_without_ties_is_the_exact_one_of_scipy(n):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    expected = scipy.stats.wilcoxon(values, method="exact").pvalue
    assert signed_rank_p(values) == pytest.approx(expected, rel=1e-12)


def test_ranks_favour_the_arm_of_the_larger_share():
    assert rank_biserial(MAIZE) == pytest.approx((96 - 24) / 120)  # ranks 10 and 14 are negative
    assert rank_biserial(-MAIZE) == pytest.approx(-0.6)
    assert rank_biserial(np.array([1.0, -1.0, 2.0, 0.0])) == pytest.approx((1.5 - 1.5 + 3) / 6)
    assert rank_biserial(np.array([0.0, 2.0])) == 1
    assert np.isnan(rank_biserial(np.zeros(4)))
    assert np.isnan(rank_biserial(np.zeros(0)))


# Of myocardial infarction: Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x,
# section 4.2. At .05, Bonferroni and the step-wise procedures reject the first three.
INFARCTION = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
INFARCTION += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]


def test_holm_of_a_published_example():
    # 15 x the smallest, 14 x the next ..., never below the one before, and at most 1.
    expected = [0.0015, 0.0056, 0.0247, 0.1140, 0.2211, 0.2780, 0.2780, 0.2780, 0.3213]
    order = np.random.default_rng(0).permutation(15)
    corrected = holm(pd.Series(INFARCTION)[order])
    assert corrected.sort_index().tolist() == pytest.approx([*expected, 1, 1, 1, 1, 1, 1])
    assert corrected.index.tolist() == order.tolist()
    assert (corrected < 0.05).sum() == 3
    assert corrected.tolist() == pytest.approx(
        multipletests(np.take(INFARCTION, order), method="holm")[1]
    )


def test_holm_leaves_undefined_p_out():
    assert np.isnan(holm(pd.Series([np.nan, np.nan]))).all()
    assert holm(pd.Series([0.04, np.nan, 0.03, 0.04])).tolist() == pytest.approx(
        [0.09, np.nan, 0.09, 0.09], nan_ok=True
    )
    assert holm(pd.Series([], dtype=float)).empty


@pytest.mark.parametrize(("n", "in_sd"), [(10, 1.026), (15, 0.799), (30, 0.543), (35, 0.4996)])
def test_the_detectable_difference_has_the_power_it_says(n, in_sd):
    spread = scipy.stats.zscore(np.arange(float(n)), ddof=1)
    assert detectable(spread) == pytest.approx(in_sd, abs=0.001)
    pairs = n * 3 / np.pi  # noncentral t, two-sided; the other tail is nothing
    t = scipy.stats.t.ppf(0.975, pairs - 1)
    assert scipy.stats.nct.sf(t, pairs - 1, in_sd * pairs**0.5) == pytest.approx(0.8, abs=0.001)


def test_the_signed_rank_test_finds_the_detectable_difference_in_four_of_five_studies():
    studies = np.random.default_rng(0).normal(0.799, 1, (2000, 15))
    found = np.mean([signed_rank_p(study) < 0.05 for study in studies])
    assert found == pytest.approx(0.8, abs=0.03)  # 3 standard errors are 0.027


def test_nothing_is_said_to_be_detectable_by_too_few_or_equal_differences():
    assert np.isnan(detectable(np.arange(6.0)))
    assert np.isnan(detectable(np.full(20, 0.1)))
    assert detectable(np.arange(7.0)) > 0
