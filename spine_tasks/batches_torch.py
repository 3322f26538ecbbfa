"""The batches of training: which samples a step has, and how loader processes make them.

What a step is given follows from (seed, epoch, step) alone: not from the number of loader
processes, not from where training was resumed, not from what another generator has drawn.
"""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from functools import cached_property
from multiprocessing.context import BaseContext
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader

from spine_tasks.errors import ConfigError

Part = Any  # what a model is called with, such as (images, targets)


class Samples(Protocol):
    """What batches are made of; copied into loader processes."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, part: Sequence[tuple[int, int]]) -> Part:
        """Some (epoch, index) of them, together."""


class Batches:
    """The batches of one rank, epoch by epoch.

    Called with an epoch and the first step that is wanted of it, both from 0, it yields for each
    step the parts that the rank's share is computed in, one after the other. `len()` is the number
    of steps of an epoch.

    An epoch has the samples in an order of its own, `batch_size` a step over all ranks. The last
    step has what is left; if that is less than a sample a rank, it is filled up to one each with
    the epoch's first ones. A rank's share is contiguous; shares differ by one sample at most, and
    so do the parts of a share. All ranks have the same number of parts in a step, at most
    `accumulate`, and fewer where a share has fewer samples.

    Loader processes live from the first call on; a call ends the iteration of the call before.
    They are forked, or if CUDA is in use by then, started afresh, since it does not survive a fork.

    Parameters
    ----------
    samples
        Those of the training part, in the same order on all ranks.
    workers
        Loader processes; 0 makes the batches in this process.

    Raises
    ------
    ConfigError
        There are more ranks than samples a step.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        accumulate: int = 1,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if batch_size < ranks:
            raise ConfigError(
                f"batch_size {batch_size} leaves some of {ranks} GPUs without a sample; "
                f"set it to {ranks} or more, or ask for fewer GPUs"
            )
        self.samples, self.seed, self.workers = samples, seed, workers
        self.batch_size, self.accumulate = batch_size, accumulate
        self.rank, self.ranks = rank, ranks
        self.upcoming: list[list[list[tuple[int, int]]]] = []  # read when an iteration begins

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __call__(self, epoch: int, first_step: int = 0) -> Iterator[list[Part]]:
        """The steps of an epoch from `first_step` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples))
        self.upcoming[:] = [
            [[(epoch, int(index)) for index in part] for part in self._share(order, step)]
            for step in range(first_step, len(self))
        ]
        return iter(self._loader)

    def _share(self, order: np.ndarray, step: int) -> list[np.ndarray]:
        """The indices of each part of this rank's share of a step."""
        first = step * self.batch_size
        chosen = order[first : first + self.batch_size]
        if (lacking := self.ranks - len(chosen)) > 0:
            chosen = np.concatenate([chosen, np.resize(order, lacking)])
        parts = min(self.accumulate, len(chosen) // self.ranks)
        return np.array_split(np.array_split(chosen, self.ranks)[self.rank], parts)

    @cached_property
    def _loader(self) -> "DataLoader[Part]":
        return DataLoader(
            self.samples,  # type: ignore[arg-type]  # all that it asks of a data set
            batch_sampler=self.upcoming,
            collate_fn=list,
            num_workers=self.workers,
            multiprocessing_context=_context() if self.workers else None,
            worker_init_fn=_leave_stopping_to_the_parent,
            generator=torch.Generator(),  # else each epoch draws a number of the global one
            persistent_workers=self.workers > 0,
            pin_memory=_cuda_in_use(),
        )


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _context() -> BaseContext:
    if not _cuda_in_use():
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by each of them
    return context


def _leave_stopping_to_the_parent(_worker: int) -> None:
    """A stop reaches the whole process group, but it is the parent that saves and ends."""
    for one in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
