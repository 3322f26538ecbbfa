"""Annotation files in COCO's format, each read and checked on its own."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from spine_tasks.data.bids import how_to_fetch as how_to_fetch
from spine_tasks.errors import DataError
from spine_tasks.splits import NAMELESS

FAR_PX = 1e9  # no picture is so large: not finite, or a slip
NAMED = 3  # of many, so many are named in a message

Raw = dict[str, Any]


def read_annotations(file: Path) -> Raw:
    """One annotation file: lists of dicts `images`, `annotations` and `categories`.

    Images have an id, a file name below their folder, a width and a height; categories an id and a
    name; annotations the ids of both and a `bbox` of four finite numbers.

    Raises
    ------
    DataError
        The file is not so.
    """
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        how = how_to_fetch(file) if os.path.lexists(file) else None
        raise DataError(
            f"{file}: not JSON; {how or f'correct or export it again ({error})'}"
        ) from (error)
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(_is_list_of_dicts(content, key) for key in lists):
        raise DataError(
            f"{file}: not COCO, which has lists of {', '.join(lists)}; export it as COCO, or move "
            "it out of this folder"
        )
    for key in ("images", "categories"):
        numbers = [
            _whole(f"{file}: the id of one of its {key}", one.get("id")) for one in content[key]
        ]
        no_twins(f"{file}: ids of {key}", numbers)
    names = [
        text_of(f"{file}: a category's name", one.get("name")) for one in content["categories"]
    ]
    no_twins(f"{file}: categories", names)
    known = {one["id"] for one in content["images"]}, {one["id"] for one in content["categories"]}
    for values in content["images"]:
        _check_image(file, values)
    for mark in content["annotations"]:
        _check_mark(file, mark, *known)
    return content


def _is_list_of_dicts(content: Raw, key: str) -> bool:
    found = content.get(key)
    return isinstance(found, list) and all(isinstance(one, dict) for one in found)


def _is_finite(edge: Any) -> bool:
    return type(edge) in (int, float) and abs(edge) < FAR_PX


def _whole(what: str, value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"{what} must be a whole number from {least}, got {value!r}")
    return value


def _check_image(file: Path, values: Raw) -> None:
    name = values.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{file}: image {values['id']} has no file_name, got {name!r}")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DataError(f"{file}: file_name {name} leads out of its folder; write it from there")
    for edge in ("width", "height"):
        _whole(f"{file}: {edge} of {name}", values.get(edge), least=1)


def _check_mark(file: Path, mark: Raw, images: set[int], categories: set[int]) -> None:
    where = f"{file}: annotation {mark.get('id', 'without id')}"
    for key, known in (("image_id", images), ("category_id", categories)):
        if not isinstance(mark.get(key), int) or mark[key] not in known:
            raise DataError(
                f"{where} has {key} {mark.get(key)!r}, which is none of the file's {len(known)}; "
                "remove the annotation, or put back what it refers to"
            )
    box = mark.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        raise DataError(f"{where}: bbox must be [x, y, width, height] in px, finite, got {box!r}")


def common_categories(contents: dict[Path, Raw]) -> dict[int, str]:
    """Id -> name, ascending: the same in every file, or a `DataError`."""
    of_file = {
        file: {one["id"]: str(one["name"]).strip() for one in content["categories"]}
        for file, content in contents.items()
    }
    (first, expected), *others = of_file.items()
    for file, found in others:
        if found != expected:
            differing = sorted(set(found.items()) ^ set(expected.items()))
            raise DataError(
                f"{file}: other categories than {first.name}; they differ in {differing}; files "
                "of one folder need the same ids and names"
            )
    if not expected:
        raise DataError(f"{first}: no categories in it; export it again with them")
    return dict(sorted(expected.items()))


def text_of(where: str, value: Any) -> str:
    """A name or number of an annotation file as text, as tables and splits write it.

    Raises
    ------
    DataError
        It is missing, empty or of another kind: 7.0 and 7 would be two patients.
    """
    text = str(value).strip()
    if not isinstance(value, str | int) or isinstance(value, bool) or text.lower() in NAMELESS:
        raise DataError(f"{where} is {value!r}; write it as text or as a whole number")
    return text


def no_twins(what: str, things: Iterable[Any]) -> None:
    """Refuse that one of some things is there more than once."""
    if twins := [thing for thing, number in Counter(things).items() if number > 1]:
        raise DataError(f"{what}: {len(twins)} more than once: {named(twins)}; keep one of each")


def named(things: Iterable[Any]) -> str:
    """The first few of some things."""
    all_things = list(map(str, things))
    return ", ".join(all_things[:NAMED]) + (", ..." if len(all_things) > NAMED else "")
