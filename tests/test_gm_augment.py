import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from scipy import ndimage  # noqa: E402

from spine_tasks.errors import DataError  # noqa: E402
from spine_tasks.tasks import gm_augment  # noqa: E402
from spine_tasks.tasks.gm_augment import augment, sample_seed  # noqa: E402

HEIGHT, WIDTH = 61, 81  # odd, so that there is a centre pixel; unequal, so that axes show
# In the order in which they happen, with the values that change nothing.
GEOMETRY = {"CROP_PAD": 0.0, "SCALE": (1.0, 1.0), "ROTATION_DEG": 0.0, "SHIFT": 0.0}


def over_seeds(function, count):
    """`function` of `count` seeds, in one traced pipeline, as arrays with the seed first."""
    samples = tf.data.Dataset.range(count).map(lambda index: function(sample_seed(7, 0, index)))
    return tf.nest.map_structure(lambda a: a.numpy(), samples.batch(count).get_single_element())


def noisy_slice(height=48, width=40):
    image = tf.random.stateless_normal((height, width, 1), seed=(1, 2))
    return image, tf.cast(image > 1, tf.float32)


def disc(size=64, centre=(28, 36), radius=8):
    row, column = np.indices((size, size))
    inside = np.hypot(row - centre[0], column - centre[1]) <= radius
    return inside[..., None].astype(np.float32)


def transforms(count):
    """The 3x3 matrices, from a pixel (x, y, 1) of the result to one of the input, as drawn.

    They are read off images of the coordinates, which linear interpolation keeps exactly.
    """
    rows, columns = np.indices((HEIGHT, WIDTH), dtype=np.float32)[..., None]
    sources = [
        over_seeds(lambda seed, a=a: gm_augment.change_geometry(a, a, seed)[0], count)[..., 0]
        for a in (columns, rows)
    ]
    y, x, step = HEIGHT // 2, WIDTH // 2, 5
    matrices = np.tile(np.eye(3), (count, 1, 1))
    for row, source in enumerate(sources):
        matrices[:, row, 0] = (source[:, y, x + step] - source[:, y, x - step]) / (2 * step)
        matrices[:, row, 1] = (source[:, y + step, x] - source[:, y - step, x]) / (2 * step)
        matrices[:, row, 2] = source[:, y, x] - matrices[:, row, :2] @ (x, y)
    return matrices


def transforms_with(monkeypatch, count, *knobs):
    """As `transforms`, with no other change than those of `knobs`."""
    with monkeypatch.context() as only:
        for knob, nothing in GEOMETRY.items():
            if knob not in knobs:
                only.setattr(gm_augment, knob, nothing)
        return transforms(count)


def assert_within_and_nearly_reached(values, low, high):
    margin = 0.05 * (high - low)
    assert low - 1e-3 <= values.min() <= low + margin
    assert high - margin <= values.max() <= high + 1e-3


def test_a_bright_disc_and_its_mask_keep_one_centroid():
    image = disc()
    images, masks = over_seeds(lambda seed: augment(5 * image, image, seed), 120)
    differences = []
    for moved, mask in zip(images[..., 0], masks[..., 0], strict=True):
        bright = moved > np.median(moved[mask == 1]) / 2
        centroids = [ndimage.center_of_mass(part) for part in (bright, mask)]
        differences.append(np.subtract(*centroids))
    assert np.abs(differences).max() < 0.5  # px: noise decides on edge pixels that are half bright
    assert np.abs(np.mean(differences, axis=0)).max() < 0.02  # but there is no side to it


def test_each_side_is_cropped_or_padded_by_up_to_a_tenth(monkeypatch):
    drawn = transforms_with(monkeypatch, 100, "CROP_PAD")
    for axis, length in ((0, WIDTH), (1, HEIGHT)):
        # Where the outer edges of the result (half a pixel outside) were in the input.
        first = drawn[:, axis, axis] * -0.5 + drawn[:, axis, 2] + 0.5
        last = drawn[:, axis, axis] * (length - 0.5) + drawn[:, axis, 2] + 0.5 - length
        assert_within_and_nearly_reached(first / length, -0.1, 0.1)
        assert_within_and_nearly_reached(last / length, -0.1, 0.1)
        assert abs(np.corrcoef(first, last)[0, 1]) < 0.3  # the sides are drawn independently


