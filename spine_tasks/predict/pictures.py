"""Pictures to find boxes in, and the reference boxes of some of them."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from spine_tasks.command import listed
from spine_tasks.data.coco import BoxCase, to_case
from spine_tasks.data.coco_files import SUBJECT_KEYS, Listed, stem_of
from spine_tasks.data.coco_json import Raw, no_twins
from spine_tasks.data.pictures import is_dicom, picture_size
from spine_tasks.errors import DataError

# Of the formats that `spine_tasks.data.pictures` reads; DICOM is known by its content.
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
    *(".jp2", ".j2k", ".pgm", ".ppm", ".dcm", ".dicom"),
)


def find_pictures(place: Path) -> list[Path]:
    """A picture, or those of a folder itself, by name; what else lies there is named.

    Raises
    ------
    DataError
        There is none, or two have one stem.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"{place}: no such file or folder; correct the path, or fetch the data")
    entries = sorted(place.iterdir())
    pictures = [entry for entry in entries if _is_picture(entry)]
    if not pictures:
        raise DataError(
            f"{place}: no picture in it, {len(entries)} other files or folders; give a folder "
            "that holds PNG, JPEG, TIFF or DICOM files directly"
        )
    if others := [entry.name for entry in entries if entry not in pictures]:
        sys.stderr.write(f"left out, as no pictures by their names: {listed(others)}\n")
    no_twins(f"{place}: names of pictures without their ending", map(stem_of, pictures))
    return pictures


def _is_picture(entry: Path) -> bool:
    if entry.name.startswith(".") or entry.is_dir():
        return False
    # A broken link is named as a picture that failed, not left out.
    return entry.suffix.lower() in ENDINGS or (entry.is_file() and is_dicom(entry))


def plain_case(picture: Path, number: int) -> BoxCase:
    """The case of a picture without reference boxes.

    Raises
    ------
    DataError
        The picture's header cannot be read.
    """
    width, height = picture_size(picture)
    return BoxCase(
        id=stem_of(picture),
        image_id=number,
        subject=stem_of(picture),
        image=picture,
        width=width,
        height=height,
        boxes=np.empty((0, 4)),
        labels=np.empty(0, np.int64),
    )


def reference_cases(
    file: Path, content: Raw, pictures: Sequence[Path], categories: Sequence[str]
) -> dict[Path, BoxCase]:
    """The cases of those pictures that an annotation file lists, by their file names.

    Parameters
    ----------
    content
        Of `file`, as `read_annotations` returns it. Folders in its file names play no role.
    categories
        Names, in the order of the labels; boxes of others are left out, which is said.

    Raises
    ------
    DataError
        It lacks a category, lists a file name twice, or lists none of the pictures.
    """
    named = {PurePosixPath(values["file_name"]).name: values for values in content["images"]}
    if len(named) < len(content["images"]):
        names = [PurePosixPath(values["file_name"]).name for values in content["images"]]
        no_twins(f"{file}: file names of images", names)
    ids = {str(one["name"]).strip(): one["id"] for one in content["categories"]}
    if missing := [name for name in categories if name not in ids]:
        raise DataError(
            f"{file}: no category {missing[0]!r}, which the run finds; it has "
            f"{', '.join(ids) or 'none'}; give references of the same categories"
        )
    known = [picture for picture in pictures if picture.name in named]
    if not known:
        raise DataError(
            f"{file}: lists none of the {len(pictures)} pictures, such as {pictures[0].name}; "
            "give the annotations of these, or leave --reference out"
        )
    if others := [name for name in ids if name not in categories]:
        sys.stderr.write(f"{file}: boxes of {listed(others)} left out, the run finds none\n")
    if absent := [picture.name for picture in pictures if picture.name not in named]:
        sys.stderr.write(f"{file}: not scored, as it does not list them: {listed(absent)}\n")
    label_of = {ids[name]: label for label, name in enumerate(categories)}
    dropped: list[str] = []
    cases = {
        picture: _reference_case(file, content, named[picture.name], picture, label_of, dropped)
        for picture in known
    }
    if dropped:
        sys.stderr.write(f"{file}: {len(dropped)} boxes left out, first {dropped[0]}\n")
    numbers = {picture: number for number, picture in enumerate(pictures, start=1)}
    return {picture: replace(case, image_id=numbers[picture]) for picture, case in cases.items()}


def _reference_case(
    file: Path,
    content: Raw,
    values: Raw,
    picture: Path,
    label_of: dict[int, int],
    dropped: list[str],
) -> BoxCase:
    marks = tuple(mark for mark in content["annotations"] if mark["image_id"] == values["id"])
    subject = next((str(values[key]) for key in SUBJECT_KEYS if key in values), stem_of(picture))
    listed_image = Listed(
        id=stem_of(picture),
        image_id=values["id"],
        subject=subject,
        image=picture,
        annotations=file,
        values=values,
        marks=marks,
    )
    return to_case(listed_image, label_of, dropped)
