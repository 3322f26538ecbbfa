"""Made-up BIDS data sets of axial cords in three contrasts from two sites, with exact masks.

For the question whether one general cord model does as well as several specific ones. A source is
one of the data sets; its persons are adults of the axial phantom, and no other source has them.
Everything about a scan follows from its subject's id and its contrast.
"""
# mypy: untyped-calls-exclude="nibabel"

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

from spine_tasks.data.phantom import describe, ensure_made, in_order, seed, write_nifti
from spine_tasks.data.phantom_anatomy import POPULATIONS, Anatomy, Tissue, sample_anatomy
from spine_tasks.data.phantom_scan import SITES, Scan, Site, expose, position, t2star_signals
from spine_tasks.errors import DataError
from spine_tasks.files import write_json, write_text
from spine_tasks.nnunet.sources import SOURCES_FILE

VERSION = "1"  # raise it with every change that moves a voxel: old and new files never mix
MADE_BY = {"Name": "spine_tasks.data.phantom_cords", "Version": VERSION}
MASK = "seg-manual"
ADULTS = POPULATIONS["adult"]
# To where the axes of a site's files lead: B stores axial volumes as if they were sagittal ones.
AXES = {"A": "RAS", "B": "PSR"}

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of the data sets."""

    site: str  # a key of `SITES`
    contrasts: tuple[str, ...]


SOURCES = {
    "siteA": Source(site="A", contrasts=("T1w", "T2w")),
    "siteB": Source(site="B", contrasts=("T2w", "T2starw")),
    "unseen": Source(site="A", contrasts=("T2starw",)),  # other persons, new contrast of site A
}


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Lowest and highest signal of tissues relative to white matter; scans lie in between."""

    muscle: Range
    fat: Range
    marrow: Range
    bone: Range
    csf: Range
    root: Range
    gray_matter: Range


# Assumptions, not measured: plain knowledge of turbo spin echoes (T2w) and gradient echoes (T1w) at
# 3 T. Its long T2 makes CSF bright in T2w, its long T1 dark in T1w; fat is bright in both; gray
# matter differs from white in the same direction as CSF, but far less.
CONTRASTS = {
    "T1w": Contrast(
        muscle=(0.55, 0.75),
        fat=(1.5, 2.0),
        marrow=(0.9, 1.3),
        bone=(0.08, 0.15),
        csf=(0.3, 0.5),
        root=(0.85, 0.95),
        gray_matter=(0.82, 0.92),
    ),
    "T2w": Contrast(
        muscle=(0.25, 0.45),
        fat=(1.3, 1.8),
        marrow=(0.6, 1.0),
        bone=(0.05, 0.12),
        csf=(2.2, 2.8),
        root=(0.95, 1.1),
        gray_matter=(1.06, 1.16),
    ),
}


def scan(subject: str, contrast: str) -> Scan:
    """One subject's volume of one contrast with its masks, the same at every call.

    Parameters
    ----------
    subject
        A source, `_sub-adult` and digits, such as `siteA_sub-adult01`.
    contrast
        `T1w`, `T2w` or `T2starw`, as far as the source has it.

    Returns
    -------
    Scan
        image float32, in whole numbers, gray_matter and cord bool, all of one shape; affine (4, 4).
        Axes run to the subject's right, anterior and superior at site A, posterior, superior and
        right at site B, but for a few degrees. The scans of a subject show one anatomy at one
        affine; between them the subject has moved by about half a millimetre and a degree.

    Raises
    ------
    DataError
        There is no such subject, or its source has no such contrast.
    """
    name = source_of(subject)
    source = SOURCES[name]
    if contrast not in source.contrasts:
        raise DataError(
            f"{name} of the cord phantom has no contrast {contrast!r}; it has "
            f"{', '.join(source.contrasts)}"
        )
    protocol = SITES[source.site]
    rng = np.random.default_rng(seed(subject))
    anatomy = sample_anatomy(ADULTS, rng)
    affine = position(protocol, rng)
    rng = np.random.default_rng(seed(f"{subject}_{contrast}"))
    signals = _signals(contrast, protocol, rng)
    taken = expose(_moved(anatomy, rng), signals, ADULTS, protocol, rng)
    return _stored(taken._replace(affine=affine), AXES[source.site])


def source_of(subject: str) -> str:
    """The source that a subject's id names.

    Raises
    ------
    DataError
        The id is not a source and `_sub-adult` followed by digits.

    Examples
    --------
    >>> source_of("siteB_sub-adult07")
    'siteB'
    """
    match = re.fullmatch(rf"({'|'.join(SOURCES)})_sub-adult[0-9]+", subject)
    if match is None:
        raise DataError(
            f"the cord phantom has no subject {subject!r}; an id is {', '.join(SOURCES)} followed "
            "by _sub-adult and digits, such as siteA_sub-adult01; correct the split file"
        )
    return match[1]


