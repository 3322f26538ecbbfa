"""The sentences for a paper's methods section: what was done with the results at hand."""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from spine_tasks.collect.ensemble import NAME as ENSEMBLE
from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.generalization import PAIRED, TESTED, UNPAIRED
from spine_tasks.collect.set_scores import REPLICATES
from spine_tasks.collect.tables import Tables
from spine_tasks.files import read_json
from spine_tasks.stats.intervals import RESAMPLES
from spine_tasks.stats.rank_tests import MANY_PAIRS

PACKAGES = {"nnunet": ("nnunetv2", "torch")}  # of a framework that is none by itself
STATISTICS = ("numpy", "scipy", "statsmodels", "pandas")
INTERVALS = {  # by the name that `stats.intervals.interval` gives its method
    "t": "Student's t",
    "bootstrap-t": "bootstrap-t (doi:10.1214/ss/1032280214)",
    "BCa": "BCa bootstrap (doi:10.1080/01621459.1987.10478410)",
    "Welch's t": "Welch's t (doi:10.1093/biomet/34.1-2.28)",
    "percentile": "percentile bootstrap, BCa being undefined",
}
SIGNED_RANK = "Wilcoxon's signed-rank test, two-sided (doi:10.2307/3001968)"
RANK_SUM = (
    "the test of Mann and Whitney, two-sided (doi:10.1214/aoms/1177730491), exact where a group "
    "has up to 8 persons and no two values are alike, else by random dealing or its normal limit"
)
HOLM = "Holm's method (https://www.jstor.org/stable/4615733)"


def sentence(gathered: Gathered, tables: Tables) -> str:
    """What was done, in sentences for a methods section: true of these results and no others.

    Parameters
    ----------
    gathered, tables
        Of `gather` and `tables_of`.

    Returns
    -------
    str
        One paragraph of plain text; references are DOIs.
    """
    said = [*_training(gathered), *_persons(gathered, tables["summary"])]
    if "generalization" in tables:
        said += _of_cords(tables["generalization"], str(gathered.baseline))
    elif len(tables["comparisons"]):
        said += _compared(tables["comparisons"])
    if "sets" in tables:
        said += [_sets()]
    return " ".join([*said, *_versions(gathered)])


def _training(gathered: Gathered) -> Iterator[str]:
    planned = gathered.experiment.cells
    cells = [cell for cell in gathered.arms if cell.arm != ENSEMBLE]
    arms = dict.fromkeys(cell.arm_name for cell in cells)
    splits = dict.fromkeys(Path(cell.split).stem for cell in cells)
    yield (
        f"{_counted(len(cells), 'model')} of {_counted(len(arms), 'arm')} ({'; '.join(arms)}) "
        f"{'was' if len(cells) == 1 else 'were'} trained, on "
        f"{_counted(len({cell.fold for cell in cells}), 'fold')} of the split "
        f"{' and '.join(splits)} with {_counted(len({cell.seed for cell in cells}), 'seed')}; "
        "in a fold no person was in two of the training, validation and test parts."
    )
    if len(cells) < len(planned):
        yield f"{len(planned) - len(cells)} of {len(planned)} planned runs are missing."
    if needed := int((gathered.runs["role"] == "needed").sum()):
        yield f"{_counted(needed, 'further run')} made what others start from."
    scores = " and ".join(dict.fromkeys(cell.config.chosen_by for cell in cells))
    keep = {cell.config.keep for cell in cells}
    epochs = {
        "best": f"the epoch with the best validation score ({scores})",
        "last": "the last epoch",
    }
    chosen = ", or, by arm, of ".join(epochs[one] for one in sorted(keep))
    yield f"Weights of {chosen} predicted the test part, once."
    if gathered.predicts == "boxes":
        yield (
            "Boxes count at IoU .5, one to one, from the score on that had the best F1 on the "
            "validation part."
        )
    if len(cells) < len(gathered.arms):
        yield "One more arm, the ensemble, averages the probabilities of a fold's models."


def _persons(gathered: Gathered, summary: pd.DataFrame) -> Iterator[str]:
    persons = gathered.of_persons["person"].nunique()
    yield (
        f"The unit of analysis is the person (n = {persons} tested): values of a person's cases, "
        "slices, folds and seeds were averaged first, with equal weight."
    )
    undefined = int(summary["values_undefined"].sum())
    without = int(summary["n_undefined"].sum())
    if undefined:
        yield f"Undefined values ({undefined} over all metrics and arms) were left out and counted."
    if without:
        yield f"{without} times that left a person without a value for a metric of an arm."
    yield f"95 % intervals of means are by {intervals(summary)}."


