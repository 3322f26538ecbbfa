"""The optimisers of detectors: one pass over the weights does what ten did."""

import copy

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

import torch

from spine_tasks.configs import CordSignalDetr, DiscFasterRcnn
from spine_tasks.tasks.detection.networks import build
from spine_tasks.tasks.detection.train import optimizer

torch.set_num_threads(1)

SMALL = {
    CordSignalDetr: {"hidden": 16, "heads": 2, "feedforward": 16, "queries": 4, "dropout": 0.0},
    DiscFasterRcnn: {
        "pyramid_channels": 16,
        "head_features": 32,
        "anchors_px": (8, 16, 32, 64, 96),
        "optimizer": "sgd",
    },
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", SMALL)
def test_steps_are_those_of_the_plain_optimiser_in_any_memory_format(kind, channels_last):
    """On CPUs torch's fused steps read a gradient of another format as if it were of the weights'.

    No error tells: all that helps is that its backward pass gives gradients the weights' format.
    """
    rates = {"learning_rate": 1e-2, "backbone_learning_rate": 2e-2}
    knobs = {"backbone": "test_resnet", "channels_last": channels_last} | rates | SMALL[kind]
    config = kind(**knobs)
    torch.manual_seed(0)
    fused = build(config, 2)
    if channels_last:
        fused.to(memory_format=torch.channels_last)
    plain = copy.deepcopy(fused)
    one, other = optimizer(fused, config), optimizer(plain, config)
    for group in other.param_groups:
        assert group["fused"]
        group["fused"] = False
    target = {"boxes": torch.tensor([[4.0, 8, 40, 30]]), "labels": torch.tensor([1])}
    for _ in range(3):
        for _ in range(2):  # as parts of a batch, whose gradients are summed
            sum(fused([torch.randn(3, 64, 64)], [target]).values()).backward()
        for mine, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
            theirs.grad = mine.grad.clone()
        one.step()
        other.step()
        one.zero_grad()
    for (name, mine), theirs in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6, msg=name)
