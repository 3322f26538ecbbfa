"""Grading: train one cell and predict its validation and test parts (PyTorch)."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from spine_tasks import ranks
from spine_tasks.batches_torch import Batches
from spine_tasks.cell import Cell
from spine_tasks.configs import StenosisGrading
from spine_tasks.data.cases import grade_cases_of
from spine_tasks.data.grade_cases import GradeCase, GradeData
from spine_tasks.errors import DataError, Interrupted
from spine_tasks.experiment import MAPS
from spine_tasks.grade_predictions import Probabilities, save_grades
from spine_tasks.loop_torch import Plan, fit
from spine_tasks.meeting import local_rank, together
from spine_tasks.run import Run
from spine_tasks.tasks.backbone_weights import load_backbone
from spine_tasks.tasks.grading.logistic import fit_logistic
from spine_tasks.tasks.grading.losses import weights_of
from spine_tasks.tasks.grading.maps import keep_maps
from spine_tasks.tasks.grading.model import Grader, layers_of
from spine_tasks.tasks.grading.places import Places, grades_of
from spine_tasks.tasks.weights_file import WEIGHTS_FILE, save_network
from spine_tasks.torch_machine import use_this_machine
from spine_tasks.weights import find

PLACES = 64  # a prediction is made of at once, as far as groups allow

log = logging.getLogger(__name__)


def train(cell: Cell, run: Run) -> None:
    """Train the cell from the run's checkpoint, keep the chosen weights, predict val and test."""
    device = use_this_machine(cell.config.threads, cell.resources.gpus, local_rank())
    with together(cell, run):
        _train(cell, run, device)


def _train(cell: Cell, run: Run, device: torch.device) -> None:
    config: StenosisGrading = cell.config
    cases, data = grade_cases_of(cell, "train", run.folder.parent)
    validation, _ = grade_cases_of(cell, "val", run.folder.parent)
    _check_grades(cases, validation, data, config)
    torch.manual_seed(cell.seed)
    model = build(config, data, cases)
    if config.start is not None:
        for note in load_backbone(model.backbone, find(config.start)):
            log.info(note)
    model.to(device)
    learning = Places(cases, config, data.conditions, data.levels, cell.seed)
    judging = Places(validation, config, data.conditions, data.levels, cell.seed)
    cases, tested = grade_cases_of(cell, "test", run.folder.parent)
    testing = Places(cases, config, tested.conditions, tested.levels, cell.seed)
    keep_maps(model, learning, (judging, testing), run.folder.parent / MAPS)

    def validate(judged: nn.Module) -> float:
        found = predict(judged, judging, device, run)
        return _score(found, judging, data, model)

    started, judged = time.monotonic(), cast(nn.Module, model)
    if config.fit != "steps":
        fit_logistic(run, model, learning)
    if config.fit == "logistic":
        _note_score(run, validate(model), time.monotonic() - started, config.chosen_by)
    else:
        judged = _fit_by_steps(cell, run, model, learning, validate)
    _finish(judged, judging, testing, data, tested, run, device)


def _note_score(run: Run, score: float, seconds: float, name: str) -> None:
    """The history of what is learned at once."""
    if ranks.rank() == 0:
        run.forget_history_from(0)
        record = {"epoch": 0, "loss": -score, name: score, "seconds": round(seconds, 3)}
        run.add_history(**record, best_epoch=0)


def _fit_by_steps(
    cell: Cell,
    run: Run,
    model: Grader,
    learning: Places,
    validate: Callable[[nn.Module], float],
) -> nn.Module:
    config: StenosisGrading = cell.config
    workers = max(0, cell.resources.cpus - config.threads)
    batches = Batches(
        learning,
        batch_size=config.batch_size,
        seed=cell.seed,
        workers=workers,
        rank=ranks.rank(),
        ranks=ranks.count(),
    )
    plan = Plan.of(cell, len(batches))
    return fit(run, model, optimizer(model, config), batches, validate, plan)


def _finish(
    judged: nn.Module,
    judging: Places,
    testing: Places,
    data: GradeData,
    tested: GradeData,
    run: Run,
    device: torch.device,
) -> None:
    """Save the weights that predict, and what they predict."""
    if ranks.rank() == 0:
        about = {"conditions": data.conditions, "levels": data.levels}
        save_network(run.folder / WEIGHTS_FILE, judged, about)
    _save(judged, "val", judging, data, run, device)
    _save(judged, "test", testing, tested, run, device)


def build(config: StenosisGrading, data: GradeData, train: Sequence[GradeCase]) -> Grader:
    """The untrained network of a config, from torch's global generator."""
    truth = grades_of(train, data.conditions)
    weights = {
        name: weights_of(truth[:, at], len(grades), config.class_weights)
        for at, (name, grades) in enumerate(data.conditions.items())
    }
    return Grader(config, data.conditions, len(data.levels), weights)


