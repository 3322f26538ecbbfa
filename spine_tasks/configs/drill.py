"""Knobs of a drill."""

from dataclasses import dataclass
from typing import ClassVar

from spine_tasks.configs.checks import at_least


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A drill of jobs/doctor.py: a cell that counts, to try out a cluster; nothing is learned."""

    entry: ClassVar[str] = "spine_tasks.drill:train"
    framework: ClassVar[str] = "none"
    predicts: ClassVar[str] = "nothing"
    reads: ClassVar[str] = "nothing"
    data_knobs: ClassVar[tuple[str, ...]] = ()
    chosen_by: ClassVar[str] = ""

    attempts: int = 2  # how many it is to take: one before the last counts until it is stopped
    steps: int = 5  # to count in all, at least
    step_s: float = 0.2  # seconds a step
    threads: int = 1  # CPU threads of one attempt

    @property
    def start(self) -> None:
        """Weights to start from: none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "attempts", "steps", "threads")
        at_least(self, 0, "step_s")
