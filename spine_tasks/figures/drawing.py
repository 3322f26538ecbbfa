"""Pictures with boxes drawn on them, for people to look at."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from spine_tasks.data.coco import BoxCase
from spine_tasks.data.pictures import to_uint8
from spine_tasks.files import replacing
from spine_tasks.predictions import Detections

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # xyxy px of the drawing

# Told apart by the colour-blind (Okabe and Ito), those that show best on grey first; then again.
COLOURS: tuple[Colour, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (0, 158, 115),  # bluish green
    (213, 94, 0),  # vermillion
    (0, 114, 178),  # blue
)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
LONG_SIDE = 900  # px: smaller pictures are enlarged to about it, so that text covers little
NAME_LETTERS = 30  # of a category's name


def draw_boxes(
    picture: NDArray[np.float32], case: BoxCase, found: Detections, categories: Sequence[str]
) -> Image.Image:
    """A picture with found boxes, their categories and scores, and with reference boxes.

    Parameters
    ----------
    picture
        (H, W) grey values; what of them is black and white follows their percentiles.
    case
        Its boxes are drawn dashed. They are told as references in the legend if there are any.
    found
        Drawn all, in full lines, on the picture's pixel grid.
    categories
        Names, in the order of the labels.

    Returns
    -------
    PIL.Image.Image
        RGB, the picture a whole number of times as large, with a legend below it.
    """
    zoom = max(1, round(LONG_SIDE / max(picture.shape)))
    grey = Image.fromarray(to_uint8(picture))
    large = grey.resize((grey.width * zoom, grey.height * zoom), Image.Resampling.BICUBIC)
    drawn = large.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    unit = max(1, round(max(drawn.size) / 450))  # px of a thin line
    font = _font(8 * unit)
    for box, label in zip(case.boxes * zoom, case.labels.tolist(), strict=True):
        _dashed(pen, _corners(box), _colour(label), unit)
    plates: list[Box] = []
    # The surest last, so that it is on top; boxes before texts, so that none is crossed out.
    for box, label in zip(found.boxes[::-1] * zoom, found.labels[::-1].tolist(), strict=True):
        _framed(pen, _corners(box), _colour(label), unit)
    for box, label, score in zip(
        found.boxes * zoom, found.labels.tolist(), found.scores.tolist(), strict=True
    ):
        text = f"{_short(categories[label])} {score:.2f}"
        plates.append(_plate(pen, text, _corners(box), plates, drawn.size, font))
        _written(pen, text, plates[-1], _colour(label), font)
    return _with_legend(drawn, _entries(case, found, categories), font)


def save_drawing(file: Path, drawing: Image.Image) -> None:
    """Write a drawing as PNG, in one step."""
    with replacing(file) as partial:
        drawing.save(partial, format="PNG")


def _colour(label: int) -> Colour:
    return COLOURS[label % len(COLOURS)]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # its font has the letters of many scripts, PIL's own but Latin ones

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), max(12, size))


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= NAME_LETTERS else f"{name[: NAME_LETTERS - 1]}…"


def _corners(box: NDArray[np.float64]) -> Box:
    """The corner pixels of a box; PIL counts the last one in."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _framed(pen: ImageDraw.ImageDraw, box: Box, colour: Colour, unit: int) -> None:
    """A line of the category's colour between black ones, seen on black and on white."""
    x1, y1, x2, y2 = box
    pen.rectangle((x1 - unit, y1 - unit, x2 + unit, y2 + unit), outline=BLACK, width=unit)
    pen.rectangle(box, outline=colour, width=unit)


def _dashed(pen: ImageDraw.ImageDraw, box: Box, colour: Colour, unit: int) -> None:
    """Dashes of the category's colour on a black line."""
    x1, y1, x2, y2 = box
    pen.rectangle(box, outline=BLACK, width=2 * unit)
    for start, stop in _dashes(x1, x2, 6 * unit):
        for y in (y1, y2 - 2 * unit + 1):
            pen.rectangle((start, y, stop, y + 2 * unit - 1), fill=colour)
    for start, stop in _dashes(y1, y2, 6 * unit):
        for x in (x1, x2 - 2 * unit + 1):
            pen.rectangle((x, start, x + 2 * unit - 1, stop), fill=colour)


def _dashes(start: float, stop: float, length: float) -> Iterator[tuple[float, float]]:
    """Dashes from a start to a stop, as long as the gaps between them."""
    for begin in np.arange(start, stop, 2 * length).tolist():
        yield begin, min(begin + length - 1, stop)


def _plate(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: Box,
    taken: Sequence[Box],
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont,
) -> Box:
    """Where the text of a box goes: beside it, where there is room and no other text."""
    width, height = pen.textlength(text, font) + 4, font.size * 1.3
    gap = font.size / 4
    x1, y1, x2, y2 = box
    middle = (y1 + y2 - height) / 2
    corners = (
        *((x2 + gap, middle), (x1 - gap - width, middle)),  # discs lie one above the other
        *((x1, y1 - gap - height), (x1, y2 + gap), (x1, y1)),
    )
    places = [(x, y, x + width, y + height) for x, y in corners]
    for place in places:
        inside = min(place[:2]) >= 0 and place[2] <= size[0] and place[3] <= size[1]
        if inside and not any(_overlap(place, other) for other in taken):
            return place
    x, y = min(max(0, x1), max(0, size[0] - width)), min(max(0, y1), max(0, size[1] - height))
    return x, y, x + width, y + height


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _written(
    pen: ImageDraw.ImageDraw,
    text: str,
    plate: Box,
    colour: Colour,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Text on a plate of a colour, black or white as can be read on it."""
    pen.rectangle(plate, fill=colour)
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > 110
    pen.text((plate[0] + 2, plate[1]), text, fill=BLACK if bright else WHITE, font=font)


def _entries(
    case: BoxCase, found: Detections, categories: Sequence[str]
) -> list[tuple[str, Colour, bool]]:
    """Text, colour and whether it is of references, of each entry of the legend."""
    entries = []
    for label, name in enumerate(categories):
        number = int((found.labels == label).sum())
        entries.append((f"{_short(name)}: {number}", _colour(label), False))
    if len(case.labels):
        entries.append((f"reference: {len(case.labels)}", WHITE, True))
    return entries


def _with_legend(
    drawn: Image.Image, entries: Sequence[tuple[str, Colour, bool]], font: ImageFont.FreeTypeFont
) -> Image.Image:
    """The drawing above lines of legend, as many as the entries take."""
    height = int(font.size * 1.6)
    swatch = 2 * height
    pen = ImageDraw.Draw(drawn)
    places, x, line = [], 0.0, 0
    for text, _, _ in entries:
        width = swatch + pen.textlength(text, font) + height
        if x and x + width > drawn.width:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    whole = Image.new("RGB", (drawn.width, drawn.height + (line + 1) * height), (40, 40, 40))
    whole.paste(drawn)
    pen = ImageDraw.Draw(whole)
    for (text, colour, dashed), (x, line) in zip(entries, places, strict=True):
        top = drawn.height + line * height
        frame = (x + 4, top + height // 4, x + swatch - 8, top + height * 3 // 4)
        (_dashed if dashed else _framed)(pen, frame, colour, max(1, int(font.size / 8)))
        pen.text((x + swatch, top + height // 8), text, fill=WHITE, font=font)
    return whole
