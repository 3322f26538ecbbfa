"""Collect: the runs of an experiment as tables, statistics and figures."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spine_tasks import plots, stats
from spine_tasks.cell import Cell
from spine_tasks.command import RESULTS, parser, run_command
from spine_tasks.configs import knobs_of
from spine_tasks.convergence import convergence
from spine_tasks.errors import IncompleteGrid
from spine_tasks.experiment import Experiment, opened
from spine_tasks.files import read_json, write_text
from spine_tasks.run import Run
from spine_tasks.score import COLUMNS, score
from spine_tasks.states import State, states

SHOWN = ("DSC", "TPR", "PPV", "MSD", "HSD")  # metrics printed and drawn; the files hold all


def main() -> None:
    """The command line of jobs/collect.py."""
    flags = parser(
        "Turn the runs of a launched grid into tables, paired statistics and figures.",
        "python jobs/collect.py --grid gm_transfer",
    )
    flags.add_argument("--grid", required=True, metavar="NAME", help="the name it was launched as")
    flags.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    flags.add_argument(
        "--partial", action="store_true", help="look at the cells that are complete so far"
    )
    run_command(lambda: collect(flags.parse_args()))


def collect(asked: argparse.Namespace) -> None:
    """Write the tables and figures of an experiment, and print the main ones.

    Raises
    ------
    IncompleteGrid
        Cells are not complete and a partial view was not asked for, or none is.
    """
    experiment = opened(asked.grid, asked.results)
    complete = _complete(experiment, asked.partial)
    for cell in complete:
        if not experiment.run(cell).scores.exists():
            score(experiment.run(cell))
    arms = [cell for cell in complete if cell.arm]
    cases = pd.concat([_cases(experiment.run(cell), cell) for cell in arms], ignore_index=True)
    histories = pd.concat([_history(experiment.run(cell), cell) for cell in arms])
    summary = stats.summary(cases)
    baseline = next((c.arm_name for c in arms if c.arm == experiment.grid.baseline), None)
    compared = stats.comparisons(cases, baseline) if baseline is not None else pd.DataFrame()
    tables = {
        "runs": pd.DataFrame([_run_row(experiment.run(cell), cell) for cell in complete]),
        "cases": cases,
        "summary": summary,
        "comparisons": compared,
    }
    if baseline is not None:
        tables["convergence"] = convergence(histories, baseline)
    for name, table in tables.items():
        write_text(experiment.folder / f"{name}.csv", table.to_csv(index=False))
    _draw(experiment.folder, cases, histories, baseline)
    _print(experiment, tables, len(arms))


def _complete(experiment: Experiment, partial: bool) -> list[Cell]:
    found = states(experiment.folder, experiment.everything)
    missing = [cell for cell in experiment.cells if found[cell.id].kind != "complete"]
    if missing and not partial:
        listed = "\n".join(f"  {_named(cell, found[cell.id])}" for cell in missing)
        raise IncompleteGrid(
            f"{experiment.name}: {len(missing)} of {len(experiment.cells)} cells are not "
            f"complete:\n{listed}\nlaunch the grid again to finish them, or look with --partial"
        )
    complete = [cell for cell in experiment.everything if found[cell.id].kind == "complete"]
    if not any(cell.arm for cell in complete):
        raise IncompleteGrid(f"{experiment.name}: no cell is complete yet; see jobs/status.py")
    return complete


def _named(cell: Cell, state: State) -> str:
    return f"{cell.id} ({cell.arm_name}): {state.kind} {state.why}".rstrip()


def _cases(run: Run, cell: Cell) -> pd.DataFrame:
    """The run's scores with what identifies the cell."""
    scores = pd.read_csv(run.scores, dtype={"person": str, "subject": str, "case": str})
    where = {"cell": cell.id, "arm": cell.arm_name, "split": cell.split}
    return scores.assign(**where, fold=cell.fold, seed=cell.seed)[
        [*where, "fold", "seed", *COLUMNS]
    ]


def _history(run: Run, cell: Cell) -> pd.DataFrame:
    return pd.DataFrame(run.history()).assign(arm=cell.arm_name, fold=cell.fold, seed=cell.seed)


