#!/usr/bin/env python3
"""How quick collecting is, beside the least that reading the same files takes.

Makes complete runs of the grid gm_transfer with 20 cases each and every metric of masks, and times
what turns them into the long table: each way in a process of its own, one after the other, so that
all meet the same load. Imports are left out. The floor reads all bytes of all files that are read
and parses all scores at once; the loop is what one would write by hand, `pandas.read_csv` a run.

    python benchmarks/collecting.py
    python benchmarks/collecting.py --slices 3 --sizes 10000    # scores of slices too
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv, parquet

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

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


def main() -> None:
    """Measure and print."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=5, help="of each way; default: %(default)s")
    flags.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000], help="cells")
    flags.add_argument("--slices", type=int, default=0, help="a case, each with scores of its own")
    flags.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    flags.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    asked = flags.parse_args()
    if asked.one:
        measure(WAYS[asked.one], asked.results)
        return
    for size in asked.sizes:
        results = Path(tempfile.mkdtemp(prefix="collecting-"))
        try:
            make(results, size // ARMS, asked.slices)
            table(size, in_turn(results, asked.runs))
        finally:
            shutil.rmtree(results, ignore_errors=True)
    say(f"load {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")


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


def floor_of_scores(experiment: Experiment) -> None:
    """The same of scores.csv alone."""
    scores = []
    for cell in experiment.everything:
        with open(f"{experiment.folder}/{cell.id}/scores.csv", "rb", buffering=0) as stream:  # noqa: PTH123
            content = stream.read()
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
    "floor of scores.csv": floor_of_scores,
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


def in_turn(results: Path, runs: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and MB of each way, again and again; the first time only fills caches."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(-1, runs):
        for way in WAYS:
            if way == "first collect":
                shutil.rmtree(results / NAME / FOLDER, ignore_errors=True)
            command = (sys.executable, __file__, "--one", way, "--results", str(results))
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                sys.exit(answer.stdout + answer.stderr)
            found[way] += [tuple(json.loads(answer.stdout))] if number >= 0 else []
    return found


def table(size: int, found: dict[str, list[tuple[float, float]]]) -> None:
    """Print a line a way; ratios are to the first one's median."""
    say(f"\n{size:,} runs of {CASES} cases")
    of_floor = median(seconds for seconds, _ in found["floor"])
    for way, times in found.items():
        seconds, peak_mb = zip(*times, strict=True)
        line = f"  {way:20} {median(seconds):7.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"
        say(f"{line} {median(seconds) / of_floor:6.2f} x floor  {max(peak_mb):6.0f} MB")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
