"""Cords in volumes of one's own: geometry, scores, parts of a folder, and what is refused."""

import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from making import run_folder
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from test_predict import LAS, SHAPE, command, mask_of, some_array, turned, volume_scores, write

from spine_tasks.cell import Cell
from spine_tasks.configs import make_config
from spine_tasks.predict.part import Part

pytest.importorskip("torch", reason="PyTorch is not installed (extra `nnunet`)")
pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (extra `nnunet`)")

import torch

TINY = 1e-30  # as a threshold: every pixel of the square is passed
UNET = {"image_px": 16, "stages": 2, "features": 4, "threads": 1}


def configuration(spacing_mm, patch):
    """What nnU-Net plans for a network of two stages, in as many dimensions as the patch has."""
    axes = len(patch)
    return {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "spacing": spacing_mm,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": True,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
                "kernel_sizes": [[3] * axes, [3] * axes],
                "strides": [[1] * axes, [1, 2, 2][-axes:]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    } | {
        f"resampling_fn_{what}": "resample_data_or_seg_to_shape"
        for what in ("data", "seg", "probabilities")
    } | {
        f"resampling_fn_{what}_kwargs": {
            "is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None,
        }
        for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))
    }  # fmt: skip


# Its voxels differ from the images' on every axis, so that one taken for another shows.
ABOUT = {
    "plans": {
        "dataset_name": "Dataset001_cord",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {
            "2d": configuration([0.6, 0.4], [16, 16]),
            "3d_fullres": configuration([3.0, 0.6, 0.4], [4, 16, 16]),
        },
    },
    "dataset": {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "cord": 1},
        "file_ending": ".nii.gz",
    },
}


def a_run(results, job, knobs=None, complete=True):
    """A run of some job without weights."""
    config = make_config(job, knobs or {})
    of = Cell(job=job, config=config, split="cords_phantom", split_sha256="0" * 64, fold=0, seed=0)
    run = run_folder(results, of)
    run.predictions.mkdir()
    (run.predictions / "a.nii.gz").write_bytes(b"a prediction")
    if complete:
        run.finish()
    return run.folder


def nnunet_run(results, dimensions):
    from spine_tasks.tasks.cord.predict import build
    from spine_tasks.tasks.weights_file import WEIGHTS_FILE, save_network

    folder = a_run(results, "cord_nnunet", {"configuration": dimensions, "threads": 1})
    axes = len(ABOUT["plans"]["configurations"][dimensions]["patch_size"])
    about = ABOUT | {"configuration": dimensions, "mirror_axes": [*range(axes)]}
    torch.manual_seed(1)
    save_network(folder / WEIGHTS_FILE, build(about), about)
    return folder


