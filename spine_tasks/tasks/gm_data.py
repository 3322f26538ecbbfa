"""The slices that the grey-matter task trains on, and their batches (TensorFlow)."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spine_tasks.cell import Cell
from spine_tasks.configs import GmSegmentation
from spine_tasks.data.cases import cases_of, target
from spine_tasks.data.nifti import load_image, load_mask
from spine_tasks.data.slices import Mask, mask_to_slices, to_slices
from spine_tasks.errors import DataError
from spine_tasks.loop_keras import Batches
from spine_tasks.run import Run
from spine_tasks.tasks.gm_augment import augment, sample_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slices:
    """Network slices of one part: images (N, H, W) float32, masks (N, H, W) float32 of 0 and 1."""

    images: NDArray[np.float32]
    masks: NDArray[np.float32]


def load_part(cell: Cell, run: Run, part: str) -> Slices:
    """All slices of a part, in the order of its cases."""
    config = cell.config
    images, masks = [], []
    for case in cases_of(cell, part, run.folder.parent):
        image = load_image(case.image)
        slices, placement = to_slices(
            image,
            spacing_mm=config.spacing_mm,
            size_px=config.image_px,
            normalise=config.normalise,
            centre=crop_centre(config, image, case.masks.get("cord")),
        )
        images.append(slices)
        masks.append(mask_to_slices(load_mask(target(case)[1], image), placement))
    log.info("%s: %d cases, %d slices", part, len(images), sum(map(len, images)))
    return Slices(np.concatenate(images), np.concatenate(masks).astype(np.float32))


def augmented(part: Slices, seed: int) -> Slices:
    """One augmented variant of every slice, the same in every epoch."""
    images, masks = np.empty_like(part.images), np.empty_like(part.masks)
    for index in range(len(images)):
        image, mask = (tf.constant(side[index, ..., None]) for side in (part.images, part.masks))
        image, mask = augment(image, mask, sample_seed(seed, 0, index))
        images[index], masks[index] = image[..., 0], mask[..., 0]
    return Slices(images, masks)


def batches(part: Slices, config: GmSegmentation, seed: int) -> Batches:
    """Batches of an epoch from a step on; a sample depends on (seed, epoch, index) alone."""
    images, masks = part.images[..., None], part.masks[..., None]
    upcoming: list[tuple[int, int]] = []  # (epoch, index), read when an iteration begins

    # Slices go in one by one: TensorFlow would keep copies of arrays that it were given whole.
    def drawn() -> Iterator[tuple[Any, ...]]:
        return ((epoch, index, images[index], masks[index]) for epoch, index in upcoming)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def sample(
        epoch: tf.Tensor, index: tf.Tensor, image: tf.Tensor, mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return (
            augment(image, mask, sample_seed(seed, epoch, index))
            if config.augment
            else (image, mask)
        )

    # Built once: a new dataset an epoch would trace the augmentation anew each time.
    scalar, one = tf.TensorSpec((), tf.int32), tf.TensorSpec(images.shape[1:], tf.float32)
    dataset = (
        tf.data.Dataset.from_generator(drawn, output_signature=(scalar, scalar, one, one))
        .map(sample, num_parallel_calls=config.threads, deterministic=True)
        .batch(config.batch_size)
        .prefetch(2)
    )
    dataset = tf.distribute.get_strategy().experimental_distribute_dataset(dataset)

    def of_epoch(epoch: int, first_step: int) -> tf.data.Dataset:
        order = np.random.default_rng([seed, epoch]).permutation(len(images))
        upcoming[:] = [(epoch, index) for index in order[first_step * config.batch_size :]]
        return dataset

    return of_epoch


def crop_centre(config: GmSegmentation, image: Any, cord: Path | None) -> Literal["image"] | Mask:
    """What the crop is centred on."""
    if config.crop == "centre":
        return "image"
    if cord is None:
        raise DataError(
            f"{image.get_filename()}: crop=cord needs a cord mask beside the image, named "
            f"..._{config.cord_suffix}.nii.gz; add it, or use a network trained with crop=centre"
        )
    return load_mask(cord, image)
