"""What a network is given: the surroundings of places, read once, and what is known of them."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from spine_tasks.configs import StenosisGrading
from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.tasks.grading.inputs import augment, finish, read_place

log = logging.getLogger(__name__)

Part = tuple[Tensor, Tensor, Tensor, Tensor]  # images, levels, groups, grades
UNKNOWN = -1  # the grade of a place that has none of a condition


class Places(Dataset[Part]):
    """Places in units that are seen together: alone, or with the other levels of their study.

    Surroundings are kept in memory at 8 bits: of 128 px and three slices 77 kB a place.
    """

    def __init__(
        self,
        cases: Sequence[GradeCase],
        config: StenosisGrading,
        conditions: Mapping[str, Sequence[str]],
        levels: Sequence[str],
        seed: int,
    ) -> None:
        self.cases, self.config, self.seed = cases, config, seed
        self.levels = torch.tensor([levels.index(case.level) for case in cases])
        self.grades = grades_of(cases, conditions)
        together: dict[tuple[object, ...], list[int]] = {}
        for at, case in enumerate(cases):
            key = (at,) if config.across == "none" else (case.study, case.side, *case.grades)
            together.setdefault(key, []).append(at)
        self.units = list(together.values())
        self.groups = torch.empty(len(cases), dtype=torch.int64)
        for group, unit in enumerate(self.units):
            self.groups[unit] = group
        with ThreadPoolExecutor(config.threads) as threads:
            read = threads.map(lambda case: read_place(case, config), cases)
            self.pixels = torch.stack(list(read))
        self.maps: NDArray[np.float32] | None = None  # (views, N, ...), as `maps.keep` makes them
        log.info("%d places, %.3g GB in memory", len(cases), self.pixels.nbytes / 1e9)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, part: Sequence[tuple[int, int]]) -> Part:
        """The places of some (epoch, unit), augmented as these say."""
        places = [(self._variant(epoch), at) for epoch, unit in part for at in self.units[unit]]
        index = [at for _, at in places]
        return self.inputs(places), self.levels[index], self.groups[index], self.grades[index]

    def inputs(self, places: Sequence[tuple[int, int]]) -> Tensor:
        """What a network is given of some (view, place): images, or where they are kept, maps."""
        if self.maps is not None:
            return torch.from_numpy(np.stack([self.maps[view, at] for view, at in places]))
        return torch.stack([self.image(view, at) for view, at in places])

    def image(self, view: int, at: int) -> Tensor:
        """A place as a network knows it; view 0 is as it is, others are its variants."""
        image = functional.to_dtype(self.pixels[at], torch.float32, scale=True)
        if view:
            generator = torch.Generator().manual_seed(_number(self.seed, view, at))
            image = augment(image, self.config, generator)
        return finish(image, self.config)

    def _variant(self, epoch: int) -> int:
        """The view that an epoch learns from; of a given number each in turn."""
        if self.config.augment == "none":
            return 0
        return 1 + epoch if self.config.views is None else epoch % self.config.views


def grades_of(cases: Sequence[GradeCase], conditions: Mapping[str, Sequence[str]]) -> Tensor:
    """(N, conditions) int64, -1 where none is known."""
    known = [[case.grades.get(name) for name in conditions] for case in cases]
    return torch.tensor([[UNKNOWN if one is None else one for one in row] for row in known])


def _number(*numbers: int) -> int:
    """A number for a generator; (0, 1) gives another one than (1, 0)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
