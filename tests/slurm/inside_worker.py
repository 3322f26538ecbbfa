"""Faults inside a worker, whatever its task: by `sitecustomize`, before the worker's own lines.

`FAULT_DEAF` makes it deaf to every request to stop. `FAULT_HOG=<file>` makes it take
`FAULT_HOG_MB` of memory as soon as that file is there.
"""

import mmap
import os
import signal
import sys
import threading
import time
from pathlib import Path

IN_WORKER = "spine_tasks.worker" in sys.orig_argv


def disturb():
    """Install the faults that the environment asks for, in a worker only."""
    if not IN_WORKER:
        return
    if "FAULT_DEAF" in os.environ:
        _deafen()
    if "FAULT_HOG" in os.environ:
        threading.Thread(target=_hog, daemon=True).start()


def pace_every_look():
    """Keep the pace that `TOY_SLOW` asks for in a task that does not: at every look for a stop."""
    if not IN_WORKER:
        return
    from witness import pace

    from spine_tasks.run import Run

    def look(self):
        pace()
        return vars(self)["stop_requested"]

    def request(self, value):
        vars(self)["stop_requested"] = value

    Run.stop_requested = property(look, request)


def _deafen():
    owner, install = os.getpid(), signal.signal
    for one in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        install(one, signal.SIG_IGN)
    # Its loader processes may do as they please.
    signal.signal = lambda *asked: install(*asked) if os.getpid() != owner else None


def _hog():
    file = Path(os.environ["FAULT_HOG"])
    while not file.exists():
        time.sleep(0.1)
    taken = mmap.mmap(-1, int(os.environ["FAULT_HOG_MB"]) * 1_000_000)
    # Slurm counts what processes share once for each: forked ones shall have no part in it.
    taken.madvise(mmap.MADV_DONTFORK)
    for page in range(0, len(taken), mmap.PAGESIZE):
        taken[page] = 1
    while taken:
        time.sleep(1)


disturb()
