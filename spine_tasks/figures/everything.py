"""All figures of an experiment, as files in its folder."""

import logging
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd

from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.generalization import TESTED
from spine_tasks.collect.tables import Tables
from spine_tasks.figures.confusion import box_tables, draw_confusion
from spine_tasks.figures.cord_pictures import draw_cord, first_fold, shown_pairs
from spine_tasks.figures.cords import draw_matrix
from spine_tasks.figures.cost import draw_cost
from spine_tasks.figures.curves import training_curves
from spine_tasks.figures.drawn import Drawn
from spine_tasks.figures.example_boxes import draw_box_examples
from spine_tasks.figures.example_grades import draw_grade_examples
from spine_tasks.figures.example_masks import draw_mask_examples
from spine_tasks.figures.examples import examples, shown_arms
from spine_tasks.figures.factors import draw_factors
from spine_tasks.figures.grades import Graded, draw_reliability, graded_by_arm
from spine_tasks.figures.plots import box_plot, paired_differences
from spine_tasks.metrics.box_scores import ALL
from spine_tasks.nnunet.pairs import Pair
from spine_tasks.report.console import SHOWN
from spine_tasks.stats.summary import summary

log = logging.getLogger(__name__)

# What a kind of prediction is judged by, case by case: by which examples are chosen.
MAIN = {"masks": "DSC", "cords": TESTED, "boxes": "F1", "grades": "right"}
CHOSEN_BY = MAIN | {"grades": "log_loss_place"}  # `right` is 1 or 0: it has no median case
EVERYWHERE = "all test sets"
SAFE = string.ascii_letters + string.digits + "._=-"  # in the name of a file


@dataclass(frozen=True)
class Wanted:
    """A figure to draw."""

    title: str
    name: str  # of its file, without an ending
    draw: Callable[[Path], None]  # writes the PNG


def draw(gathered: Gathered, tables: Tables) -> list[Drawn]:
    """Draw all figures, the main metric's first.

    One that cannot be drawn is a warning that says why; an old file of it is deleted, so that none
    is taken for new.
    """
    figures = [_drawn(gathered.experiment.folder, one) for one in wanted(gathered, tables)]
    return [one for one in figures if one is not None]


def _drawn(folder: Path, one: Wanted) -> Drawn | None:
    file = folder / f"{one.name}.png"
    svg = file.with_suffix(".svg")
    for old in (file, svg):
        old.unlink(missing_ok=True)
    try:
        one.draw(file)
    except Exception as error:  # whatever it is: the other figures are to be drawn
        log.warning("%s is not drawn: %s: %s", file.name, type(error).__name__, error)
        return None
    return Drawn(one.title, file, svg if svg.exists() else None)


def wanted(gathered: Gathered, tables: Tables) -> list[Wanted]:
    """Every figure that the tables allow, in the order that a reader wants.

    File names have Latin letters, digits and `._-=` only; of two that were the same, the second
    has a number.
    """
    main = MAIN[gathered.predicts]
    figures = [*_of_kind(gathered, tables, main), *_factors(tables, main)]
    figures += [*_examples(gathered), *_confusion(gathered), *_cost(gathered, tables, main)]
    title = "Training curves: each cell, and the epoch of the weights that it kept"
    metrics = ["loss", gathered.chosen_by]
    curves = partial(training_curves, gathered.histories, metric=metrics)
    figures.append(Wanted(title, "curves", lambda file: curves(file=file)))
    if gathered.predicts != "cords":
        for metric in (name for name in SHOWN if name != main):
            figures += _persons(gathered, tables, metric)
    return _with_own_names(figures)


def _with_own_names(figures: list[Wanted]) -> list[Wanted]:
    taken: set[str] = set()
    named = []
    for one in figures:
        plain = "".join(letter if letter in SAFE else "_" for letter in one.name)[:100]
        name, number = plain, 1
        while name.lower() in taken:  # some file systems take A for a
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.lower())
        named.append(Wanted(one.title, name, one.draw))
    return named


def _of_kind(gathered: Gathered, tables: Tables, main: str) -> Iterator[Wanted]:
    if gathered.predicts != "cords":
        yield from _persons(gathered, tables, main)
        return
    # A box plot a test set would be a hundred.
    cases = gathered.of_persons
    title = f"{main} of each model on each test set"
    yield Wanted(title, "matrix", lambda file: draw_matrix(cases, tables["matrix"], file))


