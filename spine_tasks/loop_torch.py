"""One training loop for PyTorch models that resumes bit for bit, at any step.

The samples and the random numbers of a step follow from (seed, rank, epoch, step) alone, so that a
checkpoint need not hold the state of any generator. Several ranks train as one: their gradients
are averaged, they stop at the same step, and the first alone writes.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spine_tasks import ranks, torch_checkpoints
from spine_tasks.cell import Cell
from spine_tasks.errors import Interrupted
from spine_tasks.run import Run
from spine_tasks.schedules import factor

log = logging.getLogger(__name__)

Part = tuple[Sequence[Any], ...]  # what the model is called with, such as (images, targets)
Batch = Sequence[Part]  # computed one after the other and averaged, where memory is short
Batches = Callable[[int, int], Iterator[Batch]]  # (epoch, first step) -> a batch a step
State = dict[str, Any]


@dataclass
class Progress:
    """How far training is; with the weights it is all that a checkpoint holds."""

    epoch: int = 0  # being trained
    step: int = 0  # steps done in it
    losses: dict[str, float] = field(default_factory=dict)  # sums over those steps, by term
    images: int = 0  # seen in them
    seconds: float = 0.0  # spent on them
    best: float = -math.inf  # validation score
    best_epoch: int = -1
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to make a step, when to stop, whose weights to keep, how often to save."""

    seed: int
    epochs: int
    steps: int  # an epoch
    patience: int  # epochs without a better score
    min_delta: float  # what counts as better
    keep_best: bool  # else the last epoch's weights
    score: str  # the history's column of the validation score
    checkpoint_s: float
    factor: Callable[[int], float]  # of the learning rate, by the step over all epochs
    clip_norm: float | None = None
    ema: float | None = None  # decay a step
    bfloat16: bool = False
    compile: bool = False

    @classmethod
    def of(cls, cell: Cell, steps: int) -> "Plan":
        """The plan of a cell, whose config has the knobs of optimisation, with steps an epoch."""
        config = cell.config
        if config.schedule == "step" and config.lr_drop >= config.epochs:
            late = (config.lr_drop, config.epochs)
            log.warning("lr_drop %d is not before the last of %d epochs: it never drops", *late)
        return cls(
            seed=cell.seed,
            epochs=config.epochs,
            steps=steps,
            patience=config.patience,
            min_delta=config.min_delta,
            keep_best=config.keep == "best",
            score=config.chosen_by,
            checkpoint_s=cell.resources.checkpoint_s,
            factor=lambda step: factor(
                config.schedule, step, config.epochs * steps, steps, config.lr_drop
            ),
            clip_norm=config.clip_norm,
            ema=config.ema,
            bfloat16=config.precision == "bfloat16",
            compile=config.compile,
        )


class Learner:
    """A model with all that changes while it learns."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan) -> None:
        self.model, self.optimizer, self.plan = model, optimizer, plan
        self.device = next(model.parameters()).device
        self.rates = [group["lr"] for group in optimizer.param_groups]
        called = cast(nn.Module, torch.compile(model)) if plan.compile else model
        self.network = _parallel(called)
        self.average: AveragedModel | None = None
        if plan.ema is not None:
            average = get_ema_multi_avg_fn(plan.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(model, multi_avg_fn=average, use_buffers=True)

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and predicts."""
        return self.model if self.average is None else self.average.module

    def step(self, batch: Batch, epoch: int, step: int) -> dict[str, torch.Tensor]:
        """The gradient of a batch: the loss terms of this rank; weights stay as they are."""
        torch.manual_seed(_seed(self.plan.seed, ranks.rank(), epoch, step))
        self.network.train()
        self.model.zero_grad(set_to_none=True)  # also of what the optimizer leaves alone
        sums: dict[str, torch.Tensor] = {}
        for number, part in enumerate(batch, start=1):
            with self._without_averaging(number < len(batch)):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.bfloat16):
                    terms = self.network(*_to(part, self.device))
                total = torch.stack([term.float() for term in terms.values()]).sum()
                (total / len(batch)).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                sums[name] = sums.get(name, torch.zeros(())) + term.detach().float() / len(batch)
        return sums

    def update(self, step: int) -> None:
        """Move the weights along the gradient; `step` counts over all epochs."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.plan.factor(step)
        if self.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state(self) -> State:
        """Everything that changes, for a checkpoint."""
        average = None if self.average is None else self.average.state_dict()
        optimizer = self.optimizer.state_dict()
        return {"model": self.model.state_dict(), "optimizer": optimizer, "average": average}

    def restore(self, saved: State) -> None:
        """Become as `state` said."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])

    def _without_averaging(self, wanted: bool) -> Any:
        """Leave out the exchange of gradients, which the last part of a batch makes for all."""
        if wanted and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()


