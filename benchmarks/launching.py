#!/usr/bin/env python3
"""How quick planning and submitting are, beside the least that anybody would do by hand.

Starts a Slurm of its own (slurm/dev_cluster, as root) on which nothing can start, and times whole
commands, interpreter and imports included. What is compared is timed in turn, so that both meet
the same load; a table gives the median, the range and the ratio of the medians, and the same of the
CPU time, which on a busy machine tells more.

    python benchmarks/launching.py
    python benchmarks/launching.py --also ../before    # another copy of this code, side by side
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from spine_tasks.data import phantom  # noqa: E402
from spine_tasks.experiment import create, planned  # noqa: E402
from spine_tasks.files import to_json, write_json  # noqa: E402
from spine_tasks.grid import Grid, configure, find_grid  # noqa: E402
from spine_tasks.splits import load_split  # noqa: E402

DEV_CLUSTER = ROOT / "slurm" / "dev_cluster" / "dev_cluster.py"
CELLS = 1000
SEEDS = CELLS // 2  # two arms of gm_transfer start from scratch
MANY_SEEDS = 2000  # 10,000 cells: four arms a seed, and the one that two of them start from
HERE = "local"
NAME = "<name>"
BY_HAND = """
import os, sys
folder, text = sys.argv[1:]
for number in range(1000):
    os.makedirs(f"{folder}/cell-{number}")
    with open(f"{folder}/cell-{number}/cell.json", "w") as out:
        out.write(text)
"""

Command = Callable[[str], None]  # given a name that no run before had
Times = dict[str, list[tuple[float, float]]]  # of each run, by command: seconds, and of CPU


def main() -> None:
    """Measure and print."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=5, help="of each command; default: %(default)s")
    flags.add_argument(
        "--also", type=Path, action="append", default=[], metavar="DIR", help="a copy of this code"
    )
    asked = flags.parse_args()
    codes = {"ours": ROOT} | {code.name: code.resolve() for code in asked.also}
    folder = Path(tempfile.mkdtemp(prefix="launching-"))
    try:
        folder.chmod(0o755)  # for munge
        phantom.write(folder / "data", list(load_split("gm_phantom").person_of))
        with cluster(folder / "slurm"):
            load = os.getloadavg()[0]
            submitting(folder, codes, asked.runs)
            looking(folder, codes, asked.runs)
        say(f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after; {os.cpu_count()} cores")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def submitting(folder: Path, codes: dict[str, Path], runs: int) -> None:
    """1,000 cells as an array, against one sbatch and a loop that writes as many folders."""
    cell = planned("one", _grid(folder, seeds=1), folder).cells[0]
    text = to_json(cell.to_dict())

    def by_hand(name: str) -> None:
        run(sys.executable, "-c", BY_HAND, str(folder / f"by_hand-{name}"), text)
        script = ("--wrap", "true", "--mem=205M", "--output=/dev/null")
        run("sbatch", "--parsable", f"--array=0-{CELLS - 1}", *script)

    part = ("--set", f"seeds={SEEDS}", "--only", "init=scratch")
    ours = of_each(codes, "launch", *_flags(folder, NAME), *part)
    times = in_turn(
        {"sbatch and a loop": by_hand} | ours, runs, after=lambda: run("scancel", "--me")
    )
    table(f"{CELLS} cells submitted; at most 3 times", times)


def looking(folder: Path, codes: dict[str, Path], runs: int) -> None:
    """Commands that start nothing, against the start of an interpreter."""
    for name, seeds in (("small", 1), ("large", MANY_SEEDS)):
        experiment = planned(name, _grid(folder, seeds=seeds), folder)
        create(experiment, experiment.everything)
        for cell in experiment.everything:
            write_json(experiment.run(cell).folder / "done.json", {}, durable=False)
    small, large = ("--set", "seeds=1"), ("--set", f"seeds={MANY_SEEDS}")
    dry = (*small, "--dry-run")
    for title, words in {
        "help; at most 0.5 s": ("launch", "--help"),
        "dry run of 5 cells, here; at most 0.5 s": ("launch", *_flags(folder, "dry", HERE), *dry),
        "dry run of 5 cells on Slurm; at most 0.5 s": ("launch", *_flags(folder, "dry"), *dry),
        "status; at most 0.5 s": ("status", "--grid", "small", "--results", str(folder)),
        "5 complete cells again; about 0.2 s": ("launch", *_flags(folder, "small"), *small),
        "10,000 complete cells again; at most 2 s": ("launch", *_flags(folder, "large"), *large),
    }.items():
        ours = of_each(codes, *words)
        table(title, in_turn({"python -c pass": _nothing} | ours, runs))


def of_each(codes: dict[str, Path], script: str, *flags: str) -> dict[str, Command]:
    """A script of jobs/ in each copy of the code; NAME in its flags is that of the run."""

    def of(code: Path) -> Command:
        words = ("env", f"PYTHONPATH={code}", sys.executable, f"{code}/jobs/{script}.py", *flags)
        return lambda name: run(*(word.replace(NAME, name) for word in words))

    return {name: of(code) for name, code in codes.items()}


def in_turn(
    commands: dict[str, Command], runs: int, after: Callable[[], None] = lambda: None
) -> Times:
    """The times of commands that are run one after the other, again and again."""
    times: Times = {what: [] for what in commands}
    for number in range(-1, runs):  # the first time only fills caches
        for place, (what, command) in enumerate(commands.items()):
            start, cpu = time.perf_counter(), _cpu_s()
            command(f"run-{start:.0f}-{place}-{number}")
            taken = (time.perf_counter() - start, _cpu_s() - cpu)
            times[what] += [taken] if number >= 0 else []
            after()
    return times


def table(title: str, times: Times) -> None:
    """Print a line a command; the ratio is to the first one."""
    say(f"\n{title}")
    first = [median(kind) for kind in zip(*next(iter(times.values())), strict=True)]
    for what, runs in times.items():
        line = f"  {what:20}"
        for kind, of_first, unit in zip(
            zip(*runs, strict=True), first, ("s", "CPU-s"), strict=True
        ):
            line += f" {median(kind):6.2f} {unit} ({min(kind):.2f} to {max(kind):.2f})"
            line += f" {median(kind) / of_first:5.1f} x"
        say(line)


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A Slurm whose jobs wait for ever, for the commands of the block."""
    run(str(DEV_CLUSTER), "start", "--folder", str(folder))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        run("scontrol", "update", "partitionname=gpu", "state=DOWN")
        yield
    finally:
        run(str(DEV_CLUSTER), "stop", "--folder", str(folder))


def run(*command: str) -> None:
    """Run a command to its end; end with its words where it fails."""
    # As everybody's Python: compiled modules are kept.
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if answer.returncode:
        sys.exit(f"{' '.join(command)[:200]}\n{answer.stdout}{answer.stderr}")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _grid(folder: Path, **settings: int) -> Grid:
    return configure(find_grid("gm_transfer"), "demo", {"data": str(folder / "data")} | settings)


def _nothing(_name: str) -> None:
    run(sys.executable, "-c", "pass")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _flags(folder: Path, name: str, site: str = "dev_cluster") -> Sequence[str]:
    grid = ("--grid", "gm_transfer", "--preset", "demo", "--set", f"data={folder}/data")
    return (*grid, "--results", str(folder), "--name", name, "--site", site)


if __name__ == "__main__":
    main()
