"""Augmentation of one slice and its mask when it is drawn, in TensorFlow, from a stateless seed.

The published study [1]_ kept 17 copies of each slice in memory: the original and 16 made by
imgaug. Here every draw makes a new one, from the same ranges; the original keeps its share, 1 in
17. Differences from the copies: both geometric steps always happen (there each in half of the
copies), in one order and one interpolation, and repeat the edge (there the affine step left zeros);
the intensity steps keep one order; noise goes by the slice's range (there by a fixed scale);
nothing is normalised afterwards (there each slice was, which undid contrast).

References
----------
.. [1] https://github.com/ashwinkumargb/pediatric_gmseg
"""

import math

import tensorflow as tf

from spine_tasks.errors import DataError

COPIES = 17  # one of them is the original
CROP_PAD = 0.1  # of the side's length, drawn for each of the four sides: < 0 crops, > 0 pads
SCALE = (0.8, 1.1)  # for each axis
SHIFT = 0.1  # of the axis' length
ROTATION_DEG = 25.0
GAUSSIAN_SIGMA_PX = 1.5
BOX_WIDTHS_PX = (2, 4)
NOISE_SD = 25 / 500  # of the slice's range: 25 raw units on a scale that the study takes as 500
CONTRAST = (0.5, 1.5)
MOST_INTENSITY_STEPS = 5

# Eight times how far a pixel is above the mean of its neighbours.
EDGES = ((-1.0, -1.0, -1.0), (-1.0, 8.0, -1.0), (-1.0, -1.0, -1.0))
BLUR_RADIUS_PX = 5  # beyond three times the largest sigma


def sample_seed(seed: int | tf.Tensor, epoch: int | tf.Tensor, index: int | tf.Tensor) -> tf.Tensor:
    """The seed of one sample, int32 (2,); (seed 0, epoch 1) shares none with (seed 1, epoch 0)."""
    # One type for all: an int64, as datasets count, would give other numbers than an int32.
    first, second, third = (tf.cast(number, tf.int32) for number in (seed, epoch, index))
    return tf.random.fold_in(tf.random.fold_in(tf.stack([first, 0]), second), third)


