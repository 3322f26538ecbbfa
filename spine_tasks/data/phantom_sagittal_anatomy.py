"""The made-up neck of a sagittal phantom subject: its column, discs, cord and signal changes.

Lengths are mm. A neck has coordinates of its own, along its column: s runs down the middle line of
the vertebral bodies, from 0 at the disc C2/3; t runs across it, from 0 on that line to the back;
z runs to the subject's left, from 0 in the middle.
"""

from dataclasses import dataclass

import numpy as np

# Level -> how much more it wears than the others: most where the neck moves most.
WEAR = {
    "C2/3": -0.15,
    "C3/4": 0.0,
    "C4/5": 0.10,
    "C5/6": 0.20,
    "C6/7": 0.15,
    "C7/T1": -0.10,
    "T1/2": -0.25,
    "T2/3": -0.25,
    "T3/4": -0.25,
}
SICK_FROM = 0.5  # degeneration; raters must decide somewhere, though nothing jumps there
SHORTEST_SIGNAL_MM = 4.0  # signal changes that are shorter in a slice are not seen in it


@dataclass(frozen=True, kw_only=True)
class Disc:
    """One intervertebral disc."""

    level: str
    degeneration: float  # 0 none to 1 full
    s_mm: float  # of its middle
    height_mm: float
    bulge_mm: float  # beyond the edge of the bodies, to the back
    bulge_z_mm: float  # where it is largest
    nucleus: float  # signal relative to CSF

    @property
    def sick(self) -> bool:
        """Whether a rater calls it degenerated."""
        return self.degeneration > SICK_FROM

    def bulge_at(self, z_mm: float) -> float:
        """How far it bulges to the back in the slice at `z_mm`, in mm."""
        return self.bulge_mm * float(np.exp(-(((z_mm - self.bulge_z_mm) / 8) ** 2)))


@dataclass(frozen=True, kw_only=True)
class SignalChange:
    """An ellipsoid of raised signal inside the cord."""

    s_mm: float
    z_mm: float
    length_mm: float  # along the cord, where it is largest
    depth: float  # front to back, as a fraction of the cord's
    half_thickness_mm: float  # across slices
    raised: float  # from the signal of the cord (0) to that of CSF (1)

    def share_at(self, z_mm: float) -> float:
        """Its size in the slice at `z_mm`, as a fraction of its largest; 0 where it is not seen."""
        share = np.sqrt(max(0.0, 1 - ((z_mm - self.z_mm) / self.half_thickness_mm) ** 2))
        return float(share) if share * self.length_mm >= SHORTEST_SIGNAL_MM else 0.0


@dataclass(frozen=True, kw_only=True)
class Neck:
    """One subject; where it lies in the image is in mm from the image's middle."""

    column_x_mm: float  # of the column's line at the height of the image's middle
    top_y_mm: float  # of the disc C2/3
    tilt: float
    bend_per_mm: float  # lordosis is positive
    twist_per_mm2: float  # an S-shape
    half_depth_mm: float  # of the vertebral bodies
    canal_mm: float  # its depth, front to back
    cord_mm: float  # its depth
    cord_shift_mm: float  # of the cord in the canal, to the back
    slope: float  # of the spinous processes, down to the back
    muscle_mm: float  # from the canal to the fat behind
    fat_mm: float  # from the muscle to the skin
    throat_mm: float  # from the bodies to the skin in front
    texture: tuple[float, float]  # phases of the streaks in muscle
    discs: tuple[Disc, ...]  # downwards
    signal_changes: tuple[SignalChange, ...]


def sample_neck(rng: np.random.Generator) -> Neck:
    """Draw one subject; the same state of `rng` gives the same neck."""
    normal, uniform = rng.normal, rng.uniform
    size = normal(1, 0.06)
    discs = _discs(size, rng)
    return Neck(
        column_x_mm=uniform(-17, -5),
        top_y_mm=uniform(-52, -36),
        tilt=normal(0.02, 0.06),
        bend_per_mm=float(np.clip(normal(0.0011, 0.0009), -0.0008, 0.0030)),
        twist_per_mm2=normal(0, 3e-6),
        half_depth_mm=8.2 * size * normal(1, 0.03),
        canal_mm=13.0 * size * normal(1, 0.06),
        cord_mm=7.0 * normal(1, 0.05),
        cord_shift_mm=normal(0, 0.4),
        slope=uniform(0.25, 0.5),
        muscle_mm=uniform(30, 40),
        fat_mm=uniform(4, 14),
        throat_mm=uniform(34, 46),
        texture=(uniform(0, 6), uniform(0, 6)),
        discs=discs,
        signal_changes=_signal_changes(discs, rng),
    )


def _discs(size: float, rng: np.random.Generator) -> tuple[Disc, ...]:
    normal, uniform = rng.normal, rng.uniform
    age = uniform(0, 1)
    s_mm, discs = 0.0, []
    for number, (level, wear) in enumerate(WEAR.items()):
        degeneration = float(np.clip(0.05 + 0.75 * age + wear + normal(0, 0.17), 0, 1))
        # Each sign overlaps between healthy and sick discs: no single one tells them apart.
        height_mm = 6.2 * size * (1.05 - 0.42 * degeneration) * normal(1, 0.11)
        discs.append(
            Disc(
                level=level,
                degeneration=degeneration,
                s_mm=s_mm,
                height_mm=height_mm,
                bulge_mm=max(0.0, normal(0.2, 0.3) + 6.0 * max(0.0, degeneration - 0.4)),
                bulge_z_mm=normal(0, 3),
                nucleus=0.76 - 0.46 * degeneration + normal(0, 0.08),
            )
        )
        s_mm += size * (18.5 + 0.35 * number) * normal(1, 0.02)
    return tuple(discs)


def _signal_changes(discs: tuple[Disc, ...], rng: np.random.Generator) -> tuple[SignalChange, ...]:
    """None to two, the first mostly behind the disc that bulges most."""
    uniform = rng.uniform
    neck = discs[:6]
    worst = max(neck, key=lambda disc: disc.bulge_mm)
    number = rng.choice(3, p=(0.35, 0.50, 0.15) if worst.bulge_mm > 1.2 else (0.80, 0.18, 0.02))
    first = worst if uniform() < 0.85 else neck[rng.integers(len(neck))]
    apart = [disc for disc in neck if abs(disc.s_mm - first.s_mm) > 25]  # the two never touch
    second = apart[rng.integers(len(apart))]
    return tuple(
        SignalChange(
            s_mm=disc.s_mm + rng.normal(0, 1.5),
            z_mm=rng.normal(0.5, 1.2),
            length_mm=uniform(6, 12),
            depth=uniform(0.55, 0.8),
            half_thickness_mm=uniform(3.2, 6),
            raised=uniform(0.45, 0.9),
        )
        for disc in (first, second)[:number]
    )
