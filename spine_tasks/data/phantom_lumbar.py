"""A made-up data set of lumbar spines in the format of the RSNA 2024 challenge.

Three series of small DICOM files a study (sagittal T2 and T1, axial T2) and the three tables, with
25 graded places a study. All of a study follows from its id, which is its subject's.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.phantom_lumbar_scan import LEVEL_Z_MM, Grades, place_mm, scan
from spine_tasks.data.phantom_sagittal import number
from spine_tasks.data.rsna_names import GRADES, LEVELS, SIDED
from spine_tasks.errors import DataError
from spine_tasks.files import read_json, replacing, write_json, write_text

VERSION = "1"  # raise it with every change that moves a pixel: old and new files never mix
RECORD = "phantom.json"
SHARES = (0.6, 0.25, 0.15)  # of the grades
SAGITTAL_X_MM = (-17.0, -8.5, 0.0, 8.5, 17.0)
AXIAL_MM = (4.0, 0.0, -4.0)  # from a level
PX = 96


class Series(NamedTuple):
    """How one series lies."""

    id: str
    description: str
    spacing_mm: float
    right: tuple[float, float, float]  # direction in which columns run
    down: tuple[float, float, float]
    corners_mm: tuple[tuple[float, float, float], ...]  # middle of the first pixel, of each slice


def _sagittal(name: str, description: str) -> Series:
    corners = tuple((x, -86.0, 96.0) for x in SAGITTAL_X_MM)
    return Series(name, description, 2.0, (0, 1, 0), (0, 0, -1), corners)


SERIES = (
    _sagittal("1", "Sagittal T2/STIR"),
    _sagittal("2", "Sagittal T1"),
    Series(
        "3",
        "Axial T2",
        1.0,
        (1, 0, 0),
        (0, 1, 0),
        tuple((-47.5, -40.0, level + by) for level in LEVEL_Z_MM for by in AXIAL_MM),
    ),
)
OF = {"spinal_canal_stenosis": 0, "neural_foraminal_narrowing": 1, "subarticular_stenosis": 2}


def ensure(folder: Path, subjects: Sequence[str]) -> Path:
    """Make the subjects' studies and the tables unless they are there; return `folder`.

    Studies that the folder has beside these stay. The tables are written last, so that processes
    that name the same subjects may call this at once.

    Parameters
    ----------
    subjects
        Ids: `sub-s` and a number of two digits or more.

    Raises
    ------
    DataError
        `folder` holds something else or another version of the phantom; there is no such subject.
    RunError
        The disk is full, or the folder cannot be written to.
    """
    for name in subjects:
        number(name)
    record = folder / RECORD
    there = [one.name for one in folder.iterdir()] if folder.exists() else []
    if RECORD not in there and set(there) - {"train_images"}:
        raise DataError(f"{folder}: is not a phantom data set; choose another folder")
    known: Any = read_json(record) if record.exists() else {"version": VERSION, "bytes": {}}
    if known["version"] != VERSION:
        raise DataError(f"{folder}: version {known['version']}, not {VERSION}; remove it")
    sizes = {name: size for name, size in known["bytes"].items() if _bytes(folder, name) == size}
    if missing := sorted(set(subjects) - set(sizes)):
        for name in missing:
            _write_study(folder, name)
            sizes[name] = _bytes(folder, name)
        _write_tables(folder, sorted(sizes))
        write_json(record, {"version": VERSION, "bytes": sizes})
    return folder


def grades_of(subject: str) -> Grades:
    """The grades of a study."""
    rng = np.random.default_rng([_seed(subject), 0])
    places = [(*place, level) for place in SIDED for level in range(len(LEVELS))]
    drawn = rng.choice(len(GRADES), len(places), p=SHARES)
    return dict(zip(places, drawn.tolist(), strict=True))


def _write_study(folder: Path, subject: str) -> None:
    grades = grades_of(subject)
    for series in SERIES:
        for at, corner in enumerate(series.corners_mm):
            rows = np.arange(PX)[:, None] * series.spacing_mm
            columns = np.arange(PX)[None, :] * series.spacing_mm
            x, y, z = (
                start + across * columns + along * rows
                for start, across, along in zip(corner, series.right, series.down, strict=True)
            )
            rng = np.random.default_rng([_seed(subject), int(series.id), at])
            pixels = scan(grades, x, y, z, "T1" in series.description, rng)
            file = _file(folder, subject, series, at)
            with replacing(file, durable=False) as partial:
                _write_dicom(partial, pixels, series, corner, subject)


def _file(folder: Path, subject: str, series: Series, at: int) -> Path:
    return folder / "train_images" / subject / series.id / f"{_instance(subject, series, at)}.dcm"


def _instance(subject: str, series: Series, at: int) -> int:
    """The number of a slice, which in every second study runs against its position."""
    return len(series.corners_mm) - at if number(subject) % 2 else at + 1


def _write_dicom(
    file: Path, pixels: NDArray[np.uint16], series: Series, corner: tuple[float, ...], subject: str
) -> None:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    made: Any = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = MRImageStorage
    uid = generate_uid(entropy_srcs=[subject, series.id, str(corner)])
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = uid
    made.Modality, made.PatientID, made.SeriesDescription = "MR", subject, series.description
    made.Rows, made.Columns = pixels.shape
    made.PixelSpacing = [series.spacing_mm] * 2
    made.ImageOrientationPatient = [*series.right, *series.down]
    made.ImagePositionPatient = list(corner)
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.PixelData = pixels.tobytes()
    made.save_as(file, enforce_file_format=True)


def _write_tables(folder: Path, subjects: Sequence[str]) -> None:
    columns = [f"{side}_{name}".strip("_") for name, side in SIDED]
    names = [f"{name}_{level.lower().replace('/', '_')}" for name in columns for level in LEVELS]
    _write(
        folder / "train.csv",
        ["study_id", *names],
        ([one, *(GRADES[grade] for grade in grades_of(one).values())] for one in subjects),
    )
    _write(
        folder / "train_series_descriptions.csv",
        ["study_id", "series_id", "series_description"],
        ([one, series.id, series.description] for one in subjects for series in SERIES),
    )
    _write(
        folder / "train_label_coordinates.csv",
        ["study_id", "series_id", "instance_number", "condition", "level", "x", "y"],
        (row for one in subjects for row in _places(one)),
    )


def _places(subject: str) -> Iterator[list[Any]]:
    for condition, side, level in grades_of(subject):
        series, place = SERIES[OF[condition]], np.array(place_mm(condition, side, level))
        across = np.cross(series.right, series.down)
        at = int(np.argmin([abs((np.array(one) - place) @ across) for one in series.corners_mm]))
        offset = (place - np.array(series.corners_mm[at])) / series.spacing_mm
        name = f"{side} {condition}".strip().replace("_", " ").title()
        x, y = offset @ series.right + 0.5, offset @ series.down + 0.5
        instance = _instance(subject, series, at)
        yield [subject, series.id, instance, name, LEVELS[level], f"{x:.2f}", f"{y:.2f}"]


def _write(file: Path, columns: Sequence[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(file, text.getvalue())


def _bytes(folder: Path, subject: str) -> int:
    return sum(file.stat().st_size for file in (folder / "train_images" / subject).rglob("*.dcm"))


def _seed(subject: str) -> int:
    return int.from_bytes(hashlib.sha256(f"lumbar {subject}".encode()).digest()[:8])
