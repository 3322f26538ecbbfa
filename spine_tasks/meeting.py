"""How the processes of one cell that train together find each other and part.

Rank 0 is the worker: it alone owns the run's folder and writes. It starts the other ranks of its
node; on further nodes the supervisor starts the first. They meet at the address that rank 0 writes
into the run's folder.
"""

import importlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from spine_tasks.cell import Cell
from spine_tasks.environment import ATTEMPT, LOCAL_RANK, NODE, NODES
from spine_tasks.errors import Interrupted, RunError
from spine_tasks.files import read_json, write_json
from spine_tasks.run import Run

log = logging.getLogger(__name__)

MEETING = "meeting.json"  # in a run's folder: where the ranks of an attempt meet
PATIENCE = timedelta(minutes=10)  # with a rank that does not answer
_LOST = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|[Tt]imed out|[Tt]imeout|remote process exited"
    r"|ncclRemoteError|ncclSystemError|Socket|recv.*failed|NCCL communicator was aborted"
)


def local_rank() -> int:
    """Which of its node's ranks this is: the number of its GPU."""
    return int(os.environ.get(LOCAL_RANK, "0"))


@contextmanager
def together(cell: Cell, run: Run) -> Iterator[None]:
    """Train with all ranks of the cell while the block runs.

    Raises
    ------
    Interrupted
        Another rank was lost: the next attempt continues from the last checkpoint.
    RunError
        Another rank failed, or did not come.
    """
    local = max(1, cell.resources.gpus) if torch.cuda.is_available() else 1
    total = int(os.environ.get(NODES, "1")) * local
    if total == 1:
        yield
        return
    rank = int(os.environ.get(NODE, "0")) * local + local_rank()
    attempt = os.environ.get(ATTEMPT, f"{socket.gethostname()}-{os.getpid()}")
    store = _answer(run, attempt, total) if rank else _invite(run, attempt, total)
    others = [] if local_rank() else [_start(run, attempt, one) for one in range(1, local)]
    backend = "nccl" if torch.cuda.is_available() and cell.resources.gpus else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=total, timeout=PATIENCE)
        log.info("rank %d of %d", rank, total)
        yield
    except Interrupted:
        raise
    except Exception as error:
        words = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if isinstance(error, dist.DistStoreError) and not dist.is_initialized():
            raise RunError(
                f"{run.folder.name}: not all {total} ranks came within {PATIENCE}; log.txt may say "
                "what became of them; launch with --retry-failed to try again"
            ) from error
        if isinstance(error, RuntimeError) and _LOST.search(words):
            raise _heard(store, rank, words) from error
        if rank:  # let rank 0 know why this one is about to end
            store.set("failed", f"rank {rank} failed: {words}")
        raise
    finally:
        _part(run, rank, others)


def main() -> None:
    """Be a further rank of the cell of a run's folder: `python -m spine_tasks.meeting DIR`."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s node {_node()}: %(message)s"
    )
    run = Run(Path(sys.argv[1]))
    run.stop_on(signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    cell = run.cell()
    module, function = cell.config.entry.split(":")
    try:
        getattr(importlib.import_module(module), function)(cell, run)
    except Interrupted as stop:
        log.info("%s", stop)
        sys.exit(os.EX_TEMPFAIL)


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME", socket.gethostname())


def _heard(store: TCPStore, rank: int, words: str) -> Exception:
    """What it means that another rank does not answer any more."""
    if rank == 0 and store.check(["failed"]):
        return RunError(f"{store.get('failed').decode()}; its words are in log.txt")
    return Interrupted(f"another rank was lost ({words})")


def _invite(run: Run, attempt: str, total: int) -> TCPStore:
    """Open a place to meet, and say where."""
    host = socket.gethostname()
    store = TCPStore(host, 0, total, is_master=True, timeout=PATIENCE, wait_for_workers=False)
    write_json(run.folder / MEETING, {"attempt": attempt, "host": host, "port": store.port})
    return store


def _answer(run: Run, attempt: str, total: int) -> TCPStore:
    """Come to where rank 0 is."""
    until = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < until:
        there = _meeting(run)
        if there.get("attempt") == attempt:
            return TCPStore(there["host"], there["port"], total, is_master=False, timeout=PATIENCE)
        if run.stop_requested or _has_ended(run, attempt):
            raise Interrupted("rank 0 ended before all had met")
        time.sleep(0.2)
    raise RunError(f"{run.folder.name}: rank 0 did not come within {PATIENCE}; see log.txt")


def _has_ended(run: Run, attempt: str) -> bool:
    """Whether rank 0's attempt is over; it may have failed before it came to the meeting."""
    last = (run.attempts() or [{}])[-1]
    same = f"{last.get('job_id')}.{last.get('restart')}" == attempt
    return same and last["event"] != "started"


def _meeting(run: Run) -> dict[str, Any]:
    try:
        return dict(read_json(run.folder / MEETING))
    except (FileNotFoundError, RunError):
        return {}


def _start(run: Run, attempt: str, local: int) -> "subprocess.Popen[bytes]":
    """Start another rank on this node; it ends with this one, in whose process group it is."""
    command = [sys.executable, "-m", "spine_tasks.meeting", str(run.folder)]
    told = {ATTEMPT: attempt, LOCAL_RANK: str(local)}
    return subprocess.Popen(command, env=os.environ | told, stdin=subprocess.DEVNULL)


def _part(run: Run, rank: int, others: Sequence["subprocess.Popen[bytes]"]) -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    if rank == 0:
        (run.folder / MEETING).unlink(missing_ok=True)
    for other in others:
        try:
            other.wait(timeout=30)
        except subprocess.TimeoutExpired:
            other.kill()


if __name__ == "__main__":
    main()
