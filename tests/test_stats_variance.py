import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from stats_making import row

from spine_tasks.errors import DataError
from spine_tasks.stats.variance import VARIANCE, variance_components

SDS = ["sd_persons", "sd_seeds", "sd_residual"]

# Six persons rated by four judges: Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420, tables
# 2 and 3; mean squares of persons 11.24, of judges 32.49, of the residual 1.02.
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def crossed(values, fold=0):
    """Cases of persons (rows) by seeds (columns) of one fold."""
    return pd.DataFrame(
        row("a", f"p{fold}-{p}", value, seed=seed, fold=fold)
        for p, of_person in enumerate(values)
        for seed, value in enumerate(of_person)
    )


def simulated(folds, persons, seeds, start=0):
    """Cases with the components .05, .02 and .03; each fold has a mean of its own."""
    rng = np.random.default_rng(persons)
    made = []
    for fold in range(start, start + folds):
        values = rng.normal(0.8, 0.1) + rng.normal(0, 0.05, (persons, 1))
        values = values + rng.normal(0, 0.02, (1, seeds)) + rng.normal(0, 0.03, (persons, seeds))
        made.append(crossed(values, fold))
    return pd.concat(made, ignore_index=True)


def sds(cases):
    (found,) = variance_components(cases).to_dict("records")
    return [found[name] for name in SDS]


def test_components_of_a_published_analysis_of_variance():
    found = variance_components(crossed(RATINGS))
    assert list(found) == VARIANCE
    (only,) = found.to_dict("records")
    counts = [only[name] for name in ("persons", "n_dropped", "cells", "seeds")]
    assert counts == [6, 0, 4, 4]
    squares = np.square([only[name] for name in SDS])
    expected = [(11.24 - 1.02) / 4, (32.49 - 1.02) / 6, 1.02]
    assert squares == pytest.approx(expected, abs=0.005)
    assert squares[0] / squares.sum() == pytest.approx(0.29, abs=0.001)  # ICC(2, 1), table 4


def test_components_are_those_of_a_mixed_model():
    # Of balanced data, restricted maximum likelihood finds the same.
    cases = simulated(folds=3, persons=8, seeds=4)
    cases["value"] *= 100  # the model takes components near 0 for a boundary
    parts = {"person": "0 + C(person)", "seed": "0 + C(seed)"}
    model = smf.mixedlm("value ~ C(fold)", cases, groups="fold", vc_formula=parts, re_formula="0")
    found = model.fit(reml=True)
    assert sds(cases) == pytest.approx(np.sqrt([*found.vcomp, found.scale]), rel=1e-3)


def test_known_components_are_found_over_folds_of_different_size():
    cases = pd.concat([simulated(60, 4, 3), simulated(60, 9, 5, start=60)])
    assert sds(cases) == pytest.approx([0.05, 0.02, 0.03], rel=0.07)
    (found,) = variance_components(cases).to_dict("records")
    counts = [found[name] for name in ("persons", "cells", "seeds")]
    assert counts == [60 * 4 + 60 * 9, 60 * 3 + 60 * 5, 5]


def test_differences_between_folds_are_in_no_component():
    cases = simulated(folds=3, persons=5, seeds=3)
    assert sds(cases.assign(value=cases["value"] + 10 * cases["fold"])) == pytest.approx(sds(cases))


def test_seeds_of_different_folds_are_different_trainings():
    # Seed 1 is .1 above seed 0 in one fold and .1 below in the other; as one seed of all folds it
    # would have no effect.
    values = np.array([[0.5, 0.6], [0.7, 0.8], [0.6, 0.7]])
    cases = pd.concat([crossed(values), crossed(values[:, ::-1], fold=1)])
    assert sds(cases) == pytest.approx([0.1, 0.1 / 2**0.5, 0], abs=1e-8)


def test_cases_of_a_person_are_averaged_in_each_cell():
    once = crossed(np.array(RATINGS) / 10)
    up = once.assign(case=once["case"] + "up", value=once["value"] + 1)
    down = once.assign(value=once["value"] - 1)
    assert sds(pd.concat([up, down])) == pytest.approx(sds(once))


def test_the_unit_scales_the_components():
    cases = simulated(2, 5, 3)
    percent = cases.assign(value=100 * cases["value"])
    assert sds(percent) == pytest.approx([100 * sd for sd in sds(cases)])


@pytest.mark.parametrize("values", [[[0.5], [0.7], [0.6]], [[0.5, 0.7, 0.6]]])
def test_one_seed_or_one_person_leaves_the_components_undefined(values):
    (found,) = variance_components(crossed(values)).to_dict("records")
    assert (found["persons"], found["seeds"]) == (len(values), len(values[0]))
    assert np.isnan([found[name] for name in SDS]).all()


def test_a_negative_estimate_is_0():
    # Persons have the same mean, and seeds too: closer than the residual makes them by chance.
    assert sds(crossed([[0.1, 0.3], [0.3, 0.1]])) == pytest.approx([0, 0, 0.2])


def test_equal_values_have_no_spread():
    assert sds(crossed(np.full((3, 4), 0.5))) == [0, 0, 0]


def test_persons_without_a_value_of_each_seed_are_dropped_and_counted():
    cases = crossed(np.vstack([RATINGS, [[5, np.nan, 2, 1], [1, 2, 3, 8]]]))
    cases = cases[~((cases["person"] == "p0-7") & (cases["seed"] == 0))]  # not even a row
    (found,) = variance_components(cases).to_dict("records")
    assert (found["persons"], found["n_dropped"]) == (6, 2)
    assert sds(cases) == pytest.approx(sds(crossed(RATINGS)))


def test_an_arm_of_undefined_values_has_a_row():
    nothing = crossed(np.full((3, 2), np.nan))
    nothing = nothing.assign(arm="none", cell="none-" + nothing["cell"])
    cases = pd.concat([crossed(RATINGS), nothing])
    first, other = variance_components(cases).to_dict("records")
    assert first["persons"] == 6
    assert (other["arm"], other["persons"], other["n_dropped"], other["cells"]) == ("none", 0, 3, 0)
    assert np.isnan([other[name] for name in SDS]).all()


def test_a_fold_of_one_seed_tells_of_persons_only():
    two = crossed([[0.5, 0.6], [0.7, 0.9], [0.6, 0.6]])
    one = crossed([[0.1], [0.3]], fold=1)
    alone, both = sds(two), sds(pd.concat([two, one]))
    assert both[1:] == pytest.approx(alone[1:])
    # Squares of persons: 2 x (2 persons + residual) expected in one fold, and .02, which is of
    # persons + residual, in the other.
    rest = alone[2] ** 2
    squares = 2 * (2 * alone[0] ** 2 + rest) + 0.02
    assert both[0] ** 2 == pytest.approx((squares - 3 * rest) / (2 * 2 + 1))


def test_a_row_without_a_seed_is_refused():
    with pytest.raises(DataError, match="1 of 24 rows have no seed"):
        variance_components(crossed(RATINGS).assign(seed=[np.nan, *[0.0] * 23]))
