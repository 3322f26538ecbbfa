"""Augmentation of detection: boxes stay on their objects, and the ranges are those documented."""

import math

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch
from torchvision.transforms.v2 import functional

from spine_tasks.tasks.detection import augment as module
from spine_tasks.tasks.detection.augment import (
    augment,
    change_intensity,
    change_perspective,
    crop_centre,
    rotate,
    turn,
)

PX = 160
RECIPES = ("none", "flip", "light", "multi_scale", "hard")
# Far enough apart that brightness and contrast cannot turn one into the other.
LEVELS = (0.4, 0.9)
BOXES = [[62.0, 30.0, 104.0, 56.0], [20.0, 84.0, 56.0, 124.0]]


pytestmark = pytest.mark.usefixtures("one_thread")


def ellipses(width=120, height=PX):
    """An image with an ellipse in each of BOXES, of the level that its label numbers."""
    row, column = np.indices((height, width)) + 0.5
    image = np.zeros((1, height, width), np.float32)
    for (x1, y1, x2, y2), level in zip(BOXES, LEVELS, strict=True):
        u, v = (2 * column - x1 - x2) / (x2 - x1), (2 * row - y1 - y2) / (y2 - y1)
        image[0, np.hypot(u, v) <= 1] = level
    return torch.from_numpy(image), torch.tensor(BOXES, dtype=torch.float64), torch.arange(2)


def drawn(recipe, seed, *sample):
    torch.manual_seed(seed)
    return augment(*sample, recipe, PX)


def with_steps(monkeypatch, *steps):
    """Augment by these steps alone, and drop boxes as `hard` does."""
    monkeypatch.setattr(module, "_steps", lambda *_: steps)
    monkeypatch.setattr(module, "MOSTLY_LIT", 0)

    def run(boxes, size=(100, 100)):
        boxes = torch.tensor(boxes, dtype=torch.float64)
        return augment(torch.zeros(1, *size), boxes, torch.arange(len(boxes)), "hard", PX)

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_box_stays_on_its_object_with_its_label(recipe):
    whole = 0
    for seed in range(60):
        image, boxes, labels = drawn(recipe, seed, *ellipses())
        assert (image.dtype, boxes.dtype, labels.dtype) == (
            torch.float32, torch.float32, torch.int64
        )  # fmt: skip
        height, width = image.shape[-2:]
        assert max(height, width) <= PX
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height] * 2)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        # The fill gets brighter too, so objects are what is well above it.
        regions, _ = ndimage.label(image[0].numpy() > image.min().item() + 0.2)
        found = ndimage.find_objects(regions)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            if min(box[0], box[1], width - box[2], height - box[3]) < 2:
                continue  # cut: what is left of an ellipse is smaller than the bounds
            x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
            assert image[0, y, x].item() == pytest.approx(LEVELS[label], abs=0.15)
            rows, columns = found[regions[y, x] - 1]
            seen = [columns.start, rows.start, columns.stop, rows.stop]
            np.testing.assert_allclose(box, seen, atol=1.7)
            whole += 1
    assert whole > 40


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(PX, 90), (90, PX), (1, PX), (PX, 1), (1, 1)])
def test_an_image_may_have_no_boxes_and_any_shape(recipe, size):
    for seed in range(8):
        image, boxes, labels = drawn(
            recipe, seed, torch.rand(1, *size), torch.zeros(0, 4).double(), torch.arange(0)
        )
        assert min(image.shape) >= 1
        assert (boxes.shape, boxes.dtype) == ((0, 4), torch.float32)
        assert (labels.shape, labels.dtype) == ((0,), torch.int64)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_box_of_the_whole_image_and_one_along_each_border_stay_inside(recipe):
    boxes = [[0, 0, 90, PX], [0, 0, 3, PX], [87, 0, 90, PX], [0, 0, 90, 2], [0, PX - 2, 90, PX]]
    for seed in range(30):
        image, found, labels = drawn(
            recipe,
            seed,
            torch.rand(1, PX, 90),
            torch.tensor(boxes, dtype=torch.float64),
            torch.arange(len(boxes)),
        )
        assert 0 in labels
        assert (found[:, 2:] > found[:, :2]).all()
        assert found.min() >= 0
        assert (found[:, 2:].amax(0) <= torch.tensor(image.shape).flip(0)[:2]).all()


