"""The made-up anatomy of a phantom subject: which tissue is at which millimetre.

Coordinates are mm from the middle of the volume: x to the subject's right, y to anterior, z to
superior. The cord's own coordinates u (right) and v (anterior) are 1 at the edge of the cord.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Point = tuple[float, float]


class Tissue(IntEnum):
    """Labels of the rendered tissue map; each has one signal in a scan."""

    MUSCLE = 0
    FAT = 1
    MARROW = 2  # of the vertebral body
    BONE = 3  # cortical bone and ligaments
    CSF = 4
    ROOT = 5  # nerve roots in the CSF
    WHITE_MATTER = 6
    FISSURE = 7  # anterior median fissure: thin, and part of the cord as raters draw it
    GRAY_MATTER = 8


@dataclass(frozen=True, kw_only=True)
class Population:
    """What the subjects of one population have in common; values are means over subjects."""

    cord_half_width_mm: float  # left-right
    cord_half_depth_mm: float  # anterior-posterior
    horn_thickness: float  # relative to the adult mean
    gray_white_contrast: float  # (GM - WM) / WM, before partial volume
    noise: float  # SD of the noise in each channel, as a fraction of the WM signal
    blur_mm: float  # SD of the in-plane point spread: motion and sampling
    sites: tuple[str, ...]


# Adult sizes, contrast and noise are those of the open T2*-weighted cervical data of the grey
# matter challenge (cord 77 to 89 mm2, GM 13 to 16 mm2, GM/WM 1.12 to 1.17, noise 4 to 10 %).
# Paediatric ones are assumptions: a smaller cord with thinner horns at the same voxel size, and a
# shorter scan of a less patient subject.
POPULATIONS = {
    "adult": Population(
        cord_half_width_mm=6.2,
        cord_half_depth_mm=3.9,
        horn_thickness=1.0,
        gray_white_contrast=0.29,
        noise=0.05,
        blur_mm=0.25,
        sites=("A", "B", "C"),
    ),
    "paediatric": Population(
        cord_half_width_mm=5.5,
        cord_half_depth_mm=3.6,
        horn_thickness=0.85,
        gray_white_contrast=0.22,
        noise=0.07,
        blur_mm=0.35,
        sites=("C", "D"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """One subject's cord and canal; lengths in mm, angles in radians, the rest relative."""

    half_width_mm: float
    half_depth_mm: float
    enlargement: float  # growth of the cord's width at the enlargement's peak
    enlargement_z_mm: float
    center_mm: Point
    slope: Point  # mm in x and y per mm in z: the cord runs obliquely
    bend_per_mm: float  # curvature of the cord's line in y
    rotation: float
    twist_per_mm: float
    horn_thickness: float
    ventral_tip: Point  # (u, v) of the right ventral horn
    dorsal_tip: Point  # (u, v) of the right dorsal horn
    commissure_v: float
    asymmetry: float  # left minus right horn thickness
    canal_half_width_mm: float
    canal_half_depth_mm: float
    canal_shift_mm: float  # canal's middle minus the cord's, to anterior


def sample_anatomy(population: Population, rng: np.random.Generator) -> Anatomy:
    """Draw one subject's anatomy; the same state of `rng` gives the same anatomy."""
    normal, uniform = rng.normal, rng.uniform
    size = normal(1, 0.035)
    half_width_mm = population.cord_half_width_mm * size * normal(1, 0.02)
    half_depth_mm = population.cord_half_depth_mm * size * normal(1, 0.03)
    return Anatomy(
        half_width_mm=half_width_mm,
        half_depth_mm=half_depth_mm,
        enlargement=uniform(0.04, 0.16),
        enlargement_z_mm=uniform(-15, 15),
        center_mm=(uniform(-2, 2), uniform(-1.5, 1.5)),
        slope=(uniform(-0.03, 0.03), uniform(-0.06, 0.06)),
        bend_per_mm=uniform(-0.002, 0.002),
        rotation=np.radians(normal(0, 4)),
        twist_per_mm=np.radians(normal(0, 0.08)),
        horn_thickness=population.horn_thickness * normal(1, 0.1),
        ventral_tip=(normal(0.33, 0.035), normal(0.33, 0.05)),
        dorsal_tip=(normal(0.43, 0.045), normal(-0.70, 0.05)),
        commissure_v=normal(0.02, 0.05),
        asymmetry=normal(0, 0.06),
        canal_half_width_mm=half_width_mm + uniform(3.2, 5.2),
        canal_half_depth_mm=half_depth_mm + uniform(1.8, 3.4),
        canal_shift_mm=uniform(-1, 1),
    )


