"""Grey-matter segmentation: train one cell and predict its test part (TensorFlow/Keras)."""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spine_tasks.cell import Cell
from spine_tasks.configs import GmSegmentation
from spine_tasks.data.bids import Case
from spine_tasks.data.cases import cases_of
from spine_tasks.data.nifti import load_image, save_mask
from spine_tasks.errors import ConfigError, Interrupted, WeightsError
from spine_tasks.files import replacing
from spine_tasks.loop_keras import Plan, fit
from spine_tasks.run import Run
from spine_tasks.tasks import gm_model
from spine_tasks.tasks.gm_data import augmented, batches, crop_centre, load_part
from spine_tasks.tasks.gm_segment import probabilities, segment
from spine_tasks.weights import find

log = logging.getLogger(__name__)

WEIGHTS_FILE = "model.weights.h5"  # in a run's folder: what predicted


def train(cell: Cell, run: Run) -> None:
    """Train the cell from the run's checkpoint, keep the chosen weights, predict the test part."""
    config = cell.config
    use_this_machine(config, cell.resources.gpus, cell.seed)
    with _strategy().scope():
        model = build(config, cell.seed)
        if config.init == "pretrained":
            load_weights(model, _start(cell, run))
        network = Forward(model)
        training, validation = (load_part(cell, run, part) for part in ("train", "val"))
        if config.augment_validation:
            validation = augmented(validation, cell.seed)
        fit(
            run,
            model,
            _optimizer(config),
            dice_loss,
            batches(training, config, cell.seed),
            lambda: soft_dice(validation.masks, probabilities(network, validation.images)),
            Plan(
                epochs=config.epochs,
                patience=config.patience,
                min_delta=config.min_delta,
                keep_best=config.keep == "best",
                checkpoint_s=cell.resources.checkpoint_s,
                xla=config.xla,
            ),
        )
    with replacing(run.folder / WEIGHTS_FILE) as file:
        model.save_weights(file)
    network = predicting(model, config)
    for case in cases_of(cell, "test", run.folder.parent):
        if run.stop_requested:
            raise Interrupted("stopped while predicting")
        _predict(network, config, case, run.predictions / f"{case.id}.nii.gz")


def predictor(config: GmSegmentation, weights: Path) -> Callable[[Case, Path], None]:
    """Ready this process and the network; returns what predicts a case into a mask file.

    Parameters
    ----------
    config
        Its knobs of input, output, network and machine are used.
    weights
        A weights file, or the folder of a complete run.

    Raises
    ------
    WeightsError
        The run keeps no weights, or the file is not of this network.
    """
    file = weights / WEIGHTS_FILE if weights.is_dir() else weights
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; put it back, or choose a run that has its own")
    use_this_machine(config, gpus=0, seed=0)
    model = build(config)
    load_weights(model, file)
    return partial(_predict, predicting(model, config), config)


class Forward:
    """A network in prediction, traced once; Keras's own `predict` traces each batch size anew."""

    def __init__(self, model: keras.Model) -> None:
        slices = tf.TensorSpec((None, None, None, 1), tf.float32)
        self._call = tf.function(
            lambda x: model(x, training=False), input_signature=[slices], autograph=False
        )

    def predict_on_batch(self, x: NDArray[np.float32], /) -> tf.Tensor:
        """Probabilities (B, H, W, 1) of slices (B, H, W, 1)."""
        return self._call(x)


def predicting(model: keras.Model, config: GmSegmentation) -> Forward:
    """The trained network as it predicts cases."""
    return Forward(gm_model.for_prediction(model) if config.precision == "float32" else model)


def build(config: GmSegmentation, seed: int = 0) -> keras.Model:
    """The untrained network of a config."""
    return gm_model.build(config.filters, config.dropout, seed=seed, dtype=config.precision)


