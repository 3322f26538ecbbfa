"""Tables whose rows belong to cells: read and kept in pieces, joined in the order of the cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import pyarrow as pa


@dataclass(frozen=True)
class CellRows:
    """A table of some cells, the rows of one cell together."""

    table: pa.Table
    spans: dict[str, tuple[int, int]]  # cell id -> its first row, and the one after its last


def cell_rows(table: pa.Table, counts: Mapping[str, int]) -> CellRows:
    """A table of which each cell, in this order, has so many rows."""
    ends = list(accumulate(counts.values(), initial=0))
    return CellRows(table, dict(zip(counts, pairwise(ends), strict=True)))


def counts(pieces: Sequence[CellRows], cells: Sequence[str]) -> dict[str, int]:
    """How many rows some cells have; of a cell in several pieces the last counts."""
    spans = {cell: span for piece in pieces for cell, span in piece.spans.items()}
    return {cell: spans[cell][1] - spans[cell][0] for cell in cells}


def joined(pieces: Sequence[CellRows], cells: Sequence[str]) -> pa.Table:
    """The rows of some cells, in their order, each from the last piece that has it.

    A column that a piece lacks is missing in its rows.
    """
    piece_of = {cell: number for number, piece in enumerate(pieces) for cell in piece.spans}
    runs: list[tuple[int, int, int]] = []  # piece, first row, end; neighbours are taken together
    for cell in cells:
        number = piece_of[cell]
        start, end = pieces[number].spans[cell]
        if runs and runs[-1][0] == number and runs[-1][2] == start:
            start = runs.pop()[1]
        runs.append((number, start, end))
    slices = [pieces[number].table.slice(start, end - start) for number, start, end in runs]
    return pa.concat_tables(slices, promote_options="permissive")
