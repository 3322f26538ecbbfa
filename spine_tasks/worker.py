"""One attempt at one cell, in one process.

Exit codes: 0 complete; 75 (`os.EX_TEMPFAIL`) stopped on request with a checkpoint on disk, start
it again; 2 a problem that a person can mend; anything else failed.
"""

import importlib
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from spine_tasks.environment import describe
from spine_tasks.errors import Interrupted, SpineError
from spine_tasks.files import write_json
from spine_tasks.run import Run
from spine_tasks.score import score

log = logging.getLogger(__name__)


def attempt(run: Run) -> int:
    """Train, predict and score; return the exit code."""
    started = time.monotonic()
    try:
        cell = run.cell()
        environment = describe()
        write_json(run.folder / "environment.json", environment)
        run.record_attempt("started", commit=environment["commit"])
        log.info("cell %s, attempt %d", cell.id, len(run.attempts()))
        log.info("host %s, commit %s", environment["host"], environment["commit"])
        if not run.complete:
            module, function = cell.config.entry.split(":")
            train = getattr(importlib.import_module(module), function)
            train(cell, run)
            run.finish(commit=environment["commit"], code_sha256=environment["code_sha256"])
        score(run)
    except Interrupted as stop:
        log.info("%s; the next attempt continues from there", stop)
        run.record_attempt("interrupted", seconds=time.monotonic() - started)
        return os.EX_TEMPFAIL
    except SpineError as error:
        log.error("%s", error)
        run.record_attempt("failed", error=str(error))
        return 2
    except Exception as error:
        log.exception("the attempt failed")
        last = traceback.extract_tb(error.__traceback__)[-1]
        run.record_attempt(
            "failed",
            error=f"{type(error).__name__}: {error}",
            at=f"{Path(last.filename).name}:{last.lineno}",
        )
        return 1
    run.record_attempt("complete", seconds=time.monotonic() - started)
    return os.EX_OK


def start(folder: Path) -> int:
    """Make one attempt at the cell of a run's folder, stopping on TERM, USR2 and INT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    run = Run(folder)
    run.stop_on(signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    return attempt(run)


if __name__ == "__main__":
    sys.exit(start(Path(sys.argv[1])))