def intervals(table: pd.DataFrame) -> str:
    """By which methods the intervals of a table of statistics over persons are made, with their n.

    Examples
    --------
    >>> intervals(pd.DataFrame({"n": [5, 6, 1], "interval": ["t", "t", ""]}))
    "Student's t (n = 5 to 6)"
    """
    used = {
        str(method): " to ".join(map(str, dict.fromkeys((rows["n"].min(), rows["n"].max()))))
        for method, rows in table.groupby("interval")
        if method not in ("", "constant")  # of one person, or of equal values: nothing to explain
    }
    said = [f"{INTERVALS.get(method, method)} (n = {ns})" for method, ns in used.items()]
    drawn = used.keys() - {"t", "Welch's t"}
    resamples = f"; bootstraps draw {RESAMPLES:,} resamples of persons" if drawn else ""
    return f"{' or '.join(said)}{resamples}" if said else "no method, as too few persons differ"


def signed_rank(most: int) -> str:
    """Wilcoxon's test as `signed_rank_p` makes it of up to so many pairs."""
    if most <= MANY_PAIRS:
        return f"{SIGNED_RANK}, exact"
    return f"{SIGNED_RANK}, exact up to {MANY_PAIRS} pairs that differ, else by its normal limit"


def _compared(comparisons: pd.DataFrame) -> Iterator[str]:
    arms = comparisons["arm"].nunique()
    dropped = int(comparisons["n_dropped"].sum())
    yield (
        f"Each arm was compared with {comparisons['baseline'].iloc[0]}, paired by person, by "
        f"{signed_rank(int(comparisons['n'].max()))}; differences of zero do not count in the "
        "test. "
        + (
            f"p was corrected by {HOLM} over the {arms} arms of one label and metric."
            if arms > 1
            else "One arm was compared, so p needed no correction within a label and metric."
        )
    )
    yield f"95 % intervals of mean differences are by {intervals(comparisons)}."
    if dropped:
        yield f"{dropped} times a person had no pair and was left out of a comparison."


def _of_cords(found: pd.DataFrame, general: str) -> Iterator[str]:
    for comparison, rows in found.groupby("comparison", sort=False):
        corrected = f"p was corrected by {HOLM} over these {rows['p'].count()} comparisons."
        if comparison == PAIRED:
            yield (
                f"In {TESTED}, the general model ({general}) was compared with each other one on "
                "the test sets of that one's own data sets and on those unseen to it, paired by "
                f"person, by {signed_rank(int(rows['n'].max()))}, with 95 % intervals of the mean "
                f"difference by {intervals(rows)}; {corrected}"
            )
        if comparison == UNPAIRED:
            yield (
                f"Each model's {TESTED} of persons of its own data sets was compared with that of "
                f"other persons of data sets unseen to it by {RANK_SUM}; persons in both were left "
                f"out, 95 % intervals of the difference are by {intervals(rows)}; {corrected}"
            )


def _sets() -> str:
    return (
        "Metrics that are defined for a whole test part only are means over models; their 95 % "
        f"intervals, where there are any, are percentiles of {REPLICATES:,} resamples of the "
        "persons of each fold's test part, the same persons for every arm, so that differences are "
        "paired; they were not tested."
    )


def _versions(gathered: Gathered) -> Iterator[str]:
    if gathered.mixed:
        yield "The runs were not all computed with the same code or data."
    used: dict[str, None] = {}
    for cell in gathered.arms:
        file = gathered.experiment.run(cell).folder / "environment.json"
        there = read_json(file).get("packages", {}) if file.exists() else {}
        names = PACKAGES.get(cell.config.framework, (cell.config.framework,))
        used |= {f"{name} {there[name]}": None for name in names if there.get(name)}
    if used:
        yield f"Models were trained with {', '.join(used)}."
    packages = [f"{name} {version(name)}" for name in STATISTICS]
    yield f"Statistics: Python {platform.python_version()}, {', '.join(packages)}."
    for line in gathered.computed_with:
        yield f"{line[0].upper()}{line[1:]}."


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
