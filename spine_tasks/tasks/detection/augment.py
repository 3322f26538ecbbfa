"""Augmentation of one image and its boxes when it is drawn, by torchvision's transforms.

`flip` mirrors left and right; `light` also turns, scales, shifts and lights a little.
`multi_scale` is DETR's [1]_, with the long side in place of the short one. `hard` is that of the
disc study [2]_, of which three things are left out as mistakes of labels: what a rotation turns in
is black (there the mirrored image, whose discs had no boxes), the shape of the image stays (there
squeezed to a square), and a turned box does not grow (there it became the bounds of its turned
corners; a disc of 38 x 19 px grew by 77 % at 19 degrees).

For the last, a box moves as the ellipse that fills it, which [3]_ finds best where the object's
shape is not known; flips, crops and scales move its edges exactly.

References
----------
.. [1] Carion et al., End-to-end object detection with transformers, ECCV 2020,
   doi:10.1007/978-3-030-58452-8_13.
.. [2] https://github.com/resolator/vertebra-detection
.. [3] Kalra et al., Towards rotation invariance in object detection, ICCV 2021, pages 3530-3540,
   arXiv:2109.13488.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import BoundingBoxes

from spine_tasks.tasks.detection.inputs import resized

Pair = tuple[Tensor, BoundingBoxes]  # an image and the outlines of its objects
Step = Callable[[Tensor, BoundingBoxes], Pair]

# light
SMALL_TURN_DEG, SMALL_SHIFT, SMALL_SCALE = 7.0, (0.05, 0.05), (0.9, 1.1)

# multi_scale: fractions of image_px, from DETR's px of a short side of 800
SCALES = tuple(px / 800 for px in range(480, 801, 32))
SCALES_BEFORE_CROP = (400 / 800, 500 / 800, 600 / 800)
CROP = (384 / 800, 600 / 800)  # each side of the crop, where the image has as much

# hard
PERSPECTIVE_SD = (0.05, 0.1)  # of how far a corner moves inwards, fraction of the side
MOST_PERSPECTIVE = 0.25  # beyond, four corners may be no convex quadrangle
ROTATION_DEG = 19.0
CENTRE_CROP = 330 / 384  # of each side
BRIGHTNESS = CONTRAST = 0.075  # of the range of intensities
OFTEN, MOSTLY_LIT = 0.7, 0.65  # how often perspective and rotation; brightness and contrast
LEAST_VISIBLE = 0.3  # of a box's area; a box of which less is left is dropped

POINTS = 32  # of an outline: the bounds of a turned ellipse are then right to .5 %

flip_sideways: Step = v2.RandomHorizontalFlip(0.5)
flip_upside_down: Step = v2.RandomVerticalFlip(0.5)
rotate: Step = v2.RandomRotation(ROTATION_DEG, v2.InterpolationMode.BILINEAR)
move_a_little: Step = v2.RandomAffine(
    SMALL_TURN_DEG, SMALL_SHIFT, SMALL_SCALE, interpolation=v2.InterpolationMode.BILINEAR
)


def augment(
    image: Tensor, boxes: Tensor, labels: Tensor, recipe: str, image_px: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A random variant of an image, by torch's global generator.

    Parameters
    ----------
    image : float32 (1, H, W)
        Intensities in [0, 1].
    boxes : float64 (N, 4)
        xyxy px, inside the image and with an area.
    labels : int64 (N,)
    recipe
        `none`, `flip`, `light`, `multi_scale` or `hard`; see `Detection.augment`.
    image_px
        The long side of the images.

    Returns
    -------
    image : float32 (1, H', W')
        No side is longer than `image_px`.
    boxes : float32 (M, 4)
        Inside the image and with an area; M may be 0. Left out are the boxes that lost their area
        (`hard`: more than .7 of it) to the border. What a box lost is measured between its area
        before and after clipping, on the same grid, so that neither scale nor rotation counts.
    labels : int64 (M,)
        Of the boxes that are left.
    """
    outlines = _outlines(boxes, image)
    visible = torch.ones(len(boxes), dtype=boxes.dtype)
    for step in _steps(recipe, image_px):
        image, moved = step(image, outlines)
        # In each step: what it pushed out of the image is black if a later one brings it back.
        outlines = functional.clamp_bounding_boxes(moved, clamping_mode="soft")
        visible = visible * _areas(_bounds(outlines)) / _areas(_bounds(moved))
    if recipe in ("light", "hard"):
        image = change_intensity(image)
    boxes = _bounds(outlines).float()
    least = LEAST_VISIBLE if recipe == "hard" else 0.0
    kept = (visible >= least) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    return image, boxes[kept], labels[kept]


