"""Tables for a terminal in which a number never loses a digit."""

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

WORDS = ("arm", "factor", "metric", "model", "where")  # heads of columns that go on in a next line


def new_table(title: str, *heads: str) -> Table:
    """A table without rows yet; words are on the left, numbers on the right and never broken."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        words = head in WORDS
        side: Literal["left", "right"] = "left" if words else "right"
        made.add_column(head, justify=side, no_wrap=not words, overflow="fold")
    return made
