"""Boxes made fit for training: inside their picture, each disc once, enough of them a picture."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spine_tasks.configs import suggestion
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.markup.marks import Boxes, MarkedImage, Markup, Note
from spine_tasks.metrics.boxes import box_iou

Kept = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is left out; the defaults are the disc study's, but for `pixel`."""

    merge_iou: float = 0.65  # of two boxes above it one is left out; 1 = both always stay
    pixel: float = 0.0  # what IoU adds to widths and heights; 1 in the study
    prefer: tuple[str, ...] = ("sick",)  # classes that win against others, the strongest first
    min_boxes: int = 3  # images with fewer are left out
    min_alike: int = 1  # images are left out whose number of boxes fewer images than this have

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.merge_iou <= 1:
            raise ConfigError(f"merge-iou must be above 0 and at most 1, got {self.merge_iou}")
        if self.min_boxes < 0 or self.min_alike < 1:
            raise ConfigError(
                f"min-boxes must be at least 0 and min-alike at least 1, got {self.min_boxes} and "
                f"{self.min_alike}"
            )

    def rank(self, name: str) -> int:
        """The place of a class among those that win; smaller wins."""
        return self.prefer.index(name) if name in self.prefer else len(self.prefer)


def check_sizes(markup: Markup, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise DataError if the markup states another size of a picture than the picture has."""
    for image in markup.images:
        if image.size is not None and image.size != sizes[image.name]:
            raise DataError(
                f"{image.name}: its markup was made on {image.size[0]} x {image.size[1]} px, but "
                f"the picture has {sizes[image.name][0]} x {sizes[image.name][1]}; its boxes would "
                "be elsewhere: use the picture that was marked"
            )


def check_preferred(markup: Markup, rules: Rules) -> None:
    """Raise ConfigError if a class to prefer is none of the markup's."""
    for name in rules.prefer:
        if name not in markup.classes:
            raise ConfigError(f"--prefer: no class {name!r}{suggestion(name, markup.classes)}")


def clean(markup: Markup, sizes: Mapping[str, tuple[int, int]], rules: Rules) -> Markup:
    """The markup without boxes outside, duplicates, and images of too few boxes.

    Parameters
    ----------
    sizes
        Name of a picture -> its width and height in px.

    Returns
    -------
    Markup
        In the same order, with a note for everything that was changed or left out. Every box is
        inside its picture and has an area, and no two of a picture have an IoU above
        `rules.merge_iou`.

    Raises
    ------
    DataError
        No image is left.
    """
    images: list[MarkedImage] = []
    cut: list[str] = []
    outside: list[str] = []
    twice: list[str] = []
    for image in markup.images:
        clipped, inside = clip(image.boxes, sizes[image.name])
        cut += [image.name] * int((inside & (clipped != image.boxes).any(axis=1)).sum())
        outside += [image.name] * int((~inside).sum())
        image = _only(replace(image, boxes=clipped), inside)
        ranks = [rules.rank(name) for name in image.classes]
        single = without_duplicates(image.boxes, ranks, rules.merge_iou, rules.pixel)
        twice += [image.name] * int((~single).sum())
        images.append(_only(image, single))
    few = [image.name for image in images if len(image.boxes) < rules.min_boxes]
    images = [image for image in images if len(image.boxes) >= rules.min_boxes]
    alike = Counter(len(image.boxes) for image in images)
    rare = [image.name for image in images if alike[len(image.boxes)] < rules.min_alike]
    images = [image for image in images if alike[len(image.boxes)] >= rules.min_alike]
    if not images:
        raise DataError(
            f"no image is left: {len(few)} of {len(markup.images)} have fewer than "
            f"{rules.min_boxes} boxes, and {len(rare)} a number of boxes that fewer than "
            f"{rules.min_alike} images have; ask for fewer by --min-boxes or --min-alike"
        )
    winners = f", {' before '.join(rules.prefer)} kept" if rules.prefer else ""
    noted = (
        ("boxes cut at the border of their picture", cut),
        ("boxes without area or outside their picture left out", outside),
        (f"duplicate boxes left out (IoU above {rules.merge_iou:g}{winners})", twice),
        (f"images with fewer than {rules.min_boxes} boxes left out", few),
        (f"images whose number of boxes fewer than {rules.min_alike} have left out", rare),
    )
    notes = tuple(Note(what, tuple(names)) for what, names in noted if names)
    return replace(markup, images=tuple(images), notes=markup.notes + notes)


def clip(boxes: Boxes, size: tuple[int, int]) -> tuple[Boxes, Kept]:
    """Boxes cut at the border of a picture, and which of them still have an area.

    Examples
    --------
    >>> clip(np.array([[-5.0, 2, 5, 20], [10, 0, 12, 4]]), (10, 8))
    (array([[ 0.,  2.,  5.,  8.],
           [10.,  0., 10.,  4.]]), array([ True, False]))
    """
    clipped = np.clip(boxes, 0, np.tile(np.array(size, np.float64), 2))
    return clipped, np.all(clipped[:, 2:] > clipped[:, :2], axis=1)


def without_duplicates(
    boxes: Boxes, ranks: Sequence[int], merge_iou: float, pixel: float = 0.0
) -> Kept:
    """Which boxes stay if of two with an IoU above a threshold only one does.

    Boxes are taken by rank, the smallest first, and those of one rank in their order; one stays
    unless its IoU with a box that stays is above the threshold. So a healthy and a sick box of one
    disc become a sick one if sick has the smaller rank.

    Parameters
    ----------
    pixel
        Added to widths and heights, as `box_iou` has it.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [0, 1, 10, 10], [0, 20, 10, 30]])
    >>> without_duplicates(boxes, [1, 0, 1], 0.65)
    array([False,  True,  True])
    """
    iou = box_iou(boxes, boxes, pixel)
    kept = np.zeros(len(boxes), bool)
    for place in sorted(range(len(boxes)), key=lambda place: ranks[place]):
        kept[place] = not (iou[place, kept] > merge_iou).any()
    return kept


def _only(image: MarkedImage, kept: Kept) -> MarkedImage:
    classes = tuple(name for name, stays in zip(image.classes, kept, strict=True) if stays)
    return replace(image, boxes=image.boxes[kept], classes=classes)
