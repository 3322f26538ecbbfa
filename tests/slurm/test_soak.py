"""A grid of 60 cells under random faults loses nothing and computes nothing twice at once.

`SOAK_S=300 pytest -s tests/slurm/test_soak.py` soaks for five minutes and prints what happened.
"""

import os

from soak import SEEDS, Soak


def test_a_grid_under_random_faults_ends_as_one_left_alone(new_cluster, toy, tmp_path):
    soak = Soak(new_cluster(), toy, tmp_path, seconds=float(os.environ.get("SOAK_S", "45")))
    launches = soak.run()
    print(soak.summary(), f"; {launches} launches")  # noqa: T201
    assert len(soak.scores()) == 2 * SEEDS
    assert soak.scores() == soak.calm()
    assert soak.problems() == []
    assert len(soak.done) > 10
