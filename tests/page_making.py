"""What the tests of the page are made of: an experiment without a trained cell, and its tables."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
from making import planned_grid
from PIL import Image

from spine_tasks.collect.convergence import convergence
from spine_tasks.collect.gathered import Gathered
from spine_tasks.figures.drawn import Drawn
from spine_tasks.report.page import write_page
from spine_tasks.states import State
from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.summary import summary

PERSONS = [f"person{number:02d}" for number in range(8)]
HOSTILE = (
    "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1></td></script>"
    "{{7*7}}\u202eevil"
)
HOSTILE_SEEN = HOSTILE.replace("\u202e", "\\u202e")


def gathered(folder, label="cord", question=None, **changes):
    """The four arms of gm_transfer, all complete; of the metrics two have other decimals."""
    experiment = planned_grid(folder / "results")
    if question is not None:
        experiment = replace(experiment, grid=replace(experiment.grid, question=question))
    cells = experiment.cells
    made = Gathered(
        experiment=experiment,
        states={cell.id: State("complete") for cell in experiment.everything},
        arms=list(cells),
        cases=pd.concat([_cases(cell, at, label) for at, cell in enumerate(cells)]),
        histories=pd.concat([_history(cell, at) for at, cell in enumerate(cells)]),
        runs=pd.DataFrame([_run(cell) for cell in experiment.everything]),
        baseline=cells[0].arm_name,
        mixed=[],
        computed_with=[],
    )
    return replace(made, **changes)


def only(made, arms):
    """The same where the cells of these arms (by their number) alone are complete."""
    kept = [made.arms[at] for at in arms]
    ids, needed = {cell.id for cell in kept}, {cell.id for cell in made.experiment.needed}
    return replace(
        made,
        arms=kept,
        states={
            one: state if one in ids | needed else State("new")
            for one, state in made.states.items()
        },
        cases=made.cases[made.cases["cell"].isin(ids)].reset_index(drop=True),
        histories=made.histories[made.histories["arm"].isin([one.arm_name for one in kept])],
        runs=made.runs[made.runs["cell"].isin(ids | needed)].reset_index(drop=True),
        baseline=made.baseline if 0 in arms else None,
    )


def tables_of(made):
    """The tables that other modules make of it, without those that read the cells' folders."""
    found = {"runs": made.runs, "cases": made.cases, "summary": summary(made.cases)}
    if made.baseline is None:
        return found | {"comparisons": pd.DataFrame()}
    return found | {
        "comparisons": comparisons(made.cases, made.baseline),
        "convergence": convergence(made.histories, made.baseline, made.chosen_by),
    }


def page(made, folder, figures=(), methods="", tables=None):
    """The page as text."""
    file = folder / "report.html"
    write_page(made, tables_of(made) if tables is None else tables, figures, file, methods)
    return file.read_text(encoding="utf-8")


def png(folder, name="box.png", title="a box plot"):
    """A figure of noise, which cannot be compressed much."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / name)
    return Drawn(title, folder / name)


def with_svg(drawn, more=""):
    """The same figure with an SVG beside it."""
    file = drawn.file.with_suffix(".svg")
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="60" height="40">{more}'
        '<circle cx="20" cy="20" r="9"/></svg>'
    )
    return replace(drawn, svg=file)


class Parsed(HTMLParser):
    """The text of a page as a browser reads it, its elements, and its rows by table."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.rows = [], "", {}
        self._table, self._inside = None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "section":
            self._table = attributes.get("id")
        if tag == "tr":
            self.rows.setdefault(self._table, []).append((attributes.get("class") or "", []))
        if tag in ("td", "th"):
            self.rows[self._table][-1][1].append("")
        self._inside = [tag]

    def handle_endtag(self, tag):
        self._inside = []

    def handle_data(self, data):
        if self._inside not in (["script"], ["style"]):
            self.text += data
        if self._table in self.rows and self.rows[self._table][-1][1]:
            self.rows[self._table][-1][1][-1] += data

    def body(self, table):
        """The rows of a table as dicts by column head, and their classes."""
        (_, heads), *rows = self.rows[table]
        heads = [one.strip() for one in heads]
        values = [[one.strip() for one in row] for _, row in rows]
        return [dict(zip(heads, row, strict=True)) for row in values], [one for one, _ in rows]


def _cases(cell, at, label):
    people = np.arange(len(PERSONS))
    values = {"DSC": 0.7 + 0.05 * at + 0.001 * people * (at + 1), "MSD": 12.5 - 4 * at + people / 9}
    shared = {"cell": cell.id, "arm": cell.arm_name, "split": cell.split, "fold": 0, "seed": 0}
    shared |= {"person": PERSONS, "subject": PERSONS, "case": PERSONS, "slice": np.nan}
    tables = (
        pd.DataFrame(shared | {"label": label, "metric": name, "value": of})
        for name, of in values.items()
    )
    return pd.concat(tables, ignore_index=True)


def _history(cell, at):
    score = {cell.config.chosen_by: [0.5, 0.6 + 0.1 * at, 0.6], "loss": [3, 2, 1]}
    return pd.DataFrame(
        {"epoch": range(3), "best_epoch": 1, "arm": cell.arm_name, "fold": 0, "seed": 0} | score
    )


def _run(cell):
    return {
        **{"cell": cell.id, "role": "arm" if cell.arm else "needed", "arm": cell.arm_name},
        **{"split": cell.split, "fold": 0, "seed": 0, "epochs": 3, "DSC": 0.8, "MSD": 9.25},
        **{"epochs_trained": 3, "best_epoch": 1, "attempts": 1, "seconds": 7200.0},
        **{"gpu_hours": 1.5, "gpu_hours_asked": 4.0, "time": "2026-01-02T03:04:05+00:00"},
        **{"commit": "c" * 40, "code_sha256": "a" * 64, "data_sha256": "d" * 64},
    }
