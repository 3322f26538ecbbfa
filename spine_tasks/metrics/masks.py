"""What every metric of masks asks of its two masks."""

from typing import Any

import numpy as np
import numpy.typing as npt

from spine_tasks.errors import DataError

Mask = npt.NDArray[np.bool_]


def check_masks(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
    """Refuse what is not a pair of masks: numbers would be counted, shapes would be broadcast.

    Raises
    ------
    DataError
        A mask is not bool, or the shapes differ.
    """
    if truth.dtype != np.bool_ or predicted.dtype != np.bool_:
        raise DataError(
            f"masks must be bool, got {truth.dtype} and {predicted.dtype}; threshold first"
        )
    if truth.shape != predicted.shape:
        raise DataError(
            f"masks must have one shape, got truth {truth.shape} and prediction "
            f"{predicted.shape}; bring the prediction to the truth's voxel grid first"
        )
