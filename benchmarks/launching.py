#!/usr/bin/env python3
"""How quick planning and submitting are, beside peers and the least that anybody would do by hand.

Whole commands are timed, interpreter and imports included. Submitted is to a Slurm of its own
(slurm/dev_cluster, as root) on which nothing can start; its queue is emptied after each run,
outside of what is timed. Without root or Slurm those rows are not measured.

1,000 cells are submitted by `launch.py`, which also writes 1,000 folders and a copy of the code, by
submitit one after the other, and by hydra's submitit launcher, timed until its sbatch has returned:
it makes an array, and then waits for results. These two take minutes and are run once. The floor is
one sbatch and a loop that writes as many folders.

A complete grid is launched again, which starts nothing: the floor is a process that writes the
JSON text of as many cells, makes its SHA-256 and looks into each folder for done.json. What starts
nothing else is beside an interpreter that imports yaml.

    python benchmarks/launching.py
    python benchmarks/launching.py --peer-runs 3
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import launching_peers as peers  # noqa: E402
from side_by_side import Growth, Row, Way, faster, in_turn, report, times_the  # noqa: E402

from spine_tasks.data import phantom  # noqa: E402
from spine_tasks.experiment import create, planned  # noqa: E402
from spine_tasks.files import to_json, write_text  # noqa: E402
from spine_tasks.grid import configure, find_grid  # noqa: E402
from spine_tasks.splits import load_split  # noqa: E402

DEV_CLUSTER = ROOT / "slurm" / "dev_cluster" / "dev_cluster.py"
A_SEED = 5  # cells of gm_transfer: four arms, and the one that two of them start from
FROM_SCRATCH = 2  # of these arms
SUBMITTED = (10, 100, 1000)
COMPLETE = (100, 1000, 10_000)
AT_MOST_S = 0.5  # for what starts nothing and looks at a few cells
SUBMIT = "submit 1,000 cells"
FLOOR, YAML = "one sbatch and a loop of 1,000 folders", 'python -c "import yaml"'
RELAUNCH_FLOOR = "10,000 digests and looks for done.json"
DRY_ON_SLURM = "launch.py --dry-run for Slurm, 5 cells"
PEERS = {  # what it is, its package and the aim
    "submitit, one by one": (peers.submitit, "submitit", 50),
    "hydra's submitit launcher, until sbatch has returned": (peers.hydra, "hydra_plugins", None),
}
SUBMITTED_BY_HAND = """
import os, sys
folder, text = sys.argv[1:]
for number in range(1000):
    os.makedirs(f"{folder}/cell-{number}")
    with open(f"{folder}/cell-{number}/cell.json", "w") as out:
        out.write(text)
"""
PLANNED_BY_HAND = """
import hashlib, json, os, sys
folder, cell, cells = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
for seed in range(cells):
    text = json.dumps(cell | {"seed": seed}, sort_keys=True)
    hashlib.sha256(text.encode()).hexdigest()
for entry in os.scandir(folder):
    os.path.exists(f"{entry.path}/done.json")
