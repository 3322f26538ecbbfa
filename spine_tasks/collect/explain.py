"""Where a number comes from: its persons, the files it was read from, and what computed them."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from spine_tasks.cell import Cell
from spine_tasks.collect.gathered import Gathered
from spine_tasks.configs import suggestion
from spine_tasks.errors import ConfigError, RunError
from spine_tasks.files import read_json
from spine_tasks.metrics import METRICS
from spine_tasks.metrics.box_scores import SET
from spine_tasks.stats.persons import by_person
from spine_tasks.stats.summary import summary
from spine_tasks.versions import codes


def explain(gathered: Gathered, arm: str, metric: str) -> Iterator[str]:
    """Lines that trace an arm's number to its values, files, code, data and command.

    Parameters
    ----------
    arm, metric
        As the tables name them.

    Raises
    ------
    ConfigError
        There is no such arm or metric; the message lists those there are.
    """
    cases = gathered.cases
    for what, asked, there in (
        ("arm", arm, cases["arm"].unique()),
        ("metric", metric, cases["metric"].unique()),
    ):
        if asked not in there:
            raise ConfigError(f"--explain: no {what} {asked!r}{suggestion(asked, there)}")
    own = cases[(cases["arm"] == arm) & (cases["metric"] == metric)]
    if own.empty:
        raise ConfigError(f"--explain: {arm} has no {metric}; it has what cases.csv lists")
    yield f"{metric}: {METRICS[metric].what}" if metric in METRICS else metric
    of_persons = own[own["case"] != SET]
    for _, values in of_persons.groupby("label", sort=False, observed=True):
        yield from _persons(values)
    for label, values in own[own["case"] == SET].groupby("label", sort=False, observed=True):
        yield from _sets(str(label), values)
    yield from _files(gathered, [cell for cell in gathered.arms if cell.arm_name == arm])


def _persons(values: pd.DataFrame) -> Iterator[str]:
    [row] = summary(values).to_dict("records")
    yield (
        f"\n{row['label']}: mean {row['mean']:.6g}, 95 % interval {row['low']:.6g} to "
        f"{row['high']:.6g}, sd {row['sd']:.6g}, median {row['median']:.6g}; n = {row['n']} "
        f"persons ({row['n_undefined']} undefined), {row['cells']} cells, {row['seeds']} seeds"
    )
    yield "each person's mean of all its values:"
    for person in by_person(values).to_dict("records"):
        undefined = f", {person['n_undefined']} undefined" if person["n_undefined"] else ""
        yield f"  {person['person']}: {person['value']:.6g} of {person['n_values']}{undefined}"


def _sets(label: str, values: pd.DataFrame) -> Iterator[str]:
    of_cells = values["value"]
    undefined = of_cells.isna().sum()
    yield (
        f"\n{label}: mean {of_cells.mean():.6g}, sd {of_cells.std():.6g} of "
        f"{of_cells.count()} cells ({undefined} undefined)"
    )
    for value in values.to_dict("records"):
        yield f"  fold {value['fold']} seed {value['seed']}: {value['value']:.6g}"


def _files(gathered: Gathered, cells: list[Cell]) -> Iterator[str]:
    experiment = gathered.experiment
    yield f"\nread from these files in {experiment.folder}, which cases.csv holds together:"
    for cell in cells:
        run = experiment.run(cell)
        done = read_json(run.folder / "done.json")
        yield f"\n{cell.id}/scores.csv, made of {cell.id}/predictions"
        if "members" in done:
            yield f"  the mean of the predictions of {', '.join(done['members'])}"
            continue
        yield f"  fold {cell.fold} seed {cell.seed} of split {cell.split}, complete {done['time']}"
        changed = " with changes" if done.get("changes_sha256") else ""
        for code in codes(done):
            yield f"  code {code[:16]}, commit {done.get('commit')}{changed}"
        yield f"  data {done.get('data_sha256')}, split {done.get('split_sha256')}"
        yield f"  command: {_command(run.folder)}"


def _command(folder: Path) -> str:
    """What the worker's process was started with."""
    try:
        return " ".join(map(str, read_json(folder / "environment.json")["command"]))
    except (FileNotFoundError, KeyError, RunError):
        return "not recorded"
