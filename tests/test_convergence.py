"""How fast the arms learn: numbers worked out by hand."""

import math

import pandas as pd

from spine_tasks.collect.convergence import convergence


def history(arm, scores, best, seed=0, fold=0):
    return pd.DataFrame(
        {"arm": arm, "fold": fold, "seed": seed, "epoch": range(len(scores))}
        | {"val_dice": scores, "best_epoch": best}
    )


def table(*histories):
    return convergence(pd.concat(histories), "base", "val_dice").set_index("arm")


def test_epochs_to_the_baselines_best_are_counted_from_one():
    found = table(
        history("base", [0.1, 0.5, 0.3], best=1), history("new", [0.2, 0.4, 0.6, 0.7], best=3)
    )
    assert found.loc["base", ["best_epoch", "epochs", "epochs_to_mark"]].tolist() == [2, 3, 2]
    # 0.6 is the first that is at least 0.5.
    assert found.loc["new", ["best_epoch", "epochs", "epochs_to_mark"]].tolist() == [4, 4, 3]
    assert found["never"].tolist() == [0, 0]
    assert found["cells"].tolist() == [1, 1]


def test_the_mark_is_of_the_same_seed_and_fold():
    found = table(
        history("base", [0.1, 0.9], best=1, seed=0),
        history("base", [0.1, 0.2], best=1, seed=1),
        history("new", [0.3, 0.9], best=1, seed=0),  # needs 2 epochs to 0.9
        history("new", [0.3, 0.3], best=1, seed=1),  # needs 1 epoch to 0.2
    )
    assert found.loc["new", "epochs_to_mark"] == 1.5


def test_the_mark_is_the_score_of_the_weights_that_were_kept():
    # 0.52 came later but was not better by min_delta, so epoch 1 was kept.
    found = table(
        history("base", [0.1, 0.5195, 0.52], best=1), history("new", [0.5195, 0.6], best=1)
    )
    assert found.loc["new", "epochs_to_mark"] == 1


def test_cells_that_never_reach_the_mark_are_counted_and_slow_the_median():
    base = [history("base", [0.5], best=0, seed=seed) for seed in range(3)]
    reached = [history("new", [0.6], best=0, seed=0), history("new", [0.1, 0.5], best=1, seed=1)]
    never = history("new", [0.1, 0.2], best=1, seed=2)
    found = table(*base, *reached, never)
    # The median of 1, 2 and later than any: not the median of 1 and 2.
    assert found.loc["new", "epochs_to_mark"] == 2
    assert found.loc["new", "never"] == 1
    assert found.loc["new", "cells"] == 3


def test_an_arm_of_which_more_than_half_never_reach_the_mark_is_undefined():
    base = [history("base", [0.5], best=0, seed=seed) for seed in range(3)]
    new = [history("new", [score], best=0, seed=n) for n, score in enumerate([0.6, 0.1, 0.1])]
    found = table(*base, *new)
    assert math.isnan(found.loc["new", "epochs_to_mark"])
    assert found.loc["new", "never"] == 2


def test_a_cell_without_a_baseline_of_its_seed_is_not_compared():
    found = table(
        history("base", [0.5], best=0, seed=0),
        history("new", [0.6], best=0, seed=0),
        history("new", [0.1, 0.1], best=1, seed=1),
    )
    assert found.loc["new", ["cells", "never", "epochs"]].tolist() == [1, 0, 1]
