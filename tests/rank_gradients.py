"""Gradients of one step, of the whole batch or of a rank's share, for tests to compare."""

import numpy as np
import torch
from making import cell
from tiny_torch import PLAN, batches, network

from spine_tasks import meeting, ranks
from spine_tasks.configs import make_config
from spine_tasks.loop_torch import Learner
from spine_tasks.run import Run
from spine_tasks.tasks.detection.networks import build

DETR = {
    "backbone": "test_resnet",  # timm's smallest
    "init": "backbone",  # so that the batch norms are frozen; nothing is loaded here
    "hidden": 32,
    "feedforward": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 6,
    "dropout": 0.0,
}
DISCS = {
    "backbone": "test_resnet",
    "init": "backbone",
    "pyramid_channels": 16,
    "head_features": 32,
    "anchors_px": (8, 16, 32, 64, 96),
    "class_weights": (1.0, 2.0, 5.0),
}
NETWORKS = {"cord_signal_detr": DETR, "disc_faster_rcnn": DISCS}
IN_PARTS = "in two parts"
BOXES = [
    [(10, 10, 40, 30, 0), (5, 40, 30, 60, 1), (30, 30, 50, 64, 1)],
    [(0, 0, 64, 64, 1)],
    [],
    [(30, 20, 60, 28, 0)],
]


def detection_batch():
    """Four images of one size, so that padding is the same however they are dealt out."""
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tables = [torch.tensor(rows, dtype=torch.float32).reshape(-1, 5) for rows in BOXES]
    targets = [{"boxes": table[:, :4], "labels": table[:, 4].long()} for table in tables]
    return list(images), targets


def gradients_here():
    """Of one step of each network on this rank's share of its batch, and the losses of all."""
    share = slice(ranks.rank() * 4 // ranks.count(), (ranks.rank() + 1) * 4 // ranks.count())
    images, targets = detection_batch()
    made = {}
    for job, knobs in NETWORKS.items():
        torch.manual_seed(0)
        made[job] = build(make_config(job, knobs), 2), [(images[share], targets[share])]
    [(x, y)] = next(batches(0, 0))
    plain = network(normalised=False, dropout=0.0)
    made[IN_PARTS] = plain, list(zip(x.chunk(2), y.chunk(2), strict=True))
    found = {}
    for name, (model, batch) in made.items():
        learner = Learner(model, torch.optim.SGD(model.parameters(), lr=1.0), PLAN)
        _, terms = ranks.agree(False, learner.step(batch, 0, 0))
        trainable = {key: value for key, value in model.named_parameters() if value.requires_grad}
        found[name] = {key: value.grad.numpy() for key, value in trainable.items()}, terms
    return found


def gradients(folder):
    with meeting.together(cell(), Run(folder)):
        return gradients_here()


def check_same(alone, on_rank):
    """The gradient and the losses of one process are those of a rank of several."""
    gradient, terms = alone
    assert max(abs(value).max() for value in gradient.values()) > 0.01
    for name, value in gradient.items():
        np.testing.assert_allclose(on_rank[0][name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    assert on_rank[1].keys() == terms.keys()
    for name, value in terms.items():
        np.testing.assert_allclose(on_rank[1][name], value, rtol=1e-4, err_msg=name)
