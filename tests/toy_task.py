"""A task that learns nothing and keeps the contract: checkpoints, history, stops, predictions.

It stands in for a network where the launcher is tested, so that an attempt takes a second. Its
prediction is the reference mask: moved by one voxel where the cell starts from scratch.
"""

import os
import time

import numpy as np
from witness import pace, tell

from spine_tasks import checkpoints
from spine_tasks.data.cases import cases_of, target
from spine_tasks.data.nifti import load_image, load_mask, save_mask
from spine_tasks.errors import DataError, Interrupted

ENTRY = "from spine_tasks.configs import GmSegmentation\nGmSegmentation.entry = 'toy_task:train'\n"


def train(cell, run):
    if os.environ.get("TOY_FAILS") in (cell.split, cell.arm_name):
        raise DataError("made to fail")
    saved = checkpoints.load(run.checkpoint)
    epochs_done = saved[1]["epochs_done"] if saved else 0
    run.forget_history_from(epochs_done)
    tell(cell, "begin", epochs_done, 0)
    for epoch in range(epochs_done, cell.config.epochs):
        time.sleep(float(os.environ.get("TOY_EPOCH_S", "0")))
        run.add_history(epoch=epoch, loss=-epoch / 10, val_dice=epoch / 10, best_epoch=epoch)
        tell(cell, "history", epoch)
        pace()
        tell(cell, "step", epoch, 0)
        tell(cell, "saving", epoch + 1, 0)
        checkpoints.save(run.checkpoint, {"weight": np.ones(1)}, {"epochs_done": epoch + 1})
        tell(cell, "saved", epoch + 1, 0)
        if run.stop_requested:
            raise Interrupted(f"stopped after epoch {epoch}")
    for case in cases_of(cell, "test", run.folder.parent):
        image = load_image(case.image)
        mask = load_mask(target(case)[1], image)
        moved = np.roll(mask, cell.config.init == "scratch", axis=0)
        save_mask(run.predictions / f"{case.id}.nii.gz", moved, image)
    tell(cell, "end")
