"""A trained detector as one file that runs without this project: a program of torch.export.

It is made for images of one size. Faster R-CNN has as many boxes as it finds, for which
torchvision's suppression of neighbours asks Python: here one that gives the same boxes takes its
place. A traced TorchScript would give wrong boxes in images of another size, without a word; this
program refuses them.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision.ops.boxes
from torch import Tensor, nn
from torchvision.ops import nms

from spine_tasks.configs import Detection
from spine_tasks.errors import RunError
from spine_tasks.files import replacing
from spine_tasks.tasks.detection.inputs import WINDOW, normalise

ABOUT, NOTE = "about.json", "README.md"  # in the file, beside the program
FAR_PX = 1e6  # more than any image's side
BOX_PX, SCORE = 1e-4, 1e-5  # what the program may differ by


class Single(nn.Module):
    """A detector of one image, with tensors as answer."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, 4) xyxy px, labels (N,) and scores (N,) of an image (C, H, W)."""
        [found] = self.detector([image])
        return found["boxes"], found["labels"], found["scores"]


def export(
    model: nn.Module, config: Detection, picture: Tensor, about: dict[str, Any], file: Path
) -> None:
    """Write a detector as a program, once it was loaded again and gave the same boxes.

    Parameters
    ----------
    model
        Trained, on the CPU. It computes in float32, whatever `config.precision` says.
    picture
        uint8 (1, H, W). The program is for this size, and is checked on it, on its mirror image and
        on made-up ones.
    about
        Noted in the file, with what a caller must know.

    Raises
    ------
    RunError
        torch.export cannot make a program of it, or the program gives other boxes.
    """
    # The first will be in the file, so it is no patient's.
    images = [normalise(one, config) for one in (*_made_up(picture), picture, picture.flip(-1))]
    single = Single(model.eval())
    about = about | _how(config, images[0])
    try:
        with torch.no_grad(), _traceable_nms():
            program = torch.export.export(single, (images[0],), strict=False)
    except Exception as error:  # torch has no class of its own for: this network cannot be
        first = next(iter(str(error).strip().splitlines()), "")
        raise RunError(
            f"torch.export cannot make a program of this detector ({type(error).__name__}: "
            f"{first}); predict by jobs/predict.py"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where whoever exports keeps their files
    notes = {ABOUT: json.dumps(about, indent=1), NOTE: _note(about)}
    written = io.BytesIO()  # else the temporary file's name, with that of the host, would be in it
    torch.export.save(program, written, extra_files=notes)
    with replacing(file) as partial:
        partial.write_bytes(written.getbuffer())
        _check(torch.export.load(partial).module(), single, images)


def _made_up(picture: Tensor) -> list[Tensor]:
    """Pictures of noise, of the size of one."""
    drawn = torch.Generator().manual_seed(0)
    return [torch.randint(256, picture.shape, dtype=torch.uint8, generator=drawn) for _ in range(2)]


@contextmanager
def _traceable_nms() -> Iterator[None]:
    """Let torchvision suppress boxes without a look at how many there are."""
    original = torchvision.ops.boxes.batched_nms
    torchvision.ops.boxes.batched_nms = _nms_by_label
    try:
        yield
    finally:
        torchvision.ops.boxes.batched_nms = original


def _nms_by_label(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """`batched_nms` without a look at how many boxes there are.

    Boxes of each label are moved to where no other label has any; of 64 bits they lose nothing.
    """
    beside = labels.double()[:, None] * FAR_PX
    kept: Tensor = nms(boxes.double() + beside, scores.double(), iou)
    return kept


def _how(config: Detection, image: Tensor) -> dict[str, Any]:
    """What a caller must know, for machines."""
    white, black = (normalise(torch.full((1, 1, 1), value), config) for value in (1.0, 0.0))
    std = 1 / (white - black)
    return {
        "input_shape": list(image.shape),
        "image_px": config.image_px,
        "window_percentiles": list(WINDOW),
        "mean": (-black * std).flatten().tolist(),
        "std": std.flatten().tolist(),
        "merge_iou": config.merge_iou,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def _note(about: dict[str, Any]) -> str:
    """What a caller must know, for people."""
    channels, height, width = about["input_shape"]
    low, high = about["window_percentiles"]
    merge = (
        f"4. Of two boxes with an IoU above {about['merge_iou']}, whatever their labels, keep the "
        "surer one.\n"
        if about["merge_iou"] is not None
        else ""
    )
    return f"""# A detector of {", ".join(about["categories"])}

    import json, torch, torchvision
    notes = {{"about.json": ""}}
    detect = torch.export.load("FILE.pt2", extra_files=notes).module()
    about = json.loads(notes["about.json"])
    with torch.no_grad():
        boxes, labels, scores = detect(image)

1. `image` is float32 ({channels}, {height}, {width}), for pictures with the shape of
   {height} x {width} (height x width); another size is refused. Take grey values, cut them at their
   percentiles {low:g} and {high:g}, scale these to 0 and 1, resize (bilinear, antialiased) to
   x, take floor(255.999 x) / 255, and of that each channel as (value - mean) / std by `about`.
2. `boxes` are xyxy px of `image`: multiply by the picture's width / {width} and height / {height}.
3. `labels` count from 0 in the order of `about["categories"]`; `scores` are in [0, 1], the surest
   first. Many are unsure: keep those above `about["thresholds"]`, which validation chose.
{merge}"""


def _check(program: Any, single: Single, images: Sequence[Tensor]) -> None:
    """Refuse a program that gives other boxes than the detector."""
    for image in images:
        with torch.no_grad():
            wanted, got = single(image), program(image)
        same = len(wanted[0]) == len(got[0]) and torch.equal(wanted[1], got[1])
        limits = zip(wanted, got, (BOX_PX, 0, SCORE), strict=True)
        if not (same and all(torch.allclose(a, b, rtol=0, atol=tol) for a, b, tol in limits)):
            raise RunError(
                f"the exported program finds {len(got[0])} boxes where the detector finds "
                f"{len(wanted[0])}, or other ones; nothing was written: predict by "
                "jobs/predict.py"
            )
