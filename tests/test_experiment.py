"""An experiment: what a launch wrote, and what a later command reads from it."""

import pytest
import yaml

from spine_tasks.errors import ConfigError, RunError
from spine_tasks.experiment import create, opened, planned
from spine_tasks.grid import configure, find_grid

GRID = find_grid("gm_transfer")


def launched(results, **settings):
    experiment = planned("mine", configure(GRID, None, settings), results)
    create(experiment, experiment.cells)
    return experiment


def test_planning_writes_nothing(tmp_path):
    planned("mine", GRID, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_opened_is_what_was_launched(tmp_path):
    experiment = launched(tmp_path, epochs=7, learning_rate=1e-4)
    again = opened("mine", tmp_path)
    assert again.cells == experiment.cells
    assert again.needed == experiment.needed
    assert again.folder == experiment.folder == tmp_path / "mine"
    assert [again.run(cell).cell() for cell in again.cells] == experiment.cells


def test_the_order_of_the_axes_is_kept(tmp_path):
    launched(tmp_path)
    saved = yaml.safe_load((tmp_path / "mine" / "grid.yaml").read_text())
    assert list(saved["axes"]) == list(GRID.axes)
    assert opened("mine", tmp_path).cells[0].arm_name == "init=scratch augment=False"


def test_the_same_settings_continue_and_other_resources_do_too(tmp_path):
    before = launched(tmp_path, epochs=7)
    again = launched(tmp_path, **{"epochs": 7, "resources.mem_gb": 99.0})
    assert [cell.id for cell in again.cells] == [cell.id for cell in before.cells]
    assert again.cells[0].resources.mem_gb == 99


def test_other_settings_under_the_same_name_are_refused_and_named(tmp_path):
    launched(tmp_path, epochs=7)
    with pytest.raises(RunError, match=r"mine was launched with other settings \(seeds: 3 then, 1"):
        launched(tmp_path, epochs=7, seeds=1)
    with pytest.raises(RunError, match=r"'epochs': 7.* then, .*'epochs': 8.*another --name"):
        launched(tmp_path, epochs=8)


def test_an_unknown_name_is_answered_with_those_launched(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing was launched as 'other'.*there: nothing;"):
        opened("other", tmp_path)
    launched(tmp_path)
    (tmp_path / "no_experiment").mkdir()
    with pytest.raises(ConfigError, match=r"launched there: mine; .*launch.py --grid other"):
        opened("other", tmp_path)


def test_only_the_cells_asked_for_get_a_folder(tmp_path):
    experiment = planned("mine", GRID, tmp_path)
    create(experiment, experiment.cells[:2])
    folders = {file.name for file in (tmp_path / "mine").iterdir() if file.is_dir()}
    assert folders == {cell.id for cell in experiment.cells[:2]}


def test_everything_is_the_needed_cells_and_then_the_grids_own(tmp_path):
    experiment = planned("mine", GRID, tmp_path)
    assert experiment.everything == experiment.needed + experiment.cells
    assert len(experiment.everything) == 3 + 12