def _steps(recipe: str, image_px: int) -> Sequence[Step]:
    """The geometric part of a recipe, in order."""

    def scale_or_crop(image: Tensor, outlines: BoundingBoxes) -> Pair:
        return change_scale(image, outlines, image_px)

    steps: dict[str, Sequence[Step]] = {
        "none": (),
        "flip": (flip_sideways,),
        "light": (flip_sideways, move_a_little),
        "multi_scale": (flip_sideways, scale_or_crop),
        "hard": (
            _sometimes(change_perspective, OFTEN),
            _sometimes(rotate, OFTEN),
            _sometimes(turn, 0.5),
            flip_sideways,
            flip_upside_down,
            crop_centre,
        ),
    }
    return steps[recipe]


def change_scale(image: Tensor, outlines: BoundingBoxes, image_px: int) -> Pair:
    """Resize to a random scale, half the time after cutting out a random part."""
    if torch.rand(()) < 0.5:
        image, outlines = _resize(image, outlines, image_px * _one_of(SCALES_BEFORE_CROP))
        least, most = (round(image_px * fraction) for fraction in CROP)
        height, width = (
            int(torch.randint(min(least, side), min(most, side) + 1, ()))
            for side in image.shape[-2:]
        )
        image, outlines = v2.RandomCrop((height, width))(image, outlines)
    return _resize(image, outlines, image_px * _one_of(SCALES))


def change_perspective(image: Tensor, outlines: BoundingBoxes) -> Pair:
    """Stretch to the whole image a quadrangle whose corners are near the image's own."""
    height, width = image.shape[-2:]
    sd = torch.empty(()).uniform_(*PERSPECTIVE_SD)
    inwards = (torch.randn(4, 2) * sd).abs().clamp(max=MOST_PERSPECTIVE)
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]])
    quadrangle = (corners + inwards * (1 - 2 * corners)) * torch.tensor([width, height])
    start, end = quadrangle.tolist(), (corners * torch.tensor([width, height])).tolist()
    return (
        functional.perspective(image, start, end),
        functional.perspective(outlines, start, end),
    )


def turn(image: Tensor, outlines: BoundingBoxes) -> Pair:
    """Turn by a random multiple of 90 degrees, 0 among them; nothing is lost."""
    angle = 90 * int(torch.randint(4, ()))
    return (
        functional.rotate(image, angle, expand=True),
        functional.rotate(outlines, angle, expand=True),
    )


def crop_centre(image: Tensor, outlines: BoundingBoxes) -> Pair:
    """Cut off the same share on all sides."""
    size = [max(1, round(side * CENTRE_CROP)) for side in image.shape[-2:]]
    return functional.center_crop(image, size), functional.center_crop(outlines, size)


def change_intensity(image: Tensor) -> Tensor:
    """Change contrast and brightness, mostly; `image` is float in [0, 1] and stays in it."""
    if torch.rand(()) >= MOSTLY_LIT:
        return image
    contrast, brightness = torch.empty(2).uniform_(-1, 1) * torch.tensor([CONTRAST, BRIGHTNESS])
    return torch.clamp(image * (1 + contrast) + brightness, 0, 1)


def _sometimes(step: Step, probability: float) -> Step:
    chosen: Step = v2.RandomApply([step], probability)
    return chosen


def _one_of(values: Sequence[float]) -> float:
    return values[int(torch.randint(len(values), ()))]


def _resize(image: Tensor, outlines: BoundingBoxes, long_side: float) -> Pair:
    size = resized((image.shape[-2], image.shape[-1]), round(long_side))
    return functional.resize(image, size, antialias=True), functional.resize(outlines, size)


def _outlines(boxes: Tensor, image: Tensor) -> BoundingBoxes:
    """Points (x, y) on the ellipse inside each box, as boxes x, y, x, y without an extent.

    torchvision moves these as it moves boxes, where its own key points are flipped by another
    convention (a pixel's centre is a whole number) than they are rotated and resized by.
    """
    angle = torch.arange(POINTS, dtype=boxes.dtype) * (2 * math.pi / POINTS)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    points = (centre[:, None] + half[:, None] * circle).flatten(0, 1)
    return BoundingBoxes(
        points.repeat(1, 2), format="XYXY", canvas_size=image.shape[-2:], clamping_mode=None
    )


def _bounds(outlines: BoundingBoxes) -> Tensor:
    """The boxes (N, 4) xyxy around outlines."""
    points = outlines.as_subclass(Tensor)[:, :2].unflatten(0, (-1, POINTS))
    return torch.cat([points.amin(1), points.amax(1)], 1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)