def test_each_axis_is_scaled_by_eight_to_eleven_tenths_about_the_centre(monkeypatch):
    drawn = transforms_with(monkeypatch, 100, "SCALE")
    scale_x, scale_y = 1 / drawn[:, 0, 0], 1 / drawn[:, 1, 1]
    assert_within_and_nearly_reached(scale_x, 0.8, 1.1)
    assert_within_and_nearly_reached(scale_y, 0.8, 1.1)
    assert abs(np.corrcoef(scale_x, scale_y)[0, 1]) < 0.3
    centre = np.array([WIDTH // 2, HEIGHT // 2, 1])
    assert np.abs(drawn @ centre - centre).max() < 1e-3


def test_each_axis_is_shifted_by_up_to_a_tenth_of_its_length(monkeypatch):
    drawn = transforms_with(monkeypatch, 100, "SHIFT")
    assert_within_and_nearly_reached(drawn[:, 0, 2] / WIDTH, -0.1, 0.1)
    assert_within_and_nearly_reached(drawn[:, 1, 2] / HEIGHT, -0.1, 0.1)


def test_rotation_is_rigid_about_the_centre_and_up_to_25_degrees(monkeypatch):
    drawn = transforms_with(monkeypatch, 100, "ROTATION_DEG")
    degrees = np.degrees(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert_within_and_nearly_reached(degrees, -25, 25)
    turns = drawn[:, :2, :2]
    assert turns @ turns.transpose(0, 2, 1) == pytest.approx(
        np.tile(np.eye(2), (100, 1, 1)), abs=1e-3
    )
    centre = np.array([WIDTH // 2, HEIGHT // 2, 1])
    assert np.abs(drawn @ centre - centre).max() < 1e-3


def test_the_whole_is_crop_then_scale_then_rotation_then_shift(monkeypatch):
    whole = transforms(40)
    crop, scale, turn, shift = (transforms_with(monkeypatch, 40, knob) for knob in GEOMETRY)
    # From the result back to the input, so the last change comes first.
    assert whole == pytest.approx(crop @ scale @ turn @ shift, abs=0.01)


def test_the_image_equals_scipys_linear_interpolation_with_repeated_edges():
    image = tf.random.stateless_normal((HEIGHT, WIDTH, 1), seed=(3, 4))
    warped = over_seeds(lambda seed: gm_augment.change_geometry(image, image, seed)[0], 20)
    for ours, matrix in zip(warped[..., 0], transforms(20), strict=True):
        flipped = matrix[[1, 0, 2]][:, [1, 0, 2]]  # scipy counts (row, column)
        theirs = ndimage.affine_transform(image[..., 0], flipped, order=1, mode="nearest")
        assert ours == pytest.approx(theirs, abs=0.02)


def test_outside_the_image_repeats_its_edge_and_has_no_mask():
    ones = np.ones((32, 32, 1), np.float32)
    images, masks = over_seeds(lambda seed: gm_augment.change_geometry(ones, ones, seed), 50)
    assert images == pytest.approx(1)
    assert masks.min() == 0  # some corners came from outside
    assert (masks[:, 12:20, 12:20] == 1).all()


def test_one_sample_in_seventeen_is_left_as_it_is():
    image, mask = noisy_slice(16, 16)
    images, masks = over_seeds(lambda seed: augment(image, mask, seed), 1700)
    same = (images == image.numpy()).all((1, 2, 3))
    assert 100 - 29 < same.sum() < 100 + 29  # three standard deviations
    assert (masks[same] == mask.numpy()).all()


def test_none_to_all_four_intensity_steps_happen():
    image, _ = noisy_slice(16, 16)
    images = over_seeds(lambda seed: gm_augment.change_intensity(image, seed), 600)
    untouched = (images == image.numpy()).all((1, 2, 3)).mean()
    assert untouched == pytest.approx(1 / 6, abs=0.046)  # 0 of 0, 1, 2, 3, 4, 5


def test_each_intensity_step_happens_in_14_of_24_samples():
    flat = tf.ones((8, 8, 1))  # only contrast changes it: it has no edges and no range
    images = over_seeds(lambda seed: gm_augment.change_intensity(flat, seed), 600)
    changed = (np.abs(images - 1) > 1e-3).all((1, 2, 3)).mean()
    assert changed == pytest.approx((0 + 1 + 2 + 3 + 4 + 4) / 6 / 4, abs=0.06)


def test_contrast_stretches_by_half_to_one_and_a_half():
    image = tf.constant([[[-2.0], [0.0], [2.0]]])
    images = over_seeds(lambda seed: gm_augment.change_contrast(image, seed), 200)[:, 0, :, 0]
    assert (images[:, 1] == 0).all()
    assert (images[:, 0] == -images[:, 2]).all()
    assert_within_and_nearly_reached(images[:, 2] / 2, 0.5, 1.5)


def test_blur_keeps_sum_and_symmetry_of_a_point_up_to_a_sigma_of_1_5_px():
    point = np.zeros((15, 15, 1), np.float32)
    point[7, 7] = 1
    images = over_seeds(lambda seed: gm_augment.blur(point, seed), 200)[..., 0]
    assert images.sum((1, 2)) == pytest.approx(1, abs=1e-5)
    for turned in (images[:, ::-1], images[:, :, ::-1], images.transpose(0, 2, 1)):
        assert images == pytest.approx(turned, abs=1e-6)
    variances = (images.sum(1) * (np.arange(15) - 7) ** 2).sum(1)
    # A box two wide is (1 2 1)/4, three (1 1 1)/3, four (1 2 2 2 1)/8.
    for box in (1 / 2, 2 / 3, (2 * 4 * 1 + 2 * 1 * 2) / 8):
        assert (np.abs(variances - box) < 1e-5).sum() > 15
    gaussian = np.abs(variances[:, None] - (1 / 2, 2 / 3, 3 / 2)).min(1) > 1e-5
    assert gaussian.sum() > 70
    assert_within_and_nearly_reached(variances[gaussian], 0, 1.5**2 + 0.005)


def test_sharpening_raises_a_point_by_up_to_eight_and_lowers_its_neighbours_by_as_much():
    point = np.zeros((5, 5, 1), np.float32)
    point[2, 2] = 1
    images = over_seeds(lambda seed: gm_augment.sharpen(point, seed), 200)[..., 0]
    assert_within_and_nearly_reached(images[:, 2, 2] - 1, 0, 8)
    assert images[:, 1, 1] == pytest.approx(-(images[:, 2, 2] - 1) / 8, abs=1e-5)
    assert images.sum((1, 2)) == pytest.approx(1, abs=1e-4)
    assert (images[:, 0] == 0).all()


def test_noise_is_at_most_5_percent_of_the_range_and_new_in_each_pixel(monkeypatch):
    for step in ("blur", "sharpen", "change_contrast"):
        monkeypatch.setattr(gm_augment, step, lambda image, seed: image)
    image = np.full((64, 64, 1), 3, np.float32)
    image[0, 0] = 13  # a range of 10
    images = over_seeds(lambda seed: gm_augment.change_intensity(image, seed), 200)
    noise = (images - image)[..., 0]
    sd = noise.std((1, 2))
    assert 0.9 * 250 / 500 < sd.max() < 1.05 * 250 / 500
    assert np.abs(noise.mean((1, 2))).max() < 0.05
    loud = noise[sd > 0.5]
    assert (
        np.abs([np.corrcoef(a[:, 1:].ravel(), a[:, :-1].ravel())[0, 1] for a in loud]).max() < 0.1
    )


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (48, 40), (5, 200)])
def test_any_size_keeps_shape_type_a_finite_image_and_a_binary_mask(shape):
    image, mask = noisy_slice(*shape)
    images, masks = over_seeds(lambda seed: augment(image, mask, seed), 60)
    assert images.shape == masks.shape == (60, *shape, 1)
    assert images.dtype == masks.dtype == np.float32
    assert np.isfinite(images).all()
    assert set(np.unique(masks)) <= {0, 1}


def test_a_constant_image_stays_constant():
    zeros = tf.zeros((16, 16, 1))
    images, _ = over_seeds(lambda seed: augment(zeros, zeros, seed), 60)
    assert (images == 0).all()


def test_a_mapped_dataset_knows_the_shape_also_where_it_differs_by_slice():
    image, mask = noisy_slice()
    fixed = tf.data.Dataset.from_tensors((image, mask))
    any_size = tf.data.Dataset.from_generator(
        lambda: [noisy_slice(20, 30), noisy_slice(30, 20)],
        output_signature=(tf.TensorSpec((None, None, 1)), tf.TensorSpec((None, None, 1))),
    )
    fixed, any_size = (d.map(lambda i, m: augment(i, m, (0, 5))) for d in (fixed, any_size))
    assert fixed.element_spec[0].shape == image.shape
    assert [tuple(i.shape) for i, _ in any_size] == [(20, 30, 1), (30, 20, 1)]


def test_one_seed_gives_one_result_and_others_give_others():
    image, mask = noisy_slice()
    once, again = (over_seeds(lambda seed: augment(image, mask, seed), 60) for _ in range(2))
    assert all((a == b).all() for a, b in zip(once, again, strict=True))
    changed = {sample.tobytes() for sample in once[0]} - {image.numpy().tobytes()}
    kept = sum((sample == image.numpy()).all() for sample in once[0])
    assert len(changed) + kept == 60


def test_seed_epoch_and_index_all_count_and_do_not_add_up():
    seeds = [tuple(sample_seed(*k).numpy()) for k in np.ndindex(3, 3, 3)]
    assert len(set(seeds)) == 27
    index = tf.constant(2, tf.int64)  # as datasets count
    assert (sample_seed(0, 1, index) == sample_seed(0, 1, 2)).numpy().all()


def digests(order, parallel):
    image, mask = noisy_slice()
    samples = tf.data.Dataset.from_tensor_slices(order).map(
        lambda index: (index, *augment(image, mask, sample_seed(7, 0, index))),
        num_parallel_calls=parallel,
    )
    return {
        int(index): hashlib.sha256(i.numpy().tobytes() + m.numpy().tobytes()).hexdigest()
        for index, i, m in samples
    }


def test_a_sample_depends_neither_on_what_was_drawn_before_nor_on_the_process():
    here = digests(list(range(40)), parallel=1)
    assert digests(list(range(39, 19, -1)), parallel=2) == {k: here[k] for k in range(20, 40)}
    script = (
        "import tensorflow as tf; tf.config.experimental.enable_op_determinism();"
        "from tests.test_gm_augment import digests; print(digests([31, 4, 15], 2))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=Path(__file__).parents[1],
    )
    assert other.stdout.strip() == str({k: here[k] for k in (31, 4, 15)})


@pytest.mark.parametrize(
    ("image", "mask", "got"),
    [
        (np.zeros((8, 8, 1)), np.zeros((8, 8, 1), np.float32), "image float64"),
        (np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32), r"image float32 \(8, 8\)"),
        (np.zeros((2, 8, 8, 1), np.float32), np.zeros((2, 8, 8, 1), np.float32), "image float32"),
        (np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 3), np.float32), "image float32"),
        (np.zeros((8, 8, 1), np.float32), np.zeros((8, 8, 1), bool), "mask bool"),
        (np.zeros((8, 8, 1), np.float32), np.zeros((8, 9, 1), np.float32), r"mask .*\(8, 9, 1\)"),
    ],
)
def test_arrays_that_are_no_pair_of_slices_are_named(image, mask, got):
    with pytest.raises(DataError, match=got):
        augment(image, mask, (0, 1))
