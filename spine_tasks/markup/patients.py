"""Who is who: the patient of each picture, by its name or by what the markup says of it."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from spine_tasks.configs import suggestion
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.files import sha256
from spine_tasks.markup.marks import MarkedImage, Markup, Note
from spine_tasks.markup.neighbours import neighbours
from spine_tasks.splits import NAMELESS

KEYS = ("patient", "subject")  # looked at unasked, as readers of COCO folders do


def with_patients(markup: Markup, pattern: str | None, key: str | None) -> Markup:
    """The markup with patients, and with a note where pictures may share one unknown to us.

    Parameters
    ----------
    pattern
        Regular expression searched in a picture's name (folders included); the patient is its
        group `patient`, or else its first.
    key
        Column or key of the markup that holds the patient. Without both, `patient` or `subject`
        counts where all images have it; else every image is a patient of its own.

    Raises
    ------
    ConfigError
        The expression is wrong or has no group, or an image lacks the key.
    DataError
        The expression does not fit a name, or a patient has no name.
    """
    if pattern is not None:
        group = _group(pattern)
        found = [_searched(pattern, group, image.name) for image in markup.images]
    else:
        key = key or next((k for k in KEYS if all(k in i.keys for i in markup.images)), None)
        if key is None:
            return replace(markup, notes=markup.notes + _possible(markup.images))
        found = [_value(image, key) for image in markup.images]
    for image, patient in zip(markup.images, found, strict=True):
        if patient.strip().lower() in NAMELESS | {"none"}:
            raise DataError(f"{image.name}: no patient ({patient!r}); every image needs one")
    images = zip(markup.images, found, strict=True)
    return replace(markup, images=tuple(replace(one, patient=who.strip()) for one, who in images))


def _group(pattern: str) -> int | str:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--patient {pattern!r} is no regular expression: {error}") from error
    if not expression.groups:
        raise ConfigError(f"--patient {pattern!r} has no group; put the patient's part in brackets")
    return "patient" if "patient" in expression.groupindex else 1


def _searched(pattern: str, group: int | str, name: str) -> str:
    match = re.search(pattern, name)
    if match is None:
        raise DataError(f"{name}: --patient {pattern!r} does not fit this name; widen it")
    return match[group] or ""


def _value(image: MarkedImage, key: str) -> str:
    if key not in image.keys:
        raise ConfigError(
            f"--patient-key: {image.name} has no {key!r}{suggestion(key, image.keys)}"
        )
    return image.keys[key]


def _possible(images: Sequence[MarkedImage]) -> tuple[Note, ...]:
    names = [image.name for image in images]
    pairs = neighbours([PurePosixPath(name) for name in names])
    if not pairs:
        return ()
    shown = [f"{names[first]} and {names[second]}" for first, second in pairs]
    return (
        Note(
            "pairs of images are numbered as neighbouring slices and may show one patient, but "
            "each counts as another (say who is who by --patient)",
            tuple(shown),
        ),
    )


def same_pictures(names: Sequence[str], images: Path) -> tuple[Note, ...]:
    """A note of the pictures that are, byte for byte, one under several names."""
    of_size: dict[int, list[str]] = {}
    for name in names:
        of_size.setdefault((images / name).stat().st_size, []).append(name)
    of_bytes: dict[str, list[str]] = {}
    for alike in of_size.values():
        for name in alike if len(alike) > 1 else ():  # most differ in size: nothing is read
            of_bytes.setdefault(sha256(images / name), []).append(name)
    groups = tuple(" = ".join(group) for group in of_bytes.values() if len(group) > 1)
    return (Note("pictures are in the data under several names", groups),) if groups else ()
