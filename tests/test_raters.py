"""Raters' masks beside the reference: scores known by hand, and nothing missing unseen."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from making import planned_grid, small_data, write_nifti
from test_groups import gathered_of

from spine_tasks.collect.raters import BETWEEN, OF_PAIRS, beside_raters, raters
from spine_tasks.collect.schema import COLUMNS
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.metrics import OF_MASKS
from spine_tasks.score import score_mask_files
from spine_tasks.splits import load_split
from spine_tasks.stats.persons import by_person

TEST = load_split("gm_phantom").part(0, "test")
ONE, TWO = "gmseg-rater2", "derivatives/labels_rater3"


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Data with two more raters: one is a voxel off, the other leaves the second slice out."""
    folder = small_data(tmp_path_factory.mktemp("rated") / "bids", "gm_phantom")
    for name in TEST:
        image = nib.load(mask_of(folder, name, "gmseg-manual"))
        mask = np.asarray(image.dataobj)
        write_nifti(mask_of(folder, name, ONE), np.roll(mask, 1, axis=0), image.affine)
        half = mask * np.array([1, 0], np.uint8)
        other = mask_of(folder, name, "gmseg-manual", "labels_rater3")
        write_nifti(other, half, image.affine)
    return folder


def mask_of(folder, name, suffix, labels="labels"):
    return folder / "derivatives" / labels / name / "anat" / f"{name}_T2starw_{suffix}.nii.gz"


@pytest.fixture
def gathered(rated, tmp_path):
    """The grid's four arms: as good as the reference, and no scores but DSC."""
    experiment = planned_grid(tmp_path, **{"data": str(rated)})
    rows = [
        {"cell": cell.id, "arm": cell.arm_name, "split": cell.split, "fold": 0, "seed": 0,
         "person": load_split("gm_phantom").person_of[name], "subject": name,
         "case": f"{name}_T2starw", "slice": np.nan, "label": "gray_matter", "metric": "DSC",
         "value": 1.0}
        for cell in experiment.cells
        for name in TEST
    ]  # fmt: skip
    return gathered_of(pd.DataFrame(rows), experiment)


def dice(one, other):
    one, other = (np.asarray(nib.load(file).dataobj) > 0 for file in (one, other))
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_a_rater_is_an_arm_scored_as_networks_are(rated, gathered):
    table = raters(gathered, [ONE])
    assert list(table.columns) == COLUMNS
    assert set(table["arm"]) == {f"rater {ONE}"}
    assert set(table["metric"]) == set(OF_MASKS)
    case = table[(table["subject"] == TEST[0]) & table["slice"].isna()].set_index("metric")["value"]
    files = mask_of(rated, TEST[0], ONE), mask_of(rated, TEST[0], "gmseg-manual")
    expected = {m: v for at, _, m, v in score_mask_files(*files, "gray_matter") if at == ""}
    assert dict(case) == pytest.approx(expected, nan_ok=True)
    assert case["DSC"] == pytest.approx(dice(*files))
    assert case["HSD"] == 0.5  # mm: one voxel
    assert set(table["case"]) == {f"{name}_T2starw" for name in TEST}


def test_a_case_is_scored_once_though_four_arms_tested_on_it(gathered):
    dsc = raters(gathered, [ONE]).query("metric == 'DSC'")
    assert len(dsc) == len(TEST)


def test_a_folder_of_masks_is_a_rater_too(rated, gathered):
    table = raters(gathered, [TWO]).query("metric == 'DSC'")
    assert set(table["arm"]) == {f"rater {TWO}"}
    assert list(table["value"]) == pytest.approx([2 / 3] * len(TEST))  # half of it: 2 (1/2) / 1.5


def test_all_pairs_of_raters_are_averaged_by_person(rated, gathered):
    table = raters(gathered, [ONE, TWO])
    people = by_person(table).query(f"arm == '{BETWEEN}' and metric == 'DSC'")
    assert list(people["n_values"]) == [3] * len(people)
    files = [mask_of(rated, TEST[0], "gmseg-manual"), mask_of(rated, TEST[0], ONE),
             mask_of(rated, TEST[0], "gmseg-manual", "labels_rater3")]  # fmt: skip
    expected = np.mean([dice(files[0], files[1]), dice(files[0], files[2]), dice(*files[1:])])
    person = load_split("gm_phantom").person_of[TEST[0]]
    assert people.set_index("person")["value"][person] == pytest.approx(expected)
    assert {name.removesuffix("_slice") for name in table[table["arm"] == BETWEEN]["metric"]} == {
        *OF_PAIRS
    }


def test_what_is_told_of_pairs_has_no_direction(rated):
    files = mask_of(rated, TEST[0], ONE), mask_of(rated, TEST[0], "gmseg-manual", "labels_rater3")
    there, back = (
        {m: v for at, _, m, v in score_mask_files(*pair, "gray_matter") if at == ""}
        for pair in (files, files[::-1])
    )
    assert {name: there[name] for name in OF_PAIRS} == pytest.approx(
        {name: back[name] for name in OF_PAIRS}
    )
    assert there["TPR"] != pytest.approx(back["TPR"])


def test_raters_stand_beside_the_arms_with_their_difference(gathered):
    table = beside_raters(gathered, [ONE, TWO]).query("metric == 'DSC'").set_index("arm")
    assert len(table) == 4 + 2 + 1
    assert table.loc[f"rater {TWO}", "difference"] == pytest.approx(2 / 3 - 1)
    assert table.loc[f"rater {TWO}", "n"] == len(TEST)


def test_a_case_without_a_rater_is_counted_and_named(rated, gathered, capsys):
    file = mask_of(rated, TEST[1], ONE)
    away = file.rename(file.with_name("away"))
    try:
        table = raters(gathered, [ONE])
    finally:
        away.rename(file)
    assert set(table["subject"]) == set(TEST) - {TEST[1]}
    said = capsys.readouterr().err
    assert f"{ONE} has no mask of 1 of {len(TEST)} test cases: {TEST[1]}_T2starw" in said


def test_a_mask_on_another_grid_is_refused(rated, gathered):
    file = mask_of(rated, TEST[0], ONE)
    good = file.read_bytes()
    write_nifti(file, np.zeros((24, 24, 3), np.uint8), np.diag([0.5, 0.5, 5, 1]))
    try:
        with pytest.raises(DataError, match=file.name):
            raters(gathered, [ONE])
    finally:
        file.write_bytes(good)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["gmseg-nobody"], DataError, "gmseg-nobody has no mask of any of"),
        (["derivatives/nowhere"], DataError, "has no mask of any"),
        ([ONE, ONE], ConfigError, "given twice"),
        (["gmseg-manual"], ConfigError, "the reference itself"),
        (["derivatives/labels"], ConfigError, "the reference itself"),
    ],
)
def test_what_is_no_rater_is_refused(gathered, names, error, message):
    with pytest.raises(error, match=message):
        raters(gathered, names)


def test_only_masks_have_raters(gathered):
    other = gathered_of(gathered.cases, gathered.experiment, "boxes")
    with pytest.raises(ConfigError, match="not boxes"):
        raters(other, [ONE])
