#!/usr/bin/env python3
"""What each fault of a cluster costs a cell, on the real Slurm: the whole table, as Markdown.

Starts two Slurms of its own (slurm/dev_cluster, as root), launches a cell of each task for each
fault, disturbs it in training and follows it to its end; 20 minutes on two cores. Checkpoints are
2 s apart and a step takes 1 s, so that some seconds of work are what a kill should cost.

    python benchmarks/faults.py
    python benchmarks/faults.py --task PyTorch --fault "node lost"
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "slurm")]

import witness  # noqa: E402
from faults import CONF_LINES, FAULTS, SIGNALLED, USUAL, Fault, Outcome  # noqa: E402
from making import small_data  # noqa: E402
from table import GREY_MATTER, TORCH, Table, on, undisturbed  # noqa: E402
from trials import DEV_CLUSTER, Half, Task  # noqa: E402

HEAD = (
    *("fault", "task", "attempts", "launches", "work lost, s"),
    *("gone from the queue after, s", "results identical"),
)


def main() -> int:
    """Disturb, print; 0 if every cell ended with the results of an undisturbed one."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = flags.add_argument
    names = [fault.name for fault in FAULTS]
    add("--fault", action="append", choices=names, metavar="NAME", help=f"of {'; '.join(names)}")
    add("--task", action="append", choices=[TORCH.name, GREY_MATTER.name])
    asked = flags.parse_args()
    tasks = [task for task in (TORCH, GREY_MATTER) if task.name in (asked.task or [task.name])]
    faults = [fault for fault in FAULTS if fault.name in (asked.fault or names)]
    cases = [(task, fault) for task in tasks for fault in faults]
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    try:
        with _cluster(USUAL) as usual, _cluster(SIGNALLED) as signalled:
            sound = _print_table({USUAL: usual, SIGNALLED: signalled}, cases, folder)
    finally:
        shutil.rmtree(folder)
    return 0 if sound else 1


def _print_table(clusters: dict[str, Path], cases: list[tuple[Task, Fault]], folder: Path) -> bool:
    data = small_data(folder / "bids", "gm_phantom")
    half = Half(clusters[USUAL], "left")
    tasks = {task.name: task for task, _ in cases}.values()
    expected = {task.name: undisturbed(on(task, data), half, folder / task.name) for task in tasks}
    table = Table(clusters, data, folder)
    table.start(cases)
    _print(HEAD)
    _print(["---"] * len(HEAD))
    sound = True
    for task, fault in cases:
        try:
            outcome = table.outcome(task, fault)
        except AssertionError as error:
            sys.stderr.write(f"{fault.name}, {task.name}: {error}\n")
            sound = False
            continue
        row = _row(task, outcome, same := outcome.results == expected[task.name])
        _print(row)
        for problem in (problems := witness.problems(outcome.told)):
            sys.stderr.write(f"{fault.name}, {task.name}: {problem}\n")
        sound &= same and not problems
    return sound


def _row(task: Task, outcome: Outcome, same: bool) -> list[str]:
    gone = "" if outcome.gone_s is None else f"{outcome.gone_s:.1f}"
    counts = [str(outcome.attempts), str(outcome.launches), f"{outcome.lost_s:.1f}"]
    return [outcome.fault.name, task.name, *counts, gone, "yes" if same else "NO"]


def _print(cells: list[str] | tuple[str, ...]) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


@contextmanager
def _cluster(kind: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    lines = [word for line in CONF_LINES[kind] for word in ("--conf-line", line)]
    command = [sys.executable, str(DEV_CLUSTER)]
    try:
        subprocess.run([*command, "start", "--folder", str(folder), *lines], check=True)
        yield folder
    finally:
        subprocess.run([*command, "stop", "--folder", str(folder)], check=True)


if __name__ == "__main__":
    sys.exit(main())
