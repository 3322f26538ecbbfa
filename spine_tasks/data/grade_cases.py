"""Places in images that are graded, such as discs or levels: what readers of such data return."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class GradeCase:
    """One place to be graded, for one condition or several."""

    id: str  # unique in its data; stands in predictions and scores
    subject: str  # as splits name it
    study: str  # an examination; cases of a study and condition differ by level and side
    level: str  # such as L1/L2, or what the data calls it
    series: tuple[Path, ...]  # files of its slices, in the order of their positions
    index: int  # of the slice that the place is in
    x: float  # px from the left edge of the slice to the middle of the place
    y: float  # px from the upper edge
    width: float | None = None  # px of its box; None: a point
    height: float | None = None
    side: str = ""  # left or right, where the condition has sides
    grades: dict[str, int | None] = field(
        default_factory=dict
    )  # condition -> 0-based; None: unknown


@dataclass(frozen=True)
class GradeData:
    """All places of a folder, and what their grades are called."""

    folder: Path
    cases: tuple[GradeCase, ...]
    conditions: dict[str, tuple[str, ...]]  # name, without a side -> grades, from the mildest on
    levels: tuple[str, ...]  # in the order along the spine
    tables: tuple[Path, ...]  # files that the cases were read from

    def of_subjects(self, subjects: Collection[str]) -> list[GradeCase]:
        """The cases of some subjects, in the order of the data."""
        wanted = set(subjects)
        return [case for case in self.cases if case.subject in wanted]