def _persons(gathered: Gathered, tables: Tables, metric: str) -> Iterator[Wanted]:
    """Box plot and paired differences of a metric, label by label."""
    cases, baseline = gathered.of_persons, gathered.baseline
    own = cases[cases["metric"] == metric]
    for label in sorted(own["label"].unique(), key=lambda label: label != ALL):
        arms = own.loc[own["label"] == label, "arm"].unique()
        what = f"{metric} of {label}"
        box = partial(box_plot, cases, metric, label)
        yield Wanted(f"{what}: every person, by arm", f"box_{label}_{metric}", box)
        if baseline is not None and baseline in arms and len(arms) > 1:
            compared = tables["comparisons"]
            pairs = partial(paired_differences, cases, compared, metric, label, baseline)
            title = f"{what}: difference from {baseline}, paired by person"
            yield Wanted(title, f"difference_{label}_{metric}", pairs)


def _factors(tables: Tables, main: str) -> Iterator[Wanted]:
    effects = tables.get("factors", pd.DataFrame(columns=["metric"]))
    own = effects[effects["metric"] == main]
    if len(own):
        title = f"What each factor changes in {main}, across the others"
        yield Wanted(title, "factors", partial(draw_factors, own, main))


def _examples(gathered: Gathered) -> Iterator[Wanted]:
    experiment, cases = gathered.experiment, gathered.of_persons
    if gathered.predicts == "cords":
        pairs = cache(partial(shown_pairs, experiment, gathered.arms))
        first = {cell.id for cell in first_fold(gathered.arms)}
        for test_set in cases.loc[cases["cell"].isin(first), "label"].unique():
            title = f"A case of {test_set}, as each model segments it"
            yield Wanted(title, f"cord_{test_set}", partial(_draw_cord, gathered, pairs, test_set))
        return
    metric = CHOSEN_BY[gathered.predicts]
    labels = cases.loc[cases["metric"] == metric, "label"].unique()
    for label in [ALL] if ALL in labels else labels:
        arms = shown_arms(gathered)
        title = f"Worst, median and best case by {metric} of {label} of {arms[0]}"
        draw_these = partial(_draw_examples, gathered, arms, metric, label)
        yield Wanted(title, f"examples_{label}", draw_these)


def _draw_cord(
    gathered: Gathered, pairs: Callable[[], dict[str, Pair]], test_set: str, file: Path
) -> None:
    cases = gathered.of_persons
    draw_cord(gathered.experiment, gathered.arms, cases, pairs()[test_set], file)


def _draw_examples(
    gathered: Gathered, arms: list[str], metric: str, label: str, file: Path
) -> None:
    found = examples(gathered.of_persons, gathered.arms, arms, metric, label)
    experiment = gathered.experiment
    if gathered.predicts == "boxes":
        draw_box_examples(experiment, found, arms, gathered.cases, metric, file)
    elif gathered.predicts == "grades":
        draw_grade_examples(experiment, found, arms, label, file)
    else:
        draw_mask_examples(experiment, found, arms, metric, file)


def _confusion(gathered: Gathered) -> Iterator[Wanted]:
    """What is taken for what, and how far confidence can be trusted."""
    if gathered.predicts == "boxes":
        names, tables = box_tables(gathered.of_sets)
        words = ("reference box", "found as (background: missed, or found on nothing)", "boxes")
        boxes = partial(draw_confusion, tables, names, words)
        yield Wanted("What boxes are found as, all cells of an arm together", "confusion", boxes)
    if gathered.predicts == "grades":
        found = cache(partial(graded_by_arm, gathered.experiment, gathered.arms))
        for condition in gathered.of_persons["label"].unique():
            title = f"True and given grades of {condition}, all cells of an arm together"
            grades = partial(_draw_grades, found, condition)
            yield Wanted(title, f"confusion_{condition}", grades)
        title = "How often each arm is right where it is how sure"
        yield Wanted(title, "reliability", lambda file: draw_reliability(found(), file))


def _draw_grades(found: Callable[[], dict[str, Graded]], condition: str, file: Path) -> None:
    own = found()[condition]
    words = (f"true {condition}", f"given {condition}", "places")
    draw_confusion(own.tables, own.grades, words, file)


def _cost(gathered: Gathered, tables: Tables, main: str) -> Iterator[Wanted]:
    rows = tables["summary"]
    if gathered.predicts == "cords":  # a panel a test set would be a hundred
        cases = gathered.of_persons
        rows = summary(cases[cases["metric"] == main].assign(label=EVERYWHERE))
    elif gathered.predicts == "boxes":
        rows = rows[rows["label"] == ALL]
    arms = list(dict.fromkeys(cell.arm_name for cell in gathered.arms))
    title = f"What a run costs, and its {main}"
    yield Wanted(title, "cost", partial(draw_cost, rows, gathered.runs, main, arms))
