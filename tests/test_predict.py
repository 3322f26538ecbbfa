"""Predicting images of one's own: geometry, scores, and what is refused."""

import contextlib
import importlib.util
import io
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from spine_tasks.cell import Cell
from spine_tasks.configs import make_config
from spine_tasks.predict import main
from spine_tasks.run import Run

PROGRAM = Path(__file__).parents[1] / "jobs" / "predict.py"
SHAPE = (24, 30, 5)  # voxels, L-A-S
LAS = from_matvec(np.diag([-0.5, 0.5, 4.0]), [10, -20, 30])
# A crop smaller than the image, and a threshold that an untrained network passes here and there.
KNOBS = {"filters": 4, "image_px": 16, "spacing_mm": None, "threshold": 0.5, "threads": 1}
TINY = 1e-30  # as a threshold: every pixel of the crop is passed


def command(arguments, weights_folder=""):
    """Exit code, stdout and stderr of the command, called in this process."""
    os.environ["SPINE_WEIGHTS"] = weights_folder
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["predict.py", *map(str, arguments)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            return end.code, out.getvalue(), err.getvalue()
    raise AssertionError("the command did not exit")


def make_run(folder, complete=True, keep_weights=True):
    """A run of a tiny untrained network; its folder."""
    from spine_tasks.tasks import gm

    cell = Cell(
        job="gm_segmentation",
        config=make_config("gm_segmentation", KNOBS),
        split="gm_phantom",
        split_sha256="0" * 64,
        fold=0,
        seed=0,
    )
    run = Run(folder / cell.id)
    run.create(cell)
    run.predictions.mkdir()
    (run.predictions / "sub-1_T2starw.nii.gz").write_bytes(b"a prediction")
    if keep_weights:
        gm.use_this_machine(cell.config, gpus=0, seed=0)  # threads are set before the first use
        gm.build(cell.config, seed=2).save_weights(run.folder / gm.WEIGHTS_FILE)
    if complete:
        run.finish()
    return run.folder


@pytest.fixture(scope="module")
def framework():
    """One fresh process for everything that needs the framework, which starts slowly."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("the grey-matter network needs the extra [gm]")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()


@pytest.fixture(scope="module")
def run_folder(framework, tmp_path_factory):
    return framework(make_run, tmp_path_factory.mktemp("results"))


@pytest.fixture
def predict(framework, run_folder):
    """Predict by the tiny run, in the framework's process."""

    def predicted(image, output, *options):
        arguments = ["--run", run_folder, "--input", image, "--output", output, *options]
        return framework(command, arguments)

    return predicted


@pytest.fixture
def refused(capsys, monkeypatch):
    """The message of a command that is refused before its framework is imported."""
    # With None in place of the task's module, importing it is another error than the one expected.
    monkeypatch.setitem(sys.modules, "spine_tasks.tasks.gm", None)

    monkeypatch.setenv("SPINE_WEIGHTS", "")  # put back after the test, as is sys.argv
    monkeypatch.setattr(sys, "argv", [])

    def message(*arguments):
        code, out, err = command(arguments)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        return err

    return message


def some_array(seed=0):
    return np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)


def write(file, array, affine=LAS):
    file.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), file)
    return file


