"""From a place to what a network is given: a square around it, cut out of its slices.

All places take one way, in training, validation, test and prediction: grey, windowed by the
percentiles of their slice, cut out with a margin. Then comes augmentation, if any, then `finish`.
"""

import logging
from functools import cache

import numpy as np
import timm
import torch
from torch import Tensor
from torchvision.ops import roi_align
from torchvision.transforms.v2 import InterpolationMode, functional

from spine_tasks.configs import StenosisGrading
from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.data.stacks import Floats, Stack, read_stack
from spine_tasks.errors import DataError
from spine_tasks.tasks.backbone import unknown

WINDOW = (1.0, 99.5)  # percentiles of the slice that become 0 and 1
MARGIN = 1.25  # what is cut out beyond the square, so that it can be turned without black corners
TURN_DEG, SHIFT, SCALE, LIGHT = 10.0, 0.05, 0.1, 0.15  # the most that `light` changes

log = logging.getLogger(__name__)


def read_place(case: GradeCase, config: StenosisGrading) -> Tensor:
    """The surroundings of a place.

    Returns
    -------
    uint8 (S, side, side)
        `config.slices` slices; side is `config.image_px` with a margin. 0 is the 1st percentile
        of the middle slice and below, 255 the 99.5th and above, outside of the slice 0. A place on
        the right side is mirrored, if `config.mirror`.

    Raises
    ------
    DataError
        As `spine_tasks.data.stacks.read_stack`; or the crop's unit is not known of this place.
    """
    stack = read_stack(case, config.slices)
    window = torch.from_numpy(_windowed(case, stack))[None]
    width, height = _size_px(case, stack, config)
    margin = 1.0 if config.crop_unit == "image" else MARGIN
    x, y = _middle(case, stack, config)
    half = torch.tensor([width, height]) * margin / 2
    box = torch.cat([torch.tensor([x, y]) - half, torch.tensor([x, y]) + half])
    side = _side(config)
    cut = roi_align(window, [box[None].float()], (side, side), aligned=True)[0]
    if config.mirror and case.side == "right":
        cut = functional.horizontal_flip(cut)
    found: Tensor = functional.to_dtype(cut.clamp(0, 1), torch.uint8, scale=True)
    return found


def augment(image: Tensor, config: StenosisGrading, generator: torch.Generator) -> Tensor:
    """A random variant of float (S, side, side) surroundings: turned, shifted, scaled, lit."""
    if config.augment == "none":
        return image
    turn, x, y, scale, light, contrast = (
        2 * torch.rand(6, generator=generator, dtype=torch.float64) - 1
    ).tolist()
    side = image.shape[-1]
    image = functional.affine(
        image,
        angle=TURN_DEG * turn,
        translate=[SHIFT * side * x, SHIFT * side * y],
        scale=1 + SCALE * scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    changed: Tensor = ((image - 0.5) * (1 + LIGHT * contrast) + 0.5 + LIGHT * light).clamp(0, 1)
    return changed


def finish(image: Tensor, config: StenosisGrading) -> Tensor:
    """Float (S, side, side) surroundings as a network knows them: float32 (C, px, px).

    The margin is cut off; C is S, or 3 for one slice, which stands in each; x becomes
    (x - mean) / standard deviation, those of the images that the backbone's published weights
    were trained with.

    Raises
    ------
    ConfigError
        timm knows no such backbone.
    """
    cut = functional.center_crop(image, [config.image_px, config.image_px])
    if config.slices == 1:
        cut = cut.expand(3, -1, -1)
    mean, std = mean_and_std(config.backbone)
    if config.slices > 3:
        mean, std = mean.mean(), std.mean()
    found: Tensor = (cut - mean) / std
    return found


@cache
def mean_and_std(backbone: str) -> tuple[Tensor, Tensor]:
    """Both (3, 1, 1), in the order of the channels."""
    recipe = timm.get_pretrained_cfg(backbone)
    if recipe is None:
        raise unknown(backbone)
    return torch.tensor(recipe.mean)[:, None, None], torch.tensor(recipe.std)[:, None, None]


def _side(config: StenosisGrading) -> int:
    """Side of the surroundings in px; the margin on both sides is whole."""
    if config.crop_unit == "image":
        return config.image_px
    return config.image_px + 2 * round(config.image_px * (MARGIN - 1) / 2)


def _middle(case: GradeCase, stack: Stack, config: StenosisGrading) -> tuple[float, float]:
    _, height, width = stack.values.shape
    return (width / 2, height / 2) if config.crop_unit == "image" else (case.x, case.y)


def _size_px(case: GradeCase, stack: Stack, config: StenosisGrading) -> tuple[float, float]:
    """Width and height, on the slice's own grid, of what becomes a square."""
    _, height, width = stack.values.shape
    where = case.series[case.index]
    if config.crop_unit == "image":  # as published: squeezed into a square
        return float(width), float(height)
    if config.crop_unit == "px":
        return config.crop, config.crop
    if config.crop_unit in ("box", "sides"):
        if case.width is None or case.height is None:
            raise DataError(f"{where}: {case.id} is a point, not a box; take crop_unit=mm or px")
        if config.crop_unit == "sides":
            return config.crop * case.width, config.crop * case.height
        return (config.crop * max(case.width, case.height),) * 2
    if stack.spacing_mm is None:
        raise DataError(f"{where}: spacing is not known; take crop_unit=box, sides, px or image")
    rows_mm, columns_mm = stack.spacing_mm
    return config.crop / columns_mm, config.crop / rows_mm


def _windowed(case: GradeCase, stack: Stack) -> Floats:
    middle = stack.values[len(stack.values) // 2]
    low, high = np.percentile(middle, WINDOW).astype(np.float32)
    if low == high:  # fewer bright pixels than the window leaves out, or none
        low, high = middle.min(), middle.max()
    if low == high:
        log.warning("%s: every pixel is %g; zeros are used", case.series[case.index], low)
        return np.zeros_like(stack.values)
    window: Floats = np.clip((stack.values - low) / (high - low), 0, 1)
    return window
