#!/usr/bin/env python3
"""How long collecting takes, beside a loop by hand and the least that reading the files takes.

Makes complete runs of the grid gm_transfer with 20 cases each and every metric of masks, and times
what turns them into the long table: each way in a process of its own, one after the other, so that
all meet the same load. Imports are left out, and so are statistics; the file cache is warm. The
loop is what one would write by hand: `pandas.read_csv` a run, joined and written as Parquet, with
nothing checked. The floor reads all bytes of all files that are read and parses all scores at once.
A second collect finds what the first one has remembered. Rows are of the most runs. Eight minutes.

    python benchmarks/collecting.py
    python benchmarks/collecting.py --slices 3 --sizes 10000    # scores of slices too
"""

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv, parquet

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from side_by_side import Growth, Row, faster, report, times_the  # noqa: E402

from spine_tasks.collect.cell_files import FILES  # noqa: E402
from spine_tasks.collect.gathered import gather  # noqa: E402
from spine_tasks.collect.long_table import source  # noqa: E402
from spine_tasks.collect.remembered import FOLDER  # noqa: E402
from spine_tasks.experiment import Experiment, create, opened, planned  # noqa: E402
from spine_tasks.files import to_json  # noqa: E402
from spine_tasks.grid import configure, find_grid  # noqa: E402
from spine_tasks.metrics.mask_scores import score_masks  # noqa: E402
from spine_tasks.score import COLUMNS  # noqa: E402

CASES = 20
EPOCHS = 30
ARMS = 4  # of gm_transfer; two of them start from cells of their own, one a seed
NAME = "many"
HEADER = ",".join(COLUMNS)
AT_REST_S = 3  # after which a file's times are trusted
WHY = {  # it grows so
    "first collect": "files and rows grow with the runs; a process's first parse and table do not",
    "second collect": "files of runs are not opened; reading and writing Parquet has a fixed part",
}


