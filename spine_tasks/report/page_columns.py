"""How a column of a table is shown on the page: its head, what it says, and its numbers' form."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype, is_scalar

from spine_tasks.metrics import METRICS

Kind = Literal["text", "digest", "count", "number", "signed", "plain", "hours", "p", "id"]
LEAST_P = 0.001  # a smaller p is shown as such
SHORT = 8  # letters of a digest, as at the end of a cell's name


@dataclass(frozen=True)
class Column:
    """A column: what stands above it and how its values are written."""

    head: str
    kind: Kind
    meaning: str = ""
    short: bool = True  # its cells stay on one line

    @property
    def numeric(self) -> bool:
        """Whether it is right-aligned and sorted by its numbers."""
        return self.kind not in ("text", "digest", "id")


@dataclass(frozen=True)
class Cell:
    """One value as text; a column of numbers is sorted by `value`."""

    text: str
    value: float = math.nan
    title: str = ""
    missing: bool = False

    @property
    def exact(self) -> str:
        """The full value, as JavaScript reads it.

        Examples
        --------
        >>> Cell("0.333", 1 / 3).exact, Cell("∞", math.inf).exact
        ('0.3333333333333333', 'Infinity')
        """
        return repr(self.value).replace("inf", "Infinity")


UNDEFINED = Cell("\N{EN DASH}", title="undefined", missing=True)
_INTERVAL = "95 % interval"
_PERSONS = "persons with a defined value"
KNOWN = {
    "n": Column("n", "count", "persons, or pairs of persons where two arms are compared"),
    "n_other": Column("n other", "count", "the same of the other side"),
    "n_undefined": Column("undefined", "count", "persons, or cells, without any defined value"),
    "values_undefined": Column("values undefined", "count", "single values that are undefined"),
    "n_dropped": Column("dropped", "count", "persons left out, without a pair or a defined value"),
    "id": Column("cell", "id", "the end of its name, which is that of its folder"),
    "persons": Column("n", "count", "persons tested"),
    "mean": Column("mean", "number", "over persons, or over cells for scores of whole sets"),
    "mean_other": Column("mean other", "number", "the same of the other side"),
    "sd": Column("sd", "number", "standard deviation, n - 1 degrees of freedom"),
    "sd_difference": Column("sd", "number", "of the differences between persons"),
    "sd_persons": Column("sd of persons", "number", "between persons of a fold"),
    "sd_seeds": Column("sd of seeds", "number", "between trainings that differ in their seed"),
    "sd_residual": Column("sd of the rest", "number", "of what neither person nor seed explains"),
    "median": Column("median", "number"),
    "q25": Column("quartiles", "number", "the middle half of the persons lies between them"),
    "interval": Column("interval by", "text", "how the interval was made"),
    "rank_biserial": Column("effect", "signed", "rank-biserial correlation, -1 to 1"),
    "detectable": Column(
        "detectable", "number", "the smallest difference that so many pairs would probably show"
    ),
    "matched": Column("matched", "count", "pairs of arms that differ in this alone"),
    "low": Column(_INTERVAL, "number", "of the number left of it, by resampling persons"),
    "difference_low": Column(_INTERVAL, "number", "of the difference, by resampling persons"),
    "difference": Column("difference", "signed", "in the metric's unit"),
    "mean_difference": Column("difference", "signed", "arm minus baseline, in the metric's unit"),
    "p": Column("p", "p", "two-sided, not corrected"),
    "p_holm": Column("Holm p", "p", "corrected for the number of comparisons; bold below 0.05"),
    "smallest_p": Column("least p", "p", "the smallest p that this n could give"),
    "seeds": Column("seeds", "count", "different seeds"),
    "cells": Column("cells", "count", "complete cells"),
    "best_epoch": Column("best epoch", "plain", "whose weights were kept"),
    "epochs": Column("epochs", "plain", "trained in all"),
    "epochs_to_mark": Column("epochs to mark", "plain", "to the baseline's best validation score"),
    "never": Column("never", "count", "cells that never reached the mark"),
    "epochs_trained": Column("epochs", "count"),
    "attempts": Column("attempts", "count"),
    "seconds": Column("hours", "hours", "computed, in all attempts"),
    "gpu_hours": Column("GPU-h used", "number"),
    "gpu_hours_asked": Column("GPU-h asked", "number"),
    "code_sha256": Column("code", "digest", "SHA-256 of the code; several if attempts differ"),
    "data_sha256": Column("data", "digest", "SHA-256 of the data read"),
    "commit": Column("commit", "digest"),
}


def column_of(name: str, values: "pd.Series[Any]") -> Column:
    """How a column is shown; one that is not known by its name, by its values."""
    if name in KNOWN:
        return KNOWN[name]
    head = name.replace("_", " ")
    if ends_at(name):
        return Column(f"{head.removesuffix('low')}{_INTERVAL}", "number")
    if name.startswith("p_") or name.endswith("_p"):
        return Column(head, "p")
    if metric := metric_of(name):
        # A label may stand before the metric: `disc_F1`.
        label = name.removesuffix(metric).rstrip("_")
        return Column(f"{label} {named(metric)}".strip(), "number", METRICS[metric].what)
    if is_bool_dtype(values) or not is_numeric_dtype(values):
        return Column(head, "text")
    if is_integer_dtype(values):
        return Column(head, "count")
    there = values.dropna().abs()
    fine = (there % 1 == 0).all() or there.max() < 0.01
    return Column(head, "plain" if fine else "number")


def ends_at(name: str) -> str | None:
    """The column of the upper end, where `name` is that of the lower end of a range.

    Examples
    --------
    >>> ends_at("difference_low"), ends_at("q25"), ends_at("mean")
    ('difference_high', 'q75', None)
    """
    if name == "q25":
        return "q75"
    return f"{name.removesuffix('low')}high" if re.fullmatch("(.*_)?low", name) else None


def metric_of(column: str) -> str | None:
    """The metric in the name of a column, which may be that of a label before it.

    Examples
    --------
    >>> metric_of("DSC"), metric_of("siteA T2w_DSC_slice"), metric_of("learning_rate")
    ('DSC', 'DSC_slice', None)
    """
    found = [name for name in METRICS if column == name or column.endswith(f"_{name}")]
    return max(found, key=len, default=None)


def named(metric: str) -> str:
    r"""A metric with its unit and an arrow to its better end, which no line break parts.

    Examples
    --------
    >>> named("MSD"), named("volume"), named("ours")
    ('MSD\xa0mm\xa0↓', 'volume\xa0mm3', 'ours')
    """
    if (known := METRICS.get(metric)) is None:
        return metric
    arrow = {True: "↑", False: "↓", None: ""}[known.higher_is_better]
    return "\N{NO-BREAK SPACE}".join(filter(None, [metric, known.unit, arrow]))


def cell_of(value: Any, kind: Kind) -> Cell:
    """A value as it is shown.

    Examples
    --------
    >>> cell_of(0.91249, "number").text, cell_of(0.00002, "p").text, cell_of(7.0, "count").text
    ('0.912', '<0.001', '7')
    >>> cell_of(float("nan"), "number").title
    'undefined'
    """
    if is_scalar(value) and pd.isna(value):
        return UNDEFINED
    if isinstance(value, str) or kind in ("text", "digest"):
        text = _word(value)
        if kind == "id":
            return Cell(text[-SHORT:], title=text)
        if kind == "digest" and len(text) > SHORT:
            return Cell(" ".join(_shortened(one) for one in text.split()), title=text)
        return Cell(text)
    number = float(value)
    if math.isinf(number):
        return Cell("∞" if number > 0 else "-∞", number)
    return Cell(_number(number, kind), number, title=f"{number:.6g}" if kind == "p" else "")


def interval_of(low: float, high: float, kind: Kind) -> Cell:
    """Both ends of an interval, sorted by the lower one; undefined if either is."""
    if pd.isna(low) or pd.isna(high):
        return UNDEFINED
    return Cell(f"{cell_of(low, kind).text} to {cell_of(high, kind).text}", float(low))


def _p(number: float) -> str:
    if number < LEAST_P:
        return f"<{LEAST_P}"
    if number >= 0.1:
        return f"{number:.2f}"
    near = f"{number:.3f}" == "0.050"  # which does not say on which side of it
    return f"{number:.4f}" if near else f"{number:.3f}"


def _number(number: float, kind: Kind) -> str:
    if kind == "p":
        return _p(number)
    forms = {"count": ".0f", "number": ".3f", "signed": "+.3f", "hours": ".2f"}
    return format(number / 3600 if kind == "hours" else number, forms.get(kind, ".4g"))


def _shortened(digest: str) -> str:
    """A digest's first letters; that there were changes stays."""
    digest, plus, changes = digest.partition("+")
    return digest[:SHORT] + plus + changes


def _word(value: Any) -> str:
    if value is True or value is False:
        return "yes" if value else "no"
    return str(value)
