"""A training of nine steps for the tests of the PyTorch loop, with all that has a state."""

import numpy as np
import torch
from torch import nn

from spine_tasks import ranks
from spine_tasks.loop_torch import Plan, fit
from spine_tasks.run import Run
from spine_tasks.schedules import factor

SAMPLES = 12
STEPS = 3  # batches of 4
EPOCHS = 3
PLAN = Plan(
    seed=3,
    epochs=EPOCHS,
    steps=STEPS,
    patience=10,
    min_delta=0.0,
    keep_best=False,
    score="val_score",
    checkpoint_s=1e9,
    factor=lambda step: factor("one_cycle", step, EPOCHS * STEPS, STEPS, 0),
    clip_norm=1.0,
    ema=0.5,
)


class StopsAfter(Run):
    """A run that is asked to stop once its loop has looked `looks` times."""

    def __init__(self, folder, looks):
        self.looks = looks
        super().__init__(folder)

    @property
    def stop_requested(self):
        self.looks -= 1
        return self.looks < 0

    @stop_requested.setter
    def stop_requested(self, _):
        pass


class Network(nn.Module):
    """Two loss terms when it learns, numbers when it predicts."""

    def __init__(self, normalised=True, dropout=0.5, breaks=lambda: 1.0):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4) if normalised else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(4, 1)
        self.breaks = breaks  # what the second term is multiplied by

    def forward(self, x, y=None):
        found = self.last(self.dropout(self.norm(self.first(x)).tanh()))
        if not self.training:
            return found
        error = found - y
        return {"squared": (error**2).mean(), "absolute": 0.1 * error.abs().mean() * self.breaks()}


def network(**changes):
    torch.manual_seed(1)
    return Network(**changes)


def samples():
    x = np.random.default_rng(0).normal(size=(SAMPLES, 3)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(x.sum(axis=1, keepdims=True))


def batches(epoch, first_step, dies_at=None):
    """This rank's share of the steps of an epoch, in one part; it may die at one of them."""
    x, y = samples()
    order = np.random.default_rng([5, epoch]).permutation(SAMPLES)
    for step in range(first_step, STEPS):
        if (epoch, step) == dies_at:
            raise MemoryError("killed")
        chosen = np.array_split(order[step * 4 : step * 4 + 4], ranks.count())[ranks.rank()]
        yield [(x[chosen], y[chosen])]


def adam(model):
    """Two rates; the norm is left as it is, though it has a gradient."""
    return torch.optim.Adam(
        [{"params": model.first.parameters(), "lr": 0.01}, {"params": model.last.parameters()}],
        lr=0.05,
    )


def trained(run, plan=PLAN, scores=None, model=None, batches=batches):
    """The kept weights after training; `scores` replaces the validation score of each epoch."""
    torch.set_num_threads(1)
    model = model or network()

    def validate(judged):
        if scores:
            return scores[len(run.history())]
        pairs = ranks.mine(list(zip(*samples(), strict=True)))
        with torch.no_grad():
            errors = [float(judged.eval()(x[None]) - y) ** 2 for x, y in pairs]
        return -sum(ranks.everybodys(errors))

    return fit(run, model, adam(model), batches, validate, plan).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_times(history):
    times = ("seconds", "images_per_s")
    return [{key: row[key] for key in row if key not in times} for row in history]
