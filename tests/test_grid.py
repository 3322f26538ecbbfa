"""Grids: what a file may say, and which cells it means."""

from dataclasses import replace

import pytest
import yaml

from spine_tasks.configs import knobs_of
from spine_tasks.errors import ConfigError, SplitError
from spine_tasks.expand import expand, only
from spine_tasks.grid import GRIDS, Grid, configure, find_grid, load_grid
from spine_tasks.splits import load_split

GRID = {
    "job": "gm_segmentation",
    "split": "gm_phantom",
    "axes": {"init": ["scratch", "pretrained"], "augment": [False, True]},
    "seeds": 2,
    "knobs": {"epochs": 5, "batch_size": 2},
    "needs": {
        "when": {"init": "pretrained", "weights": None},
        "cell": {
            "job": "gm_segmentation",
            "split": "gm_phantom_adult",
            "knobs": {"init": "scratch", "batch_size": 8},
        },
    },
    "presets": {"tiny": {"epochs": 1, "seeds": 1, "resources.cpus": 1}},
    "baseline": {"init": "scratch", "augment": False},
}


def made(**changes):
    return Grid(**(GRID | changes))


def grid_file(tmp_path, **changes):
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(GRID | changes))
    return file


def test_cells_are_arms_then_folds_then_seeds():
    cells, _ = expand(made())
    assert [(*cell.arm.values(), cell.fold, cell.seed) for cell in cells] == [
        (init, augment, 0, seed)
        for init in ("scratch", "pretrained")
        for augment in (False, True)
        for seed in (0, 1)
    ]
    assert all(cell.config.epochs == 5 for cell in cells)
    assert all(cell.config.augment == cell.arm["augment"] for cell in cells)
    assert {cell.split_sha256 for cell in cells} == {load_split("gm_phantom").digest}


def test_seeds_may_be_listed_and_folds_chosen(tmp_path):
    split = tmp_path / "folds.csv"
    rows = [
        f"{name},{name},{part},{fold}"
        for fold in (0, 1, 2)
        for name, part in (("a", "train"), ("b", "val"), ("c", "test"))
    ]
    split.write_text("\n".join(["subject,person,part,fold", *rows]))
    here = {"split": str(split), "axes": {"augment": [True]}, "baseline": {}, "needs": {}}
    cells, _ = expand(made(**here, seeds=[7, 3], folds=[2, 0]))
    assert [(cell.fold, cell.seed) for cell in cells] == [(2, 7), (2, 3), (0, 7), (0, 3)]
    assert len(expand(made(**here))[0]) == 3 * 2
    with pytest.raises(ConfigError, match=r"no fold \[3, 5\]; it has \[0, 1, 2\]"):
        expand(made(**here, folds=[0, 5, 3]))


def test_a_needed_cell_is_one_per_seed_and_shared_by_the_arms_that_start_from_it():
    cells, needed = expand(made())
    assert [cell.seed for cell in needed] == [0, 1]
    by_seed = {cell.seed: cell for cell in needed}
    for cell in cells:
        wants = (by_seed[cell.seed].id,) if cell.config.init == "pretrained" else ()
        assert cell.needs == wants


def test_a_needed_cell_has_the_grids_fixed_knobs_but_for_its_own():
    first = expand(made())[1][0]
    knobs = knobs_of(first.config)
    # epochs from the grid, batch_size its own, augment as by default: an axis is not fixed.
    chosen = [knobs[name] for name in ("epochs", "batch_size", "init", "augment")]
    assert chosen == [5, 8, "scratch", False]
    assert (first.split, first.arm) == ("gm_phantom_adult", {})


def test_another_needed_cell_makes_other_cells_of_those_that_start_from_it():
    needs = GRID["needs"] | {"cell": GRID["needs"]["cell"] | {"knobs": {"batch_size": 3}}}
    before, after = expand(made())[0], expand(made(needs=needs))[0]
    for one, other in zip(before, after, strict=True):
        assert (one.id == other.id) == (one.config.init == "scratch")


def test_no_cell_is_needed_where_weights_are_given():
    cells, needed = expand(configure(made(), None, {"weights": "challenge"}))
    assert needed == []
    assert not any(cell.needs for cell in cells)


def test_a_preset_is_applied_before_settings():
    grid = configure(made(), "tiny", {"epochs": 3})
    assert (grid.knobs["epochs"], grid.seeds, grid.resources) == (3, 1, {"cpus": 1})
    cells, needed = expand(grid)
    assert {cell.config.epochs for cell in cells + needed} == {3}
    assert {cell.resources.cpus for cell in cells + needed} == {1}


