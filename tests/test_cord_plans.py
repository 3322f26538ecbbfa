"""nnU-Net's plans made smaller, and what nnU-Net is told of its surroundings."""

import copy
import os

import pytest
from making import run_folder

from spine_tasks.cell import Cell, Resources
from spine_tasks.configs import CordNnunet, make_config
from spine_tasks.errors import ConfigError
from spine_tasks.splits import load_split
from spine_tasks.tasks.cord.folders import use_nnunet
from spine_tasks.tasks.cord.plans import fitted

NETWORK = {
    "n_stages": 4,
    "features_per_stage": [32, 64, 128, 256],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage_decoder": [2, 2, 2],
}
PLANS = {
    "configurations": {
        "3d_fullres": {
            "patch_size": [16, 160, 192],
            "batch_size": 2,
            "architecture": {"arch_kwargs": NETWORK | {"n_conv_per_stage": [2, 2, 2, 2]}},
        }
    }
}


def changed(**knobs):
    one = fitted(PLANS, CordNnunet(**knobs))["configurations"]["3d_fullres"]
    return one, one["architecture"]["arch_kwargs"]


def test_nothing_asked_for_is_as_planned():
    before = copy.deepcopy(PLANS)
    assert fitted(PLANS, CordNnunet()) == before
    changed(stages=2, features=4, patch=32, batch_size=7)
    assert before == PLANS  # other cells read the same file


def test_fewer_stages_shorten_all_that_has_a_value_for_each():
    _, network = changed(stages=3)
    assert network["n_stages"] == 3
    for name in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
        assert len(network[name]) == 3
    assert len(network["n_conv_per_stage_decoder"]) == 2  # one between each two


def test_residual_networks_have_blocks_in_place_of_convolutions():
    plans = copy.deepcopy(PLANS)
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network["n_blocks_per_stage"] = [1, 3, 4, 6]
    del network["n_conv_per_stage"]
    found = fitted(plans, CordNnunet(stages=2))["configurations"]["3d_fullres"]
    assert found["architecture"]["arch_kwargs"]["n_blocks_per_stage"] == [1, 3]


def test_features_double_up_to_eight_times_the_first():
    plans = copy.deepcopy(PLANS)
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network["n_stages"] = 6
    found = fitted(plans, CordNnunet(features=3))["configurations"]["3d_fullres"]
    assert found["architecture"]["arch_kwargs"]["features_per_stage"] == [3, 6, 12, 24, 24, 24]


@pytest.mark.parametrize(
    ("longest", "patch"),
    [(512, [16, 160, 192]), (100, [16, 96, 96]), (16, [16, 16, 16]), (60, [16, 56, 56])],
)
def test_a_patch_can_be_halved_as_often_as_the_network_does(longest, patch):
    one, network = changed(patch=longest)
    assert one["patch_size"] == patch
    for axis, side in enumerate(patch):
        for stride in network["strides"]:
            assert side % stride[axis] == 0
            side //= stride[axis]


def test_more_stages_than_planned_are_refused():
    with pytest.raises(ConfigError, match="nnU-Net plans 4 for these images, got 5"):
        changed(stages=5)


def test_nnunet_starts_as_many_processes_as_were_allocated(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ, nnUNet_n_proc_DA="12"))
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    cell = Cell(
        job="cord_nnunet",
        config=make_config("cord_nnunet", {}),
        split="cords_phantom",
        split_sha256=load_split("cords_phantom").digest,
        fold=0,
        seed=0,
        resources=Resources(cpus=3),
    )
    run, first = run_folder(tmp_path / "own", cell), run_folder(tmp_path / "first", cell)
    use_nnunet(cell, first, run)
    told = dict(os.environ)
    assert told["nnUNet_n_proc_DA"] == told["nnUNet_def_n_proc"] == "3"
    assert told["nnUNet_raw"].startswith(str(first.folder))
    assert told["nnUNet_preprocessed"].startswith(str(first.folder))
    assert told["nnUNet_results"].startswith(str(run.folder))