def turned(array, affine, axes):
    """The same image with its axes in another order and direction."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    return nib.apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape)


def mask_of(file):
    values = np.asarray(nib.load(file).dataobj)
    assert values.dtype == np.uint8
    return values > 0


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def volume_scores(file):
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    whole = table[table["slice"] == ""]
    return whole.set_index(["case", "metric"])["value"].astype(float)


def test_predictions_lie_on_the_voxel_grid_of_their_images(tmp_path, predict):
    oblique = from_matvec(euler2mat(0.2, -0.15, 0.1) @ LAS[:3, :3], [1.5, -7.25, 900])
    write(tmp_path / "in" / "las.nii.gz", some_array())
    write(tmp_path / "in" / "oblique.nii", some_array(), oblique)
    for axes in ("RAS", "PSR", "ILP"):
        write(tmp_path / "in" / f"{axes}.nii.gz", *turned(some_array(), LAS, axes))
    code, _, err = predict(tmp_path / "in", tmp_path / "out")
    assert code == 0, err
    for name in ("las.nii.gz", "oblique.nii", "RAS.nii.gz", "PSR.nii.gz", "ILP.nii.gz"):
        image = nib.load(tmp_path / "in" / name)
        found = nib.load(tmp_path / "out" / f"{name.split('.')[0]}.nii.gz")
        assert found.shape == image.shape
        assert np.array_equal(found.affine, image.affine)
        for field in ("qform_code", "sform_code"):
            assert found.header[field] == image.header[field]
    las = mask_of(tmp_path / "out" / "las.nii.gz")
    assert 0.02 < las.mean() < 0.3  # of the crop's 16 x 16 of 24 x 30 pixels, a part
    assert np.array_equal(mask_of(tmp_path / "out" / "oblique.nii.gz"), las)
    for axes in ("RAS", "PSR", "ILP"):
        expected, _ = turned(las, LAS, axes)
        assert np.array_equal(mask_of(tmp_path / "out" / f"{axes}.nii.gz"), expected)


def test_the_knobs_of_a_run_hold_unless_set(tmp_path, predict):
    image = write(tmp_path / "image.nii.gz", some_array())
    predict(image, tmp_path / "own.nii")
    predict(image, tmp_path / "lax.nii", "--set", f"threshold={TINY}")
    own, lax = (int(mask_of(tmp_path / name).sum()) for name in ("own.nii", "lax.nii"))
    assert 0 < own < lax == 16 * 16 * 5  # the task's own default, .999, would leave nothing


def test_the_crop_follows_the_cord_mask_beside_the_image(tmp_path, predict):
    image = write(tmp_path / "image.nii.gz", some_array())
    cord = np.zeros(SHAPE, np.uint8)
    cord[14:17, 8:13] = 1  # its middle is row 15, column 10
    write(tmp_path / "image_seg-manual.nii.gz", cord)
    knobs = ("--set", f"threshold={TINY}", "--set", "crop=cord")
    (tmp_path / "mask.nii.gz").write_bytes(b"old")  # is replaced
    code, _, err = predict(image, tmp_path / "mask.nii.gz", *knobs)
    assert code == 0, err
    assert not (tmp_path / "scores.csv").exists()  # no grey-matter mask, no scores
    expected = np.zeros(SHAPE, bool)
    expected[7:23, 2:18] = True
    assert np.array_equal(mask_of(tmp_path / "mask.nii.gz"), expected)


def test_masks_beside_images_are_scored_and_not_predicted(tmp_path, predict):
    for name in ("sub-1", "sub-2", "sub-3"):
        write(tmp_path / "in" / f"{name}.nii.gz", some_array(seed=ord(name[-1])))
    reference = some_array(seed=7) > 100
    write(tmp_path / "in" / "sub-1_gmseg-manual.nii.gz", reference.astype(np.uint8))
    write(tmp_path / "in" / "sub-2_gmseg.nii", np.zeros(SHAPE, np.uint8))
    write(tmp_path / "in" / "sub-3_seg-manual.nii.gz", np.ones(SHAPE, np.uint8))
    write(tmp_path / "in" / "sub-3_gmseg_old.nii.gz", np.ones(SHAPE, np.uint8))  # no known suffix

    code, out, err = predict(tmp_path / "in", tmp_path / "out")
    assert code == 0, err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "scores.csv", "sub-1.nii.gz", "sub-2.nii.gz", "sub-3.nii.gz",
    ]  # fmt: skip
    found = mask_of(tmp_path / "out" / "sub-1.nii.gz")
    values = volume_scores(tmp_path / "out" / "scores.csv")
    assert set(values.index.get_level_values("case")) == {"sub-1", "sub-2"}
    assert values["sub-1", "DSC"] == pytest.approx(dice(found, reference), abs=1e-12)
    assert 0 < values["sub-1", "DSC"] < 1
    assert values["sub-2", "DSC"] == 0
    assert np.isnan(values["sub-2", "HSD"])  # no surface in an empty reference
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert set(table["label"]) == {"gray_matter"}
    assert (table["person"] == table["case"]).all()
    assert (table["subject"] == table["case"]).all()
    assert f"{values['sub-1', 'DSC']:.4f}" in out
    assert f"{values['sub-1', 'MSD']:.4f}" in out
    assert "2 of 3 images scored" in out
    assert "not predicted, as masks by their names" in err
    assert "sub-1_gmseg-manual.nii.gz" in err


def test_one_image_is_scored_against_the_mask_given(tmp_path, predict):
    image = write(tmp_path / "a.nii.gz", some_array())
    crop = np.zeros(SHAPE, np.uint8)
    crop[4:20, 7:23] = 1
    reference = write(tmp_path / "by_hand.nii.gz", np.roll(crop, 2, axis=1))
    options = ("--reference", reference, "--set", f"threshold={TINY}")
    code, out, _ = predict(image, tmp_path / "out" / "b.nii.gz", *options)
    assert code == 0
    assert "by_hand.nii.gz" in out
    values = volume_scores(tmp_path / "out" / "scores.csv")
    assert values["a", "DSC"] == pytest.approx(14 / 16)
    assert values["a", "HSD"] == pytest.approx(2 * 0.5)  # two voxels of half a millimetre


def test_a_mask_suffix_of_ones_own_is_found(tmp_path, predict):
    write(tmp_path / "in" / "a.nii.gz", some_array())
    write(tmp_path / "in" / "a_rater_2.nii.gz", np.ones(SHAPE, np.uint8))
    options = ("--mask-suffix", "rater_2", "--set", f"threshold={TINY}")
    code, _, err = predict(tmp_path / "in", tmp_path / "out", *options)
    assert code == 0, err
    values = volume_scores(tmp_path / "out" / "scores.csv")
    assert values["a", "TPR"] == pytest.approx(16 * 16 / (24 * 30))
    assert values["a", "PPV"] == 1
    assert not (tmp_path / "out" / "a_rater_2.nii.gz").exists()


def test_a_bad_image_is_named_and_the_others_are_predicted(tmp_path, predict):
    for name in ("a", "z"):
        write(tmp_path / "in" / f"{name}.nii.gz", some_array())
    whole = (tmp_path / "in" / "a.nii.gz").read_bytes()
    (tmp_path / "in" / "cut.nii.gz").write_bytes(whole[:-20])
    write(tmp_path / "in" / "series.nii.gz", np.zeros((*SHAPE, 3), np.float32))
    write(tmp_path / "in" / "z_gmseg.nii.gz", np.full(SHAPE, 7, np.uint8))  # no mask
    code, out, err = predict(tmp_path / "in", tmp_path / "out")
    assert code == 1
    for name in ("cut.nii.gz: damaged", "series.nii.gz: needs 3 axes", "z_gmseg.nii.gz: a mask"):
        assert name in err
    assert "3 of 4 images failed" in err
    assert "0 of 4 images scored" in out
    assert sorted(file.name for file in (tmp_path / "out").glob("*.nii.gz")) == [
        "a.nii.gz",
        "z.nii.gz",
    ]


def test_a_bad_image_alone_is_an_error_and_leaves_the_old_output(tmp_path, predict):
    (tmp_path / "bad.nii.gz").write_bytes(b"not an image")
    (tmp_path / "mask.nii.gz").write_bytes(b"old")
    code, _, err = predict(tmp_path / "bad.nii.gz", tmp_path / "mask.nii.gz")
    assert code == 2
    assert "bad.nii.gz" in err
    assert "Traceback" not in err
    assert (tmp_path / "mask.nii.gz").read_bytes() == b"old"


def test_an_empty_cord_mask_is_told_with_the_image_it_belongs_to(tmp_path, predict):
    image = write(tmp_path / "image.nii.gz", some_array())
    write(tmp_path / "image_seg-manual.nii.gz", np.zeros(SHAPE, np.uint8))
    code, _, err = predict(image, tmp_path / "mask.nii.gz", "--set", "crop=cord")
    assert code == 2
    assert f"error: {image}: " in err
    assert "cord mask is empty" in err


def test_weights_that_are_not_there_or_do_not_fit_are_refused(tmp_path, framework, predict):
    image = write(tmp_path / "image.nii.gz", some_array())
    code, _, err = predict(image, tmp_path / "mask.nii.gz", "--set", "filters=3")
    assert code == 2
    assert "not the weights of a grey-matter network of this size" in err
    without = framework(make_run, tmp_path, True, False)
    arguments = ["--run", without, "--input", image, "--output", tmp_path / "mask.nii.gz"]
    code, _, err = framework(command, arguments)
    assert code == 2
    assert "model.weights.h5: no such file" in err
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_python_without_the_framework_is_told(tmp_path, run_folder, refused):
    image = write(tmp_path / "image.nii.gz", some_array())
    words = ["--run", run_folder, "--input", image, "--output", tmp_path / "mask.nii.gz"]
    assert "prediction needs tensorflow" in refused(*words)


def test_a_run_that_is_not_complete_is_refused(tmp_path, framework, refused):
    unfinished = framework(make_run, tmp_path, False)
    image = write(tmp_path / "image.nii.gz", some_array())
    words = ["--run", unfinished, "--input", image, "--output", tmp_path / "mask.nii.gz"]
    assert "is not complete" in refused(*words)


def test_neither_inputs_nor_runs_are_written_to(tmp_path, run_folder, refused):
    image = write(tmp_path / "in" / "a.nii.gz", some_array())
    mask = write(tmp_path / "in" / "a_gmseg-manual.nii.gz", np.ones(SHAPE, np.uint8))
    (tmp_path / "link.nii.gz").symlink_to(image)
    (tmp_path / "same").symlink_to(tmp_path / "in")
    for given, output, expected in [
        (image, image, "is an input too"),
        (image, tmp_path / "link.nii.gz", "is an input too"),
        (image, mask, "is an input too"),
        (tmp_path / "in", tmp_path / "same", "is the folder of the images"),
        (tmp_path / "in", run_folder / "predictions", "lies in the run"),
        (image, run_folder / "mask.nii.gz", "lies in the run"),
    ]:
        assert expected in refused("--run", run_folder, "--input", given, "--output", output)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"--input": "absent.nii.gz"}, "absent.nii.gz: no such file"),
        ({"--input": "empty"}, "no image in it"),
        ({"--input": "twice", "--output": "out"}, "both .nii and .nii.gz of a;"),
        ({"--input": "folder", "--output": "image.nii.gz"}, "is a file; name a folder"),
        ({"--output": "folder"}, "must name a .nii.gz or .nii file"),
        ({"--output": "mask.png"}, "must name a .nii.gz or .nii file"),
        ({"--reference": "absent_mask.nii.gz"}, "absent_mask.nii.gz: no such file"),
        ({"--input": "folder", "--output": "out", "--reference": "image.nii.gz"}, "for one image"),
        ({"--mask-suffix": "rater"}, "no mask ..._rater.nii.gz beside an image"),
        ({"--part": "1/2"}, "--part is for a folder of images, but image.nii.gz is no folder"),
        ({"--part": "0/2"}, "expected K/N with K from 1 to N"),
        ({"--input": "pointer.nii.gz"}, "pointer.nii.gz; fetch it with `git annex get`"),
        ({"--set": "crop=cord"}, "crop=cord needs a cord mask ..._seg-manual.nii.gz"),
        ({"--set": "treshold=0.5"}, "did you mean 'threshold'?"),
        ({"--set": "threshold=2"}, "threshold must be in (0, 1), got 2"),
        ({"--set": "threshold"}, "expected name=value"),
        ({"--task": "gm"}, "there is no job 'gm'; jobs: "),
        ({"--task": None}, "--weights needs --task, one of: "),
        ({"--weights": "chalenge"}, "neither a file nor the name of known weights"),
        ({"--weights": "run/model.weights.h5"}, "give --run run instead"),
        ({"--weights": None}, "one of the arguments --run --weights is required"),
        ({"--run": "run"}, "not allowed with argument"),
        ({"--run": "folder", "--weights": None, "--task": None}, "is not a run's folder"),
        ({"--set": "tta=1", "--reference": "a.nii", "--mask-suffix": "b"}, "not allowed with"),
    ],
)
def test_what_is_wrong_is_said_before_the_framework_is_loaded(
    tmp_path, monkeypatch, refused, change, expected
):
    monkeypatch.chdir(tmp_path)
    for name in ("image.nii.gz", "folder/a.nii.gz", "twice/a.nii.gz", "twice/a.nii"):
        write(Path(name), some_array())
    for name in ("empty", "run"):
        Path(name).mkdir()
    Path("pointer.nii.gz").write_text("/annex/objects/MD5E-s5--0.nii.gz")
    for name in ("own.hdf5", "run/model.weights.h5", "run/cell.json"):
        Path(name).write_text("{}")
    flags = {
        "--task": "gm_segmentation",
        "--weights": "own.hdf5",
        "--input": "image.nii.gz",
        "--output": "mask.nii.gz",
    } | change
    words = [word for flag, value in flags.items() if value is not None for word in (flag, value)]
    assert expected in refused(*words)


def test_asking_for_help_loads_nothing_slow():
    program = f"""