def test_settings_leave_the_grid_they_were_applied_to_as_it_was():
    grid = made()
    configure(grid, "tiny", {"epochs": 3, "resources.cpus": 7})
    assert (grid.knobs, grid.resources, grid.seeds) == ({"epochs": 5, "batch_size": 2}, {}, 2)


def test_a_data_folder_is_kept_as_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "bids").mkdir()
    monkeypatch.chdir(tmp_path)
    assert configure(made(), None, {"data": "bids"}).knobs["data"] == str(tmp_path / "bids")
    assert configure(made(), None, {"data": "phantom"}).knobs["data"] == "phantom"


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("huge", {}, r"no preset 'huge'; this grid has \['tiny'\]"),
        (None, {"epoch": 1}, "no 'epoch', did you mean 'epochs'?.*batch_size.*resources.cpus"),
        (None, {"init": "scratch"}, "init is an axis of this grid; .* --only init="),
    ],
)
def test_a_preset_or_setting_that_does_not_apply_is_refused(preset, settings, message):
    with pytest.raises(ConfigError, match=message):
        configure(made(), preset, settings)


def test_only_takes_the_cells_with_one_of_the_wanted_values():
    cells, _ = expand(made())
    part = only(cells, {"init": ["scratch"], "seed": [1], "augment": [True, False]})
    assert [(*cell.arm.values(), cell.seed) for cell in part] == [
        ("scratch", False, 1),
        ("scratch", True, 1),
    ]
    assert only(cells, {}) == cells
    assert only(cells, {"fold": [0]}) == cells


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"inti": ["scratch"]}, "no such axis, did you mean 'init'?.*augment, fold, init, seed"),
        ({"epochs": [5]}, "no such axis"),
        ({"init": ["random"]}, r"no cell has \['random'\], they have \['pretrained', 'scratch'\]"),
        ({"seed": [0, 2]}, r"no cell has \[2\]"),
    ],
)
def test_only_refuses_an_axis_or_a_value_that_no_cell_has(wanted, message):
    with pytest.raises(ConfigError, match=message):
        only(expand(made())[0], wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"axes": {"epoch": [1]}, "baseline": {}},
            "axes: .*no knob 'epoch', did you mean 'epochs'",
        ),
        ({"axes": {"epochs": [1]}, "baseline": {}}, "epochs is both an axis and a fixed knob"),
        ({"axes": {"init": ["scratch", "random"]}, "baseline": {}}, "init must be scratch, pre"),
        (
            {"axes": {"init": ["scratch", "scratch"]}, "baseline": {}},
            "init=scratch.* is in the grid",
        ),
        ({"seeds": [1, 1]}, "seed 1 is in the grid twice"),
        ({"knobs": {"epochs": 0}}, "epochs must be at least 1"),
        ({"knobs": {"epoch": 1}}, "no knob 'epoch'"),
        ({"baseline": {"init": "scratch", "augment": 7}}, "baseline: augment=7 is on no axis"),
        ({"baseline": {"epochs": 5}}, "baseline: epochs=5 is on no axis"),
        ({"baseline": {"init": "scratch"}}, "baseline must name .* augment missing"),
        ({"job": "gm"}, "no job 'gm'; jobs: .*gm_segmentation"),
        ({"resources": {"cpu": 4}}, "resources have no 'cpu', did you mean 'cpus'?"),
        ({"resources": {"cpus": 0}}, "resources.cpus"),
        (
            {"needs": GRID["needs"] | {"when": {"int": 1}}},
            "needs.when: .*'int', did you mean 'init'",
        ),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        expand(made(**changes))


def test_a_split_that_is_not_there_is_refused_with_those_there_are():
    with pytest.raises(SplitError, match=r"nowhere.*gm_phantom"):
        expand(made(split="nowhere"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"needs": {"when": {}}}, "needs: has `when` and `cell`, .*'cell'"),
        ({"needs": GRID["needs"] | {"then": 1}}, "needs: .*'then'"),
        ({"seed": 3}, "a grid has no 'seed', did you mean 'seeds'?.*axes.*baseline.*split"),
        ({"folds": "some"}, "folds must be `all` or a list of numbers, got 'some'"),
        ({"axes": {"init": "scratch"}}, "axes.init must be a list of values, got 'scratch'"),
        ({"axes": {"init": []}}, "axes.init must be a list of values"),
    ],
)
def test_a_grid_file_that_says_what_grids_do_not_have_is_refused(tmp_path, changes, message):
    file = grid_file(tmp_path, **changes)
    with pytest.raises(ConfigError, match=f"made.yaml: {message}"):
        load_grid(file)


