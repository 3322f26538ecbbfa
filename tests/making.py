"""What the launcher's tests are made of: cells, data of a few voxels, and commands that run."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from spine_tasks.cell import Cell
from spine_tasks.configs import make_config
from spine_tasks.experiment import planned
from spine_tasks.files import append_line
from spine_tasks.grid import configure, find_grid
from spine_tasks.run import Run
from spine_tasks.splits import load_split
from spine_tasks.submissions import Tasks, begin, note

ROOT = Path(__file__).parents[1]
# A launch that any machine carries; the preset `demo` asks for no GPU.
SMALL = ("--preset", "demo", "--set", "seeds=1")


def cell(knobs=None, **changes):
    """A cell of the phantom's split, with some knobs and fields of its own."""
    split = changes.pop("split", "gm_phantom")
    fields = {"fold": 0, "seed": 0, "split_sha256": load_split(split).digest} | changes
    config = make_config("gm_segmentation", knobs or {})
    return Cell(job="gm_segmentation", config=config, split=split, **fields)


def run_folder(results, of=None):
    """The run of a cell, with its cell.json written."""
    of = of or cell()
    run = Run(results / of.id)
    run.create(of)
    return run


def small_data(folder, *splits):
    """A BIDS folder with every subject of some splits: a bright disc in two noisy slices."""
    y, x = np.mgrid[:24, :24]
    disc = np.repeat(((x - 12) ** 2 + (y - 12) ** 2 < 30)[..., None], 2, axis=2)
    affine = np.diag([0.5, 0.5, 5, 1])
    noise = np.random.default_rng(0)
    for name in (name for split in splits for name in load_split(split).person_of):
        image = (500 * disc + noise.integers(0, 200, disc.shape)).astype(np.int16)
        write_nifti(folder / name / "anat" / f"{name}_T2starw.nii.gz", image, affine)
        labels = folder / "derivatives" / "labels" / name / "anat"
        for suffix in ("gmseg-manual", "seg-manual"):
            mask = disc.astype(np.uint8)
            write_nifti(labels / f"{name}_T2starw_{suffix}.nii.gz", mask, affine)
    return folder


def write_nifti(file, array, affine):
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(file)


def environment(*first_on_path, **variables):
    """The environment of a command: this checkout importable, Slurm's variables gone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    path = os.pathsep.join(map(str, (*first_on_path, ROOT)))
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | variables


def command(script, *flags, env=None):
    """A command of jobs/ in a process of its own, from start to end."""
    return subprocess.run(
        [sys.executable, ROOT / "jobs" / f"{script}.py", *map(str, flags)],
        capture_output=True,
        text=True,
        check=False,
        env=env or environment(),
        timeout=900,  # a guard, not a measure: the machine may be busy
    )


def python(code, *arguments, env=None):
    """A few lines of Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=env or environment(),
        timeout=900,
    )


def planned_grid(results, name="grid", **settings):
    """gm_transfer as it would be launched: four cells of one seed, and the one that two need."""
    chosen = {"seeds": 1, "resources.mem_gb": 0.1} | settings
    return planned(name, configure(find_grid("gm_transfer"), "demo", chosen), results)


def attempt_on_node(run, event, pid=1, host="node", job="7_0", **details):
    """Append a record to a run's attempts.jsonl as an attempt in a Slurm job writes it."""
    where = {"host": host, "pid": pid, "job_id": job}
    append_line(run.folder / "attempts.jsonl", {"event": event} | where | details)


def hand_over(experiment, name, job, *tasks):
    """Put an array into an experiment's ledger; `tasks` are the cells of each of its tasks."""
    ids = [[one.id for one in task] for task in tasks]
    begin(experiment, name, Tasks(cells=ids, worker=["python"], mem_gb=1))
    if job is not None:
        note(experiment, name, job=job)
        note(experiment, name, released=True)
