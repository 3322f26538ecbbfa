"""Grey-matter segmentation of one image by a trained network."""

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.slices import Mask, to_image, to_slices

BATCH = 4  # slices
NOISE = 2.0  # upper end of the shift, in standard deviations of the intensities


class Network(Protocol):
    """What is asked of a network, so that nothing here needs a framework."""

    def predict_on_batch(self, x: NDArray[np.float32], /) -> Any:
        """Probabilities (B, H, W, 1) of slices (B, H, W, 1)."""


def segment(
    model: Network,
    image: Any,
    *,
    spacing_mm: float | None = 0.25,
    size_px: int = 200,
    normalise: Literal["volume", "slice"] = "volume",
    threshold: float = 0.999,
    tta: int = 0,
    seed: int = 0,
    centre: Literal["image"] | Mask = "image",
) -> Mask:
    """Segment a nibabel image; the mask is bool and has the image's shape and axis order.

    The defaults are those of the official weights [1]_; `tta=8` is the published test-time
    augmentation. `to_slices`, `to_image` and `probabilities` describe the other knobs.

    Raises
    ------
    DataError
        The image or the cord mask cannot be used, or the network's output is not finite.

    References
    ----------
    .. [1] Perone, Calabrese, Cohen-Adad, Spinal cord gray matter segmentation using deep dilated
       convolutions, Scientific Reports 8, 2018, doi:10.1038/s41598-018-24304-3.
    """
    slices, placement = to_slices(
        image, spacing_mm=spacing_mm, size_px=size_px, normalise=normalise, centre=centre
    )
    probability = probabilities(model, slices, tta=tta, seed=seed)
    return to_image(probability, placement, threshold)


def probabilities(
    model: Network, slices: NDArray[np.float32], *, tta: int = 0, seed: int = 0
) -> NDArray[np.float32]:
    """Mean probability (Z, H, W) of the slices (Z, H, W) and of `tta` brighter copies of them.

    Each copy is all slices plus one number drawn evenly from [0, 2), as published: the network
    should not depend on the zero of the intensities. The same seed draws the same numbers.
    """
    shifts = np.random.default_rng(seed).uniform(high=NOISE, size=tta)
    total = np.zeros(slices.shape)
    for shift in (0.0, *shifts):
        total += _predicted(model, slices + np.float32(shift))
    return (total / (tta + 1)).astype(np.float32)


def _predicted(model: Network, slices: NDArray[np.float32]) -> NDArray[np.float32]:
    batches = range(0, len(slices), BATCH)
    parts = [model.predict_on_batch(slices[at : at + BATCH, ..., None]) for at in batches]
    return np.concatenate([np.asarray(part) for part in parts])[..., 0]
