"""Weights that a training of Faster R-CNN starts from."""

import re
from pathlib import Path

import torch
from torch import Tensor
from torchvision.ops import FrozenBatchNorm2d

from spine_tasks.configs.detection import DiscFasterRcnn
from spine_tasks.errors import WeightsError
from spine_tasks.files import sha256
from spine_tasks.tasks.backbone_weights import (
    load_backbone,
    names_of,
    prefix_of,
    put,
    read_tensors,
    some,
)
from spine_tasks.tasks.faster_rcnn.model import FasterRcnn

PREDICTOR = "roi_heads.box_predictor."
OF_ANCHORS = ("rpn.head.cls_logits.", "rpn.head.bbox_pred.")  # an output for each anchor ratio
# The first file of COCO weights (v1) was trained with batch norms that add nothing to the variance.
# Torchvision too tells it by the beginning of its digest.
TRAINED_WITHOUT_EPS = "258fb6c6"
# How torchvision named the first version's convolutions until 2022, and names them now.
OLD_NAMES = (
    (re.compile(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)


def load_start(model: FasterRcnn, config: DiscFasterRcnn, file: Path) -> list[str]:
    """Put the weights of a file into a network, as far as `config.init` says.

    `backbone`: see `load_backbone`. `all_but_heads`: a whole detector, such as torchvision's
    COCO weights or one of this project; what tells categories apart is new, and so are the first
    stage's outputs where the number of anchor ratios differs.

    Returns
    -------
    list of str
        What was loaded and what was left out, a line each.

    Raises
    ------
    WeightsError
        The file cannot be read, or holds weights of another network. The model is then as it was.
    """
    if config.init == "none":
        return []
    if config.init == "backbone":
        return load_backbone(model.backbone.body, file)
    found = _named_as_now(read_tensors(file))
    own = [name for name in names_of(model) if not name.startswith(PREDICTOR)]
    prefix = prefix_of(own, found, file)
    if prefix is None:
        missing = [name for name in own if name not in found]
        raise WeightsError(
            f"{file}: not weights of this detector: {some(missing)} of its {len(own)} tensors not "
            f"there; the file has {some(list(found))}; take weights of the backbone and version "
            "that the config names"
        )
    tensors = {name: found[prefix + name] for name in own}
    if sha256(file).startswith(TRAINED_WITHOUT_EPS):
        tensors = _with_eps(model, tensors)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if other := [n for n in own if n.startswith(OF_ANCHORS) and tensors[n].shape != shapes[n]]:
        tensors = {name: one for name, one in tensors.items() if not name.startswith(OF_ANCHORS)}
    left_out = [PREDICTOR, *(OF_ANCHORS if other else ())]
    notes = put(model, tensors, file)
    return [
        f"detector: {len(tensors)} tensors of {file.name} by name",
        *notes,
        f"left out of {file.name}: {', '.join(part.rstrip('.') for part in left_out)}",
    ]


def _named_as_now(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by torchvision's present names."""
    for old, new in OLD_NAMES:
        tensors = {old.sub(new, name): tensor for name, tensor in tensors.items()}
    return tensors


def _with_eps(model: FasterRcnn, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Batch norms that add eps to the variance, made equal to those that did not."""
    tensors = dict(tensors)
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d | torch.nn.BatchNorm2d):
            variance = tensors[f"{name}.running_var"]
            grown = ((variance + module.eps) / variance).sqrt()
            tensors[f"{name}.weight"] = tensors[f"{name}.weight"] * grown
    return tensors
