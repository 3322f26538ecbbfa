"""Neighbouring slices: pictures whose names differ by one in the number at their end.

Two such slices mostly show the same person, nearly alike. Where one is trained on and the other is
tested on, the test measures memory: 13 of the disc study's 109 test images have such a neighbour.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from spine_tasks.data.coco import BoxCase
from spine_tasks.markup.marks import NAMED
from spine_tasks.splits import PARTS

log = logging.getLogger(__name__)

NUMBERED = re.compile(r"(.*?)(\d+)")


def neighbours(files: Sequence[PurePath]) -> list[tuple[int, int]]:
    """Pairs of places in `files` whose names end in n and n + 1 and are else the same.

    Their folders must be the same too, but for those named as a part (`train`, `val`, `test`).

    Examples
    --------
    >>> neighbours([PurePath("test/im_10.png"), PurePath("im_7.png"), PurePath("train/im_9.png")])
    [(2, 0)]
    """
    places: dict[tuple[tuple[str, ...], str, int], list[int]] = {}
    for place, file in enumerate(files):
        if match := NUMBERED.fullmatch(file.stem):
            folders = tuple(name for name in file.parent.parts if name not in PARTS)
            places.setdefault((folders, match[1], int(match[2])), []).append(place)
    return [
        (first, second)
        for (folders, stem, number), here in places.items()
        for second in places.get((folders, stem, number + 1), [])
        for first in here
    ]


def warn_of_neighbours(
    cases: Sequence[BoxCase], part_of: Mapping[str, str]
) -> list[tuple[BoxCase, BoxCase]]:
    """Log a warning that names neighbouring slices in different parts of a fold.

    Parameters
    ----------
    cases
        Images of the data.
    part_of
        Subject -> part; images of other subjects are not looked at.

    Returns
    -------
    list of pairs of cases
        The two slices of each pair, the one with the smaller number first.
    """
    used = [case for case in cases if case.subject in part_of]
    pairs = [
        (used[first], used[second])
        for first, second in neighbours([case.image for case in used])
        if part_of[used[first].subject] != part_of[used[second].subject]
    ]
    if pairs:
        shown = [
            " and ".join(f"{case.id} ({part_of[case.subject]})" for case in pair)
            for pair in pairs[:NAMED]
        ]
        log.warning(
            "%d pairs of neighbouring slices are in different parts, and may show one person: "
            "%s%s; if so, say who is who (`prepare.py markup --patient`) and split again",
            len(pairs),
            ", ".join(shown),
            f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else "",
        )
    return pairs
