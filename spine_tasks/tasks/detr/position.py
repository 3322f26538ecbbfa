"""Where a feature is in its image: sines and cosines of many wavelengths, for each axis."""

import math

import torch
from torch import Tensor

LONGEST = 10000.0  # longest wavelength over the shortest
EPSILON = 1e-6


def sine(padding: Tensor, features: int) -> Tensor:
    """Sine encoding of the place in the image, without its padding [1]_.

    Parameters
    ----------
    padding
        Bool (B, H, W), true where there is no image.
    features
        Of each axis; even.

    Returns
    -------
    Tensor
        Float32 (B, 2 * features, H, W): of y first, then of x; sine and cosine take turns. An image
        spans 2 pi on either axis, whatever its size and padding are.

    References
    ----------
    .. [1] Carion et al., End-to-end object detection with transformers, ECCV 2020,
       doi:10.1007/978-3-030-58452-8_13.
    """
    image = ~padding
    pairs = torch.arange(features // 2, dtype=torch.float32, device=padding.device)
    wavelengths = LONGEST ** (2 * pairs / features)

    def encode(axis: int) -> Tensor:
        # Whole numbers are summed: GPUs add them up the same way each time.
        place = image.cumsum(axis).float()
        place = 2 * math.pi * place / (place.narrow(axis, -1, 1) + EPSILON)
        angle = place[..., None] / wavelengths
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)

    return torch.cat([encode(1), encode(2)], dim=-1).permute(0, 3, 1, 2)
