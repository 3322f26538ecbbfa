"""The id of a cell: all that the result depends on, and nothing else."""

import dataclasses
import json
import re

import pytest
from making import cell

from spine_tasks.cell import Cell, Resources
from spine_tasks.configs import GmSegmentation, knobs_of
from spine_tasks.errors import ConfigError

OTHER = {
    "data": "elsewhere",
    "contrast": "T1w",
    "label_suffix": "gmseg",
    "cord_suffix": "seg",
    "init": "pretrained",
    "weights": "challenge",
    "filters": 64,
    "dropout": 0.3,
    "spacing_mm": None,
    "image_px": 128,
    "crop": "cord",
    "normalise": "slice",
    "augment": True,
    "augment_validation": True,
    "epochs": 99,
    "batch_size": 5,
    "learning_rate": 0.002,
    "patience": 6,
    "min_delta": 0.002,
    "keep": "last",
    "threshold": 0.5,
    "tta": 8,
    "threads": 1,
    "precision": "mixed_bfloat16",
    "xla": True,
}
SHA = "0" * 64


def test_the_table_of_other_values_has_every_knob():
    assert set(OTHER) == {field.name for field in dataclasses.fields(GmSegmentation)}
    assert not {name for name, value in knobs_of(GmSegmentation()).items() if value == OTHER[name]}


def test_equal_cells_have_equal_ids():
    assert cell({"epochs": 5}, seed=1).id == cell({"epochs": 5}, seed=1).id
    assert cell({"learning_rate": 1}).id == cell({"learning_rate": 1.0}).id
    assert cell({"epochs": 100}).id == cell().id  # the default, written out


@pytest.mark.parametrize("knob", OTHER)
def test_another_value_of_any_knob_is_another_cell(knob):
    assert cell({knob: OTHER[knob]}).id != cell().id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"fold": 1},
        {"split_sha256": SHA},
        {"split": "gm_phantom_adult", "split_sha256": SHA},
        {"needs": ("another-cell",)},
    ],
)
def test_another_seed_fold_split_or_needed_cell_is_another_cell(change):
    same_content = {"split_sha256": SHA} if "split" in change else {}
    assert cell(**change).id != cell(**same_content).id


def test_needed_cells_are_told_apart():
    assert cell(needs=("a",)).id != cell(needs=("b",)).id


def test_where_a_cell_runs_and_which_arm_it_is_do_not_change_what_it_computes():
    resources = Resources(gpus=2, cpus=8, mem_gb=64, time="1-00:00:00", checkpoint_s=1)
    assert cell(resources=resources).id == cell().id
    assert cell(arm={"init": "scratch"}).id == cell().id


def test_the_id_is_readable_and_ends_with_eight_hex_digits():
    pattern = "gm_segmentation-gm_phantom-fold2-seed3-[0-9a-f]{8}"
    assert re.fullmatch(pattern, cell(fold=2, seed=3).id)


def test_the_id_of_a_split_file_is_a_plain_folder_name():
    one = dataclasses.replace(cell(), split="../some where/my.split.csv")
    assert one.id.startswith("gm_segmentation-my.split-fold0-seed0-")
    assert "/" not in one.id


def test_the_digest_is_the_recorded_one():
    # Changed digests orphan every result on disk: a knob added later must not get here unseen.
    one = Cell(
        job="gm_segmentation",
        config=GmSegmentation(data="d", epochs=5),
        split="s",
        split_sha256=SHA,
        fold=1,
        seed=2,
        needs=("first",),
        arm={"epochs": 5},
    )
    assert one.id == "gm_segmentation-s-fold1-seed2-fe73c532"


@pytest.mark.parametrize("knob", OTHER)
def test_a_cell_comes_back_from_json_as_it_was(knob):
    one = cell(
        {knob: OTHER[knob]},
        seed=4,
        needs=("first",),
        arm={knob: OTHER[knob]},
        resources=Resources(mem_gb=0.5, time="1-02:03:04"),
    )
    back = Cell.from_dict(json.loads(json.dumps(one.to_dict())))
    assert back == one
    assert back.id == one.id


def test_the_arm_is_printed_in_the_order_of_the_axes():
    arm = {"init": "scratch", "augment": False, "spacing_mm": None}
    assert cell(arm=arm).arm_name == "init=scratch augment=False spacing_mm=None"
    assert cell().arm_name == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpus", -1),
        ("gpus", 1.0),
        ("gpus", True),
        ("cpus", 0),
        ("cpus", "4"),
        ("mem_gb", 0),
        ("mem_gb", "16"),
        ("mem_gb", True),
        ("mem_gb", float("nan")),
        ("mem_gb", float("inf")),
        ("checkpoint_s", -1),
        ("checkpoint_s", float("nan")),
        ("time", 7200),  # YAML reads an unquoted 02:00:00 as a number
        ("time", "2h"),
        ("time", "02:00"),
        ("time", "02:00:00 "),
        ("time", "1-2-00:00:00"),
    ],
)
def test_resources_that_no_scheduler_takes_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"resources\.{name}"):
        Resources(**{name: value})


@pytest.mark.parametrize("time", ["02:00:00", "2:00:00", "1-12:00:00", "100-00:00:00"])
def test_times_are_written_as_slurm_writes_them(time):
    assert Resources(time=time).time == time
