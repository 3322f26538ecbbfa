"""What collect prints: the main tables, and in words what they show."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.tables import Tables
from spine_tasks.metrics import METRICS
from spine_tasks.report.cords import cord_tables
from spine_tasks.report.tables import new_table

# Metrics printed and drawn; the files hold all. Those of one kind of prediction come together.
SHOWN = ("DSC", "TPR", "PPV", "MSD", "HSD", "F1", "recall", "precision", "right")
SHOWN_OF_SETS = (
    *("AP50", "AP", "F1_set", "recall_set", "precision_set"),
    *("rsna", "AUROC", "kappa", "balanced_accuracy", "log_loss", "log_loss_prior"),
)
MAIN = ("DSC", "F1")  # those that are put into words
ALPHA = 0.05
LEAST_WIDTH = 100  # letters


def show(gathered: Gathered, tables: Tables) -> None:
    """Print the main tables of an experiment, and in words what they show."""
    experiment = gathered.experiment
    terminal = Console()
    # In less than its least width a table cuts numbers off; a terminal breaks the line.
    width = max(terminal.width, LEAST_WIDTH) if terminal.is_terminal else 120
    console = Console(width=width)
    if experiment.grid.question:
        console.print(f"\n[bold]{escape(experiment.grid.question)}[/bold]")
    persons = gathered.of_persons["person"].nunique()
    console.print(
        f"{gathered.complete} of {len(experiment.cells)} cells, {persons} persons tested. n counts "
        "persons: their cases, slices and seeds are averaged first. "
        "↑ higher is better, ↓ lower; least p is the smallest that this n could give.\n"
    )
    if gathered.complete < len(experiment.cells):
        console.print("[bold red]partial: numbers will change; these arms lack cells[/bold red]")
        for line in gathered.arms_missing:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        console.print("python jobs/status.py says which, and why\n", highlight=False)
    order = list(dict.fromkeys(cell.arm_name for cell in experiment.cells))
    order += [arm for arm in tables["cases"]["arm"].unique() if arm not in order]  # an ensemble
    if "matrix" in tables:  # the same numbers by model and test set, in less room
        for table in cord_tables(tables["matrix"], tables["generalization"], console.width):
            console.print(table)
    else:
        console.print(_summary(_rows(tables["summary"], order)))
    if "sets" in tables:
        console.print(_sets(_rows(tables["sets"], order)))
    if len(tables["comparisons"]) and "convergence" in tables:
        compared = _rows(tables["comparisons"], order)
        console.print(_comparisons(compared))
        console.print(_convergence(tables["convergence"]))
        for sentence in conclusions(compared, tables["convergence"]):
            console.print(sentence, markup=False, highlight=False)
    if "factors" in tables:
        console.print()
        factors = tables["factors"]
        console.print(_factors(factors[factors["metric"].isin(MAIN)].to_dict("records")))
    if gathered.mixed:
        console.print("\n[bold red]these cells were not computed alike (see runs.csv)[/bold red]")
    for paragraph in gathered.mixed:
        console.print(paragraph, markup=False, highlight=False, soft_wrap=True)
    runs = tables["runs"]
    console.print(f"\n{len(runs)} runs in {runs['attempts'].sum()} attempts", highlight=False)
    for line in gathered.computed_with:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"tables and figures: {experiment.folder}", soft_wrap=True, highlight=False)


def conclusions(compared: list[dict[str, Any]], speed: pd.DataFrame) -> Iterator[str]:
    """In words, an arm a line: whether it ends better than the baseline, and whether it is faster.

    Only what is significant after Holm's correction is called a difference; where no result of so
    few persons could be, that is said instead.
    """
    epochs = dict(zip(speed["arm"], speed["epochs_to_mark"], strict=True))
    for row in (row for row in compared if row["metric"] in MAIN):
        label = "" if len({row["label"] for row in compared}) == 1 else f", {row['label']}"
        family = [one for one in compared if _measure(one) == _measure(row)]
        tests = sum(pd.notna(one["p"]) for one in family)
        there = row["arm"] in epochs and row["baseline"] in epochs  # not so in a partial view
        speed_of = f"; {_speed(epochs[row['arm']], epochs[row['baseline']])}" if there else ""
        yield f"{row['arm']}{label}: {_end(row, tests)}{speed_of}."


def _measure(row: dict[str, Any]) -> tuple[str, str]:
    return row["label"], row["metric"]


def _end(row: dict[str, Any], tests: int) -> str:
    """How an arm ends, from its row of the comparisons, of which there are so many tests."""
    ends = _interval(row["low"], row["high"]) or "undefined"
    limits = f"95 % interval of the difference {ends}"
    numbers = f"({limits}, Holm p {row['p_holm']:.2g}, n = {row['n']})"
    word = "higher" if row["mean_difference"] > 0 else "lower"
    metric = row["metric"]
    size = f"{metric} {abs(row['mean_difference']):.3f} {word} than the baseline's at the end"
    if row["p_holm"] < ALPHA:
        return f"{size} {numbers}"
    if row["smallest_p"] * tests >= ALPHA:  # Holm's correction of the smallest p
        return f"{size}, of too few persons to be significant in any case {numbers}"
    return f"no difference in {metric} shown at the end {numbers}"


def _speed(arm: float, baseline: float) -> str:
    if pd.isna(arm):
        return "most of its cells never reached the baseline's best validation score"
    return f"it reached the baseline's best validation score in epoch {arm:g}, not {baseline:g}"


def _summary(rows: list[dict[str, Any]]) -> Table:
    table = new_table(
        "Scores over persons", "metric", "arm", "n", "undefined", "mean", "sd", "median"
    )
    for row in rows:
        numbers = (f"{row[name]:.3f}" for name in ("mean", "sd", "median"))
        table.add_row(*_names(row), str(row["n"]), str(row["n_undefined"]), *numbers)
    return table


def _sets(rows: list[dict[str, Any]]) -> Table:
    title = "Scores of a whole test part; intervals by resampling its persons"
    heads = ("cells", "mean", "95 % interval", "difference", "95 % interval ")
    table = new_table(title, "metric", "arm", *heads)
    for row in rows:
        own = _interval(row["low"], row["high"])
        apart = _interval(row["difference_low"], row["difference_high"])
        difference = "" if pd.isna(row["difference"]) else f"{row['difference']:+.3f}"
        table.add_row(*_names(row), str(row["cells"]), f"{row['mean']:.3f}", own, difference, apart)
    return table


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{low:.3f} to {high:.3f}"


def _comparisons(rows: list[dict[str, Any]]) -> Table:
    title = f"Difference from {rows[0]['baseline']}, paired by person"
    heads = ("n", "dropped", "mean", "95 % interval", "p", "Holm p", "least p")
    table = new_table(title, "metric", "arm", *heads)
    for row in rows:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        ps = (f"{row[name]:.2g}" for name in ("p", "p_holm", "smallest_p"))
        counts = (str(row["n"]), str(row["n_dropped"]))
        table.add_row(*_names(row), *counts, f"{row['mean_difference']:+.3f}", interval, *ps)
    return table


def _factors(rows: Sequence[dict[Any, Any]]) -> Table:
    title = "Effect of each factor, averaged over the others"
    heads = ("n", "difference", "95 % interval", "p", "Holm p")
    table = new_table(title, "metric", "factor", *heads)
    for row in rows:
        factor = f"{row['factor']}: {row['level']}, not {row['baseline_level']}"
        ends = _interval(row["low"], row["high"])
        ps = (f"{row[name]:.2g}" for name in ("p", "p_holm"))
        difference = f"{row['mean_difference']:+.3f}"
        measure = f"{row['label']} {row['metric']}"
        table.add_row(escape(measure), escape(factor), str(row["n"]), difference, ends, *ps)
    return table


def _convergence(speed: pd.DataFrame) -> Table:
    heads = ("arm", "cells", "epochs", "best epoch", "epochs to mark", "never")
    table = new_table(
        "Speed, medians over cells; the mark is the baseline's best validation score", *heads
    )
    for row in speed.to_dict("records"):
        medians = (
            "" if pd.isna(row[name]) else f"{row[name]:g}"
            for name in ("epochs", "best_epoch", "epochs_to_mark")
        )
        table.add_row(row["arm"], str(row["cells"]), *medians, str(row["never"]))
    return table


def _rows(table: pd.DataFrame, arms: list[str]) -> list[dict[str, Any]]:
    """The shown metrics' rows: by label, metrics in the order shown, arms in that of the grid."""
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    order = (*SHOWN, *SHOWN_OF_SETS)
    shown = [row for row in rows if row["metric"] in order]
    labels = list(dict.fromkeys(row["label"] for row in shown))

    def place(row: dict[str, Any]) -> tuple[int, int, int]:
        return (
            labels.index(row["label"]),
            order.index(row["metric"]),
            arms.index(row["arm"]),
        )

    several = len(labels) > 1
    return [row | {"several": several} for row in sorted(shown, key=place)]


def _names(row: dict[str, Any]) -> tuple[str, str]:
    metric = METRICS[row["metric"]]
    better = "↑" if metric.higher_is_better else "↓"
    label = row["label"] if row["several"] else None
    return " ".join(filter(None, [label, row["metric"], metric.unit, better])), row["arm"]
