"""Which cases are shown as examples: the worst, the median and the best of one metric."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from spine_tasks.cell import Cell
from spine_tasks.collect.gathered import Gathered
from spine_tasks.errors import ConfigError
from spine_tasks.metrics import METRICS

SIDE_BY_SIDE = 4  # arms; of more, the baseline and the best by validation are shown
CELL = ["arm", "seed", "fold"]


@dataclass(frozen=True)
class Example:
    """A case, and the cell of each arm whose prediction is shown."""

    place: str  # such as `worst of 12 cases`
    case: str
    cells: dict[str, Cell]  # arm -> that of the least fold and seed which has tested the case
    scores: dict[str, float]  # arm -> of that cell


def examples(
    cases: pd.DataFrame, cells: Sequence[Cell], arms: Sequence[str], metric: str, label: str
) -> list[Example]:
    """The worst, the median and the best case of the first of some arms, worst first.

    A case's scores of several seeds and folds are averaged. Cases without a defined score are none
    of them; of an even number the worse of the two in the middle is the median. Of two cases there
    is no median, and one is shown once.

    Raises
    ------
    ConfigError
        The first arm has no defined score of the metric and label.
    """
    scores = cases[(cases["metric"] == metric) & (cases["label"] == label)]
    scores = scores[scores["arm"].isin(arms)]
    own = scores[scores["arm"] == arms[0]].groupby("case")["value"].mean().reset_index()
    own["case"] = own["case"].astype(str)  # so that equal scores stand in the order of names
    better = METRICS[metric].higher_is_better
    ordered = own.dropna().sort_values(["value", "case"], ascending=[bool(better), True])
    if ordered.empty:
        raise ConfigError(f"{arms[0]}: no case has a {metric} of {label}")
    names = list(ordered["case"])
    undefined = f", {len(own) - len(names)} without a {metric}" if len(own) > len(names) else ""
    return [
        _example(f"{place} of {len(names)} cases{undefined}", names[at], scores, cells)
        for place, at in _places(len(names)).items()
    ]


def _places(number: int) -> dict[str, int]:
    if number == 1:
        return {"the only one": 0}
    middle = {"median": (number - 1) // 2} if number > 2 else {}
    return {"worst": 0, **middle, "best": number - 1}


def _example(place: str, case: str, scores: pd.DataFrame, cells: Sequence[Cell]) -> Example:
    by_cell = scores[scores["case"] == case].set_index("cell")["value"]
    tested = [cell for cell in cells if cell.id in by_cell.index]
    first: dict[str, Cell] = {}
    for cell in sorted(tested, key=lambda cell: (cell.fold, cell.seed)):
        first.setdefault(cell.arm_name, cell)
    own = {arm: float(by_cell[cell.id]) for arm, cell in first.items()}
    return Example(place, case, first, own)


def shown_arms(gathered: Gathered) -> list[str]:
    """The arms to show: that by which cases are chosen first, the baseline if there is one.

    All others follow, or of many only the one that is best by validation.
    """
    arms = list(dict.fromkeys(cell.arm_name for cell in gathered.arms))
    first = gathered.baseline or arms[0]
    others = [arm for arm in arms if arm != first]
    if len(arms) > SIDE_BY_SIDE:
        others = best_by_validation(gathered.histories, gathered.chosen_by, others)
    return [first, *others]


def best_by_validation(histories: pd.DataFrame, score: str, arms: Sequence[str]) -> list[str]:
    """The arm whose cells' kept weights have the greatest mean score on validation data.

    Returns
    -------
    list of str
        One arm; none if none of `arms` has such a score.
    """
    own = histories[histories["arm"].isin(arms)]
    if own.empty or score not in own:
        return []
    own = own.sort_values("epoch")
    kept = own[own["epoch"] == own.groupby(CELL)["best_epoch"].transform("last")]
    means = kept.groupby("arm")[score].mean().dropna()
    return [str(means.idxmax())] if len(means) else []
