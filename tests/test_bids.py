"""Finding cases in a BIDS folder: all of them, and every gap is named."""

import os
from pathlib import Path

import pytest

from spine_tasks.data.bids import find_cases
from spine_tasks.errors import DataError


def put(folder, *files):
    for name in files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"content")


def put_case(folder, stem, where, suffixes=("gmseg-manual", "seg-manual"), ending=".nii.gz"):
    put(folder, f"{where}/{stem}{ending}")
    put(folder, *(f"derivatives/labels/{where}/{stem}_{s}{ending}" for s in suffixes))


@pytest.fixture
def folder(tmp_path):
    put_case(tmp_path, "sub-b_T2starw", "sub-b/anat")
    put_case(tmp_path, "sub-a_ses-2_run-1_T2starw", "sub-a/ses-2/anat")
    put_case(tmp_path, "sub-a_ses-2_run-2_T2starw", "sub-a/ses-2/anat")
    put_case(tmp_path, "sub-a_ses-1_T2starw", "sub-a/ses-1/anat")
    put_case(tmp_path, "sub-c_T2starw", "sub-c/anat")
    put(tmp_path, "sub-b/anat/sub-b_T1w.nii.gz", "sub-b/anat/sub-b_T2starw.json")
    put(tmp_path, "sub-b/anat/sub-b_acq-T2starw_T2w.nii.gz", "participants.tsv")
    return tmp_path


def test_every_image_of_the_contrast_is_a_case_sorted_and_with_its_own_mask(folder):
    cases = find_cases(folder, ["b", "a"])
    assert [(case.id, case.subject) for case in cases] == [
        ("sub-a_ses-1_T2starw", "a"),
        ("sub-a_ses-2_run-1_T2starw", "a"),
        ("sub-a_ses-2_run-2_T2starw", "a"),
        ("sub-b_T2starw", "b"),
    ]
    assert cases[1].image == folder / "sub-a/ses-2/anat/sub-a_ses-2_run-1_T2starw.nii.gz"
    labels = folder / "derivatives/labels/sub-a/ses-2/anat"
    mask = labels / "sub-a_ses-2_run-1_T2starw_gmseg-manual.nii.gz"
    assert cases[1].masks == {"gray_matter": mask}


def test_a_subject_is_found_with_and_without_prefix_and_stays_as_the_split_writes_it(folder):
    assert [case.subject for case in find_cases(folder, ["sub-b", "c"])] == ["sub-b", "c"]


def test_a_name_that_begins_another_name_is_another_subject(folder):
    put_case(folder, "sub-b2_T2starw", "sub-b2/anat")
    assert [case.id for case in find_cases(folder, ["b"])] == ["sub-b_T2starw"]


@pytest.mark.parametrize(
    ("suffixes", "labels"),
    [
        ({"cord_suffix": "seg-manual"}, {"gray_matter": "gmseg-manual", "cord": "seg-manual"}),
        ({"label_suffix": "seg-manual"}, {"cord": "seg-manual"}),
    ],
)
def test_masks_are_named_by_what_they_mark(folder, suffixes, labels):
    (case,) = find_cases(folder, ["c"], **suffixes)
    found = {label: mask.name for label, mask in case.masks.items()}
    assert found == {label: f"sub-c_T2starw_{suffix}.nii.gz" for label, suffix in labels.items()}


def test_an_image_may_be_uncompressed(folder):
    put_case(folder, "sub-d_T2starw", "sub-d/anat", ending=".nii")
    (case,) = find_cases(folder, ["d"])
    assert (case.id, case.image.suffix) == ("sub-d_T2starw", ".nii")


def test_one_image_in_two_files_is_refused(folder):
    put(folder, "sub-c/anat/sub-c_T2starw.nii")
    with pytest.raises(DataError, match="more than one image named sub-c_T2starw"):
        find_cases(folder, ["c"])


def test_a_missing_or_foreign_folder_is_named(folder, tmp_path):
    with pytest.raises(DataError, match="absent: no such folder"):
        find_cases(tmp_path / "absent", ["a"])
    with pytest.raises(DataError, match=r"no sub-\* folder in it"):
        find_cases(folder / "sub-a", ["a"])


