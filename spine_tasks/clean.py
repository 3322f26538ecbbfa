"""Clean: free what complete cells no longer need; nothing that a number is made from is touched.

That is their checkpoints and, once no cell is left to train, the kept maps of frozen layers.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from spine_tasks.command import RESULTS, listed, parser, run_command
from spine_tasks.errors import ConfigError, RunError
from spine_tasks.experiment import MAPS, NNUNET
from spine_tasks.owner import alive
from spine_tasks.run import Run
from spine_tasks.states import State, queued
from spine_tasks.submissions import submissions


@dataclass(frozen=True)
class Freeable:
    """What may go of an experiment: checkpoints, and why others may not; what cells trained on."""

    free: list[Path]  # checkpoints
    kept: dict[str, list[str]]  # reason -> cell ids
    made: list[Path]  # maps of frozen layers, preprocessed data: may go


def main() -> None:
    """The command line of jobs/clean.py."""
    flags = parser(
        "Free the checkpoints of complete cells, and once all cells are complete the kept maps of "
        "frozen layers and the data that nnU-Net preprocessed. Predictions, weights, history, "
        "scores stay.",
        "python jobs/clean.py --grid gm_transfer --dry-run",
    )
    which = flags.add_mutually_exclusive_group(required=True)
    which.add_argument("--grid", metavar="NAME", help="the name it was launched as")
    which.add_argument("--all", action="store_true", help="every grid in the results folder")
    flags.add_argument("--dry-run", action="store_true", help="say what would be freed")
    flags.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s"
    )
    run_command(lambda: clean(flags.parse_args()))


def clean(asked: argparse.Namespace) -> int:
    """Free what may go, and say what and why; return the exit code.

    Raises
    ------
    RunError
        There is no such results folder.
    ConfigError
        Nothing was launched under the name; the message lists the names there are.
    SiteError
        Slurm does not answer, so that what is under way is unknown.
    """
    names = _launched(asked.results)
    if not asked.all and asked.grid not in names:
        raise ConfigError(
            f"nothing was launched as {asked.grid!r} in {asked.results}; launched there: "
            f"{', '.join(names) or 'nothing'}"
        )
    problems = []
    for name in names if asked.all else [asked.grid]:
        problems += _clean(asked.results / name, asked.dry_run)
    for problem in problems:
        sys.stderr.write(f"error: {problem}\n")
    return 1 if problems else 0


def freeable(folder: Path) -> Freeable:
    """What may go of an experiment's checkpoints, maps and preprocessed data.

    Parameters
    ----------
    folder
        The experiment's folder, `results/<name>/`.
    """
    free: list[Path] = []
    kept: dict[str, list[str]] = {}
    runs = [Run(file.parent) for file in sorted(folder.glob("*/cell.json"))]
    made = [
        folder / MAPS,
        *folder.glob(f"*/{NNUNET}/raw"),
        *folder.glob(f"*/{NNUNET}/preprocessed"),
    ]
    made = [one for one in made if one.is_dir() and not one.is_symlink()]
    queue = queued(submissions(folder)) if any(run.complete for run in runs) else {}
    for run in runs:
        why = _why_kept(run, queue)
        made = [] if why else made
        if not os.path.lexists(run.checkpoint):
            continue
        if why is None:
            free.append(run.checkpoint)
        else:
            kept.setdefault(why, []).append(run.folder.name)
    return Freeable(free, kept, made)


def _launched(results: Path) -> list[str]:
    if not results.is_dir():
        raise RunError(f"{results}: no such folder; give the one of the launches by --results")
    return sorted({file.parents[1].name for file in results.glob("*/*/cell.json")})


def _why_kept(run: Run, queue: dict[str, State]) -> str | None:
    """Why a checkpoint stays; None: it may go.

    Cells that start from this one read its weights, not its checkpoint.
    """
    if any(path.is_symlink() for path in (run.folder.parent, run.folder, run.checkpoint)):
        return "behind a link, which is not followed"
    if not run.complete:
        return "not complete"
    if run.folder.name in queue:
        return "in Slurm's queue"
    last = (run.attempts() or [{"event": "never started"}])[-1]
    if last["event"] == "started" and alive(last, run.folder.name):
        return "a process on this machine still works on it"
    return None


def _clean(folder: Path, dry_run: bool) -> list[str]:
    """Free what may go of an experiment and say so; return what went wrong."""
    found = freeable(folder)
    sizes = {checkpoint: _size(checkpoint) for checkpoint in found.free}
    made = {each: _size(each) for each in found.made}
    going = [*sizes, *made]
    problems = {} if dry_run else {each: why for each in going if (why := _remove(each))}
    stuck = [each for each in sizes if each in problems]
    freed = sum(sizes.values()) - sum(map(_size, stuck))
    done = "that would be freed" if dry_run else "freed"
    lines = [f"{folder.name}: checkpoints {done}: {len(sizes) - len(stuck)}, {decimal(freed)}"]
    if gone := [size for each, size in made.items() if each not in problems]:
        lines += [f"  maps of frozen layers and preprocessed data {done}: {decimal(sum(gone))}"]
    lines += [f"  kept {len(ids)}, {why}: {listed(ids)}" for why, ids in found.kept.items()]
    if code := _size(folder / "code"):
        lines.append(f"  kept {decimal(code)} of code, which results and waiting jobs refer to")
    sys.stdout.write("\n".join(lines) + "\n")
    return list(problems.values())


def _remove(folder: Path) -> str | None:
    """Remove a folder; what went wrong, if something did."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        return f"{folder} cannot be removed: {error.strerror or error}"
    return None


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 where it is none."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
