"""Graded discs in COCO's format, made into healthy and sick ones.

A disc is sick if its Pfirrmann grade is 4 or 5, or if it is narrowed, bulging or herniated; any
other is healthy. The annotations hold `grades`: name -> number, as SPIDER's radiological gradings
[1]_ do.

References
----------
.. [1] van der Graaf et al., Lumbar spine segmentation in MR images: a dataset and a public
   benchmark, Scientific Data 11, 2024, doi:10.1038/s41597-024-03090-w.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spine_tasks.errors import DataError
from spine_tasks.markup.listed import read_markup_json
from spine_tasks.markup.marks import MarkedImage, Markup, Note, check_once, picture_name, to_boxes

CLASSES = ("healthy", "sick")
PFIRRMANN = "pfirrman"  # so that both spellings of the name are found
FINDINGS = ("narrowing", "bulging", "herniation")  # 0 absent, 1 present
DEGENERATED = 4  # Pfirrmann grade from which a disc is sick


def is_sick(where: str, grades: Mapping[str, Any]) -> bool | None:
    """Whether a disc with these grades is sick; None if one of the four is missing or null.

    Raises
    ------
    DataError
        A grade is not one of its scale, or two of them have one name.

    Examples
    --------
    >>> grades = {"Pfirrman grade": 3, "Disc narrowing": 0, "Disc bulging": 0}
    >>> is_sick("", grades) is None
    True
    >>> is_sick("", grades | {"Disc herniation": 0})
    False
    >>> is_sick("", grades | {"Disc herniation": 1})
    True
    """
    pfirrmann = _grade(where, grades, PFIRRMANN, (1, 2, 3, 4, 5))
    findings = [_grade(where, grades, finding, (0, 1)) for finding in FINDINGS]
    if pfirrmann is None or None in findings:
        return None
    return pfirrmann >= DEGENERATED or any(findings)


def read_graded(path: Path, images: Path, strip: str = "") -> Markup:
    """Read a COCO file with grades.

    Pictures with a box whose grades are missing are left out and noted: an unlabelled disc would
    count as background. Crowd annotations are left out and noted.

    Raises
    ------
    DataError
        The file is not COCO, or names an image that is not there; a grade or a box is wrong.
    """
    coco = read_markup_json(path)
    try:
        entries = {entry["id"]: entry for entry in coco["images"]}
        marks: dict[Any, list[Any]] = {image_id: [] for image_id in entries}
        for mark in coco["annotations"]:
            marks[mark["image_id"]].append(mark)
        names = {
            i: picture_name(str(path), entry["file_name"], images, strip)
            for i, entry in entries.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a COCO file, or an annotation's image_id is none of its images "
            f"({error!r}); it needs `images` and `annotations`"
        ) from error
    if len(entries) < len(coco["images"]):
        raise DataError(f"{path}: two images have one id; give each its own")
    found, ungraded, crowds = [], [], []
    for image_id, name in names.items():
        where = f"{path} ({name})"
        single = [mark for mark in marks[image_id] if not mark.get("iscrowd")]
        crowds += [name] * (len(marks[image_id]) - len(single))
        sick = [is_sick(where, mark.get("grades") or {}) for mark in single]
        if None in sick:
            ungraded.append(name)
        else:
            found.append(_image(where, name, entries[image_id], single, sick))
    check_once(str(path), found)
    noted = (("images without grades of every box left out", ungraded), ("crowds left out", crowds))
    return Markup(
        images=tuple(found),
        classes=CLASSES,
        notes=tuple(Note(what, tuple(names)) for what, names in noted if names),
    )


def _grade(where: str, grades: Mapping[str, Any], name: str, scale: tuple[int, ...]) -> int | None:
    keys = [key for key in grades if name in key.lower()]
    if len(keys) > 1:
        raise DataError(f"{where}: {keys} could all be the {name} grade; keep one")
    value = grades[keys[0]] if keys else None
    if value is not None and value not in scale:
        raise DataError(f"{where}: {keys[0]} must be one of {list(scale)}, got {value!r}")
    return None if value is None else int(value)


def _image(
    where: str, name: str, entry: dict[str, Any], marks: list[Any], sick: list[bool | None]
) -> MarkedImage:
    stated = (entry.get("width"), entry.get("height"))
    whole = all(isinstance(number, int) for number in stated)
    return MarkedImage(
        name=name,
        boxes=to_boxes(where, [_corners(where, mark.get("bbox")) for mark in marks]),
        classes=tuple(CLASSES[bool(one)] for one in sick),
        size=(int(stated[0] or 0), int(stated[1] or 0)) if whole else None,
        keys={key: str(value) for key, value in entry.items()},
    )


def _corners(where: str, xywh: Any) -> list[float]:
    try:
        x, y, width, height = xywh
        return [x, y, x + width, y + height]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a bbox is x, y, width, height in px, got {xywh}") from error
