"""Cord segmentation by a plain 2-D U-Net: train one cell and predict every test set (PyTorch)."""

import logging

import torch
from torch import nn

from spine_tasks import ranks
from spine_tasks.batches_torch import Batches
from spine_tasks.cell import Cell
from spine_tasks.configs import CordUnet
from spine_tasks.data.cases import cord_cases_of, unpaired_images
from spine_tasks.data.nifti import load_image, save_mask
from spine_tasks.errors import DataError, Interrupted
from spine_tasks.loop_torch import Plan, fit
from spine_tasks.meeting import local_rank, together
from spine_tasks.run import Run
from spine_tasks.tasks.cord.unet import Slices, Unet, predictor, probabilities, segment, soft_dice
from spine_tasks.tasks.weights_file import WEIGHTS_FILE, save_network
from spine_tasks.torch_machine import use_this_machine

__all__ = ["predictor", "train"]

log = logging.getLogger(__name__)


def train(cell: Cell, run: Run) -> None:
    """Train the cell from the run's checkpoint, keep the chosen weights, predict all test sets."""
    device = use_this_machine(cell.config.threads, cell.resources.gpus, local_rank())
    with together(cell, run):
        _train(cell, run, device)


def _train(cell: Cell, run: Run, device: torch.device) -> None:
    config: CordUnet = cell.config
    for alone in unpaired_images(cell, run.folder.parent):
        log.warning("no mask, left out: %s", alone)
    learning, judging = (_slices(cell, run, part) for part in ("train", "val"))
    torch.manual_seed(cell.seed)
    model = Unet(config).to(device)
    half = config.precision == "bfloat16"

    def validate(judged: nn.Module) -> float:
        if run.stop_requested and ranks.count() == 1:
            raise Interrupted("stopped before validating")
        return soft_dice(judging.masks.numpy(), probabilities(judged, judging.images, device, half))

    batches = Batches(
        learning,
        batch_size=config.batch_size,
        seed=cell.seed,
        workers=max(0, cell.resources.cpus - config.threads),
        rank=ranks.rank(),
        ranks=ranks.count(),
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    judged = fit(run, model, optimizer, batches, validate, Plan.of(cell, len(batches)))
    if ranks.rank() > 0:
        return
    save_network(run.folder / WEIGHTS_FILE, judged, {})
    for pair in cord_cases_of(cell, "test", run.folder.parent):
        if run.stop_requested:
            raise Interrupted("stopped while predicting")
        image = load_image(pair.image)
        mask = segment(judged, image, config, device)
        save_mask(run.predictions / f"{pair.id}.nii.gz", mask, image)


def _slices(cell: Cell, run: Run, part: str) -> Slices:
    """All slices of a part, in the order of its cases.

    Raises
    ------
    DataError
        There is no case, or no cord in any of them.
    """
    pairs = cord_cases_of(cell, part, run.folder.parent)
    if not pairs:
        raise DataError(
            f"{cell.split}, fold {cell.fold}: no case of {cell.config.train_on or 'the data'} in "
            f"{part}; correct the split, or train on other data sets"
        )
    found = Slices(pairs, cell.config, cell.seed)
    if not found.masks.any():
        raise DataError(
            f"{cell.config.data}: all {len(pairs)} masks of the {part} part are empty within "
            f"{cell.config.image_px} px of {cell.config.spacing_mm} mm; see `suffix` and "
            "`threshold` of the data sets, or take a larger image_px"
        )
    log.info("%s: %d cases, %d slices", part, len(pairs), len(found))
    return found
