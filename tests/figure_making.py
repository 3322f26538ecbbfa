"""What tests of figures share: figures kept as they were drawn, and an experiment of masks."""

import numpy as np
from making import planned_grid, small_data
from matplotlib.figure import Figure

from spine_tasks.data.cases import cases_of, target
from spine_tasks.data.nifti import load_image, load_mask, save_mask
from spine_tasks.experiment import create
from spine_tasks.figures import style
from spine_tasks.score import score


def recorded(monkeypatch):
    """The figures as they are drawn from now on, to read what stands in them."""
    figures = []

    class Recorded(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(style, "Figure", Recorded)
    return figures


def masks(results, off):
    """A complete experiment of gm_transfer, whose masks are off the reference's.

    `off(arm, seed, number)` is by how many voxels, to the right of the picture (nibabel's first
    axis), where `number` counts the test cases by id; None: the mask is empty.
    """
    data = small_data(results / "data", "gm_phantom", "gm_phantom_adult")
    made = planned_grid(results, data=str(data), seeds=2)
    create(made, made.everything)
    for cell in made.everything:
        run = made.run(cell)
        run.record_attempt("started")
        for number, case in enumerate(cases_of(cell, "test", made.folder)):
            image = load_image(case.image)
            truth = load_mask(target(case)[1], image)
            by = off(cell.arm_name, cell.seed, number)
            found = truth & False if by is None else np.roll(truth, by, axis=0)
            save_mask(run.predictions / f"{case.id}.nii.gz", found, image)
        run.add_history(epoch=0, loss=1.0, val_dice=0.5, seconds=1.0, best_epoch=0)
        run.finish()
        score(run)
    return made