def unet_run(results):
    from spine_tasks.tasks.cord.unet import Unet
    from spine_tasks.tasks.weights_file import WEIGHTS_FILE, save_network

    folder = a_run(results, "cord_unet", UNET)
    torch.manual_seed(1)
    save_network(folder / WEIGHTS_FILE, Unet(make_config("cord_unet", UNET)), {})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Complete runs of tiny untrained networks."""
    results = tmp_path_factory.mktemp("results")
    return {name: nnunet_run(results, name) for name in ("2d", "3d_fullres")} | {
        "unet": unet_run(results)
    }


@pytest.fixture
def predict(runs, one_thread, monkeypatch):
    """Predict by a tiny run, in this process."""
    monkeypatch.setenv("SPINE_WEIGHTS", "")  # put back after the test, as is sys.argv
    monkeypatch.setattr(sys, "argv", [])

    def predicted(images, output, *options, run="unet"):
        words = ["--run", runs[run], "--input", images, "--output", output, *options]
        return command(words)

    return predicted


@pytest.fixture
def refused(predict, monkeypatch):
    """The message of a command that is refused before its network is built."""
    for task in ("train", "unet_train"):
        monkeypatch.setitem(sys.modules, f"spine_tasks.tasks.cord.{task}", None)

    def message(*arguments):
        code, out, err = command(arguments)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        return err

    return message


def some_images(folder, number):
    for at in range(number):
        write(folder / f"sub-{at}.nii.gz", some_array(seed=at))
    return folder


@pytest.mark.parametrize("run", ["2d", "3d_fullres", "unet"])
def test_masks_lie_on_the_voxel_grid_of_their_images(tmp_path, predict, run):
    oblique = from_matvec(euler2mat(0.2, -0.15, 0.1) @ LAS[:3, :3], [1.5, -7.25, 900])
    write(tmp_path / "in" / "las.nii.gz", some_array())
    write(tmp_path / "in" / "oblique.nii", some_array(), oblique)
    for axes in ("RAS", "PSR", "ILP"):
        write(tmp_path / "in" / f"{axes}.nii.gz", *turned(some_array(), LAS, axes))
    # Averaged over mirrored copies, a mirrored image would have the right mask.
    options = () if run == "unet" else ("--set", "mirror=false")
    code, out, err = predict(tmp_path / "in", tmp_path / "out", *options, run=run)
    assert (code, out) == (0, ""), err
    for name in ("las.nii.gz", "oblique.nii", "RAS.nii.gz", "PSR.nii.gz", "ILP.nii.gz"):
        image = nib.load(tmp_path / "in" / name)
        found = nib.load(tmp_path / "out" / f"{name.split('.')[0]}.nii.gz")
        assert found.shape == image.shape
        assert np.array_equal(found.affine, image.affine)
        for field in ("qform_code", "sform_code"):
            assert found.header[field] == image.header[field]
    las = mask_of(tmp_path / "out" / "las.nii.gz")
    assert 0.02 < las.mean() < 0.98
    assert np.array_equal(mask_of(tmp_path / "out" / "oblique.nii.gz"), las)
    for axes in ("RAS", "PSR", "ILP"):
        expected, _ = turned(las, LAS, axes)
        assert np.array_equal(mask_of(tmp_path / "out" / f"{axes}.nii.gz"), expected)


def test_the_knobs_of_a_run_hold_unless_set(tmp_path, predict):
    image = write(tmp_path / "image.nii.gz", some_array())
    masks = []
    for name, options in {
        "a": (),
        "b": ("--set", "mirror=true"),
        "c": ("--set", "mirror=false"),
    }.items():
        code, _, err = predict(image, tmp_path / f"{name}.nii", *options, run="3d_fullres")
        assert code == 0, err
        masks.append(mask_of(tmp_path / f"{name}.nii"))
    assert np.array_equal(masks[0], masks[1])  # the run's own
    assert not np.array_equal(masks[0], masks[2])


def test_masks_beside_images_are_scored_and_not_predicted(tmp_path, predict):
    images = some_images(tmp_path / "in", 3)
    half, square = np.zeros((2, *SHAPE), np.uint8)
    square[4:20, 7:23] = 1  # the square that the network sees, of which all is passed below
    half[4:12, 7:23] = 1
    write(images / "sub-0_seg-manual.nii.gz", half)
    write(images / "sub-1_seg.nii", square)
    write(images / "sub-2_gmseg-manual.nii.gz", half)  # of no cord
    code, out, err = predict(images, tmp_path / "out", "--set", f"threshold={TINY}")
    assert code == 0, err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "scores.csv", "sub-0.nii.gz", "sub-1.nii.gz", "sub-2.nii.gz",
    ]  # fmt: skip
    values = volume_scores(tmp_path / "out" / "scores.csv")
    assert set(values.index.get_level_values("case")) == {"sub-0", "sub-1"}
    assert values["sub-0", "DSC"] == pytest.approx(2 / 3)
    assert values["sub-0", "RVE"] == pytest.approx(1)
    assert values["sub-0", "CSA_error"] == pytest.approx(8 * 16 * 0.25)  # pixels of .25 mm2
    assert values["sub-1", "DSC"] == 1
    assert values["sub-1", "RVE"] == values["sub-1", "CSA_error"] == 0
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv")["label"]) == {"cord"}
    for said in ("RVE", "CSA error (mm2)", "1.0000", "32.0000", "2 of 3 images scored"):
        assert said in out
    assert "not predicted, as masks by their names" in err


def test_references_can_be_named(tmp_path, predict):
    images = some_images(tmp_path / "in", 2)
    reference = write(images / "sub-1_label-SC_mask.nii.gz", np.ones(SHAPE, np.uint8))
    code, _, err = predict(images, tmp_path / "out", "--mask-suffix", "label-SC_mask")
    assert code == 0, err
    all_cord = mask_of(tmp_path / "out" / "sub-1.nii.gz").mean()  # of which all is cord
    values = volume_scores(tmp_path / "out" / "scores.csv")
    assert set(values.index.get_level_values("case")) == {"sub-1"}
    assert values["sub-1", "TPR"] == pytest.approx(all_cord)
    one = images / "sub-0.nii.gz"
    code, _, err = predict(one, tmp_path / "one" / "seg.nii.gz", "--reference", reference)
    assert code == 0, err
    assert volume_scores(tmp_path / "one" / "scores.csv")["sub-0", "PPV"] == 1


def test_an_image_without_cord_is_told_and_no_error(tmp_path, predict):
    images = some_images(tmp_path / "in", 2)
    write(images / "sub-0_seg.nii.gz", np.ones(SHAPE, np.uint8))
    code, out, err = predict(images, tmp_path / "out", "--set", "threshold=0.9999999")
    assert code == 0
    for at in range(2):
        assert f"sub-{at}.nii.gz: empty, no cord was found\n" in err
        assert not mask_of(tmp_path / "out" / f"sub-{at}.nii.gz").any()
    assert "1 of 2 images scored" in out
    _, _, err = predict(images, tmp_path / "out")
    assert "empty" not in err


def test_a_series_is_named_and_the_others_are_predicted(tmp_path, predict):
    images = some_images(tmp_path / "in", 2)
    write(images / "sub-0.nii.gz", np.zeros((*SHAPE, 3), np.float32))
    code, _, err = predict(images, tmp_path / "out", run="2d")
    assert code == 1
    assert "sub-0.nii.gz: needs 3 axes (X, Y, Z), got shape (24, 30, 5, 3)" in err
    assert "save one volume" in err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["sub-1.nii.gz"]


def test_files_that_are_not_fetched_are_told_before_anything_is_predicted(tmp_path, runs, refused):
    images = some_images(tmp_path / "in", 2)
    words = ("--run", runs["unet"], "--input", images, "--output", tmp_path / "out")
    (images / "sub-1_seg.nii.gz").symlink_to("../.git/annex/objects/aa/bb")  # a reference
    assert "sub-1_seg.nii.gz; fetch it with `git annex get`" in refused(*words)
    (images / "sub-1_seg.nii.gz").unlink()
    (images / "sub-1.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "sub-1.nii.gz; fetch it with `git lfs pull`" in refused(*words)


@pytest.mark.parametrize("number", [0, 1, 5, 8, 17])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_all_parts_together_are_everything_once(number, parts):
    shares = [Part(at, parts).of(range(number)) for at in range(1, parts + 1)]
    assert sorted(one for share in shares for one in share) == [*range(number)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_parts_predict_each_image_once_and_keep_their_own_scores(tmp_path, predict):
    images, out = some_images(tmp_path / "in", 5), tmp_path / "out"
    for name in ("sub-0", "sub-3", "sub-4"):
        write(images / f"{name}_seg.nii.gz", np.ones(SHAPE, np.uint8))
    for at, expected in enumerate((["sub-0", "sub-3"], ["sub-1", "sub-4"], ["sub-2"]), start=1):
        options = ("--part", f"{at}/3", "--mask-suffix", "seg")  # of the third part none has one
        code, _, err = predict(images, out, *options)
        assert code == 0, err
        said = [line.split()[1] for line in err.splitlines() if f"/{len(expected)} " in line]
        assert said == [str(out / f"{name}.nii.gz") for name in expected]
    scored = {file.name: set(pd.read_csv(file)["case"]) for file in sorted(out.glob("scores*.csv"))}
    assert scored == {"scores_1of3.csv": {"sub-0", "sub-3"}, "scores_2of3.csv": {"sub-4"}}
    assert sorted(file.name for file in out.glob("*.nii.gz")) == [
        f"sub-{at}.nii.gz" for at in range(5)
    ]
    whole = tmp_path / "whole"
    predict(images, whole)
    for file in whole.glob("*.nii.gz"):
        assert file.read_bytes() == (out / file.name).read_bytes()


def test_more_parts_than_images_are_no_error(tmp_path, predict, monkeypatch):
    images = some_images(tmp_path / "in", 2)
    monkeypatch.setitem(sys.modules, "spine_tasks.tasks.cord.unet_train", None)  # not loaded
    code, out, err = predict(images, tmp_path / "out", "--part", "3/8")
    assert (code, out) == (0, "")
    assert "no image is left for part 3/8" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "/8", "3/", "-1/8", "1.5/8", "1/8/8", "a/b"])
def test_a_part_that_is_none_is_refused(tmp_path, runs, refused, text):
    words = ("--run", runs["unet"], "--input", tmp_path, "--output", tmp_path / "out")
    said = refused(*words, f"--part={text}")
    assert (
        f"expected K/N with K from 1 to N, such as 3/8 (of sbatch --array=1-8), got {text!r}"
        in said
    )


def test_a_part_of_one_image_is_refused(tmp_path, runs, refused):
    image = write(tmp_path / "a.nii.gz", some_array())
    words = ("--run", runs["unet"], "--input", image, "--output", tmp_path / "b.nii.gz")
    assert "--part is for a folder of images" in refused(*words, "--part", "1/2")


@pytest.mark.parametrize("job", ["disc_faster_rcnn", "stenosis_grading"])
def test_parts_are_of_volumes_alone(tmp_path, refused, job):
    words = ("--run", a_run(tmp_path, job), "--input", tmp_path, "--output", tmp_path / "out")
    assert "--part is for masks and cords" in refused(*words, "--part", "1/2")


def test_what_cords_are_not_predicted_by_is_refused(tmp_path, runs, refused):
    image = write(tmp_path / "a.nii.gz", some_array())
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((runs["2d"] / "model.safetensors").read_bytes())
    last = ("--input", image, "--output", tmp_path / "b.nii.gz")
    preprocessed = a_run(tmp_path, "cord_preprocessing")
    cases = [
        (("--task", "cord_nnunet", "--weights", copy), "cords are predicted by complete runs"),
        (
            ("--task", "cord_nnunet", "--weights", runs["2d"] / "model.safetensors"),
            f"give --run {runs['2d']} instead",
        ),
        (("--task", "cord_unet", "--run", runs["2d"]), "is a run of cord_nnunet"),
        (("--run", preprocessed), "of a job that predicts nothing; cord_nnunet, "),
        (("--run", runs["2d"], "--run", runs["unet"]), "several --run are for boxes and grades"),
        (("--run", runs["2d"], "--score", "0.5"), "--score is for boxes"),
        (("--run", runs["2d"], "--places", image), "--places is for grades"),
        (("--run", runs["2d"], "--set", "crop=cord"), "cord_nnunet has no knob 'crop'"),
        (("--run", a_run(tmp_path, "cord_nnunet", complete=False)), "is not complete"),
    ]
    for words, expected in cases:
        assert expected in refused(*words, *last)


def test_a_python_without_nnunet_is_told(tmp_path, predict, monkeypatch):
    image = write(tmp_path / "image.nii.gz", some_array())
    monkeypatch.setitem(sys.modules, "nnunetv2.utilities.get_network_from_plans", None)
    code, _, err = predict(image, tmp_path / "mask.nii.gz", run="2d")
    assert code == 2
    assert "which this Python lacks" in err
    assert "nnunetv2" in err
