import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest
from stats_making import realistic, row, table

from spine_tasks.errors import ConfigError, DataError
from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.persons import by_person, differences
from spine_tasks.stats.summary import summary


def test_persons_not_values_are_the_n():
    # p0 has 3 cases x 2 seeds = 6 values of 1.0, p1 and p2 two each of 0.0 and 0.8. The mean over
    # values would be 0.76, over persons it is 0.6; sd^2 = (0.16 + 0.36 + 0.04) / 2.
    rows = [row("a", "p0", 1.0, f"c{c}", seed) for c in range(3) for seed in range(2)]
    rows += [row("a", p, v, "c0", seed) for p, v in [("p1", 0.0), ("p2", 0.8)] for seed in range(2)]
    (only,) = summary(pd.DataFrame(rows)).to_dict("records")
    assert (only["n"], only["median"], only["seeds"], only["cells"]) == (3, 0.8, 2, 2)
    assert only["mean"] == pytest.approx(0.6)
    assert only["sd"] == pytest.approx(np.sqrt(0.28))


def test_repeating_every_value_with_more_seeds_changes_no_p_and_no_interval():
    once = table(base=[0.5, 0.6, 0.7, 0.8], a=[0.6, 0.65, 0.9, 0.75])
    more = pd.concat([once.assign(seed=s, cell=once["cell"] + str(s)) for s in range(5)])
    pdt.assert_frame_equal(comparisons(once, "base"), comparisons(more, "base"), rtol=1e-9)


def test_folds_and_sessions_of_a_person_are_one_person():
    cases = pd.DataFrame([row("a", "p0", 0.2, "ses1"), row("a", "p0", 0.4, "ses2", fold=1)])
    people = by_person(cases.assign(subject=["p0_ses1", "p0_ses2"]))
    assert people["value"].tolist() == [pytest.approx(0.3)]


def test_slices_of_a_volume_are_averaged_before_persons():
    slices = [row("a", "p0", v, slice_=i) for i, v in enumerate([0.0, 0.0, 0.0, 0.4])]
    (only,) = summary(pd.DataFrame([*slices, row("a", "p1", 0.9, slice_=0)])).to_dict("records")
    assert (only["n"], only["mean"]) == (2, pytest.approx((0.1 + 0.9) / 2))


def test_undefined_values_are_counted_and_not_averaged():
    undefined = [row("a", p, np.nan, c) for p, c in [("p0", "c2"), ("p2", "c1"), ("p2", "c2")]]
    cases = pd.DataFrame([row("a", "p0", 0.8), row("a", "p1", 0.6), *undefined])
    people = by_person(cases).set_index("person")
    assert people[["n_values", "n_undefined"]].to_numpy().tolist() == [[1, 1], [1, 0], [0, 2]]
    assert np.isnan(people.loc["p2", "value"])
    (only,) = summary(cases).to_dict("records")
    assert (only["n"], only["n_undefined"], only["values_undefined"]) == (2, 1, 3)
    assert only["mean"] == pytest.approx(0.7)


def test_one_person_has_a_mean_but_no_spread():
    (only,) = summary(table(a=[0.4])).to_dict("records")
    assert (only["n"], only["mean"]) == (1, 0.4)
    assert np.isnan([only["sd"], only["low"], only["high"]]).all()
    (pair,) = comparisons(table(base=[0.4], a=[0.6]), "base").to_dict("records")
    assert (pair["n"], pair["p"], pair["smallest_p"]) == (1, 1.0, 1.0)
    assert pair["mean_difference"] == pytest.approx(0.2)
    assert np.isnan([pair["low"], pair["high"]]).all()


def test_only_undefined_values_leave_everything_undefined():
    only = summary(table(a=[np.nan, np.nan])).loc[0]
    assert (only["n"], only["n_undefined"]) == (0, 2)
    assert only[["mean", "sd", "median", "low", "high"]].isna().all()


@pytest.mark.parametrize("make", [by_person, summary, lambda cases: comparisons(cases, "base")])
def test_the_order_of_rows_changes_nothing(make):
    cases = realistic()
    shuffled = cases.sample(frac=1, random_state=3)  # its index is shuffled, too
    pdt.assert_frame_equal(make(cases), make(shuffled), check_exact=True)


def test_the_order_of_values_does_not_change_the_last_digit_of_a_mean():
    values = [0.1, 0.2, 0.3, 1e16, -1e16, 0.7]
    cases = pd.DataFrame([row("a", "p0", value, f"c{i}") for i, value in enumerate(values)])
    means = {by_person(cases.iloc[np.roll(range(6), i)])["value"].item() for i in range(6)}
    assert len(means) == 1


def test_the_round_off_of_one_metric_is_not_that_of_another():
    small = table(base=[0.5, 0.5], a=[0.5 + 2e-9, 0.5 + 2e-9])
    large = table(base=[1e9, 1e9], a=[2e9, 2e9]).assign(metric="volume")
    pairs = comparisons(pd.concat([small, large]), "base")
    assert pairs["mean_difference"].tolist() == pytest.approx([2e-9, 1e9], rel=1e-3)


def test_a_difference_is_arm_minus_baseline_of_the_same_person():
    # Reversed order of persons in one arm: pairing by position would give 0.2 -+ something.
    cases = pd.concat([table(base=[0.1, 0.5, 0.9]), table(a=[0.3, 0.7, 1.1])[::-1]])
    change = differences(cases, "base")
    assert change["person"].tolist() == ["p0", "p1", "p2"]
    assert change["difference"].tolist() == [0.2, 0.2, 0.2]