@pytest.mark.parametrize("recipe", RECIPES[1:])
def test_all_randomness_is_that_of_torchs_generator(recipe):
    sample = ellipses()
    (image, boxes, _), (again, same, _) = (drawn(recipe, 3, *sample) for _ in range(2))
    assert torch.equal(image, again)
    assert torch.equal(boxes, same)
    others = [drawn(recipe, seed, *sample)[0] for seed in range(8)]
    assert any(image.shape != other.shape or not image.equal(other) for other in others)


def test_none_changes_nothing():
    image, boxes, labels = ellipses()
    same, same_boxes, same_labels = drawn("none", 0, image, boxes, labels)
    assert torch.equal(image, same)
    assert torch.equal(labels, same_labels)
    np.testing.assert_allclose(same_boxes, BOXES, atol=1e-4)


def test_flip_mirrors_half_the_images_left_to_right():
    image, boxes, labels = ellipses()
    flipped = 0
    for seed in range(200):
        new, new_boxes, _ = drawn("flip", seed, image, boxes, labels)
        if new.equal(image):
            np.testing.assert_allclose(new_boxes, BOXES, atol=1e-4)
            continue
        assert new.equal(image.flip(-1))
        mirrored = [[120 - x2, y1, 120 - x1, y2] for x1, y1, x2, y2 in BOXES]
        np.testing.assert_allclose(new_boxes, mirrored, atol=1e-4)
        flipped += 1
    assert 75 <= flipped <= 125  # 3.5 standard deviations


def test_multi_scale_reaches_every_scale_and_crops_half_the_time():
    square = torch.zeros(1, PX, PX), torch.tensor([[0, 0, PX, PX]]).double(), torch.arange(1)
    scales, uncropped = set(), 0
    for seed in range(300):
        image = drawn("multi_scale", seed, *square)[0]
        scales.add(max(image.shape))
        # A crop of a square is hardly ever a square.
        uncropped += image.shape[1] == image.shape[2]
    assert scales == {round(PX * (0.6 + 0.04 * step)) for step in range(11)}
    assert 120 <= uncropped <= 190


def test_a_crop_of_multi_scale_is_between_48_and_75_percent_of_the_long_side(monkeypatch):
    crops = []
    monkeypatch.setattr(module, "_resize", lambda image, outlines, px: (image, outlines))
    monkeypatch.setattr(module.v2, "RandomCrop", lambda size: crops.append(size) or (lambda *a: a))
    for seed in range(400):
        drawn("multi_scale", seed, torch.zeros(1, PX, 70), torch.zeros(0, 4), torch.arange(0))
    heights, widths = zip(*crops, strict=True)
    assert (min(heights), max(heights)) == (round(0.48 * PX), round(0.75 * PX))
    assert set(widths) == {70}  # narrower than the least: all of it


def test_turns_are_by_quarters_and_lose_nothing():
    image, boxes, _ = ellipses()
    outlines = module._outlines(boxes, image)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        turned, moved = turn(image, outlines)
        quarters = [k for k in range(4) if turned.equal(image.rot90(k, (1, 2)))]
        assert len(quarters) == 1
        seen.update(quarters)
        x1, y1, x2, y2 = torch.tensor(BOXES).T
        known = {
            0: [x1, y1, x2, y2],
            1: [y1, 120 - x2, y2, 120 - x1],
            2: [120 - x2, PX - y2, 120 - x1, PX - y1],
            3: [PX - y2, x1, PX - y1, x2],
        }[quarters[0]]
        np.testing.assert_allclose(module._bounds(moved), torch.stack(known, 1), atol=1e-3)
    assert seen == {0, 1, 2, 3}


def test_rotation_is_up_to_19_degrees_both_ways():
    image = torch.zeros(1, PX, PX)
    centre, right = [80, 80, 80, 80], [140, 80, 140, 80]  # points, as boxes without extent
    points = module.BoundingBoxes(
        torch.tensor([centre, right]).double(), format="XYXY", canvas_size=(PX, PX)
    )
    angles = []
    for seed in range(300):
        torch.manual_seed(seed)
        (x0, y0, *_), (x1, y1, *_) = rotate(image, points)[1].tolist()
        assert math.hypot(x1 - x0, y1 - y0) == pytest.approx(60, abs=1e-3)
        angles.append(math.degrees(math.atan2(y1 - y0, x1 - x0)))
    assert -19 <= min(angles) < -18 < 18 < max(angles) <= 19


