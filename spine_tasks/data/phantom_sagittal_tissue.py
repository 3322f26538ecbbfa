"""From a neck to the tissue at each point of a sagittal slice.

What varies along the column alone is worked out once, on a fine line, and looked up by each point.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.phantom_sagittal_anatomy import Neck

Plane = NDArray[np.floating[Any]]  # float32 inside: enough for mm, and much faster
Labels = NDArray[np.uint8]

START_MM, END_MM, STEP_MM = -220.0, 320.0, 0.1  # the line, of s
C2_MM, DENS_MM = 16.0, 37.0  # from the disc C2/3 up to the top of the body and of the dens
FORAMEN_MM = 42.0  # up to where the skull begins


class Tissue(IntEnum):
    """Labels of the drawn tissue; each has one signal in a scan."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    SOFT = 4  # in front of the bodies, and between the spinous processes
    MARROW = 5
    BONE = 6  # cortical bone and ligaments
    CSF = 7
    BRAIN = 8
    CORD = 9
    SIGNAL = 10  # the first signal change; the second is 11
    ANNULUS = 20  # of the first disc; its nucleus is 21, the second disc's are 22 and 23, ...


@dataclass(frozen=True)
class _Along:
    """What varies along the column alone; arrays over s."""

    s: Plane
    disc: NDArray[np.intp]  # number of the nearest disc
    disc_ds: Plane  # from its middle
    half_height: Plane
    bulge: Plane
    bone_ds: Plane  # from the middle of the vertebra between two discs
    half_depth: Plane  # of the vertebral body
    canal_front: Plane  # t of the edges of canal and cord
    canal_back: Plane
    cord_front: Plane
    cord_back: Plane

    def cord_middle(self, s_mm: float) -> tuple[float, float]:
        """Of the cord at a height: t of its middle, and its depth."""
        front, back = (np.interp(s_mm, self.s, edge) for edge in (self.cord_front, self.cord_back))
        return float(front + back) / 2, float(back - front)


class _Points(NamedTuple):
    """Points of a plane, in the neck's coordinates."""

    s: Plane
    t: Plane
    at: NDArray[np.intp]  # index of s on the line

    def where(self, mask: NDArray[np.bool_]) -> "_Points":
        return _Points(self.s[mask], self.t[mask], self.at[mask])


def tissue_map(neck: Neck, x_mm: Plane, y_mm: Plane, z_mm: float) -> Labels:
    """The tissue at each point of the sagittal plane at `z_mm`.

    Parameters
    ----------
    neck
        Whose.
    x_mm, y_mm
        Coordinates from the image's middle, to the back (1, W) and down (H, 1).
    z_mm
        Of the plane, from the middle of the neck.

    Returns
    -------
    NDArray[np.uint8]
        Labels (H, W). A signal change lies inside the cord, and the cord inside the canal.
    """
    s, t = _to_neck_axes(neck, x_mm.astype(np.float32), y_mm.astype(np.float32))
    points = _Points(s, t, _index(s))
    along = _along(neck, z_mm)
    labels = _soft_tissue(neck, along, points)
    # Each part is drawn on the points around it alone, for speed.
    behind = (t > neck.half_depth_mm) & (t < 75) & (s > -25)
    labels[behind] = _spinous_processes(labels[behind], neck, along, points.where(behind), z_mm)
    above = s < -15
    labels[above] = _head(labels[above], neck, points.where(above))
    middle = np.abs(t - 9) < 24
    labels[middle] = _column(labels[middle], neck, along, points.where(middle))
    labels[middle] = _canal(labels[middle], neck, along, points.where(middle), z_mm)
    return labels


