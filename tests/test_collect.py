"""The tables of a grid: nothing missing unseen, nothing undefined averaged away."""

import math
import re
import shutil
from argparse import Namespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from making import command

from spine_tasks.collect import command as under_test
from spine_tasks.configs import defaults_of
from spine_tasks.errors import ConfigError, IncompleteGrid, MixedResults, RunError
from spine_tasks.experiment import opened
from spine_tasks.files import read_json, sha256, write_json
from spine_tasks.score import score_mask_files, to_csv
from spine_tasks.splits import load_split

TEST = load_split("gm_phantom").part(0, "test")
KEPT = ("runs", "cases", "summary", "comparisons", "convergence")


def collect(results, *flags):
    answer = command("collect", "--grid", "gm_transfer", "--results", results, *flags)
    assert "Traceback" not in answer.stderr, answer.stderr
    return answer


def collect_here(results, partial=False, mixed=False):
    """The same in this process, for what is refused."""
    asked = Namespace(
        grid="gm_transfer",
        results=results,
        partial=partial,
        mixed=mixed,
        ensemble=None,
        explain=None,
        by=None,
        raters=None,
    )
    under_test.collect(asked)


def change(run, **details):
    """Write other details into a run's done.json."""
    file = run.folder / "done.json"
    write_json(file, read_json(file) | details)


def code_of(run):
    """The digest of the code that a run was computed with."""
    return read_json(run.folder / "done.json")["code_sha256"]


def table(results, name):
    return pd.read_csv(results / "gm_transfer" / f"{name}.csv")


@pytest.fixture(scope="module")
def collected_once(launched_once, tmp_path_factory):
    results = tmp_path_factory.mktemp("collected") / "results"
    shutil.copytree(launched_once[0], results)
    answer = collect(results)
    assert answer.returncode == 0, answer.stderr
    return results, answer


@pytest.fixture
def run(complete):
    """The run of the first of the grid's own cells."""
    experiment = opened("gm_transfer", complete)
    return experiment.run(experiment.cells[0])


def test_every_table_and_a_figure_are_written(collected_once):
    folder = collected_once[0] / "gm_transfer"
    assert all((folder / f"{name}.csv").stat().st_size for name in KEPT)
    drawn = {file.name for file in folder.glob("*.png")}
    assert {"curves.png", "box_gray_matter_DSC.png", "difference_gray_matter_DSC.png"} <= drawn
    assert not list(folder.rglob(".partial*"))


