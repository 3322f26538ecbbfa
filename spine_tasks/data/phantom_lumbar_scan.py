"""The made-up lumbar spine of the grading phantom: from grades to slices.

Millimetres as DICOM has them: x to the left, y to the back, z to the head.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spine_tasks.data.phantom_scan import add_rician_noise

LEVEL_Z_MM = (64.0, 32.0, 0.0, -32.0, -64.0)  # L1/L2 to L5/S1
CANAL_Y_MM, CANAL_MM = 14.0, 8.0  # middle and half width
FORAMEN_X_MM, FORAMEN_Y_MM, FORAMEN_MM = 17.0, 12.0, 6.0
RECESS_X_MM, RECESS_Y_MM, RECESS_MM = 9.0, 10.0, 4.0
LEFT = {"left": 1.0, "right": -1.0}
OPEN = (1.0, 0.6, 0.25)  # how much of it is left at a grade
REACH_MM = 7.0  # of a narrowing, up and down from its level

# Signals on T2 and T1, relative to the brightest.
TISSUE = {"muscle": (0.25, 0.35), "bone": (0.45, 0.6), "disc": (0.35, 0.4)}
FLUID, FAT = (1.0, 0.2), (0.7, 1.0)

Floats = NDArray[np.float64]
Grades = Mapping[tuple[str, str, int], int]  # (condition, side, level 0 to 4) -> grade


def place_mm(condition: str, side: str, level: int) -> tuple[float, float, float]:
    """The middle of what is graded: x, y, z."""
    z = LEVEL_Z_MM[level]
    if condition == "neural_foraminal_narrowing":
        return LEFT[side] * FORAMEN_X_MM, FORAMEN_Y_MM, z
    if condition == "subarticular_stenosis":
        return LEFT[side] * RECESS_X_MM, RECESS_Y_MM, z
    return 0.0, CANAL_Y_MM, z


def scan(
    grades: Grades, x: Floats, y: Floats, z: Floats, t1: bool, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """The signal at some points, with blur and noise.

    Parameters
    ----------
    x, y, z
        mm, together of shape (H, W).

    Returns
    -------
    ndarray
        (H, W) from 0 to about 1,500.
    """
    x, y, z = np.broadcast_arrays(x, y, z)
    signal = np.full(x.shape, TISSUE["muscle"][t1])
    from_level = np.abs(z[..., None] - np.array(LEVEL_Z_MM))
    body = (np.abs(x) < 22) & (y > -28) & (y < 5)
    signal[body] = TISSUE["bone"][t1]
    signal[body & (from_level.min(axis=-1) < 5)] = TISSUE["disc"][t1]
    for (condition, side, level), grade in grades.items():
        if condition.startswith("spinal"):
            continue
        of_foramen = condition.startswith("neural")
        size = (FORAMEN_MM if of_foramen else RECESS_MM) * OPEN[grade]
        at_x, at_y, at_z = place_mm(condition, side, level)
        away = np.sqrt((x - at_x) ** 2 + (y - at_y) ** 2 + (z - at_z) ** 2)
        signal[away < size] = (FAT if of_foramen else FLUID)[t1]
    narrowed = np.ones(x.shape)
    for level in range(len(LEVEL_Z_MM)):
        left = OPEN[grades["spinal_canal_stenosis", "", level]]
        narrowed -= (1 - left) * np.exp(-((from_level[..., level] / REACH_MM) ** 2))
    canal = np.hypot(x, y - CANAL_Y_MM) < CANAL_MM * narrowed
    signal[canal] = FLUID[t1]
    signal = ndimage.gaussian_filter(signal, 0.6)
    noisy = add_rician_noise(signal, 0.03, rng)
    return np.clip(np.rint(1000 * noisy), 0, 4095).astype(np.uint16)
