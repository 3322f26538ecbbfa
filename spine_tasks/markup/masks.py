"""Markup as label masks: every connected part of a value is a box.

A mask has the name of its picture and its size. Pixels that touch by an edge are one part, those
that touch by a corner are two. A box is the edges of its part, so its far corner is one px beyond
the last pixel inside.
"""

# mypy: untyped-calls-exclude="nibabel"

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from spine_tasks.data.pictures import picture_size
from spine_tasks.errors import DataError
from spine_tasks.markup.marks import NAMED, MarkedImage, Markup, Note, check_once, to_boxes
from spine_tasks.markup.naming import Naming
from spine_tasks.metrics.masks import Mask

NIFTI = (".nii", ".nii.gz")
MASKS = (".png", *NIFTI)
ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")  # modes of PNG files that hold whole numbers


def read_masks(path: Path, images: Path, naming: Naming, min_area: int = 20) -> Markup:
    """Read the masks of a folder.

    Parameters
    ----------
    path
        Folder of PNG files (grey values, or indices of a palette) or of NIfTI files with one
        slice, whose first axis runs along the picture's rows from left to right and whose second
        runs from the top down, as converters of pictures write it.
    images
        Folder of the pictures; a picture without a mask is left out and noted.
    min_area
        Smaller parts, in px, are left out and noted: they are specks of the drawing.

    Raises
    ------
    DataError
        There is no mask; one has no picture, two, or one of another size; it is not of whole
        numbers, or a value has no class.
    """
    files = sorted(file for file in path.rglob("*") if file.name.endswith(MASKS))
    pictures = _pictures(images, files)
    found, specks = [], []
    for file in files:
        stem = _stem(file.relative_to(path))
        names = pictures.pop(stem, [])
        if len(names) != 1:
            raise DataError(
                f"{file}: {len(names)} pictures in {images} have its name {stem!r} "
                f"{names}; one is needed; give the folder that holds it by --images"
            )
        image, small = _image(file, images / names[0], names[0], naming, min_area)
        found.append(image)
        specks += [image.name] * small
    check_once(str(path), found)
    unmarked = tuple(name for names in pictures.values() for name in names)
    noted = (
        (f"parts of less than {min_area} px left out", tuple(specks)),
        ("pictures without a mask left out", unmarked),
    )
    return Markup(
        images=tuple(found),
        classes=naming.names({name for image in found for name in image.classes}),
        notes=tuple(Note(what, names) for what, names in noted if names),
    )


def parts(mask: Mask) -> list[tuple[list[int], int]]:
    """Box xyxy px and area px of every connected part of a mask (Y, X), from the top.

    Examples
    --------
    >>> parts(np.array([[True, True, False, True], [False, False, True, False]]))
    [([0, 0, 2, 1], 2), ([3, 0, 4, 1], 1), ([2, 1, 3, 2], 1)]
    """
    numbered, count = ndimage.label(mask)
    areas = np.bincount(numbered.ravel(), minlength=count + 1)[1:].tolist()
    return [
        ([columns.start, rows.start, columns.stop, rows.stop], area)
        for (rows, columns), area in zip(ndimage.find_objects(numbered), areas, strict=True)
    ]


def _stem(file: Path) -> str:
    ending = ".nii.gz" if file.name.endswith(".nii.gz") else file.suffix
    return file.as_posix().removesuffix(ending)


def _pictures(images: Path, masks: Sequence[Path]) -> dict[str, list[str]]:
    """Stem below the folder -> names of its pictures."""
    found: dict[str, list[str]] = {}
    taken = set(masks)  # where masks and pictures share a folder
    for file in sorted(images.rglob("*")):
        if file.is_file() and file not in taken and not file.name.endswith((*NIFTI, ".json")):
            name = file.relative_to(images)
            found.setdefault(_stem(name), []).append(name.as_posix())
    return found


def _image(
    file: Path, picture: Path, name: str, naming: Naming, min_area: int
) -> tuple[MarkedImage, int]:
    mask = _nifti(file) if file.name.endswith(NIFTI) else _png(file)
    width, height = picture_size(picture)
    if mask.shape != (height, width):
        raise DataError(
            f"{file}: {mask.shape[1]} x {mask.shape[0]} px, but its picture {name} has "
            f"{width} x {height}; use the mask drawn on this picture"
        )
    values = np.unique(mask[mask != 0]).tolist()
    classes = {value: naming.class_of(str(file), str(value)) for value in values}
    found = [
        (name, box, area)
        for value, name in classes.items()
        if name is not None
        for box, area in parts(mask == value)
    ]
    large = [(name, box) for name, box, area in found if area >= min_area]
    image = MarkedImage(
        name=name,
        boxes=to_boxes(str(file), [box for _, box in large]),
        classes=tuple(name for name, _ in large),
        size=(width, height),
    )
    return image, len(found) - len(large)


def _png(file: Path) -> NDArray[Any]:
    try:
        with Image.open(file) as image:
            if image.mode not in ONE_CHANNEL:
                raise DataError(
                    f"{file}: a mask holds one whole number a pixel, got a {image.mode} picture; "
                    "save the labels as grey values"
                )
            return np.asarray(image).astype(np.int64)
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: cannot be read as PNG ({error}); fetch it again") from error


def _nifti(file: Path) -> NDArray[Any]:
    try:
        image: Any = nib.load(file)  # of which nibabel's types say too little
        array = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise DataError(f"{file}: cannot be read as NIfTI ({error}); fetch it again") from error
    if array.ndim < 2 or any(length != 1 for length in array.shape[2:]):
        raise DataError(f"{file}: needs a single slice (X, Y), got shape {array.shape}; cut it out")
    values = np.unique(array)
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        raise DataError(f"{file}: a mask holds whole numbers, got {values[:NAMED].tolist()}")
    return array.reshape(array.shape[:2]).T.astype(np.int64)