def test_runs_has_a_row_a_cell_with_every_knob_and_metric(collected_once):
    runs = table(collected_once[0], "runs")
    assert len(runs) == 5
    assert list(runs["role"]) == ["needed", "arm", "arm", "arm", "arm"]
    assert set(defaults_of("gm_segmentation")) <= set(runs.columns)
    metrics = set(table(collected_once[0], "cases")["metric"])
    assert metrics <= set(runs.columns)
    assert set(runs["epochs_trained"]) == {3}
    assert set(runs["attempts"]) == {1}
    assert runs["cell"].is_unique
    assert (runs["seconds"] > 0).all()
    assert runs["code_sha256"].nunique() == 1
    assert runs["code_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert runs["data_sha256"].nunique() == 2  # the needed cell reads another split


def test_scores_are_those_of_the_masks(collected_once):
    # The toy task predicts the reference where pretrained, and one voxel beside it from scratch.
    runs = table(collected_once[0], "runs").set_index("arm")
    assert runs.loc["init=pretrained augment=False", ["DSC", "MSD", "HSD"]].tolist() == [1, 0, 0]
    scratch = runs.loc["init=scratch augment=False"]
    assert 0.5 < scratch["DSC"] < 1
    assert scratch["HSD"] == 0.5  # mm: one voxel


def test_a_comparison_is_paired_by_person(collected_once):
    compared = table(collected_once[0], "comparisons")
    assert set(compared["baseline"]) == {"init=scratch augment=False"}
    row = compared[
        (compared["metric"] == "DSC") & (compared["arm"] == "init=pretrained augment=False")
    ].iloc[0]
    runs = table(collected_once[0], "runs").set_index("arm")
    gain = 1 - runs.loc["init=scratch augment=False", "DSC"]
    assert row["n"] == len(TEST)
    assert row["mean_difference"] == pytest.approx(gain)


def test_the_needed_cells_are_in_no_arm(collected_once):
    cases = table(collected_once[0], "cases")
    assert set(cases["split"]) == {"gm_phantom"}
    assert set(cases["subject"]) == set(TEST)
    assert cases["arm"].nunique() == 4


def test_a_grid_with_a_missing_cell_is_refused_and_the_cell_is_named(complete, run):
    (run.folder / "done.json").unlink()
    answer = collect(complete)
    assert answer.returncode == 2
    assert "1 of 4 cells are not complete" in answer.stderr
    assert f"{run.folder.name} (init=scratch augment=False)" in answer.stderr
    assert not list(complete.glob("gm_transfer/*.csv"))


def test_a_view_of_nothing_is_refused(complete):
    for file in complete.rglob("done.json"):
        file.unlink()
    with pytest.raises(IncompleteGrid, match="no cell is complete yet"):
        collect_here(complete, partial=True)


def test_a_missing_mask_is_an_error_and_never_a_score(complete, run):
    run.scores.unlink()
    mask = run.predictions / f"{TEST[0]}_T2starw.nii.gz"
    mask.unlink()
    with pytest.raises(RunError, match=f"{mask} is missing although the run is complete"):
        collect_here(complete)


def test_what_was_never_launched_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing was launched as 'gm_transfer'"):
        collect_here(tmp_path)


def test_the_versions_are_said(collected_once):
    printed = collected_once[1].stdout
    assert "5 runs in 5 attempts" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("code "))
    code = table(collected_once[0], "runs")["code_sha256"][0]
    assert line.startswith(f"code {code[:8]} (commit ")
    assert all(f"({split})" in line for split in ("gm_phantom", "gm_phantom_adult"))
    assert "not computed alike" not in printed


def test_cells_of_different_code_are_refused_and_named(complete, run):
    before = code_of(run)
    change(run, code_sha256="c" * 64, commit="fedcba9876543210")
    change(run, code_sha256_of_attempts=["c" * 64])
    with pytest.raises(MixedResults) as refused:
        collect_here(complete)
    said = str(refused.value)
    assert f"cccccccc (commit fedcba9): 1 cell, {run.folder.name}" in said
    assert re.search(rf"{before[:8]} .*: 4 cells, ", said)
    assert "--mixed" in said
    assert not list(complete.glob("gm_transfer/*.csv"))


def test_cells_of_different_data_are_refused_and_named(complete, run):
    change(run, data_sha256="d" * 64)
    with pytest.raises(
        MixedResults, match=rf"data of gm_phantom:[^$]*dddddddd: 1 cell, {run.folder.name}"
    ):
        collect_here(complete)


def test_mixed_cells_are_collected_on_request_and_said(complete, run, capsys):
    code = code_of(run)
    change(run, code_sha256_of_attempts=["c" * 64, code])
    collect_here(complete, mixed=True)
    printed = capsys.readouterr().out
    assert "these cells were not computed alike (see runs.csv)" in printed
    assert f"cccccccc then {code[:8]}" in printed
    runs = table(complete, "runs").set_index("cell")
    assert runs.loc[run.folder.name, "code_sha256"] == f"{'c' * 64} {code}"
    assert runs["code_sha256"].nunique() == 2


def test_spoilt_scores_are_made_again_and_that_is_said_in_a_line(complete, run, capsys):
    whole = run.scores.read_bytes()
    run.scores.write_bytes(b"".join(whole.splitlines(keepends=True)[:-7]))
    collect_here(complete)
    assert run.scores.read_bytes() == whole
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("scored again from the predictions: 1 cell, ")
    assert run.folder.name in line


def test_scores_are_not_made_again_against_data_that_changed(complete, run, data):
    (mask,) = data.rglob(f"{TEST[0]}_T2starw_gmseg-manual.nii.gz")
    before = mask.read_bytes()
    run.scores.unlink()
    mask.write_bytes(before[:-1] + b"x")
    try:
        with pytest.raises(MixedResults, match="changed since they were computed") as refused:
            collect_here(complete)
    finally:
        mask.write_bytes(before)
    assert f"1 cell, {run.folder.name}" in str(refused.value)
    collect_here(complete)


