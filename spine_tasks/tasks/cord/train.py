"""Cord segmentation by nnU-Net: train one cell and predict every test set (PyTorch)."""

# mypy: untyped-calls-exclude="nnunetv2"

import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open

from spine_tasks.cell import Cell
from spine_tasks.configs import CordNnunet
from spine_tasks.data.bids import Case
from spine_tasks.data.cases import cord_cases_of
from spine_tasks.errors import ConfigError, Interrupted, RunError, WeightsError
from spine_tasks.files import read_json
from spine_tasks.run import Run
from spine_tasks.tasks.cord.folders import preprocessed_of, printing_to
from spine_tasks.tasks.cord.plans import fitted
from spine_tasks.tasks.cord.predict import predictor
from spine_tasks.tasks.cord.preprocess import plans_of, prepared
from spine_tasks.tasks.weights_file import WEIGHTS_FILE, save_network
from spine_tasks.torch_machine import use_this_machine
from spine_tasks.weights import find

if TYPE_CHECKING:  # at run time after nnU-Net was told its folders, which it reads when imported
    from spine_tasks.tasks.cord.trainers.cord_trainer import CordTrainer

__all__ = ["predictor", "train"]

log = logging.getLogger(__name__)


def train(cell: Cell, run: Run) -> None:
    """Train the cell from the run's checkpoint, keep the chosen weights, predict all test sets."""
    config: CordNnunet = cell.config
    if cell.resources.gpus > 1 or cell.resources.nodes > 1:
        raise ConfigError(
            f"cord_nnunet trains on one GPU, got {cell.resources.gpus} on each of "
            f"{cell.resources.nodes} nodes; set resources.gpus=1 and resources.nodes=1"
        )
    if not (run.folder / WEIGHTS_FILE).exists():
        _fit(cell, run)
    with printing_to(run):
        predict = predictor(config, run.folder)
    for pair in cord_cases_of(cell, "test", run.folder.parent):
        if run.stop_requested:
            raise Interrupted("stopped while predicting")
        case = Case(id=pair.id, subject=pair.subject, image=pair.image, masks={})
        with printing_to(run):
            predict(case, run.predictions / f"{pair.id}.nii.gz")


def _fit(cell: Cell, run: Run) -> None:
    """Train from the run's checkpoint and write the weights that are to predict."""
    config: CordNnunet = cell.config
    first = prepared(cell, run)
    device = use_this_machine(config.threads, cell.resources.gpus)
    if device.type == "cuda":  # nnU-Net does not train the same twice, and is faster for it
        torch.use_deterministic_algorithms(False)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(cell.seed)
    with printing_to(run):
        trainer = _trainer(config, first, device)
        trainer.follow(config, run, cell.resources.checkpoint_s)
        trainer.initialize()
    if config.start is not None and run.saved_ns() is None:
        _start_from(trainer, find(config.start))
    with printing_to(run):
        trainer.run_training()
    _keep(trainer, run)


def _trainer(config: CordNnunet, first: Run, device: torch.device) -> "CordTrainer":
    from spine_tasks.tasks.cord.trainers.cord_trainer import CordTrainer

    data = preprocessed_of(first)
    plans = fitted(read_json(data / f"{plans_of(first)}.json"), config)
    plans["continue_training"] = False  # nnU-Net's command line adds it
    dataset = read_json(data / "dataset.json")
    return CordTrainer(plans, config.configuration, 0, dataset, device)


def _start_from(trainer: "CordTrainer", file: Path) -> None:
    """Load all weights of a trained network but those of its outputs, as nnU-Net does.

    Raises
    ------
    WeightsError
        The file is no such file, or is of another network.
    """
    given = _weights_in(file)
    network = trainer.network_itself
    own = network.state_dict()
    wanted = {name for name in own if ".seg_layers." not in name}
    if wrong := [n for n in wanted if n not in given or given[n].shape != own[n].shape]:
        raise WeightsError(
            f"{file}: of another network than the plans': {len(wrong)} of {len(wanted)} tensors "
            f"are missing or of other shape, first {min(wrong)}; choose weights that were trained "
            "with the same planner, configuration, stages and features"
        )
    network.load_state_dict(own | {name: given[name] for name in wanted})
    log.info("weights from %s", file)


def _weights_in(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's weights file, or of a checkpoint of nnU-Net."""
    if file.name == WEIGHTS_FILE:
        with safe_open(file, framework="pt") as opened:
            own = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            # What is shared is there once, and its other names stand beside it.
            shared = {name: kept for name, kept in opened.metadata().items() if kept in own}
        return own | {name: own[kept] for name, kept in shared.items()}
    number = np.float32(0).__reduce__()[0]  # what a number of NumPy is made by
    allowed: list[Any] = [number, np.dtype, type(np.dtype("f4")), type(np.dtype("f8"))]
    try:
        with torch.serialization.safe_globals(allowed):
            found = torch.load(file, map_location="cpu", weights_only=True)
        tensors: dict[str, torch.Tensor] = found["network_weights"]
    except Exception as error:
        raise WeightsError(
            f"{file}: not a checkpoint of nnU-Net that can be read without running code in it "
            f"({str(error).splitlines()[0]}); make one by jobs/clean_model.py"
        ) from error
    return tensors


def _keep(trainer: "CordTrainer", run: Run) -> None:
    """Write the weights that predict to the run's own file, which says all there is to know."""
    if trainer.config.keep == "best":
        file = Path(trainer.output_folder) / "checkpoint_best.pth"
        if not file.is_file():
            raise RunError(
                f"{file} is missing although an epoch was the best; delete {run.checkpoint} to "
                "train the cell anew, then launch again"
            )
        trainer.network_itself.load_state_dict(_weights_in(file))
    save_network(run.folder / WEIGHTS_FILE, trainer.network_itself, _about(trainer))


def _about(trainer: "CordTrainer") -> dict[str, Any]:
    """What a weights file says; the names of training cases stay behind."""
    dataset = {name: one for name, one in trainer.dataset_json.items() if name != "dataset"}
    return {
        "plans": trainer.plans_manager.plans,
        "configuration": trainer.configuration_name,
        "dataset": dataset,
        "mirror_axes": trainer.inference_allowed_mirroring_axes,
    }
