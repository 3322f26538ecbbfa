"""Slices and back: orientation, resampling, crop, normalisation."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import orientations

from spine_tasks.data.slices import mask_to_slices, to_image, to_slices
from spine_tasks.errors import ConfigError, DataError

LAS = np.diag([-1.0, 1.0, 1.0, 1.0])
CODES = [
    codes
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]


def an_image(array, affine=LAS):
    return nib.Nifti1Image(np.asarray(array, dtype=np.float64), affine)


def some_image(shape=(6, 9, 4), spacing_mm=(0.5, 0.4, 3.0), seed=0):
    affine = np.diag([-spacing_mm[0], spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = [20, -30, 40]
    return an_image(np.random.default_rng(seed).normal(100, 20, shape), affine)


def reoriented(array, codes, affine=LAS):
    """An array given in L-A-S as an image stored in another orientation."""
    own = orientations.axcodes2ornt(codes)
    transform = orientations.ornt_transform(orientations.axcodes2ornt("LAS"), own)
    return nib.Nifti1Image(np.asarray(array), affine).as_reoriented(transform)


@pytest.mark.parametrize("codes", CODES, ids="".join)
def test_all_48_orientations_give_the_same_slices_and_the_mask_comes_back_in_its_own(codes):
    image = some_image()
    mask = image.get_fdata() > 110
    knobs = {"spacing_mm": 0.25, "size_px": 10}
    expected, placement = to_slices(image, centre=mask, **knobs)
    answer = np.random.default_rng(1).random(expected.shape)
    back = to_image(answer, placement, 0.4)

    stored = reoriented(image.get_fdata(), codes, image.affine)
    stored_mask = np.asarray(reoriented(mask.astype(np.uint8), codes).dataobj).astype(bool)
    stored_back = np.asarray(reoriented(back.astype(np.uint8), codes).dataobj).astype(bool)
    slices, own = to_slices(stored, centre=stored_mask, **knobs)

    assert nib.aff2axcodes(stored.affine) == codes
    assert back.any()
    assert np.array_equal(slices, expected)
    assert np.array_equal(mask_to_slices(stored_mask, own), mask_to_slices(mask, placement))
    assert np.array_equal(to_image(answer, own, 0.4), stored_back)


def test_rows_run_from_right_to_left_columns_from_posterior_to_anterior_slices_upwards():
    array = np.zeros((4, 4, 3))
    array[0, 1, 2] = 1  # leftmost, second from behind, uppermost: the affine is R-A-S
    slices, _ = to_slices(an_image(array, np.eye(4)), spacing_mm=None, size_px=4)
    assert np.unravel_index(slices.argmax(), slices.shape) == (2, 3, 1)


def test_an_oblique_image_is_cut_along_its_nearest_axes():
    turn = np.deg2rad(20)
    affine = LAS.copy()
    affine[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    array = np.random.default_rng(0).random((5, 5, 2))
    straight, _ = to_slices(an_image(array), spacing_mm=1.0, size_px=5)
    oblique, _ = to_slices(an_image(array, affine), spacing_mm=1.0, size_px=5)
    assert np.array_equal(straight, oblique)


def test_halving_the_spacing_puts_means_between_the_voxels_and_repeats_the_last():
    ramp = np.broadcast_to(np.array([0.0, 2.0, 6.0])[:, None, None], (3, 3, 2))
    slices, placement = to_slices(an_image(ramp), spacing_mm=0.5, size_px=6)
    expected = np.array([0, 1, 2, 4, 6, 6])
    expected = (expected - expected.mean()) / expected.std()
    assert placement.grid == (6, 6)
    assert slices == pytest.approx(np.broadcast_to(expected[:, None], (2, 6, 6)), abs=1e-6)


def test_each_in_plane_axis_has_its_own_spacing_and_slices_are_never_resampled():
    image = some_image(shape=(10, 10, 3), spacing_mm=(0.5, 0.75, 9.0))
    slices, placement = to_slices(image, spacing_mm=0.25, size_px=4)
    assert placement.grid == (20, 30)
    assert len(slices) == 3


def test_the_grid_is_the_nearest_whole_number_of_pixels():
    image = some_image(shape=(10, 11, 2), spacing_mm=(1.0, 1.0, 5.0))
    assert to_slices(image, spacing_mm=0.3, size_px=4)[1].grid == (33, 37)


@pytest.mark.parametrize(("pixels", "size", "start"), [(9, 4, 2), (8, 4, 2), (9, 5, 2), (8, 5, 2)])
def test_the_crop_starts_at_half_the_image_less_half_the_crop(pixels, size, start):
    image = some_image(shape=(pixels, pixels, 2))
    slices, placement = to_slices(image, spacing_mm=None, size_px=size)
    cut = image.get_fdata()[start : start + size, start : start + size]
    assert placement.start == (start, start)
    assert slices == pytest.approx(np.moveaxis((cut - cut.mean()) / cut.std(), 2, 0), abs=1e-5)


def test_a_crop_is_the_middle_of_all_that_was_resampled():
    image = some_image((40, 37, 2), spacing_mm=(0.41, 0.53, 3.0))
    (whole, placed), (part, _) = (
        to_slices(image, spacing_mm=0.25, size_px=size) for size in (78, 20)
    )
    assert placed.grid == (66, 78)  # padded by six pixels a side along the first axis
    expected = whole[:, 29:49, 29:49]
    expected = (expected - expected.mean()) / expected.std()
    assert part == pytest.approx(expected, abs=1e-5)


def test_a_small_image_lies_in_the_middle_of_zeros_that_no_statistics_count():
    image = some_image(shape=(4, 8, 2))
    slices, _ = to_slices(image, spacing_mm=None, size_px=8)
    assert not slices[:, :2].any()
    assert not slices[:, 6:].any()
    inside = slices[:, 2:6]
    assert inside.mean() == pytest.approx(0, abs=1e-6)
    assert inside.std() == pytest.approx(1, abs=1e-6)


def test_what_lies_outside_the_crop_has_no_part_in_the_normalisation():
    image = some_image(shape=(8, 8, 2))
    bright = image.get_fdata().copy()
    bright[0, 0, 0] = 1e6
    before, _ = to_slices(image, spacing_mm=None, size_px=4)
    after, _ = to_slices(an_image(bright, image.affine), spacing_mm=None, size_px=4)
    assert np.array_equal(before, after)


def test_normalisation_is_over_the_volume_or_over_each_slice():
    array = some_image(shape=(6, 6, 3)).get_fdata() * np.array([1.0, 2.0, 3.0])
    volume, _ = to_slices(an_image(array), spacing_mm=None, size_px=6, normalise="volume")
    single, _ = to_slices(an_image(array), spacing_mm=None, size_px=6, normalise="slice")
    assert (volume.mean(), volume.std()) == pytest.approx((0, 1), abs=1e-6)
    assert np.ptp(volume.mean(axis=(1, 2))) > 1
    assert single.mean(axis=(1, 2)) == pytest.approx(0, abs=1e-6)
    assert single.std(axis=(1, 2)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678, -3e9])
@pytest.mark.parametrize("normalise", ["volume", "slice"])
def test_a_constant_image_becomes_zeros(value, normalise):
    image = an_image(np.full((7, 7, 3), value))
    slices, _ = to_slices(image, spacing_mm=0.3, size_px=5, normalise=normalise)
    assert not slices.any()


def test_a_constant_slice_becomes_zeros_and_leaves_the_others_alone():
    array = some_image(shape=(6, 6, 2)).get_fdata().copy()
    array[..., 0] = 0.1
    slices, _ = to_slices(an_image(array), spacing_mm=None, size_px=6, normalise="slice")
    assert not slices[0].any()
    assert slices[1].std() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("voxel", "start"), [((10, 7), (18, 12)), ((0, 19), (0, 36)), ((19, 0), (36, 0))]
)
def test_a_cord_mask_is_in_the_middle_of_the_crop_as_far_as_the_image_reaches(voxel, start):
    image = some_image(shape=(20, 20, 3), spacing_mm=(1.0, 1.0, 4.0))
    cord = np.zeros(image.shape, dtype=bool)
    cord[(*voxel, 1)] = True
    _, placement = to_slices(image, spacing_mm=0.5, size_px=4, centre=cord)
    assert placement.start == start


def test_a_cord_mask_does_not_move_an_image_that_is_smaller_than_the_crop():
    image = some_image(shape=(4, 20, 2))
    cord = np.zeros(image.shape, dtype=bool)
    cord[0, 15, 0] = True
    _, placement = to_slices(image, spacing_mm=None, size_px=8, centre=cord)
    assert placement.start == (-2, 11)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    size=st.integers(1, 12),
    times=st.integers(1, 3),
)
def test_a_mask_comes_back_whole_inside_the_crop_and_empty_outside(shape, size, times):
    mask = np.random.default_rng(0).random(shape) > 0.4
    image = some_image(shape=shape, spacing_mm=(1.0, 1.0, 2.0))
    _, placement = to_slices(image, spacing_mm=1 / times, size_px=size * times)
    slices = mask_to_slices(mask, placement)
    back = to_image(slices.astype(np.float32), placement, 0.5)
    inside = np.zeros(shape, dtype=bool)
    reach = []
    for start in placement.start:
        first = max(-(-start // times), 0)
        reach.append(slice(first, (start + size * times - 1) // times + 1))
    inside[tuple(reach)] = True
    assert slices.shape == (shape[2], size * times, size * times)
    assert np.array_equal(back, mask & inside)


def test_a_disc_survives_spacings_that_do_not_divide():
    y, x = np.mgrid[:40, :40]
    disc = np.repeat((np.hypot(y - 19.5, x - 19.5) < 12)[..., None], 3, axis=2)
    image = some_image(shape=disc.shape, spacing_mm=(0.42, 0.42, 5.0))
    _, placement = to_slices(image, spacing_mm=0.25, size_px=64)
    back = to_image(mask_to_slices(disc, placement).astype(float), placement, 0.999)
    assert 2 * (back & disc).sum() / (back.sum() + disc.sum()) > 0.98


def test_only_probabilities_above_the_threshold_are_inside():
    _, placement = to_slices(some_image(shape=(2, 2, 1)), spacing_mm=None, size_px=2)
    probability = np.array([[[0.2, 0.5], [0.500001, 1.0]]])
    assert to_image(probability, placement, 0.5)[..., 0].tolist() == [[False, False], [True, True]]


def test_the_image_is_left_as_it_was():
    image = some_image()
    before = image.get_fdata().copy()
    slices, _ = to_slices(image, spacing_mm=None, size_px=4)
    slices[:] = 0
    assert np.array_equal(image.get_fdata(), before)


def with_a_nan():
    array = np.ones((4, 4, 2))
    array[0, 0, 0] = np.nan
    return an_image(array)


def without_directions():
    # Such an affine cannot be saved with a qform, so it is put in place directly.
    image = nib.Nifti1Image(np.ones((4, 4, 2)), None)
    image._affine = np.zeros((4, 4))
    return image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (an_image(np.ones((4, 4, 2, 3))), "three dimensions"),
        (an_image(np.ones((4, 4))), "three dimensions"),
        (an_image(np.ones((4, 4, 0))), "none of them 0"),
        (with_a_nan(), "1 of 32 voxels are not finite"),
        (without_directions(), "direction"),
    ],
)
def test_an_image_that_cannot_be_cut_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        to_slices(image, spacing_mm=None, size_px=4)


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"spacing_mm": 0.0}, "positive"),
        ({"spacing_mm": float("nan")}, "positive"),
        ({"spacing_mm": 50.0}, "leaves no pixel"),
        ({"size_px": 0}, "at least 1"),
        ({"normalise": "minmax"}, "'volume' or 'slice'"),
        ({"centre": "cord"}, "'image' or a mask"),
    ],
)
def test_a_wrong_knob_is_refused(knob, message):
    with pytest.raises(ConfigError, match=message):
        to_slices(some_image(), **({"spacing_mm": None, "size_px": 4} | knob))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((6, 9, 4), dtype=bool), "empty"),
        (np.ones((6, 9, 3), dtype=bool), r"\(6, 9, 4\), got \(6, 9, 3\)"),
        (np.ones((6, 9, 4), dtype=np.uint8), "must be bool, got uint8"),
    ],
)
def test_a_cord_mask_that_gives_no_centre_is_refused(mask, message):
    with pytest.raises(DataError, match=message):
        to_slices(some_image(), spacing_mm=None, size_px=4, centre=mask)


def test_masks_and_probabilities_of_another_image_are_refused():
    _, placement = to_slices(some_image(), spacing_mm=None, size_px=4)
    with pytest.raises(DataError, match=r"\(6, 9, 4\), got \(9, 6, 4\)"):
        mask_to_slices(np.ones((9, 6, 4), dtype=bool), placement)
    with pytest.raises(DataError, match=r"\(4, 4, 4\), got \(4, 4, 4, 1\)"):
        to_image(np.zeros((4, 4, 4, 1)), placement, 0.5)
    with pytest.raises(DataError, match="64 of 64 probabilities are not finite"):
        to_image(np.full((4, 4, 4), np.nan), placement, 0.5)