def test_scores_are_derived_and_made_again_and_the_tables_stay_the_same(collected_once, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(collected_once[0], results)
    scores = {file: file.read_bytes() for file in results.rglob("scores.csv")}
    assert len(scores) == 5
    for file in scores:
        file.unlink()
    assert collect(results).returncode == 0
    assert {file: file.read_bytes() for file in results.rglob("scores.csv")} == scores
    for name in KEPT:
        file = f"gm_transfer/{name}.csv"
        assert (results / file).read_bytes() == (collected_once[0] / file).read_bytes()


@pytest.fixture(scope="module")
def partial(launched_once, tmp_path_factory):
    """A partial view: the second arm is not complete, and the first has an empty prediction."""
    results = tmp_path_factory.mktemp("partial") / "results"
    shutil.copytree(launched_once[0], results)
    experiment = opened("gm_transfer", results)
    spoilt, lost = (experiment.run(cell) for cell in experiment.cells[:2])
    (lost.folder / "done.json").unlink()
    mask = spoilt.predictions / f"{TEST[0]}_T2starw.nii.gz"
    image = nib.load(mask)
    empty = np.zeros(image.shape, np.uint8)
    nib.Nifti1Image(empty, image.affine, image.header).to_filename(mask)
    change(spoilt, predictions_sha256={file.name: sha256(file) for file in mask.parent.iterdir()})
    answer = collect(results, "--partial")
    assert answer.returncode == 0, answer.stderr
    return results, answer


def test_a_partial_view_says_how_many_cells_it_has(partial):
    results, answer = partial
    assert "3 of 4" in answer.stdout
    assert len(table(results, "runs")) == 4
    assert set(table(results, "summary")["arm"]) == {
        "init=scratch augment=False",
        "init=pretrained augment=False",
        "init=pretrained augment=True",
    }


def test_an_undefined_value_is_counted_and_not_averaged_away(partial):
    summary = table(partial[0], "summary")
    arm = summary[summary["arm"] == "init=scratch augment=False"].set_index("metric")
    distance = arm.loc["MSD"]
    assert (distance["n"], distance["n_undefined"]) == (len(TEST) - 1, 1)
    # An empty prediction has a Dice of 0, which counts.
    dice = arm.loc["DSC"]
    assert (dice["n"], dice["n_undefined"]) == (len(TEST), 0)
    cases = table(partial[0], "cases")
    values = cases[(cases["arm"] == "init=scratch augment=False") & (cases["metric"] == "DSC")]
    assert sorted(values["value"])[0] == 0
    assert dice["mean"] == pytest.approx(values["value"].mean())


def test_values_in_a_scores_file_keep_every_bit():
    value = 0.1 + 0.2
    text = to_csv(
        [("p", "s", "c", "", "l", "DSC", value), ("p", "s", "c", 3, "l", "DSC", math.nan)]
    )
    first, second = text.splitlines()[1:]
    assert float(first.rsplit(",", 1)[1]) == value
    assert second == "p,s,c,3,l,DSC,nan"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_counted_along_the_cord_in_any_orientation(tmp_path, axis):
    # Superior-inferior is array axis `axis`; the area metrics are per slice along it.
    order = np.roll(np.arange(3), 2 - axis)  # the array axis of right, anterior, superior
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for world, array_axis in enumerate(order):
        affine[world, array_axis] = 1
    shape = np.full(3, 9)
    shape[axis] = 4
    mask = np.zeros(shape, np.uint8)
    inner = [slice(3, 6)] * 3
    inner[axis] = slice(0, 4)
    mask[tuple(inner)] = 1
    for name in ("truth.nii.gz", "found.nii.gz"):
        nib.Nifti1Image(mask, affine).to_filename(tmp_path / name)
    rows = list(score_mask_files(tmp_path / "found.nii.gz", tmp_path / "truth.nii.gz", "cord"))
    counted = {row[0] for row in rows if row[0] != ""}
    assert counted <= set(range(4))
    assert {row[1] for row in rows} == {"cord"}
    assert next(row[3] for row in rows if row[2] == "DSC") == 1
