"""How fast the arms learn, apart from how well they end."""

from typing import Any

import pandas as pd


def convergence(histories: pd.DataFrame, baseline: str, score: str) -> pd.DataFrame:
    """When each cell reached what the baseline's cell of its fold and seed reached at best.

    Parameters
    ----------
    histories
        A row per cell and epoch: `arm, fold, seed, epoch, best_epoch` and the column `score`.
    baseline
        The arm whose best validation score is the mark. A mark of the same fold and seed keeps the
        comparison paired.
    score
        The column of the validation score, of which higher is better.

    Returns
    -------
    DataFrame
        A row an arm: `cells`; medians over its cells of `best_epoch` and `epochs` (trained in all)
        and of `epochs_to_mark` (counted from 1; NaN where more than half never reached the mark);
        `never` counts those that did not.
    """
    cells = dict(list(histories.groupby(["arm", "fold", "seed"], sort=False)))
    rows: list[dict[str, Any]] = []
    for (arm, fold, seed), cell in cells.items():
        if (baseline, fold, seed) not in cells:
            continue  # in a partial view; `cells` counts those compared
        reached = cell.loc[cell[score] >= _best(cells[(baseline, fold, seed)], score), "epoch"]
        rows.append(
            {
                "arm": arm,
                "best_epoch": cell["best_epoch"].max() + 1,
                "epochs": len(cell),
                # Later than any epoch, so that the median knows of the cells that never did.
                "epochs_to_mark": reached.min() + 1 if len(reached) else float("inf"),
                "never": int(reached.empty),
            }
        )
    arms = pd.DataFrame(rows).groupby("arm", sort=False)
    table = arms[["best_epoch", "epochs", "epochs_to_mark"]].median()
    table["epochs_to_mark"] = table["epochs_to_mark"].where(table["epochs_to_mark"] < float("inf"))
    return table.assign(never=arms["never"].sum(), cells=arms.size()).reset_index()


def _best(cell: pd.DataFrame, score: str) -> float:
    """The score of the epoch whose weights were kept."""
    return float(cell.loc[cell["epoch"] == cell["best_epoch"].max(), score].iloc[0])