import runpy, sys
sys.argv = ["predict.py", "--help"]
try:
    runpy.run_path({str(PROGRAM)!r}, run_name="__main__")
finally:
    slow = {{"tensorflow", "keras", "torch", "scipy", "pandas", "nibabel"}}
    sys.stderr.write(str(sorted(slow & set(sys.modules))))
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "--mask-suffix" in done.stdout
    assert "--part K/N" in done.stdout
    assert done.stderr == "[]"


@pytest.mark.skipif(
    "SPINE_TEST_DATA" not in os.environ, reason="SPINE_TEST_DATA names no folder of real images"
)
@pytest.mark.parametrize(("name", "expected"), [("challenge", 0.8905), ("large", 0.9088)])
def test_published_weights_give_the_known_score_on_a_real_image(
    tmp_path, framework, name, expected
):
    folder = Path(os.environ["SPINE_TEST_DATA"])
    t2s = folder / "sct-testing" / "t2s"
    words = ["--task", "gm_segmentation", "--weights", name, "--mask-suffix", "gmseg_manual"]
    words += ["--input", t2s / "t2s_uncropped.nii.gz", "--output", tmp_path / "mask.nii.gz"]
    code, out, err = framework(command, [*words, "--set", "threads=1"], str(folder / "weights"))
    assert code == 0, err
    dsc = volume_scores(tmp_path / "scores.csv")["t2s_uncropped", "DSC"]
    assert dsc == pytest.approx(expected, abs=5e-5)
    assert f"{dsc:.4f}" in out
