"""Features of boxes: torchvision's numbers and gradients, for boxes of all kinds."""

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from spine_tasks.tasks.faster_rcnn.pooling import BoxPool

torch.set_num_threads(1)

SIZES = [(48, 32), (24, 16), (12, 8), (6, 4)]  # of images of 192 x 128 px
BOXES = [
    [[3.0, 5, 60, 90], [0, 0, 128, 192], [100, 20, 101, 30.5], [127.5, 191, 128, 192]],
    [[0.0, 0, 0.2, 0.1], [20, 30, 20, 30], [126, 0, 128, 192], [40.3, 50.7, 95.2, 130.9]],
]
SHAPES = [(192, 128), (192, 128)]


def torchvision_s():
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    pool.scales, pool.map_levels = [1 / 4, 1 / 8, 1 / 16, 1 / 32], initLevelMapper(2, 5)
    return pool


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features_and_gradients_are_those_of_torchvision(layout):
    torch.manual_seed(0)
    maps = {
        str(level): torch.randn(2, 5, *size).to(memory_format=layout).requires_grad_()
        for level, size in enumerate(SIZES)
    }
    boxes = [torch.tensor(one) for one in BOXES]
    # Large ones, since only these are taken from coarse levels; their images need not be as large.
    boxes[1] = torch.cat([boxes[1], torch.tensor([[0.0, 0, 128, 1000], [0, 0, 900, 900]])])
    own = BoxPool()(maps, boxes, SHAPES)
    theirs = torchvision_s()(maps, boxes, SHAPES)
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(own)
    torch.testing.assert_close(
        torch.autograd.grad(own, maps.values(), weights),
        torch.autograd.grad(theirs, maps.values(), weights),
        rtol=1e-4,
        atol=1e-4,
    )


def test_images_without_a_box_give_none():
    maps = {str(level): torch.zeros(2, 5, *size) for level, size in enumerate(SIZES)}
    none = torch.zeros(0, 4)
    assert BoxPool()(maps, [none, none], SHAPES).shape == (0, 5, 7, 7)
    assert BoxPool()(maps, [none, torch.tensor(BOXES[1])], SHAPES).shape == (4, 5, 7, 7)
