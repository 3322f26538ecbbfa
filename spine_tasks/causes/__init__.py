"""Why a cell failed, what to do about it, and when to start no further ones.

Nothing here imports a deep-learning framework.
"""

from spine_tasks.causes.cause import Cause, Kind, of_record
from spine_tasks.causes.deaths import Death, cause_of_death, slurm_ends
from spine_tasks.causes.raised import kind_of, last_line, traceback_sha256
from spine_tasks.causes.stops import (
    Repeated,
    bad_nodes,
    forget_stop,
    repeated_failure,
    stop_the_rest,
    stopped,
)

__all__ = [
    "Cause",
    "Death",
    "Kind",
    "Repeated",
    "bad_nodes",
    "cause_of_death",
    "forget_stop",
    "kind_of",
    "last_line",
    "of_record",
    "repeated_failure",
    "slurm_ends",
    "stop_the_rest",
    "stopped",
    "traceback_sha256",
]
