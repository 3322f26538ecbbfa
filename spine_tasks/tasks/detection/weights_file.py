"""The weights file of a trained detector: safetensors, with the categories that it tells apart."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from spine_tasks.data.coco import CocoData
from spine_tasks.errors import WeightsError
from spine_tasks.files import replacing

WEIGHTS_FILE = "model.safetensors"  # in a run's folder: what predicted


def save_weights(file: Path, model: nn.Module, data: CocoData) -> None:
    """Write a detector's weights and the names and ids of its categories."""
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    about = {
        "categories": json.dumps(data.categories),
        "category_ids": json.dumps(data.category_ids),
    }
    with replacing(file) as partial:
        save_file(tensors, partial, metadata=about)


def categories_of(file: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names and the ids of the categories that a file's detector tells apart.

    Raises
    ------
    WeightsError
        The file is no weights file of a detector.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
        return tuple(json.loads(about["categories"])), tuple(json.loads(about["category_ids"]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{file}: not the weights of a detector trained here ({error!r}); give the folder of "
            "a complete run"
        ) from error


def load_weights(file: Path, model: nn.Module) -> None:
    """Load the weights of a detector of the same config.

    Raises
    ------
    WeightsError
        The file is of another network.
    """
    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise WeightsError(f"{file}: not the weights of this detector ({first})") from error
