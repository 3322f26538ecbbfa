"""A figure that was drawn: what it shows, and where it lies."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Drawn:
    """A figure in a file."""

    title: str  # in words, such as `DSC of gray_matter, paired by person`
    file: Path  # the PNG
    svg: Path | None = None  # the same, where it is drawn of lines and not of pixels
