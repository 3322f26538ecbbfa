"""Inputs of detection: what detectors are given, and how it comes back to the picture."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch

from spine_tasks.configs import CordSignalDetr, DiscFasterRcnn
from spine_tasks.data.coco import BoxCase
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.predictions import Detections
from spine_tasks.tasks.detection.inputs import (
    normalise,
    read_case,
    resized,
    resized_boxes,
    to_original,
)

PX = 48


pytestmark = pytest.mark.usefixtures("one_thread")


def config(**knobs):
    return DiscFasterRcnn(
        **{"image_px": PX, "augment": "none", "batch_size": 4, "threads": 1} | knobs
    )


def case(folder, pixels, boxes=(), name="a"):
    """A case with a picture of these pixels, labels counting from 0."""
    pixels = np.asarray(pixels)
    file = folder / f"{name}.png"
    Image.fromarray(pixels).save(file)
    height, width = pixels.shape
    return BoxCase(
        id=name,
        image_id=0,
        subject=name,
        image=file,
        width=width,
        height=height,
        boxes=np.array(boxes, float).reshape(-1, 4),
        labels=np.arange(len(boxes)),
    )


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [((300, 200), [48, 32]), ((20, 30), [32, 48]), ((1, 1), [48, 48]), ((1, 1000), [1, 48])],
)
def test_the_long_side_is_as_asked_and_no_side_vanishes(tmp_path, size, expected):
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    image = read_case(case(tmp_path, pixels), config())
    assert image.shape == (1, *expected)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize("size", [(96, 60), (30, 24)])  # made smaller, and larger
def test_boxes_follow_the_resized_picture(tmp_path, size):
    pixels = np.zeros(size, np.uint8)
    pixels[10:22, 6:18] = 200
    one = case(tmp_path, pixels, [[6, 10, 18, 22]])
    image = read_case(one, config())
    (box,) = resized_boxes(one, image.shape[1:]).tolist()
    rows, columns = np.nonzero(image[0].numpy() > 127)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(box, seen, atol=0.51)


def test_the_window_is_from_percentile_1_to_99_and_a_half(tmp_path):
    ramp = np.linspace(500, 2500, PX * PX).reshape(PX, PX).astype(np.uint16)
    image = read_case(case(tmp_path, ramp), config())[0].numpy()
    low, high = 500 + 0.01 * 2000, 500 + 0.995 * 2000
    expected = np.clip((ramp.astype(float) - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(image, expected, atol=1.1)
    assert (image.min(), image.max()) == (0, 255)


def test_scale_and_offset_of_the_values_do_not_matter(tmp_path):
    dim = np.random.default_rng(0).integers(10, 200, (60, 50)).astype(np.uint16)
    first, second = (
        read_case(case(tmp_path, pixels, name=name), config()).int()
        for pixels, name in ((dim, "dim"), (dim * 200 + 9000, "bright"))
    )
    assert (first - second).abs().max() <= 1


def test_a_picture_of_one_value_is_zeros_and_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        image = read_case(case(tmp_path, np.full((30, 20), 77, np.uint8)), config())
    assert not image.any()
    assert "a.png: every pixel is 77" in caplog.text


def test_one_bright_pixel_beyond_the_window_is_not_lost(tmp_path, caplog):
    pixels = np.zeros((PX, PX), np.uint8)
    pixels[30, 20] = 9
    assert read_case(case(tmp_path, pixels), config())[0, 30, 20] == 255
    assert not caplog.text


def test_a_picture_of_another_size_than_annotated_is_refused(tmp_path):
    turned = replace(case(tmp_path, np.zeros((30, 20), np.uint8)), width=30, height=20)
    with pytest.raises(DataError, match=r"a\.png: 20 x 30 px, but its annotation says 30 x 20"):
        read_case(turned, config())


# -- normalising -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "channels", "black", "white"),
    [
        ("tf_efficientnet_lite0", 3, [-1.0, -1, -1], [1.0, 1, 1]),
        ("tf_efficientnet_lite0", 1, [-1.0], [1.0]),
        ("resnet50", 3, [-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64]),
        ("resnet50", 1, [-0.449 / 0.226], [0.551 / 0.226]),
    ],
)
def test_images_are_normalised_as_the_backbones_weights_know_them(backbone, channels, black, white):
    image = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    for start in ("none", "backbone"):
        for one in (DiscFasterRcnn, CordSignalDetr):
            knobs = one(backbone=backbone, channels=channels, init=start)
            normalised = normalise(image, knobs)
            assert normalised.dtype == torch.float32
            torch.testing.assert_close(
                normalised[:, 0].T, torch.tensor([black, white]), atol=1e-4, rtol=0
            )
            assert normalise(image / 255, knobs).equal(normalised)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ConfigError, match="'resnet5': timm knows no such network"):
        normalise(torch.zeros(1, 2, 2), config(backbone="resnet5"))


# -- back to the picture -----------------------------------------------------------------------


def test_found_boxes_come_back_to_the_very_pixels_of_the_picture(tmp_path):
    boxes = [[3.25, 4.5, 100, 90], [0, 0, 201, 333], [200, 332, 201, 333]]
    one = case(tmp_path, np.eye(333, 201).astype(np.uint8), boxes)
    size = resized((one.height, one.width), PX)
    whole_image = resized_boxes(one, size)[1].tolist()
    assert whole_image == pytest.approx([0, 0, 29, 48], abs=1e-9)  # 28.97, rounded
    found = {
        "boxes": resized_boxes(one, size),
        "labels": torch.tensor([2, 0, 1]),
        "scores": torch.tensor([0.75, 0.5, 0.5]),
    }
    back = to_original(found, size, one)
    assert isinstance(back, Detections)
    np.testing.assert_allclose(back.boxes, boxes, atol=1e-9)
    assert back.labels.tolist() == [2, 0, 1]
    assert back.scores.tolist() == [0.75, 0.5, 0.5]
    assert (back.boxes.dtype, back.labels.dtype, back.scores.dtype) == (
        np.float64, np.int64, np.float64
    )  # fmt: skip


def test_found_boxes_are_clipped_to_the_picture_and_none_is_left_out(tmp_path):
    one = case(tmp_path, np.eye(96, 48).astype(np.uint8))
    found = {
        "boxes": torch.tensor([[-5.0, -5, 10, 50], [30, 50, 40, 60]], requires_grad=True),
        "labels": torch.tensor([0, 1], dtype=torch.int32),
        "scores": torch.tensor([0.9, 0.1]),
    }
    back = to_original(found, (48, 24), one)
    assert back.boxes.tolist() == [[0, 0, 20, 96], [48, 96, 48, 96]]
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).int(), "scores": torch.zeros(0)}
    assert to_original(nothing, (48, 24), one).boxes.shape == (0, 4)