def tissue_map(anatomy: Anatomy, x_mm: Plane, y_mm: Plane, z_mm: float) -> NDArray[np.uint8]:
    """The `Tissue` at each point of the plane at height `z_mm`.

    Parameters
    ----------
    anatomy
        Whose.
    x_mm, y_mm
        Coordinates of the points, of shapes that broadcast to (X, Y).
    z_mm
        Height of the plane, in mm.

    Returns
    -------
    NDArray[np.uint8]
        Labels (X, Y). Gray matter lies inside the cord, and the cord inside the canal.
    """
    x, y = _to_cord_axes(anatomy, x_mm, y_mm, z_mm)
    growth = anatomy.enlargement * np.exp(-(((z_mm - anatomy.enlargement_z_mm) / 12) ** 2))
    u = x / (anatomy.half_width_mm * (1 + growth))
    v = y / (anatomy.half_depth_mm * (1 + growth / 2))
    labels = _surroundings(anatomy, x, y - anatomy.canal_shift_mm)
    csf = labels == Tissue.CSF
    labels[csf] = np.where(_roots(u[csf], v[csf]), Tissue.ROOT, Tissue.CSF)
    cord = np.hypot(u, v) < 1
    labels[cord] = _cord(anatomy, u[cord], v[cord], growth)
    return labels


def _to_cord_axes(anatomy: Anatomy, x_mm: Plane, y_mm: Plane, z_mm: float) -> tuple[Plane, Plane]:
    """Coordinates in mm from the cord's centre at this height, along the cord's own axes."""
    x = x_mm - anatomy.center_mm[0] - anatomy.slope[0] * z_mm
    y = y_mm - anatomy.center_mm[1] - anatomy.slope[1] * z_mm - anatomy.bend_per_mm * z_mm**2
    angle = anatomy.rotation + anatomy.twist_per_mm * z_mm
    return (
        np.cos(angle) * x + np.sin(angle) * y,
        np.cos(angle) * y - np.sin(angle) * x,
    )


def _cord(anatomy: Anatomy, u: Plane, v: Plane, growth: float) -> NDArray[np.uint8]:
    labels = np.full(u.shape, Tissue.WHITE_MATTER, np.uint8)
    labels[(v > 0.25) & (np.abs(u) < 0.025 + 0.03 * v)] = Tissue.FISSURE
    labels[_gray_matter(anatomy, u, v, growth)] = Tissue.GRAY_MATTER
    return labels


def _gray_matter(anatomy: Anatomy, u: Plane, v: Plane, growth: float) -> NDArray[np.bool_]:
    """The butterfly: commissure, thick ventral horns, and thin dorsal horns with a knee."""
    side = np.abs(u)
    thickness = anatomy.horn_thickness * (1 + anatomy.asymmetry * np.sign(u) / 2)
    root, knee = (0.17, anatomy.commissure_v), (0.25, -0.30)
    bodies = [
        (_distance_along(side, v, (0.0, anatomy.commissure_v), root), 0.065, 0.075),
        (_distance_along(side, v, root, anatomy.ventral_tip), 0.10, 0.16 * (1 + growth)),
        (_distance_along(side, v, root, knee), 0.085, 0.08),
        (_distance_along(side, v, knee, anatomy.dorsal_tip), 0.08, 0.06),
    ]
    inside = np.zeros(u.shape, bool)
    for (distance, along), first, last in bodies:
        inside |= distance < thickness * (first + (last - first) * along)
    return inside


def _roots(u: Plane, v: Plane) -> NDArray[np.bool_]:
    side = np.abs(u)
    ventral = _distance_along(side, v, (0.75, 1.05), (1.3, 0.55))[0] < 0.06
    dorsal = _distance_along(side, v, (0.85, -0.85), (1.35, -0.2))[0] < 0.07
    return ventral | dorsal


def _surroundings(anatomy: Anatomy, x: Plane, y: Plane) -> NDArray[np.uint8]:
    """Vertebra, muscle and the canal full of CSF; (0, 0) is the canal's middle."""
    side, depth = np.abs(x), anatomy.canal_half_depth_mm
    # A rounded triangle: wide in front, pointed behind.
    width = anatomy.canal_half_width_mm * (1 + 0.22 * np.clip(y / depth, -1.5, 1.2))
    canal = np.hypot(side / width, y / depth)
    body = np.hypot(x / 12, (y - depth - 9.5) / 9)
    lamina = _distance_along(side, y, (12.0, 1.0), (0.0, -depth - 3.5))[0]
    process = _distance_along(side, y, (0.0, -depth - 3.0), (0.0, -40.0))[0] < 1.6
    labels = np.full(canal.shape, Tissue.MUSCLE, np.uint8)
    labels[lamina % 5 < 0.35] = Tissue.FAT  # between the layers of muscle
    labels[(body < 1.1) | (lamina < 1.5) | process | (canal < 1.12)] = Tissue.BONE
    labels[body < 1] = Tissue.MARROW
    labels[canal < 1.03] = Tissue.BONE  # dura and ligament, between marrow and CSF
    labels[canal < 1] = Tissue.CSF
    return labels


def _distance_along(x: Plane, y: Plane, start: Point, end: Point) -> tuple[Plane, Plane]:
    """Distance to a line segment, and how far along it (0 to 1) its nearest point is."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - along * dx, y - start[1] - along * dy), along
