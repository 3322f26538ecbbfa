"""What the processes of one cell that train together say to each other.

With one process everything works alike: nothing is exchanged. `meeting` brings them together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

Value = TypeVar("Value")


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


def any_rank(flag: bool) -> bool:
    """Whether the flag is up on any rank."""
    return agree(flag, {})[0]


def agree(flag: bool, terms: Mapping[str, torch.Tensor]) -> tuple[bool, dict[str, float]]:
    """Whether the flag is up on any rank, and the mean over ranks of some scalars.

    Every rank must call it, with the same names.
    """
    numbers = [term.detach().double().reshape(()) for term in terms.values()]
    device = numbers[0].device if numbers else _device()
    raised = torch.tensor(float(flag), device=device, dtype=torch.float64)
    anywhere, *means = mean_over_ranks(torch.stack([raised, *numbers])).tolist()
    return anywhere > 0, dict(zip(terms, means, strict=True))


def of_first(make: Callable[[], Value]) -> Value:
    """What rank 0 makes, on every rank. Every rank must call it."""
    if count() == 1:
        return make()
    made = [make() if rank() == 0 else None]
    dist.broadcast_object_list(made, src=0, device=_device())
    return cast(Value, made[0])


def take_buffers_of_first(module: nn.Module) -> None:
    """Make a module's buffers those of rank 0, since the running means of each are of other images.

    Every rank must call it.
    """
    if count() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def mine(values: Sequence[Value]) -> Sequence[Value]:
    """The share of this rank of some values: every value belongs to one rank."""
    return values[rank() :: count()]


def everybodys(values: Sequence[Value]) -> list[Value]:
    """The values that `mine` shared out, or what was made of each, in their first order.

    Every rank must call it.
    """
    if count() == 1:
        return list(values)
    shares: list[Sequence[Value]] = [[] for _ in range(count())]
    dist.all_gather_object(shares, values)
    total = sum(map(len, shares))
    return [shares[index % count()][index // count()] for index in range(total)]


def _device() -> torch.device:
    """Where small tensors must be to be exchanged."""
    nccl = dist.is_initialized() and dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
