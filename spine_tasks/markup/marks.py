"""What every reader of markup returns, and the checks that all of them share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spine_tasks.errors import DataError

NAMED = 8  # how many of the images that a note is about are named on the screen

Boxes = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class MarkedImage:
    """One picture with the boxes that somebody drew in it."""

    name: str  # of the picture below the image folder, with / between folders
    boxes: Boxes  # (N, 4) xyxy px of the picture; x1 <= x2, y1 <= y2, finite
    classes: tuple[str, ...]  # of each box
    size: tuple[int, int] | None = None  # width and height in px, where the markup states them
    keys: Mapping[str, str] = field(default_factory=dict)  # what else is known: column -> value
    patient: str | None = None  # None: nobody said who it is


@dataclass(frozen=True)
class Note:
    """Something that a person should know about some images."""

    what: str
    names: tuple[str, ...]  # of the images; one may occur more than once

    def __str__(self) -> str:
        """The note with the first names only."""
        return self.text(NAMED)

    def text(self, most: int | None = None) -> str:
        """The note with its number and at most so many names.

        Examples
        --------
        >>> Note("boxes cut at the border", ("a.png", "a.png", "b.png")).text(1)
        '3 boxes cut at the border: a.png (2) and 1 more'
        """
        times = {name: self.names.count(name) for name in dict.fromkeys(self.names)}
        shown = [name if n == 1 else f"{name} ({n})" for name, n in times.items()]
        rest = "" if most is None or len(shown) <= most else f" and {len(shown) - most} more"
        return f"{len(self.names)} {self.what}: {', '.join(shown[:most])}{rest}"


@dataclass(frozen=True, kw_only=True)
class Markup:
    """All that a reader found."""

    images: tuple[MarkedImage, ...]
    classes: tuple[str, ...]  # in the order of their category ids
    notes: tuple[Note, ...] = ()


def picture_name(where: str, text: str, images: Path, strip: str = "") -> str:
    """The name of a picture below the image folder.

    Parameters
    ----------
    where
        What the messages begin with.
    text
        The name as the markup writes it, with a slash or backslash between folders; it may be
        absolute if it lies in the image folder.
    strip
        What to take from the beginning of the name, such as another machine's image folder.

    Raises
    ------
    DataError
        The name is empty or leaves the image folder, or there is no such file.

    Examples
    --------
    >>> picture_name("marks.json", "../../etc/passwd", Path("images"))
    Traceback (most recent call last):
    ...
    spine_tasks.errors.DataError: marks.json: '../../etc/passwd' is not below images; ...
    """
    written = text.strip().removeprefix(strip)
    if strip and written != text.strip():
        written = written.lstrip("/\\")
    path = PurePosixPath(written.replace("\\", "/"))
    if path.is_relative_to(images.absolute().as_posix()):
        path = path.relative_to(images.absolute().as_posix())
    outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(written).drive
    if outside or not path.parts or "\0" in written:
        raise DataError(
            f"{where}: {text!r} is not below {images}; give the folder that holds the pictures by "
            "--images, and by --strip what stands before their names in it"
        )
    if not (images / path).is_file():
        raise DataError(
            f"{where}: there is no picture {path} in {images}; give the folder that holds it by "
            "--images, or remove its entry"
        )
    return path.as_posix()


def to_boxes(where: str, rows: Sequence[Sequence[Any]]) -> Boxes:
    """Boxes (N, 4) xyxy px, checked.

    Raises
    ------
    DataError
        A box has not four finite numbers, or its second corner lies before its first.
    """
    for row in rows:
        numbers = isinstance(row, list | tuple) and all(
            isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in row
        )
        if not numbers or len(row) != 4:
            raise DataError(f"{where}: a box is four finite numbers x1, y1, x2, y2 px, got {row}")
        x1, y1, x2, y2 = row
        if x2 < x1 or y2 < y1:
            raise DataError(
                f"{where}: box {list(row)} ends before it begins; corners x1, y1, x2, y2 px are "
                "needed, not x, y, width, height: correct it there"
            )
    return np.array(rows, np.float64).reshape(-1, 4)


def check_once(where: str, images: Sequence[MarkedImage]) -> None:
    """Raise DataError if a picture has two entries, or if there is none at all."""
    names = [image.name for image in images]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{where}: {len(twice)} pictures have more than one entry: {', '.join(twice[:NAMED])}; "
            "which of them is right cannot be known: keep one each"
        )
    if not names:
        raise DataError(f"{where}: no picture with markup in it; give another --input")
