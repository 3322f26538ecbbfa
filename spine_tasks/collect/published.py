"""Tables of published studies, as data to set beside ours: `results/published`, a file a study."""

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from spine_tasks.configs import config_class
from spine_tasks.errors import DataError
from spine_tasks.metrics import METRICS

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
COLUMNS = ["job", "study", "source", "table", "arm", "label", "metric", "value", "sd", "median"]
COLUMNS += ["n", "unit", "mark", "note"]
ALWAYS = ("job", "study", "source", "table", "arm", "label", "metric", "value", "mark")
NUMBERS = ("value", "sd", "median", "n")
ONE_FIGURE = ["study", "table", "arm", "label", "metric"]  # what no two rows have in common
MARKS = ("V", "A", "P")  # read in the source; stated by its author; read off a plot
SOURCE = re.compile(r"doi:10\.\d{4,9}/\S+|https://\S+")
BESIDE = ["metric", "label", "arm", "n", "mean", "sd", "median", "published", "study", "source"]
BESIDE += ["table", "mark", "note"]


def published_for(job: str, folder: Path = PUBLISHED) -> pd.DataFrame:
    """The published figures that belong to the question of a job's grids.

    Parameters
    ----------
    job
        Such as `gm_segmentation`.
    folder
        Of the tables, a CSV a study; its README.md says what the columns are.

    Returns
    -------
    DataFrame
        Columns `job, study, source, table, arm, label, metric, value, sd, median, n, unit, mark,
        note`, in the order of the files; without rows where nothing is published. `value`, `sd`
        and `median` are in the unit of our metric, fractions as fractions; `sd`, `median` and `n`
        (persons) are NaN where the study does not say. `mark` is V (read in the source), A (stated
        by its author) or P (read off a plot).

    Raises
    ------
    ConfigError
        There is no such job, or a table names one that is none.
    DataError
        A table's columns are not these; a row lacks its source or another value that it needs,
        names an unknown metric, has another unit or a value out of the metric's range, or is there
        twice. All tables are checked, also those of other jobs.
    """
    config_class(job)
    rows = [row for file in sorted(folder.glob("*.csv")) for row in _read(file)]
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, float))
    return table[[job in named.split() for named in table["job"]]].reset_index(drop=True)


def beside(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Our scores and the published ones that our metrics allow to set beside them.

    Parameters
    ----------
    ours
        `arm, label, metric, mean, sd`, and where there are `n` and `median`: the tables `summary`
        and `sets` both fit.
    published
        Of `published_for`.

    Returns
    -------
    DataFrame
        Columns `metric, label, arm, n, mean, sd, median, published, study, source, table, mark,
        note`: of each metric that both have, label by label, ours first and then the published
        ones; then the published labels that ours has not. `published` is true or false; what
        follows it is empty of ours. Figures of metrics that ours has not are left out.
    """
    both = [metric for metric in ours["metric"].unique() if metric in set(published["metric"])]
    theirs = published.rename(columns={"value": "mean"}).assign(published=True)
    together = pd.concat(
        [one.reindex(columns=BESIDE) for one in (ours.assign(published=False), theirs)],
        ignore_index=True,
    )
    words = BESIDE[BESIDE.index("study") :]
    together[words] = together[words].fillna("")
    together = together[together["metric"].isin(both)]
    order = {"metric": both, "label": list(together["label"].unique())}
    ranked = {name: pd.Categorical(together[name], known) for name, known in order.items()}
    ordered = together.assign(**ranked).sort_values([*order, "published"], ignore_index=True)
    return ordered.astype(dict.fromkeys(order, str))


def _read(file: Path) -> Iterator[dict[str, str | float]]:
    """The rows of a study's table, checked, with numbers as numbers."""
    with file.open(newline="", encoding="utf-8-sig") as stream:
        table = csv.DictReader(stream, strict=True)
        if table.fieldnames != COLUMNS:
            raise DataError(f"{file}: columns {table.fieldnames}; they must be {COLUMNS}")
        seen: dict[tuple[str, ...], int] = {}
        for row in table:
            where = f"{file}, line {table.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{where}: not {len(COLUMNS)} values; quote those with a comma")
            _check(where, row)
            figure = tuple(row[name] for name in ONE_FIGURE)
            if figure in seen:
                raise DataError(f"{where}: the same figure as in line {seen[figure]}; drop one")
            seen[figure] = table.line_num
            numbers = {name: float(row[name] or "nan") for name in NUMBERS}
            yield {**row, **numbers}


def _check(where: str, row: dict[str, str]) -> None:
    for name in ALWAYS:
        if not row[name].strip():
            raise DataError(f"{where}: no {name}; a published figure needs it")
    for job in row["job"].split():
        config_class(job)
    if not SOURCE.fullmatch(row["source"]):
        raise DataError(f"{where}: source {row['source']!r}; give `doi:10...` or `https://...`")
    if row["mark"] not in MARKS:
        raise DataError(f"{where}: mark {row['mark']!r}; marks are {', '.join(MARKS)}")
    if row["metric"] not in METRICS:
        raise DataError(
            f"{where}: unknown metric {row['metric']!r}; take a name of spine_tasks.metrics.METRICS"
        )
    metric = METRICS[row["metric"]]
    if row["unit"] != metric.unit:
        raise DataError(
            f"{where}: {row['metric']} in {row['unit']!r}; ours is in {metric.unit!r}, and "
            "fractions are never percent: convert the value"
        )
    ranges = {
        "value": (metric.minimum, metric.maximum),
        "sd": (0.0, math.inf),
        "n": (1.0, math.inf),
    }
    for name, (low, high) in (ranges | {"median": ranges["value"]}).items():
        if row[name] and not low <= _number(where, name, row[name]) <= high:
            raise DataError(
                f"{where}: {name} of {row['metric']} is {row[name]}, out of {low:g} to {high:g}; "
                "percent must be fractions"
            )


def _number(where: str, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} is {text!r}, no number; leave it empty if unknown")
    return number
