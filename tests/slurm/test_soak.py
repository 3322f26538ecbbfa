"""A grid of 60 cells in a storm of faults loses nothing and computes nothing twice at once.

`SOAK_S=300 pytest --log-cli-level=INFO tests/slurm/test_soak.py` soaks for five minutes, and says
what happened; `SOAK_SEED=2` draws other faults.
"""

import logging
import os

from soak import CELLS, Soak

log = logging.getLogger(__name__)


def test_a_grid_in_a_storm_of_faults_ends_as_one_left_alone(new_cluster, data, tmp_path):
    seconds, seed = int(os.environ.get("SOAK_S", "60")), int(os.environ.get("SOAK_SEED", "1"))
    report = Soak(new_cluster(), data, tmp_path, seconds, seed).run()
    log.info("%s", report)
    assert report.incomplete == []
    assert report.complete == CELLS
    assert report.wrong == []
    assert report.problems == []
    assert report.faults.total() > 10
    assert report.attempts > CELLS  # the storm did hit
