"""Markup as PASCAL VOC: a folder with one XML file a picture.

Coordinates are taken as they are written: edges in px. Those of the first PASCAL VOC challenges
count from 1 and name the last pixel inside, so their boxes are up to one px off.
"""

from pathlib import Path

from spine_tasks.errors import DataError
from spine_tasks.markup.marks import MarkedImage, Markup, Note, check_once, picture_name
from spine_tasks.markup.naming import Naming
from spine_tasks.markup.xml_marks import XmlMarks, read_xml


def read_voc(path: Path, images: Path, naming: Naming, strip: str = "") -> Markup:
    """Read the XML files of a folder, or a single one.

    Raises
    ------
    DataError
        There is none, one is wrong, or a picture is missing or has two files.
    """
    files = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
    found, deleted = [], []
    for file in files:
        marks = read_xml(str(file), _content(file))
        if marks.name is None:
            raise DataError(f"{file}: no <filename>; write the name of its picture there")
        image = to_image(
            str(file), marks, picture_name(str(file), marks.name, images, strip), naming
        )
        found.append(image)
        deleted += [image.name] * marks.deleted
    check_once(str(path), found)
    return Markup(
        images=tuple(found),
        classes=naming.names({name for image in found for name in image.classes}),
        notes=(Note("boxes marked as deleted", tuple(deleted)),) if deleted else (),
    )


def to_image(
    where: str, marks: XmlMarks, name: str, naming: Naming, keys: dict[str, str] | None = None
) -> MarkedImage:
    """The picture of that name with the boxes that have a class."""
    classes = [naming.class_of(f"{where} ({name})", label) for label in marks.labels]
    kept = [i for i, one in enumerate(classes) if one is not None]
    return MarkedImage(
        name=name,
        boxes=marks.boxes[kept],
        classes=tuple(one for one in classes if one is not None),
        size=marks.size,
        keys=keys or {},
    )


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
