"""Laws that hold for the metrics of any two masks, and distances against a brute-force search."""

import math
import warnings
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.distance import cdist

from spine_tasks.metrics import METRICS, surface
from spine_tasks.metrics.mask_scores import score_masks
from spine_tasks.metrics.overlap import count, overlap
from spine_tasks.metrics.published import published, smoothed_dice
from spine_tasks.metrics.size import areas, cross_sections_mm2, volumes
from spine_tasks.metrics.surface import surface_distances

laws = settings(deadline=None, max_examples=100, derandomize=True)
steps_mm = st.floats(0.1, 10)


def two_masks(dimensions, max_side=6):
    """Pairs of masks of one shape, small, so that empty and full ones and touched borders occur."""
    shapes = hnp.array_shapes(min_dims=min(dimensions), max_dims=max(dimensions), max_side=max_side)
    return shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.bool_, shape)] * 2))


pairs = two_masks((2, 3))


def spaced(masks):
    """Pairs of masks with a spacing each."""
    return masks.flatmap(
        lambda pair: st.tuples(st.just(pair), st.tuples(*[steps_mm] * pair[0].ndim))
    )


def same(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)


@laws
@given(pairs)
def test_ji_and_cc_follow_from_dsc(masks):
    values = overlap(count(*masks))
    dsc = values["DSC"]
    assert values["JI"] == same(dsc / (2 - dsc))
    assert values["CC"] == same((3 * dsc - 2) / dsc if dsc else math.nan)


@laws
@given(pairs)
def test_counts_add_up_to_all_voxels(masks):
    counts = count(*masks)
    assert sum(counts) == masks[0].size
    assert min(counts) >= 0


@laws
@given(pairs)
def test_swapping_truth_and_prediction_swaps_tpr_and_ppv_alone(masks):
    truth, predicted = masks
    values, swapped = overlap(count(truth, predicted)), overlap(count(predicted, truth))
    assert (values["TPR"], values["PPV"]) == same((swapped["PPV"], swapped["TPR"]))
    for name in ("DSC", "JI", "CC"):
        assert values[name] == same(swapped[name])


@laws
@given(pairs)
def test_tnr_is_the_tpr_of_the_background(masks):
    truth, predicted = masks
    background = overlap(count(~truth, ~predicted))
    assert overlap(count(truth, predicted))["TNR"] == same(background["TPR"])


@laws
@given(pairs)
def test_smoothing_adds_one_above_and_below(masks):
    truth, predicted = masks
    voxels = int(truth.sum() + predicted.sum())
    dsc = overlap(count(truth, predicted))["DSC"]
    smoothed = smoothed_dice(count(truth, predicted))
    assert smoothed == same((dsc * voxels + 1) / (voxels + 1) if voxels else 1.0)


def surface_points_mm(mask, spacing_mm):
    """Voxels with a neighbour across a face that is background or outside, one by one."""
    inside = np.pad(mask, 1)
    points = [
        index
        for index in np.argwhere(inside)
        if any(
            not inside[tuple(index + side * unit)]
            for unit in np.eye(mask.ndim, dtype=int)
            for side in (-1, 1)
        )
    ]
    return np.array(points) * spacing_mm


@laws
@given(spaced(pairs))
@example(((np.ones((5, 5), bool), np.eye(5, dtype=bool)), (1.0, 2.0)))
def test_distances_equal_those_of_a_search_over_all_pairs_of_surface_voxels(given_masks):
    (truth, predicted), spacing_mm = given_masks
    if not truth.any() or not predicted.any():
        found = surface_distances(truth, predicted, spacing_mm)
        assert found == same(dict.fromkeys(("MSD", "HSD", "HD95"), math.nan))
        return
    points = [surface_points_mm(mask, spacing_mm) for mask in (truth, predicted)]
    between = cdist(*points)
    directed = [between.min(axis=1), between.min(axis=0)]
    nearest = np.concatenate(directed)
    hd95 = max(percentile_95(one) for one in directed)
    expected = {"MSD": nearest.mean(), "HSD": nearest.max(), "HD95": hd95}
    for few in (0, surface.FEW):  # by trees, as for all large masks, and by all distances
        with mock.patch.object(surface, "FEW", few):
            assert surface_distances(truth, predicted, spacing_mm) == same(expected)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (0.4, 3.0)])