def predict(
    model: nn.Module, places: Places, device: torch.device, run: Run | None = None
) -> Probabilities:
    """The probabilities of the grades of all places, each computed once.

    They are the mean over `config.test_views` views, the first of which is the place as it is.
    With a run its wish to stop is heard.

    Raises
    ------
    Interrupted
        A stop was requested. On several ranks it waits for the next step of training.
    """
    found: list[tuple[tuple[str, str], np.ndarray]] = []
    for units in _portions(ranks.mine(places.units)):
        if run is not None and run.stop_requested and ranks.count() == 1:
            raise Interrupted("stopped while predicting")
        p = _mean_over_views(model.eval(), places, units, device)
        for row, at in enumerate(units):
            case = places.cases[at]
            found += [((case.id, name), p[name][row]) for name in case.grades]
    return dict(ranks.everybodys(found))


def _portions(units: Sequence[Sequence[int]]) -> list[list[int]]:
    """Whole units, some at a time."""
    portions: list[list[int]] = [[]]
    for unit in units:
        if portions[-1] and len(portions[-1]) + len(unit) > PLACES:
            portions.append([])
        portions[-1] += unit
    return [portion for portion in portions if portion]


def _mean_over_views(
    model: nn.Module, places: Places, index: list[int], device: torch.device
) -> dict[str, np.ndarray]:
    config, total = places.config, dict[str, np.ndarray]()
    for view in range(config.test_views):
        images = places.inputs([(view, at) for at in index])
        inputs = (images, places.levels[index], places.groups[index])
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"),
        ):
            found: Mapping[str, Tensor] = model(*(one.to(device) for one in inputs))
        for name, log_p in found.items():
            p = log_p.double().exp().cpu().numpy()
            total[name] = total.get(name, np.zeros(1)) + p / p.sum(axis=1, keepdims=True)
    return {name: p / config.test_views for name, p in total.items()}


def optimizer(model: Grader, config: StenosisGrading) -> torch.optim.Optimizer:
    """AdamW; with `layer_decay` a lower rate the nearer a backbone's layer is to the input."""
    of_layer = layers_of(model.backbone) if config.layer_decay is not None else {}
    top = max(of_layer.values(), default=-1) + 1
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        layer = of_layer.get(name.removeprefix("backbone."), top)
        rate = config.learning_rate * (config.layer_decay or 1.0) ** (top - layer)
        if parameter.requires_grad:
            groups.setdefault(rate, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": own, "lr": rate} for rate, own in groups.items()],
        weight_decay=config.weight_decay,
        fused=True,
    )


def _score(found: Probabilities, places: Places, data: GradeData, model: Grader) -> float:
    """Minus the mean over conditions of the log loss, weighted as the loss of training is."""
    losses = []
    for at, name in enumerate(data.conditions):
        truth = places.grades[:, at].numpy()
        known = np.flatnonzero(truth >= 0).tolist()
        if not known:
            continue
        p = np.array([found[places.cases[one].id, name][truth[one]] for one in known])
        weights = getattr(model, f"weights_{name}").cpu().double().numpy()[truth[known]]
        losses.append(float(-(weights * np.log(np.maximum(p, 1e-15))).sum() / weights.sum()))
    return -float(np.mean(losses)) if losses else 0.0


def _check_grades(
    cases: Sequence[GradeCase],
    validation: Sequence[GradeCase],
    data: GradeData,
    config: StenosisGrading,
) -> None:
    """Refuse parts from which nothing could be learned or chosen."""
    for part, places in (("train", cases), ("val", validation)):
        truth = grades_of(places, data.conditions)
        for at, (name, grades) in enumerate(data.conditions.items()):
            counts = {one: int((truth[:, at] == grade).sum()) for grade, one in enumerate(grades)}
            log.info("%s: %s %s", part, name, counts)
            known = sum(counts.values())
            if part == "train" and max(counts.values()) == known:
                raise DataError(
                    f"{data.folder}: {name} has {counts} in the train part, from which nothing can "
                    "be learned; leave it out by `conditions`, or correct the split"
                )
        if part == "val" and config.keep == "best" and not (truth >= 0).any():
            raise DataError(
                f"{data.folder}: no grade is known in the val part, so that nothing can be chosen "
                "by it; take keep=last, or correct the split"
            )


def _save(
    model: nn.Module, part: str, places: Places, data: GradeData, run: Run, device: torch.device
) -> None:
    found = predict(model, places, device, run)
    if ranks.rank() == 0:
        save_grades(run.predictions / f"{part}.csv", places.cases, found, data.conditions)
