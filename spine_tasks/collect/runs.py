"""The table of runs: what each complete cell is, what it scored and what it took."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spine_tasks import versions
from spine_tasks.cell import Cell, Resources
from spine_tasks.configs import knobs_of
from spine_tasks.cost import cost, gpus_of

RAN = (
    *("epochs_trained", "best_epoch", "val_score", "attempts", "seconds"),
    *("gpus", "gpu_hours", "gpu_hours_asked"),
)


def runs_table(
    cells: Sequence[Cell],
    means: Mapping[str, Mapping[str, float]],
    ran: Mapping[str, Mapping[str, Any]],
    done: versions.Done,
) -> pd.DataFrame:
    """A row a complete cell: knobs, seed, fold, each metric's mean over persons, time, code, data.

    Parameters
    ----------
    cells
        One or more.
    means, ran, done
        By cell id: as `means_of`; as `learned` and `spent` together; done.json.

    Returns
    -------
    DataFrame
        `chosen` is true for the cell that validation chooses of each arm and fold, never the test
        part: of all seeds the highest `val_score`, the first of equal ones. No cell is where none
        has a score, nor one that others start from.
    """
    metrics = sorted({name for cell in cells for name in means[cell.id]})
    rows = [
        {
            "cell": cell.id,
            "role": "arm" if cell.arm else "needed",
            "arm": cell.arm_name,
            "split": cell.split,
            "fold": cell.fold,
            "seed": cell.seed,
            **(knobs := knobs_of(cell.config)),
            # `precision` is a knob and a metric.
            **{
                f"{name}_score" if name in knobs else name: means[cell.id].get(name, np.nan)
                for name in metrics
            },
            **{name: ran[cell.id][name] for name in RAN},
            **_made_of(done[cell.id]),
        }
        for cell in cells
    ]
    table = pd.DataFrame(rows)
    table.insert(list(table).index("val_score") + 1, "chosen", _chosen(table))
    return table


def spent(
    cell: Cell, attempts: Sequence[dict[str, Any]], asked: Resources | None, folder: Path
) -> dict[str, Any]:
    """What a run took, as columns of the table of runs.

    Parameters
    ----------
    attempts
        Its records in attempts.jsonl.
    asked
        The resources that the run's last launch asked for; None if unknown.
    folder
        Of the run.

    Returns
    -------
    dict
        `attempts`, and their `seconds` (of one that ended without a word unknown, and not in it);
        `gpus`, the run's share of them on all its nodes; `gpu_hours` of all attempts;
        `gpu_hours_asked`, up to their time limits, NaN if none was in Slurm or no GPU was asked
        for. What is of GPUs is NaN where cell.json does not say how many.
    """
    given = cell if asked in (None, cell.resources) else replace(cell, resources=asked)
    took = cost(given, attempts, False, folder=folder)
    return {
        "attempts": sum(record["event"] == "started" for record in attempts),
        "seconds": took.seconds,
        "gpus": np.nan if asked is None else gpus_of(given),
        "gpu_hours": np.nan if asked is None else took.gpu_hours,
        "gpu_hours_asked": np.nan if asked is None else took.gpu_hours_asked or np.nan,
    }


def _made_of(done: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": done.get("time"),
        "commit": done.get("commit"),
        "code_sha256": " ".join(versions.codes(done)),  # several if attempts had different code
        "data_sha256": done.get("data_sha256"),
    }


def _chosen(runs: pd.DataFrame) -> "pd.Series[bool]":
    judged = runs[(runs["role"] == "arm") & runs["val_score"].notna()]
    ranked = judged.sort_values(["val_score", "seed"], ascending=[False, True])
    return runs.index.to_series().isin(ranked.drop_duplicates(["arm", "fold"]).index)
