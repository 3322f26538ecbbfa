"""Predict pictures of one's own by one run of a detector, or by several that are fused."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from spine_tasks.configs import Detection
from spine_tasks.data.coco import BoxCase
from spine_tasks.errors import ConfigError
from spine_tasks.predictions import Detections
from spine_tasks.tasks.detection.inputs import read_case
from spine_tasks.tasks.detection.merging import fuse, merge_duplicates
from spine_tasks.tasks.detection.networks import build
from spine_tasks.tasks.detection.train import detect
from spine_tasks.tasks.detection.weights_file import categories_of
from spine_tasks.tasks.weights_file import load_network, weights_of
from spine_tasks.torch_machine import use_this_machine


@dataclass(frozen=True)
class Predictor:
    """Trained detectors of the same categories, ready on this machine."""

    categories: tuple[str, ...]
    category_ids: tuple[int, ...]  # of the first run, where several have other ids
    models: tuple[tuple[nn.Module, Detection], ...]
    device: torch.device

    def __call__(self, case: BoxCase) -> Detections:
        """The boxes found in a picture, the surest first, on its own pixel grid.

        Those of several detectors are fused. Then boxes of one thing with different labels are
        merged as the detectors' `merge_iou` says, by the smallest of them.
        """
        found = [
            detect(model, read_case(case, config), case, config, self.device)
            for model, config in self.models
        ]
        if len(found) == 1:
            return found[0]
        fused = fuse(found)
        ious = [config.merge_iou for _, config in self.models if config.merge_iou is not None]
        return merge_duplicates(fused, min(ious)) if ious else fused


def predictor(runs: Sequence[tuple[Detection, Path]]) -> Predictor:
    """Ready this process and the detectors of some complete runs; on the CPU.

    Parameters
    ----------
    runs
        Config and folder of each.

    Raises
    ------
    WeightsError
        A run keeps no weights, or they do not fit its config.
    ConfigError
        Two runs tell other categories apart.
    """
    device = use_this_machine(runs[0][0].threads, gpus=0)
    known = [categories_of(weights_of(folder)) for _, folder in runs]
    first, ids = known[0]
    for (_, folder), (categories, _) in zip(runs, known, strict=True):
        if categories != first:
            raise ConfigError(
                f"{folder.name} finds {', '.join(categories)}, but {runs[0][1].name} "
                f"{', '.join(first)}; boxes of the same categories in the same order can be fused"
            )
    models = [(trained(config, folder), config) for config, folder in runs]
    return Predictor(first, ids, tuple(models), device)


def trained(config: Detection, folder: Path) -> nn.Module:
    """The detector of a run with its weights, in evaluation mode.

    Raises
    ------
    WeightsError
        The run keeps no weights, or they do not fit the config.
    """
    file = weights_of(folder)
    model = build(config, len(categories_of(file)[0]))
    load_network(file, model)
    if config.channels_last:  # as it was trained: another layout rounds otherwise
        model.to(memory_format=torch.channels_last)
    return model.eval()
