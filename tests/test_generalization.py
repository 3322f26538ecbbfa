"""One general cord model against several: who is at home where, and who is paired with whom."""

import math

import numpy as np
import pandas as pd
import pytest
from cord_making import planned_cords
from rich.console import Console
from scipy.stats import t as student

from spine_tasks.collect.generalization import (
    GENERALIZATION,
    MATRIX,
    PAIRED,
    UNPAIRED,
    Trained,
    generalization,
    matrix,
    trained_on,
)
from spine_tasks.report.console import LEAST_WIDTH
from spine_tasks.report.cords import cord_tables
from spine_tasks.stats.summary import summary
from spine_tasks.stats.unpaired import difference_interval, rank_sum_p

TRAINED = {
    "general": Trained(frozenset("ab"), frozenset(["T1w", "T2w"])),
    "onlyA": Trained(frozenset("a"), frozenset(["T1w"])),
    "onlyB": Trained(frozenset("b"), frozenset(["T2w"])),
}
SETS = ["a T1w", "b T2w", "c T1w"]
# model -> test set -> person -> Dice of its cases
VALUES = {
    "general": {
        "a T1w": {"a1": [0.9, 0.8, 0.7], "a2": [0.9], "a3": [0.7]},
        "b T2w": {"b1": [0.8], "b2": [0.6]},
        "c T1w": {"c1": [0.75], "c2": [0.65]},
    },
    "onlyA": {
        "a T1w": {"a1": [0.9, 0.9, 0.9], "a2": [0.7]},
        "b T2w": {"b1": [0.5], "b2": [0.4]},
        "c T1w": {"c1": [0.7], "c2": [0.55]},
    },
    "onlyB": {
        "a T1w": {"a1": [0.1, 0.1, 0.1], "a2": [0.2], "a3": [0.3]},
        "b T2w": {"b1": [0.9], "b2": [0.9]},
        "c T1w": {"c1": [0.05]},
    },
}


def make_cases(values=VALUES, metric="DSC"):
    rows = [
        {"cell": model, "arm": model, "split": "s", "fold": 0, "seed": 0, "person": person}
        | {"subject": person, "case": f"{test_set}_{person}_{n}", "slice": None}
        | {"label": test_set, "metric": metric, "value": value}
        for model, of_sets in values.items()
        for test_set, people in of_sets.items()
        for person, cases in people.items()
        for n, value in enumerate(cases)
    ]
    return pd.DataFrame(rows)


def made_matrix(cases):
    return matrix(summary(cases), TRAINED, SETS).set_index(["model", "test_set", "metric"])


def compared(cases, general="general"):
    table = generalization(cases, TRAINED, general)
    return table.set_index(["comparison", "model", "where"])


@pytest.fixture(scope="module")
def table():
    return compared(make_cases())


def test_the_matrix_is_of_persons_not_of_cases():
    row = made_matrix(make_cases()).loc["general", "a T1w", "DSC"]
    persons = [0.8, 0.9, 0.7]  # the first has three cases, with another mean and sd in all
    assert row["n"] == 3
    assert row["mean"] == pytest.approx(np.mean(persons))
    assert row["sd"] == pytest.approx(np.std(persons, ddof=1))
    whole = summary(make_cases()).set_index(["arm", "label", "metric"])
    ends = ["low", "high"]
    assert row[ends].tolist() == whole.loc["general", "a T1w", "DSC"][ends].tolist()


def test_one_person_has_a_value_and_no_sd():
    row = made_matrix(make_cases()).loc["onlyB", "c T1w", "DSC"]
    assert (row["n"], row["mean"]) == (1, 0.05)
    assert math.isnan(row["sd"])
    assert math.isnan(row["low"])


def test_home_is_by_data_set_and_a_contrast_is_seen_in_whatever_data_set():
    table = made_matrix(make_cases())[["home", "seen_contrast"]].agg(" ".join, axis=1)
    assert {key[:2]: words for key, words in table.items()} == {
        ("general", "a T1w"): "yes yes",
        ("general", "b T2w"): "yes yes",
        ("general", "c T1w"): "no yes",
        ("onlyA", "a T1w"): "yes yes",
        ("onlyA", "b T2w"): "no no",
        ("onlyA", "c T1w"): "no yes",
        ("onlyB", "a T1w"): "no no",
        ("onlyB", "b T2w"): "yes yes",
        ("onlyB", "c T1w"): "no no",
    }


def test_the_matrix_has_volumes_alone_in_the_order_of_models_sets_and_metrics():
    names = ["CSA_error", "DSC_slice", "HD95", "DSC", "TPR"]
    table = matrix(
        summary(pd.concat([make_cases(metric=name) for name in names])),
        dict(reversed(TRAINED.items())),
        SETS[::-1],
    )
    assert list(table) == MATRIX
    assert list(table["model"].unique()) == ["onlyB", "onlyA", "general"]
    first = table[table["model"] == "onlyB"]
    assert list(first["test_set"].unique()) == SETS[::-1]
    assert list(first["metric"][:3]) == ["DSC", "HD95", "CSA_error"]
    assert len(table) == 27