def test_all_missing_subjects_are_named_with_what_to_do(folder):
    message = "2 of 3 subjects are not there: y, sub-x; it has 3 subjects.*choose a split"
    with pytest.raises(DataError, match=message):
        find_cases(folder, ["y", "a", "sub-x"])


def test_a_subject_asked_for_twice_is_refused(folder):
    with pytest.raises(DataError, match="asked for twice: a, sub-a"):
        find_cases(folder, ["sub-a", "a"])


def test_a_contrast_that_is_not_there_is_answered_with_those_that_are(folder):
    message = r"no T1w image of a, c; .*: \['T2starw'\]"
    with pytest.raises(DataError, match=message):
        find_cases(folder, ["a", "b", "c"], contrast="T1w")
    with pytest.raises(DataError, match=r"\['T1w', 'T2starw', 'T2w'\]"):
        find_cases(folder, ["b"], contrast="t2starw")


def test_all_missing_masks_are_named(folder):
    labels = folder / "derivatives/labels"
    (labels / "sub-b/anat/sub-b_T2starw_gmseg-manual.nii.gz").unlink()
    (labels / "sub-c/anat/sub-c_T2starw_gmseg-manual.nii.gz").unlink()
    with pytest.raises(DataError, match=r"2 of 5 masks are missing: .*/sub-b_.*, .*/sub-c_"):
        find_cases(folder, ["a", "b", "c"])


def test_a_missing_cord_mask_counts_only_when_asked_for(folder):
    (folder / "derivatives/labels/sub-b/anat/sub-b_T2starw_seg-manual.nii.gz").unlink()
    assert len(find_cases(folder, ["b"])) == 1
    with pytest.raises(DataError, match=r"1 of 2 masks are missing: .*_seg-manual"):
        find_cases(folder, ["b"], cord_suffix="seg-manual")


@pytest.mark.parametrize("name", ["sub-b/anat/", "derivatives/labels/sub-b/anat/"])
@pytest.mark.parametrize(
    ("pointer", "message"),
    [
        (b"/annex/objects/SHA256E-s81--ab.nii.gz\n", "git annex get"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("../.git/annex/objects/x", "git annex get"),
        ("elsewhere.nii.gz", "leads to elsewhere.nii.gz"),
    ],
)
def test_a_file_that_was_not_fetched_is_said_to_be_so(folder, name, pointer, message):
    suffix = "_gmseg-manual" if name.startswith("der") else ""
    file = folder / name / f"sub-b_T2starw{suffix}.nii.gz"
    file.unlink()
    if isinstance(pointer, bytes):
        file.write_bytes(pointer)
    else:
        file.symlink_to(pointer)
    with pytest.raises(DataError, match=rf"1 of 2 files are pointers .*{file.name}.*{message}"):
        find_cases(folder, ["b"])


def test_a_link_that_leads_to_a_file_is_a_file(folder):
    file = folder / "sub-b/anat/sub-b_T2starw.nii.gz"
    file.rename(folder / "real.nii.gz")
    file.symlink_to(folder / "real.nii.gz")
    assert len(find_cases(folder, ["b"])) == 1


@pytest.mark.skipif(
    "SPINE_TEST_DATA" not in os.environ, reason="SPINE_TEST_DATA names no folder of real images"
)
def test_the_challenge_split_fits_the_challenge_data():
    from spine_tasks.splits import load_split

    split = load_split("gm_challenge")
    folder = Path(os.environ["SPINE_TEST_DATA"]) / "gm-challenge"
    cases = [
        case
        for fold in split.folds
        for case in find_cases(folder, split.part(fold, "test"), cord_suffix="seg-manual")
    ]
    assert sorted(case.id for case in cases) == [
        f"sub-{name}_run-1_T2starw" for name in ("9584", "9604", "9669", "9709Ses1", "9709Ses2")
    ]
    assert {label for case in cases for label in case.masks} == {"gray_matter", "cord"}
