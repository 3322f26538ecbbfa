"""Images with boxes in COCO folders.

Annotations are JSON files in COCO's format, `annotations/*.json` or `*.json` in the folder itself;
an image's `file_name` is looked for in the folder, in `images/`, and in the folder named as its
annotation file (`train/` for `annotations/train.json`, also `instances_train.json`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.coco_files import Listed, annotation_files, read_listed
from spine_tasks.errors import DataError

log = logging.getLogger(__name__)

# What a box's rounding may leave at the border of its image; networks compute in 32 bits, in which
# it would have no area.
THIN_PX = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxCase:
    """One image with its reference boxes."""

    id: str  # file name of the image without its ending; unique in the data
    image_id: int  # of the annotation file; numbered anew where files of a folder share ids
    subject: str  # the image's `patient` or `subject`, or else its id
    image: Path
    width: int  # px
    height: int  # px
    boxes: NDArray[np.float64]  # (N, 4) xyxy px, inside the image and with an area
    labels: NDArray[np.int64]  # (N,) 0-based, in the order of `CocoData.categories`


@dataclass(frozen=True, kw_only=True)
class CocoData:
    """A COCO folder that was read and checked."""

    folder: Path
    categories: tuple[str, ...]  # names, in the order of their ids
    category_ids: tuple[int, ...]
    cases: tuple[BoxCase, ...]  # by id
    annotations: tuple[Path, ...]  # the files read
    dropped: tuple[str, ...]  # what was left out and why, a line each

    def of_subjects(self, subjects: Sequence[str]) -> list[BoxCase]:
        """The images of some subjects, by id."""
        wanted = set(subjects)
        return [case for case in self.cases if case.subject in wanted]


def read_coco(folder: Path, categories: Sequence[str] | None = None) -> CocoData:
    """Read and check a COCO folder: annotations, and headers of pictures, but no pixels.

    Parameters
    ----------
    folder
        With `annotations/*.json`, all of which are one data set, or with `*.json` in itself.
        Parts, such as `train/` and `val/`, play no role here: a split says what is in which part.
    categories
        Names of those to keep, in any order; boxes of others are left out. None keeps all.

    Returns
    -------
    CocoData
        An image without a box is a case with none. Boxes are cut at the border of their image;
        those marked `iscrowd` or without an area inside the image are left out, each named in
        `dropped`, and their number logged. Reading an unchanged folder again costs nothing.

    Raises
    ------
    DataError
        A file is not COCO; an annotation names an image or category that is not there, or has no
        box of finite numbers; files disagree about categories; an id or image occurs twice; an
        image is missing, a pointer, or of another size than stated; some images have a `patient`
        and others have none; a name in `categories` is unknown.
    """
    # Each cell and part asks for the data anew: a grid would read it hundreds of times.
    states = [(file, file.stat()) for file in annotation_files(folder)]
    state = tuple((file, status.st_mtime_ns, status.st_size) for file, status in states)
    return _read(folder, state, None if categories is None else tuple(categories))


@lru_cache(maxsize=4)
def _read(
    folder: Path, state: tuple[tuple[Path, int, int], ...], categories: tuple[str, ...] | None
) -> CocoData:
    files = tuple(file for file, _, _ in state)
    listed, names = read_listed(folder, files)
    chosen = _chosen(folder, names, categories)
    label_of = {category: label for label, category in enumerate(chosen)}
    dropped: list[str] = []
    cases = [to_case(one, label_of, dropped) for one in listed]
    if dropped:
        log.warning("%s: %d boxes left out, first %s", folder, len(dropped), dropped[0])
    return CocoData(
        folder=folder,
        categories=tuple(chosen.values()),
        category_ids=tuple(chosen),
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        annotations=files,
        dropped=tuple(dropped),
    )


def _chosen(
    folder: Path, names: dict[int, str], categories: tuple[str, ...] | None
) -> dict[int, str]:
    """Id -> name of the categories asked for, in the order of the ids."""
    if categories is None:
        return names
    for name in categories:
        if name not in names.values():
            near = get_close_matches(name, names.values(), n=1)
            nearest = f" (nearest: {near[0]})" if near else ""
            raise DataError(
                f"{folder}: no category {name!r}{nearest}; it has {', '.join(names.values())}"
            )
    return {category: name for category, name in names.items() if name in categories}


def to_case(listed: Listed, label_of: dict[int, int], dropped: list[str]) -> BoxCase:
    """One image with its boxes; what is left out is added to `dropped`."""
    width, height = listed.values["width"], listed.values["height"]
    boxes, labels = [], []
    for mark in listed.marks:
        if mark["category_id"] not in label_of:
            continue
        box = _inside(mark["bbox"], width, height)
        thin = min(box[2] - box[0], box[3] - box[1]) < THIN_PX
        if thin or mark.get("iscrowd"):
            why = f"no area inside the image, bbox {mark['bbox']}" if thin else "a crowd"
            where = f"{listed.annotations.name}: annotation {mark.get('id', 'without id')}"
            dropped.append(f"{where} of {listed.id}: {why}")
        else:
            boxes.append(box)
            labels.append(label_of[mark["category_id"]])
    return BoxCase(
        id=listed.id,
        image_id=listed.image_id,
        subject=listed.subject,
        image=listed.image,
        width=width,
        height=height,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
    )


def _inside(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """The part, xyxy px, of a box xywh px that is inside its image; without area if there is none.

    Examples
    --------
    >>> _inside([-2, 3, 10, 4], 100, 100)
    (0, 3, 8, 7)
    """
    x, y, box_width, box_height = box
    return max(x, 0), max(y, 0), min(x + box_width, width), min(y + box_height, height)
