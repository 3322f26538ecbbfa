"""Part K of N of the images, so that the tasks of a Slurm array share them."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One of several parts, which together are everything once."""

    number: int  # from 1
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"

    def of(self, everything: Sequence[T]) -> Sequence[T]:
        """Every `parts`-th one from the `number`-th on; none where there are fewer.

        Examples
        --------
        >>> [[*Part(number, 2).of("abcde")] for number in (1, 2)]
        [['a', 'c', 'e'], ['b', 'd']]
        """
        return everything[self.number - 1 :: self.parts]

    @property
    def scores(self) -> str:
        """The name of its file of scores, which no other part has."""
        return f"scores_{self.number}of{self.parts}.csv"


def part(text: str) -> Part:
    """A part as the command line has it: `3/8`."""
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found and 1 <= (number := int(found[1])) <= (parts := int(found[2])):
        return Part(number, parts)
    raise argparse.ArgumentTypeError(
        f"expected K/N with K from 1 to N, such as 3/8 (of sbatch --array=1-8), got {text!r}"
    )
