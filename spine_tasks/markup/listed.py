"""Markup as a JSON list of pictures with their boxes, as the disc study published its own.

`[{"img_path": "a.jpg", "annotation": [{"label": 1, "bbox": [x1, y1, x2, y2]}]}]`; further keys of a
picture may say who the patient is.
"""

import json
from pathlib import Path
from typing import Any

from spine_tasks.errors import DataError
from spine_tasks.markup.marks import MarkedImage, Markup, check_once, picture_name, to_boxes
from spine_tasks.markup.naming import Naming

PUBLISHED = Naming(classes={"1": "healthy", "2": "sick"})  # 0 is the background of its detector
ENTRY = '{"img_path": text, "annotation": [{"label": ..., "bbox": [x1, y1, x2, y2]}]}'


def read_listed(path: Path, images: Path, naming: Naming, strip: str = "") -> Markup:
    """Read a JSON list of pictures.

    Raises
    ------
    DataError
        The file is not such a list or is empty; a picture is not in the folder or has two entries;
        a box or a label is wrong.
    """
    entries = read_markup_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path}: needs a list of {ENTRY}, got a {type(entries).__name__}")
    found = [_image(f"{path}, entry {i}", e, images, naming, strip) for i, e in enumerate(entries)]
    check_once(str(path), found)
    return Markup(
        images=tuple(found),
        classes=naming.names({name for image in found for name in image.classes}),
    )


def read_markup_json(path: Path) -> Any:
    """The value in a JSON file that somebody else's tool wrote.

    Raises
    ------
    DataError
        The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file in UTF-8 ({error}); give another") from error


def _image(where: str, entry: Any, images: Path, naming: Naming, strip: str) -> MarkedImage:
    try:
        name, marks = entry["img_path"], entry["annotation"]
        labels, boxes = [mark["label"] for mark in marks], [mark["bbox"] for mark in marks]
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: needs {ENTRY}, got {str(entry)[:200]}") from error
    name = picture_name(where, str(name), images, strip)
    where = f"{where} ({name})"
    classes = [naming.class_of(where, str(label)) for label in labels]
    kept = [i for i, one in enumerate(classes) if one is not None]
    return MarkedImage(
        name=name,
        boxes=to_boxes(where, boxes)[kept],
        classes=tuple(one for one in classes if one is not None),
        keys={key: str(value) for key, value in entry.items() if key != "annotation"},
    )
