"""Images of BIDS data sets and their cord masks: what belongs together, and what is alone."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spine_tasks.data.bids import ENDINGS, how_to_fetch, stem
from spine_tasks.errors import DataError
from spine_tasks.nnunet.sources import Source

FOLDERS = ("anat", "dwi")
SHOWN = 8  # names in a message


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its cord mask."""

    source: Source
    subject: str  # e.g. basel_sub-01, so that it is one in all sources together
    contrast: str  # as the source lists it
    session: str  # without `ses-`; empty: none
    image: Path
    label: Path

    @property
    def id(self) -> str:
        """Name of the case, one in all sources together."""
        return f"{self.source.name}_{stem(self.image)}"

    @property
    def test_set(self) -> str:
        """What it is one of where it is tested: data set and contrast, such as `basel T1w`."""
        return f"{self.source.name} {self.contrast}"


def find_pairs(source: Source) -> tuple[list[Pair], list[Path]]:
    """Every image of a source with its mask, and the images that have none.

    Looks at names only, and at the first bytes of a file.

    Returns
    -------
    list of Pair
        Sorted by id.
    list of Path
        Images of the contrasts asked for without a mask, sorted.

    Raises
    ------
    DataError
        The folder is missing or is no BIDS folder, has no image of a contrast or session, or no
        mask of the suffix (the message says what there is); a file is a pointer or a broken link.
    """
    images = _images(source)
    for contrast in source.contrasts:
        if not any(_is_of(image, contrast) for image in images):
            raise DataError(
                f"{source.path}: no {contrast} image; there are {_words(images)}; correct "
                f"`contrasts` of {source.name}"
            )
    pairs, alone = [], []
    for image in images:
        found = [contrast for contrast in source.contrasts if _is_of(image, contrast)]
        if not found:
            continue
        label = _label(source, image)
        if not os.path.lexists(label):
            alone.append(image)
            continue
        inside = image.relative_to(source.path)
        session = next((part[4:] for part in inside.parts if part.startswith("ses-")), "")
        pairs.append(
            Pair(
                source=source,
                subject=f"{source.name}_{inside.parts[0]}",
                contrast=max(found, key=len),
                session=session,
                image=image,
                label=label,
            )
        )
    if not pairs:
        raise DataError(
            f"{source.path}: no image has a mask named *_{source.suffix}.nii.gz in "
            f"{source.path / source.labels}; {_labels_there(source)}; correct `suffix` or "
            f"`labels` of {source.name}"
        )
    _check_content(source, [file for pair in pairs for file in (pair.image, pair.label)])
    return sorted(pairs, key=lambda pair: pair.id), sorted(alone)


def _images(source: Source) -> list[Path]:
    """All images of a source, of the sessions asked for."""
    if not source.path.is_dir():
        raise DataError(f"{source.path}: no such folder; correct `path` of {source.name}")
    subjects = [one for one in sorted(source.path.glob("sub-*")) if one.is_dir()]
    if not subjects:
        raise DataError(f"{source.path}: no sub-* folder in it; give the top of a BIDS data set")
    sessions = {one.name[4:] for subject in subjects for one in subject.glob("ses-*")}
    if absent := set(source.sessions or ()) - sessions:
        raise DataError(
            f"{source.path}: no session {', '.join(sorted(absent))}; there are "
            f"{sorted(sessions) or 'none'}; correct `sessions` of {source.name}"
        )
    found = []
    for subject in subjects:
        tops = [subject, *sorted(subject.glob("ses-*"))]
        if source.sessions is not None:
            tops = [subject / f"ses-{name}" for name in source.sessions]
        for folder in (top / name for top in tops for name in FOLDERS):
            found += [one for one in sorted(folder.glob("*")) if one.name.endswith(ENDINGS)]
    return found


def _is_of(image: Path, contrast: str) -> bool:
    return stem(image).endswith(f"_{contrast}")


def _label(source: Source, image: Path) -> Path:
    """Where the mask of an image is, or should be."""
    beside = source.path / source.labels / image.parent.relative_to(source.path)
    choices = [beside / f"{stem(image)}_{source.suffix}{ending}" for ending in ENDINGS]
    return next((one for one in choices if os.path.lexists(one)), choices[0])


def _words(images: Iterable[Path]) -> str:
    """The contrasts of images, by the last word of their names."""
    return ", ".join(sorted({stem(image).rpartition("_")[2] for image in images})) or "none"


def _labels_there(source: Source) -> str:
    folder = source.path / source.labels
    if not folder.is_dir():
        above = source.path / "derivatives"
        there = sorted(one.name for one in above.glob("*")) if above.is_dir() else []
        return f"there is no such folder, but in derivatives: {there or 'nothing'}"
    names = {stem(file).rpartition("_")[2] for file in folder.rglob("*.nii*")}
    return f"names there end with {sorted(names)[:SHOWN] or 'nothing'}"


def _check_content(source: Source, files: list[Path]) -> None:
    if absent := {file: how for file in files if (how := how_to_fetch(file))}:
        named = ", ".join(map(str, [*absent][:SHOWN]))
        raise DataError(
            f"{source.path}: {len(absent)} of {len(files)} files are pointers or broken links, "
            f"their content is not here: {named}; {next(iter(absent.values()))}"
        )
