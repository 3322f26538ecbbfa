"""What both sides of benchmarks/grey_matter.py are given, and what ours does with it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import keras
import nibabel as nib
import numpy as np
import tensorflow as tf
from nibabel import orientations
from scipy.ndimage import gaussian_filter

from spine_tasks.configs import GmSegmentation
from spine_tasks.data.slices import Mask
from spine_tasks.loop_keras import _training_step
from spine_tasks.tasks import gm
from spine_tasks.tasks.gm_data import Slices, batches
from spine_tasks.tasks.gm_model import load_keras2_weights
from spine_tasks.tasks.gm_segment import segment

IMAGE = "sct-testing/t2s/t2s_uncropped.nii.gz"
WEIGHTS = "weights/deepseg_gm/challenge_model.hdf5"
SHAPE = (320, 320, 11)  # voxels of the real image, and of a made-up one
MATRIX = 4096  # rows and columns


@dataclass(frozen=True)
class Setting:
    """What is the same on both sides."""

    config: GmSegmentation
    gpu: bool
    data: Path | None  # with a real image and the official weights; None: made-up ones


def made_up(count: int, px: int) -> Slices:
    """Noise with some grey matter."""
    images = np.random.default_rng(0).normal(size=(count, px, px)).astype(np.float32)
    return Slices(images, (images > 2.5).astype(np.float32))


def volume(setting: Setting, slices: int) -> Any:
    """An image in memory, as the weights expect its axes; slices repeat if it has too few."""
    if setting.data:
        image: Any = nib.load(setting.data / IMAGE)
    else:
        noise = np.random.default_rng(0).normal(400, 100, SHAPE)
        image = nib.Nifti1Image(gaussian_filter(noise, (2, 2, 0)), np.diag([-0.5, 0.5, 7.5, 1]))
    own, las = orientations.io_orientation(image.affine), orientations.axcodes2ornt("LAS")
    image = image.as_reoriented(orientations.ornt_transform(own, las))
    chosen = np.arange(slices) % image.shape[2]
    return nib.Nifti1Image(image.get_fdata()[:, :, chosen], image.affine)


def give_weights(model: keras.Model, setting: Setting) -> None:
    """The official weights; without them some that are drawn, the same for whoever asks."""
    if setting.data:
        load_keras2_weights(model, setting.data / WEIGHTS)
        return
    rng = np.random.default_rng(0)
    for layer in sorted(model.layers, key=lambda one: one.name):
        if isinstance(layer, keras.layers.Conv2D):
            shape = tuple(layer.kernel.shape)
            layer.kernel.assign(rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape))


def resident_bytes() -> int:
    """Of this process, in memory now."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


class OurTraining:
    """The step as the loop makes it."""

    def __init__(self, setting: Setting) -> None:
        self.config = setting.config
        gm.use_this_machine(self.config, int(setting.gpu), 0)
        self.model = gm.build(self.config)
        self.optimizer = gm._optimizer(self.config)
        self.optimizer.build(self.model.trainable_variables)
        self.matrix = tf.random.normal((MATRIX, MATRIX))
        self.epochs = count()
        self._step, self._batches = cache(self._step), cache(self._batches)

    def train(self, steps: int, slices: int, px: int) -> None:
        """Steps on a batch in memory."""
        x, y = self._batch(slices, px)
        for _ in range(steps):
            float(self._step(px)(x, y))

    def train_fed(self, steps: int) -> None:
        """An epoch of as many steps, its slices augmented on the way."""
        step = self._step(self.config.image_px)
        for x, y in self._batches(steps * self.config.batch_size)(next(self.epochs), 0):
            float(step(x, y))

    def read(self, slices: int) -> None:
        """An epoch of slices that nothing is done with."""
        for _ in self._batches(slices)(next(self.epochs), 0):
            pass

    def multiply(self) -> None:
        """Two large matrices."""
        tf.matmul(self.matrix, self.matrix).numpy()

    def parameters(self) -> int:
        """Of the network."""
        return int(self.model.count_params())

    def operations(self) -> int:
        """Multiplications and additions of a step: backward is twice forward."""
        kernels = [one.kernel for one in self.model.layers if isinstance(one, keras.layers.Conv2D)]
        per_pixel = 2 * 3 * sum(int(np.prod(kernel.shape)) for kernel in kernels)
        return per_pixel * self.config.batch_size * self.config.image_px**2

    def _batch(self, slices: int, px: int) -> tuple[tf.Tensor, tf.Tensor]:
        part = made_up(slices, px)
        return tf.constant(part.images[..., None]), tf.constant(part.masks[..., None])

    def _step(self, px: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        signature = tf.TensorSpec((None, px, px, 1), tf.float32)
        return _training_step(
            self.model, self.optimizer, gm.dice_loss, (signature, signature), self.config.xla
        )

    def _batches(self, slices: int) -> Any:
        return batches(made_up(slices, self.config.image_px), self.config, 0)


class OurInput:
    """Slices of the training part, ready to be drawn."""

    def __init__(self, setting: Setting) -> None:
        self.config = setting.config
        gm.use_this_machine(self.config, int(setting.gpu), 0)

    def keep(self, slices: int) -> int:
        """Bytes that they, and an epoch of them, add to this process."""
        before = resident_bytes()
        self.batches = batches(made_up(slices, self.config.image_px), self.config, 0)
        for _ in self.batches(0, 0):
            pass
        return resident_bytes() - before


class OurPrediction:
    """The network and the steps around it, as a case is predicted."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.config = setting, setting.config
        gm.use_this_machine(self.config, int(setting.gpu), 0)
        model = gm.build(self.config)
        give_weights(model, setting)
        self.network = gm.predicting(model, self.config)
        self.image = volume(setting, 1)

    def take(self, slices: int) -> None:
        """Hold the image that is to be segmented."""
        self.image = volume(self.setting, slices)

    def segment(self) -> Mask:
        """From the image to its mask."""
        return segment(self.network, self.image, threshold=self.config.threshold)
