"""How well grades of cervical stenosis agree with the reference, with no box left out.

Beside the published figures of `cord_published`, for the same 7 categories.
"""

import numpy as np

from spine_tasks.metrics.box_rates import ratio
from spine_tasks.metrics.boxes import Floats

REGIONS = {"central": (0, 2, 4), "side": (4, 6, 7)}  # first label, first severe one, end


def cord_grades(tables: Floats) -> dict[str, Floats]:
    """Sensitivity and specificity for severe grades, and kappa, of the central canal and the sides.

    Parameters
    ----------
    tables
        (..., 8, 8) boxes as of `spine_tasks.metrics.box_rates.confusions`, counted or weighed.

    Returns
    -------
    dict of str to ndarray
        Each (...), 1 is best. `sensitivity_central` and `_side`: of the reference boxes of a
        severe grade (central 2 and 3, side 2), the share found as severe; a missed box is not
        found. `specificity_central` and `_side`: of those of a mild grade, the share not found as
        severe, so a missed one counts as right, and boxes found on nothing are not seen.
        `kappa_central` and `_side`: Cohen's kappa with quadratic weights [1]_, -1 to 1, of the
        boxes that have two grades of the region: read it with the recall. NaN without a box, or,
        kappa, if reference and found boxes all have one grade.

    References
    ----------
    .. [1] Cohen, Weighted kappa, Psychological Bulletin 70, 1968, doi:10.1037/h0026256.
    """
    scores: dict[str, Floats] = {}
    for name, (first, severe, end) in REGIONS.items():
        rows = {"severe": tables[..., severe:end, :], "mild": tables[..., first:severe, :]}
        called = {grade: row[..., severe:end].sum(axis=(-2, -1)) for grade, row in rows.items()}
        total = {grade: row.sum(axis=(-2, -1)) for grade, row in rows.items()}
        scores[f"sensitivity_{name}"] = ratio(called["severe"], total["severe"])
        scores[f"specificity_{name}"] = 1 - ratio(called["mild"], total["mild"])
        scores[f"kappa_{name}"] = quadratic_kappa(tables[..., first:end, first:end])
    return scores


def quadratic_kappa(tables: Floats) -> Floats:
    """Cohen's kappa with quadratic weights of many tables at once.

    Parameters
    ----------
    tables
        (..., K, K) counts or weights, true grade by found grade.

    Returns
    -------
    ndarray
        (...) -1 to 1, 1 is best; NaN without counts, or if all are of one grade.

    Examples
    --------
    >>> quadratic_kappa(np.array([[2.0, 0.0], [1.0, 1.0]])).round(3)
    np.float64(0.5)
    """
    grades = np.arange(tables.shape[-1])
    apart = (grades[:, None] - grades[None, :]) ** 2
    by_chance = tables.sum(axis=-1)[..., :, None] * tables.sum(axis=-2)[..., None, :]
    observed = (apart * tables).sum(axis=(-2, -1)) * tables.sum(axis=(-2, -1))
    return 1 - ratio(observed, (apart * by_chance).sum(axis=(-2, -1)))
