import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest
from stats_making import realistic, row, table

from spine_tasks.stats.comparisons import COMPARISON, all_pairs, comparisons
from spine_tasks.stats.factors import factor_effects
from spine_tasks.stats.rank_tests import holm
from spine_tasks.stats.summary import summary
from spine_tasks.stats.variance import variance_components

SIGNED = ["mean_difference", "rank_biserial"]
IN_UNITS = ["mean_difference", "low", "high", "sd_difference", "detectable"]
FREE_OF_UNITS = ["n", "interval", "rank_biserial", "p", "p_holm", "smallest_p"]


def arms(n=12, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.beta(18, 2, n)
    return {"a": base + rng.normal(0.03, 0.05, n), "b": base + rng.normal(0, 0.05, n), "base": base}


def test_effect_sizes_of_a_pair_by_hand():
    differences = np.array([0.3, -0.1, 0.2, 0.6])
    (pair,) = comparisons(table(a=differences, base=np.zeros(4)), "base").to_dict("records")
    assert pair["sd_difference"] == pytest.approx(np.sqrt(0.25 / 3))  # about the mean 0.25
    assert pair["rank_biserial"] == pytest.approx((3 - 1 + 2 + 4) / 10)
    assert np.isnan(pair["detectable"])  # by 4 pairs nothing


@pytest.mark.parametrize("n", [4, 12, 60])
def test_swapped_arms_differ_in_sign_only(n):
    values = {name: own for name, own in arms(n).items() if name != "b"}
    one = comparisons(table(**values), "base").loc[0]
    other = comparisons(table(**values), "a").loc[0]
    assert other[SIGNED].tolist() == (-one[SIGNED]).tolist()
    # BCa takes another order statistic where a share of resamples is rounded the other way.
    ends = pytest.approx([-one["high"], -one["low"]], abs=0.02 * (one["high"] - one["low"]))
    assert other[["low", "high"]].tolist() == ends
    same = ["n", "interval", "sd_difference", "detectable", "p", "smallest_p"]
    pdt.assert_series_equal(one[same], other[same], check_names=False)


@pytest.mark.parametrize("n", [4, 12, 60])
@pytest.mark.parametrize("compare", [lambda cases: comparisons(cases, "base"), all_pairs])
def test_the_unit_scales_what_has_a_unit_and_a_constant_changes_nothing(n, compare):
    cases = table(**arms(n))
    pairs = compare(cases)
    percent = compare(cases.assign(value=100 * cases["value"]))
    pdt.assert_frame_equal(percent[FREE_OF_UNITS], pairs[FREE_OF_UNITS])
    pdt.assert_frame_equal(percent[IN_UNITS], 100 * pairs[IN_UNITS])
    pdt.assert_frame_equal(compare(cases.assign(value=cases["value"] + 7)), pairs, rtol=1e-6)


def test_all_pairs_have_what_comparisons_have():
    cases = realistic()
    pairs = all_pairs(cases)
    assert list(pairs) == COMPARISON
    for _, group in pairs.groupby(["label", "metric"]):
        assert group["baseline"].tolist() == ["a", "a", "b"]
        assert group["arm"].tolist() == ["b", "base", "base"]
        assert group["p_holm"].tolist() == holm(group["p"]).tolist()  # of three, not of two
    with_a = pairs[pairs["baseline"] == "a"].drop(columns="p_holm").reset_index(drop=True)
    pdt.assert_frame_equal(with_a, comparisons(cases, "a").drop(columns="p_holm"))


def test_all_pairs_of_arms_without_a_person_in_common():
    cases = pd.concat([table(a=[0.1, 0.2], b=[0.2, 0.4]), pd.DataFrame([row("c", "q", 0.9)])])
    pairs = all_pairs(cases).set_index(["baseline", "arm"])
    assert pairs["n"].tolist() == [2, 0, 0]
    assert pairs["dropped"].tolist() == ["q", "p0;p1;q", "p0;p1;q"]
    assert pairs.loc[("a", "c"), ["p", "p_holm", "rank_biserial", "sd_difference"]].isna().all()
    assert pairs.loc[("a", "b"), "p_holm"] == pairs.loc[("a", "b"), "p"]


def test_one_arm_has_no_pair():
    pairs = all_pairs(table(a=[0.1, 0.2]))
    assert pairs.empty
    assert list(pairs) == COMPARISON


def test_an_arm_of_undefined_values_has_rows_and_no_numbers():
    cases = table(a=[np.nan] * 8, base=np.linspace(0.1, 0.8, 8))
    (pair,) = comparisons(cases, "base").to_dict("records")
    assert (pair["n"], pair["n_dropped"], pair["interval"]) == (0, 8, "")
    nothing = [*IN_UNITS, "rank_biserial", "p", "p_holm", "smallest_p"]
    assert np.isnan([pair[name] for name in nothing]).all()


def test_equal_arms_have_no_effect_and_nothing_detectable():
    (pair,) = comparisons(table(a=[0.1] * 9, base=[0.1] * 9), "base").to_dict("records")
    assert (pair["mean_difference"], pair["sd_difference"], pair["p"]) == (0, 0, 1)
    assert (pair["low"], pair["high"], pair["interval"]) == (0, 0, "constant")
    assert np.isnan([pair["rank_biserial"], pair["detectable"]]).all()


KNOBS = {
    "a": {"x": 1, "y": 0},
    "b": {"x": 0, "y": 1},
    "base": {"x": 0, "y": 0},
    "ab": {"x": 1, "y": 1},
}


@pytest.mark.parametrize(
    "make",
    [
        summary,
        all_pairs,
        variance_components,
        lambda cases: factor_effects(cases, KNOBS, "base"),
    ],
)
def test_neither_order_nor_categories_change_a_table(make):
    cases = realistic()
    fourth = cases[cases["arm"] == "a"].assign(arm="ab", cell=lambda own: "b" + own["cell"])
    cases = pd.concat([cases, fourth])
    expected = make(cases)
    assert len(expected)
    pdt.assert_frame_equal(make(cases.sample(frac=1, random_state=3)), expected, check_exact=True)
    texts = dict.fromkeys(["cell", "arm", "split", "person", "case", "label", "metric"], "category")
    disordered = cases.sample(frac=1, random_state=4).astype(texts)
    disordered["arm"] = disordered["arm"].cat.reorder_categories(["base", "b", "ab", "a"])
    pdt.assert_frame_equal(make(disordered), expected, check_exact=True)
