"""The loop resumes bit for bit at any step, and stops and keeps what it should."""

import dataclasses

import numpy as np
import pytest
from making import python

from spine_tasks.errors import Interrupted
from spine_tasks.run import Run

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra `gm`)")
keras = tf.keras

from spine_tasks.loop_keras import Plan, fit  # noqa: E402 (after the check for TensorFlow)

SAMPLES = 12
STEPS = 3  # batches of 4
PLAN = Plan(epochs=3, patience=10, min_delta=0.0, keep_best=False, checkpoint_s=1e9)


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


def network():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=7),
            keras.layers.Dense(1),
        ]
    )


def batches(epoch, first_step):
    rng = np.random.default_rng([5, epoch])
    order = rng.permutation(SAMPLES)[first_step * 4 :]
    x = np.random.default_rng(0).normal(size=(SAMPLES, 3)).astype(np.float32)
    y = x.sum(axis=1, keepdims=True)
    return tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(4)


def squared_error(y, predicted):
    return tf.reduce_mean(tf.square(y - predicted))


def trained(run, plan=PLAN, scores=None, loss=squared_error):
    """The weights after training; `scores` replaces the validation score of each epoch."""
    model = network()

    def validate():
        return scores[len(run.history())] if scores else -float(np.sum(model.get_weights()[0]))

    fit(run, model, keras.optimizers.Adam(0.05), loss, batches, validate, plan)
    return model.get_weights()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def without_time(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("never"))
    return trained(run), run.history()


@pytest.mark.parametrize("looks", range(STEPS * PLAN.epochs))
def test_a_run_stopped_at_any_step_ends_as_one_never_stopped(tmp_path, never_stopped, looks):
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, looks))
    run = Run(tmp_path)
    assert same(trained(run), never_stopped[0])
    assert without_time(run.history()) == without_time(never_stopped[1])


def test_a_run_stopped_at_every_step_still_ends_the_same(tmp_path, never_stopped):
    for _ in range(STEPS * PLAN.epochs - 1):  # after the last step nothing is left to stop
        with pytest.raises(Interrupted):
            trained(StopsAfter(tmp_path, 1))
    assert same(trained(Run(tmp_path)), never_stopped[0])


def test_history_beyond_the_checkpoint_is_trained_and_written_again(tmp_path, never_stopped):
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, STEPS))  # the checkpoint is of epoch 1
    run = Run(tmp_path)
    run.add_history(epoch=1, loss=9.0, val_dice=9.0, seconds=0, best_epoch=1)  # then killed
    trained(run)
    assert without_time(run.history()) == without_time(never_stopped[1])


def test_a_finished_run_is_not_trained_again(tmp_path, never_stopped):
    trained(Run(tmp_path))
    before = Run(tmp_path).history()
    assert same(trained(Run(tmp_path)), never_stopped[0])
    assert Run(tmp_path).history() == before


def test_an_attempt_that_makes_no_step_writes_no_checkpoint(tmp_path, never_stopped):
    # A new file would look like progress, and an attempt that dies at once be made again for ever.
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, 0))
    assert Run(tmp_path).saved_ns() is None
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, 2))
    saved = Run(tmp_path).saved_ns()
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, 0))
    assert Run(tmp_path).saved_ns() == saved
    assert same(trained(Run(tmp_path)), never_stopped[0])
    saved = Run(tmp_path).saved_ns()
    trained(Run(tmp_path))
    assert Run(tmp_path).saved_ns() == saved


def test_training_stops_when_patience_is_over(tmp_path):
    plan = dataclasses.replace(PLAN, epochs=20, patience=2, min_delta=0.1)
    run = Run(tmp_path)
    trained(run, plan, scores=[0.1, 0.5, 0.55, 0.59, 0.9])  # .55 and .59 are not .1 better than .5
    assert [row["epoch"] for row in run.history()] == [0, 1, 2, 3]
    assert run.history()[-1]["best_epoch"] == 1


def test_patience_is_counted_across_a_stop(tmp_path):
    plan = dataclasses.replace(PLAN, epochs=20, patience=3)
    scores = [0.5, 0.4, 0.4, 0.4, 0.9]
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path, 2 * STEPS + 1), plan, scores)
    run = Run(tmp_path)
    trained(run, plan, scores)
    assert len(run.history()) == 4


def test_the_best_epochs_weights_are_kept_also_across_a_stop(tmp_path, never_stopped):
    best_first = dataclasses.replace(PLAN, keep_best=True)
    scores = [0.9, 0.1, 0.1]
    with pytest.raises(Interrupted):
        trained(StopsAfter(tmp_path / "a", 2 * STEPS), best_first, scores)
    best = trained(Run(tmp_path / "a"), best_first, scores)
    one_epoch = trained(Run(tmp_path / "b"), dataclasses.replace(PLAN, epochs=1), scores)
    assert same(best, one_epoch)
    assert not same(best, never_stopped[0])


def test_a_loss_that_is_not_finite_ends_training_and_is_not_saved(tmp_path):
    def breaks(y, predicted):
        return squared_error(y, predicted) * np.nan

    with pytest.raises(FloatingPointError, match="epoch 0, step 0: the loss is nan"):
        trained(Run(tmp_path), loss=breaks)
    assert not (tmp_path / "checkpoint").exists()


def test_a_checkpoint_is_written_when_its_time_has_come(tmp_path, never_stopped):
    often = dataclasses.replace(PLAN, checkpoint_s=0.0)
    with pytest.raises(IndexError):  # the attempt dies in its second validation
        trained(Run(tmp_path), often, scores=[0.0])
    with np.load(tmp_path / "checkpoint" / "last.npz") as saved:
        assert b'"epoch": 1, "step": 3' in bytes(saved["state"])


TWO_DEVICES = """
import sys, numpy as np, tensorflow as tf, keras
from pathlib import Path
sys.path.insert(0, sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from spine_tasks.loop_keras import Plan, fit
from spine_tasks.run import Run

def train(folder, strategy):
    with strategy.scope():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
        x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
        data = tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1, keepdims=True))).batch(4)
        data = strategy.experimental_distribute_dataset(data)
        plan = Plan(epochs=3, patience=9, min_delta=0, keep_best=False, checkpoint_s=1e9)
        loss = lambda y, p: tf.reduce_mean(tf.square(y - p))
        fit(Run(Path(folder)), model, keras.optimizers.Adam(0.05), loss, lambda e, s: data,
            lambda: 0.0, plan)
    return model.get_weights()

one = train(sys.argv[2] + "/one", tf.distribute.get_strategy())
two = train(sys.argv[2] + "/two", tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(one, two, strict=True)), (one, two)
"""


def test_two_devices_train_as_one_does(tmp_path):
    answer = python(TWO_DEVICES, "tests", tmp_path)
    assert answer.returncode == 0, answer.stderr[-2000:]
