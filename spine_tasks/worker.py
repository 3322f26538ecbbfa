"""One attempt at one cell, in one process.

It ends with 0 where the cell is complete, with 75 (`os.EX_TEMPFAIL`) where it was stopped on
request with a checkpoint on disk and is to be started again; `exit_codes.py` has the others.
"""

import gc
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from spine_tasks import causes, environment, slurm
from spine_tasks.cell import Cell
from spine_tasks.data.digest import check_same, data_sha256, weights_sha256
from spine_tasks.errors import Interrupted, NotOwner, RunError, SpineError
from spine_tasks.exit_codes import FAILED, MENDABLE, OUT_OF_MEMORY, REFUSED
from spine_tasks.files import check_room, write_json
from spine_tasks.run import Run

log = logging.getLogger(__name__)

CHECKPOINT_ROOM = 20_000_000  # bytes: a full disk is met now, not after a night of training
IDLE_ATTEMPTS = 5  # in a row without a new checkpoint, after which a person must look


def attempt(run: Run) -> int:
    """Train, predict and score, as the owner of the run's folder; return the exit code."""
    started = time.monotonic()
    try:
        _attempt(run)
    except Interrupted as stop:
        log.info("%s; the next attempt continues from there", stop)
        run.record_attempt("interrupted", seconds=time.monotonic() - started)
        return os.EX_TEMPFAIL
    except NotOwner as error:
        log.error("%s; this attempt ends", error)
        return REFUSED
    except Exception as error:
        return _failed(run, error, time.monotonic() - started)
    run.record_attempt("complete", seconds=time.monotonic() - started)
    return os.EX_OK


def _attempt(run: Run) -> None:
    environment.check_code()
    cell = run.cell()
    here = environment.describe()
    _check_progress(run)
    run.record_attempt(
        "started",
        commit=here["commit"],
        code_sha256=here["code_sha256"],
        saved_ns=run.saved_ns(),
    )
    log.info("cell %s, attempt %d", cell.id, len(_starts(run)))
    log.info("host %s, job %s, commit %s", here["host"], slurm.this_job(), here["commit"])
    trains = not run.complete
    if trains:
        check_room(run.folder, CHECKPOINT_ROOM, f"checkpoints of {cell.id}")
        here |= _inputs(run, cell)
        write_json(run.folder / "environment.json", here)
        train = _imported(cell.config.entry)
        train(cell, run)
    # Not at the top: training need not wait for SciPy's optimisation. Not after `finish`: what is
    # killed in between is complete without scores, until they are collected.
    from spine_tasks.score import score

    if trains:
        run.finish(**_provenance(run, here))
    score(run)


def _imported(entry: str) -> Callable[[Cell, Run], None]:
    """The function that a config names as `module:function`."""
    module, function = entry.split(":")
    # A framework makes half a million objects and no garbage: to look for it takes a fifth of the
    # time.
    gc.disable()
    try:
        found = getattr(importlib.import_module(module), function)
    finally:
        gc.enable()
    gc.freeze()  # nor is it looked through in training
    return cast(Callable[[Cell, Run], None], found)


def _inputs(run: Run, cell: Cell) -> dict[str, Any]:
    """Digests of what is read; an attempt that would continue on other data is refused."""
    digest = data_sha256(cell, run.folder.parent)
    check_same(run, digest)
    return {
        "data_sha256": digest,
        "split_sha256": cell.split_sha256,
        "weights_sha256": weights_sha256(cell),
    }


def _provenance(run: Run, here: dict[str, Any]) -> dict[str, Any]:
    """What done.json says of where the predictions come from."""
    code = ("commit", "changes_sha256", "code_sha256")
    inputs = ("data_sha256", "split_sha256", "weights_sha256")
    codes = environment.codes_of_attempts(run.attempts())
    return {name: here[name] for name in (*code, *inputs)} | {"code_sha256_of_attempts": codes}


def _starts(run: Run) -> list[dict[str, Any]]:
    return [record for record in run.attempts() if record["event"] == "started"]


def _check_progress(run: Run) -> None:
    """Refuse to go on for ever without getting any further."""
    now = run.saved_ns()
    last = _starts(run)[-IDLE_ATTEMPTS:]
    if any(record["event"] == "failed" for record in run.attempts()[-1:]):
        return  # a person has looked and started it again
    if len(last) == IDLE_ATTEMPTS and all(record.get("saved_ns") == now for record in last):
        resources = run.cell().resources
        raise RunError(
            f"{IDLE_ATTEMPTS} attempts in a row ended without a new checkpoint: attempts of "
            f"{resources.time} are too short for checkpoints every {resources.checkpoint_s:g} s, "
            "or something kills them; ask for more time (--set resources.time=...) or for "
            "checkpoints more often, then launch with --retry-failed"
        )


def _failed(run: Run, error: Exception, seconds: float) -> int:
    kind = causes.kind_of(error)
    if run.stop_requested and kind == "node":
        # A cancel or preemption reached the data loaders too, which had nothing to save.
        log.info("stopped (%s); the next attempt continues from the last checkpoint", error)
        run.record_attempt("interrupted", seconds=seconds)
        return os.EX_TEMPFAIL
    if isinstance(error, SpineError):
        log.error("%s", error)
    else:
        log.error("the attempt failed", exc_info=error)
    run.record_attempt(
        "failed",
        error=causes.last_line(error),
        cause=kind,
        traceback_sha256=causes.traceback_sha256(error),
        seconds=seconds,
    )
    causes.stop_the_rest(run.folder.parent)
    if kind in ("host memory", "GPU memory"):
        return OUT_OF_MEMORY
    return MENDABLE if isinstance(error, SpineError) else FAILED


def start(folder: Path) -> int:
    """Make one attempt at the cell of a run's folder, stopping on TERM, USR2 and INT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    run = Run(folder)
    run.stop_on(signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    try:
        run.own()
    except NotOwner as error:
        log.error("%s; this attempt ends", error)
        run.record_attempt("refused", error=str(error))
        return REFUSED
    return attempt(run)


if __name__ == "__main__":
    sys.exit(start(Path(sys.argv[1])))
