import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from stats_making import row, table

from spine_tasks.errors import ConfigError
from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.factors import EFFECT, factor_effects, interactions
from spine_tasks.stats.rank_tests import signed_rank_p

BASE, AUGMENTED, LOADED, BOTH = "scratch", "scratch augmented", "loaded", "loaded augmented"
KNOBS = {
    BASE: {"init": "scratch", "augment": False},
    AUGMENTED: {"init": "scratch", "augment": True},
    LOADED: {"init": "pretrained", "augment": False},
    BOTH: {"init": "pretrained", "augment": True},
}
VALUES = {
    BASE: [0.5, 0.6, 0.7],
    AUGMENTED: [0.6, 0.6, 0.6],
    LOADED: [0.7, 0.9, 0.8],
    BOTH: [0.9, 0.8, 0.9],
}


def of(cases, knobs=KNOBS, make=factor_effects):
    return make(cases, knobs, BASE).set_index(["factor", "level"])


def random_cases(n=10, seed=0):
    rng = np.random.default_rng(seed)
    up = {BASE: 0, AUGMENTED: 0.01, LOADED: 0.1, BOTH: 0.2}
    return table(**{arm: rng.normal(0.5 + up[arm], 0.05, n) for arm in KNOBS})


def test_a_factor_is_averaged_over_the_others_within_each_person():
    effects = of(table(**VALUES))
    assert effects.index.tolist() == [("init", "pretrained"), ("augment", "True")]
    assert effects["baseline_level"].tolist() == ["scratch", "False"]
    assert effects["matched"].tolist() == [2, 2]
    init = np.array([(0.2 + 0.3) / 2, (0.3 + 0.2) / 2, (0.1 + 0.3) / 2])
    augment = np.array([(0.1 + 0.2) / 2, (0.0 - 0.1) / 2, (-0.1 + 0.1) / 2])
    for name, own in [("init", init), ("augment", augment)]:
        found = effects.loc[name].iloc[0]
        assert found["n"] == 3
        assert found["mean_difference"] == pytest.approx(own.mean())
        assert found["sd_difference"] == pytest.approx(own.std(ddof=1))
        assert found["p"] == signed_rank_p(own.round(12))
        ends = scipy.stats.ttest_1samp(own, 0).confidence_interval()
        assert (found["low"], found["high"]) == pytest.approx(tuple(ends))
    assert effects["p_holm"].tolist() == [0.5, 1]  # p .25 and 1 of three persons


def test_an_interaction_is_a_difference_of_differences():
    found = interactions(table(**VALUES), KNOBS, BASE)
    (only,) = found.to_dict("records")
    assert list(found) == EFFECT
    names = [only[name] for name in ("factor", "level", "baseline_level", "matched")]
    assert names == ["init x augment", "pretrained x True", "scratch x False", 1]
    own = np.array([0.3 - 0.2, 0.2 - 0.3, 0.3 - 0.1])
    assert only["mean_difference"] == pytest.approx(own.mean())
    assert only["p"] == 0.75  # ranks 1.5 1.5 3, W- = 1.5 or less in 3 of 8 ways


def test_effects_are_the_coefficients_of_a_linear_model_with_persons():
    cases = random_cases()
    for name in ("init", "augment"):  # -1/2 and 1/2, so that a coefficient is a main effect
        level = [KNOBS[arm][name] != KNOBS[BASE][name] for arm in cases["arm"]]
        cases[name] = np.array(level) - 0.5
    model = smf.ols("value ~ init * augment + C(person)", cases).fit().params
    effects, crossed = of(cases), of(cases, make=interactions)
    assert effects.loc[("init", "pretrained"), "mean_difference"] == pytest.approx(model["init"])
    assert effects.loc[("augment", "True"), "mean_difference"] == pytest.approx(model["augment"])
    assert crossed["mean_difference"].tolist() == pytest.approx([model["init:augment"]])


def test_the_baselines_level_decides_the_sign():
    cases = random_cases()
    one, other = (factor_effects(cases, KNOBS, base) for base in (BASE, BOTH))
    assert other["mean_difference"].tolist() == (-one["mean_difference"]).tolist()
    assert other["p"].tolist() == one["p"].tolist()
    assert other["low"].tolist() == (-one["high"]).tolist()
    assert other["level"].tolist() == one["baseline_level"].tolist()


