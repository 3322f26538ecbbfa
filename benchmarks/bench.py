#!/usr/bin/env python3
"""All benchmarks, one after the other, and their ratios in one table; what `make bench` runs.

Each script runs in a process of its own, so that none meets the threads and memory of another.
Some 35 minutes on two cores that do nothing else. The Slurm of the launching rows is the one of
slurm/dev_cluster, and needs root as it does; without it they are marked as not measured.

    python benchmarks/bench.py
    python benchmarks/bench.py --only scoring grading
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

from side_by_side import ROWS, Growth, Row, cells, reported, say  # noqa: E402

SCRIPTS = (
    "launching",
    "starting",
    "grey_matter",
    "scoring",
    "detection",
    "grading",
    "collecting",
    "preemption",
    "packing",
)
PACKAGES = ("tensorflow", "keras", "torch", "torchvision", "transformers", "submitit", "pandas")
HEAD = ("what", "against", "ratio, median (range)", "aim", "", "medians")
GROWTH_HEAD = ("what", "1, 10 and 100 times the work", "grows", "why")


def main() -> int:
    """Run them; 0 if all ran to their end, whatever the ratios are."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="SCRIPT")
    asked = flags.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "rows"
        file.touch()
        variables = os.environ | {ROWS: str(file)}
        failed = [name for name in asked.only if not _ran(name, variables)]
        found = list(reported(file))
    say(f"\n{machine()}\nload {load:.1f} before, {os.getloadavg()[0]:.1f} after\n")
    print_table(HEAD, [cells(one) for one in found if isinstance(one, Row)])
    print_table(GROWTH_HEAD, [cells(one) for one in found if isinstance(one, Growth)])
    for name in failed:
        say(f"{name}.py failed: its rows above are not all; what it said is further up")
    return 1 if failed else 0


def _ran(name: str, variables: dict[str, str]) -> bool:
    say(f"\n== {name}")
    command = (sys.executable, str(FOLDER / f"{name}.py"))
    return subprocess.run(command, env=variables, check=False).returncode == 0


def machine() -> str:
    """The day, processor and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {os.cpu_count()} cores of {(names or ['?'])[0]}, "
        f"{memory:.0f} GiB; Python {platform.python_version()}, {versions}"
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def print_table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
    """Print Markdown."""
    say(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for line in lines:
        say(f"| {' | '.join(line)} |")
    say("")


if __name__ == "__main__":
    sys.exit(main())
