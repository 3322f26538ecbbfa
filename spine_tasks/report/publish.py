"""Tables to publish: the main metrics as CSV, Markdown and LaTeX, with their n, tests and notes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.generalization import PAIRED, TESTED, UNPAIRED
from spine_tasks.collect.tables import Tables
from spine_tasks.files import write_text
from spine_tasks.metrics import METRICS
from spine_tasks.report import entries
from spine_tasks.report.console import ALPHA, SHOWN, SHOWN_OF_SETS
from spine_tasks.report.entries import Row
from spine_tasks.report.methods import RANK_SUM, intervals, signed_rank
from spine_tasks.report.typeset import PaperTable, latex, markdown

Form = Literal["mean", "median"]
FORMS = {"mean": "mean ± sd", "median": "median [quartiles]"}
PREAMBLE = "% needs \\usepackage{booktabs}\n\n"

Entry = Callable[[Row], str]
ENTRIES: dict[Form, Entry] = {"mean": entries.as_mean, "median": entries.as_median}


def publish(gathered: Gathered, tables: Tables, folder: Path, form: Form = "mean") -> list[Path]:
    """Write `tables.csv`, `tables.md` and `tables.tex`: the tables of `paper_tables`.

    Parameters
    ----------
    gathered, tables
        Of `gather` and `tables_of`.
    folder
        Where they are written; older ones are replaced.
    form
        What scores of persons are given as: their mean and sd, or their median and quartiles. Both
        ways differences are of means.

    Returns
    -------
    list of Path
        The three files. `tables.csv` holds the texts that the others show, a row an arm; the
        numbers in full are in `summary.csv`, `comparisons.csv`, `sets.csv`.
    """
    made = list(paper_tables(gathered, tables, form))
    rows = [
        {"table": table.title} | dict(zip(table.heads, row, strict=True))
        for table in made
        for row in table.rows
    ]
    texts = {
        # Without the mark in front, spreadsheets take the file for another encoding than UTF-8.
        "csv": "\ufeff" + pd.DataFrame(rows).to_csv(index=False),
        "md": "\n".join(map(markdown, made)),
        "tex": PREAMBLE + "\n".join(map(latex, made)),
    }
    for ending, text in texts.items():
        write_text(folder / f"tables.{ending}", text)
    return [folder / f"tables.{ending}" for ending in texts]


def paper_tables(gathered: Gathered, tables: Tables, form: Form = "mean") -> Iterator[PaperTable]:
    """The main metrics, label by label: scores, and differences from the baseline.

    A row is an arm, with a column for each axis of the grid; a column is a metric, with its unit
    and which end is better. Only differences that are significant after Holm's correction are
    bold. Of cords, the tests are those of `generalization` instead.
    """
    paper = _Paper(gathered)
    summary, compared = tables["summary"], tables["comparisons"]
    sets = tables.get("sets", pd.DataFrame(columns=["label", "metric"]))
    for label in gathered.cases["label"].unique():
        of, drawn = f" of {label}", f" of {label} by whole test parts"
        if len(rows := _of(summary, label, SHOWN)):
            title = f"Scores{of}: {FORMS[form]} over persons (n)"
            yield paper.table(title, rows, SHOWN, ENTRIES[form], entries.score_notes(rows))
        if "generalization" not in tables and len(rows := _of(compared, label, SHOWN)):
            title = f"Differences{of} from {gathered.baseline}: mean [95 % interval], p (pairs)"
            yield paper.table(
                title, rows, SHOWN, entries.as_difference, entries.difference_notes(rows)
            )
        if len(rows := _of(sets, label, SHOWN_OF_SETS)):
            title = f"Scores{drawn}: mean over models [95 % interval] (models)"
            yield paper.table(
                title, rows, SHOWN_OF_SETS, entries.as_set_score, entries.set_notes(rows)
            )
        if len(rows := rows[rows["difference"].notna()] if len(rows) else rows):
            title = f"Differences{drawn} from {gathered.baseline}: mean [95 % interval]"
            notes = [*entries.set_notes(rows), "These differences were not tested."]
            yield paper.table(title, rows, SHOWN_OF_SETS, entries.as_set_difference, notes)
    if "generalization" in tables:
        yield from _of_cords(tables["generalization"], paper)


class _Paper:
    """What all tables of an experiment have in common: its arms, and what must be said of it."""

    def __init__(self, gathered: Gathered) -> None:
        arms = {cell.arm_name: cell.arm for cell in gathered.arms}
        axes = {tuple(arm) for arm in arms.values()}
        crossed = len(axes) == 1  # an ensemble has none of the grid's axes
        self.heads = list(axes.pop()) if crossed else ["arm"]
        self.arms = {
            name: [str(value) for value in arm.values()] if crossed else [name]
            for name, arm in arms.items()
        }
        planned, there = len(gathered.experiment.cells), gathered.complete
        self.notes = [f"Preliminary: {there} of {planned} runs are complete."] * (there < planned)
        if gathered.mixed:
            self.notes.append("The runs were not all computed with the same code or data.")

    def table(
        self,
        title: str,
        rows: pd.DataFrame,
        order: Sequence[str],
        entry: Entry,
        notes: Iterable[str],
    ) -> PaperTable:
        """A table of arms by metrics."""
        metrics = [metric for metric in order if metric in set(rows["metric"])]
        found = {(row["arm"], row["metric"]): row for row in entries.records(rows)}
        arms = [arm for arm in self.arms if any((arm, metric) in found for metric in metrics)]
        texts = [
            [*self.arms[arm], *(entry(found.get((arm, metric), {})) for metric in metrics)]
            for arm in arms
        ]
        bold = frozenset(
            (row, len(self.heads) + column)
            for row, arm in enumerate(arms)
            for column, metric in enumerate(metrics)
            if found.get((arm, metric), {}).get("p_holm", 1.0) < ALPHA
        )
        heads = [*self.heads, *map(_head, metrics)]
        return PaperTable(title, heads, texts, len(self.heads), [*notes, *self.notes], bold)


def _of(table: pd.DataFrame, label: str, metrics: Sequence[str]) -> pd.DataFrame:
    if table.empty:
        return table
    return table[(table["label"] == label) & table["metric"].isin(metrics)]


def _head(name: str) -> str:
    metric = METRICS[name]
    unit = f"({metric.unit})" if metric.unit else ""
    return " ".join(filter(None, [name, unit, "↑" if metric.higher_is_better else "↓"]))


def _of_cords(found: pd.DataFrame, paper: "_Paper") -> Iterator[PaperTable]:
    """How cord models generalise: the tests of `spine_tasks.collect.generalization`."""
    paired = signed_rank(max(found.loc[found["comparison"] == PAIRED, "n"], default=0))
    of = {
        PAIRED: ("the general model minus each other one", paired, "general", "model's"),
        UNPAIRED: ("each model at home minus unseen", RANK_SUM, "home", "unseen"),
    }
    for comparison, rows in found.groupby("comparison", sort=False):
        what, test, first, second = of[str(comparison)]
        heads = ["model", "where", first, second, "difference [95 % interval], p (persons)"]
        texts = [entries.as_generalization(row) for row in entries.records(rows)]
        bold = frozenset((row, 4) for row, p in enumerate(rows["p_holm"]) if p < ALPHA)
        notes = [
            f"95 % intervals of the difference: {intervals(rows)}.",
            entries.p_note(test, rows["p"].count(), "comparisons"),
            *entries.left_out(rows, "n_dropped", "Persons left out (no pair, or in both groups)"),
        ]
        title = f"{TESTED} of {what}: means over persons"
        yield PaperTable(title, heads, texts, 2, [*notes, *paper.notes], bold)
