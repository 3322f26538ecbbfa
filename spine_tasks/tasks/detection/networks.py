"""The detectors by their configs: how each is built and what it starts from."""

from pathlib import Path
from typing import Any

from torch import nn

from spine_tasks.configs import CordSignalDetr, Detection, DiscFasterRcnn
from spine_tasks.errors import ConfigError


def build(config: Detection, categories: int) -> nn.Module:
    """The untrained detector of a config, from torch's global generator."""
    # Imported where they are used: each takes time, and a cell needs one.
    if isinstance(config, DiscFasterRcnn):
        from spine_tasks.tasks.faster_rcnn.model import build as build_faster_rcnn

        return build_faster_rcnn(config, categories)
    if isinstance(config, CordSignalDetr) and config.variant == "fast":
        from spine_tasks.tasks.detr.fast import build_fast

        return build_fast(config, categories)
    if isinstance(config, CordSignalDetr):
        from spine_tasks.tasks.detr.model import build as build_detr

        return build_detr(config, categories)
    raise ConfigError(f"{type(config).__name__} is no detector's config")


def load_start(model: Any, config: Detection, file: Path) -> list[str]:
    """Load what `config.init` says from a file of weights; notes of what was loaded and what not.

    Raises
    ------
    WeightsError
        The file is not of this network.
    """
    if isinstance(config, DiscFasterRcnn):
        from spine_tasks.tasks.faster_rcnn.start import load_start as load_faster_rcnn

        return load_faster_rcnn(model, config, file)
    if isinstance(config, CordSignalDetr):
        from spine_tasks.tasks.detr.start import load_start as load_detr

        return load_detr(model, config, file)
    raise ConfigError(f"{type(config).__name__} is no detector's config")
