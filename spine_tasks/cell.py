"""A cell: one training and evaluation to do. Its id is what it computes."""

import functools
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from spine_tasks.configs import knobs_of, make_config
from spine_tasks.errors import ConfigError

TIME = r"(\d+-)?\d{1,2}:\d{2}:\d{2}"  # [days-]hours:minutes:seconds


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one attempt of a cell asks for; it changes nothing in what is computed."""

    nodes: int = 1  # of each of which the rest is asked; several train together (PyTorch)
    gpus: int = 0
    cpus: int = 2
    mem_gb: float = 8.0
    time: str = "02:00:00"  # wall time of one attempt, as Slurm writes it
    checkpoint_s: float = 300.0  # between checkpoints: the most work that a kill can cost
    pack: int = 1  # cells of one array task, side by side on its GPUs; the rest is asked for each

    def __post_init__(self) -> None:
        """Check types and ranges before a scheduler does it in its own words."""
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("pack", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"resources.{name}: a whole number from {least} up, got {value!r}"
                )
        if self.nodes > 1 and self.pack > 1:
            raise ConfigError("resources: a cell on several nodes cannot be packed; choose one")
        for name in ("mem_gb", "checkpoint_s"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise ConfigError(f"resources.{name} must be a positive number, got {value!r}")
        if not isinstance(self.time, str) or not re.fullmatch(TIME, self.time):
            raise ConfigError(
                f"resources.time must be text such as '02:00:00' or '1-12:00:00', got {self.time!r}"
            )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One config on one fold of one split with one seed; the unit of work."""

    job: str  # the script in jobs/ and the config's name in `configs.TASKS`
    config: Any  # of the class that `configs.TASKS` has for the job
    split: str  # name in data_splits/, or a file
    split_sha256: str  # of its content: another split is another cell
    fold: int
    seed: int
    needs: tuple[str, ...] = ()  # ids of the cells whose weights this one starts from
    arm: dict[str, Any] = field(default_factory=dict)  # its values on the grid's axes
    resources: Resources = Resources()

    @functools.cached_property
    def id(self) -> str:
        """Readable name and a digest of everything that the result depends on."""
        computed = self._computed()
        digest = hashlib.sha256(json.dumps(computed, sort_keys=True).encode()).hexdigest()
        split = self.split.rsplit("/", 1)[-1].removesuffix(".csv")
        return f"{self.job}-{split}-fold{self.fold}-seed{self.seed}-{digest[:8]}"

    @property
    def arm_name(self) -> str:
        """The arm as tables print it, such as `init=scratch augment=False`; a named one's name."""
        return " ".join(
            str(value) if axis == "arm" else f"{axis}={value}" for axis, value in self.arm.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """The cell as cell.json holds it."""
        asked = {"arm": self.arm, "resources": vars(self.resources).copy()}
        return {"id": self.id} | self._computed() | asked

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Cell":
        """The cell of a cell.json."""
        return cls(
            job=saved["job"],
            config=make_config(saved["job"], saved["knobs"]),
            split=saved["split"],
            split_sha256=saved["split_sha256"],
            fold=saved["fold"],
            seed=saved["seed"],
            needs=tuple(saved["needs"]),
            arm=saved["arm"],
            resources=Resources(**saved["resources"]),
        )

    def _computed(self) -> dict[str, Any]:
        """All that the result depends on."""
        return {
            "job": self.job,
            "knobs": knobs_of(self.config),
            "split": self.split,
            "split_sha256": self.split_sha256,
            "fold": self.fold,
            "seed": self.seed,
            "needs": list(self.needs),
        }
