"""Markup as the disc study's: tables with a row a picture, whose boxes are XML in a column.

What the study's columns are called is in `PUBLISHED`: one names the picture, one holds LabelMe's
XML, and one says in which pictures discs can be seen; others are left out. Thoracic discs
(`grudnoj`) are left out, `shejnyj-mezhpozvonochnyj-disk-zdorovyj` is healthy, and every other
cervical disc is sick. Other tables say in the file of names what theirs are::

    columns: {image: picture, xml: boxes}
    keep: {state: done}     # or {} for all rows
    classes: {...}

References
----------
Code of the disc study: github.com/resolator/vertebra-detection.
"""

import csv
import sys
from pathlib import Path

from spine_tasks.configs import suggestion
from spine_tasks.errors import DataError
from spine_tasks.markup.marks import MarkedImage, Markup, Note, check_once, picture_name
from spine_tasks.markup.naming import Naming
from spine_tasks.markup.voc import to_image
from spine_tasks.markup.xml_marks import read_xml

PUBLISHED = Naming(
    columns={"image": "Файлы", "xml": "XML"},
    keep={"На срезе визуализируются межпозвоночные диски": "Визуализируются (можно размечать)"},  # noqa: RUF001
    classes={
        "*grudnoj*": None,
        "shejnyj-mezhpozvonochnyj-disk-zdorovyj": "healthy",
        "shejnyj-mezhpozvonochnyj-disk*": "sick",
    },
)
LINE_END = "/n"  # in the study's table, some names of pictures end so

Row = dict[str, str]


def read_table_markup(path: Path, images: Path, naming: Naming, strip: str = "") -> Markup:
    """Read a table, or all tables (`*.csv`) of a folder.

    Rows that `keep` does not name, and rows without XML, are left out and noted.

    Raises
    ------
    DataError
        A table is not CSV in UTF-8 or lacks a column; the XML of a row is broken; a picture is
        missing or has two rows; a label has no class.
    """
    files = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
    found: list[MarkedImage] = []
    unused: list[str] = []
    empty: list[str] = []
    deleted: list[str] = []
    for file in files:
        for number, row in enumerate(_rows(file, naming), start=1):
            where = f"{file}, row {number}"
            written = row[naming.columns["image"]].strip().removesuffix(LINE_END)
            xml = row[naming.columns["xml"]].strip()
            if any(row[column].strip() != value for column, value in naming.keep.items()):
                unused.append(written)
            elif not xml:
                empty.append(written)
            else:
                name = picture_name(where, written, images, strip)
                marks = read_xml(f"{where} ({name})", xml)
                found.append(to_image(where, marks, name, naming, row))
                deleted += [name] * marks.deleted
    check_once(str(path), found)
    noted = (
        ("rows left out, as their column says", unused),
        ("rows without XML left out", empty),
        ("boxes marked as deleted", deleted),
    )
    return Markup(
        images=tuple(found),
        classes=naming.names({name for image in found for name in image.classes}),
        notes=tuple(Note(what, tuple(names)) for what, names in noted if names),
    )


def _rows(file: Path, naming: Naming) -> list[Row]:
    csv.field_size_limit(sys.maxsize)  # the XML of a picture can be longer than the default
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restkey="", strict=True)
            rows, columns = list(reader), list(reader.fieldnames or [])
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: not in UTF-8 ({error.reason} at byte {error.start}); if a spreadsheet wrote "
            f"it in Cyrillic Windows text: iconv -f cp1251 -t utf-8 {file.name} > utf8.csv"
        ) from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{file}: not a table with commas ({error}); save it as CSV") from error
    for column in (*naming.columns.values(), *naming.keep):
        if column not in columns:
            raise DataError(
                f"{file}: no column {column!r}{suggestion(column, columns)}; say in the file "
                "given by --classes what its columns are called"
            )
    if ragged := [i for i, row in enumerate(rows, 1) if "" in row or None in row.values()]:
        raise DataError(f"{file}: row {ragged[0]} has not the {len(columns)} values of its columns")
    return rows