def test_a_value_that_is_not_defined_is_counted_and_not_averaged():
    values = {"general": {"a T1w": {"a1": [np.nan], "a2": [2.0]}}}
    row = made_matrix(make_cases(values, "MSD")).loc["general", "a T1w", "MSD"]
    assert (row["n"], row["n_undefined"], row["mean"]) == (1, 1, 2.0)


def test_general_minus_specific_at_home_is_of_pairs(table):
    row = table.loc[PAIRED, "onlyA", "home"]
    # a1: 0.8 - 0.9, a2: 0.9 - 0.7; a3, whom onlyA did not segment, would move the general mean.
    assert (row["n"], row["n_other"], row["n_dropped"], row["dropped"]) == (2, 2, 1, "a3")
    assert row["difference"] == pytest.approx(0.05)
    assert row["mean"] == pytest.approx(0.85)
    assert row["mean_other"] == pytest.approx(0.8)
    assert (row["low"], row["high"]) == pytest.approx((-1.8559, 1.9559), abs=1e-4)
    assert row["smallest_p"] == 0.5
    assert row["test_sets"] == "a T1w"


def test_unseen_is_unseen_to_the_other_model_and_unseen_by_both_to_the_general_one_too(table):
    unseen, both = (table.loc[PAIRED, "onlyA", where] for where in ("unseen", "unseen by both"))
    assert (unseen["test_sets"], both["test_sets"]) == ("b T2w; c T1w", "c T1w")
    assert unseen["difference"] == pytest.approx(np.mean([0.3, 0.2, 0.05, 0.1]))
    assert both["difference"] == pytest.approx(0.075)
    assert (unseen["n"], both["n"]) == (4, 2)
    assert table.loc[PAIRED, "onlyB", "home"]["difference"] == pytest.approx(-0.2)


def test_unseen_by_both_has_no_row_where_it_is_all_or_nothing_of_unseen():
    for left_out in ("c T1w", "b T2w"):
        cases = make_cases()
        found = compared(cases[cases["label"] != left_out])
        assert list(found.loc[PAIRED, "onlyA"].index) == ["home", "unseen"]


def test_home_against_unseen_is_of_other_persons(table):
    row = table.loc[UNPAIRED, "onlyA"].iloc[0]
    assert (row["n"], row["n_other"], row["n_dropped"]) == (2, 4, 0)
    assert row["mean"] == pytest.approx(0.8)
    assert row["mean_other"] == pytest.approx(np.mean([0.5, 0.4, 0.7, 0.55]))
    assert row["difference"] == pytest.approx(0.8 - 0.5375)
    assert row["smallest_p"] == pytest.approx(2 / 15)  # of 6 persons, 2 are at home
    assert row["p"] == pytest.approx(4 / 15)  # .7 is there twice: 2 ways on either side
    assert row["low"] < row["difference"] < row["high"]


def test_a_person_at_home_and_in_an_unseen_data_set_is_in_neither_group_and_named():
    values = {"onlyA": {"a T1w": {"p": [0.9], "q": [0.8]}, "c T1w": {"p": [0.1], "r": [0.5]}}}
    row = compared(make_cases(values), None).loc[UNPAIRED, "onlyA"].iloc[0]
    assert (row["n"], row["n_other"], row["dropped"]) == (1, 1, "p")
    assert row["difference"] == pytest.approx(0.3)
    assert (row["p"], row["smallest_p"]) == (1, 1)
    assert math.isnan(row["low"])


def test_a_model_that_is_at_home_everywhere_has_no_test():
    cases = make_cases()
    row = compared(cases[cases["label"] != "c T1w"]).loc[UNPAIRED, "general"].iloc[0]
    assert (row["n"], row["n_other"]) == (5, 0)
    assert math.isnan(row["p"])
    assert math.isnan(row["difference"])


def test_holm_is_over_all_rows_of_one_comparison():
    rng = np.random.default_rng(0)

    def people(prefix, mean):
        return {f"{prefix}{n}": [value] for n, value in enumerate(rng.normal(mean, 0.01, 8))}

    values = {
        model: {"a T1w": people("a", mean), "b T2w": people("b", mean), "c T1w": people("c", mean)}
        for model, mean in {"general": 0.9, "onlyA": 0.5, "onlyB": 0.5}.items()
    }
    table = compared(make_cases(values))
    pairs = table.loc[PAIRED]
    assert len(pairs) == 6
    ordered = pairs.sort_values("p")
    assert ordered["p_holm"].iloc[0] == pytest.approx(6 * ordered["p"].iloc[0])
    assert pairs["p_holm"].max() < 0.05  # 2 / 2**8 three times at least is below .05
    assert len(table.loc[UNPAIRED]) == 3
    assert table.loc[UNPAIRED, "p_holm"].min() == pytest.approx(3 * table.loc[UNPAIRED, "p"].min())


