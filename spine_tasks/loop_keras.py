"""One training loop for Keras models that resumes bit for bit, at any step.

Keras's own backup leaves out the random state of dropout and of early stopping, so a resumed fit
differs. Here a checkpoint holds every variable of the model (the dropout layers' seed generators
among them) and of the optimiser, the state of early stopping and the best weights; the samples of
a step follow from (seed, epoch, step) alone.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spine_tasks import checkpoints
from spine_tasks.errors import Interrupted
from spine_tasks.run import Run

log = logging.getLogger(__name__)

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Batches = Callable[[int, int], tf.data.Dataset]  # (epoch, first step) -> batches of (x, y)


@dataclass
class Progress:
    """How far training is; with the arrays it is all that a checkpoint holds."""

    epoch: int = 0  # being trained
    step: int = 0  # steps done in it
    losses: list[float] = field(default_factory=list)  # of those steps
    seconds: float = 0.0  # spent on them
    best: float = -math.inf  # validation score
    best_epoch: int = -1
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When to stop, whose weights to keep, how often to save."""

    epochs: int
    patience: int  # epochs without a better score
    min_delta: float  # what counts as better
    keep_best: bool  # else the last epoch's weights
    checkpoint_s: float
    xla: bool = False


def fit(
    run: Run,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: Loss,
    batches: Batches,
    validate: Callable[[], float],
    plan: Plan,
) -> None:
    """Train `model` in place, from the run's checkpoint if there is one.

    Parameters
    ----------
    run
        Where checkpoints and history go, and who may ask to stop.
    loss
        (targets, predictions) to a scalar.
    validate
        The score of the model, as it is now, on the validation part; higher is better.

    Raises
    ------
    Interrupted
        A stop was requested; the checkpoint on disk holds the step just made.
    FloatingPointError
        A loss is not finite; the weights of that step are not saved.
    """
    optimizer.build(model.trainable_variables)
    best_weights = _values(model.variables)
    progress = Progress()
    if (saved := checkpoints.load(run.checkpoint)) is not None:
        best_weights, progress = _restore(saved, model, optimizer)
        log.info("continuing from epoch %d, step %d", progress.epoch, progress.step)
    run.forget_history_from(progress.epoch)
    signature = batches(progress.epoch, progress.step).element_spec
    step = _training_step(model, optimizer, loss, signature, plan.xla)
    last_save = time.monotonic()
    unsaved = False

    def save() -> None:
        checkpoints.save(run.checkpoint, _arrays(model, optimizer, best_weights), asdict(progress))

    def stop_if_requested() -> None:
        if run.stop_requested:
            if unsaved:  # else a new file would look like progress
                save()
            raise Interrupted(f"stopped in epoch {progress.epoch}, step {progress.step}")

    while not progress.finished:
        started = time.monotonic() - progress.seconds
        for x, y in batches(progress.epoch, progress.step):
            stop_if_requested()
            value = float(step(x, y))
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"epoch {progress.epoch}, step {progress.step}: the loss is {value}; "
                    "a lower learning_rate, or precision=float32, may help"
                )
            progress.losses.append(value)
            progress.step += 1
            unsaved = True
            progress.seconds = time.monotonic() - started
            if time.monotonic() - last_save > plan.checkpoint_s:
                save()
                last_save, unsaved = time.monotonic(), False
        score = validate()
        if score > progress.best + plan.min_delta:
            progress.best, progress.best_epoch = score, progress.epoch
            best_weights = _values(model.variables)
        mean_loss = float(np.mean(progress.losses))
        run.add_history(
            epoch=progress.epoch,
            loss=mean_loss,
            val_dice=score,
            seconds=round(time.monotonic() - started, 3),
            best_epoch=progress.best_epoch,
        )
        log.info("epoch %d: loss %.4f, val_dice %.4f", progress.epoch, mean_loss, score)
        waited = progress.epoch - progress.best_epoch
        progress.epoch, progress.step, progress.losses, progress.seconds = (
            progress.epoch + 1,
            0,
            [],
            0.0,
        )
        unsaved = True
        progress.finished = progress.epoch >= plan.epochs or waited >= plan.patience
        if progress.finished:
            save()
    if plan.keep_best:
        _assign(model.variables, best_weights)


def _training_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: Loss,
    signature: tuple[Any, Any],
    xla: bool,
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """One optimiser step on a batch, over all GPUs of the strategy in scope; returns the loss."""
    strategy = tf.distribute.get_strategy()

    def on_replica(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
            scaled = optimizer.scale_loss(value)
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    # One signature: tracing takes seconds, and the last batch of an epoch is often smaller.
    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=signature, jit_compile=xla, autograph=False
    )
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        values = strategy.run(on_replica, args=(x, y))
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)

    return step  # type: ignore[no-any-return]


def _arrays(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, best_weights: list[Any]
) -> checkpoints.Arrays:
    groups = {
        "model": _values(model.variables),
        "optimizer": _values(optimizer.variables),
        "best": best_weights,
    }
    return {
        f"{group}{index}": value
        for group, values in groups.items()
        for index, value in enumerate(values)
    }


def _restore(
    saved: tuple[checkpoints.Arrays, dict[str, Any]],
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
) -> tuple[list[Any], Progress]:
    arrays, state = saved
    _assign(model.variables, [arrays[f"model{i}"] for i in range(len(model.variables))])
    _assign(optimizer.variables, [arrays[f"optimizer{i}"] for i in range(len(optimizer.variables))])
    return [arrays[f"best{i}"] for i in range(len(model.variables))], Progress(**state)


def _values(variables: list[Any]) -> list[NDArray[Any]]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
