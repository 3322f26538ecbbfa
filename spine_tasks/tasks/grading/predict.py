"""Grade places of one's own by one run, or by the mean of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spine_tasks.configs import StenosisGrading
from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.grade_predictions import Probabilities
from spine_tasks.tasks.grading.model import Grader
from spine_tasks.tasks.grading.places import Places
from spine_tasks.tasks.grading.train import predict
from spine_tasks.tasks.weights_file import about_network, load_network, weights_of
from spine_tasks.torch_machine import use_this_machine


@dataclass(frozen=True)
class Predictor:
    """Trained graders of the same conditions, ready on this machine."""

    conditions: Mapping[str, tuple[str, ...]]
    levels: tuple[str, ...]
    models: tuple[tuple[Grader, StenosisGrading], ...]
    device: torch.device

    def __call__(self, cases: Sequence[GradeCase]) -> Probabilities:
        """Probabilities of the grades of places; the mean of those of several graders.

        Raises
        ------
        DataError
            A place is at a level or of a condition that the graders do not know, or its picture
            cannot be read.
        """
        for case in cases:
            if case.level not in self.levels:
                raise DataError(f"{case.id}: level {case.level}; known: {', '.join(self.levels)}")
            if unknown := sorted(set(case.grades) - set(self.conditions)):
                known = ", ".join(self.conditions)
                raise DataError(f"{case.id}: condition {unknown[0]}; known: {known}")
        found = [
            predict(model, Places(cases, config, self.conditions, self.levels, 0), self.device)
            for model, config in self.models
        ]
        return {place: np.mean([one[place] for one in found], axis=0) for place in found[0]}


def predictor(runs: Sequence[tuple[StenosisGrading, Path]]) -> Predictor:
    """Ready this process and the graders of some complete runs; on the CPU.

    Raises
    ------
    WeightsError
        A run keeps no weights, or they do not fit its config.
    ConfigError
        Two runs know other conditions or levels.
    """
    device = use_this_machine(runs[0][0].threads, gpus=0)
    known = [about_network(weights_of(folder), "conditions", "levels") for _, folder in runs]
    conditions, levels = known[0]
    for (_, folder), one in zip(runs, known, strict=True):
        if one != known[0]:
            raise ConfigError(
                f"{folder.name} knows {one}, but {runs[0][1].name} {known[0]}; the mean is of runs "
                "that know the same conditions, grades and levels"
            )
    names = {name: tuple(grades) for name, grades in conditions.items()}
    models = [(_trained(config, folder, names, len(levels)), config) for config, folder in runs]
    return Predictor(names, tuple(levels), tuple(models), device)


def _trained(
    config: StenosisGrading, folder: Path, conditions: Mapping[str, tuple[str, ...]], levels: int
) -> Grader:
    weights = {name: torch.ones(len(grades)) for name, grades in conditions.items()}
    model = Grader(config, conditions, levels, weights)
    load_network(weights_of(folder), model)
    return model.eval()