def fit(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    validate: Callable[[nn.Module], float],
    plan: Plan,
) -> nn.Module:
    """Train from the run's checkpoint if there is one; return the model with the kept weights.

    Parameters
    ----------
    run
        Where checkpoints and history go, and who may ask to stop.
    model
        On its device. In training mode it is called with the elements of a part of a batch and
        returns its weighted loss terms by name.
    validate
        The score of a model on the validation part, the same on every rank; higher is better.

    Raises
    ------
    Interrupted
        A stop was requested; the checkpoint on disk holds every step made.
    FloatingPointError
        A loss term is not finite; the step was not made.
    """
    learner, progress = Learner(model, optimizer, plan), Progress()
    best = _copy(learner.judged)
    # Rank 0's: another node may still see the files of before.
    saved = ranks.of_first(lambda: torch_checkpoints.load(run.checkpoint))
    if saved is not None:
        progress, best = Progress(**saved["progress"]), saved["best"]
        learner.restore(saved)
        log.info("continuing from epoch %d, step %d", progress.epoch, progress.step)
    if ranks.rank() == 0:
        run.forget_history_from(progress.epoch)
    last_save = time.monotonic()

    def save() -> None:
        if ranks.rank() == 0:
            state = learner.state() | {"best": best, "progress": asdict(progress)}
            torch_checkpoints.save(run.checkpoint, state)

    if not progress.finished and ranks.any_rank(run.stop_requested):
        raise Interrupted("stopped before the first step of this attempt")
    while not progress.finished:
        started = time.monotonic() - progress.seconds
        for batch in batches(progress.epoch, progress.step):
            terms = learner.step(batch, progress.epoch, progress.step)
            # One exchange for both, and one wait for the device.
            stopping, losses = ranks.agree(run.stop_requested, terms)
            _check_finite(losses, progress)
            learner.update(progress.epoch * plan.steps + progress.step)
            for name, value in losses.items():
                progress.losses[name] = progress.losses.get(name, 0.0) + value
            progress.step += 1
            progress.images += sum(len(part[0]) for part in batch) * ranks.count()
            progress.seconds = time.monotonic() - started
            if stopping or time.monotonic() - last_save > plan.checkpoint_s:
                save()
                last_save = time.monotonic()
            if stopping:
                raise Interrupted(f"stopped in epoch {progress.epoch}, step {progress.step}")
        trained_s = progress.seconds
        ranks.take_buffers_of_first(learner.judged)
        try:
            score = validate(learner.judged)
        except Interrupted:  # between checkpoints: the steps since the last are not to be lost
            save()
            raise
        if score > progress.best + plan.min_delta:
            progress.best, progress.best_epoch = score, progress.epoch
            best = _copy(learner.judged)
        record = _record(progress, plan, score, time.monotonic() - started, trained_s)
        if ranks.rank() == 0:
            run.add_history(**record)
        log.info("epoch %d: loss %.4f, %s %.4f", progress.epoch, record["loss"], plan.score, score)
        waited = progress.epoch - progress.best_epoch
        progress = Progress(
            epoch=progress.epoch + 1, best=progress.best, best_epoch=progress.best_epoch
        )
        progress.finished = progress.epoch >= plan.epochs or waited >= plan.patience
        if progress.finished:
            save()
    if plan.keep_best:
        learner.judged.load_state_dict(best)
    return learner.judged


def _record(
    progress: Progress, plan: Plan, score: float, seconds: float, trained_s: float
) -> dict[str, Any]:
    """An epoch's line of the history."""
    means = {name: value / progress.step for name, value in progress.losses.items()}
    return {
        "epoch": progress.epoch,
        "loss": sum(means.values()),
        **{f"loss_{name}": value for name, value in means.items()},
        plan.score: score,
        "seconds": round(seconds, 3),
        "images_per_s": round(progress.images / trained_s, 3) if trained_s else math.nan,
        "best_epoch": progress.best_epoch,
    }


def _check_finite(losses: dict[str, float], progress: Progress) -> None:
    if wrong := {name: value for name, value in losses.items() if not math.isfinite(value)}:
        named = ", ".join(f"{name} is {value}" for name, value in wrong.items())
        raise FloatingPointError(
            f"epoch {progress.epoch}, step {progress.step}: of the loss {named}; a lower "
            "learning_rate, a clip_norm, or precision=float32, may help"
        )


def _seed(seed: int, rank: int, epoch: int, step: int) -> int:
    """Where the random numbers of a step start: the same for every attempt."""
    mixed = 0
    for part in (seed, rank, epoch, step):
        mixed = (mixed * 1_000_003 + part + 1) % 2**62
    return mixed


def _parallel(network: nn.Module) -> nn.Module:
    if ranks.count() == 1:
        return network
    # A detector without a box in its batch leaves parts of itself out.
    return DistributedDataParallel(network, find_unused_parameters=True)


def _to(value: Any, device: torch.device) -> Any:
    """Tensors within lists and dictionaries, on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _to(one, device) for name, one in value.items()}
    return [_to(one, device) for one in value]


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
