"""The commands `markup` and `grades` of `jobs/prepare.py`: flags, and what is done with them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spine_tasks.markup.cleaning import Rules
    from spine_tasks.markup.marks import Markup

FORMATS = ("table", "json", "voc", "masks", "graded")
MARKUP_EXAMPLE = """example:
  python jobs/prepare.py markup --from masks --input my_data/masks --images my_data/images \\
      --classes names.yaml --patient '^([0-9]+)_' --output data/discs --histogram --draw 8
"""

GRADES_EXAMPLE = """example:
  python jobs/prepare.py grades --input SPIDER/instances.json --output data/grades \\
      --level ivd_label --where levels_reliable=true sequence=t2 \\
      --condition pfirrmann='Pfirrman grade' narrowing='Disc narrowing' bulging='Disc bulging'
"""


def add_markup(commands: Any) -> None:
    """Add the command to those of a parser."""
    make = commands.add_parser(
        "markup",
        help="make a COCO folder of boxes that were drawn in another tool",
        epilog=MARKUP_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    make.set_defaults(prepare=markup)
    add = make.add_argument
    add(
        "--from",
        dest="format",
        choices=FORMATS,
        required=True,
        help="table: CSV with LabelMe XML in a column, as the disc study; json: a list of "
        "pictures with boxes x1 y1 x2 y2; voc: a PASCAL VOC XML a picture; masks: label masks "
        "(PNG, NIfTI); graded: COCO with grades, made into healthy and sick",
    )
    add("--input", type=Path, required=True, help="the file, or the folder of files, to read")
    add("--images", type=Path, help="folder of the pictures (default: where the input is)")
    add("--output", type=Path, required=True, help="a new folder, never overwritten")
    add("--classes", type=Path, metavar="FILE", help="YAML: `classes: {label: name or null}`")
    add("--strip", default="", metavar="TEXT", help="taken from the start of pictures' names")
    add(
        "--place",
        choices=("copy", "link", "keep"),
        default="copy",
        help="pictures are copied, linked to one by one, or by one link to their folder "
        "(default: copy)",
    )
    who = make.add_mutually_exclusive_group()
    who.add_argument("--patient", metavar="REGEX", help="its group in the name is the patient")
    who.add_argument("--patient-key", metavar="KEY", help="column or key that holds the patient")
    add(
        "--merge-iou",
        type=float,
        help="of two boxes above it one stays (default: .65, masks: 1 = all)",
    )
    add("--inclusive", action="store_true", help="IoU counts the far edge's pixels, as the study")
    add("--prefer", nargs="+", metavar="CLASS", help="stay first (default: sick, if there is one)")
    add("--min-boxes", type=int, help="images with fewer are left out (default: 3)")
    add("--min-alike", type=int, help="images an image's number of boxes must have (default: 1)")
    add("--min-area", type=int, help="masks: smaller parts, in px, are left out (default: 20)")
    add("--histogram", action="store_true", help="also tables and a figure of the boxes' sizes")
    add("--draw", type=int, default=0, metavar="N", help="N pictures with boxes, to look at")


def markup(chosen: argparse.Namespace) -> str:
    """Read, clean and write markup; return the report."""
    from spine_tasks.data.pictures import picture_size
    from spine_tasks.markup.cleaning import check_preferred, check_sizes, clean
    from spine_tasks.markup.counts import counts_text, sizes_text, values_text
    from spine_tasks.markup.figures import draw, histogram
    from spine_tasks.markup.patients import same_pictures, with_patients
    from spine_tasks.markup.writing import refuse_existing, write_folder

    refuse_existing(chosen.output)
    images = chosen.images or (chosen.input if chosen.input.is_dir() else chosen.input.parent)
    found = _read(chosen, images)
    sizes = {image.name: picture_size(images / image.name) for image in found.images}
    check_sizes(found, sizes)
    rules = _rules(chosen, found)
    if chosen.prefer:
        check_preferred(found, rules)
    made = clean(with_patients(found, chosen.patient, chosen.patient_key), sizes, rules)
    notes = made.notes + same_pictures([image.name for image in made.images], images)
    body = [counts_text(made)]
    if chosen.histogram:
        body.append(sizes_text(made))
    body.append(values_text(images / image.name for image in made.images))

    def more(folder: Path) -> None:
        lines = [" ".join(sys.argv[1:]), *body, *(note.text() for note in notes)]
        (folder / "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if chosen.histogram:
            histogram(made, folder / "box_sizes.png")
        if chosen.draw:
            draw(made, images, folder / "drawn", chosen.draw)

    write_folder(chosen.output, made, sizes, images, chosen.place, more)
    return "\n".join([f"{chosen.output}:", *body, *map(str, notes)])


def _read(chosen: argparse.Namespace, images: Path) -> "Markup":
    from spine_tasks.errors import ConfigError
    from spine_tasks.markup import graded, listed, masks, table, voc
    from spine_tasks.markup.naming import Naming, load_naming

    if chosen.format != "masks" and chosen.min_area is not None:
        raise ConfigError("--min-area is for --from masks only")
    if chosen.format == "graded":
        if chosen.classes:
            raise ConfigError("--classes: --from graded makes healthy and sick; leave it away")
        return graded.read_graded(chosen.input, images, chosen.strip)
    if chosen.format == "masks":
        area = {} if chosen.min_area is None else {"min_area": chosen.min_area}
        naming = load_naming(chosen.classes, Naming())
        return masks.read_masks(chosen.input, images, naming, **area)
    read, default = {
        "table": (table.read_table_markup, table.PUBLISHED),
        "json": (listed.read_listed, listed.PUBLISHED),
        "voc": (voc.read_voc, Naming()),
    }[chosen.format]
    return read(chosen.input, images, load_naming(chosen.classes, default), chosen.strip)


def _rules(chosen: argparse.Namespace, found: "Markup") -> "Rules":
    """The rules asked for; what was not asked for is as in `Rules`."""
    from spine_tasks.markup.cleaning import Rules

    asked = {
        "merge_iou": chosen.merge_iou,
        "min_boxes": chosen.min_boxes,
        "min_alike": chosen.min_alike,
        "prefer": tuple(chosen.prefer) if chosen.prefer else None,
        "pixel": 1.0 if chosen.inclusive else None,
    }
    if chosen.format == "masks" and chosen.merge_iou is None:
        asked["merge_iou"] = 1.0  # parts of a mask are never one thing drawn twice
    rules: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    rules.setdefault("prefer", tuple(name for name in Rules.prefer if name in found.classes))
    return Rules(**rules)


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
    """Write a table of grades; return the report."""
    from spine_tasks.markup.grade_table import write_grades

    return write_grades(chosen)
