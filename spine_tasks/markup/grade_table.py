"""What `jobs/prepare.py grades` does: a table of grades from COCO boxes that hold grades."""

import argparse
import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spine_tasks.configs import suggestion
from spine_tasks.data.grade_tables import COLUMNS, TABLE
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.files import write_text
from spine_tasks.markup.listed import read_markup_json
from spine_tasks.markup.marks import picture_name


def write_grades(chosen: argparse.Namespace) -> str:
    """Write the table; return the report."""
    if chosen.output.exists():
        raise ConfigError(f"{chosen.output} is there already; choose another --output")
    conditions, wanted = _pairs(chosen.condition), _pairs(chosen.where)
    images = chosen.images or chosen.input.parent
    coco = read_markup_json(chosen.input)
    try:
        kept = {entry["id"]: entry for entry in coco["images"] if _fits(entry, wanted)}
        marks = [mark for mark in coco["annotations"] if mark["image_id"] in kept]
    except (KeyError, TypeError) as error:
        raise DataError(f"{chosen.input}: not a COCO file ({error!r})") from error
    if not marks:
        raise DataError(f"{chosen.input}: no box of an image with {' '.join(chosen.where)}")
    rows = [
        row
        for mark in marks
        for row in _rows(chosen, kept[mark["image_id"]], mark, images, conditions)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "width", "height"])
    writer.writerows(rows)
    write_text(chosen.output / TABLE, text.getvalue())
    missing = sum(row[COLUMNS.index("grade")] == "" for row in rows)
    return (
        f"{chosen.output / TABLE}: {len(marks)} places in {len(kept)} of {len(coco['images'])} "
        f"images, {missing} of {len(rows)} grades not known"
    )


def _rows(
    chosen: argparse.Namespace,
    image: Mapping[str, Any],
    mark: Mapping[str, Any],
    images: Path,
    conditions: Mapping[str, str],
) -> list[list[Any]]:
    """The rows of one place."""
    where = f"{chosen.input}: annotation {mark.get('id', 'without id')}"
    for key, of in ((chosen.patient, image), (chosen.level, mark)):
        if key not in of:
            raise DataError(f"{where}: no {key!r}{suggestion(key, of)}")
    file = images / picture_name(where, str(image["file_name"]), images)
    try:
        x, y, width, height = mark["bbox"]
        middle = [x + width / 2, y + height / 2, width, height]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: a bbox is x, y, width, height in px ({error!r})") from error
    known = mark.get("grades") or {}
    for name, key in conditions.items():
        if known and key not in known:
            raise DataError(f"{where}: {name}: no grade {key!r}{suggestion(key, known)}")
    place = [os.path.relpath(file, chosen.output), image[chosen.patient], mark[chosen.level]]
    given = {name: known.get(key) for name, key in conditions.items()}
    return [
        [*place, name, "" if grade is None else grade, *middle] for name, grade in given.items()
    ]


def _fits(image: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Whether an image has all values, which may be written as in JSON."""
    spelt = {True: "true", False: "false", None: "null"}
    found = {key: image.get(key) for key in wanted}
    values = {
        key: spelt[value] if isinstance(value, bool) or value is None else str(value)
        for key, value in found.items()
    }
    return values == dict(wanted)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    if wrong := [name for name, value in pairs.items() if not (name and value)]:
        raise ConfigError(f"{wrong[0]!r}: write NAME=KEY")
    return pairs
