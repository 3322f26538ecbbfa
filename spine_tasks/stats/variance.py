"""How much of the spread of scores is between persons, and how much between trainings."""

import numpy as np
import pandas as pd

from spine_tasks.stats.persons import MEASURE, averaged

OF_ARM = ["arm", *MEASURE]
FOLD = [*OF_ARM, "split", "fold"]
VARIANCE = [*OF_ARM, "persons", "n_dropped", "cells", "seeds"]
VARIANCE += ["sd_persons", "sd_seeds", "sd_residual"]


def variance_components(cases: pd.DataFrame) -> pd.DataFrame:
    """The sd between persons, between trainings with other seeds, and of what is left.

    Each fold trains one network a seed and tests it on its own persons, so that seeds and persons
    are crossed within a fold. In a fold, the value of a person by a network, the mean of its
    defined values there, is taken as

        mean of the fold + person + seed (the same for all persons of the fold) + residual.

    Sums of squares are pooled over folds, and the variances are those whose expected mean squares
    they are (analysis of variance, method of moments [1]_). Persons without a value by each network
    of their fold are dropped, so that a fold has no empty place.

    Returns
    -------
    DataFrame
        Columns `arm, label, metric, persons, n_dropped, cells, seeds, sd_persons, sd_seeds,
        sd_residual`. `persons`, `cells` (networks) and distinct `seeds` are those used, and
        `n_dropped` persons are not. The sd are in the metric's unit: `sd_persons` within a fold,
        `sd_seeds` of how far the mean of a fold moves if the network is trained anew,
        `sd_residual` of how far a person moves beyond that. A negative estimate of a variance, as
        is common where its true value is small, is given as 0. All sd are NaN if no fold has two
        persons and two seeds.

    Raises
    ------
    DataError
        As in `averaged`.

    References
    ----------
    .. [1] Searle, Casella and McCulloch, Variance Components, Wiley 1992,
       doi:10.1002/9780470316856.
    """
    everyone = averaged(cases, [*FOLD, "seed", "person"])
    seeds = everyone.groupby(FOLD)["seed"].transform("nunique")
    defined = everyone.groupby([*FOLD, "person"])["value"].transform("count")
    used = everyone[defined == seeds]
    table = everyone.groupby(OF_ARM)[["person"]].nunique().set_axis(["n_dropped"], axis=1)
    counts = used.groupby(OF_ARM).agg(persons=("person", "nunique"), seeds=("seed", "nunique"))
    counts["cells"] = used.drop_duplicates([*FOLD, "seed"]).groupby(OF_ARM).size()
    table = table.join(counts).fillna(0).astype(int)
    table["n_dropped"] -= table["persons"]
    return table.join(_sds(used)).reset_index()[VARIANCE]


def _sds(used: pd.DataFrame) -> pd.DataFrame:
    """The three sd per `OF_ARM`, from values without an empty place in any fold."""
    value = used["value"]
    fold, person, seed = (
        used.groupby([*FOLD, *also])["value"].transform("mean")
        for also in ([], ["person"], ["seed"])
    )
    squares = used[OF_ARM].assign(
        of_persons=(person - fold) ** 2,
        of_seeds=(seed - fold) ** 2,
        of_rest=(value - person - seed + fold) ** 2,
    )
    sums = squares.groupby(OF_ARM).sum()
    folds = used.groupby(FOLD).agg(n=("person", "nunique"), k=("seed", "nunique"))
    n, k = folds["n"], folds["k"]
    freedom = pd.DataFrame(
        {
            "persons": n - 1,
            "seeds": k - 1,
            "rest": (n - 1) * (k - 1),
            "persons_seen": (n - 1) * k,  # how often each component is in the expected squares
            "seeds_seen": (k - 1) * n,
        }
    )
    of = freedom.groupby(OF_ARM).sum().replace(0, np.nan)
    rest = sums["of_rest"] / of["rest"]
    variances = {
        "sd_persons": (sums["of_persons"] - of["persons"] * rest) / of["persons_seen"],
        "sd_seeds": (sums["of_seeds"] - of["seeds"] * rest) / of["seeds_seen"],
        "sd_residual": rest,
    }
    return pd.DataFrame({name: one.clip(lower=0) ** 0.5 for name, one in variances.items()})