def test_distances_of_large_masks_equal_those_of_distance_transforms(spacing_mm):
    y, x = np.mgrid[:200, :160]
    truth = np.hypot(y - 90, x - 80) < 70 + 4 * np.sin(y / 9)
    predicted = (np.hypot(y - 92, (x - 79) * 1.1) < 70) & ~((y > 150) & (x < 60))
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (truth, predicted)]
    assert edges[0].sum() * edges[1].sum() > surface.FEW
    to_edge = [ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges]
    distances = np.r_[to_edge[1][edges[0]], to_edge[0][edges[1]]]
    found = surface_distances(truth, predicted, spacing_mm)
    assert found["MSD"] == same(distances.mean())
    assert found["HSD"] == same(distances.max())


def percentile_95(values):
    """Between the two values in order that 95 % of the way from first to last lies between."""
    place, ordered = 0.95 * (len(values) - 1), sorted(values)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (place % 1) * (high - low)


@laws
@given(spaced(pairs))
def test_distances_are_symmetric_and_mean_and_percentile_are_at_most_the_maximum(given_masks):
    (truth, predicted), spacing_mm = given_masks
    distances = surface_distances(truth, predicted, spacing_mm)
    assert distances == same(surface_distances(predicted, truth, spacing_mm))
    if truth.any() and predicted.any():
        # Rounding: the mean of equal distances can exceed them in the last digit.
        assert 0 <= distances["MSD"] <= distances["HSD"] * (1 + 1e-12)
        assert 0 <= distances["HD95"] <= distances["HSD"]


@laws
@given(spaced(pairs), st.integers(1, 4))
def test_background_around_both_masks_changes_no_distance(given_masks, margin):
    (truth, predicted), spacing_mm = given_masks
    tight = surface_distances(truth, predicted, spacing_mm)
    wide = surface_distances(np.pad(truth, margin), np.pad(predicted, margin), spacing_mm)
    assert np.array_equal(list(wide.values()), list(tight.values()), equal_nan=True)


@laws
@given(spaced(pairs), st.floats(0.1, 10))
def test_distances_grow_with_the_voxels(given_masks, factor):
    (truth, predicted), spacing_mm = given_masks
    grown = surface_distances(truth, predicted, [factor * step for step in spacing_mm])
    for name, value in surface_distances(truth, predicted, spacing_mm).items():
        assert grown[name] == same(factor * value)


@laws
@given(two_masks((2,)), steps_mm)
def test_distances_in_mm_are_those_in_pixels_times_the_pixel(masks, step_mm):
    pixels = published(*masks)
    in_mm = surface_distances(*masks, (step_mm, step_mm))
    for name in ("MSD", "HSD"):  # the study had no HD95
        assert in_mm[name] == same(step_mm * pixels[f"{name}_slice_px"])


@laws
@given(spaced(two_masks((3,))), st.integers(0, 2))
def test_each_slice_has_the_scores_of_its_own_two_masks(given_masks, slice_axis):
    (truth, predicted), spacing_mm = given_masks
    scores = list(score_masks(truth, predicted, spacing_mm, slice_axis))
    in_plane_mm = np.delete(spacing_mm, slice_axis)
    for index in range(truth.shape[slice_axis]):
        masks = [mask.take(index, slice_axis) for mask in (truth, predicted)]
        own = overlap(count(*masks)) | surface_distances(*masks, in_plane_mm)
        expected = {f"{name}_slice": value for name, value in own.items()} | published(*masks)
        # The area across the cord is left out: its angle is that of the line through all slices.
        got = {n: v for at, n, v in scores if at == index and not n.startswith("CSA_")}
        assert got == same(expected)


@laws
@given(spaced(two_masks((3,))), st.integers(0, 2))
def test_every_value_is_undefined_or_within_the_range_of_the_table(given_masks, slice_axis):
    (truth, predicted), spacing_mm = given_masks
    for _, name, value in score_masks(truth, predicted, spacing_mm, slice_axis):
        assert type(value) is float
        assert math.isnan(value) or METRICS[name].minimum <= value <= METRICS[name].maximum


