"""A made-up data set of sagittal T2-weighted necks in COCO layout, with exact boxes.

Two neighbouring slices a subject. Discs are healthy or sick, which at the border between the two
cannot be told for certain; about half of the images show a signal change of the cord. Everything
about a subject, the ids of its images and boxes included, follows from its id.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spine_tasks.data.phantom_sagittal_anatomy import sample_neck
from spine_tasks.data.phantom_sagittal_scan import Picture, acquire, sample_protocol
from spine_tasks.errors import DataError
from spine_tasks.files import replacing, write_json

log = logging.getLogger(__name__)

VERSION = "1"  # raise it with every change that moves a pixel: old and new files never mix
INFO = {
    "description": "Phantom: made-up sagittal T2-weighted necks",
    "contributor": "spine_tasks.data.phantom_sagittal",
    "version": VERSION,
}
# A gap, as published annotation files have them: an id is no index.
CATEGORIES = {"healthy": 1, "sick": 2, "signal_change": 5}
SLICES, SLICE_MM = 2, 3.3  # a subject, and from one to the next
ANNOTATIONS = "annotations/instances.json"
OURS = re.compile(r"/annotations/instances\.json$|/images/sub-s\d+_slice\d\.png$|/\.partial-[^/]*$")
IDS = 100  # image 1202 is slice 2 of subject 12, and 120201 its first box
LAST = 199_999  # number of a subject: ids of boxes stay below 2**31

Entry = dict[str, Any]  # an image or an annotation of a COCO file


def slices(subject_id: str) -> tuple[Picture, ...]:
    """One subject's slices with the masks of what is to be detected, the same at every call.

    Parameters
    ----------
    subject_id
        `sub-s` and a number of two digits or more, such as `sub-s01`.

    Returns
    -------
    tuple of Picture
        A slice near the middle and its neighbour to the left.

    Raises
    ------
    DataError
        There is no such subject.
    """
    number(subject_id)
    seed = int.from_bytes(hashlib.sha256(subject_id.encode()).digest()[:8])
    rng = np.random.default_rng(seed)
    neck = sample_neck(rng)
    protocol = sample_protocol(neck, rng)
    first_mm = rng.normal(-0.5, 0.5)
    return tuple(
        acquire(neck, protocol, first_mm + index * SLICE_MM, np.random.default_rng([seed, index]))
        for index in range(SLICES)
    )


def number(subject_id: str) -> int:
    """The number in a subject's id.

    Raises
    ------
    DataError
        The id is not `sub-s` and a number from 1, written with at least two digits.

    Examples
    --------
    >>> number("sub-s07")
    7
    """
    digits = subject_id.removeprefix("sub-s")
    found = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 9 else 0
    # Written in one way only, so that two ids never share a number.
    if 1 <= found <= LAST and subject_id == f"sub-s{found:02d}":
        return found
    raise DataError(
        f"the sagittal phantom has no subject {subject_id!r}; an id is sub-s followed by a number "
        f"from 01 to {LAST}, such as sub-s01; correct the split file"
    )


def box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest box around a mask that is not empty: x, y, width and height in px.

    Examples
    --------
    >>> box(np.array([[False, False, False], [False, True, True]]))
    (1, 1, 2, 1)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def ensure(folder: Path, subjects: Sequence[str]) -> Path:
    """Make the subjects' images and annotations unless they are there; return `folder`.

    Subjects that the folder has beside these stay as they are. Images that are missing or cut off,
    and annotations that cannot be read, are made again, with a warning. Each file is written in
    one step, the annotations last, so processes that name the same subjects may call this at once;
    of two that name different ones, one may leave the other's out, until they are asked for again.

    Parameters
    ----------
    folder
        Gets `annotations/instances.json` and `images/<subject>_slice<number>.png`, 8-bit grey.
        An image has its subject as `patient` and the size of its file as `bytes`.
    subjects
        Ids; their order, and naming one twice, plays no role.

    Raises
    ------
    DataError
        `folder` holds something else or files of another version of the phantom; no subject is
        named, or one does not exist.
    RunError
        The disk is full, or the folder cannot be written to.
    """
    if isinstance(subjects, str) or not subjects:
        raise DataError(f"subjects must be a list of at least one id, got {subjects!r}")
    wanted = {number(subject_id) for subject_id in subjects}
    images, annotations = _read(folder)
    known = {_subject(image) for image in images}
    spoilt = {_subject(image) for image in images if not _is_whole(folder, image)}
    if spoilt:
        log.warning("%s: images of %d subjects were spoilt, made again", folder, len(spoilt))
    if new := sorted(wanted - known | spoilt):
        images = [image for image in images if _subject(image) not in spoilt]
        annotations = [one for one in annotations if _subject(one) not in spoilt]
        for subject_number in new:
            _add(folder, subject_number, images, annotations)
        _write(folder, images, annotations)
    return folder


def _read(folder: Path) -> tuple[list[Entry], list[Entry]]:
    """The images and annotations that `folder` lists: none where it is still to be made."""
    remedy = "remove it to have it made again, or choose another folder"
    file = folder / ANNOTATIONS
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        files = [folder] if folder.is_file() else (one for one in folder.rglob("*"))
        if foreign := [one for one in files if one.is_file() and not OURS.search(str(one))]:
            raise DataError(
                f"{folder}: is not a phantom data set, it holds {foreign[0].name}; {remedy}"
            ) from error
        if file.exists():
            log.warning("%s: cannot be read (%s), made again", file, error)
        return [], []
    info = found.get("info") if isinstance(found, dict) else found
    if info != INFO:
        raise DataError(f"{file}: got {info}, but this is {INFO}; {remedy}")
    return found["images"], found["annotations"]


def _add(folder: Path, subject_number: int, images: list[Entry], annotations: list[Entry]) -> None:
    """Draw a subject, write its images and list them and their boxes."""
    subject_id = f"sub-s{subject_number:02d}"
    for slice_number, picture in enumerate(slices(subject_id), start=1):
        image_id = IDS * subject_number + slice_number
        name = f"{subject_id}_slice{slice_number}.png"
        file = folder / "images" / name
        with replacing(file) as partial:
            Image.fromarray(picture.pixels).save(partial)
        height, width = picture.pixels.shape
        images.append(
            {
                "id": image_id,
                "file_name": name,
                "width": width,
                "height": height,
                "patient": subject_id,
                "bytes": file.stat().st_size,
            }
        )
        for box_number, thing in enumerate(picture.things, start=1):
            x, y, box_width, box_height = box(thing.mask)
            annotations.append(
                {
                    "id": IDS * image_id + box_number,
                    "image_id": image_id,
                    "category_id": CATEGORIES[thing.category],
                    "bbox": [x, y, box_width, box_height],
                    "area": box_width * box_height,
                    "iscrowd": 0,
                }
            )


def _write(folder: Path, images: list[Entry], annotations: list[Entry]) -> None:
    coco = {
        "info": INFO,
        "licenses": [],
        "categories": [
            {"id": category_id, "name": name, "supercategory": "spine"}
            for name, category_id in CATEGORIES.items()
        ],
        "images": sorted(images, key=itemgetter("id")),
        "annotations": sorted(annotations, key=itemgetter("id")),
    }
    write_json(folder / ANNOTATIONS, coco)


def _subject(entry: Entry) -> int:
    """The number of the subject that an image or an annotation is of."""
    image_id: int = entry["image_id"] if "image_id" in entry else entry["id"]
    return image_id // IDS


def _is_whole(folder: Path, image: Entry) -> bool:
    file = folder / "images" / image["file_name"]
    return bool(file.is_file() and file.stat().st_size == image["bytes"])
