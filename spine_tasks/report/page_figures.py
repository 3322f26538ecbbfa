"""Figures inside the page, as long as it can still be mailed."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from spine_tasks.figures.drawn import Drawn

MOST_SVG = 200_000  # bytes; the PNG of a figure with more shapes is smaller, and drawn faster
MOST_LETTERS = 8_000_000  # of all figures as text: mail servers take 10 MB


@dataclass(frozen=True)
class Picture:
    """A figure with its bytes in it."""

    title: str
    file: str  # its name in the experiment's folder
    source: str  # a data URI


def pictures(figures: Sequence[Drawn]) -> tuple[list[Picture], list[Drawn]]:
    """The figures that fit into the page, and those left out, each in the order given.

    Raises
    ------
    OSError
        A figure's file cannot be read.
    """
    taken: list[Picture] = []
    left_out: list[Drawn] = []
    room = MOST_LETTERS
    for figure in figures:
        source = _source(figure)
        if len(source) > room:
            left_out.append(figure)
            continue
        room -= len(source)
        taken.append(Picture(figure.title, figure.file.name, source))
    return taken, left_out


def _source(figure: Drawn) -> str:
    lines = figure.svg is not None and figure.svg.stat().st_size <= MOST_SVG
    file, kind = (figure.svg, "svg+xml") if figure.svg and lines else (figure.file, "png")
    return f"data:image/{kind};base64,{b64encode(file.read_bytes()).decode()}"