cords = spaced(two_masks((3,), max_side=9))  # up to nine slices: five marked ones make a curve


@laws
@given(cords)
def test_volumes_count_the_voxels(given_masks):
    (truth, predicted), spacing_mm = given_masks
    voxel_mm3 = np.prod(spacing_mm)
    values = volumes(truth, predicted, spacing_mm)
    assert values["volume"] == same(predicted.sum() * voxel_mm3)
    assert values["volume_reference"] == same(truth.sum() * voxel_mm3)
    tp, fp, fn, _ = count(truth, predicted)
    assert values["RVE"] == same((fp - fn) / (tp + fn) if tp + fn else math.nan)


@laws
@given(cords, st.integers(0, 2))
def test_an_area_across_the_cord_is_at_most_that_of_its_pixels(given_masks, slice_axis):
    (mask, _), spacing_mm = given_masks
    with warnings.catch_warnings(action="error"):
        found = cross_sections_mm2(mask, spacing_mm, slice_axis)
    in_plane = tuple({0, 1, 2} - {slice_axis})
    in_slice = mask.sum(axis=in_plane) * np.prod(np.delete(spacing_mm, slice_axis))
    assert found.shape == in_slice.shape
    assert np.array_equal(np.isnan(found), in_slice == 0)
    marked = in_slice > 0
    assert (found[marked] > 0).all()
    assert (found[marked] <= in_slice[marked] * (1 + 1e-12)).all()


@laws
@given(cords, st.permutations(range(3)), st.integers(0, 2))
def test_areas_do_not_depend_on_the_order_of_the_axes(given_masks, order, slice_axis):
    (mask, _), spacing_mm = given_masks
    turned = cross_sections_mm2(
        mask.transpose(order), [spacing_mm[axis] for axis in order], order.index(slice_axis)
    )
    assert turned == same(cross_sections_mm2(mask, spacing_mm, slice_axis))


@laws
@given(cords, st.integers(0, 2))
def test_swapping_truth_and_prediction_swaps_their_areas_and_turns_the_error(
    given_masks, slice_axis
):
    (truth, predicted), spacing_mm = given_masks
    whole, slices = areas(truth, predicted, spacing_mm, slice_axis)
    whole_swapped, slices_swapped = areas(predicted, truth, spacing_mm, slice_axis)
    assert whole_swapped == same(
        {
            "CSA": whole["CSA_reference"],
            "CSA_reference": whole["CSA"],
            "CSA_error": whole["CSA_error"],
        }
    )
    assert len(slices) == len(slices_swapped) == truth.shape[slice_axis]
    for values, swapped in zip(slices, slices_swapped, strict=True):
        assert swapped == same(
            {
                "CSA_slice": values["CSA_reference_slice"],
                "CSA_reference_slice": values["CSA_slice"],
                "CSA_error_slice": -values["CSA_error_slice"],
            }
        )


@laws
@given(cords, st.integers(0, 2))
def test_equal_masks_have_equal_sizes_and_no_error_in_any_slice(given_masks, slice_axis):
    (mask, _), spacing_mm = given_masks
    for values in areas(mask, mask, spacing_mm, slice_axis)[1]:
        assert values["CSA_slice"] == same(values["CSA_reference_slice"])
        assert values["CSA_error_slice"] == 0 or math.isnan(values["CSA_slice"])


@laws
@given(cords, st.integers(0, 2), st.integers(1, 4))
def test_background_around_a_mask_changes_no_area(given_masks, slice_axis, margin):
    (mask, _), spacing_mm = given_masks
    tight = cross_sections_mm2(mask, spacing_mm, slice_axis)
    wide = cross_sections_mm2(np.pad(mask, margin), spacing_mm, slice_axis)
    assert wide[margin:-margin] == pytest.approx(tight, rel=1e-4, nan_ok=True)
    assert np.isnan(wide[[*range(margin), *range(-margin, 0)]]).all()
