"""Boxes in XML: PASCAL VOC's objects with a `bndbox`, LabelMe's with a rectangular `polygon`."""

from dataclasses import dataclass
from xml.etree import ElementTree
from xml.parsers import expat

from spine_tasks.errors import DataError
from spine_tasks.markup.marks import Boxes, to_boxes

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SIZES = (("size/width", "size/height"), ("imagesize/ncols", "imagesize/nrows"))


@dataclass(frozen=True, eq=False)
class XmlMarks:
    """The objects of one picture."""

    name: str | None  # of the picture, as the XML writes it
    size: tuple[int, int] | None  # width and height in px
    labels: tuple[str, ...]
    boxes: Boxes  # (N, 4) xyxy px
    deleted: int  # objects that are marked as deleted, and left out


def read_xml(where: str, content: bytes | str) -> XmlMarks:
    """The objects in an XML document whose root is, or holds, one `annotation`.

    An object marked as difficult is an object like others; its parts are not read.

    Raises
    ------
    DataError
        It is not XML, declares a document type (which can make a parser read other files or fill
        the memory), or has no annotation; an object has no name, no box, or a polygon that is not
        a rectangle along the axes.
    """
    root = _parsed(where, content)
    annotations = [root] if root.tag == "annotation" else root.findall("annotation")
    if len(annotations) != 1:
        raise DataError(
            f"{where}: the XML must have one <annotation>, but its root is <{root.tag}> with "
            f"{len(annotations)} of them; give each picture its own"
        )
    annotation = annotations[0]
    objects = [one for one in annotation.findall("object") if _text(one, "deleted") != "1"]
    labels = tuple(_text(one, "name") for one in objects)
    if "" in labels:
        raise DataError(f"{where}: object {labels.index('') + 1} has no <name>; give it one")
    return XmlMarks(
        name=_text(annotation, "filename") or None,
        size=_size(where, annotation),
        labels=labels,
        boxes=to_boxes(where, [_box(where, one) for one in objects]),
        deleted=len(annotation.findall("object")) - len(objects),
    )


def _parsed(where: str, content: bytes | str) -> ElementTree.Element:
    def refuse(name: str, *_: object) -> None:
        raise DataError(
            f"{where}: the XML declares a document type ({name}), which markup has no use for and "
            "which can harm a reader; remove the <!DOCTYPE ...> if the file can be trusted"
        )

    # A first pass that stops at the declaration, before anything that it defines is expanded.
    scout = expat.ParserCreate()
    scout.StartDoctypeDeclHandler = refuse
    try:
        scout.Parse(content, True)
        return ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: broken XML ({error}); mend it, or remove it") from error


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(where: str, element: ElementTree.Element, path: str) -> float:
    text = _text(element, path)
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: <{path}> must be a number of px, got {text!r}") from None


def _size(where: str, annotation: ElementTree.Element) -> tuple[int, int] | None:
    for width, height in SIZES:
        if annotation.find(width) is not None and annotation.find(height) is not None:
            size = tuple(int(_number(where, annotation, path)) for path in (width, height))
            return (size[0], size[1]) if min(size) > 0 else None  # some tools write 0: unknown
    return None


def _box(where: str, one: ElementTree.Element) -> list[float]:
    bndbox, name = one.find("bndbox"), _text(one, "name")
    if bndbox is not None:
        return [_number(f"{where}, {name}", bndbox, corner) for corner in CORNERS]
    points = [(_number(where, p, "x"), _number(where, p, "y")) for p in one.findall("polygon/pt")]
    if not points:
        raise DataError(f"{where}: {name} has neither a <bndbox> nor a <polygon>; give it a box")
    xs, ys = {x for x, _ in points}, {y for _, y in points}
    if len(xs) > 2 or len(ys) > 2:
        raise DataError(
            f"{where}: the polygon of {name} is not a rectangle along the axes: {points}; "
            "draw its box, or mark it as deleted"
        )
    return [min(xs), min(ys), max(xs), max(ys)]
