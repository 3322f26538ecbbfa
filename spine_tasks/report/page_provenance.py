"""Where the numbers of the page come from: code, data, versions, machines, hours and settings."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
from pandas.api.types import is_scalar

from spine_tasks.collect.gathered import Gathered
from spine_tasks.configs import knobs_of
from spine_tasks.files import read_json
from spine_tasks.run import Run

MOST_VALUES = 6  # of one thing; how many more there are is said
Fact = tuple[str, list[str]]  # what, and its values
SILENT = "not recorded"


def facts(gathered: Gathered) -> list[Fact]:
    """What all runs were made with; of what differs, each value and how many runs have it."""
    runs = gathered.runs
    folder = gathered.experiment.folder
    found = [_environment(Run(folder / cell)) for cell in runs["cell"]]
    names = dict.fromkeys(name for one in found for name in one)
    return [
        ("commit", _values(runs["commit"])),
        ("code, SHA-256", _values(runs["code_sha256"])),
        ("data, SHA-256", _values(runs["data_sha256"])),
        ("split", _values(runs["split"])),
        *((name, _values(one.get(name) for one in found)) for name in names),
    ]


def hours(gathered: Gathered) -> list[Fact]:
    """What the runs cost and when they were made."""
    runs = gathered.runs
    return [
        ("runs", [f"{len(runs)} in {runs['attempts'].sum()} attempts"]),
        ("computed", [f"{runs['seconds'].sum() / 3600:.2f} h, all attempts together"]),
        *_gpu_hours(runs),
        ("finished", [f"{runs['time'].min()} to {runs['time'].max()}"]),
    ]


def settings(gathered: Gathered) -> list[Fact]:
    """The knobs of the arms' runs; of one that differs, each value."""
    runs = gathered.runs[gathered.runs["role"] == "arm"]
    knobs = dict.fromkeys(name for cell in gathered.arms for name in knobs_of(cell.config))
    return [(name, _values(runs[name])) for name in knobs if name in runs]


def _environment(run: Run) -> dict[str, str]:
    """What a run's environment.json says, a text each; what it does not say is left out."""
    file = run.folder / "environment.json"
    said: dict[str, Any] = read_json(file) if file.exists() else {}
    gpus = Counter(said.get("gpus") or ["none"])
    found = {
        "weights, SHA-256": said.get("weights_sha256"),
        "Python": said.get("python"),
        **said.get("packages", {}),
        "GPU": ", ".join(f"{count} x {name}" for name, count in gpus.items()),
        "CPU": said.get("cpu"),
        "platform": said.get("platform"),
        "partition": said.get("partition"),
        "node": said.get("node"),
    }
    return {name: str(value) for name, value in found.items() if said and value}


def _gpu_hours(runs: pd.DataFrame) -> Iterator[Fact]:
    for name, what in (("gpu_hours", "GPU-hours used"), ("gpu_hours_asked", "GPU-hours asked")):
        if name in runs:
            silent = int(runs[name].isna().sum())
            told = [f"{runs[name].sum():.2f}"] if silent < len(runs) else []
            yield what, [*told, *([f"{SILENT} ({silent} runs)"] if silent else [])]


def _values(values: Iterable[Any]) -> list[str]:
    """Distinct values, the most frequent first; how many runs have each, if they differ."""
    counted = Counter(_text(one) for one in values)
    if len(counted) == 1:
        return [*counted]
    told = [f"{value} ({count} runs)" for value, count in counted.most_common(MOST_VALUES)]
    more = len(counted) - len(told)
    return [*told, *([f"and {more} more"] if more else [])]


def _text(value: Any) -> str:
    if is_scalar(value) and pd.isna(value):
        return SILENT
    return f"{value:g}" if isinstance(value, float) else str(value)