def test_equal_differences_have_an_interval_of_no_width_in_spite_of_round_off():
    cases = table(base=[0.1, 0.2, 0.3, 0.7, 0.8], a=[0.2, 0.3, 0.4, 0.8, 0.9])
    (pair,) = comparisons(cases, "base").to_dict("records")
    assert pair["low"] == pair["high"] == pair["mean_difference"] == pytest.approx(0.1)
    assert (
        pair["p"] == pair["smallest_p"] == 2 / 2**5
    )  # five tied ranks of one sign: the smallest p there is


def test_round_off_does_not_break_ties():
    # Two differences of 0.1 and two of -0.1: W+ = W-, p = 1. Ranks of the round-off give 0.625.
    cases = table(base=[0.3, 0.7, 0.6, 0.2], a=[0.4, 0.8, 0.5, 0.1])
    (pair,) = comparisons(cases, "base").to_dict("records")
    assert pair["p"] == 1.0


def test_equal_arms_have_p_1():
    (pair,) = comparisons(table(base=[0.1, 0.5], a=[0.1, 0.5]), "base").to_dict("records")
    assert [pair[name] for name in ("n", "p", "p_holm")] == [2, 1, 1]
    assert pair["mean_difference"] == pair["low"] == pair["high"] == 0


def test_persons_without_a_pair_are_named():
    cases = table(base=[0.5, 0.5, np.nan, 0.5], a=[0.6, np.nan, 0.6, 0.8])
    cases = cases[~((cases["arm"] == "base") & (cases["person"] == "p3"))]
    (pair,) = comparisons(cases, "base").to_dict("records")
    assert (pair["n"], pair["n_dropped"], pair["dropped"]) == (1, 3, "p1;p2;p3")
    assert pair["mean_difference"] == pytest.approx(0.1)


def test_an_arm_without_any_of_the_baselines_persons_has_no_p_and_does_not_count_for_holm():
    cases = table(base=[0.1, 0.2, 0.3, 0.4, 0.5], a=[0.2, 0.4, 0.6, 0.8, 1.0])
    cases = pd.concat([cases, pd.DataFrame([row("other", "q", 0.9)])])
    a, other = comparisons(cases, "base").to_dict("records")
    assert (other["n"], other["n_dropped"]) == (0, 6)
    undefined = ["mean_difference", "low", "high", "p", "p_holm", "smallest_p"]
    assert np.isnan([other[name] for name in undefined]).all()
    assert a["p"] == a["p_holm"] == 2 / 2**5
    assert a["dropped"] == "q"


def test_a_metric_that_one_arm_lacks_is_in_the_table_without_pairs():
    cases = pd.DataFrame(
        [row("base", "p0", 0.1), row("base", "p0", 3.0, metric="HSD"), row("a", "p0", 0.2)]
    )
    pairs = comparisons(cases, "base").set_index("metric")
    assert pairs["n"].to_dict() == {"DSC": 1, "HSD": 0}
    assert pairs.loc["HSD", "dropped"] == "p0"


def test_an_unknown_baseline_is_answered_with_the_arms_there_are():
    with pytest.raises(ConfigError, match=r"'scratch' is no arm.*\['a', 'base'\]"):
        comparisons(table(base=[0.1], a=[0.2]), "scratch")


def test_a_grid_of_one_arm_has_nothing_to_compare():
    assert comparisons(table(base=[0.1, 0.2]), "base").empty


def test_holm_is_over_the_arms_of_one_label_and_metric():
    cases = realistic()
    pairs = comparisons(cases, "base")
    assert len(pairs) == 4
    for _, group in pairs.groupby(["label", "metric"]):
        low, high = sorted(group["p"])  # by hand: 2 x the smaller, then not below that
        expected = [min(1, 2 * low), max(min(1, 2 * low), high)]
        assert sorted(group["p_holm"]) == pytest.approx(expected)


def test_holm_of_three_arms_by_hand():
    # 6 pairs, rank sums of the minority: W = 0 has 1 pattern of signs, W <= 1 has 2 and W <= 3
    # has 5 (none, 1, 2, 3, 1 + 2) of 64; Holm multiplies by 3, 2 and 1.
    sizes = np.arange(1, 7) / 10
    cases = table(
        base=np.zeros(6), a=sizes, b=sizes * [-1, 1, 1, 1, 1, 1], c=sizes * [1, 1, -1, 1, 1, 1]
    )
    pairs = comparisons(cases, "base").set_index("arm")
    assert pairs["p"].tolist() == [2 / 64, 4 / 64, 10 / 64]
    assert pairs["p_holm"].tolist() == pytest.approx([6 / 64, 8 / 64, 10 / 64])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"person": None}, r"1 of 2 rows have no person.*'case': 'p1-c1'"),
        ({"label": None}, "no label"),
        ({"value": np.inf}, "infinite value"),
        ({"case": "p0-c1", "person": "p0"}, "one value twice"),
        ({"slice": 3}, "values per slice and per volume"),
    ],
)
def test_rows_that_would_spoil_a_mean_are_refused(change, message):
    cases = pd.DataFrame([row("a", "p0", 0.5), row("a", "p1", 0.5) | change])
    with pytest.raises(DataError, match=message):
        by_person(cases)


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match=r"no column \['person'\]"):
        summary(table(a=[0.1]).drop(columns="person"))


def test_slices_and_volumes_may_be_mixed_between_metrics():
    cases = pd.DataFrame([row("a", "p0", 0.5), row("a", "p0", 70.0, metric="CSA", slice_=0)])
    assert by_person(cases)["value"].tolist() == [70.0, 0.5]


def test_persons_named_by_numbers_are_text_in_the_tables():
    cases = table(base=[0.1, 0.2], a=[0.3, np.nan]).assign(person=[7, 11, 7, 11])
    assert comparisons(cases, "base").loc[0, "dropped"] == "11"
