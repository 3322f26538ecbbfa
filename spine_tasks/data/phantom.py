"""A made-up axial T2*-weighted spinal-cord data set in BIDS layout, with exact masks.

Two populations, adult and paediatric, of which the second is smaller, thinner-horned, lower in
contrast, noisier and more blurred. Everything about a subject follows from its id.
"""

import errno
import gzip
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.phantom_anatomy import POPULATIONS, sample_anatomy
from spine_tasks.data.phantom_scan import SITES, Scan, acquire
from spine_tasks.errors import DataError, RunError
from spine_tasks.files import replacing, write_json, write_text

VERSION = "1"  # raise it with every change that moves a voxel: old and new files never mix
REMEDY = "remove it to have it made again, or choose another folder"


def population(subject_id: str) -> str:
    """The population that the id names: "adult" or "paediatric".

    Raises
    ------
    DataError
        The id is not `sub-adult` or `sub-paed` followed by digits.

    Examples
    --------
    >>> population("sub-paed07")
    'paediatric'
    """
    match = re.fullmatch(r"sub-(adult|paed)[0-9]+", subject_id)
    if match is None:
        raise DataError(
            f"the phantom has no subject {subject_id!r}; an id is sub-adult or sub-paed followed "
            "by digits, such as sub-adult01; correct the split file"
        )
    return {"adult": "adult", "paed": "paediatric"}[match[1]]


def site(subject_id: str) -> str:
    """The name of the site that scanned the subject, a key of `SITES`."""
    sites = POPULATIONS[population(subject_id)].sites
    return sites[seed(subject_id) % len(sites)]


def subject(subject_id: str) -> Scan:
    """One subject's volume, masks and affine, the same at every call.

    Parameters
    ----------
    subject_id
        `sub-adult` or `sub-paed` followed by digits.

    Returns
    -------
    Scan
        image (X, Y, Z) float32, in whole numbers; gray_matter and cord (X, Y, Z) bool, true where
        the tissue fills at least half of the voxel; affine (4, 4). Gray matter lies inside the
        cord. X runs to the right, Y to anterior, Z to superior, but for a few degrees.

    Raises
    ------
    DataError
        The id belongs to no population.

    References
    ----------
    Contrast and sizes as in Prados et al., Spinal cord grey matter segmentation challenge,
    NeuroImage 152, 2017, doi:10.1016/j.neuroimage.2017.03.010.
    """
    rng = np.random.default_rng(seed(subject_id))
    group = POPULATIONS[population(subject_id)]
    anatomy = sample_anatomy(group, rng)
    return acquire(anatomy, group, SITES[site(subject_id)], rng)


def write(folder: Path, subjects: Sequence[str]) -> None:
    """Write the subjects into a new `folder` as a BIDS data set.

    With the same versions of NumPy and zlib the files are the same byte for byte every time.
    Masks are `derivatives/labels/<id>/anat/<id>_T2starw_gmseg-manual.nii.gz` (gray matter) and
    `..._seg-manual.nii.gz` (cord), uint8 of 0 and 1. A subject named twice is written once.

    Raises
    ------
    DataError
        No subject is named, one belongs to no population, or `folder` is not empty.
    RunError
        The disk is full, or the folder cannot be written to.
    """
    ids = in_order(subjects, population)
    if _holds_something(folder):
        raise DataError(f"{folder}: is not empty; remove it, or choose another folder")
    for subject_id in ids:
        scan = subject(subject_id)
        image, gray_matter, cord = _files(folder, subject_id)
        write_nifti(image, scan.image.astype(np.int16), scan.affine)
        write_nifti(gray_matter, scan.gray_matter.astype(np.uint8), scan.affine)
        write_nifti(cord, scan.cord.astype(np.uint8), scan.affine)
    describe(folder, [(one, population(one), site(one)) for one in ids], _description())


def ensure(folder: Path, subjects: Sequence[str]) -> Path:
    """Make the data set unless it is there; return `folder`.

    It is made beside `folder` and renamed in one step, so any number of processes may call this at
    once, and `folder` is never seen half made. A process that is killed while it makes the data
    set leaves a folder `.partial-...` beside, which may be removed.

    Raises
    ------
    DataError
        `folder` holds something else, files of another version of the phantom, or a data set
        without some of the subjects; no subject is named, or one belongs to no population.
    RunError
        The disk is full, or the folder cannot be written to.
    """
    ids = in_order(subjects, population)
    description = folder / "dataset_description.json"
    return ensure_made(folder, ids, write, _files, description, _description())


