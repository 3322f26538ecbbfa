"""BIDS data sets to nnU-Net's: nothing of a source changes, nobody is in two parts."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from making import write_nifti

from spine_tasks.cell import Cell
from spine_tasks.configs import make_config
from spine_tasks.data.cases import cord_cases_of, unpaired_images
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.files import sha256
from spine_tasks.nnunet.pairs import find_pairs
from spine_tasks.nnunet.sources import load_sources
from spine_tasks.nnunet.volumes import volumes_of
from spine_tasks.splits import PARTS, load_split

PREPARE = Path(__file__).parents[1] / "jobs" / "prepare.py"
SHAPE = (6, 5, 4)
TURNED = np.array([[0, 0, 2.0, -3], [-0.5, 0, 0, 4], [0, 0.7, 0, 9], [0, 0, 0, 1]])
FAR = TURNED + np.outer([1, 0, 0, 0], [0, 0, 0, 900])
SUBJECTS = {"a": 5, "b": 3}  # source -> how many


def write_pair(folder, name, where="anat", suffix="seg-manual", mask=None, affine=TURNED):
    """An image of distinct values, and a mask of its middle."""
    subject, *_ = name.split("_")
    image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    if mask is None:
        mask = np.zeros(SHAPE, np.float32)
        mask[2:4, 2:4, 1:3] = 1
    inside = Path(subject) / where
    if "_ses-" in name:
        inside = Path(subject) / f"ses-{name.split('_ses-')[1].split('_')[0]}" / where
    write_nifti(folder / inside / f"{name}.nii.gz", image, affine)
    label = folder / "derivatives" / "labels" / inside / f"{name}_{suffix}.nii.gz"
    write_nifti(label, mask, affine)
    return label


@pytest.fixture
def sources(tmp_path):
    """A file of two sources: one of two contrasts, the other of sessions."""
    for number in range(1, SUBJECTS["a"] + 1):
        write_pair(tmp_path / "a", f"sub-0{number}_T2w")
        write_pair(tmp_path / "a", f"sub-0{number}_rec-average_dwi", "dwi")
    for number in range(1, SUBJECTS["b"] + 1):
        for session in ("01", "02"):
            write_pair(tmp_path / "b", f"sub-0{number}_ses-{session}_T2star")
    file = tmp_path / "cords.yaml"
    file.write_text(
        "sources:\n"
        "  a: {path: a, contrasts: [T2w, rec-average_dwi], suffix: seg-manual}\n"
        "  b: {path: b, contrasts: [T2star], suffix: seg-manual, sessions: ['01', '02']}\n"
    )
    return file


def prepare(*words):
    command = [sys.executable, PREPARE, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def split(sources):
    file = sources.parent / "cords.csv"
    done = prepare("split", "--sources", sources, "--folds", 3, "--stratify", "source",
                   "--output", file)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return file


def convert(sources, split, *words):
    out = sources.parent / "raw"
    words = words or ("--dataset", 601, "general", "a", "b", "--dataset", 602, "only", "a")
    return prepare("nnunet", "--sources", sources, "--split", split, "--output", out, *words), out


def table(folder):
    with (folder / "cases.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def one(tmp_path, **changes):
    """The only source of a file, with what a test changes."""
    given = {"path": "a", "contrasts": ["T2w"], "suffix": "seg-manual"} | changes
    file = tmp_path / "one.yaml"
    file.write_text(json.dumps({"sources": {"a": given}}))
    return load_sources(file)["a"]


def pairs(tmp_path, **changes):
    return find_pairs(one(tmp_path, **changes))[0]


def test_all_data_sets_are_made_in_one_pass_and_no_source_changes(sources, split):
    files = [f for name in "ab" for f in (sources.parent / name).rglob("*") if f.is_file()]
    before = {file: sha256(file) for file in files}
    done, raw = convert(sources, split)
    assert done.returncode == 0, done.stderr
    assert {file: sha256(file) for file in before} == before
    general, only = raw / "Dataset601_general", raw / "Dataset602_only"
    assert len(table(general)) == 2 * sum(SUBJECTS.values())
    assert len(table(only)) == 2 * SUBJECTS["a"]
    for folder in (general, only):
        assert not any(file.is_symlink() for file in folder.rglob("*"))
        about = json.loads((folder / "dataset.json").read_text())
        training = sorted(file.name for file in (folder / "labelsTr").iterdir())
        assert about["numTraining"] == len(training)
        assert about["labels"] == {"background": 0, "cord": 1}
        images = sorted(file.name for file in (folder / "imagesTr").iterdir())
        assert images == [name.replace(".nii.gz", "_0000.nii.gz") for name in training]


def test_all_of_a_subject_is_in_one_part_which_is_the_same_in_all_data_sets(sources, split):
    _, raw = convert(sources, split)
    folders = [raw / "Dataset601_general", raw / "Dataset602_only"]
    part_of = {}
    for folder in folders:
        for row in table(folder):
            assert part_of.setdefault(row["subject"], row["part"]) == row["part"]
        [fold] = json.loads((folder / "splits_final.json").read_text())
        of_part = {part: [r["case"] for r in table(folder) if r["part"] == part]
                   for part in ("train", "val", "test")}  # fmt: skip
        assert {part: sorted(of_part[part]) for part in ("train", "val")} == fold
        tested = {file.name for file in (folder / "labelsTs").iterdir()}
        assert tested == {f"{case}.nii.gz" for case in of_part["test"]}
    assert {row["source"] for row in table(folders[0]) if row["part"] == "test"} == {"a", "b"}


def test_a_person_who_is_several_subjects_is_in_one_part(sources):
    text = sources.read_text()
    text = text.replace("a, contrasts", "a, persons: {sub-01: x, sub-02: x}, contrasts")
    sources.write_text(text.replace("b, contrasts", "b, persons: {sub-03: x}, contrasts"))
    output = sources.parent / "cords.csv"
    done = prepare("split", "--sources", sources, "--folds", 3, "--output", output)
    assert "8 subjects of 6 persons" in done.stdout, done.stderr
    split = load_split(output)
    shared = {"a_sub-01", "a_sub-02", "b_sub-03"}
    for fold in split.folds:
        assert any(shared <= set(split.part(fold, part)) for part in PARTS)
    sources.write_text(text.replace("sub-02: x", "sub-09: x"))
    done = prepare("split", "--sources", sources, "--folds", 3, "--output", output)
    assert done.returncode == 2
    assert "names a_sub-09, of whom there is no image with a mask" in done.stderr


def test_axes_are_turned_to_rpi_and_no_voxel_moves(tmp_path):
    write_pair(tmp_path / "a", "sub-01_T2w")
    [pair] = pairs(tmp_path)
    image, mask, resampled = volumes_of(pair)
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S")  # that is from R, P and I on
    assert not resampled
    before = nib.load(pair.image)
    for voxel in np.ndindex(SHAPE):
        world = before.affine @ [*voxel, 1]
        at = tuple(np.rint(np.linalg.inv(image.affine) @ world)[:3].astype(int))
        assert image.dataobj[at] == before.dataobj[voxel]
        assert mask.dataobj[at] == nib.load(pair.label).dataobj[voxel]
    assert mask.get_data_dtype() == np.uint8


@pytest.mark.parametrize(("threshold", "cord"), [(1e-8, 1), (0.29, 1), (0.5, 0)])
def test_a_share_of_cord_counts_above_the_threshold(tmp_path, threshold, cord):
    write_pair(tmp_path / "a", "sub-01_T2w", mask=np.full(SHAPE, 0.3, np.float32))
    _, mask, _ = volumes_of(pairs(tmp_path, threshold=threshold)[0])
    assert (np.asarray(mask.dataobj) == cord).all()


def test_a_mask_on_another_grid_is_brought_onto_the_images(tmp_path):
    label = write_pair(tmp_path / "a", "sub-01_T2w")
    fine = np.zeros([2 * n for n in SHAPE], np.float32)
    fine[4:8, 4:8, 2:6] = 1  # the same place in halves of the voxels
    affine = TURNED @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = TURNED[:3, 3] - TURNED[:3, :3] @ np.full(3, 0.25)
    write_nifti(label, fine, affine)
    _, mask, resampled = volumes_of(pairs(tmp_path)[0])
    label.unlink()
    write_pair(tmp_path / "a", "sub-01_T2w")
    _, own, _ = volumes_of(pairs(tmp_path)[0])
    assert resampled
    assert np.array_equal(mask.dataobj, own.dataobj)
    assert np.allclose(mask.affine, own.affine)


def test_the_same_again_changes_nothing_and_a_taken_number_is_refused(sources, split):
    _, raw = convert(sources, split)
    before = {file: file.stat().st_mtime_ns for file in raw.rglob("*")}
    again, _ = convert(sources, split)
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in raw.rglob("*")} == before
    other, _ = convert(sources, split, "--dataset", 601, "other", "a")
    assert other.returncode == 2
    assert "Dataset601_general has this number" in other.stderr
    less, _ = convert(sources, split, "--dataset", 601, "general", "a")
    assert "holds other cases" in less.stderr
    write_pair(sources.parent / "a", "sub-01_T2w", mask=np.ones(SHAPE, np.float32))
    changed, _ = convert(sources, split)
    assert "holds other cases, or the same of other content" in changed.stderr


def test_what_was_cut_off_is_made_whole(sources, split):
    _, raw = convert(sources, split)
    folder = raw / "Dataset601_general"
    whole = {file: sha256(file) for file in folder.rglob("*.nii.gz")}
    (folder / "dataset.json").unlink()
    next((folder / "labelsTr").iterdir()).unlink()
    assert convert(sources, split)[0].returncode == 0
    assert {file: sha256(file) for file in folder.rglob("*.nii.gz")} == whole
    assert (folder / "dataset.json").exists()


def test_images_without_a_mask_are_named(sources, split):
    label = sources.parent / "a/derivatives/labels/sub-02/anat/sub-02_T2w_seg-manual.nii.gz"
    label.unlink()
    done, raw = convert(sources, split)
    assert "no mask, left out: " in done.stdout
    assert "sub-02_T2w.nii.gz" in done.stdout
    assert "a_sub-02_T2w" not in {row["case"] for row in table(raw / "Dataset601_general")}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "gone"}, "no such folder; correct `path` of a"),
        ({"contrasts": ["T1w"]}, "no T1w image; there are T2w; correct `contrasts`"),
        ({"suffix": "softseg"}, r"names there end with \['seg-manual'\]; correct `suffix`"),
        ({"labels": "derivatives/soft"}, r"in derivatives: \['labels'\]"),
        ({"sessions": ["1"]}, "no session 1; there are none"),
    ],
)
def test_a_source_that_has_not_what_is_asked_for_says_what_it_has(tmp_path, changes, said):
    write_pair(tmp_path / "a", "sub-01_T2w")
    with pytest.raises(DataError, match=said):
        pairs(tmp_path, **changes)


def test_a_file_that_was_not_fetched_is_said(tmp_path):
    label = write_pair(tmp_path / "a", "sub-01_T2w")
    label.unlink()
    label.symlink_to("../../.git/annex/objects/aa/bb")
    with pytest.raises(DataError, match="git annex get"):
        pairs(tmp_path)


@pytest.mark.parametrize(
    ("mask", "affine", "said"),
    [
        (np.full(SHAPE, 2.0, np.float32), TURNED, "values are 2 to 2, but a cord mask"),
        (np.full(SHAPE, -1.0, np.float32), TURNED, "values are -1 to -1"),
        (np.ones(SHAPE, np.float32), FAR, "nothing of what it marks lies in its image"),
        (np.ones((*SHAPE, 2), np.float32), TURNED, "needs 3 axes"),
    ],
)  # fmt: skip
def test_a_mask_that_cannot_be_right_is_refused(tmp_path, mask, affine, said):
    label = write_pair(tmp_path / "a", "sub-01_T2w")
    write_nifti(label, mask, affine)
    with pytest.raises(DataError, match=said):
        volumes_of(pairs(tmp_path)[0])


def test_masks_that_are_all_empty_are_refused(sources, split):
    for label in sources.parent.glob("*/derivatives/labels/*/**/*.nii.gz"):
        write_nifti(label, np.zeros(SHAPE, np.float32), TURNED)
    done, raw = convert(sources, split)
    assert done.returncode == 2
    assert "every training mask is empty" in done.stderr
    assert not list(raw.glob("*/dataset.json"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: {}", "needs `sources:`"),
        ("data: {a: {}}", "needs `sources:`"),
        ("sources: {a: [T2w]}", "a: needs path, contrasts"),
        ("sources: {a: {path: a, contrasts: [T2w]}}", "suffix missing"),
        ("sources: {a: {path: a, contrasts: T2w, suffix: x}}", "contrasts must be a list"),
        ("sources: {a: {path: a, contrasts: [2], suffix: x}}", "must be a list of words"),
        ("sources: {a: {path: a, contrast: [T2w], suffix: x}}", "did you mean 'contrasts'"),
        ("sources: {a_b: {path: a, contrasts: [T2w], suffix: x}}", "letters and digits only"),
        ("sources: {a: {path: a, contrasts: [T2w], suffix: x, threshold: 1}}", r"in \(0, 1\)"),
        ("sources: {a: {path: a, contrasts: [T2w], suffix: x, threshold: low}}", "a number"),
        ("sources: {a: {path: a, contrasts: [T2w], suffix: x, persons: [b]}}", "must be sub-X"),
        ("sources: {a: {path: a, contrasts: [T2w], suffix: x, persons: {7: b}}}", "must be sub-X"),
        ("sources: [", "line 1: not YAML"),
    ],
)
def test_a_wrong_file_of_sources_is_refused_with_its_reason(tmp_path, text, said):
    file = tmp_path / "cords.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_sources(file)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dataset", "general", "601", "a"), "needs NUMBER NAME SOURCE"),
        (("--dataset", 601, "general", "c"), "no source 'c'"),
        (("--dataset", 1000, "general", "a"), "from 1 to 999"),
        (("--fold", 7, "--dataset", 601, "general", "a"), "no fold 7"),
    ],
)
def test_a_wrong_command_is_refused_with_its_reason(sources, split, words, said):
    done, raw = convert(sources, split, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not raw.exists() or not list(raw.rglob("dataset.json"))


def test_a_split_of_other_subjects_is_refused(sources, tmp_path):
    file = tmp_path / "other.csv"
    rows = [f"a_sub-0{n},a_sub-0{n},{part}" for n, part in ((1, "train"), (2, "val"), (3, "test"))]
    file.write_text("\n".join(["subject,person,part", *rows, ""]))
    done, _ = convert(sources, file, "--dataset", 601, "general", "a")
    assert done.returncode == 2
    assert "2 subjects of the data are in no part, such as a_sub-04" in done.stderr


def test_images_without_a_mask_are_named_to_those_who_train(sources, split, tmp_path):
    label = sources.parent / "a/derivatives/labels/sub-02/anat/sub-02_T2w_seg-manual.nii.gz"
    label.unlink()
    cell = Cell(
        job="cord_unet",
        config=make_config("cord_unet", {"data": str(sources)}),
        split=str(split),
        split_sha256=load_split(str(split)).digest,
        fold=0,
        seed=0,
    )
    (alone,) = unpaired_images(cell, tmp_path)
    assert alone.name == "sub-02_T2w.nii.gz"
    everything = [one.id for part in PARTS for one in cord_cases_of(cell, part, tmp_path)]
    assert "a_sub-02_T2w" not in everything
    assert "a_sub-02_rec-average_dwi" in everything
