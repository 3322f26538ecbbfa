"""The weights file of a trained network: safetensors, with what its outputs mean."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from spine_tasks.errors import WeightsError
from spine_tasks.files import replacing

WEIGHTS_FILE = "model.safetensors"  # in a run's folder: what predicted


def save_network(file: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write a network's weights; `about` is name -> anything that JSON holds.

    What several parts of the network share is written once.
    """
    texts = {name: json.dumps(value) for name, value in about.items()}
    with replacing(file) as partial:
        save_model(model, str(partial), metadata=texts)


def weights_of(run: Path) -> Path:
    """The weights file in a run's folder.

    Raises
    ------
    WeightsError
        There is none.
    """
    file = run / WEIGHTS_FILE
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; put it back, or choose a run that has its own")
    return file


def about_network(file: Path, *names: str) -> tuple[Any, ...]:
    """What a file says of its network's outputs, by name.

    Raises
    ------
    WeightsError
        The file is no weights file, or says no such thing.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
        return tuple(json.loads(about[name]) for name in names)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{file}: not the weights of a network trained here for this ({error!r}); give the "
            "folder of a complete run"
        ) from error


def load_network(file: Path, model: nn.Module) -> None:
    """Load the weights of a network of the same config.

    Raises
    ------
    WeightsError
        The file is of another network.
    """
    try:
        load_model(model, file)
    except (SafetensorError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise WeightsError(f"{file}: not the weights of this network ({first})") from error
