"""Images and masks of a BIDS folder.

An image is `sub-X[/ses-Y]/anat/<stem>.nii.gz` with a stem such as `sub-X_ses-Y_run-1_T2starw`;
its masks are `derivatives/labels/sub-X[/ses-Y]/anat/<stem>_<suffix>.nii.gz`.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spine_tasks.errors import DataError

ENDINGS = (".nii.gz", ".nii")
STRUCTURES = {"gmseg": "gray_matter", "seg": "cord"}  # first word of a mask's suffix -> label
# The first bytes of what git-annex and git-lfs leave in place of a file that is not fetched.
ANNEX = "fetch it with `git annex get`"
POINTERS = {b"/annex/objects/": ANNEX, b"version https://git-lfs": "fetch it with `git lfs pull`"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image to score, with its reference masks."""

    id: str  # file name of the image without its ending, e.g. sub-9584_run-1_T2starw
    subject: str  # as the caller, so the split, writes it
    image: Path
    masks: dict[str, Path]  # label, e.g. gray_matter or cord -> file


def find_cases(
    folder: Path,
    subjects: Sequence[str],
    *,
    contrast: str = "T2starw",
    label_suffix: str = "gmseg-manual",
    cord_suffix: str | None = None,
) -> list[Case]:
    """Every image of one contrast of some subjects, with its masks.

    Looks at names only, and at the first bytes of a file; `spine_tasks.data.nifti` reads them.

    Parameters
    ----------
    folder
        The BIDS folder.
    subjects
        With or without the `sub-` prefix.
    contrast
        The last word of an image's name.
    label_suffix
        What follows the image's stem in the name of the mask to learn. Its first word names the
        label: `gmseg` gray_matter, `seg` cord, any other word itself.
    cord_suffix
        The same for a cord mask, kept as label `cord`; None: no cord mask is asked for.

    Returns
    -------
    list of Case
        Sorted by id: each has all the masks asked for, and no id occurs twice.

    Raises
    ------
    DataError
        The folder is missing or is not BIDS; a subject is named twice, is missing, or has no image
        of the contrast; an image has no mask; a file is a pointer or a broken link.
    """
    names = _subject_folders(folder, subjects)
    images = {subject: _images(folder / names[subject], contrast) for subject in subjects}
    if without := [subject for subject in subjects if not images[subject]]:
        there = {found for subject in without for found in _contrasts(folder / names[subject])}
        raise DataError(
            f"{folder}: no {contrast} image of {_named(without)}; contrasts of these subjects: "
            f"{sorted(there) or 'none'}; ask for another contrast, or leave the subjects out"
        )
    suffixes = {label_of(label_suffix): label_suffix}
    if cord_suffix is not None:
        suffixes["cord"] = cord_suffix
    cases = [
        Case(
            id=stem(image),
            subject=subject,
            image=image,
            masks={label: _mask(folder, image, suffix) for label, suffix in suffixes.items()},
        )
        for subject in subjects
        for image in images[subject]
    ]
    _check_files(folder, cases)
    return sorted(cases, key=lambda case: case.id)


def _subject_folders(folder: Path, subjects: Sequence[str]) -> dict[str, str]:
    """The folder name of each subject, after checking that all are there, once."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; correct the path, or fetch the data")
    there = {found.name for found in folder.glob("sub-*") if found.is_dir()}
    if not there:
        raise DataError(f"{folder}: no sub-* folder in it; give the top folder of a BIDS data set")
    names = {subject: f"sub-{subject.removeprefix('sub-')}" for subject in subjects}
    if len(set(names.values())) < len(subjects):
        raise DataError(f"{folder}: a subject is asked for twice: {_named(sorted(subjects))}")
    if missing := [subject for subject, name in names.items() if name not in there]:
        raise DataError(
            f"{folder}: {len(missing)} of {len(subjects)} subjects are not there: "
            f"{_named(missing)}; it has {len(there)} subjects, first {min(there)}; "
            "give the folder that holds them, fetch them, or choose a split of this data"
        )
    return names


def _images(subject_folder: Path, contrast: str) -> list[Path]:
    return [image for image in _anatomical(subject_folder) if _contrast(image) == contrast]


def _contrasts(subject_folder: Path) -> set[str]:
    return {_contrast(image) for image in _anatomical(subject_folder)}


def _anatomical(subject_folder: Path) -> list[Path]:
    folders = [subject_folder / "anat", *subject_folder.glob("ses-*/anat")]
    return [file for anat in folders for file in anat.glob("*") if file.name.endswith(ENDINGS)]


def _contrast(image: Path) -> str:
    return stem(image).rpartition("_")[2]


def stem(image: Path) -> str:
    """The name of a NIfTI file without its ending."""
    return image.name.removesuffix(".gz").removesuffix(".nii")


def label_of(suffix: str) -> str:
    """The label that the suffix of a mask names, such as gray_matter of `gmseg-manual`."""
    word = suffix.partition("-")[0]
    return STRUCTURES.get(word, word)


def _mask(folder: Path, image: Path, suffix: str) -> Path:
    """Where the mask of an image is, or should be."""
    beside = folder / "derivatives" / "labels" / image.parent.relative_to(folder)
    choices = [beside / f"{stem(image)}_{suffix}{ending}" for ending in ENDINGS]
    return next((mask for mask in choices if os.path.lexists(mask)), choices[0])


def _check_files(folder: Path, cases: Sequence[Case]) -> None:
    ids = [case.id for case in cases]
    if twice := sorted({case for case in ids if ids.count(case) > 1}):
        raise DataError(f"{folder}: more than one image named {_named(twice)}; keep one of each")
    masks = [mask for case in cases for mask in case.masks.values()]
    if missing := [mask for mask in masks if not os.path.lexists(mask)]:
        raise DataError(
            f"{folder}: {len(missing)} of {len(masks)} masks are missing: {_named(missing)}; "
            "draw or fetch them, correct the suffix, or choose a split without these subjects"
        )
    files = [case.image for case in cases] + masks
    if absent := {file: how for file in files if (how := how_to_fetch(file))}:
        raise DataError(
            f"{folder}: {len(absent)} of {len(files)} files are pointers or broken links, their "
            f"content is not here: {_named(absent)}; {next(iter(absent.values()))}"
        )


def how_to_fetch(file: Path) -> str | None:
    """What to do about a file of which only a pointer or link is here, else None."""
    if not file.exists():
        target = str(file.readlink())
        return ANNEX if "annex/objects" in target else f"the link leads to {target}: put it there"
    with file.open("rb") as stream:
        start = stream.read(64)
    return next((how for mark, how in POINTERS.items() if start.startswith(mark)), None)


def _named(things: Iterable[str | Path]) -> str:
    return ", ".join(str(thing) for thing in things)
