"""Volumes to segment, and the reference masks of some of them."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine_tasks.command import listed
from spine_tasks.data.bids import ENDINGS, STRUCTURES, Case, how_to_fetch, label_of, stem
from spine_tasks.errors import ConfigError, DataError

CORD = "seg-manual"  # the suffix of a cord mask drawn by hand


@dataclass(frozen=True, kw_only=True)
class MaskNames:
    """The suffixes of masks beside their images."""

    target: str  # of what is predicted
    cord: str
    crops_by_cord: bool  # so that each image needs a cord mask

    @property
    def label(self) -> str:
        """What is predicted, such as gray_matter."""
        return label_of(self.target)

    @property
    def references(self) -> list[str]:
        """Suffixes of a reference mask, the first choice first."""
        return [self.target, self.target.partition("-")[0]]


def mask_names(config: Any) -> MaskNames:
    """How the masks of a config that predicts masks or cords are named."""
    if config.predicts == "cords":
        return MaskNames(target=CORD, cord=CORD, crops_by_cord=False)
    return MaskNames(
        target=config.label_suffix, cord=config.cord_suffix, crops_by_cord=config.crop == "cord"
    )


def find_volumes(asked: argparse.Namespace, names: MaskNames) -> Sequence[Case]:
    """The images asked for, each with its reference mask and what else it is predicted by.

    Of a folder it is the part asked for, which may be none.

    Raises
    ------
    ConfigError
        A flag does not fit the input.
    DataError
        There is no image; a file is missing or a pointer; no image, of all parts, has a mask of
        the suffix asked for, or one lacks the cord mask that it is cropped by.
    """
    suffixes = [asked.mask_suffix] if asked.mask_suffix else names.references
    images = _images(asked, [*suffixes, *names.references, names.cord])
    references = {image: asked.reference or _beside(image, suffixes) for image in images}
    cords = {image: _beside(image, [names.cord]) for image in images if names.crops_by_cord}
    _check_there([*images, *filter(None, references.values()), *filter(None, cords.values())])
    if asked.mask_suffix and not any(references.values()):
        raise DataError(
            f"{asked.input}: no mask ..._{asked.mask_suffix}.nii.gz beside an image; correct "
            "--mask-suffix, or leave it out to predict without scores"
        )
    if without := [image.name for image, cord in cords.items() if cord is None]:
        raise DataError(
            f"{asked.input}: crop=cord needs a cord mask ..._{names.cord}.nii.gz beside "
            f"each image; {listed(without)} has none; add it, or --set crop=centre"
        )
    cases = [
        Case(
            id=stem(image),
            subject=stem(image),
            image=image,
            masks=({names.label: reference} if (reference := references[image]) else {})
            | ({"cord": cord} if (cord := cords.get(image)) else {}),
        )
        for image in images
    ]
    return cases if asked.part is None else asked.part.of(cases)


def _images(asked: argparse.Namespace, suffixes: Sequence[str]) -> list[Path]:
    """The image asked for, or all of the folder; what is a mask by its name is none."""
    if not asked.input.is_dir():
        if asked.part is not None:
            raise ConfigError(f"--part is for a folder of images, but {asked.input} is no folder")
        return [asked.input]
    if asked.reference:
        raise ConfigError(
            f"--reference is for one image, but {asked.input} is a folder; put the masks "
            "beside their images and name them by --mask-suffix"
        )
    return _in_folder(asked.input, suffixes)


def _in_folder(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The images of a flat folder: NIfTI files that are no mask by their name."""
    files = sorted(
        file
        for file in folder.iterdir()
        if file.name.endswith(ENDINGS) and not file.name.startswith(".")
    )
    images = [file for file in files if not _is_mask(file, suffixes)]
    if not images:
        raise DataError(
            f"{folder}: no image in it, {len(files)} masks by their names; give a folder that "
            "holds .nii or .nii.gz images directly"
        )
    if masks := [file.name for file in files if _is_mask(file, suffixes)]:
        sys.stderr.write(f"not predicted, as masks by their names: {listed(masks)}\n")
    times = Counter(map(stem, images))
    if twice := [name for name in times if times[name] > 1]:
        raise DataError(f"{folder}: both .nii and .nii.gz of {listed(twice)}; keep one of each")
    return images


def _is_mask(file: Path, suffixes: Sequence[str]) -> bool:
    words = [word.partition("-")[0] for word in stem(file).split("_")[1:]]
    by_suffix = any(stem(file).endswith(f"_{suffix}") for suffix in suffixes)
    return by_suffix or any(word in STRUCTURES for word in words)


def _beside(image: Path, suffixes: Sequence[str]) -> Path | None:
    """The first mask of an image that there is, in its own folder."""
    names = [f"{stem(image)}_{suffix}{ending}" for suffix in suffixes for ending in ENDINGS]
    return next(filter(os.path.lexists, map(image.with_name, names)), None)


def _check_there(files: Iterable[Path]) -> None:
    """Refuse files that are missing, or of which only a pointer is here."""
    pointers = {}
    for file in files:
        if file.is_dir() or not os.path.lexists(file):
            raise DataError(f"{file}: no such file; correct the path, or fetch the data")
        if how := how_to_fetch(file):
            pointers[file] = how
    if pointers:
        raise DataError(
            f"only pointers to their content are here, or broken links: "
            f"{listed([*map(str, pointers)])}; {next(iter(pointers.values()))}"
        )
