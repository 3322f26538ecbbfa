"""Detection: train one cell and predict its validation and test parts (PyTorch)."""

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from spine_tasks import ranks
from spine_tasks.cell import Cell
from spine_tasks.configs import Detection
from spine_tasks.data.cases import box_cases_of
from spine_tasks.data.coco import BoxCase, CocoData
from spine_tasks.errors import DataError, Interrupted
from spine_tasks.loop_torch import Plan, fit
from spine_tasks.meeting import local_rank, together
from spine_tasks.metrics.boxes import matched
from spine_tasks.metrics.resampling import ap50_replicates
from spine_tasks.predictions import Detections, save_boxes
from spine_tasks.run import Run
from spine_tasks.tasks.detection.batches import batches_of
from spine_tasks.tasks.detection.inputs import normalise, read_case, to_original
from spine_tasks.tasks.detection.merging import merge_duplicates
from spine_tasks.tasks.detection.networks import build, load_start
from spine_tasks.tasks.detection.weights_file import save_weights
from spine_tasks.tasks.weights_file import WEIGHTS_FILE
from spine_tasks.torch_machine import use_this_machine
from spine_tasks.weights import find

log = logging.getLogger(__name__)


def train(cell: Cell, run: Run) -> None:
    """Train the cell from the run's checkpoint, keep the chosen weights, predict val and test."""
    device = use_this_machine(cell.config.threads, cell.resources.gpus, local_rank())
    with together(cell, run):
        _train(cell, run, device)


def _train(cell: Cell, run: Run, device: torch.device) -> None:
    config: Detection = cell.config
    cases, data = box_cases_of(cell, "train", run.folder.parent)
    validation, _ = box_cases_of(cell, "val", run.folder.parent)
    _check_boxes(cases, validation, data, config)
    torch.manual_seed(cell.seed)
    model = build(config, len(data.categories))
    if config.start is not None:
        for note in load_start(model, config, find(config.start)):
            log.info(note)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]

    read = functools.cache(read_case)  # the validation pictures are looked at in every epoch

    def validate(judged: nn.Module) -> float:
        found = predict(judged, validation, config, device, run, read)
        matches = matched(validation, found, len(data.categories))
        [score] = ap50_replicates(matches, np.ones((1, len(validation))))
        return 0.0 if math.isnan(score) else float(score)

    workers = max(0, cell.resources.cpus - config.threads)
    batches = batches_of(cases, config, cell.seed, workers, ranks.rank(), ranks.count())
    judged = fit(
        run, model, optimizer(model, config), batches, validate, Plan.of(cell, len(batches))
    )
    if ranks.rank() == 0:
        save_weights(run.folder / WEIGHTS_FILE, judged, data)
    _save_boxes(judged, "val", validation, data, cell, run, device)
    _save_boxes(judged, "test", *box_cases_of(cell, "test", run.folder.parent), cell, run, device)


def predict(
    model: nn.Module,
    cases: Sequence[BoxCase],
    config: Detection,
    device: torch.device,
    run: Run,
    read: Callable[[BoxCase, Detection], torch.Tensor] = read_case,
) -> list[Detections]:
    """The boxes found in some images, each seen once, whatever the number of ranks.

    Parameters
    ----------
    read
        The picture of a case, as `inputs.read_case` gives it.

    Raises
    ------
    Interrupted
        A stop was requested. On several ranks it waits for the next step of training.
    """
    found = []
    for case in ranks.mine(cases):
        if run.stop_requested and ranks.count() == 1:
            raise Interrupted("stopped while predicting")
        found.append(detect(model, read(case, config), case, config, device))
    return ranks.everybodys(found)


def detect(
    model: nn.Module,
    picture: torch.Tensor,
    case: BoxCase,
    config: Detection,
    device: torch.device,
) -> Detections:
    """The boxes found in one image, on its own pixel grid; `picture` is that of `read_case`."""
    image = normalise(picture, config)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"),
    ):
        [found] = model.eval()([image.to(device)])
    size = (image.shape[-2], image.shape[-1])
    boxes = to_original({name: value.cpu() for name, value in found.items()}, size, case)
    return boxes if config.merge_iou is None else merge_duplicates(boxes, config.merge_iou)


def optimizer(model: nn.Module, config: Detection) -> torch.optim.Optimizer:
    """The optimiser of a detector, the backbone's parameters in a group of their own."""
    rates = {False: config.learning_rate, True: config.backbone_learning_rate}
    groups = [
        {
            "params": [
                value
                for name, value in model.named_parameters()
                if value.requires_grad and ("backbone" in name) == backbone
            ],
            "lr": rates[backbone] or config.learning_rate,
        }
        for backbone in (False, True)
    ]
    groups = [group for group in groups if group["params"]]
    decay = config.weight_decay
    # Fused: one pass over the weights in place of ten, which took a seventh of a step on a CPU.
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=decay, fused=True)
    return torch.optim.AdamW(groups, weight_decay=decay, fused=True)


def _check_boxes(
    cases: Sequence[BoxCase], validation: Sequence[BoxCase], data: CocoData, config: Detection
) -> None:
    """Refuse parts from which nothing could be learned or chosen."""
    for part, images in (("train", cases), ("val", validation)):
        numbers = Counter(int(label) for case in images for label in case.labels)
        of_each = {name: numbers[label] for label, name in enumerate(data.categories)}
        empty = sum(not len(case.labels) for case in images)
        log.info("%s: %d images, %d without a box, boxes %s", part, len(images), empty, of_each)
        if not numbers and (part == "train" or config.keep == "best"):
            raise DataError(
                f"{data.folder}: no box of {', '.join(data.categories)} in the {part} part, so "
                "that nothing can be learned, or chosen by it (keep=best); correct the split, the "
                "annotations or `categories`"
            )


def _save_boxes(
    model: nn.Module,
    part: str,
    cases: Sequence[BoxCase],
    data: CocoData,
    cell: Cell,
    run: Run,
    device: torch.device,
) -> None:
    found = predict(model, cases, cell.config, device, run)
    if ranks.rank() == 0:
        save_boxes(run.predictions / f"{part}.json", cases, found, data.category_ids)