def use_this_machine(config: GmSegmentation, gpus: int, seed: int) -> None:
    """Fix threads, devices and random seeds, so that equal cells give equal bits on a CPU.

    Raises
    ------
    ConfigError
        GPUs were asked for and given to this process, and TensorFlow cannot use them.
    """
    tf.config.threading.set_intra_op_parallelism_threads(config.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if not gpus:
        tf.config.set_visible_devices([], "GPU")
    devices = tf.config.get_visible_devices("GPU")
    if gpus and not devices:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        if given:  # else a GPU would be held for hours while the CPU works
            raise ConfigError(
                f"this process was given GPU {given}, but TensorFlow sees none: install "
                "tensorflow[and-cuda] or load the site's CUDA in its profile's `setup`; or ask for "
                "none: --set resources.gpus=0"
            )
        log.info("no GPU here: on the CPU")
    for device in devices:
        tf.config.experimental.set_memory_growth(device, True)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)


def load_weights(model: keras.Model, file: Path) -> None:
    """Load a run's own weights or the official Keras 2 hdf5 into the network.

    Raises
    ------
    WeightsError
        There is no such file, it is of another architecture, or is not a weights file.
    """
    log.info("weights from %s", file)
    if not file.exists():
        raise WeightsError(
            f"{file} is missing; put it back, or delete done.json beside it and launch the grid "
            "again: it trains that cell anew"
        )
    if not file.name.endswith(WEIGHTS_FILE):
        gm_model.load_keras2_weights(model, file)
        return
    try:
        model.load_weights(file)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise WeightsError(
            f"{file}: not the weights of a grey-matter network of this size ({first}); "
            "choose a run with the same `filters`"
        ) from error


def _predict(network: Forward, config: GmSegmentation, case: Case, file: Path) -> None:
    """Segment a case into a mask file on the image's own voxel grid."""
    image = load_image(case.image)
    mask = segment(
        network,
        image,
        spacing_mm=config.spacing_mm,
        size_px=config.image_px,
        normalise=config.normalise,
        threshold=config.threshold,
        tta=config.tta,
        centre=crop_centre(config, image, case.masks.get("cord")),
    )
    save_mask(file, mask, image)


def dice_loss(masks: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """Minus the smoothed soft Dice of a whole batch, as published; in [-1, 0)."""
    masks = tf.cast(masks, tf.float32)
    both = tf.reduce_sum(masks * predicted)
    return -(2.0 * both + 1.0) / (tf.reduce_sum(masks) + tf.reduce_sum(predicted) + 1.0)


def soft_dice(masks: NDArray[np.float32], predicted: NDArray[np.float32]) -> float:
    """Smoothed soft Dice over all slices of a part together, in (0, 1].

    Examples
    --------
    >>> truth = np.ones((1, 2, 2), np.float32)
    >>> soft_dice(truth, truth), soft_dice(truth, 0 * truth)
    (1.0, 0.2)
    """
    both = np.sum(masks * predicted, dtype=np.float64)
    total = np.sum(masks, dtype=np.float64) + np.sum(predicted, dtype=np.float64)
    return float((2 * both + 1) / (total + 1))


def _start(cell: Cell, run: Run) -> Path:
    """The weights file that a pretrained cell starts from."""
    if cell.config.start is not None:
        return find(cell.config.start)
    if not cell.needs:
        raise ConfigError(
            "init=pretrained needs weights: give weights=challenge, or a file, or a grid whose "
            "`needs` trains them"
        )
    return run.needed().folder / WEIGHTS_FILE


def _strategy() -> tf.distribute.Strategy:
    several = len(tf.config.get_visible_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def _optimizer(config: GmSegmentation) -> keras.optimizers.Optimizer:
    adam = keras.optimizers.Adam(config.learning_rate)
    # Half precision loses small gradients unless the loss is scaled up; bfloat16 does not.
    return (
        keras.optimizers.LossScaleOptimizer(adam) if config.precision == "mixed_float16" else adam
    )
