"""The first stage at sampled anchors: what the whole maps would give, and its gradients."""

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers

from spine_tasks.configs.detection import DiscFasterRcnn
from spine_tasks.tasks.faster_rcnn.model import build
from spine_tasks.tasks.faster_rcnn.sampled import at_anchors

torch.set_num_threads(1)

SHAPES = [(5, 7), (3, 4), (2, 1), (1, 1)]  # no two alike, most cells at a border
RATIOS = 3


@pytest.mark.parametrize("depth", [1, 2])
def test_each_anchor_answers_as_within_the_whole_maps_and_so_do_gradients(depth):
    torch.manual_seed(0)
    head = RPNHead(8, RATIOS, depth).double()
    for parameter in head.parameters():  # else biases are 0, and what is beyond the border too
        torch.nn.init.normal_(parameter, std=0.2)
    maps = [torch.randn(2, 8, *shape, dtype=torch.double, requires_grad=True) for shape in SHAPES]
    learned = [*head.parameters(), *maps]
    anchors = 2 * RATIOS * sum(height * width for height, width in SHAPES)
    for chosen in (torch.arange(anchors), torch.tensor([0, 130, 131, 132, 133, 262, anchors - 1])):
        objectness, deltas = concat_box_prediction_layers(*head(maps))
        whole = [objectness[chosen, 0], deltas[chosen]]
        found = at_anchors(head, maps, chosen)
        torch.testing.assert_close(list(found), whole)
        weights = [torch.randn_like(one) for one in whole]
        torch.testing.assert_close(
            torch.autograd.grad(found, learned, weights),
            torch.autograd.grad(whole, learned, weights),
        )


def test_no_anchor_is_no_answer():
    objectness, deltas = at_anchors(
        RPNHead(8, RATIOS), [torch.zeros(1, 8, 2, 2)], torch.tensor([], dtype=torch.int64)
    )
    assert (objectness.shape, deltas.shape) == ((0,), (0, 4))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_first_stage_learns_by_its_losses_alone(bfloat16):
    torch.manual_seed(0)
    small = {"pyramid_channels": 16, "head_features": 32, "anchors_px": (8, 16, 32, 64, 96)}
    model = build(DiscFasterRcnn(backbone="test_resnet", **small), 2)
    target = {"boxes": torch.tensor([[10.0, 10, 40, 30]]), "labels": torch.tensor([1])}
    # A weight cast to bfloat16 while no gradient is wanted must not serve where one is.
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        losses = model([torch.randn(3, 64, 64)], [target])
    (losses["objectness"] + losses["proposal_box"]).backward()
    assert all(parameter.grad.any() for parameter in model.rpn.parameters())
    assert model.backbone.fpn.layer_blocks[0][0].weight.grad.any()
