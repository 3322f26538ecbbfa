"""Images of a COCO folder: each is found on disk and gets its id and its subject."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spine_tasks.data.bids import how_to_fetch as how_to_fetch
from spine_tasks.data.coco_json import (
    Raw,
    common_categories,
    named,
    no_twins,
    read_annotations,
    text_of,
)
from spine_tasks.data.pictures import picture_size
from spine_tasks.errors import DataError

SUBJECT_KEYS = ("patient", "subject")  # keys of an image that say who was imaged
WITH_CHEAP_HEADERS = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True, eq=False)
class Listed:
    """One image of an annotation file, found on disk; ids as `BoxCase` has them."""

    id: str
    image_id: int
    subject: str
    image: Path
    annotations: Path  # the file that lists it
    values: Raw  # what that file says of it, `width` and `height` checked
    marks: tuple[Raw, ...]  # its annotations; `bbox` is four finite numbers


def annotation_files(folder: Path) -> tuple[Path, ...]:
    """The annotation files of a COCO folder, by name.

    Raises
    ------
    DataError
        The folder is missing or has none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; correct the path, or fetch the data")
    for place in (folder / "annotations", folder):
        # Hidden ones are what other programs leave: half-written files, a Mac's resource forks.
        files = sorted(file for file in place.glob("*.json") if not file.name.startswith("."))
        if files:
            return tuple(files)
    raise DataError(f"{folder}: no annotations/*.json and no *.json in it; give a COCO folder")


def read_listed(folder: Path, files: Sequence[Path]) -> tuple[list[Listed], dict[int, str]]:
    """Every image of a COCO folder as its annotation files list it, and the categories by id.

    Parameters
    ----------
    files
        The annotation files. Images are in their order, and in a file in that of their ids.

    Raises
    ------
    DataError
        A file is not COCO or contradicts itself or another; an image is missing, a pointer, listed
        twice, or of another size than stated; some images have a subject and others have none.
    """
    contents = {file: read_annotations(file) for file in files}
    categories = common_categories(contents)
    listed = [
        (file, values)
        for file, content in contents.items()
        for values in sorted(content["images"], key=lambda values: int(values["id"]))
    ]
    if not listed:
        raise DataError(f"{folder}: no image in {named(files)}; fetch or export it again")
    images = _find_images(folder, listed)
    _check_pictures(folder, listed, images)
    ids = _case_ids(folder, images)
    marks: dict[tuple[Path, int], list[Raw]] = {}
    for file, content in contents.items():
        for mark in content["annotations"]:
            marks.setdefault((file, mark["image_id"]), []).append(mark)
    described = zip(
        listed, images, ids, _image_ids(listed), _subjects(folder, listed, ids), strict=True
    )
    return [
        Listed(
            id=case_id,
            image_id=image_id,
            subject=subject,
            image=image,
            annotations=file,
            values=values,
            marks=tuple(marks.get((file, values["id"]), ())),
        )
        for (file, values), image, case_id, image_id, subject in described
    ], categories


def _find_images(folder: Path, listed: Sequence[tuple[Path, Raw]]) -> list[Path]:
    names_in: dict[str, set[str]] = {}  # one listing a folder is faster than asking for each file

    def there(file: str) -> bool:
        parent, _, name = file.rpartition("/")
        if parent not in names_in:
            others = Path(parent).iterdir() if Path(parent).is_dir() else ()
            names_in[parent] = {other.name for other in others}
        return name in names_in[parent]

    places = {file: _places(folder, file) for file in {file for file, _ in listed}}
    found: list[Path] = []
    missing: list[str] = []
    for file, values in listed:
        name = values["file_name"]
        files = [path for place in places[file] if there(path := f"{place}/{name}")]
        if len(files) > 1:
            raise DataError(f"{file}: {name} is {named(files)}; write which one into file_name")
        found += map(Path, files)
        missing += [] if files else [name]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(listed)} images are missing: {named(missing)}; "
            "fetch them, correct file_name, or take them out of the annotations"
        )
    no_twins(f"{folder}: images listed in its annotation files", found)
    return found


def _places(folder: Path, file: Path) -> list[Path]:
    """The folders in which an annotation file's images may be."""
    names = (file.stem, file.stem.removeprefix("instances_"), "", "images")
    return list(dict.fromkeys(folder / name for name in names))


def _check_pictures(
    folder: Path, listed: Sequence[tuple[Path, Raw]], images: Sequence[Path]
) -> None:
    """Every image's content is here, and is of the size that its boxes were drawn on."""
    try:
        other = [
            f"{image} ({values['width']} x {values['height']} stated, {size[0]} x {size[1]} px)"
            for (_, values), image in zip(listed, images, strict=True)
            if (size := _cheap_size(image)) not in (None, (values["width"], values["height"]))
        ]
    except DataError:
        _check_fetched(folder, images)  # most probably all are like the first
        raise
    if other:
        raise DataError(
            f"{folder}: {len(other)} images are not of the stated size: {named(other)}; their "
            "boxes were drawn on other pictures, or the annotations are wrong"
        )


def _cheap_size(image: Path) -> tuple[int, int] | None:
    """Width and height in px; None where telling takes long, and reading will tell."""
    if image.suffix.lower() in WITH_CHEAP_HEADERS:
        return picture_size(image)
    _check_fetched(image.parent, [image])
    return None


def _check_fetched(folder: Path, images: Sequence[Path]) -> None:
    if absent := {image: how for image in images if (how := how_to_fetch(image))}:
        raise DataError(
            f"{folder}: {len(absent)} of {len(images)} images are pointers or broken links: "
            f"{named(absent)}; {next(iter(absent.values()))}"
        )


def _case_ids(folder: Path, images: Sequence[Path]) -> list[str]:
    """File names without ending; with their folders where two images share one."""
    ids = [stem_of(image) for image in images]
    if len(set(ids)) < len(ids):
        folders = [image.parent.relative_to(folder).parts for image in images]
        ids = ["-".join((*parts, stem)) for parts, stem in zip(folders, ids, strict=True)]
        no_twins(f"{folder}: names of images without their ending", ids)
    return ids


def stem_of(image: Path) -> str:
    """The file name of an image without its ending."""
    numbered = image.suffix[1:].isdigit()  # a DICOM file named by its UID, so without an ending
    return image.name if numbered else image.stem


def _image_ids(listed: Sequence[tuple[Path, Raw]]) -> list[int]:
    """As in the files, or numbered anew from 1 where two files share one."""
    ids = [values["id"] for _, values in listed]
    return ids if len(set(ids)) == len(ids) else list(range(1, len(ids) + 1))


def _subjects(
    folder: Path, listed: Sequence[tuple[Path, Raw]], ids: Sequence[str]
) -> Sequence[str]:
    for key in SUBJECT_KEYS:
        without = [values["file_name"] for _, values in listed if key not in values]
        if not without:
            return [
                text_of(f"{file}: {key} of {values['file_name']}", values[key])
                for file, values in listed
            ]
        if len(without) < len(listed):
            raise DataError(
                f"{folder}: {len(without)} of {len(listed)} images have no `{key}`: "
                f"{named(without)}; write it for all, else one person could be in two parts"
            )
    return ids
