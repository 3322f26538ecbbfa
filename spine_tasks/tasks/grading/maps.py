"""Maps of the frozen part of a network, computed once a place and view and kept on disk.

A file is named by all that its maps follow from: the frozen weights, the places' pixels, and how
views are made. Cells of an experiment that share these share the file.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spine_tasks import ranks
from spine_tasks.files import check_room, replacing
from spine_tasks.tasks.grading.model import Grader
from spine_tasks.tasks.grading.places import Places
from spine_tasks.tasks.grading.split import Uncut

MOST_BYTES = 20_000_000_000  # of all its files; the ones that were not used for longest go
PLACES = 32  # are computed at once
KNOBS = ("backbone", "features", "augment", "image_px", "slices", "crop", "crop_unit", "mirror")

log = logging.getLogger(__name__)


def keep_maps(model: Grader, learning: Places, others: Sequence[Places], folder: Path) -> None:
    """Let places and a network use kept maps, where each view is seen more than once.

    Nothing changes where the backbone has no frozen part, or where training sees ever new views.

    Parameters
    ----------
    learning
        The places of training, seen in `config.views` views, or as they are.
    others
        Those that are only predicted, in `config.test_views` views.
    """
    config = learning.config
    if not config.freeze or (config.augment != "none" and config.views is None):
        return
    device = next(model.parameters()).device
    try:
        frozen = model.take_maps(torch.stack([learning.image(0, 0)] * 2).to(device))
    except Uncut as why:
        log.warning("maps of the frozen part of %s are not kept: %s", config.backbone, why)
        return
    views = [0] if config.augment == "none" else list(range(config.views or 1))
    for places, wanted in [(learning, views), *((one, _tests(one)) for one in others)]:
        ranks.of_first(lambda: _make(frozen, places, wanted, folder))  # noqa: B023  # called at once
        places.maps = np.load(_file(frozen, places, wanted, folder), mmap_mode="r")


def _tests(places: Places) -> list[int]:
    return list(range(places.config.test_views))


def _make(frozen: nn.Module, places: Places, views: Sequence[int], folder: Path) -> None:
    """Compute a file, unless it is there."""
    file = _file(frozen, places, views, folder)
    if file.exists():
        file.touch()  # used now
        return
    wanted = [(view, at) for view in views for at in range(len(places.cases))]
    [shape] = {one.shape for one in _computed(frozen, places, wanted[:1])}
    size = len(wanted) * int(np.prod(shape)) * 4
    _free(folder, size)
    check_room(folder, size, "maps of frozen layers")
    with replacing(file, durable=False) as partial:
        kept = np.lib.format.open_memmap(
            partial, "w+", np.float32, (len(views), len(places.cases), *shape)
        )
        for place, one in zip(wanted, _computed(frozen, places, wanted), strict=True):
            kept[place] = one
        kept.flush()
    log.info("maps of %d places in %d views: %.3g GB", len(places.cases), len(views), size / 1e9)


def _computed(
    frozen: nn.Module, places: Places, wanted: Sequence[tuple[int, int]]
) -> Iterator[NDArray[np.float32]]:
    device = next((one.device for one in frozen.parameters()), torch.device("cpu"))
    for first in range(0, len(wanted), PLACES):
        images = torch.stack([places.image(*one) for one in wanted[first : first + PLACES]])
        with torch.inference_mode():
            yield from frozen.eval()(images.to(device)).float().cpu().numpy()


def _file(frozen: nn.Module, places: Places, views: Sequence[int], folder: Path) -> Path:
    digest = hashlib.sha256(str(frozen.code).encode())
    for name, value in frozen.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    digest.update(places.pixels.numpy().tobytes())
    digest.update(repr([getattr(places.config, knob) for knob in KNOBS]).encode())
    digest.update(repr((list(views), places.seed if max(views) else None)).encode())
    return folder / f"{digest.hexdigest()[:32]}.npy"


def _free(folder: Path, wanted: int) -> None:
    """Remove the files that were not used for longest until there is room within the bound."""
    if not folder.exists():
        return
    files = sorted(folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    while files and total + wanted > MOST_BYTES:
        oldest = files.pop(0)
        total -= oldest.stat().st_size
        oldest.unlink(missing_ok=True)  # a process that reads it keeps it until its end
