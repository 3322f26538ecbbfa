"""From a case to what a detector is given, and from its boxes back to the picture's pixels.

All pictures take one way, in training, validation, test and prediction: grey, windowed by their own
percentiles, the long side `image_px`, 8 bits. Then comes augmentation, if any, then `normalise`.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

from spine_tasks.configs import Detection
from spine_tasks.data.coco import BoxCase
from spine_tasks.data.pictures import read_picture
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.predictions import Detections
from spine_tasks.tasks.backbone import RESNETS

Target = dict[str, Tensor]  # boxes (N, 4) float32 xyxy px of the image, labels (N,) int64
Sample = tuple[Tensor, Target]  # image (C, H, W) float32, normalised

WINDOW = (1.0, 99.5)  # percentiles of the picture that become 0 and 1
# Mean and standard deviation that ResNets know, by channel. timm has them too, but imports slowly.
_IMAGENET = (
    torch.tensor([0.485, 0.456, 0.406])[:, None, None],
    torch.tensor([0.229, 0.224, 0.225])[:, None, None],
)

log = logging.getLogger(__name__)


def read_case(case: BoxCase, config: Detection) -> Tensor:
    """The picture of a case at the size that detectors are given.

    Returns
    -------
    uint8 (1, H, W)
        The longer of H and W is `config.image_px`, the other follows the picture's shape, at
        least 1. 0 is the 1st percentile of the picture and below, 255 the 99.5th and above; 0
        everywhere, with a warning, for a picture of one value. A step of 1 is a 255th of that
        window, less than the noise of a scan.

    Raises
    ------
    DataError
        The picture cannot be read, or has not the size that its annotation says.
    """
    picture = read_picture(case.image)
    height, width = picture.shape
    if (width, height) != (case.width, case.height):
        raise DataError(
            f"{case.image}: {width} x {height} px, but its annotation says {case.width} x "
            f"{case.height}, so its boxes are of another picture; put the right one there, or "
            "correct `width` and `height` and check the boxes"
        )
    window = torch.from_numpy(_windowed(case.image, picture))[None]
    window = functional.resize(window, resized((height, width), config.image_px), antialias=True)
    image: Tensor = functional.to_dtype(window, torch.uint8, scale=True)
    return image


def resized(size: tuple[int, int], long_side: int) -> list[int]:
    """Height and width in px with the shape of `size` and a given longer side; at least 1 each.

    Examples
    --------
    >>> resized((300, 200), 640)
    [640, 427]
    """
    return [max(1, round(side * long_side / max(size))) for side in size]


def _windowed(file: Path, picture: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = np.percentile(picture, WINDOW).astype(np.float32)
    if low == high:  # fewer bright pixels than the window leaves out, or none
        low, high = picture.min(), picture.max()
    if low == high:
        log.warning("%s: every pixel is %g; an image of zeros is used", file, low)
        return np.zeros_like(picture)
    window: NDArray[np.float32] = np.clip((picture - low) / (high - low), 0, 1)
    return window


def normalise(image: Tensor, config: Detection) -> Tensor:
    """An image as the network's weights know it: (x - mean) / standard deviation.

    Mean and standard deviation are those that the published weights of `config.backbone` were
    trained with, by timm's table: ImageNet's for ResNets (timm's and torchvision's alike), .5 and
    .5 for `tf_...`. They are taken whether weights are loaded or not, so that a network and one
    that starts from it see alike.

    Parameters
    ----------
    image : uint8, or float32 in [0, 1], (1, H, W)

    Returns
    -------
    float32 (C, H, W)
        C is `config.channels`: 3 has the grey image thrice, each by its own channel's numbers; 1
        has it once, by their means over the channels.

    Raises
    ------
    ConfigError
        timm knows no such backbone.
    """
    mean, std = _mean_and_std(config.backbone)
    if config.channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    grey: Tensor = functional.to_dtype(image, torch.float32, scale=True)
    return (grey - mean) / std


def _mean_and_std(backbone: str) -> tuple[Tensor, Tensor]:
    """Both (3, 1, 1), in the order of the channels."""
    if backbone in RESNETS:
        return _IMAGENET
    import timm

    recipe = timm.get_pretrained_cfg(backbone)
    if recipe is None:
        raise ConfigError(
            f"backbone {backbone!r}: timm knows no such network, so not how its images are "
            "normalised; timm.list_models() lists all"
        )
    return torch.tensor(recipe.mean)[:, None, None], torch.tensor(recipe.std)[:, None, None]


def resized_boxes(case: BoxCase, size: tuple[int, int]) -> Tensor:
    """The boxes of a case on its image of another size, height and width in px: float64 (N, 4)."""
    return torch.from_numpy(case.boxes * _zoom(case, size))


def to_original(found: Target, size: tuple[int, int], case: BoxCase) -> Detections:
    """What a detector found, on the case's own pixel grid: the inverse of `resized_boxes`.

    Parameters
    ----------
    found
        `boxes` (N, 4) xyxy px, `labels` (N,) and `scores` (N,) of one image, on any device.
    size
        Height and width in px of the image that the detector was given.

    Returns
    -------
    Detections
        All of them, in the same order; boxes are clipped to the picture, so one that was found
        outside it has no area.
    """
    boxes = found["boxes"].detach().double().cpu().numpy() / _zoom(case, size)
    return Detections(
        boxes.clip(0, [case.width, case.height] * 2),
        found["labels"].cpu().numpy().astype(np.int64),
        found["scores"].detach().double().cpu().numpy(),
    )


def _zoom(case: BoxCase, size: tuple[int, int]) -> NDArray[np.float64]:
    """How much longer x1, y1, x2 and y2 are on an image of a size than on the picture."""
    height, width = size
    return np.array([width / case.width, height / case.height] * 2)
