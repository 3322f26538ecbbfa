"""BIDS data sets to raw ones of nnU-Net v2: real copies, and a table of where each came from."""

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from spine_tasks.errors import ConfigError, DataError
from spine_tasks.files import check_room, read_json, replacing, sha256, write_json
from spine_tasks.nnunet.pairs import Pair
from spine_tasks.nnunet.volumes import volumes_of

LABELS = {"background": 0, "cord": 1}
CHANNEL = "MRI"  # its name makes nnU-Net normalise by mean and standard deviation
TABLE, SPLITS = "cases.csv", "splits_final.json"
ROOM = 4  # bytes of a copy a byte of compressed image, at most
COLUMNS = ["case", "part", "source", "subject", "session", "contrast", "image", "label"]
COLUMNS += ["image_sha256", "label_sha256", "resampled", "cord_voxels"]

log = logging.getLogger(__name__)


def write_dataset(raw: Path, number: int, name: str, parts: Mapping[str, Sequence[Pair]]) -> Path:
    """Write `Dataset<number>_<name>` into a raw folder; sources are only read.

    Training and validation cases are in `imagesTr` and `labelsTr`, test cases in `imagesTs` and
    `labelsTs`; nothing of a test case reaches nnU-Net's planning. `splits_final.json` has one
    fold, for nnU-Net's folder of preprocessed data. `cases.csv` says where each case came from.
    `dataset.json` is written last.

    Parameters
    ----------
    raw
        nnU-Net's raw folder.
    number
        From 1 to 999.
    name
        Of the data set, after its number.
    parts
        `train`, `val` and `test` -> their cases.

    Returns
    -------
    Path
        The data set's folder. One that holds the same already is left as it is.

    Raises
    ------
    ConfigError
        The number is taken by a data set of another name or other cases; no case to train on or to
        validate with.
    DataError
        A volume or mask is wrong; every training mask is empty.
    RunError
        The disk is full.
    """
    if not 1 <= number <= 999:
        raise ConfigError(f"a data set's number must be from 1 to 999, got {number}")
    folder = raw / f"Dataset{number:03d}_{name}"
    if empty := [part for part in ("train", "val") if not parts[part]]:
        raise ConfigError(f"{folder.name}: no case in {' and '.join(empty)}; correct the split")
    sources = [_row(part, pair) for part, pairs in parts.items() for pair in pairs]
    if _is_there(raw, folder, sources):
        return folder
    check_room(raw, ROOM * sum(pair.image.stat().st_size for _, pair in _all(parts)), folder.name)
    rows = [
        row | _write_case(folder, part, pair)
        for row, (part, pair) in zip(sources, _all(parts), strict=True)
    ]
    if not any(row["cord_voxels"] for row in rows if row["part"] == "train"):
        raise DataError(f"{folder}: every training mask is empty; see `suffix` and `threshold`")
    _write_table(folder / TABLE, rows)
    write_json(folder / SPLITS, [{part: _ids(parts[part]) for part in ("train", "val")}])
    training = len(parts["train"]) + len(parts["val"])
    about: dict[str, Any] = {"channel_names": {"0": CHANNEL}, "labels": LABELS}
    about |= {"numTraining": training, "file_ending": ".nii.gz", "name": folder.name}
    # Where it is not told the files, nnU-Net forks a dozen processes to look for them.
    about["dataset"] = {pair.id: _files(pair) for part in ("train", "val") for pair in parts[part]}
    write_json(folder / "dataset.json", about)
    return folder


def _files(pair: Pair) -> dict[str, Any]:
    """A training case's files, from the data set's folder."""
    image, label = f"imagesTr/{pair.id}_0000.nii.gz", f"labelsTr/{pair.id}.nii.gz"
    return {"images": [image], "label": label}


def _all(parts: Mapping[str, Sequence[Pair]]) -> Iterable[tuple[str, Pair]]:
    return [(part, pair) for part, pairs in parts.items() for pair in pairs]


def _ids(pairs: Sequence[Pair]) -> list[str]:
    return sorted(pair.id for pair in pairs)


def _row(part: str, pair: Pair) -> dict[str, Any]:
    """Where a case comes from."""
    return {
        "case": pair.id,
        "part": part,
        "source": pair.source.name,
        "subject": pair.subject,
        "session": pair.session,
        "contrast": pair.contrast,
        "image": str(pair.image.relative_to(pair.source.path)),
        "label": str(pair.label.relative_to(pair.source.path)),
        "image_sha256": sha256(pair.image),
        "label_sha256": sha256(pair.label),
    }


def _is_there(raw: Path, folder: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the data set was written whole before; a ConfigError where its number is taken."""
    number = folder.name.partition("_")[0]
    others = [one for one in raw.glob(f"{number}_*") if one != folder]
    if others:
        raise ConfigError(f"{folder.name}: {others[0]} has this number; choose another number")
    if not (folder / "dataset.json").exists():
        return False
    with (folder / TABLE).open(newline="", encoding="utf-8") as stream:
        found = [{key: row[key] for key in rows[0]} for row in csv.DictReader(stream)]
    if found != [*rows]:
        raise ConfigError(
            f"{folder}: holds other cases, or the same of other content; choose another number, or "
            "delete the folder"
        )
    read_json(folder / "dataset.json")
    return True


def _write_case(folder: Path, part: str, pair: Pair) -> dict[str, Any]:
    """Write a case's two files; what there is to say of them."""
    image, mask, resampled = volumes_of(pair)
    where = "Ts" if part == "test" else "Tr"
    _save(folder / f"images{where}" / f"{pair.id}_0000.nii.gz", image)
    _save(folder / f"labels{where}" / f"{pair.id}.nii.gz", mask)
    if resampled:
        log.warning("%s: brought onto the grid of its image", pair.label)
    if not (voxels := int(np.asarray(mask.dataobj).sum())):
        log.warning("%s: marks nothing above %g", pair.label, pair.source.threshold)
    return {"resampled": "yes" if resampled else "no", "cord_voxels": voxels}


def _save(file: Path, image: nib.Nifti1Image) -> None:
    with replacing(file) as partial:
        image.to_filename(partial)


def _write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