def test_without_a_general_model_each_is_compared_with_itself_alone():
    table = generalization(make_cases(), TRAINED, None)
    assert list(table) == GENERALIZATION
    assert set(table["comparison"]) == {UNPAIRED}
    assert list(table["model"]) == list(TRAINED)


def test_only_the_dice_is_tested(table):
    cases = pd.concat([make_cases(), make_cases(metric="MSD")])
    pd.testing.assert_frame_equal(compared(cases), table)


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        ([3, 4, 5], [1, 2], 2 / 10),
        ([1, 1], [0, 0, 0], 2 / 10),  # ties: the normal approximation says .08, less than can be
        ([1, 1], [1, 1, 1], 1),
        ([1, 2, 3, 4], [5, 6, 7, 8], 2 / 70),
        ([], [1, 2], math.nan),
    ],
)
def test_the_rank_sum_test_is_exact_of_few(one, other, p):
    groups = [np.array(values, dtype=float) for values in (one, other)]
    assert rank_sum_p(*groups) == pytest.approx(p, nan_ok=True)
    assert rank_sum_p(*groups[::-1]) == pytest.approx(p, nan_ok=True)


def test_the_interval_of_a_difference_draws_each_group_by_itself():
    rng = np.random.default_rng(1)
    one, other = rng.normal(0.9, 0.02, 80), rng.normal(0.6, 0.1, 60)
    low, high, method = difference_interval(one, other)
    error = math.sqrt(one.var(ddof=1) / 80 + other.var(ddof=1) / 60)
    apart = one.mean() - other.mean()
    assert (low, high) == pytest.approx((apart - 1.96 * error, apart + 1.96 * error), abs=0.005)
    assert method == "BCa"
    assert difference_interval(one, other) == (low, high, method)
    assert difference_interval(np.ones(3), np.zeros(4)) == (1, 1, "constant")
    assert np.isnan(difference_interval(np.ones(1), other)[:2]).all()


def test_the_interval_of_few_persons_is_welchs():
    one, other = np.array([2.0, 4.0, 6.0]), np.array([1.0, 1.0, 2.0, 4.0])
    low, high, method = difference_interval(one, other)
    error = math.sqrt(4 / 3 + 2 / 4)  # variances 4 and 2
    freedom = (4 / 3 + 2 / 4) ** 2 / ((4 / 3) ** 2 / 2 + (2 / 4) ** 2 / 3)
    width = float(student.ppf(0.975, freedom)) * error
    assert (low, high) == pytest.approx((2 - width, 2 + width))
    assert method == "Welch's t"


def test_a_model_was_trained_on_what_its_train_part_has(tmp_path):
    made = planned_cords(tmp_path)
    trained = trained_on(made, made.cells)
    # Nobody of data set c is in the train part, so that it is home to no model.
    assert trained["general"] == Trained(frozenset("ab"), frozenset(["T1w", "T2w", "acq-sag_T2w"]))
    assert trained["onlyA"] == Trained(frozenset("a"), frozenset(["T1w", "T2w"]))
    assert trained["onlyB"] == Trained(frozenset("b"), frozenset(["acq-sag_T2w"]))


def printed(found, width, names=str):
    """What is printed of the values, by whatever name their models have."""
    trained = {names(model): own for model, own in TRAINED.items()}
    cases = make_cases().assign(arm=lambda one: one["arm"].map(names))
    found = found.reset_index().assign(model=lambda one: one["model"].map(names))
    console = Console(width=width, record=True)
    made = list(cord_tables(matrix(summary(cases), trained, SETS), found, width))
    console.print(*made)
    return console.export_text(), len(made)


def test_the_printed_matrix_marks_home_and_has_a_dash_for_the_sd_of_one_person(table):
    said, _ = printed(table, 120)
    row = next(line for line in said.splitlines() if line.split()[:1] == ["onlyB"])
    assert "0.900 ± 0.000 (2)*" in row
    assert "0.050 ± - (1) " in row
    assert "0.200 ± 0.100 (3) " in row


def test_test_sets_that_do_not_fit_go_on_in_a_next_table(table):
    assert printed(table, 120)[1] == 3
    assert printed(table, 60)[1] == 4  # two of three test sets beside the models' names


def test_no_number_is_cut_in_the_narrowest_terminal(table):
    said, _ = printed(table, LEAST_WIDTH)
    for row in table.dropna(subset="low").to_dict("records"):
        numbers = [f"{row['low']:.3f} to {row['high']:.3f}", f"{row['difference']:+.3f}"]
        numbers += [f"{row[name]:.2g}" for name in ("p", "p_holm", "smallest_p")]
        assert all(f" {number} " in said for number in numbers), row


def test_a_name_is_text_and_no_markup(table):
    assert "[red]onlyA[/red]" in printed(table, 200, lambda name: f"[red]{name}[/red]")[0]
