"""Pictures of found cords: an axial slice a test set, with the manual outline and each model's."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from spine_tasks.cell import Cell
from spine_tasks.collect.generalization import TESTED
from spine_tasks.collect.set_scores import by_arm
from spine_tasks.data.cases import cord_cases_of
from spine_tasks.data.nifti import load_mask
from spine_tasks.experiment import Experiment
from spine_tasks.figures.slices import (
    CASED,
    MANUAL,
    Slice,
    draw_slice,
    mark_sides,
    outline,
    widest_slice,
)
from spine_tasks.figures.style import INCH_A_LINE, colour, drawn, name_lines, width_of
from spine_tasks.nnunet.pairs import Pair
from spine_tasks.nnunet.volumes import image_and_mask

SIDE_MM = 40.0  # of the square around the cord
IN_A_ROW = 4  # panels
LEAST_SIDE_INCH = 1.8  # of a panel


def shown_pairs(experiment: Experiment, arms: Sequence[Cell]) -> dict[str, Pair]:
    """Test set -> the case of it that is drawn: the first by id in the first fold of `arms`."""
    pairs = cord_cases_of(first_fold(arms)[0], "test", experiment.folder)
    by_id = sorted(pairs, key=lambda pair: pair.id, reverse=True)
    of_sets = {pair.test_set: pair for pair in by_id}  # the last one stays
    return {one: of_sets[one] for one in dict.fromkeys(pair.test_set for pair in pairs)}


def draw_cord(
    experiment: Experiment, arms: Sequence[Cell], cases: pd.DataFrame, pair: Pair, file: Path
) -> None:
    """Draw the slice of a case with most of the manual mask, as each model segmented it.

    Of a model the cell of the least seed in the first fold of `arms` is drawn; one without a cell
    there has no panel. `cases` say the Dice.
    """
    cells = {
        model: min(own, key=lambda cell: cell.seed)
        for model, own in by_arm(first_fold(arms)).items()
    }
    order = list(by_arm(arms))
    dice = cases[cases["metric"] == TESTED].set_index(["cell", "case"])["value"]
    image, manual, _ = image_and_mask(pair)
    found = {
        model: load_mask(experiment.run(cell).predictions / f"{pair.id}.nii.gz", image)
        for model, cell in cells.items()
    }
    titles = {model: float(dice[cell.id, pair.id]) for model, cell in cells.items()}
    colours = {model: colour(order.index(model)) for model in cells}
    _draw(widest_slice(image, manual, found), pair.test_set, titles, colours, file)


def first_fold(arms: Sequence[Cell]) -> list[Cell]:
    """The cells of the first fold that any has."""
    first = min(cell.fold for cell in arms)
    return [cell for cell in arms if cell.fold == first]


def _draw(
    shown: Slice,
    test_set: str,
    dice: dict[str, float],
    colours: dict[str, str],
    file: Path,
) -> None:
    """A panel of the image alone, then one a model."""
    rows = math.ceil((1 + len(dice)) / IN_A_ROW)
    columns = math.ceil((1 + len(dice)) / rows)
    titles = {model: [*name_lines(model), f"{TESTED} {dice[model]:.3f}"] for model in dice}
    lines = max(map(len, titles.values()))
    side = max(LEAST_SIDE_INCH, *map(width_of, [[test_set], *titles.values()]))
    height = 0.5 + rows * (side + INCH_A_LINE * (lines + 0.5))
    with drawn(file, columns * (side + 0.1), height, svg=False) as figure:
        panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for axes in panels[1 + len(dice) :]:
            axes.remove()
        for axes in panels[: 1 + len(dice)]:
            draw_slice(axes, shown, SIDE_MM)
        panels[0].set_title(test_set, fontsize="medium")
        mark_sides(panels[0], shown, SIDE_MM)
        for axes, (model, title) in zip(panels[1:], titles.items(), strict=False):
            outline(axes, shown.manual, shown.spacing_mm, color=MANUAL)
            outline(axes, shown.found[model], shown.spacing_mm, color=colours[model])
            axes.set_title("\n".join(title), fontsize="medium")
        keys = [Line2D([], [], color=MANUAL, label="manual", path_effects=CASED)]
        keys.append(Line2D([], [], color="0.5", label="model (DSC is of the whole volume)"))
        figure.legend(handles=keys, loc="outside lower center", ncols=2)
