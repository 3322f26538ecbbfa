"""A COCO folder from markup, written beside its place and renamed in one step."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from spine_tasks.errors import DataError, RunError
from spine_tasks.files import check_room
from spine_tasks.markup.marks import Markup

Placing = Literal["copy", "link", "keep"]
FOLDER = "images"


def write_folder(
    output: Path,
    markup: Markup,
    sizes: Mapping[str, tuple[int, int]],
    images: Path,
    placing: Placing,
    more: Callable[[Path], None],
) -> None:
    """Write `instances.json` and, unless they stay where they are, the pictures.

    Parameters
    ----------
    output
        A new folder; it is there whole or not at all.
    sizes
        Name of a picture -> its width and height in px.
    placing
        `copy`: the pictures are copied to `images/`; `link`: symbolic links to them are there;
        `keep`: `images` itself is a symbolic link to their folder.
    more
        Writes what else belongs in the folder.

    Raises
    ------
    DataError
        The output exists.
    RunError
        The disk is full, or the folder cannot be written to.
    """
    refuse_existing(output)
    if placing == "copy":
        room = sum((images / image.name).stat().st_size for image in markup.images)
        check_room(output.parent, room, f"a copy of {len(markup.images)} pictures")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=output.parent) as partial:
            # One level down, since the temporary folder itself is closed to other users.
            made = Path(partial) / output.name
            made.mkdir()
            file_names = _file_names(markup)
            _place(file_names, images, made, placing)
            (made / "instances.json").write_text(_coco(markup, sizes, file_names), encoding="utf-8")
            more(made)
            refuse_existing(output)  # made by another process meanwhile
            made.rename(output)
    except OSError as error:
        raise RunError(
            f"{output}: cannot be made: {error.strerror or error}; free space or quota, or choose "
            "another folder, then run the same command again"
        ) from error


def refuse_existing(output: Path) -> None:
    """Raise DataError if the output is there: a data set that runs refer to is never changed."""
    if output.exists() or output.is_symlink():
        raise DataError(f"{output}: exists already and is never overwritten; choose a new name")


def _place(file_names: Mapping[str, str], images: Path, made: Path, placing: Placing) -> None:
    if placing == "keep":
        inside = all(name == file_name for name, file_name in file_names.items())
        (made / FOLDER).symlink_to((images / FOLDER if inside else images).absolute())
        return
    for name, file_name in file_names.items():
        target = made / file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        if placing == "copy":
            shutil.copyfile(images / name, target)
        else:
            target.symlink_to((images / name).absolute())


def _file_names(markup: Markup) -> dict[str, str]:
    """Name of each picture in the image folder -> its name in the output."""
    names = [image.name for image in markup.images]
    below = "" if all(name.startswith(f"{FOLDER}/") for name in names) else f"{FOLDER}/"
    return {name: below + name for name in names}


def _coco(
    markup: Markup, sizes: Mapping[str, tuple[int, int]], file_names: Mapping[str, str]
) -> str:
    """COCO's form of the markup: ids count from 1, boxes are x, y, width, height in px."""
    category_of = {name: number for number, name in enumerate(markup.classes, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(markup.images, start=1):
        width, height = sizes[image.name]
        who = {} if image.patient is None else {"patient": image.patient}
        place = {"id": image_id, "file_name": file_names[image.name]}
        images.append(place | {"width": width, "height": height} | who)
        for box, name in zip(image.boxes.tolist(), image.classes, strict=True):
            # Whole numbers are written as such: most markup has no others.
            x1, y1, x2, y2 = (int(x) if x.is_integer() else x for x in box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_of[name],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for name, number in category_of.items()]
    parts = {"categories": categories, "images": images, "annotations": annotations}
    info = {"description": "made by jobs/prepare.py markup; see report.txt"}
    return "".join(
        [f'{{"info": {json.dumps(info)}', *(_lines(*part) for part in parts.items()), "}\n"]
    )


def _lines(key: str, records: Sequence[Mapping[str, Any]]) -> str:
    """A list of records as JSON, a line each."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return f',\n"{key}": [\n{lines}]'
