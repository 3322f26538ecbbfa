#!/usr/bin/env python3
"""How quick scores are: COCO's numbers of boxes, and the distances between surfaces of masks.

Boxes: ours goes from the arrays that a task hands over to the 12 numbers of each category and of
all, checks included. pycocotools is given the same as dictionaries, and used as its documentation
says (an index of the reference, loadRes, evaluate, accumulate, summarize). Images of 512 px have 4
to 7 boxes of two categories; most are found, with edges some px off, and the rest of what is found
is on nothing.

Masks: ours is what scores a slice: mean, maximum and 95th percentile of the distances. The
published grey-matter study [1]_ is written here from its description: both surfaces by erosion, the
distance transform of each over the whole slice, and each read where the other one is. It does all
of this twice, for the mean and for the maximum; here it does it once. Slices of 256 x 256 px have a
cord or, every second, the grey matter; or one structure that fills a quarter of them. The edge of
the prediction is a px or so off.

All in one process and thread, in turn, and both ways must give the same numbers.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --images 500 --slices 20

.. [1] Kumar, transfer learning for paediatric spinal cord grey-matter segmentation,
   https://github.com/ashwinkumargb/pediatric_gmseg.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

import numpy as np  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402
from pycocotools.cocoeval import COCOeval  # noqa: E402
from scipy import ndimage  # noqa: E402
from side_by_side import Growth, Way, faster, in_turn, report  # noqa: E402

from spine_tasks.data.coco import BoxCase  # noqa: E402
from spine_tasks.metrics.coco_ap import OF_PRECISION, OF_RECALL, coco_ap  # noqa: E402
from spine_tasks.metrics.masks import Mask  # noqa: E402
from spine_tasks.metrics.surface import surface_distances  # noqa: E402
from spine_tasks.predictions import Detections  # noqa: E402

LABELS = ("sick", "healthy")
IMAGE_PX, SLICE_PX = 512, 256
CORD, GREY, LARGE = (9, 12), (4, 6), (65, 80)  # px of radius, down and across
SHAPE = np.array([0, 0.05, 0.05, 0.03])  # how far from an ellipse, in waves around it
LOBES = np.array([0, 0.2, 0, 0.25])  # the same of grey matter
Images = tuple[list[BoxCase], list[Detections]]
Masks = list[tuple[Mask, Mask]]


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--images", type=int, default=5000, help="default: %(default)s")
    flags.add_argument("--slices", type=int, default=196, help="default: %(default)s")
    asked = flags.parse_args()
    for boxes, runs in ((20, 4), (100, 3)):
        score_boxes(asked.images, boxes, runs)
    score_masks("a cord or grey matter", asked.slices, [(CORD, SHAPE), (GREY, LOBES)])
    score_masks("a quarter of each", asked.slices, [(LARGE, SHAPE)])


def score_boxes(images: int, boxes: int, runs: int) -> None:
    """The rows of COCO's numbers with so many boxes found in an image."""
    cases, found = some_images(images, boxes)

    def ours() -> dict[tuple[str, str], float]:
        return {(label, name): value for label, name, value in coco_ap(cases, found, LABELS)}

    def theirs() -> list[float]:
        return pycocotools(*dictionaries(cases, found))

    own, other = ours(), theirs()
    np.testing.assert_allclose(
        [own["all", name] for name in (*OF_PRECISION, *OF_RECALL)], other, rtol=0, atol=1e-12
    )
    what = f"COCO scoring of {images:,} images, {boxes} boxes found in each"
    seconds = in_turn({"ours": ours, "theirs": theirs}, runs, warm=0)
    report(faster(what, "pycocotools, the same 12 numbers", seconds["ours"], seconds["theirs"], 5))
    parts = {
        f"{n:,} images": (lambda n=n: list(coco_ap(cases[:n], found[:n], LABELS)))
        for n in tenths(images)
    }
    report(growth(what, parts, "by images; so many dictionaries outgrow the caches"))


def score_masks(of: str, slices: int, kinds: Sequence[tuple[tuple[int, int], Any]]) -> None:
    """The rows of distances between surfaces of one size."""
    rng = np.random.default_rng(0)
    pairs: Masks = [some_masks(rng, *kinds[at % len(kinds)]) for at in range(slices)]

    def ours() -> list[dict[str, float]]:
        return [surface_distances(*pair, (1.0, 1.0)) for pair in pairs]

    def theirs() -> list[tuple[float, float]]:
        distances = (published_distances(*pair) for pair in pairs)
        return [(float(one.mean()), float(one.max())) for one in distances]

    own = [(one["MSD"], one["HSD"]) for one in ours()]
    np.testing.assert_allclose(own, theirs(), rtol=0, atol=1e-9)
    what = f"surface distances, {slices} slices of 256 x 256, {of}"
    seconds = in_turn({"ours": ours, "theirs": theirs}, runs=10)
    against = "the published function, called once, the same distances"
    report(faster(what, against, seconds["ours"], seconds["theirs"], 15))
    parts = {
        f"{n} slices": (lambda n=n: [surface_distances(*pair, (1.0, 1.0)) for pair in pairs[:n]])
        for n in tenths(slices)
    }
    report(growth(what, parts, "one slice after the other, nothing shared"))


