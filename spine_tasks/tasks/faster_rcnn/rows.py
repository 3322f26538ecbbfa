"""The levels of a pyramid as one table, of which any places can be taken at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Feature maps with a row a place: by image, level, row and column of the map."""

    features: Tensor  # (B * places, C)
    heights: Tensor  # (L,) int64, of each level
    widths: Tensor
    starts: Tensor  # (L,) int64, a level's first place in an image
    places: int  # of an image


def rows_of(maps: Sequence[Tensor]) -> Rows:
    """The table of some levels, each (B, C, H, W)."""
    sizes = torch.tensor([one.shape[-2:] for one in maps], device=maps[0].device)
    heights, widths = sizes.unbind(1)
    areas = heights * widths
    features = torch.cat([one.flatten(2) for one in maps], 2).transpose(1, 2)
    return Rows(features.flatten(0, 1), heights, widths, areas.cumsum(0) - areas, features.shape[1])