HOSTILE = [
    {"axes": None},
    {"axes": ["init"]},
    {"axes": "init"},
    {"seeds": "three"},
    {"seeds": 0},
    {"seeds": True},
    {"seeds": []},
    {"seeds": ["a"]},
    {"folds": 3},
    {"folds": []},
    {"folds": ["a"]},
    {"knobs": ["epochs"]},
    {"knobs": None},
    {"resources": [4]},
    {"baseline": "scratch"},
    {"presets": {"tiny": None}},
    {"presets": ["tiny"]},
    {"needs": {"when": {"init": "pretrained"}, "cell": {}}},
    {"needs": {"when": ["init"], "cell": GRID["needs"]["cell"]}},
    {"needs": {"when": {}, "cell": GRID["needs"]["cell"] | {"knob": {}}}},
    {"split": 5},
    {"job": None},
]


@pytest.mark.parametrize("changes", HOSTILE, ids=str)
def test_no_value_of_a_grid_file_ends_in_a_traceback(tmp_path, changes):
    file = grid_file(tmp_path, **changes)
    with pytest.raises((ConfigError, SplitError)):
        expand(configure(load_grid(file), "tiny", {"epochs": 3}))


def test_a_grid_without_its_required_keys_is_refused_with_their_names(tmp_path):
    file = tmp_path / "made.yaml"
    file.write_text("seeds: 3\n")
    with pytest.raises(ConfigError, match=r"job, split missing; a grid needs \['job', 'split'\]"):
        load_grid(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job: x\nsplit: y\naxes: {init: [a, b\nseeds: 3\n", "line [34]: not YAML"),
        ("job: x\n  split: y\n", "line 2: not YAML"),
        ("job: x\n\tsplit: y\n", "line 2: not YAML"),
        ("- job\n- split\n", "expected `name: value` lines, got list"),
        ("", "expected `name: value` lines, got NoneType"),
        ("job: \x00", "not YAML"),
    ],
)
def test_a_file_that_is_not_yaml_is_refused_with_the_line(tmp_path, text, message):
    file = tmp_path / "made.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"made.yaml.*{message}"):
        load_grid(file)


def test_an_unknown_grid_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no grid 'gm'; grids in .*gm_transfer"):
        find_grid("gm")


def test_a_grid_as_launched_is_the_same_grid(tmp_path):
    grid = configure(made(), "tiny", {"learning_rate": 0.5, "folds": [0]})
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(grid.to_dict(), sort_keys=False))
    assert load_grid(file) == replace(grid, presets={})
    assert expand(load_grid(file)) == expand(grid)


@pytest.mark.parametrize("name", sorted(file.stem for file in GRIDS.glob("*.yaml")))
def test_every_grid_of_the_repository_means_cells_of_their_own_with_each_of_its_presets(name):
    grid = find_grid(name)
    assert grid.question.endswith("?")
    for preset in (None, *grid.presets):
        cells, needed = expand(configure(grid, preset, {}))
        ids = {cell.id for cell in cells + needed}
        assert len(ids) == len(cells) + len(needed) > 1
        assert {first for cell in cells for first in cell.needs} == {cell.id for cell in needed}
        assert any(cell.arm == grid.baseline for cell in cells)


def test_paths_are_made_absolute_and_names_are_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bids").mkdir()
    (tmp_path / "phantom").mkdir()
    (tmp_path / "mine.csv").touch()
    grid = find_grid("gm_transfer")
    given = {"data": "bids", "split": "mine.csv", "needs.data": "phantom", "weights": "challenge"}
    changed = configure(grid, None, given)
    assert changed.knobs["data"] == str(tmp_path / "bids")
    assert changed.split == str(tmp_path / "mine.csv")
    assert changed.needs["cell"]["knobs"]["data"] == "phantom"
    assert changed.knobs["weights"] == "challenge"


def test_a_setting_of_the_needed_cells_leaves_the_others(tmp_path):
    grid = configure(
        find_grid("gm_transfer"), None, {"needs.epochs": 7, "needs.split": "gm_phantom"}
    )
    cells, needed = expand(grid)
    assert {cell.config.epochs for cell in cells} == {100}
    assert {(cell.config.epochs, cell.split) for cell in needed} == {(7, "gm_phantom")}
