"""The peers of benchmarks/detection.py: how others train these detectors."""

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from detection_sides import EPOCHS, Runs, Setting, Target, in_memory
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from spine_tasks.data.coco import BoxCase, read_coco

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet


def transformers_detr(setting: Setting) -> tuple[nn.Module, Runs]:
    """DETR of transformers, by its Trainer's defaults: fused AdamW and a clipped gradient; TF32."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

    config, device = setting.config, setting.device
    torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    data = read_coco(setting.folder)
    names = dict(enumerate(data.categories))
    details = DetrConfig(
        num_queries=config.queries,
        auxiliary_loss=True,
        activation_dropout=config.dropout,  # these two as published; by default they are 0
        attention_dropout=config.dropout,
        id2label=names,
        label2id={name: label for label, name in names.items()},
    )
    model = DetrForObjectDetection(details).to(device)
    for name, parameter in model.model.backbone.named_parameters():
        # As published; transformers does so for backbones that it knows by another name.
        parameter.requires_grad_(any(stage in name for stage in ("layer2", "layer3", "layer4")))
    learned = [one for one in model.parameters() if one.requires_grad]
    adamw = torch.optim.AdamW(learned, config.learning_rate, weight_decay=1e-4, fused=True)
    processor = DetrImageProcessor()
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomHorizontalFlip(),
            v2.Resize(None, max_size=config.image_px),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    loader = _loader(setting, transform, data.cases, _padded)
    batch = _padded(list(zip(*in_memory(config, len(names)), strict=True)))

    def step(batch: dict[str, Any]) -> int:
        model.train()
        with _autocast(setting):
            loss = model(**_to(batch, device)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        adamw.step()
        model.zero_grad()
        return len(batch["labels"])

    def evaluate() -> int:
        images = _to({name: batch[name] for name in ("pixel_values", "pixel_mask")}, device)
        sizes = [(int(one[:, 0].sum()), int(one[0].sum())) for one in batch["pixel_mask"]]
        with torch.no_grad(), _autocast(setting):
            outputs = model.eval()(**images)
        found = processor.post_process_object_detection(outputs, 0.0, sizes)
        return len([{name: one.cpu() for name, one in image.items()} for image in found])

    return model, {
        "training step": lambda: step(batch),
        "evaluation": evaluate,
        "loading": lambda: sum(len(batch["labels"]) for _ in range(EPOCHS) for batch in loader),
        "training with loading": lambda: sum(step(batch) for batch in loader),
    }


def torchvision_faster_rcnn(setting: Setting) -> tuple[nn.Module, Runs]:
    """Faster R-CNN of torchvision, as its reference script trains it."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    config, device = setting.config, setting.device
    torch.set_num_threads(config.threads)
    data = read_coco(setting.folder)
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    edges = {"min_size": config.image_px, "max_size": config.image_px}
    model = FasterRCNN(backbone, len(data.categories) + 1, **edges).to(device)
    learned = [one for one in model.parameters() if one.requires_grad]
    sgd = torch.optim.SGD(learned, lr=config.learning_rate, momentum=0.9, weight_decay=1e-4)
    transform = v2.Compose(
        [v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    )
    loader = _loader(setting, transform, data.cases, lambda pairs: tuple(zip(*pairs, strict=True)))
    images, targets = in_memory(config, len(data.categories))

    def step(images: Any, targets: Any) -> int:
        targets = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
        with _autocast(setting):
            terms = model.train()(_to(list(images), device), _to(targets, device))
        loss = sum(terms.values())
        if not math.isfinite(loss.item()):  # as its script does
            raise FloatingPointError(f"loss {loss}")
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        return len(images)

    def evaluate() -> int:
        with torch.inference_mode(), _autocast(setting):
            found = model.eval()(_to(images, device))
        return len([{name: one.cpu() for name, one in image.items()} for image in found])

    return model, {
        "training step": lambda: step(images, targets),
        "evaluation": evaluate,
        "loading": lambda: sum(len(batch[0]) for _ in range(EPOCHS) for batch in loader),
        "training with loading": lambda: sum(step(*batch) for batch in loader),
    }


class Pictures(Dataset[tuple[Tensor, Target]]):
    """Pictures that are decoded in every epoch, as peers' examples do."""

    def __init__(self, cases: tuple[BoxCase, ...], transform: v2.Transform) -> None:
        self.cases, self.transform = cases, transform

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        case = self.cases[index]
        size = (case.height, case.width)
        boxes = BoundingBoxes(torch.from_numpy(case.boxes).float(), format="XYXY", canvas_size=size)
        with Image.open(case.image) as picture:
            image, boxes = self.transform(picture.convert("RGB"), boxes)
        return image, {"boxes": boxes, "labels": torch.from_numpy(case.labels)}


def _loader(
    setting: Setting, transform: v2.Transform, cases: tuple[BoxCase, ...], collate: Any
) -> DataLoader[Any]:
    return DataLoader(
        Pictures(cases, transform),
        batch_size=setting.config.batch_size,
        shuffle=True,
        num_workers=setting.loaders,
        persistent_workers=setting.loaders > 0,
        pin_memory=setting.gpu,
        collate_fn=collate,
    )


def _padded(pairs: list[tuple[Tensor, Target]]) -> dict[str, Any]:
    """A batch as transformers' DETR wants it: boxes are cxcywh fractions of their image."""
    height, width = (max(image.shape[axis] for image, _ in pairs) for axis in (1, 2))
    values = torch.zeros(len(pairs), 3, height, width)
    mask = torch.zeros(len(pairs), height, width, dtype=torch.int64)
    labels = []
    for number, (image, target) in enumerate(pairs):
        rows, columns = image.shape[1:]
        values[number, :, :rows, :columns] = image
        mask[number, :rows, :columns] = 1
        x1, y1, x2, y2 = target["boxes"].as_subclass(Tensor).unbind(1)
        centres = [(x1 + x2) / 2 / columns, (y1 + y2) / 2 / rows]
        boxes = torch.stack([*centres, (x2 - x1) / columns, (y2 - y1) / rows], 1)
        labels.append({"class_labels": target["labels"], "boxes": boxes})
    return {"pixel_values": values, "pixel_mask": mask, "labels": labels}


def _autocast(setting: Setting) -> AbstractContextManager[None]:
    """The precision of the config, as Trainer's `bf16` and the reference script's `--amp` do it."""
    half = setting.config.precision == "bfloat16"
    return torch.autocast(setting.device.type, torch.bfloat16, enabled=half)


def _to(value: Any, device: torch.device) -> Any:
    """Tensors within lists and dictionaries, on a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _to(one, device) for name, one in value.items()}
    return [_to(one, device) for one in value]