def ensure(folder: Path, subjects: Sequence[str]) -> Path:
    """Make the sources of the subjects unless they are there; return `folder`.

    It is made whole and in one step, as `spine_tasks.data.phantom.ensure` does it. With the same
    versions of NumPy and zlib the files are the same byte for byte every time.

    Parameters
    ----------
    folder
        Gets `cords.yaml`, which lists the sources that have subjects, and a BIDS data set of each
        source, `<source>/sub-adult<digits>/anat/sub-adult<digits>_<contrast>.nii.gz`. Cord masks
        are `derivatives/labels/..._<contrast>_seg-manual.nii.gz` in it, uint8 of 0 and 1.
    subjects
        Ids with the source first, such as `siteA_sub-adult01`; their order plays no role.

    Raises
    ------
    DataError
        `folder` holds something else, files of another version of the phantom, or data sets
        without some of the subjects; no subject is named, or one does not exist.
    RunError
        The disk is full, or the folder cannot be written to.
    """
    ids = in_order(subjects, source_of)
    return ensure_made(folder, ids, _write, _files, folder / "made_by.json", MADE_BY)


def _write(folder: Path, ids: Sequence[str]) -> None:
    listed: dict[str, Any] = {}
    for name, source in SOURCES.items():
        own = [one for one in ids if source_of(one) == name]
        if not own:
            continue
        for subject in own:
            for contrast in source.contrasts:
                _write_scan(folder, subject, contrast)
        people = [(one.removeprefix(f"{name}_"), "adult", source.site) for one in own]
        describe(folder / name, people, _description(name))
        listed[name] = {"path": name, "contrasts": [*source.contrasts], "suffix": MASK}
    write_text(folder / SOURCES_FILE, yaml.safe_dump({"sources": listed}, sort_keys=False))
    write_json(folder / "made_by.json", MADE_BY)


def _write_scan(folder: Path, subject: str, contrast: str) -> None:
    taken = scan(subject, contrast)
    image, mask = _image_and_mask(folder, subject, contrast)
    write_nifti(image, taken.image.astype(np.int16), taken.affine)
    write_nifti(mask, taken.cord.astype(np.uint8), taken.affine)


def _files(folder: Path, subject: str) -> list[Path]:
    """All that is needed to read a subject."""
    contrasts = SOURCES[source_of(subject)].contrasts
    scans = [file for one in contrasts for file in _image_and_mask(folder, subject, one)]
    return [folder / SOURCES_FILE, *scans]


def _image_and_mask(folder: Path, subject: str, contrast: str) -> tuple[Path, Path]:
    source, own_id = subject.split("_")
    inside, stem = Path(own_id) / "anat", f"{own_id}_{contrast}"
    return (
        folder / source / inside / f"{stem}.nii.gz",
        folder / source / "derivatives/labels" / inside / f"{stem}_{MASK}.nii.gz",
    )


def _description(source: str) -> dict[str, Any]:
    return {
        "Name": f"Phantom: made-up axial spinal cords, {source}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "GeneratedBy": [MADE_BY],
    }


def _signals(contrast: str, protocol: Site, rng: np.random.Generator) -> NDArray[np.float64]:
    """The signal of each `Tissue` relative to white matter; scans differ."""
    if contrast == "T2starw":
        return t2star_signals(ADULTS, protocol, rng)
    drawn = {name: rng.uniform(*bounds) for name, bounds in vars(CONTRASTS[contrast]).items()}
    drawn |= {"white_matter": 1.0, "fissure": (1 + drawn["csf"]) / 2}  # half CSF, half cord
    return np.array([drawn[tissue.name.lower()] for tissue in Tissue])


def _moved(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """The same anatomy after the subject moved a little."""
    x_mm, y_mm = anatomy.center_mm + rng.normal(0, 0.5, 2)
    return replace(
        anatomy,
        center_mm=(x_mm, y_mm),
        rotation=anatomy.rotation + np.radians(rng.normal(0, 1)),
    )


def _stored(taken: Scan, axes: str) -> Scan:
    """A scan whose axes run to right, anterior and superior, stored with other ones."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    image, gray_matter, cord = (
        np.ascontiguousarray(apply_orientation(array, turn)) for array in taken[:3]
    )
    return Scan(image, gray_matter, cord, taken.affine @ inv_ornt_aff(turn, taken.image.shape))
