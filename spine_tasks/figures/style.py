"""What all figures share: how arms look, how names are written, and the files.

The figures are made without pyplot, so that none stays open and none needs a display.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from spine_tasks.files import replacing, write_text
from spine_tasks.metrics import METRICS

# Okabe and Ito, https://jfly.uni-koeln.de/color: told apart with any kind of colour vision. Their
# yellow is left out, too pale for thin lines on white.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
# For print without colour; four and seven have no common factor, so that 28 arms look different.
LINES = ["-", "--", ":", "-."]
MARKERS = ["o", "s", "^", "D"]
INCH_A_LETTER = 0.085
INCH_A_LINE = 0.17
LINES_DPI, PIXELS_DPI = 200, 150
LONG_WORD = 20  # letters of a knob that stand in one line
LONG_VALUE = 24  # letters of its name or value in a line of their own
LONG_NAME = 160  # letters of an arm's name
DOT: dict[str, Any] = {"marker": "o", "markersize": 5, "markeredgecolor": "white", "linestyle": ""}
MEAN: dict[str, Any] = {"color": "black", "linewidth": 2, "marker": "D", "markevery": [1]}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.parse_math": False,  # a name such as $x_1$ is a name
    "axes.formatter.use_mathtext": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "boxplot.boxprops.color": "0.4",
    "boxplot.whiskerprops.color": "0.4",
    "boxplot.capprops.color": "0.4",
    "svg.fonttype": "none",  # text stays text, to be searched and edited
    "svg.hashsalt": "spine_tasks",  # ids that are the same in every file made
}
NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@contextmanager
def drawn(file: Path, width: float, height: float, svg: bool = True) -> Iterator[Figure]:
    """A figure to draw on, of some inches, that is a PNG at the end, and an SVG beside it.

    Parameters
    ----------
    svg
        Not for pictures of patients, which are pixels; their PNG has 256 colours instead, a third
        of the bytes.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Letters that matplotlib's font lacks are boxes in the PNG; the SVG has them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        layout: Literal["constrained", "compressed"] = "constrained" if svg else "compressed"
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure
        with replacing(file) as partial:
            figure.savefig(partial, format="png", dpi=LINES_DPI if svg else PIXELS_DPI)
            if not svg:
                _made_small(partial)
        if svg:
            lines = io.StringIO()
            figure.savefig(lines, format="svg", metadata={"Date": None})
            write_text(file.with_suffix(".svg"), NOT_IN_XML.sub("\ufffd", lines.getvalue()))


def _made_small(file: Path) -> None:
    with Image.open(file) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(file, format="PNG", optimize=True)


def colour(place: int) -> str:
    """The colour of the arm at a place."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """The marker of the arm at a place."""
    return MARKERS[place % len(MARKERS)]


def look(place: int) -> dict[str, Any]:
    """Colour and line of the arm at a place."""
    return {"color": colour(place), "linestyle": LINES[place % len(LINES)]}


def name_lines(arm: str) -> list[str]:
    """The lines of an arm's name: a knob a line, a long one in several.

    Examples
    --------
    >>> name_lines("init=pretrained backbone=swin_base_patch4_window7")
    ['init=pretrained', 'backbone=', 'swin_base_patch4_window7']
    """
    return [line for knob in shortened(arm).split() for line in _knob_lines(knob)] or [""]


def _knob_lines(knob: str) -> list[str]:
    if len(knob) <= LONG_WORD:
        return [knob]
    name, equals, value = knob.partition("=")
    return [*textwrap.wrap(name + equals, LONG_VALUE), *textwrap.wrap(value, LONG_VALUE)]


def in_lines(text: str, inches: float) -> str:
    """Text broken into lines of a width."""
    letters = max(LONG_WORD, int(inches / INCH_A_LETTER))
    return textwrap.fill(shortened(text), letters, break_on_hyphens=False)


def shortened(name: str) -> str:
    """A name without its middle, where it is far too long; arms mostly differ at their ends."""
    half = LONG_NAME // 2
    return name if len(name) <= LONG_NAME else f"{name[:half]} … {name[-half:]}"


def with_unit(text: str, metric: str) -> str:
    """Text followed by the metric's unit, if it has one."""
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f"{text} ({unit})" if unit else text


def width_of(lines: list[str]) -> float:
    """The inches that the longest line takes."""
    return INCH_A_LETTER * max(map(len, lines), default=0)