def augment(image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A random variant of a slice and its mask; one time in 17 the two as they are.

    Parameters
    ----------
    image : float32 (H, W, 1)
        Intensities normalised to mean 0 and standard deviation 1; finite.
    mask : float32 (H, W, 1)
        0 or 1.
    seed : int32 (2,)
        All that the result depends on besides the two; see `sample_seed`.

    Returns
    -------
    image, mask
        Shapes and types as given; the mask is 0 or 1. What was outside the image repeats its
        nearest edge pixel in the image and is 0 in the mask: a repeated edge is no anatomy.

    Raises
    ------
    DataError
        The arrays are not float32 or not two times the same (H, W, 1).

    Examples
    --------
    >>> image, mask = tf.random.stateless_normal((2, 64, 48, 1), seed=(0, 0))
    >>> moved, moved_mask = augment(image, tf.cast(mask > 1, tf.float32), sample_seed(0, 3, 14))
    >>> moved.shape, moved_mask.shape
    (TensorShape([64, 48, 1]), TensorShape([64, 48, 1]))
    """
    image, mask = tf.convert_to_tensor(image), tf.convert_to_tensor(mask)
    _check(image, mask)
    keep, geometry, intensity = tf.unstack(tf.random.split(seed, 3))

    def changed() -> tuple[tf.Tensor, tf.Tensor]:
        moved, moved_mask = change_geometry(image, mask, geometry)
        return change_intensity(moved, intensity), moved_mask

    new_image, new_mask = tf.cond(_integer(keep, 1, COPIES) == 1, lambda: (image, mask), changed)
    return tf.ensure_shape(new_image, image.shape), tf.ensure_shape(new_mask, mask.shape)


def change_geometry(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Crop or pad each side, resize to the old size, scale, rotate and shift: all in one go.

    Arrays, fill and result as in `augment`.
    """
    transform = _output_to_input(tf.shape(image), seed)
    moved = _warp(image, transform, "NEAREST")
    # Linear and a threshold, since nearest-neighbour would shift edges by up to half a pixel.
    return moved, tf.cast(_warp(mask, transform, "CONSTANT") > 0.5, tf.float32)


def change_intensity(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Blur, sharpen, add noise and change contrast: a random 0 to 5 of these four.

    As in imgaug, five of four is all four; which ones is random, their order is as named, so that
    noise is neither blurred away nor sharpened. `image` is float32 (H, W, 1).
    """
    keys = tf.random.split(seed, 6)
    noise_sd = NOISE_SD * (tf.reduce_max(image) - tf.reduce_min(image))
    steps = (blur, sharpen, lambda now, key: add_noise(now, key, noise_sd), change_contrast)
    count = _integer(keys[0], 0, MOST_INTENSITY_STEPS)
    rank = tf.random.experimental.stateless_shuffle(tf.range(len(steps)), keys[1])
    for number, step in enumerate(steps):
        image = tf.cond(
            rank[number] < count,
            lambda now=image, step=step, key=keys[2 + number]: step(now, key),
            lambda now=image: now,
        )
    return image


def blur(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Gaussian or box, by equal chance; both symmetric, so that nothing moves off its mask."""
    which, sigma_key, width_key = tf.unstack(tf.random.split(seed, 3))
    distance = tf.abs(tf.range(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, dtype=tf.float32))
    (sigma,) = _uniform(sigma_key, 1, 0.0, GAUSSIAN_SIGMA_PX)
    gaussian = tf.exp(-0.5 * tf.square(distance / tf.maximum(sigma, 1e-3)))
    half_width = tf.cast(_integer(width_key, *BOX_WIDTHS_PX), tf.float32) / 2
    box = tf.clip_by_value(half_width + 0.5 - distance, 0.0, 1.0)  # a pixel at the end counts half
    weights = tf.where(_integer(which, 0, 1) == 0, gaussian, box)
    weights /= tf.reduce_sum(weights)
    return _filter(_filter(image, weights[:, None]), weights[None, :])


def sharpen(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Add 0 to 8 times the difference between a pixel and the mean of its eight neighbours."""
    (strength,) = _uniform(seed, 1, 0.0, 1.0)
    return image + strength * _filter(image, tf.constant(EDGES))


def add_noise(image: tf.Tensor, seed: tf.Tensor, largest_sd: tf.Tensor) -> tf.Tensor:
    """Add Gaussian noise, independent in each pixel, of a standard deviation 0 to `largest_sd`."""
    sd_key, noise_key = tf.unstack(tf.random.split(seed, 2))
    (fraction,) = _uniform(sd_key, 1, 0.0, 1.0)
    return image + fraction * largest_sd * tf.random.stateless_normal(tf.shape(image), noise_key)


def change_contrast(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Stretch about 0, the mean of normalised intensities."""
    (factor,) = _uniform(seed, 1, *CONTRAST)
    return image * factor


def _check(image: tf.Tensor, mask: tf.Tensor) -> None:
    for name, array, shape in (("image", image, (None, None, 1)), ("mask", mask, image.shape)):
        if array.dtype != tf.float32 or not array.shape.is_compatible_with(shape):
            raise DataError(
                f"augment: image and mask must be float32 and both of one shape (H, W, 1); got "
                f"{name} {array.dtype.name} {array.shape}; give one slice at a time"
            )


def _integer(seed: tf.Tensor, low: int, high: int) -> tf.Tensor:
    """A whole number from `low` to `high`, both included."""
    return tf.random.stateless_uniform((), seed, low, high + 1, tf.int32)


def _uniform(seed: tf.Tensor, count: int, low: float, high: float) -> list[tf.Tensor]:
    return list(tf.unstack(tf.random.stateless_uniform((count,), seed, low, high)))


def _output_to_input(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Where each pixel of the result comes from: rows 1 and 2 of the 3x3 matrix, then 0, 0.

    In pixels from the image's centre, with u = (x, y): the affine step takes u to R S u + shift,
    so back it is u = S^-1 R^-1 (u' - shift); before it, the crop or pad maps u to zoom u + offset,
    where zoom is the cropped side by the old one.
    """
    keys = tf.random.split(seed, 4)
    height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
    top, bottom, left, right = _uniform(keys[0], 4, -CROP_PAD, CROP_PAD)
    scale_x, scale_y = _uniform(keys[1], 2, *SCALE)
    shift_x, shift_y = _uniform(keys[2], 2, -SHIFT, SHIFT)
    (angle,) = _uniform(keys[3], 1, -math.radians(ROTATION_DEG), math.radians(ROTATION_DEG))

    zoom_x, zoom_y = (1 + left + right) / scale_x, (1 + top + bottom) / scale_y
    a, b = zoom_x * tf.cos(angle), zoom_x * tf.sin(angle)
    c, d = -zoom_y * tf.sin(angle), zoom_y * tf.cos(angle)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    from_x, from_y = centre_x + shift_x * width, centre_y + shift_y * height
    to_x = centre_x + width * (right - left) / 2
    to_y = centre_y + height * (bottom - top) / 2
    offset_x, offset_y = to_x - a * from_x - b * from_y, to_y - c * from_x - d * from_y
    return tf.stack([a, b, offset_x, c, d, offset_y, 0.0, 0.0])


def _warp(array: tf.Tensor, transform: tf.Tensor, fill_mode: str) -> tf.Tensor:
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=array[None],
        transforms=transform[None],
        output_shape=tf.shape(array)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill_mode,
    )
    return warped[0]


def _filter(image: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`image` (H, W, 1) convolved with a symmetric `kernel` of odd sides; edges are repeated."""
    for axis in (0, 1):
        radius, length = kernel.shape[axis] // 2, tf.shape(image)[axis]
        nearest = tf.clip_by_value(tf.range(-radius, length + radius), 0, length - 1)
        image = tf.gather(image, nearest, axis=axis)  # tf.pad cannot repeat edges
    return tf.nn.conv2d(image[None], kernel[:, :, None, None], 1, "VALID")[0]
