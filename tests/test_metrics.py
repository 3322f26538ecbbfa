"""Metrics of masks: values worked out by hand, the table of metrics, and what is refused."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from spine_tasks.errors import DataError
from spine_tasks.metrics import OF_MASKS
from spine_tasks.metrics.mask_scores import score_masks
from spine_tasks.metrics.overlap import Counts, count, overlap
from spine_tasks.metrics.published import published, smoothed_dice
from spine_tasks.metrics.size import areas, cross_sections_mm2, volumes
from spine_tasks.metrics.surface import surface_distances

NAN = math.nan


def block(shape, *bounds):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


# A 6 x 6 square, and a 6 x 5 rectangle one row lower: they share 5 x 5 pixels.
TRUTH = block((12, 12), (3, 9), (3, 9))
PREDICTED = block((12, 12), (4, 10), (3, 8))
TOY = Counts(tp=25, fp=5, fn=11, tn=103)

# As the single slice of a volume, with 0.5 mm pixels. The outlines have 20 and 18 pixels; 25 of
# the pooled 38 distances are one pixel, one is a diagonal. In 3-D every voxel of a single slice is
# surface: 66 distances, 15 of one pixel and one diagonal. 95 % of the truth's 20 distances in 2-D
# lie 0.05 of the way from the last 1 to the diagonal, the greatest; all other percentiles are 1.
TOY_SCORES = {
    "DSC": 50 / 66,
    "JI": 25 / 41,
    "CC": 0.36,
    "TPR": 25 / 36,
    "TNR": 103 / 108,
    "PPV": 25 / 30,
    "MSD": 0.5 * (15 + math.sqrt(2)) / 66,
    "HSD": 0.5 * math.sqrt(2),
    "HD95": 0.5,
    "volume": 37.5,
    "volume_reference": 45.0,
    "RVE": -1 / 6,
    "CSA": 7.5,
    "CSA_reference": 9.0,
    "CSA_error": 1.5,
    "DSC_slice": 50 / 66,
    "JI_slice": 25 / 41,
    "CC_slice": 0.36,
    "TPR_slice": 25 / 36,
    "TNR_slice": 103 / 108,
    "PPV_slice": 25 / 30,
    "MSD_slice": 0.5 * (25 + math.sqrt(2)) / 38,
    "HSD_slice": 0.5 * math.sqrt(2),
    "HD95_slice": 0.5 * (0.95 + 0.05 * math.sqrt(2)),
    "CSA_slice": 7.5,
    "CSA_reference_slice": 9.0,
    "CSA_error_slice": -1.5,
    "DSC_slice_smoothed": 51 / 67,
    "MSD_slice_px": (25 + math.sqrt(2)) / 38,
    "HSD_slice_px": math.sqrt(2),
}


def test_counts_of_the_toy_are_those_counted_by_hand():
    assert count(TRUTH, PREDICTED) == TOY


def test_scores_of_the_toy_are_those_worked_out_by_hand():
    scores = score_masks(TRUTH[..., None], PREDICTED[..., None], (0.5, 0.5, 5.0), slice_axis=2)
    assert {name: value for _, name, value in scores} == pytest.approx(TOY_SCORES, rel=1e-12)


def test_the_toy_agrees_with_the_figures_reported_for_it():
    values = overlap(TOY)
    reported = {
        "DSC": 75.7576,
        "JI": 60.9756,
        "CC": 36,
        "TPR": 69.444,
        "TNR": 95.370,
        "PPV": 83.333,
    }
    assert {name: 100 * value for name, value in values.items()} == pytest.approx(
        reported, abs=1e-3
    )
    assert smoothed_dice(TOY) == pytest.approx(0.761194, abs=1e-6)
    pixels = surface_distances(TRUTH, PREDICTED, (1.0, 1.0))
    assert pixels.pop("HD95") < pixels["HSD"]  # not reported
    assert pixels == pytest.approx({"MSD": 0.695111, "HSD": 1.414214}, abs=1e-6)


EMPTY, FULL = np.zeros(4, dtype=bool), np.ones(4, dtype=bool)
FIRST, LAST = np.array([1, 0, 0, 0], dtype=bool), np.array([0, 0, 0, 1], dtype=bool)


@pytest.mark.parametrize(
    ("truth", "predicted", "dsc", "ji", "cc", "tpr", "tnr", "ppv"),
    [
        pytest.param(EMPTY, EMPTY, NAN, NAN, NAN, NAN, 1, NAN, id="both empty"),
        pytest.param(EMPTY, FIRST, 0, 0, NAN, NAN, 3 / 4, 0, id="truth empty"),
        pytest.param(EMPTY, FULL, 0, 0, NAN, NAN, 0, 0, id="truth empty, prediction full"),
        pytest.param(FIRST, EMPTY, 0, 0, NAN, 0, 1, NAN, id="prediction empty"),
        pytest.param(FULL, EMPTY, 0, 0, NAN, 0, NAN, NAN, id="truth full, prediction empty"),
        pytest.param(FULL, FULL, 1, 1, 1, 1, NAN, 1, id="both full"),
        pytest.param(FULL, FIRST, 2 / 5, 1 / 4, -2, 1 / 4, NAN, 1, id="truth full"),
        pytest.param(FIRST, FULL, 2 / 5, 1 / 4, -2, 1, 0, 1 / 4, id="prediction full"),
        pytest.param(FIRST, FIRST, 1, 1, 1, 1, 1, 1, id="the same voxel"),
        pytest.param(FIRST, LAST, 0, 0, NAN, 0, 2 / 3, 0, id="two voxels apart"),
    ],
)
def test_overlap_of_empty_full_and_single_voxel_masks(truth, predicted, dsc, ji, cc, tpr, tnr, ppv):
    expected = {"DSC": dsc, "JI": ji, "CC": cc, "TPR": tpr, "TNR": tnr, "PPV": ppv}
    assert overlap(count(truth, predicted)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_distances_are_undefined_if_either_mask_is_empty(shape):
    empty, full, spacing_mm = np.zeros(shape, bool), np.ones(shape, bool), (1.0,) * len(shape)
    undefined = pytest.approx({"MSD": NAN, "HSD": NAN, "HD95": NAN}, nan_ok=True)
    assert surface_distances(empty, full, spacing_mm) == undefined
    assert surface_distances(full, empty, spacing_mm) == undefined
    assert surface_distances(empty, empty, spacing_mm) == undefined


def test_smoothed_dice_of_empty_masks_is_1_where_dsc_is_undefined():
    empty = np.zeros((4, 4), dtype=bool)
    scores = published(empty, empty)
    expected = {"DSC_slice_smoothed": 1.0, "MSD_slice_px": NAN, "HSD_slice_px": NAN}
    assert scores == pytest.approx(expected, nan_ok=True)


def test_a_missed_lobe_counts_in_both_directions_and_every_voxel_alike():
    truth, predicted = block((1, 10), (0, 1), (0, 10, 9)), block((1, 10), (0, 1), (0, 1))
    # Distances 0 and 9 from the truth, 0 from the prediction; the mean of two means is 2.25. 95 %
    # of the truth's are 8.55, of all three together 8.1.
    expected = pytest.approx({"MSD": 3.0, "HSD": 9.0, "HD95": 8.55})
    assert surface_distances(truth, predicted, (1.0, 1.0)) == expected
    assert surface_distances(predicted, truth, (1.0, 1.0)) == expected


@pytest.mark.parametrize("dimensions", [2, 3])
def test_hd95_is_the_larger_of_two_percentiles_that_are_not_pooled(dimensions):
    line = block((12, 40), (1, 2), (0, 40))
    lobe = line | block((12, 40), (11, 12), (0, 4))
    # 4 of the 44 distances from the mask with the lobe are ten pixels, of the other's 40 none: 9 %
    # of that direction, but 5 % at most of both together, whose 95th percentile is 0.
    truth, predicted = (mask.reshape(mask.shape + (1,) * (dimensions - 2)) for mask in (line, lobe))
    spacing_mm = (0.5, 0.7, 5.0)[:dimensions]
    assert surface_distances(truth, predicted, spacing_mm)["HD95"] == pytest.approx(5.0)
    assert surface_distances(predicted, truth, spacing_mm)["HD95"] == pytest.approx(5.0)


def test_hd95_leaves_a_few_far_voxels_out_that_hsd_counts():
    line = block((12, 40), (1, 2), (0, 40))
    speck = line | block((12, 40), (11, 12), (0, 1))  # 1 of 41 distances
    distances = surface_distances(line, speck, (1.0, 1.0))
    assert (distances["HD95"], distances["HSD"]) == (0.0, 10.0)


def test_a_mask_cut_by_the_image_border_has_its_surface_there():
    full, centre = np.ones((5, 5), dtype=bool), block((5, 5), (2, 3), (2, 3))
    # The surface of the full image is its ring of 16 pixels.
    ring = [2.0] * 4 + [math.sqrt(5)] * 8 + [math.sqrt(8)] * 4
    distances = surface_distances(full, centre, (1.0, 1.0))
    assert distances["MSD"] == pytest.approx((sum(ring) + 2) / 17)
    assert distances["HSD"] == pytest.approx(math.sqrt(8))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_hsd_of_a_shift_is_the_shift_in_mm_and_hd95_at_most_that(axis):
    spacing_mm = (0.5, 0.7, 5.0)
    cube = block((12, 12, 12), (3, 7), (3, 7), (3, 7))
    distances = surface_distances(cube, np.roll(cube, 3, axis), spacing_mm)
    assert distances["HSD"] == pytest.approx(3 * spacing_mm[axis])
    assert 0 < distances["HD95"] <= distances["HSD"]


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_slices_lie_across_the_slice_axis_with_the_spacing_of_their_plane(slice_axis):
    spacing_mm = (0.5, 0.7, 5.0)
    shape = np.array([10, 10, 10])
    shape[slice_axis] = 4
    voxel = np.zeros(shape, dtype=bool)
    voxel[2, 2, 2] = True
    for axis in {0, 1, 2} - {slice_axis}:
        scores = list(score_masks(voxel, np.roll(voxel, 3, axis), spacing_mm, slice_axis))
        in_mm = [value for _, name, value in scores if name == "HSD_slice"]
        in_px = [value for _, name, value in scores if name == "HSD_slice_px"]
        assert in_mm == pytest.approx([NAN, NAN, 3 * spacing_mm[axis], NAN], nan_ok=True)
        assert in_px == pytest.approx([NAN, NAN, 3.0, NAN], nan_ok=True)


def test_every_metric_of_the_table_is_scored_in_its_order_once_and_once_a_slice():
    mask = block((8, 8, 3), (2, 6), (2, 6), (1, 2))
    scored = [(index, name) for index, name, _ in score_masks(mask, mask, (1, 1, 1), 2)]
    volume = [name for name, metric in OF_MASKS.items() if metric.scope == "volume"]
    slices = [name for name, metric in OF_MASKS.items() if metric.scope == "slice"]
    expected = [(None, name) for name in volume]
    expected += [(index, name) for index in range(3) for name in slices]
    assert scored == expected


def test_empty_slices_are_scored_and_stay_undefined():
    empty = np.zeros((8, 8, 3), dtype=bool)
    scores = list(score_masks(empty, empty, (1, 1, 1), 2))
    assert len(scores) == 15 + 3 * 15
    defined = [(index, name, value) for index, name, value in scores if not math.isnan(value)]
    whole = [(None, "TNR", 1.0), (None, "volume", 0.0), (None, "volume_reference", 0.0)]
    assert defined == whole + [
        (index, name, 1.0) for index in range(3) for name in ("TNR_slice", "DSC_slice_smoothed")
    ]


UNITS = {"MSD": "mm", "HSD": "mm", "HD95": "mm", "volume": "mm3", "CSA": "mm2"}


def test_units_follow_the_names():
    assert {name.split("_")[0] for name in OF_MASKS} >= set(UNITS)
    for name, metric in OF_MASKS.items():
        unit = UNITS.get(name.split("_")[0], "")
        assert metric.unit == ("px" if name.endswith("_px") else unit)


def first_value(name, truth, predicted):
    scores = score_masks(truth, predicted, (0.5, 0.5, 5), 2)
    return next(value for _, got, value in scores if got == name)


BAR = block((16, 16, 3), (2, 8), (2, 8), (0, 3))

# Those without a best value, in the three laws below: of the prediction and the same of the truth,
# and the difference of both.
SIZES = {"volume": "volume_reference", "CSA": "CSA_reference", "CSA_slice": "CSA_reference_slice"}
SIGNED_ERRORS = ["RVE", "CSA_error_slice"]


def test_every_metric_without_a_best_value_is_a_size_or_a_signed_error():
    without = [name for name, metric in OF_MASKS.items() if metric.higher_is_better is None]
    assert sorted(without) == sorted([*SIZES, *SIZES.values(), *SIGNED_ERRORS])


@pytest.mark.parametrize(
    "name", [name for name, metric in OF_MASKS.items() if metric.higher_is_better is not None]
)
def test_equal_masks_have_the_best_value_and_a_farther_shift_a_worse_one(name):
    near, far = np.roll(BAR, 1, 0), np.roll(BAR, 3, 0)
    if name == "CSA_error":  # a size does not tell a shift: it is the prediction's excess
        near, far = BAR | near, BAR | far
    best, near, far = (first_value(name, BAR, predicted) for predicted in (BAR, near, far))
    metric = OF_MASKS[name]
    if metric.higher_is_better:
        assert best == metric.maximum
        assert best > near > far
    else:
        assert best == metric.minimum
        assert best < near < far


SMALLER, LARGER = BAR & np.roll(BAR, 1, 0), BAR | np.roll(BAR, 1, 0)


@pytest.mark.parametrize(("name", "of_truth"), SIZES.items())
def test_sizes_of_equal_masks_are_equal_and_only_the_predictions_grows_with_it(name, of_truth):
    size = first_value(of_truth, BAR, BAR)
    assert first_value(name, BAR, BAR) == size
    assert 0 < first_value(name, BAR, SMALLER) < size < first_value(name, BAR, LARGER)
    assert first_value(of_truth, BAR, SMALLER) == size == first_value(of_truth, BAR, LARGER)


@pytest.mark.parametrize("name", SIGNED_ERRORS)
def test_signed_errors_are_0_for_equal_masks_and_above_0_for_too_large_a_prediction(name):
    assert first_value(name, BAR, BAR) == 0
    assert first_value(name, BAR, SMALLER) < 0 < first_value(name, BAR, LARGER)


@pytest.mark.parametrize(
    ("voxels", "found", "rve"), [(4, 8, 1.0), (4, 4, 0.0), (4, 3, -0.25), (4, 0, -1.0), (0, 4, NAN)]
)
def test_volumes_in_mm3_and_their_relative_error(voxels, found, rve):
    truth, predicted = (block((2, 2, 8), (0, 1), (0, 1), (0, n)) for n in (voxels, found))
    expected = {"volume": found * 1.75, "volume_reference": voxels * 1.75, "RVE": rve}
    spacing_mm = (0.5, 0.7, 5.0)  # 1.75 mm3
    assert volumes(truth, predicted, spacing_mm) == pytest.approx(expected, nan_ok=True)


def along(axis, volume, spacing_mm):
    """A volume (Z, Y, X), and its spacing, with the slices on that axis."""
    spacing_mm = list(spacing_mm)
    spacing_mm.insert(axis, spacing_mm.pop(0))
    return np.moveaxis(volume, 0, axis), spacing_mm


def cylinder(slices, spacing_mm, tilt_deg, radius_mm=4.0, towards_deg=35.0):
    """(Z, Y, X): a cylinder through the middle, so many degrees off the normal of the slices."""
    steps = zip((slices, 144, 180), spacing_mm, strict=True)
    points = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * mm for n, mm in steps], indexing="ij")
    tilt, towards = math.radians(tilt_deg), math.radians(towards_deg)
    sideways = math.sin(tilt) * math.sin(towards), math.sin(tilt) * math.cos(towards)
    axis = (math.cos(tilt), *sideways)
    to_foot = sum(part * unit for part, unit in zip(points, axis, strict=True))
    return sum(part**2 for part in points) - to_foot**2 <= radius_mm**2


FINE_MM = (1.5, 0.25, 0.2)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize("marked", [1, 2, 3, 4, 5, 8])
def test_the_area_of_a_straight_cord_is_that_of_its_pixels(marked, slice_axis):
    bar = block((10, 5, 6), (1, 1 + marked), (1, 3), (2, 5))  # 2 x 3 pixels of 0.7 x 0.4 mm
    mask, spacing_mm = along(slice_axis, bar, (5.0, 0.7, 0.4))
    expected = [NAN] + marked * [6 * 0.28] + (9 - marked) * [NAN]
    found = cross_sections_mm2(mask, spacing_mm, slice_axis)
    assert found.tolist() == pytest.approx(expected, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize("slices", [2, 3, 4, 5, 12])
@pytest.mark.parametrize("tilt_deg", [30, 45])
def test_the_area_of_an_oblique_cord_is_that_across_it(tilt_deg, slices, slice_axis):
    cord = cylinder(slices, FINE_MM, tilt_deg)
    area = math.pi * 4.0**2
    in_slice = cord.sum(axis=(1, 2)) * 0.25 * 0.2
    assert in_slice == pytest.approx(area / math.cos(math.radians(tilt_deg)), rel=0.02)
    mask, spacing_mm = along(slice_axis, cord, FINE_MM)
    assert cross_sections_mm2(mask, spacing_mm, slice_axis) == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("towards_deg", [0.0, 90.0, 180.0, 270.0])
def test_the_area_is_the_same_whichever_way_the_cord_leans(towards_deg):
    cord = cylinder(12, FINE_MM, 30, towards_deg=towards_deg)
    assert cross_sections_mm2(cord, FINE_MM, 0) == pytest.approx(math.pi * 4.0**2, rel=0.02)


@pytest.mark.parametrize("marked", [(0, 11), (0, 3, 5), (1, 2, 8, 9), (0, 1, 5, 6, 11)])
def test_slices_between_that_are_not_marked_do_not_bend_the_cord(marked):
    cord = cylinder(12, FINE_MM, 45)
    without = np.delete(np.arange(12), marked)
    cord[without] = False
    found = cross_sections_mm2(cord, FINE_MM, 0)
    assert np.flatnonzero(np.isnan(found)).tolist() == without.tolist()
    assert found[list(marked)] == pytest.approx(math.pi * 4.0**2, rel=0.02)


def test_one_marked_slice_has_no_direction_and_keeps_its_area():
    cord = cylinder(1, FINE_MM, 45)
    assert cross_sections_mm2(cord, FINE_MM, 0) == pytest.approx(cord.sum() * 0.25 * 0.2)


def test_the_area_of_a_curved_cord_follows_its_own_angle_in_each_slice():
    # A torus of 4 mm about a circle of 60 mm, from 30 degrees on one side to 30 on the other.
    z, y, x = np.meshgrid(
        np.linspace(-30, 30, 31), np.arange(-5, 5, 0.25), np.arange(-15, 6, 0.25), indexing="ij"
    )
    cord = (np.hypot(x + 60, z) - 60) ** 2 + y**2 <= 4.0**2
    area = math.pi * 4.0**2
    in_slice = cord.sum(axis=(1, 2)) * 0.25**2
    assert in_slice[[0, 15, 30]] / area == pytest.approx([1.15, 1.0, 1.15], abs=0.02)
    assert cross_sections_mm2(cord, (2.0, 0.25, 0.25), 0) == pytest.approx(area, rel=0.02)


def test_a_centre_that_wobbles_by_a_pixel_is_no_angle():
    cord = np.stack([block((9, 12), (1, 8), (1 + z % 2, 8 + z % 2)) for z in range(12)])
    found = cross_sections_mm2(cord, (0.5, 0.5, 0.5), 0)
    assert found == pytest.approx(49 * 0.25, rel=0.01)


@pytest.mark.parametrize("marked", [3, 4, 20])
def test_a_stray_voxel_beyond_the_end_does_not_bend_the_cord(marked):
    cord = block((marked + 1, 60, 60), (0, marked), (2, 16), (2, 16))
    cord[-1, 40, 50] = True
    found = cross_sections_mm2(cord, (2.0, 0.5, 0.5), 0)
    assert found[:-1] == pytest.approx(196 * 0.25, rel=0.02)


def squares(*sides):
    """(8, 8, Z): in each slice a square of that side about the middle."""
    return np.stack([block((8, 8), *[(4 - n // 2, 4 + n // 2)] * 2) for n in sides], axis=2)


def test_areas_of_a_volume_are_means_of_the_slices_that_both_masks_mark():
    truth, predicted = squares(2, 4, 4, 0, 0), squares(0, 2, 6, 4, 0)
    scores = list(score_masks(truth, predicted, (0.5, 0.5, 5.0), 2))
    whole = {name: value for at, name, value in scores if at is None and name.startswith("CSA")}
    # Slices 1 and 2: 1 and 9 mm2 for 4 and 4. The errors of -3 and 5 do not cancel.
    assert whole == pytest.approx({"CSA": 5.0, "CSA_reference": 4.0, "CSA_error": 4.0})
    expected = {
        "CSA_slice": [NAN, 1.0, 9.0, 4.0, NAN],
        "CSA_reference_slice": [1.0, 4.0, 4.0, NAN, NAN],
        "CSA_error_slice": [NAN, -3.0, 5.0, NAN, NAN],
    }
    for name, values in expected.items():
        found = [value for at, got, value in scores if got == name]
        assert found == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize(
    ("true", "found"),
    [
        ((2, 2, 2), (0, 0, 0)),
        ((0, 0, 0), (2, 2, 2)),
        ((0, 0, 0), (0, 0, 0)),
        ((2, 0, 0), (0, 2, 2)),
    ],
)
def test_without_a_slice_that_both_masks_mark_there_is_no_area_but_a_row_for_each_slice(
    true, found
):
    whole, of_slice = areas(squares(*true), squares(*found), (0.5, 0.5, 5.0), 2)
    undefined = {"CSA": NAN, "CSA_reference": NAN, "CSA_error": NAN}
    assert whole == pytest.approx(undefined, nan_ok=True)
    expected = [
        {"CSA_slice": b or NAN, "CSA_reference_slice": a or NAN, "CSA_error_slice": NAN}
        for a, b in zip(np.array(true) / 2, np.array(found) / 2, strict=True)  # 1 mm2 or none
    ]
    assert len(of_slice) == 3
    for values, those in zip(of_slice, expected, strict=True):
        assert values == pytest.approx(those, nan_ok=True)


@pytest.mark.parametrize("metric", [count, lambda *masks: surface_distances(*masks, (1.0, 1.0))])
@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (TRUTH, PREDICTED.astype(float), "bool and float64; threshold first"),
        (TRUTH.astype(np.uint8), PREDICTED, "uint8 and bool; threshold first"),
        (TRUTH, PREDICTED[:, :6], "truth (12, 12) and prediction (12, 6)"),
        (TRUTH, PREDICTED[:1], "truth (12, 12) and prediction (1, 12)"),  # would be broadcast
        (TRUTH, PREDICTED[..., None], "truth (12, 12) and prediction (12, 12, 1)"),
    ],
)
def test_what_is_not_a_pair_of_masks_is_refused(metric, truth, predicted, message):
    with pytest.raises(DataError, match=re.escape(message)):
        metric(truth, predicted)


@pytest.mark.parametrize(
    "spacing_mm", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, -0.5), (1.0, NAN), (math.inf, 1.0)]
)
def test_a_wrong_spacing_is_refused_even_where_the_distance_is_undefined(spacing_mm):
    empty = np.zeros((4, 4), dtype=bool)
    with pytest.raises(DataError, match=r"need 2 positive spacings in mm, one per axis, got \["):
        surface_distances(empty, empty, spacing_mm)


def test_an_axis_of_labels_is_not_taken_for_an_axis_of_space():
    masks = np.ones((2, 4, 4, 4), dtype=bool)
    with pytest.raises(DataError, match="2 or 3 axes, got 4; score one label at a time"):
        surface_distances(masks, masks, (1.0,) * 4)


@pytest.mark.parametrize(("shape", "slice_axis"), [((4, 4), 0), ((4, 4, 4), 3), ((4, 4, 4), -1)])
def test_a_wrong_volume_or_slice_axis_is_refused_at_the_call(shape, slice_axis):
    mask = np.ones(shape, dtype=bool)
    message = f"got {len(shape)} axes and slice axis {slice_axis};"
    with pytest.raises(DataError, match=message):
        score_masks(mask, mask, (1.0,) * len(shape), slice_axis)


def test_masks_that_do_not_fit_are_refused_at_the_call():
    with pytest.raises(DataError, match="truth \\(12, 12, 1\\) and prediction \\(11, 12, 1\\)"):
        score_masks(TRUTH[..., None], PREDICTED[1:, :, None], (1, 1, 1), 2)


def test_reading_the_table_needs_neither_numpy_nor_scipy():
    code = "import sys, spine_tasks.metrics; sys.exit(bool({'numpy', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