def ensure_made(
    folder: Path,
    ids: Sequence[str],
    make: Callable[[Path, Sequence[str]], None],
    files: Callable[[Path, str], Sequence[Path]],
    maker: Path,
    made_by: dict[str, Any],
) -> Path:
    """Make any made-up data set as `ensure` says, unless it is there; return `folder`.

    Parameters
    ----------
    folder
        Of the data set.
    ids
        The subjects wanted.
    make
        Writes the data set of some subjects into a new folder.
    files
        What there is of a subject in a folder.
    maker
        The JSON file in `folder` that says what made it.
    made_by
        What that file must hold.

    Raises
    ------
    DataError, RunError
        As `ensure`.
    """
    if not _holds_something(folder):
        _make(folder, ids, make)
    _check_maker(folder, maker, made_by)
    missing = [name for name in ids if not all(file.exists() for file in files(folder, name))]
    if missing:
        raise DataError(
            f"{folder}: lacks {len(missing)} of {len(ids)} subjects, first {missing[0]}; "
            f"a data set is made whole: {REMEDY}, and name all subjects at once"
        )
    return folder


def _make(folder: Path, ids: Sequence[str], make: Callable[[Path, Sequence[str]], None]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
            # One level down, since the temporary folder itself is closed to other users.
            made = Path(partial) / folder.name
            make(made, ids)
            made.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was faster
            raise RunError(
                f"{folder}: cannot be made: {error.strerror or error}; "
                "free space or quota, or choose another folder, then run the same command again"
            ) from error


def _check_maker(folder: Path, maker: Path, made_by: dict[str, Any]) -> None:
    try:
        found = json.loads(maker.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: is not a phantom data set ({error}); {REMEDY}") from error
    if found != made_by:
        raise DataError(f"{maker}: got {found}, but this is {made_by}; {REMEDY}")


def in_order(subjects: Sequence[str], check: Callable[[str], object]) -> list[str]:
    """The ids in order, each once; a DataError where there is none, or by `check`."""
    if isinstance(subjects, str) or not subjects:
        raise DataError(f"subjects must be a list of at least one id, got {subjects!r}")
    for subject_id in subjects:
        check(subject_id)
    return sorted(set(subjects))


def _holds_something(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _files(folder: Path, subject_id: str) -> tuple[Path, Path, Path]:
    """Image, gray-matter mask and cord mask."""
    labels = folder / "derivatives/labels" / subject_id / "anat"
    return (
        folder / subject_id / "anat" / f"{subject_id}_T2starw.nii.gz",
        labels / f"{subject_id}_T2starw_gmseg-manual.nii.gz",
        labels / f"{subject_id}_T2starw_seg-manual.nii.gz",
    )


def write_nifti(
    file: Path, voxels: NDArray[np.int16] | NDArray[np.uint8], affine: NDArray[np.float64]
) -> None:
    """Write a gzipped NIfTI file, the same bytes every time."""
    image = nib.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm", "sec")  # type: ignore[no-untyped-call]
    with replacing(file) as partial:
        # mtime=0: gzip would put the time of writing into the file.
        partial.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def describe(
    folder: Path, participants: Sequence[tuple[str, str, str]], description: dict[str, Any]
) -> None:
    """Write the id, population and site of each participant, and what the data set is."""
    rows = [("participant_id", "population", "site"), *participants]
    write_text(folder / "participants.tsv", "".join("\t".join(row) + "\n" for row in rows))
    labels = description | {"DatasetType": "derivative"}
    write_json(folder / "derivatives/labels/dataset_description.json", labels)
    write_json(folder / "dataset_description.json", description)


def _description() -> dict[str, Any]:
    return {
        "Name": "Phantom: made-up axial T2*-weighted spinal cords",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "spine_tasks.data.phantom", "Version": VERSION}],
    }


def seed(name: str) -> int:
    """The seed of what has this name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