class Taken(NamedTuple):
    """What one run of a way takes."""

    seconds: float
    mb: float  # the most memory of its process


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=3, help="of each way; default: %(default)s")
    flags.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000], help="cells")
    flags.add_argument("--slices", type=int, default=0, help="a case, each with scores of its own")
    flags.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    flags.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    asked = flags.parse_args()
    if asked.one:
        measure(WAYS[asked.one], asked.results)
        return
    found = {}
    for size in sorted(asked.sizes):
        results = Path(tempfile.mkdtemp(prefix="collecting-"))
        try:
            make(results, size // ARMS, asked.slices)
            found[size] = measured(results, asked.runs)
        finally:
            shutil.rmtree(results, ignore_errors=True)
    report(*rows(max(found), found[max(found)]))
    for way, why in WHY.items():
        work = tuple(f"{size:,} runs" for size in found)
        seconds = tuple(median(one.seconds for one in of_size[way]) for of_size in found.values())
        report(Growth(what=f"{way}, statistics apart", work=work, seconds=seconds, why=why))


def make(results: Path, seeds: int, slices: int) -> None:
    """Complete runs as workers leave them, the predictions left out."""
    grid = configure(find_grid("gm_transfer"), "demo", {"seeds": seeds, "data": str(results)})
    experiment = planned(NAME, grid, results)
    create(experiment, experiment.everything)
    mask = np.ones((4, 4, max(1, slices)), dtype=bool)
    scores = score_masks(mask, mask, (0.5, 0.5, 5.0), 2)
    kinds = [(str(index), name) for index, name, _ in scores if index is not None]
    kinds = kinds if slices else []
    kinds += [
        ("", name) for index, name, _ in score_masks(mask, mask, (1, 1, 1), 2) if index is None
    ]
    rows = [
        f"sub-{case:02},sub-{case:02},sub-{case:02}_T2starw,{index},gray_matter,{name},"
        for case in range(CASES)
        for index, name in kinds
    ]
    digests = {f"sub-{case:02}_T2starw.nii.gz": f"{case:064x}" for case in range(CASES)}
    random = np.random.default_rng(0)
    done = {"time": "2026-01-01T00:00:00+00:00", "commit": "c" * 40, "code_sha256": "a" * 64}
    done |= {"code_sha256_of_attempts": ["a" * 64], "predictions_sha256": digests}
    for cell in experiment.everything:
        folder = experiment.run(cell).folder
        values = random.random(len(rows))
        values[random.random(len(rows)) < 0.01] = np.nan
        text = "\n".join([HEADER, *map(str.__add__, rows, map(repr, values.tolist())), ""])
        digest = hashlib.sha256(text.encode()).hexdigest()
        record = {"scores_sha256": digest, "predictions_sha256": digests}
        epochs = (
            {
                "epoch": epoch,
                "loss": loss,
                "val_dice": 1 - loss,
                "seconds": 1.5,
                "best_epoch": epoch,
            }
            for epoch, loss in enumerate(random.random(EPOCHS).tolist())
        )
        where = {"host": "node", "pid": 1, "job_id": "7_0", "restart": 0, "node": "node"}
        attempts = (
            where | {"time": done["time"], "event": event} for event in ("started", "complete")
        )
        (folder / "scores.csv").write_text(text)
        (folder / "scores.json").write_text(to_json(record))
        (folder / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in epochs))
        (folder / "attempts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in attempts))
        (folder / "done.json").write_text(to_json(done))
    time.sleep(AT_REST_S)


def collect(experiment: Experiment) -> None:
    """All of gather, and the long table written."""
    gather(experiment).keep()


def floor(experiment: Experiment) -> None:
    """Every byte read, and one parse of the scores."""
    scores = []
    for cell in experiment.everything:
        folder = f"{experiment.folder}/{cell.id}"
        for name in FILES:
            with open(f"{folder}/{name}", "rb", buffering=0) as stream:  # noqa: PTH123
                content = stream.read()
            if name == "scores.csv":
                scores.append(content if not scores else content[len(HEADER) + 1 :])
    csv.read_csv(source(b"".join(scores)))


def loop(experiment: Experiment) -> None:
    """`pandas.read_csv` a run, then Parquet."""
    tables = [
        pd.read_csv(experiment.run(cell).scores).assign(
            cell=cell.id, arm=cell.arm_name, split=cell.split, fold=cell.fold, seed=cell.seed
        )
        for cell in experiment.everything
    ]
    together = pa.Table.from_pandas(pd.concat(tables, ignore_index=True))
    parquet.write_table(together, experiment.folder / "loop.parquet", compression="zstd")


WAYS: dict[str, Callable[[Experiment], None]] = {
    "floor": floor,
    "first collect": collect,
    "second collect": collect,
    "pandas loop": loop,
}


def measure(way: Callable[[Experiment], None], results: Path) -> None:
    """Print seconds and the most memory of one way, in this process."""
    experiment = opened(NAME, results)
    start = time.perf_counter()
    way(experiment)
    taken = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps([taken, peak_mb]))


def measured(results: Path, runs: int) -> dict[str, list[Taken]]:
    """What each way takes, again and again; the first time only fills caches."""
    found: dict[str, list[Taken]] = {way: [] for way in WAYS}
    for number in range(-1, runs):
        for way, taken in found.items():
            if way == "first collect":
                shutil.rmtree(results / NAME / FOLDER, ignore_errors=True)
            command = (sys.executable, __file__, "--one", way, "--results", str(results))
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                sys.exit(answer.stdout + answer.stderr)
            taken += [Taken(*json.loads(answer.stdout))] if number >= 0 else []
    return found


def rows(size: int, found: dict[str, list[Taken]]) -> list[Row]:
    """The rows of so many runs."""
    seconds = {way: [one.seconds for one in taken] for way, taken in found.items()}
    most_mb = {way: f"{max(one.mb for one in taken):.0f} MB" for way, taken in found.items()}
    first, floor = seconds["first collect"], seconds["floor"]
    what = f"collect of {size:,} runs, statistics apart"
    reading = "reading and parsing the files"
    row = faster(f"first {what}", "a pandas loop", first, seconds["pandas loop"], 5)
    memory = f"memory {most_mb['first collect']} against {most_mb['pandas loop']}, aim below 1 GB"
    return [
        replace(row, note=f"{row.note}; {memory}"),
        times_the(f"first {what}", reading, first, floor, 5),
        times_the(f"second {what}", reading, seconds["second collect"], floor, None),
    ]


if __name__ == "__main__":
    main()
