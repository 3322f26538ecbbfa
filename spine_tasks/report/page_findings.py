"""What the page says in words: what was found, and what is not there yet."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.generalization import PAIRED
from spine_tasks.collect.tables import Tables
from spine_tasks.report.console import ALPHA, MAIN, conclusions
from spine_tasks.report.page_columns import interval_of
from spine_tasks.report.page_tables import arms_in_order, in_order
from spine_tasks.run import Run
from spine_tasks.states import State

_DO: dict[str, str] = {  # of what did not fail
    "new": "launch the grid again",
    "interrupted": "launch the grid again: it goes on from its checkpoint",
    "waiting": "wait: it is in Slurm's queue",
    "running": "wait",
}


def findings(gathered: Gathered, tables: Tables) -> list[str]:
    """Sentences on what was found; if nothing can be said, why."""
    if gathered.baseline is None:
        return ["No cell of the baseline is complete, so nothing is compared."]
    if len({cell.arm_name for cell in gathered.arms}) < 2:
        return ["Only one arm has complete cells, so nothing is compared."]
    compared, speed = tables["comparisons"], tables.get("convergence")
    if speed is not None and len(compared):
        # In a partial view an arm may have no cell, or no person, that the baseline has.
        known = compared[compared["arm"].isin(speed["arm"]) & (compared["n"] > 0)]
        said = [*conclusions(_records(in_order(known, arms_in_order(gathered))), speed)]
        said += [
            f"{arm}: no person has a value here and in the baseline." for arm in _apart(compared)
        ]
    else:
        said = [*_of_models(tables.get("generalization", pd.DataFrame()), gathered.baseline)]
    return said or [f"Only {' and '.join(MAIN)} are put into words; the tables say the rest."]


def _apart(compared: pd.DataFrame) -> list[str]:
    """Arms without any pair with the baseline."""
    pairs = compared.groupby("arm", sort=False)["n"].sum()
    return [str(arm) for arm in pairs.index[pairs == 0]]


def _of_models(generalization: pd.DataFrame, general: str) -> Iterator[str]:
    """The general cord model against each other one, a sentence a place."""
    for row in _records(generalization):
        if row["comparison"] != PAIRED or not row["n"]:
            continue
        if row["p_holm"] < ALPHA:
            size = f"{abs(row['difference']):.3f}"
            what = f"{size} {'higher' if row['difference'] > 0 else 'lower'}"
        else:
            few = row["smallest_p"] >= ALPHA
            what = "not shown to differ" + (", of too few persons in any case" if few else "")
        limits = interval_of(row["low"], row["high"], "number").text
        yield (
            f"{general} against {row['model']} on data {row['where']} to the latter: "
            f"{row['metric']} {what} ({row['mean']:.3f} and {row['mean_other']:.3f}, 95 % interval "
            f"of the difference {limits}, Holm p {row['p_holm']:.2g}, n = {row['n']})."
        )


def cells_missing(gathered: Gathered) -> pd.DataFrame:
    """A row a cell that is not complete: `state, cause, message, remedy` and which it is."""
    rows: list[dict[str, Any]] = []
    for cell in gathered.experiment.everything:
        state = gathered.states[cell.id]
        if state.kind != "complete":
            row = {"cell": cell.id, "arm": cell.arm_name, "fold": cell.fold, "seed": cell.seed}
            row |= {"state": state.kind, "cause": state.cause.kind if state.cause else ""}
            rows.append(row | {"message": _message(state), "what to do": _remedy(state)})
    order = {"failed": 0, "interrupted": 1}
    rows.sort(key=lambda row: order.get(row["state"], 2))
    return pd.DataFrame(rows)


def failures_overcome(gathered: Gathered) -> pd.DataFrame:
    """A row an attempt that failed, of cells that are complete all the same."""
    runs = gathered.runs
    rows = [
        {
            "cell": cell,
            "arm": arm,
            "when": record["time"],
            "cause": record.get("cause", ""),
            "message": record.get("error", ""),
        }
        for cell, arm, attempts in zip(runs["cell"], runs["arm"], runs["attempts"], strict=True)
        if attempts > 1
        for record in Run(gathered.experiment.folder / cell).attempts()
        if record["event"] == "failed"
    ]
    return pd.DataFrame(rows)


def _message(state: State) -> str:
    return state.cause.why if state.cause else state.why


def _remedy(state: State) -> str:
    if state.cause:
        return state.cause.remedy
    return "launch the grid again, if it is wanted" if state.cancelled else _DO[state.kind]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
