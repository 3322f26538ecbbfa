"""Other ways to hand 1,000 cells to Slurm, each in a process of its own; beside `launching.py`.

Run as a script this is that process. Both submit a function that does nothing, with the settings
that their documentation begins with.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_S = 0.005  # between two looks whether hydra has submitted
STAMPED = """#!/bin/sh
set -e
{sbatch} "$@"
touch {stamp}
"""


def submitit(folder: Path, cells: int) -> None:
    """Submitit's `submit`, cell by cell."""
    subprocess.run(_command("submitit", folder, cells), check=True, stdout=subprocess.DEVNULL)


def hydra(folder: Path, cells: int) -> None:
    """Hydra's multirun with its submitit launcher, until its sbatch has returned.

    It makes one array of all cells, and would then wait for their results; it is ended instead.
    """
    folder.mkdir()
    sbatch, stamp = folder / "sbatch", folder / "submitted"
    sbatch.write_text(STAMPED.format(sbatch=shutil.which("sbatch"), stamp=stamp))
    sbatch.chmod(0o755)
    variables = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = _command("hydra", folder, cells)
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL)
    try:
        while not stamp.exists():
            if process.poll() is not None:
                sys.exit(f"hydra ended with {process.returncode} before it had submitted")
            time.sleep(PATIENCE_S)
    finally:
        process.kill()
        process.wait()


def _command(peer: str, folder: Path, cells: int) -> tuple[str, ...]:
    return sys.executable, __file__, peer, str(folder), str(cells)


def _submit_one_by_one(folder: str, cells: int) -> None:
    from submitit import AutoExecutor

    executor = AutoExecutor(folder=folder, cluster="slurm")
    for number in range(cells):
        executor.submit(_nothing, number)


def _submit_by_hydra(folder: str, cells: int) -> None:
    from hydra import main

    sweep = (f"+number=range({cells})", f"hydra.sweep.dir={folder}")
    sys.argv[1:] = ["--multirun", "hydra/launcher=submitit_slurm", *sweep]
    main(version_base=None)(_nothing)()


def _nothing(_number: object) -> None:
    pass


if __name__ == "__main__":
    peer, where, how_many = sys.argv[1:]
    {"submitit": _submit_one_by_one, "hydra": _submit_by_hydra}[peer](where, int(how_many))
