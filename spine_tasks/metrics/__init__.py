"""What each metric in a table of scores means: unit, range, which end is best.

The names are those of the scores themselves. A name says where it was measured: `DSC` over the
whole volume of a case, `DSC_slice` over one slice, across the cord. Fractions are stored as
fractions, never as percent.

This table imports nothing but the standard library, so that tables and plots can read it at once.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """How to read the values of one metric; NaN stands outside the range: undefined."""

    unit: str  # "mm" or "px"; empty for a fraction
    minimum: float
    maximum: float
    higher_is_better: bool
    scope: Literal["volume", "slice"]
    what: str  # one line, with the case in which the value is NaN


def _fraction(what: str, minimum: float = 0.0) -> Metric:
    return Metric("", minimum, 1.0, higher_is_better=True, scope="volume", what=what)


def _distance(what: str) -> Metric:
    return Metric("mm", 0.0, math.inf, higher_is_better=False, scope="volume", what=what)


_VOLUME = {
    "DSC": _fraction("Dice similarity coefficient; NaN if both masks are empty"),
    "JI": _fraction("Jaccard index; NaN if both masks are empty"),
    "CC": _fraction("conformity coefficient; NaN if the masks do not overlap", -math.inf),
    "TPR": _fraction("sensitivity, share of the truth that is found; NaN if the truth is empty"),
    "TNR": _fraction("specificity, depends on the field of view; NaN if the truth is full"),
    "PPV": _fraction("precision, share of the prediction that is true; NaN if that is empty"),
    "MSD": _distance("mean symmetric surface distance; NaN if either mask is empty"),
    "HSD": _distance("Hausdorff surface distance, 100th percentile; NaN if either mask is empty"),
}

_SLICE = {
    f"{name}_slice": replace(metric, scope="slice", what=f"in one slice: {metric.what}")
    for name, metric in _VOLUME.items()
}

_PUBLISHED = {
    "DSC_slice_smoothed": replace(
        _SLICE["DSC_slice"], what="in one slice: Dice with 1 added above and below; never NaN"
    ),
    "MSD_slice_px": replace(_SLICE["MSD_slice"], unit="px"),
    "HSD_slice_px": replace(_SLICE["HSD_slice"], unit="px"),
}

METRICS = _VOLUME | _SLICE | _PUBLISHED
