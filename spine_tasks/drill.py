"""The task of a drill: it counts, slowly, and keeps the contract of every task."""

import logging
import time
from typing import Any

from spine_tasks import checkpoints
from spine_tasks.cell import Cell
from spine_tasks.configs import knobs_of
from spine_tasks.errors import Interrupted
from spine_tasks.run import Run

log = logging.getLogger(__name__)


def train(cell: Cell, run: Run) -> None:
    """Count on from the checkpoint; learn and predict nothing.

    The checkpoint's state says how many steps are `done`, and at which of them each attempt began
    (`began_at`). An attempt before the last that the cell is to have counts until it is stopped.

    Raises
    ------
    Interrupted
        Asked to stop; what was counted is in the checkpoint.
    """
    knobs = knobs_of(cell.config)
    saved = checkpoints.load(run.checkpoint)
    state: dict[str, Any] = saved[1] if saved else {"done": 0, "began_at": []}
    state["began_at"].append(state["done"])
    last = len(state["began_at"]) >= knobs["attempts"]
    log.info("counting from %d%s", state["done"], f" to {knobs['steps']}" if last else "")
    saved_at = time.monotonic()
    while not (last and state["done"] >= knobs["steps"]):
        if run.stop_requested:
            checkpoints.save(run.checkpoint, {}, state)
            raise Interrupted(f"stopped after step {state['done']}")
        time.sleep(knobs["step_s"])
        state["done"] += 1
        if time.monotonic() - saved_at >= cell.resources.checkpoint_s:
            checkpoints.save(run.checkpoint, {}, state)
            saved_at = time.monotonic()
    checkpoints.save(run.checkpoint, {}, state)
