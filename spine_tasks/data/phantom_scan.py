"""The made-up scanner of the phantom: from an anatomy to a T2*-weighted volume and its masks."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from spine_tasks.data.phantom_anatomy import Anatomy, Population, Tissue, tissue_map

OVERSAMPLING = 3  # fine points along each side of a voxel in plane, for partial volume
SUBSLICES = 2  # fine planes a slice


class Scan(NamedTuple):
    """One subject's volume and its exact masks."""

    image: NDArray[np.float32]  # (X, Y, Z), whole numbers >= 0, scanner units
    gray_matter: NDArray[np.bool_]  # (X, Y, Z)
    cord: NDArray[np.bool_]  # (X, Y, Z), gray matter included
    affine: NDArray[np.float64]  # (4, 4), voxel index to mm in RAS+


@dataclass(frozen=True, kw_only=True)
class Site:
    """The protocol of one site; a subject's volume has its voxel grid."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    gain: float  # signal of white matter, in scanner units
    csf: float  # signal of CSF relative to white matter
    noise: float  # relative to the population's


SITES = {
    "A": Site(shape=(64, 64, 6), spacing_mm=(0.5, 0.5, 5.0), gain=800, csf=1.7, noise=0.9),
    "B": Site(shape=(72, 68, 6), spacing_mm=(0.45, 0.45, 5.0), gain=1300, csf=2.1, noise=1.15),
    "C": Site(shape=(64, 60, 7), spacing_mm=(0.5, 0.5, 4.5), gain=350, csf=1.9, noise=1.0),
    "D": Site(shape=(60, 60, 6), spacing_mm=(0.52, 0.52, 5.0), gain=500, csf=1.8, noise=1.0),
}


def acquire(anatomy: Anatomy, group: Population, protocol: Site, rng: np.random.Generator) -> Scan:
    """Scan one subject with a site's protocol; draws contrast, coil, position and noise."""
    return expose(anatomy, t2star_signals(group, protocol, rng), group, protocol, rng)


def expose(
    anatomy: Anatomy,
    signals: NDArray[np.float64],
    group: Population,
    protocol: Site,
    rng: np.random.Generator,
) -> Scan:
    """Scan with the signal of each `Tissue`, in its order; draws blur, coil, position and noise."""
    clean, gray_matter, cord = render(anatomy, signals, protocol.shape, protocol.spacing_mm)
    blur_px = group.blur_mm * rng.uniform(0.8, 1.3) / protocol.spacing_mm[0]
    clean = ndimage.gaussian_filter(clean, (blur_px, blur_px, 0), mode="nearest")
    clean *= _bias_field(protocol.shape, rng)
    affine = position(protocol, rng)
    sigma = group.noise * protocol.noise * rng.uniform(0.85, 1.2)
    # Whole numbers, as scanners write them: the volume is the same in memory and in its file.
    image = np.rint(protocol.gain * add_rician_noise(clean, sigma, rng)).astype(np.float32)
    return Scan(image, gray_matter, cord, affine)


def render(
    anatomy: Anatomy,
    signals: NDArray[np.float64],
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """The anatomy on a voxel grid with partial volume, without blur, bias or noise.

    Parameters
    ----------
    anatomy
        What to draw.
    signals
        The signal of each `Tissue`, in its order.
    shape
        Voxels along X, Y and Z.
    spacing_mm
        Their size in mm along X, Y and Z.

    Returns
    -------
    tuple
        Signal, gray-matter mask and cord mask, each (X, Y, Z); a mask is true where the tissue
        fills at least half of the voxel.
    """
    x_mm, y_mm, z_mm = (
        (np.arange(n * fine) - (n * fine - 1) / 2) * size / fine
        for n, size, fine in zip(
            shape, spacing_mm, (OVERSAMPLING, OVERSAMPLING, SUBSLICES), strict=True
        )
    )
    planes = [tissue_map(anatomy, x_mm[:, None], y_mm[None, :], z) for z in z_mm]
    tissues = np.stack(planes, axis=-1)
    gray_matter = tissues == Tissue.GRAY_MATTER
    cord = tissues >= Tissue.WHITE_MATTER
    return (
        _block_mean(signals[tissues]),
        _block_mean(gray_matter) >= 0.5,
        _block_mean(cord) >= 0.5,
    )


def add_rician_noise(
    clean: NDArray[np.float64], sigma: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The magnitude of a complex signal with noise of SD `sigma` in both channels.

    Where there is no signal, the result has mean sigma sqrt(pi/2), not zero.

    References
    ----------
    Gudbjartsson and Patz, The Rician distribution of noisy MRI data, Magn Reson Med 34, 1995,
    doi:10.1002/mrm.1910340618.
    """
    real, imaginary = sigma * rng.standard_normal((2, *clean.shape))
    return np.asarray(np.hypot(clean + real, imaginary))


def t2star_signals(
    group: Population, protocol: Site, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The T2*-weighted signal of each `Tissue` relative to white matter; subjects differ."""
    csf = protocol.csf * rng.normal(1, 0.06)
    signal_of = {
        Tissue.MUSCLE: rng.uniform(0.35, 0.8),
        Tissue.FAT: rng.uniform(0.6, 1.0),
        Tissue.MARROW: rng.uniform(0.15, 0.45),
        Tissue.BONE: 0.08,
        Tissue.CSF: csf,
        Tissue.ROOT: 1.1,
        Tissue.WHITE_MATTER: 1.0,
        Tissue.FISSURE: (1 + csf) / 2,
        Tissue.GRAY_MATTER: 1 + group.gray_white_contrast * rng.normal(1, 0.1),
    }
    return np.array([signal_of[tissue] for tissue in Tissue])


def _bias_field(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth gain (X, Y, Z) around 1: brighter to the coil behind the neck, uneven elsewhere."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    along = rng.normal((0, -0.12, 0), (0.05, 0.05, 0.05))
    across = rng.normal(0, 0.05, 3)
    linear = along[0] * x + along[1] * y + along[2] * z
    return np.asarray(np.exp(linear + across[0] * x * y + across[1] * x**2 + across[2] * y**2))


def position(protocol: Site, rng: np.random.Generator) -> NDArray[np.float64]:
    """A slightly oblique affine whose volume's middle is some mm off the scanner's."""
    affine = np.eye(4)
    oblique = Rotation.from_euler("xyz", rng.normal(0, (6, 2, 2)), degrees=True)
    affine[:3, :3] = oblique.as_matrix() * protocol.spacing_mm
    middle = (np.array(protocol.shape) - 1) / 2
    affine[:3, 3] = rng.normal(0, (3, 15, 20)) - affine[:3, :3] @ middle
    return affine


def _block_mean(fine: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of each voxel's fine points."""
    x, y, z = fine.shape
    blocks = fine.reshape(
        x // OVERSAMPLING, OVERSAMPLING, y // OVERSAMPLING, OVERSAMPLING, z // SUBSLICES, SUBSLICES
    )
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float64))
