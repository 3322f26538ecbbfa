"""Long tables of scores that the tests of statistics are made of."""

import numpy as np
import pandas as pd

# Cross- minus self-fertilised maize, eighths of an inch; in Wilcoxon 1945, doi:10.2307/3001968.
MAIZE = np.array([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75], float)


def row(arm, person, value, case="c1", seed=0, fold=0, metric="DSC", label="cord", slice_=None):
    where = {"cell": f"{arm}-fold{fold}-seed{seed}", "arm": arm, "split": "phantom", "fold": fold}
    which = {"seed": seed, "person": person, "subject": person, "case": f"{person}-{case}"}
    return where | which | {"slice": slice_, "label": label, "metric": metric, "value": value}


def table(**arms):
    """One case per person: arm -> values of persons p0, p1, ..."""
    rows = [row(arm, f"p{i}", v) for arm, values in arms.items() for i, v in enumerate(values)]
    return pd.DataFrame(rows)


def realistic(seed=1):
    """Three arms, 8 persons, 2 seeds, 1 to 3 cases each, two metrics, some values undefined."""
    rng = np.random.default_rng(seed)
    rows = [
        row(arm, f"p{p}", rng.choice([rng.uniform(), np.nan], p=[0.9, 0.1]), f"c{c}", s, p % 2, m)
        for arm in ("a", "b", "base")
        for p in range(8)
        for s in range(2)
        for c in range(1 + p % 3)
        for m in ("DSC", "HSD")
    ]
    return pd.DataFrame(rows)
