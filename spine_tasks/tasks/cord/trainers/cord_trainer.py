"""The trainer that nnU-Net finds by its name: its own, with knobs, that saves often and stops.

In a folder of its own since nnU-Net imports whatever is in the folders of `nnUNet_extTrainer`.
"""

# mypy: untyped-calls-exclude="nnunetv2"

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from spine_tasks import torch_checkpoints
from spine_tasks.configs import CordNnunet
from spine_tasks.errors import Interrupted, RunError
from spine_tasks.files import replacing
from spine_tasks.run import Run

A_MOMENT_S = 1.0

log = logging.getLogger(__name__)


class CordTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net has no types
    """nnU-Net's trainer, which continues within an epoch from a checkpoint of minutes ago."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  # nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.losses: list[dict[str, Any]] = []  # of the steps of this epoch
        self.best_epoch = -1

    def follow(self, config: CordNnunet, run: Run, checkpoint_s: float) -> None:
        """Take a config's knobs, and a run to save to and to be stopped by."""
        self.run, self.checkpoint_s, self.config = run, checkpoint_s, config
        self.num_epochs = config.epochs
        self.num_iterations_per_epoch = config.iterations
        self.num_val_iterations_per_epoch = config.val_iterations
        self.initial_lr = config.learning_rate
        self.oversample_foreground_percent = config.foreground

    def run_training(self) -> None:
        """Train from the run's checkpoint, if there is one, to the last epoch."""
        self.on_train_start()
        if (saved := torch_checkpoints.load(self.run.checkpoint)) is not None:
            self.restore(saved)
        self.run.forget_history_from(self.current_epoch)
        self.saved_at = time.monotonic()
        while self.current_epoch < self.num_epochs:
            self._train_epoch()
        self.on_train_end()

    def _train_epoch(self) -> None:
        started = time.monotonic()
        self.on_epoch_start()
        self.on_train_epoch_start()
        while len(self.losses) < self.num_iterations_per_epoch:
            self.losses.append(self.train_step(self._next(self.dataloader_train)))
            self._save_or_stop()
        self.on_train_epoch_end(self.losses)
        with torch.no_grad():
            self.on_validation_epoch_start()
            steps = range(self.num_val_iterations_per_epoch)
            found = [self.validation_step(self._next(self.dataloader_val)) for _ in steps]
            self.on_validation_epoch_end(found)
        best = self._best_ema
        self.on_epoch_end()
        if best != self._best_ema:
            self.best_epoch = self.current_epoch - 1
        self._note(time.monotonic() - started)
        self.losses = []
        if best != self._best_ema or self.current_epoch == self.num_epochs:
            self.save()  # so that the best weights on disk are never newer than the checkpoint

    def _next(self, batches: Any) -> Any:
        try:
            return next(batches)
        except RuntimeError as error:
            if "workers are no longer alive" not in str(error):
                raise
            time.sleep(A_MOMENT_S)
            if self.run.stop_requested:  # which reached those processes too, maybe first
                self.save()
                raise Interrupted(self._where()) from error
            raise RunError(
                "a process that augments for nnU-Net was killed, most likely for want of memory; "
                "ask for more by --set resources.mem_gb=..., or for fewer processes by "
                "--set resources.cpus=... (one a CPU but the one that trains)"
            ) from error

    def _save_or_stop(self) -> None:
        stopping = self.run.stop_requested
        if stopping or time.monotonic() - self.saved_at > self.checkpoint_s:
            self.save()
        if stopping:
            raise Interrupted(self._where())

    def _where(self) -> str:
        return f"stopped in epoch {self.current_epoch}, step {len(self.losses)}"

    def save(self) -> None:
        """Replace the run's checkpoint."""
        scaler = self.grad_scaler
        torch_checkpoints.save(
            self.run.checkpoint,
            {
                "network": self.network_itself.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "logging": plain(self.logger.get_checkpoint()),
                "best_ema": plain(self._best_ema),
                "best_epoch": self.best_epoch,
                "epoch": self.current_epoch,
                "losses": [float(step["loss"]) for step in self.losses],
            },
        )
        self.saved_at = time.monotonic()

    def restore(self, saved: dict[str, Any]) -> None:
        """Become as `save` found it."""
        self.network_itself.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.grad_scaler is not None and saved["scaler"] is not None:
            self.grad_scaler.load_state_dict(saved["scaler"])
        self.logger.load_checkpoint(saved["logging"])
        self._best_ema, self.best_epoch = saved["best_ema"], saved["best_epoch"]
        self.current_epoch = saved["epoch"]
        self.losses = [{"loss": np.float32(loss)} for loss in saved["losses"]]

    @property
    def network_itself(self) -> torch.nn.Module:
        """The network, whether it is compiled or not."""
        found: torch.nn.Module = getattr(self.network, "_orig_mod", self.network)  # type: ignore[assignment]
        return found

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's own file of weights, in one step; it never is half there."""
        with replacing(Path(filename)) as partial:
            super().save_checkpoint(str(partial))

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        """As nnU-Net's, without mirroring where the config says so."""
        rotation, dummy_2d, patch, mirror = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.config.mirror:
            mirror = self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, patch, mirror

    def plot_network_architecture(self) -> None:
        """Draw nothing: a picture of the network needs programs that few nodes have."""

    def print_to_log_file(self, *args: Any, **options: Any) -> None:
        """Write to nnU-Net's own log only."""
        super().print_to_log_file(*args, **options | {"also_print_to_console": False})

    def _note(self, seconds: float) -> None:
        """A line of the run's history."""
        logged = {
            name: float(self.logger.get_value(name, step=-1))
            for name in ("train_losses", "val_losses", "mean_fg_dice", "lrs")
        }
        epoch = self.current_epoch - 1
        patches = self.num_iterations_per_epoch * self.batch_size
        self.run.add_history(
            epoch=epoch,
            loss=logged["train_losses"],
            val_loss=logged["val_losses"],
            val_dice=logged["mean_fg_dice"],
            learning_rate=logged["lrs"],
            seconds=round(seconds, 3),
            images_per_s=round(patches / seconds, 3),
            best_epoch=self.best_epoch if self.config.keep == "best" else epoch,
        )
        found = (epoch, logged["train_losses"], logged["mean_fg_dice"])
        log.info("epoch %d: loss %.4f, val_dice %.4f", *found)


def plain(value: Any) -> Any:
    """Numbers of NumPy as Python's, within lists and dictionaries."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value