def tenths(most: int) -> tuple[int, int, int]:
    """A hundredth of an amount, a tenth, and all of it."""
    return -(-most // 100), -(-most // 10), most


def growth(what: str, parts: dict[str, Way], why: str) -> Growth:
    """How long ours takes for three amounts."""
    seconds = in_turn(parts, runs=3)
    return Growth(
        what=what, work=tuple(parts), seconds=tuple(map(median, seconds.values())), why=why
    )


def some_images(images: int, boxes: int) -> Images:
    """Images with what was found in them, so many boxes each."""
    rng = np.random.default_rng(0)
    cases, found = [], []
    for index in range(images):
        true = some_boxes(rng, int(rng.integers(4, 8)))
        labels = rng.integers(0, 2, len(true))
        cases.append(
            BoxCase(
                id=f"{index:05}",
                image_id=index,
                subject=f"{index:05}",
                image=Path(f"{index}.png"),
                width=IMAGE_PX,
                height=IMAGE_PX,
                boxes=true,
                labels=labels,
            )
        )
        wrong = some_boxes(rng, boxes - len(true))
        mixed = np.where(rng.random(len(true)) < 0.9, labels, 1 - labels)
        found.append(
            Detections(
                np.r_[true + rng.normal(0, 3, true.shape), wrong],
                np.r_[mixed, rng.integers(0, 2, len(wrong))],
                np.r_[rng.beta(5, 2, len(true)), rng.beta(1, 6, len(wrong))],
            )
        )
    return cases, found


def some_boxes(rng: np.random.Generator, number: int) -> Any:
    """Boxes of 15 to 110 px, (N, 4), xyxy."""
    low = rng.uniform(0, 400, (number, 2))
    return np.c_[low, low + rng.uniform(15, 110, (number, 2))]


def dictionaries(
    cases: Sequence[BoxCase], found: Sequence[Detections]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same as COCO's reference and results."""
    true = [one for case in cases for one in entries(case.image_id, case.boxes, case.labels)]
    reference = {
        "info": {},
        "images": [{"id": case.image_id} for case in cases],
        "categories": [{"id": label} for label in range(len(LABELS))],
        "annotations": [
            one | {"id": number, "iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3]}
            for number, one in enumerate(true, 1)
        ],
    }
    results = [
        box | {"score": score}
        for case, one in zip(cases, found, strict=True)
        for box, score in zip(
            entries(case.image_id, one.boxes, one.labels), one.scores.tolist(), strict=True
        )
    ]
    return reference, results


def entries(image: int, boxes: Any, labels: Any) -> list[dict[str, Any]]:
    """The boxes of an image as COCO has them."""
    return [
        {"image_id": image, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True)
    ]


def pycocotools(reference: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    """Its 12 numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = reference
        true.createIndex()
        evaluation = COCOeval(true, true.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def some_masks(rng: np.random.Generator, radii: tuple[int, int], shape: Any) -> tuple[Mask, Mask]:
    """A structure in the middle of a slice, and a prediction whose edge is about a px off."""
    y, x = np.mgrid[:SLICE_PX, :SLICE_PX] - SLICE_PX / 2
    angle, radius = np.arctan2(y, x), np.hypot(y / radii[0], x / radii[1])
    edge = 1 + waves(angle, shape, rng.uniform(0, 2 * np.pi, 4))
    error = rng.normal(0, 0.5) + waves(angle, rng.normal(0, 0.5, 8), rng.uniform(0, 2 * np.pi, 8))
    return radius <= edge, radius <= edge + error / np.sqrt(radii[0] * radii[1])


def waves(angle: Any, heights: Any, phases: Any) -> Any:
    """A sum of one, two, three ... waves around the centre."""
    return sum(
        height * np.cos(number * angle + phase)
        for number, (height, phase) in enumerate(zip(heights, phases, strict=True), 1)
    )


def published_distances(truth: Mask, predicted: Mask) -> Any:
    """Of each surface pixel of either mask to the other surface, in pixels."""
    across_edges = ndimage.generate_binary_structure(2, 1)
    surfaces = [mask ^ ndimage.binary_erosion(mask, across_edges) for mask in (truth, predicted)]
    to_surface = [ndimage.distance_transform_edt(~surface) for surface in surfaces]
    return np.concatenate([to_surface[1][surfaces[0]], to_surface[0][surfaces[1]]])


if __name__ == "__main__":
    main()
