"""Made-up data of each kind, in a folder: made where it is not there yet."""

from collections.abc import Sequence
from pathlib import Path


def made_up(reads: str, folder: Path, subjects: Sequence[str]) -> Path:
    """The folder of made-up data of some subjects.

    Parameters
    ----------
    reads
        As the config of a job names what it reads, a key of `PHANTOMS`.
    """
    return PHANTOMS[reads](folder, subjects)


def _axial(folder: Path, subjects: Sequence[str]) -> Path:
    from spine_tasks.data import phantom  # scipy, only where images are really made

    return phantom.ensure(folder, subjects)


def _sagittal(folder: Path, subjects: Sequence[str]) -> Path:
    from spine_tasks.data.phantom_sagittal import ensure

    return ensure(folder, subjects)


def _lumbar(folder: Path, subjects: Sequence[str]) -> Path:
    from spine_tasks.data.phantom_lumbar import ensure

    return ensure(folder, subjects)


def _cords(folder: Path, subjects: Sequence[str]) -> Path:
    from spine_tasks.data.phantom_cords import ensure

    return ensure(folder, subjects)


PHANTOMS = {"bids": _axial, "coco": _sagittal, "grades": _lumbar, "cords": _cords}
