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
# surface: 66 distances, 15 of one pixel and one diagonal.
TOY_SCORES = {
    "DSC": 50 / 66,
    "JI": 25 / 41,
    "CC": 0.36,
    "TPR": 25 / 36,
    "TNR": 103 / 108,
    "PPV": 25 / 30,
    "MSD": 0.5 * (15 + math.sqrt(2)) / 66,
    "HSD": 0.5 * math.sqrt(2),
    "DSC_slice": 50 / 66,
    "JI_slice": 25 / 41,
    "CC_slice": 0.36,
    "TPR_slice": 25 / 36,
    "TNR_slice": 103 / 108,
    "PPV_slice": 25 / 30,
    "MSD_slice": 0.5 * (25 + math.sqrt(2)) / 38,
    "HSD_slice": 0.5 * math.sqrt(2),
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
    undefined = pytest.approx({"MSD": NAN, "HSD": NAN}, nan_ok=True)
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
    # Distances 0 and 9 from the truth, 0 from the prediction; the mean of two means is 2.25.
    assert surface_distances(truth, predicted, (1.0, 1.0)) == {"MSD": 3.0, "HSD": 9.0}
    assert surface_distances(predicted, truth, (1.0, 1.0)) == {"MSD": 3.0, "HSD": 9.0}


def test_a_mask_cut_by_the_image_border_has_its_surface_there():
    full, centre = np.ones((5, 5), dtype=bool), block((5, 5), (2, 3), (2, 3))
    # The surface of the full image is its ring of 16 pixels.
    ring = [2.0] * 4 + [math.sqrt(5)] * 8 + [math.sqrt(8)] * 4
    distances = surface_distances(full, centre, (1.0, 1.0))
    assert distances["MSD"] == pytest.approx((sum(ring) + 2) / 17)
    assert distances["HSD"] == pytest.approx(math.sqrt(8))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_hsd_of_a_shift_is_the_shift_in_mm(axis):
    spacing_mm = (0.5, 0.7, 5.0)
    cube = block((12, 12, 12), (3, 7), (3, 7), (3, 7))
    hsd = surface_distances(cube, np.roll(cube, 3, axis), spacing_mm)["HSD"]
    assert hsd == pytest.approx(3 * spacing_mm[axis])


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
    assert len(scores) == 8 + 3 * 11
    defined = [(index, name, value) for index, name, value in scores if not math.isnan(value)]
    assert defined == [(None, "TNR", 1.0)] + [
        (index, name, 1.0) for index in range(3) for name in ("TNR_slice", "DSC_slice_smoothed")
    ]


def test_units_follow_the_names():
    for name, metric in OF_MASKS.items():
        distance = name.startswith(("MSD", "HSD"))
        assert metric.unit == (("px" if name.endswith("_px") else "mm") if distance else "")


@pytest.mark.parametrize("name", OF_MASKS)
def test_equal_masks_have_the_best_value_and_a_farther_shift_a_worse_one(name):
    mask = block((16, 16, 3), (2, 8), (2, 8), (0, 3))
    best, near, far = (
        next(value for _, got, value in score_masks(mask, moved, (0.5, 0.5, 5), 2) if got == name)
        for moved in (mask, np.roll(mask, 1, 0), np.roll(mask, 3, 0))
    )
    metric = OF_MASKS[name]
    if metric.higher_is_better:
        assert best == metric.maximum
        assert best > near > far
    else:
        assert best == metric.minimum
        assert best < near < far


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