def test_differences_between_persons_do_not_hide_an_effect():
    # Persons differ by .1 to 1, the arms by .01 in each: of means over persons nothing is seen.
    persons = np.linspace(0, 1, 11)
    cases = table(**{arm: persons + 0.01 * ("loaded" in arm) for arm in KNOBS})
    init = of(cases).loc[("init", "pretrained")]
    assert init["p"] == 2 / 2**11
    assert (init["low"], init["high"], init["interval"]) == (0.01, 0.01, "constant")
    assert of(cases).loc[("augment", "True"), "p"] == 1


def test_a_person_without_a_value_in_a_matched_arm_is_dropped_and_named():
    effects = of(table(**VALUES | {BOTH: [0.9, 0.8, np.nan]}))
    assert effects["n"].tolist() == [2, 2]
    assert effects["dropped"].tolist() == ["p2", "p2"]
    assert effects.loc[("init", "pretrained"), "mean_difference"] == pytest.approx(0.25)


def test_an_arm_of_undefined_values_leaves_nothing_of_its_factors():
    effects = of(table(**VALUES | {BOTH: [np.nan] * 3}))
    assert effects["n"].tolist() == [0, 0]
    assert effects[["mean_difference", "p", "p_holm", "low"]].isna().all(axis=None)


def test_three_levels_and_an_arm_that_is_not_there():
    knobs = {f"{x}{y}": {"x": x, "y": y} for x in "abc" for y in "de"}
    rng = np.random.default_rng(0)
    cases = table(**{arm: rng.uniform(0, 1, 7) for arm in knobs if arm != "ce"})
    effects = factor_effects(cases, knobs, "ad").set_index(["factor", "level"])
    assert effects["matched"].to_dict() == {("x", "b"): 2, ("x", "c"): 1, ("y", "e"): 2}
    values = cases.pivot(index="person", columns="arm", values="value")
    x = (values["cd"] - values["ad"]).mean()
    y = (values["ae"] - values["ad"] + values["be"] - values["bd"]).mean() / 2
    assert effects.loc[("x", "c"), "mean_difference"] == pytest.approx(x)
    assert effects.loc[("y", "e"), "mean_difference"] == pytest.approx(y)


def test_holm_is_over_all_factors_and_levels_of_one_label_and_metric():
    cases = pd.concat([random_cases(), random_cases(seed=1).assign(metric="HSD")])
    effects = factor_effects(cases, KNOBS, BASE)
    assert len(effects) == 4
    for _, group in effects.groupby("metric"):
        small, large = sorted(group["p"])
        expected = [min(1, 2 * small), max(min(1, 2 * small), large)]
        assert sorted(group["p_holm"]) == pytest.approx(expected)


# One arm, one factor, one factor at a time, both factors at once.
@pytest.mark.parametrize("kept", [[BASE], [BASE, LOADED], [BASE, LOADED, AUGMENTED], [BASE, BOTH]])
def test_arms_that_are_not_crossed_give_an_empty_table(kept):
    cases = table(**{arm: VALUES[arm] for arm in kept})
    for knobs in (KNOBS, {arm: KNOBS[arm] for arm in kept}):
        for make in (factor_effects, interactions):
            effects = make(cases, knobs, BASE)
            assert effects.empty
            assert list(effects) == EFFECT


def test_arms_without_known_levels_are_left_out():
    cases = pd.concat([table(**VALUES), pd.DataFrame([row("ensemble", "p0", 0.1)])])
    pd.testing.assert_frame_equal(of(cases), of(table(**VALUES)))


def test_one_matched_pair_is_what_comparisons_says():
    knobs = {name: dict(levels, other=0) for name, levels in KNOBS.items()}
    knobs["more"] = {"init": "scratch", "augment": False, "other": 1}
    cases = random_cases()
    more = cases[cases["arm"] == BASE].assign(arm="more", cell="more")
    more["value"] += np.linspace(-0.1, 0.2, 10)
    cases = pd.concat([cases, more])
    own = of(cases, knobs).loc[("other", "1")]
    pair = comparisons(cases, BASE).set_index("arm").loc["more"]
    same = ["n", "mean_difference", "low", "high", "interval", "p", "rank_biserial", "detectable"]
    assert own["matched"] == 1
    assert own[same].tolist() == pair[same].tolist()


def test_wrong_knobs_are_refused():
    with pytest.raises(ConfigError, match=r"'base' is no arm whose factor levels.*'scratch'"):
        factor_effects(table(**VALUES), KNOBS, "base")
    with pytest.raises(ConfigError, match=r"'scratch' and 'loaded' have the same factor levels"):
        factor_effects(table(**VALUES), KNOBS | {LOADED: KNOBS[BASE]}, BASE)
