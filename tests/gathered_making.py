"""Results of a made-up experiment: cells without runs, and the values of its persons."""

from dataclasses import replace

import pandas as pd
from making import cell

from spine_tasks.collect.gathered import Gathered
from spine_tasks.experiment import Experiment
from spine_tasks.grid import find_grid
from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.summary import summary

CROSSED = [
    {"init": init, "augment": on} for init in ("scratch", "pretrained") for on in (False, True)
]
BASE = "init=scratch augment=False"


def gathered(folder, values, arms=CROSSED, planned=None, **changes):
    """What `gather` finds where each arm has one cell; the first arm is the baseline.

    `values` has the values of persons p0, p1, ... by metric and arm, an arm by its number.
    """
    cells = [cell(seed=number, arm=arm) for number, arm in enumerate(arms)]
    rows = [
        {
            **{"cell": one.id, "arm": one.arm_name, "split": one.split, "fold": 0, "seed": 0},
            **{"person": f"p{person}", "subject": f"p{person}", "case": f"p{person}"},
            **{"slice": None, "label": changes.get("label", "cord")},
            **{"metric": metric, "value": value},
        }
        for metric, of_arms in values.items()
        for one, of_arm in zip(cells, of_arms, strict=True)
        for person, value in enumerate(of_arm)
    ]
    found = Gathered(
        experiment=Experiment("made", folder, find_grid("gm_transfer"), planned or cells, []),
        states={},
        arms=cells,
        cases=pd.DataFrame(rows).astype({"value": float}),
        histories=pd.DataFrame(),
        runs=pd.DataFrame({"role": ["arm"] * len(cells)}),
        baseline=cells[0].arm_name,
        mixed=[],
        computed_with=["code aa; data bb (gm_phantom)"],
    )
    return replace(found, **{name: value for name, value in changes.items() if name != "label"})


def tables(of):
    """The tables of persons' scores."""
    cases = of.of_persons
    return {"summary": summary(cases), "comparisons": comparisons(cases, of.baseline)}