def _to_neck_axes(neck: Neck, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Each point's (s, t): its nearest point on the column's line, and how far behind it is."""

    def line(at: Plane) -> Plane:
        return neck.column_x_mm + at * (
            neck.tilt + at * (neck.bend_per_mm + at * neck.twist_per_mm2)
        )

    def slope(at: Plane) -> Plane:
        return neck.tilt + at * (2 * neck.bend_per_mm + at * 3 * neck.twist_per_mm2)

    nearest = np.broadcast_to(y, np.broadcast_shapes(x.shape, y.shape))
    for _ in range(3):  # towards where (x, y) lies square to the line
        nearest = (y + (x - line(nearest)) * slope(nearest)).clip(-130, 130)
    t = (x - line(nearest)) * np.sqrt(1 + slope(nearest) ** 2)
    # The line's length from the disc C2/3 on, looked up by height.
    fine = np.arange(-131, 131.5, 0.1, dtype=np.float32)
    length = np.cumsum(np.sqrt(1 + slope(fine) ** 2)) * np.float32(0.1)
    length -= np.interp(neck.top_y_mm, fine, length).astype(np.float32)
    return length[((nearest + 131) * 10).astype(np.intp)], t


def _along(neck: Neck, z_mm: float) -> _Along:
    s = np.arange(START_MM, END_MM, STEP_MM, dtype=np.float32)
    middles = np.array([disc.s_mm for disc in neck.discs], np.float32)
    disc = np.abs(s[:, None] - middles).argmin(axis=1)
    bulges = np.array([one.bulge_at(z_mm) for one in neck.discs], np.float32)
    heights = np.array([one.height_mm for one in neck.discs], np.float32)
    bodies = np.array([-C2_MM / 2, *(middles[1:] + middles[:-1]) / 2], np.float32)
    bone_ds = s - bodies[np.abs(s[:, None] - bodies).argmin(axis=1)]
    half_depth = neck.half_depth_mm * (0.95 + 0.05 * np.clip(np.abs(bone_ds) / 7, 0, 1) ** 2)
    half_depth = np.where(s < -C2_MM, 0.68 * neck.half_depth_mm, half_depth)
    disc_ds = s - middles[disc]
    bump = bulges[disc] * np.exp(-((disc_ds / (0.5 * heights[disc] + 1.5)) ** 4))
    front = neck.half_depth_mm + 0.9 + bump
    canal = neck.canal_mm * (1 - (z_mm / 11) ** 2 / 2)
    back = neck.half_depth_mm + 0.9 + canal + 2.0 * _rise(-s - 20, 12)
    thickness = neck.cord_mm * math.sqrt(1 - (z_mm / 7) ** 2) * (1 + 0.9 * _rise(-s - 52, 8))
    middle = neck.half_depth_mm + 0.9 + canal / 2 + neck.cord_shift_mm
    # A bulge that reaches the cord dents it and pushes it back, as far as the canal allows.
    cord_front = np.maximum(middle - thickness / 2, front + 0.3)
    pushed = cord_front - (middle - thickness / 2)
    cord_back = np.minimum(middle + thickness / 2 + 0.5 * pushed, back - 0.6)
    return _Along(
        s=s,
        disc=disc,
        disc_ds=disc_ds,
        half_height=heights[disc] / 2,
        bulge=bulges[disc],
        bone_ds=bone_ds,
        half_depth=half_depth,
        canal_front=front,
        canal_back=back,
        cord_front=cord_front,
        cord_back=cord_back,
    )


def _soft_tissue(neck: Neck, along: _Along, points: _Points) -> Labels:
    """Throat and airway in front, muscle, fat and skin behind, air around."""
    line, (s, t, at) = along.s, points
    wall = neck.half_depth_mm + 3.0 + 7.0 * _rise(line - 55, 4)  # in front of the bodies
    airway = wall + 9.0 + 2.5 * np.sin(line / 9 + neck.texture[0])
    chin = neck.throat_mm + 70 * _rise(-line - 8, 7) + 25 * _rise(line - 105, 10)
    skin_front = neck.half_depth_mm + chin
    muscle = along.canal_back + neck.muscle_mm + 10 * _rise(-line - 30, 10)
    skin_back = muscle + neck.fat_mm + 8 * _rise(line - 90, 15)
    labels = np.full(t.shape, Tissue.MUSCLE, np.uint8)
    phase, other = neck.texture
    # Planes of fat between layers of muscle: long, wavy and broken streaks along the neck.
    wave = 4 * np.sin(0.06 * line + phase) + 2 * np.sin(0.17 * line + other) - 0.22 * line
    streaks = np.sin(0.75 * (t + wave[at])) + 0.6 * np.sin(0.11 * s + 0.16 * t + other)
    labels[streaks > 1.15] = Tissue.FAT
    labels[(t < -skin_front[at] + 5) | (t > muscle[at])] = Tissue.FAT
    labels[(t > -wall[at] - 1.5) & (t < 0)] = Tissue.SOFT
    labels[(t < -wall[at]) & (t > -airway[at])] = Tissue.AIR
    labels[(t < -skin_front[at] + 1.5) | (t > skin_back[at] - 1.5)] = Tissue.SKIN
    labels[(t < -skin_front[at]) | (t > skin_back[at])] = Tissue.AIR
    return labels


def _spinous_processes(
    labels: Labels, neck: Neck, along: _Along, points: _Points, z_mm: float
) -> Labels:
    """Bars behind the canal, slanting down; next to the middle only the arches are left."""
    behind = points.t - along.canal_back[points.at]
    straight = points.s - neck.slope * np.maximum(behind, 0)
    root = _index(straight)
    ds = along.bone_ds[root] - 3.0
    grown = 20 + 14 * _rise(along.s - 85, 6) + 8 * _rise(-along.s + 2, 3)
    half = (grown * (1 - 0.5 * min(abs(z_mm) / 3.5, 1)) / 2)[root]
    distance = _rounded((behind - 2.0 - half) / half, ds / (4.2 + 0.06 * behind))
    distance[straight < -C2_MM] = np.inf
    labels[(behind > 0) & (behind < 22) & (labels == Tissue.MUSCLE)] = Tissue.SOFT
    labels[distance < 1.0] = Tissue.BONE
    labels[distance < 0.62] = Tissue.MARROW
    labels[(behind > -1) & (behind < 1.6)] = Tissue.BONE  # yellow ligament and arches
    labels[(behind > 0.2) & (behind < 2.6) & (np.abs(ds) > 6) & (points.s > 0)] = Tissue.FAT
    return labels


def _head(labels: Labels, neck: Neck, points: _Points) -> Labels:
    """What lies above C2: the arch of C1, the skull and the brain in it."""
    s, t, _ = points
    back = neck.half_depth_mm + neck.canal_mm
    for center_s, center_t, half_s, half_t in (
        (-28.0, -0.68 * neck.half_depth_mm - 5.5, 5.0, 3.2),  # anterior arch of C1
        (-27.0, back + 7.0, 4.2, 3.6),  # posterior arch
    ):
        distance = np.hypot((s - center_s) / half_s, (t - center_t) / half_t)
        labels[distance < 1] = Tissue.BONE
        labels[distance < 0.7] = Tissue.MARROW
    up = -s - FORAMEN_MM
    skull = np.hypot((up - 42) / 45, (t - back - 8) / 46)
    labels[(skull < 1.12) & (up > -5)] = Tissue.BONE
    clivus = (t > -9) & (t < 5 + 0.25 * up) & (skull > 0.94)
    labels[(up > 0) & (clivus | ((skull > 1.03) & (skull < 1.09)))] = Tissue.MARROW
    inside = (skull < 1) & (up > -4) & (labels != Tissue.MARROW)
    labels[inside] = Tissue.CSF
    cerebellum = np.hypot((up - 34) / 31, (t - back - 17) / 22)
    folia = np.sin(1.3 * t + 1.1 * up + 2 * np.sin(0.3 * t - 0.2 * up)) > 0.9
    labels[inside & (cerebellum < 1) & ~(folia & (cerebellum > 0.4))] = Tissue.BRAIN
    return labels


def _column(labels: Labels, neck: Neck, along: _Along, points: _Points) -> Labels:
    """Vertebral bodies and the dens, then the discs between them."""
    s, t, at = points
    dens = s < -C2_MM
    ahead = np.abs(t + np.where(dens, 1.5, 0)) - along.half_depth[at]
    front = -neck.half_depth_mm - 1.0
    labels[dens & (s > -DENS_MM) & (t > front) & (t < along.canal_front[at])] = Tissue.SOFT
    labels[~dens & (t > front) & (t < along.canal_front[at])] = Tissue.BONE
    tip = np.hypot(np.minimum(s + DENS_MM - 5, 0) / 5, (t + 1.5) / (0.68 * neck.half_depth_mm))
    labels[(ahead < 0.9) & (~dens | (tip < 1.15))] = Tissue.BONE
    labels[(ahead < 0) & (~dens | (tip < 1))] = Tissue.MARROW
    # A disc bulges to the front as well, but less.
    bulge, ds, half_height = along.bulge[at], along.disc_ds[at], along.half_height[at]
    across = (t - 0.35 * bulge) / (neck.half_depth_mm + 0.65 * bulge - 0.2)
    number = along.disc[at].astype(np.uint8)
    labels[(_rounded(across, ds / (half_height + 0.7)) < 1) & (ahead < 1)] = Tissue.BONE
    whole = _rounded(across, ds / half_height) < 1
    labels[whole] = Tissue.ANNULUS + 2 * number[whole]
    nucleus = _rounded((across + 0.05) / 0.72, ds / (0.68 * half_height)) < 1
    labels[nucleus] = Tissue.ANNULUS + 1 + 2 * number[nucleus]
    return labels


def _canal(labels: Labels, neck: Neck, along: _Along, points: _Points, z_mm: float) -> Labels:
    """CSF, the cord in it, and the signal changes in the cord."""
    s, t, at = points
    free = labels < Tissue.ANNULUS  # a disc bulges into the canal, not the canal into a disc
    canal = free & (t > along.canal_front[at]) & (t < along.canal_back[at])
    labels[canal & (s > -FORAMEN_MM - 8)] = Tissue.CSF
    cord = free & (t > along.cord_front[at]) & (t < along.cord_back[at])
    labels[cord] = Tissue.CORD
    for number, change in enumerate(neck.signal_changes):
        share = change.share_at(z_mm)
        if share == 0:
            continue
        middle, depth = along.cord_middle(change.s_mm)
        half_s, half_t = share * change.length_mm / 2, share * change.depth * depth / 2
        inside = np.hypot((s - change.s_mm) / half_s, (t - middle) / half_t) < 1
        labels[inside & cord] = Tissue.SIGNAL + number
    return labels


def _index(s: Plane) -> NDArray[np.intp]:
    """Where each s is on the line."""
    return ((s - START_MM) / STEP_MM).astype(np.intp)


def _rounded(across: Plane, up: Plane) -> Plane:
    """Below 1 inside a flat, rounded shape: square to its ends across, round upwards."""
    square = across * across
    return np.asarray(square * square + up * up)


def _rise(x: Plane, width: float) -> Plane:
    """From 0 to 1 around x = 0, over some widths."""
    return np.asarray(0.5 + 0.5 * np.tanh(x / (2 * width)))
