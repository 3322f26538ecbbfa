"""The weights file of a trained detector, with the categories that it tells apart."""

from pathlib import Path

from torch import nn

from spine_tasks.data.coco import CocoData
from spine_tasks.tasks.weights_file import about_network, save_network


def save_weights(file: Path, model: nn.Module, data: CocoData) -> None:
    """Write a detector's weights and the names and ids of its categories."""
    about = {"categories": data.categories, "category_ids": data.category_ids}
    save_network(file, model, about)


def categories_of(file: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names and the ids of the categories that a file's detector tells apart.

    Raises
    ------
    WeightsError
        The file is no weights file of a detector.
    """
    names, ids = about_network(file, "categories", "category_ids")
    return tuple(names), tuple(ids)
