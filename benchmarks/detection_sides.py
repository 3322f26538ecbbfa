"""What both sides of benchmarks/detection.py are given, and what ours does with it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spine_tasks import ranks
from spine_tasks.configs import Detection
from spine_tasks.data.coco import read_coco
from spine_tasks.loop_torch import Learner, Plan
from spine_tasks.tasks.detection.batches import batches_of
from spine_tasks.tasks.detection.networks import build
from spine_tasks.tasks.detection.train import optimizer
from spine_tasks.torch_machine import use_this_machine

BOXES = 8  # an image of the batch in memory
EPOCHS = 8  # that are loaded, without training, to be measured

Runs = dict[str, Callable[[], int]]  # what is measured; each returns how many images it saw
Target = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """What is the same on both sides."""

    config: Detection
    gpu: bool
    folder: Path  # of pictures, with annotations
    loaders: int  # processes

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device("cuda" if self.gpu else "cpu")


def in_memory(config: Detection, categories: int) -> tuple[list[Tensor], list[Target]]:
    """A batch of noise with some boxes, the same on both sides."""
    generator = torch.Generator().manual_seed(0)
    height, width = config.image_px, config.image_px * 3 // 4
    images, targets = [], []
    for _ in range(config.batch_size):
        images.append(torch.randn(3, height, width, generator=generator))
        corners = torch.rand(BOXES, 2, generator=generator) * 0.7
        extents = 0.05 + torch.rand(BOXES, 2, generator=generator) * 0.2
        boxes = torch.cat([corners, corners + extents], 1) * torch.tensor([width, height] * 2)
        labels = torch.randint(categories, (BOXES,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels})
    return images, targets


def ours(setting: Setting) -> tuple[nn.Module, Runs]:
    """Our detector, as a worker of this project trains it."""
    config = setting.config
    device = use_this_machine(config.threads, int(setting.gpu))
    data = read_coco(setting.folder)
    model = build(config, len(data.categories))
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)
    learner = Learner(model, optimizer(model, config), _plan(config))
    batches = batches_of(data.cases, config, 0, setting.loaders)
    batch = in_memory(config, len(data.categories))
    steps, epochs = count(), count()

    def step(parts: Any) -> int:
        number = next(steps)
        ranks.agree(False, learner.step(parts, 0, number))
        learner.update(number)
        return sum(len(images) for images, _ in parts)

    def evaluate() -> int:
        half = config.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            found = model.eval()([image.to(device) for image in batch[0]])
        return len([{name: one.cpu() for name, one in image.items()} for image in found])

    def load() -> int:
        parts = (part for _ in range(EPOCHS) for [part] in batches(next(epochs)))
        return sum(len(images) for images, _ in parts)

    return model, {
        "training step": lambda: step([batch]),
        "evaluation": evaluate,
        "loading": load,
        "training with loading": lambda: sum(step(parts) for parts in batches(next(epochs))),
    }


def _plan(config: Detection) -> Plan:
    return Plan(
        seed=0,
        epochs=1,
        steps=1,
        patience=1,
        min_delta=0,
        keep_best=False,
        score="",
        checkpoint_s=0,
        factor=lambda step: 1.0,
        clip_norm=config.clip_norm,
        bfloat16=config.precision == "bfloat16",
        compile=config.compile,
    )