"""

new_names = map("run-{}".format, itertools.count())


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=5, help="of each command; default: %(default)s")
    flags.add_argument("--peer-runs", type=int, default=1, help="of peers; default: %(default)s")
    asked = flags.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as everybody's: compiled modules are kept
    folder = Path(tempfile.mkdtemp(prefix="launching-"))
    try:
        folder.chmod(0o755)  # for munge
        phantom.write(folder / "data", list(load_split("gm_phantom").person_of))
        texts = {cells: write_complete(folder, cells) for cells in (A_SEED, *COMPLETE)}
        with cluster(folder / "slurm") as missing:
            site = "local" if missing else "dev_cluster"
            if missing:
                not_submitting(missing)
            else:
                submitting(folder, texts[A_SEED], asked.runs, asked.peer_runs)
            relaunching(folder, site, texts[COMPLETE[-1]], asked.runs)
            looking(folder, site, asked.runs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def submitting(folder: Path, text: str, runs: int, peer_runs: int) -> None:
    """Arrays of new cells, beside the floor and the peers."""

    def ours(cells: int) -> Way:
        part = ("--set", f"seeds={cells // FROM_SCRATCH}", "--only", "init=scratch")
        return lambda: launch(folder, next(new_names), "dev_cluster", *part)

    def by_hand() -> None:
        run(sys.executable, "-c", SUBMITTED_BY_HAND, str(folder / next(new_names)), text)
        script = ("--wrap", "true", "--mem=205M", "--output=/dev/null")
        run("sbatch", "--parsable", "--array=0-999", *script)

    def by(peer: Callable[[Path, int], None]) -> Way:
        return lambda: peer(folder / next(new_names), SUBMITTED[-1])

    ways = {words(cells): ours(cells) for cells in SUBMITTED}
    seconds = in_turn(emptied(ways | {FLOOR: by_hand}), runs)
    own = seconds[words(SUBMITTED[-1])]
    report(times_the(SUBMIT, FLOOR, own, seconds[FLOOR], 3))
    why = "start-up, snapshot and Slurm's answers; then a folder and a link a cell"
    report_growth("submit", SUBMITTED, [seconds[words(cells)] for cells in SUBMITTED], why)

    there = {name: peer for name, (peer, package, _) in PEERS.items() if find_spec(package)}
    for peer in there.values():
        peer(folder / next(new_names), SUBMITTED[0])  # fills caches
        empty_queue()
    ways = {"ours": ours(SUBMITTED[-1])} | {name: by(peer) for name, peer in there.items()}
    seconds = in_turn(emptied(ways), peer_runs, warm=0)
    for name, (_, package, aim) in PEERS.items():
        if name in there:
            report(faster(SUBMIT, name, seconds["ours"], seconds[name], aim))
        else:
            report(Row(what=SUBMIT, against=name, aim=aim, note=f"{package} is not installed"))


def not_submitting(missing: str) -> None:
    """Report what needs a Slurm as not measured."""
    report(Row(what=SUBMIT, against=FLOOR, aim=3, floor=True, note=missing))
    for name, (_, _, aim) in PEERS.items():
        report(Row(what=SUBMIT, against=name, aim=aim, note=missing))
    report(Row(what=DRY_ON_SLURM, against=YAML, note=missing))


def relaunching(folder: Path, site: str, text: str, runs: int) -> None:
    """Launches of grids that are complete, beside the floor."""

    def ours(cells: int) -> Way:
        return lambda: launch(folder, complete(cells), site, "--set", f"seeds={cells // A_SEED}")

    most = COMPLETE[-1]
    by_hand = ("-c", PLANNED_BY_HAND, str(folder / complete(most)), text, str(most))
    ways = {words(cells): ours(cells) for cells in COMPLETE}
    ways[RELAUNCH_FLOOR] = lambda: run(sys.executable, *by_hand)
    seconds = in_turn(ways, runs)
    own = seconds[words(most)]
    what = "launch a complete grid again"
    report(times_the(f"{what}, {words(most)}", RELAUNCH_FLOOR, own, seconds[RELAUNCH_FLOOR], 3))
    why = "start-up; then a digest and two looks a cell"
    report_growth(what, COMPLETE, [seconds[words(cells)] for cells in COMPLETE], why)


def looking(folder: Path, site: str, runs: int) -> None:
    """Commands that start nothing, beside the import of yaml."""

    def status(cells: int) -> Way:
        return lambda: jobs("status", "--grid", complete(cells), "--results", str(folder))

    def dry(site: str) -> Way:
        return lambda: launch(folder, "dry", site, "--set", "seeds=1", "--dry-run")

    ways: dict[str, Way] = {
        "launch.py --help": lambda: jobs("launch", "--help"),
        "launch.py --dry-run for this machine, 5 cells": dry("local"),
        "status.py, 5 cells": status(A_SEED),
    }
    if site != "local":
        ways[DRY_ON_SLURM] = dry(site)
    seconds = in_turn({YAML: lambda: run(sys.executable, "-c", "import yaml")} | ways, runs)
    for what in ways:
        row = times_the(what, YAML, seconds[what], seconds[YAML], None)
        met = "met" if median(seconds[what]) < AT_MOST_S else "missed"
        report(replace(row, note=f"{row.note}; aim under {AT_MOST_S:g} s: {met}"))
    seconds = in_turn({words(cells): status(cells) for cells in COMPLETE}, min(runs, 3))
    why = "start-up; then its line in rich's table"
    report_growth("status.py", COMPLETE, list(seconds.values()), why)


def report_growth(
    what: str, amounts: Sequence[int], seconds: Sequence[Sequence[float]], why: str
) -> None:
    """Report the medians of what was timed for several numbers of cells."""
    work = tuple(map(words, amounts))
    report(Growth(what=what, work=work, seconds=tuple(map(median, seconds)), why=why))


def emptied(ways: Mapping[str, Way]) -> dict[str, Way]:
    """The ways, and after each one that empties the queue."""
    pairs = [((name, way), (f"after {name}", empty_queue)) for name, way in ways.items()]
    return dict(itertools.chain.from_iterable(pairs))


def empty_queue() -> None:
    """Cancel everything."""
    run("scancel", "--me")


def write_complete(folder: Path, cells: int) -> str:
    """Write a grid whose cells are all complete; return the text of a cell.json."""
    settings = {"data": str(folder / "data"), "seeds": cells // A_SEED}
    grid = configure(find_grid("gm_transfer"), "demo", settings)
    experiment = planned(complete(cells), grid, folder)
    create(experiment, experiment.everything)
    for cell in experiment.everything:
        for name in ("done.json", "scores.csv"):
            write_text(experiment.run(cell).folder / name, "", durable=False)
    return to_json(experiment.cells[0].to_dict())


def complete(cells: int) -> str:
    """The name of a grid of so many complete cells."""
    return f"complete-{cells}"


def words(cells: int) -> str:
    """An amount as the table has it."""
    return f"{cells:,} cells"


def launch(folder: Path, name: str, site: str, *flags: str) -> None:
    """launch.py of gm_transfer."""
    grid = ("--grid", "gm_transfer", "--preset", "demo", "--set", f"data={folder}/data")
    jobs("launch", *grid, "--results", str(folder), "--name", name, "--site", site, *flags)


def jobs(script: str, *flags: str) -> None:
    """A script of jobs/, with the code beside it."""
    run(sys.executable, str(ROOT / "jobs" / f"{script}.py"), *flags)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A Slurm whose jobs wait for ever, for the commands of the block; or why there is none."""
    start = (sys.executable, str(DEV_CLUSTER), "start", "--folder", str(folder))
    answer = run(*start, fine=(0, os.EX_UNAVAILABLE))
    if answer.returncode:
        yield answer.stderr.strip()
        return
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        run("scontrol", "update", "partitionname=gpu", "state=DOWN")
        yield ""
    finally:
        run(sys.executable, str(DEV_CLUSTER), "stop", "--folder", str(folder))


def run(*command: str, fine: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; end with its words where it fails."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode not in fine:
        sys.exit(f"{' '.join(command)[:200]}\n{answer.stdout}{answer.stderr}")
    return answer


if __name__ == "__main__":
    main()