def test_a_rotated_box_is_the_bounds_of_its_ellipse(monkeypatch):
    def by_19_degrees(image, outlines):
        return functional.rotate(image, 19), functional.rotate(outlines, 19)

    (box,) = with_steps(monkeypatch, by_19_degrees)([[31.0, 40.5, 69.0, 59.5]])[1].tolist()
    cos, sin = math.cos(math.radians(19)), math.sin(math.radians(19))
    width, height = 2 * math.hypot(19 * cos, 9.5 * sin), 2 * math.hypot(19 * sin, 9.5 * cos)
    assert box[2] - box[0] == pytest.approx(width, rel=0.006)
    assert box[3] - box[1] == pytest.approx(height, rel=0.006)
    assert (box[0] + box[2], box[1] + box[3]) == pytest.approx((100, 100), abs=0.01)


def test_perspective_cuts_corners_off_and_leaves_nothing_black():
    image = ellipses()[0]
    corner = module._outlines(torch.tensor([[0, 0, 1.0, 1.0]]).double(), image)
    shifts = []
    for seed in range(100):
        torch.manual_seed(seed)
        white, _ = change_perspective(torch.ones_like(image), corner)
        assert white[:, 1:-1, 1:-1].min() > 0.99
        torch.manual_seed(seed)
        shifts.append(module._bounds(change_perspective(image, corner)[1])[0, 0].item() / 120)
    # A corner moves by half a normal deviate of .075 of the side, on average.
    assert -0.09 < np.mean(shifts) < -0.04


def test_the_centre_crop_is_330_of_384():
    image, boxes = torch.zeros(1, 384, 192), torch.tensor([[20.0, 40, 60, 80]]).double()
    cropped, moved = crop_centre(image, module._outlines(boxes, image))
    assert cropped.shape == (1, 330, 165)
    left = (192 - 165) // 2
    np.testing.assert_allclose(
        module._bounds(moved), [[20 - left, 13, 60 - left, 53]], atol=1  # of an odd margin
    )  # fmt: skip


def test_brightness_and_contrast_change_by_7_percent_and_stay_in_range():
    image = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 3)
    changed = []
    for seed in range(400):
        torch.manual_seed(seed)
        new = change_intensity(image)
        assert 0 <= new.min() <= new.max() <= 1
        if not new.equal(image):
            changed.append(new[0, 0, 1].item())
    assert 225 <= len(changed) <= 295  # .65 of 400, 3.5 standard deviations
    assert 0.3875 <= min(changed) < 0.41
    assert 0.59 < max(changed) <= 0.6125


def test_a_box_of_which_less_than_30_percent_is_left_is_dropped_with_its_label(monkeypatch):
    def cut_20_px_off_the_left(image, outlines):
        return tuple(functional.crop(one, 0, 20, 100, 80) for one in (image, outlines))

    run = with_steps(monkeypatch, cut_20_px_off_the_left)
    _, boxes, labels = run([[0, 0, 28, 10], [0, 20, 29, 30], [0, 0, 19, 9], [40, 40, 50, 50]])
    assert labels.tolist() == [1, 3]  # 8/28 is less than .3, 9/29 is more
    np.testing.assert_allclose(boxes, [[0, 20, 9, 30], [20, 40, 30, 50]], atol=1e-4)


def test_what_is_left_of_a_box_does_not_grow_by_enlarging(monkeypatch):
    def enlarge(image, outlines):
        return tuple(functional.resize(one, [200, 200]) for one in (image, outlines))

    def cut(image, outlines):
        return tuple(functional.crop(one, 0, 40, 200, 160) for one in (image, outlines))

    # A fifth is left, of four times the area: .8 of the area before.
    assert with_steps(monkeypatch, enlarge, cut)([[0, 0, 25, 10]])[2].tolist() == []
    assert with_steps(monkeypatch, enlarge, cut)([[0, 0, 30, 10]])[2].tolist() == [0]


def test_what_was_pushed_out_of_the_image_stays_lost_when_a_later_step_brings_it_back(monkeypatch):
    def shift(px):
        def step(image, outlines):
            move = [0, [px, 0], 1.0, [0.0, 0.0]]
            return functional.affine(image, *move), functional.affine(outlines, *move)

        return step

    run = with_steps(monkeypatch, shift(-20), shift(20))
    _, boxes, labels = run([[0, 0, 25, 10], [10, 30, 40, 40]])
    assert labels.tolist() == [1]
    np.testing.assert_allclose(boxes, [[20, 30, 40, 40]], atol=1e-4)
