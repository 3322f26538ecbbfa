"""The processes of one cell that train together: a GPU each, on one node or several.

Everything works alike with one process, which needs none of this.
"""

import torch
import torch.distributed as dist


def count() -> int:
    """How many processes train this cell."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first alone writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the ranks; the tensor itself on one. No gradient flows through it.

    What a loss is divided by must be it: gradients averaged over ranks then equal those of one
    rank that has the whole batch.
    """
    if count() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / count()
