"""The made-up scanner of the sagittal phantom: from a neck to a T2-weighted slice and masks."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spine_tasks.data.phantom_sagittal_anatomy import Neck
from spine_tasks.data.phantom_sagittal_tissue import Labels, Tissue, tissue_map
from spine_tasks.data.phantom_scan import add_rician_noise

HEIGHT_PX, WIDTH_PX = 256, 192
PIXEL_MM = 0.75
OVERSAMPLING = 2  # fine points along each side of a pixel, for partial volume


class Thing(NamedTuple):
    """One object to detect."""

    category: str  # healthy, sick or signal_change
    mask: NDArray[np.bool_]  # (H, W), true where it fills at least half of the pixel


class Picture(NamedTuple):
    """One sagittal slice: rows run down, columns to the back."""

    pixels: NDArray[np.uint8]  # (H, W)
    things: tuple[Thing, ...]  # whole ones: what the border cuts is left out
    cord: NDArray[np.bool_]  # (H, W), signal changes included


class Protocol(NamedTuple):
    """How a subject was scanned: the same for both slices."""

    signals: NDArray[np.float64]  # of each tissue label, relative to CSF
    bias: NDArray[np.float64]  # (H, W), a smooth gain
    blur_px: float
    noise: float  # SD in each channel, relative to CSF


def sample_protocol(neck: Neck, rng: np.random.Generator) -> Protocol:
    """Draw contrast, coil, sharpness and noise of one subject."""
    return Protocol(
        _signals(neck, rng), _bias_field(rng), rng.uniform(0.45, 0.8), rng.uniform(0.025, 0.055)
    )


def acquire(neck: Neck, protocol: Protocol, z_mm: float, rng: np.random.Generator) -> Picture:
    """Scan the sagittal slice of a neck at `z_mm`."""
    y_mm, x_mm = (
        (np.arange(n * OVERSAMPLING) - (n * OVERSAMPLING - 1) / 2) * PIXEL_MM / OVERSAMPLING
        for n in (HEIGHT_PX, WIDTH_PX)
    )
    labels = tissue_map(neck, x_mm[None, :], y_mm[:, None], z_mm)
    clean = _sum_of_blocks(protocol.signals[labels]) / OVERSAMPLING**2
    uneven = ndimage.gaussian_filter(rng.standard_normal(clean.shape), 1.5, truncate=2)
    clean = ndimage.gaussian_filter(clean * (1 + 0.25 * uneven), protocol.blur_px, truncate=3)
    signal = add_rician_noise(clean * protocol.bias, protocol.noise, rng)
    white = np.percentile(signal, 99.7)
    pixels = np.rint((255 * signal / white).clip(0, 255)).astype(np.uint8)
    cord = (labels >= Tissue.CORD) & (labels < Tissue.ANNULUS)
    return Picture(pixels, tuple(_things(neck, labels)), _mostly(cord))


def _things(neck: Neck, labels: Labels) -> list[Thing]:
    """The discs from above, then the signal changes."""
    pairs = labels // 2  # annulus and nucleus of a disc are two labels, of one pair
    discs = [
        Thing("sick" if disc.sick else "healthy", _mostly(pairs == Tissue.ANNULUS // 2 + number))
        for number, disc in enumerate(neck.discs)
    ]
    changes = [
        Thing("signal_change", _mostly(labels == Tissue.SIGNAL + number))
        for number in range(len(neck.signal_changes))
    ]
    return [thing for thing in discs + changes if _whole(thing.mask)]


def _whole(mask: NDArray[np.bool_]) -> bool:
    """Whether something is there and the image's border does not cut it."""
    inner = mask[1:-1, 1:-1]
    return bool(inner.any()) and np.count_nonzero(mask) == np.count_nonzero(inner)


def _signals(neck: Neck, rng: np.random.Generator) -> NDArray[np.float64]:
    cord = rng.uniform(0.36, 0.48)
    signals = np.zeros(256)
    for tissue, signal in {
        Tissue.AIR: 0.01,
        Tissue.SKIN: rng.uniform(0.3, 0.5),
        Tissue.FAT: rng.uniform(0.65, 0.95),
        Tissue.MUSCLE: rng.uniform(0.14, 0.24),
        Tissue.SOFT: rng.uniform(0.22, 0.38),
        Tissue.MARROW: rng.uniform(0.36, 0.56),
        Tissue.BONE: 0.07,
        Tissue.CSF: 1.0,
        Tissue.BRAIN: cord * 1.1,
        Tissue.CORD: cord,
    }.items():
        signals[tissue] = signal
    for number, change in enumerate(neck.signal_changes):
        signals[Tissue.SIGNAL + number] = cord + change.raised * (1 - cord)
    annulus = rng.uniform(0.16, 0.24)
    for number, disc in enumerate(neck.discs):
        signals[Tissue.ANNULUS + 2 * number] = annulus
        signals[Tissue.ANNULUS + 2 * number + 1] = max(disc.nucleus, 0.12)
    return signals


def _bias_field(rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth gain around 1: brighter to the coil behind the neck, weaker at the far ends."""
    y, x = np.linspace(-1, 1, HEIGHT_PX)[:, None], np.linspace(-1, 1, WIDTH_PX)[None, :]
    back, down = rng.normal(0.22, 0.06), rng.normal(0, 0.08)
    return np.asarray(np.exp(back * x + down * y - rng.uniform(0.05, 0.25) * y**2))


def _mostly(fine: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of which at least half is true."""
    return np.asarray(2 * _sum_of_blocks(fine.view(np.uint8)) >= OVERSAMPLING**2)


def _sum_of_blocks(fine: NDArray[Any]) -> NDArray[Any]:
    """The sum over each pixel's fine points; slices are much faster than a sum over axes."""
    total = fine[::OVERSAMPLING, ::OVERSAMPLING].copy()
    for row in range(OVERSAMPLING):
        for column in range(OVERSAMPLING):
            if row or column:
                total += fine[row::OVERSAMPLING, column::OVERSAMPLING]
    return total
