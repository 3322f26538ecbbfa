"""Images with boxes in COCO folders.

Annotations are JSON files in COCO's format, `annotations/*.json` or `*.json` in the folder itself;
an image's `file_name` is looked for in the folder, in `images/`, and in the folder named as its
annotation file (`train/` for `annotations/train.json`, also `instances_train.json`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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
    """Read a COCO folder."""
    raise NotImplementedError
