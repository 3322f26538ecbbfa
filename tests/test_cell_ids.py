"""The ids of the repository's own grids, as recorded: a change makes every result a new cell."""

from dataclasses import replace

import pytest

from spine_tasks.expand import expand
from spine_tasks.grid import configure, find_grid

# Where a knob or a default is changed on purpose, the ids change and are recorded anew here.
IDS = {
    # grid, preset, settings: the first needed cell, the first cell, the last one
    ("gm_transfer", None, ()): (
        "gm_segmentation-gm_phantom_adult-fold0-seed0-6b85e047",
        "gm_segmentation-gm_phantom-fold0-seed0-5acf7dd3",
        "gm_segmentation-gm_phantom-fold0-seed2-f85c9b0d",
    ),
    ("gm_transfer", "demo", ()): (
        "gm_segmentation-gm_phantom_adult-fold0-seed0-ba84f635",
        "gm_segmentation-gm_phantom-fold0-seed0-ea4f7e25",
        "gm_segmentation-gm_phantom-fold0-seed2-b67c6055",
    ),
    ("gm_transfer", "published", ()): (
        "gm_segmentation-gm_phantom_adult-fold0-seed0-74261829",
        "gm_segmentation-gm_phantom-fold0-seed0-939c31a8",
        "gm_segmentation-gm_phantom-fold0-seed2-e5536189",
    ),
    # What a command line gives as text, and no needed cells.
    ("gm_transfer", None, (("weights", "challenge"), ("learning_rate", "1e-4"))): (
        "gm_segmentation-gm_phantom-fold0-seed0-09106d5f",
        "gm_segmentation-gm_phantom-fold0-seed0-09106d5f",
        "gm_segmentation-gm_phantom-fold0-seed2-545d4f55",
    ),
    ("gm_epochs", "demo", ()): (
        "gm_segmentation-gm_phantom_adult-fold0-seed0-351c7e1c",
        "gm_segmentation-gm_phantom-fold0-seed0-1e32729b",
        "gm_segmentation-gm_phantom-fold0-seed2-0a476e4b",
    ),
}


@pytest.mark.parametrize("case", IDS, ids=str)
def test_the_cells_of_the_repositorys_grids_keep_their_ids(case):
    name, preset, settings = case
    cells, needed = expand(configure(find_grid(name), preset, dict(settings)))
    everything = needed + cells
    assert (everything[0].id, cells[0].id, cells[-1].id) == IDS[case]


def test_the_id_of_a_cell_is_not_that_of_the_cell_it_was_made_from():
    # An id is computed once for a cell: a changed copy must not take it over.
    one = expand(find_grid("gm_transfer"))[0][0]
    assert one.id.endswith("seed0-5acf7dd3")
    assert replace(one, seed=1).id != one.id
