"""The command `jobs/prepare.py grades`: a table of grades from COCO boxes that hold grades."""

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spine_tasks.data.grade_notes import near
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.markup.listed import read_markup_json
from spine_tasks.markup.marks import picture_name

GRADES_EXAMPLE = """example:
  python jobs/prepare.py grades --input SPIDER/instances.json --output data/grades \\
      --level ivd_label --where levels_reliable=true sequence=t2 \\
      --condition pfirrmann='Pfirrman grade' narrowing='Disc narrowing' bulging='Disc bulging'
"""


def add_grades(commands: Any) -> None:
    """Add the command to those of a parser."""
    make = commands.add_parser(
        "grades",
        help="make a folder with grades.csv of boxes whose annotations hold grades",
        epilog=GRADES_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    make.set_defaults(prepare=grades)
    add = make.add_argument
    add("--input", type=Path, required=True, help="COCO file; annotations hold `grades`")
    add("--images", type=Path, help="folder of the pictures (default: where the input is)")
    add("--output", type=Path, required=True, help="a new folder, never overwritten")
    add("--level", required=True, metavar="KEY", help="of an annotation: its level")
    add("--patient", default="patient", metavar="KEY", help="of an image (default: patient)")
    add(
        "--condition",
        nargs="+",
        required=True,
        metavar="NAME=KEY",
        help="name of a condition, and its key in `grades`",
    )
    add(
        "--where",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="only images of which all of these are so; true and false as in JSON",
    )


def grades(chosen: argparse.Namespace) -> str:
    """Write the table; return the report."""
    from spine_tasks.data.grade_tables import COLUMNS, TABLE

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
    chosen.output.mkdir(parents=True)
    missing = 0
    with (chosen.output / TABLE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*COLUMNS, "width", "height"])
        for mark in marks:
            rows = _rows(chosen, kept[mark["image_id"]], mark, images, conditions)
            missing += sum(row[COLUMNS.index("grade")] == "" for row in rows)
            writer.writerows(rows)
    return (
        f"{chosen.output / TABLE}: {len(marks)} places in {len(kept)} of {len(coco['images'])} "
        f"images, {missing} of {len(marks) * len(conditions)} grades not known"
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
            raise DataError(f"{where}: no {key!r}{near(key, of)}")
    file = images / picture_name(where, str(image["file_name"]), images)
    try:
        x, y, width, height = mark["bbox"]
        middle = [x + width / 2, y + height / 2, width, height]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: a bbox is x, y, width, height in px ({error!r})") from error
    known = mark.get("grades") or {}
    for name, key in conditions.items():
        if known and key not in known:
            raise DataError(f"{where}: {name}: no grade {key!r}{near(key, known)}")
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
