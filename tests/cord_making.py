"""A made-up experiment of cord models: two data sets of a few voxels, and found masks."""

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from making import write_nifti

from spine_tasks.data.cases import cord_cases_of
from spine_tasks.data.nifti import load_image, load_mask, save_mask
from spine_tasks.experiment import create, planned
from spine_tasks.grid import Grid
from spine_tasks.nnunet.volumes import turned, turned_back
from spine_tasks.score import score

CONTRASTS = {"a": ("T1w", "T2w"), "b": ("acq-sag_T2w",), "c": ("T2w",)}
PARTS = {  # of a data set's persons in folds 0 and 1
    "a": ("train val test test", "test train val test"),
    "b": ("train val test", "test train val"),
    "c": ("test test", "test test"),
}
SHAPE_LAS = (30, 60, 5)
WIDEST = 3  # slice of the largest mask
CENTRE, BLOCK = (15, 25), (4, 36)  # pixels of the cord, and of what is right and anterior of it
# To left, anterior and superior, or to posterior, superior and right as sagittal scans are stored.
LAS = np.diag([-1, 0.5, 2, 1])  # mm
PSR = np.array([[0, 0, 1.0, -9], [-0.5, 0, 0, 7], [0, 2, 0, 3], [0, 0, 0, 1.0]])


def anatomy(number):
    """An image and a cord, axes to left, anterior and superior.

    Values are 100 times the slice and the person's number; 1000 more in a block beside the cord.
    """
    x, y, z = np.indices(SHAPE_LAS)
    radius = np.where(z == WIDEST, 4, 3) * (z > 0)
    cord = (x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 <= radius**2
    block = (abs(x - BLOCK[0]) <= 1) & (abs(y - BLOCK[1]) <= 1)
    return (100 * z + number + 1000 * block).astype(np.float32), cord & (radius > 0)


def write_case(folder, number, contrast, affine):
    las = nib.orientations.io_orientation(LAS)
    turn = nib.orientations.ornt_transform(las, nib.orientations.io_orientation(affine))
    image, cord = (
        np.ascontiguousarray(nib.orientations.apply_orientation(one, turn))
        for one in anatomy(number)
    )
    subject = f"sub-secret{number}"
    inside, name = Path(subject) / "anat", f"{subject}_{contrast}"
    write_nifti(folder / inside / f"{name}.nii.gz", image, affine)
    labels = folder / "derivatives" / "labels"
    write_nifti(labels / inside / f"{name}_seg-manual.nii.gz", cord.astype(np.uint8), affine)


def sources_and_split(folder):
    rows, sources = [], {}
    for source, contrasts in CONTRASTS.items():
        sources[source] = {"path": source, "contrasts": [*contrasts], "suffix": "seg-manual"}
        for fold, parts in enumerate(PARTS[source]):
            for number, part in enumerate(parts.split(), start=1):
                subject = f"{source}_sub-secret{number}"
                rows.append(f"{subject},{subject},{part},{fold}")
        for number, contrast in product(range(1, len(parts.split()) + 1), contrasts):
            write_case(folder / source, number, contrast, LAS if source == "b" else PSR)
    (folder / "cords.yaml").write_text(yaml.safe_dump({"sources": sources}))
    rows.sort(key=lambda row: row[-1])
    (folder / "split.csv").write_text("\n".join(["subject,person,part,fold", *rows, ""]))
    return str(folder / "cords.yaml"), str(folder / "split.csv")


def planned_cords(folder):
    """An experiment of two seeds with a general model and those of `a` and `b`, not run yet."""
    data, split = sources_and_split(folder)
    grid = Grid(
        job="cord_nnunet",
        split=split,
        arms={
            "general": {"train_on": None},
            "onlyA": {"train_on": ["a"]},
            "onlyB": {"train_on": ["b"]},
        },
        seeds=2,
        knobs={"data": data},
        needs={"when": {}, "cell": {"job": "cord_preprocessing"}},
        baseline={"arm": "general"},
    )
    made = planned("cords", grid, folder / "results")
    create(made, made.everything)
    return made


def run_cords(made, voxels):
    """Every cell of an experiment as if it had run.

    `voxels` is how far to the left a model's masks are off, one more for each seed; None: empty.
    """
    for cell in made.everything:
        run = made.run(cell)
        run.record_attempt("started")
        if cell.config.predicts == "cords":
            off = voxels[cell.arm_name]
            for pair in cord_cases_of(cell, "test", made.folder):
                image = load_image(pair.image)
                truth = load_mask(pair.label, image)
                found = truth & False if off is None else moved(truth, image, off + cell.seed)
                save_mask(run.predictions / f"{pair.id}.nii.gz", found, image)
            run.add_history(epoch=0, loss=1.0, val_dice=0.5, seconds=1.0, best_epoch=0)
        run.finish()
        score(run)
    return made


def moved(mask, image, voxels):
    """A mask of an image's own grid, some voxels to the patient's left."""
    las = np.asarray(turned(image, mask.astype(np.uint8)).dataobj)
    return turned_back(image, np.roll(las, voxels, axis=0)).astype(bool)