def _run_row(run: Run, cell: Cell) -> dict[str, Any]:
    """Knobs, seed, fold, every metric's mean over persons, time and commit of one run."""
    done = read_json(run.folder / "done.json")
    people = stats.by_person(_cases(run, cell))
    if people["label"].nunique() > 1:  # one column each: a mean over labels would have no name
        people["metric"] = people["label"] + "_" + people["metric"]
    means = people.groupby("metric", sort=False)["value"].mean()
    history = run.history()
    return {
        "cell": cell.id,
        "role": "arm" if cell.arm else "needed",
        "arm": cell.arm_name,
        "split": cell.split,
        "fold": cell.fold,
        "seed": cell.seed,
        **knobs_of(cell.config),
        **{str(metric): mean for metric, mean in means.items()},
        "epochs_trained": len(history),
        "best_epoch": history[-1]["best_epoch"],
        "attempts": sum(record["event"] == "started" for record in run.attempts()),
        "seconds": sum(record.get("seconds", 0.0) for record in run.attempts()),
        "time": done["time"],
        "commit": done["commit"],
        "code_sha256": done["code_sha256"],
    }


def _draw(folder: Path, cases: pd.DataFrame, histories: pd.DataFrame, baseline: str | None) -> None:
    there = set(cases["metric"])
    for label in cases["label"].unique():
        for metric in (name for name in SHOWN if name in there):
            plots.box_plot(cases, metric, label, folder / f"box_{label}_{metric}.png")
            if baseline is not None and cases["arm"].nunique() > 1:
                file = folder / f"difference_{label}_{metric}.png"
                plots.paired_differences(cases, metric, label, baseline, file)
    plots.training_curves(histories, folder / "curves.png", ["loss", "val_dice"])


def _print(experiment: Experiment, tables: dict[str, pd.DataFrame], complete: int) -> None:
    console = Console(width=None if Console().is_terminal else 120)
    if experiment.grid.question:
        console.print(f"\n{escape(experiment.grid.question)}")
    console.print(
        f"{complete} of {len(experiment.cells)} cells, {tables['cases']['person'].nunique()} "
        "persons tested; n counts persons, over whose cases, slices and seeds is averaged first\n"
    )
    console.print(_summary_table(tables["summary"]))
    if len(tables["comparisons"]):
        console.print(_comparison_table(tables["comparisons"]))
        console.print(_convergence_table(tables["convergence"]))
    versions = tables["runs"]["code_sha256"].nunique()
    if versions > 1:
        console.print(f"[red]{versions} versions of the code are mixed here; see runs.csv[/red]")
    console.print(f"tables and figures: {experiment.folder}", soft_wrap=True, highlight=False)


def _summary_table(summary: pd.DataFrame) -> Table:
    table = _table("Scores over persons", "arm", "metric", "n", "undefined", "mean", "sd", "median")
    for row in _shown(summary):
        numbers = (_number(row[name]) for name in ("mean", "sd", "median"))
        table.add_row(row["arm"], row["metric"], str(row["n"]), str(row["n_undefined"]), *numbers)
    return table


def _comparison_table(compared: pd.DataFrame) -> Table:
    title = f"Against {compared['baseline'].iloc[0]}, paired by person"
    heads = ("arm", "metric", "n", "difference", "95 % interval", "p", "p (Holm)", "smallest p")
    table = _table(title, *heads)
    for row in _shown(compared):
        interval = f"{_number(row['low'])} to {_number(row['high'])}"
        ps = (f"{row[name]:.2g}" for name in ("p", "p_holm", "smallest_p"))
        difference = _number(row["mean_difference"])
        table.add_row(row["arm"], row["metric"], str(row["n"]), difference, interval, *ps)
    return table


def _convergence_table(speed: pd.DataFrame) -> Table:
    heads = (
        "arm",
        "cells",
        "epochs trained",
        "best epoch",
        "epochs to the baseline's best",
        "never",
    )
    table = _table("How fast: medians over cells, by validation Dice", *heads)
    for row in speed.to_dict("records"):
        medians = (f"{row[name]:g}" for name in ("epochs", "best_epoch", "epochs_to_mark"))
        table.add_row(row["arm"], str(row["cells"]), *medians, str(row["never"]))
    return table


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        words = head in ("arm", "metric")
        table.add_column(head, justify="left" if words else "right", no_wrap=words)
    return table


def _shown(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table[table["metric"].isin(SHOWN)]
    order = rows["metric"].map({name: place for place, name in enumerate(SHOWN)})
    rows = rows.assign(order=order).sort_values("order", kind="stable")
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _number(value: float) -> str:
    return f"{value:.3f}"
