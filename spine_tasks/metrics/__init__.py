"""What each metric in a table of scores means: unit, range, which end is best.

The names are those of the scores themselves. A name says where it was measured: `DSC` over the
whole volume of a case, `DSC_slice` over one slice, across the cord, `F1` over one image,
`F1_set` over all images. What ends in `_published` is as a study computed it and may say something
else than its name. Fractions are stored as fractions, never as percent.

This table imports nothing but the standard library, so that tables and plots can read it at once.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """How to read the values of one metric; NaN stands outside the range: undefined."""

    unit: str  # "mm", "mm2", "mm3", "px", "boxes" or "places"; empty for a number without
    minimum: float
    maximum: float
    higher_is_better: bool | None  # None: neither end is
    scope: Literal["volume", "slice", "image", "place", "set"]  # one of them, or a set of them
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
    "HD95": _distance("Hausdorff surface distance, 95th percentile; NaN if either mask is empty"),
}

_SLICE = {
    f"{name}_slice": replace(metric, scope="slice", what=f"in one slice: {metric.what}")
    for name, metric in _VOLUME.items()
}


def _size(unit: str, scope: Literal["volume", "slice"], what: str) -> Metric:
    return Metric(unit, 0.0, math.inf, None, scope, what)


_SIZE = {
    "volume": _size("mm3", "volume", "of the prediction; never NaN"),
    "volume_reference": _size("mm3", "volume", "of the truth; never NaN"),
    "RVE": Metric(
        "", -1.0, math.inf, None, "volume", "relative volume error; NaN if the truth is empty"
    ),
    "CSA": _size(
        "mm2", "volume", "area across the cord, mean of slices both masks mark; NaN without one"
    ),
    "CSA_reference": _size("mm2", "volume", "the same of the truth; NaN without such a slice"),
    "CSA_error": replace(
        _size("mm2", "volume", "mean size of their difference; NaN without such a slice"),
        higher_is_better=False,
    ),
    "CSA_slice": _size("mm2", "slice", "area across the cord; NaN if nothing is predicted"),
    "CSA_reference_slice": _size("mm2", "slice", "the same of the truth; NaN if it is empty"),
    "CSA_error_slice": Metric(
        "mm2", -math.inf, math.inf, None, "slice", "difference of both; NaN if either is empty"
    ),
}

_PUBLISHED = {
    "DSC_slice_smoothed": replace(
        _SLICE["DSC_slice"], what="in one slice: Dice with 1 added above and below; never NaN"
    ),
    "MSD_slice_px": replace(_SLICE["MSD_slice"], unit="px"),
    "HSD_slice_px": replace(_SLICE["HSD_slice"], unit="px"),
}


def _of_set(what: str, minimum: float = 0.0) -> Metric:
    return replace(_fraction(what, minimum), scope="set")


_IMAGE = {
    name: replace(_fraction(what), scope="image")
    for name, what in {
        "precision": "share of the boxes found that are right; NaN if none was found",
        "recall": "share of the reference boxes that are found; NaN if there is none",
        "F1": "harmonic mean of precision and recall; NaN without a reference or found box",
    }.items()
}

_AP = {
    "AP": "average precision over IoU .5 to .95, as COCO; NaN without a reference box",
    "AP50": "average precision at IoU .5, as COCO; NaN without a reference box",
    "AP75": "average precision at IoU .75, as COCO; NaN without a reference box",
    "AP_small": "AP of boxes up to 32 x 32 px of the original grid; NaN without one",
    "AP_medium": "AP of boxes up to 96 x 96 px of the original grid; NaN without one",
    "AP_large": "AP of boxes above 96 x 96 px of the original grid; NaN without one",
    "AR1": "average recall of one box a label and image; NaN without a reference box",
    "AR10": "average recall of 10 boxes a label and image; NaN without a reference box",
    "AR100": "average recall of 100 boxes a label and image; NaN without a reference box",
    "AR_small": "AR100 of boxes up to 32 x 32 px of the original grid; NaN without one",
    "AR_medium": "AR100 of boxes up to 96 x 96 px of the original grid; NaN without one",
    "AR_large": "AR100 of boxes above 96 x 96 px of the original grid; NaN without one",
}

_FROC = {
    f"FROC_{rate}": f"sensitivity at {rate} false positives an image; NaN without a reference box"
    for rate in ("0.125", "0.25", "0.5", "1", "2", "4", "8")
}

_SET = {
    **{name: _of_set(what) for name, what in _AP.items()},
    "threshold": replace(
        _of_set("score from which boxes count, by the validation part; NaN: it cannot say, so .5"),
        higher_is_better=None,
    ),
    **{
        f"{name}_set": replace(metric, scope="set", what=f"of all images together: {metric.what}")
        for name, metric in _IMAGE.items()
    },
    **{name: _of_set(what) for name, what in _FROC.items()},
    "FROC": _of_set("mean of the seven sensitivities above; NaN without a reference box"),
    "sensitivity_image": _of_set("share of positive images called so; NaN without one"),
    "specificity_image": _of_set("share of negative images called so; NaN without one"),
    # One for each category and for `background`.
    "found_as_<label>": Metric(
        "boxes", 0.0, math.inf, None, "set", "how many of the label were found as this; never NaN"
    ),
}

_GRADES = {
    f"{name}_{region}": _of_set(what, minimum)
    for region in ("central", "side")
    for name, minimum, what in (
        ("sensitivity", 0.0, "share of severe boxes found as severe; NaN without one"),
        ("specificity", 0.0, "share of mild boxes not found as severe; NaN without one"),
        ("kappa", -1.0, "quadratic weighted kappa of boxes with two grades; NaN if all have one"),
    )
}

_BOXES_PUBLISHED = {
    f"{name}_published": _of_set(what)
    for name, what in {
        "precision": "share of reference boxes found with their label; never NaN",
        "recall": "the same boxes, against pairs of two labels; never NaN",
        "F1": "harmonic mean of these two; never NaN",
        "AP": "how well scores tell sick reference boxes from healthy ones; NaN without a sick one",
        "recall_overall": "share of reference boxes found at all; NaN without one",
        "recall_central": "share of central boxes found as central; NaN without one",
        "recall_side": "share of side boxes found as side; NaN without one",
        "accuracy_7": "share of boxes found that have their grade; NaN if none was found",
        "accuracy_central_4": "the same of central boxes; NaN if none was found",
        "accuracy_side_3": "the same of side boxes; NaN if none was found",
        "accuracy_4": "share of boxes found that are mild or severe rightly; NaN if none was found",
        "accuracy_central_2": "the same of central boxes; NaN if none was found",
        "accuracy_side_2": "the same of side boxes; NaN if none was found",
    }.items()
}

_PLACE = {
    "right": replace(
        _fraction("whether a place is given its grade, 1 or 0; never NaN"), scope="place"
    ),
    "log_loss_place": Metric(
        "",
        0.0,
        math.inf,
        higher_is_better=False,
        scope="place",
        what="minus the logarithm of the true grade's probability, at most 34.5; never NaN",
    ),
}


def _loss_of_set(what: str) -> Metric:
    return Metric("", 0.0, math.inf, higher_is_better=False, scope="set", what=what)


_GRADED = {
    **{
        name: _of_set(what, minimum)
        for name, minimum, what in (
            ("accuracy", 0.0, "share of places that are given their grade; NaN without one"),
            ("accuracy_majority", 0.0, "accuracy of the training part's most frequent grade"),
            ("balanced_accuracy", 0.0, "mean recall over grades; NaN if one is absent"),
            ("precision_macro", 0.0, "mean precision over grades; NaN if one is never given"),
            ("F1_macro", 0.0, "mean F1 over grades; NaN if one is neither given nor true"),
            (
                "AUROC",
                0.0,
                "of the second of two grades, else mean over grades, each against the"
                " rest; NaN if one is absent",
            ),
            (
                "kappa",
                -1.0,
                "quadratic weighted kappa of the most probable grade; NaN if all are of one grade",
            ),
            (
                "kappa_mean_grade",
                -1.0,
                "quadratic weighted kappa of the rounded mean grade; NaN as kappa",
            ),
            ("precision_grade", 0.0, "share of places given the grade that have it; NaN without"),
            ("recall_grade", 0.0, "share of places with the grade that are given it; NaN without"),
            ("F1_grade", 0.0, "harmonic mean of both; NaN if the grade is neither given nor true"),
            ("AUROC_grade", 0.0, "of the grade against the rest; NaN if either is absent"),
        )
    },
    **{
        name: _loss_of_set(what)
        for name, what in {
            "log_loss": "mean of minus the logarithm of the true grade's probability; NaN without"
            " a place",
            "log_loss_prior": "log loss of the training part's shares of the grades",
            "log_loss_tempered": "log loss by the temperature of the validation part; NaN without",
            "log_loss_weighted": "log loss weighted 1, 2, 4 by true grade, as the RSNA challenge",
            "any_severe_spinal": "log loss of a severe canal anywhere in a study, as the RSNA"
            " challenge",
            "rsna": "mean of the RSNA challenge's four terms",
        }.items()
    },
    "ECE": replace(_of_set("expected calibration error, 15 bins"), higher_is_better=False),
    "ECE_tempered": replace(
        _of_set("the same by the temperature of the validation part; NaN without"),
        higher_is_better=False,
    ),
    "temperature": Metric(
        "", 0.05, 20.0, None, "set", "by the validation part; above 1: it was too sure; NaN without"
    ),
    # One for each grade.
    "graded_as_<label>": Metric(
        "places", 0.0, math.inf, None, "set", "how many of the label were given this; never NaN"
    ),
}

OF_MASKS = _VOLUME | _SLICE | _SIZE | _PUBLISHED
OF_BOXES = _IMAGE | _SET | _GRADES | _BOXES_PUBLISHED
OF_PLACES = _PLACE | _GRADED
METRICS = OF_MASKS | OF_BOXES | OF_PLACES
