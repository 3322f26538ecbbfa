"""A small PyTorch task that keeps the contract, with what real ones have: loader processes.

It stands in for the detectors and graders where interruptions are tested. The samples of a step
follow from (seed, epoch, step) alone; the state of dropout's generator is in the checkpoint.
"""

import logging
import math
import signal
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from witness import pace, tell

from spine_tasks.data.cases import cases_of, target
from spine_tasks.data.nifti import load_image, load_mask, save_mask
from spine_tasks.errors import Interrupted
from spine_tasks.files import replacing

ENTRY = """\
from spine_tasks.configs import GmSegmentation
GmSegmentation.entry, GmSegmentation.framework = "torch_task:train", "torch"
"""

log = logging.getLogger(__name__)


class Samples(Dataset):
    """Noisy slices: sample (epoch, index) follows from the seed, the epoch and the index."""

    def __init__(self, images, masks, seed):
        self.images, self.masks, self.seed = images, masks, seed

    def __getitem__(self, which):
        epoch, index = which
        noise = np.random.default_rng((self.seed, epoch, index)).normal(
            scale=0.1, size=self.images[index].shape
        )
        return self.images[index] + torch.from_numpy(noise.astype(np.float32)), self.masks[index]


def train(cell, run):
    config = cell.config
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(cell.seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Conv2d(4, 1, 3, padding=1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    images, masks = _slices(cell, run, "train")
    steps = math.ceil(len(images) / config.batch_size)
    done, losses = _restore(run.checkpoint / "last.pt", model, optimizer)
    run.forget_history_from(done // steps)
    tell(cell, "begin", *divmod(done, steps))

    def save():
        tell(cell, "saving", *divmod(done, steps))
        _save(run.checkpoint / "last.pt", model, optimizer, done, losses)
        tell(cell, "saved", *divmod(done, steps))

    loader = DataLoader(
        Samples(images, masks, cell.seed),
        batch_sampler=_batches(cell, len(images), steps, done),
        num_workers=2,
        multiprocessing_context="fork",
        worker_init_fn=_leave_stopping_to_the_parent,
        generator=torch.Generator(),  # else a new loader advances the generator just restored
    )
    last_save = time.monotonic()
    model.train()
    for image, mask in loader:
        if run.stop_requested:
            save()
            raise Interrupted(f"stopped in epoch {done // steps}, step {done % steps}")
        loss = nn.functional.binary_cross_entropy_with_logits(model(image), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        pace()
        tell(cell, "step", *divmod(done, steps))
        done += 1
        if done % steps == 0:
            _end_epoch(run, done // steps - 1, losses)
            tell(cell, "history", done // steps - 1)
            losses = []
        if time.monotonic() - last_save > cell.resources.checkpoint_s:
            save()
            last_save = time.monotonic()
    save()
    _predict(cell, run, model.eval())
    tell(cell, "end")


def _slices(cell, run, part):
    """Images and masks of a part: both (N, 1, Y, X) float32, masks of 0 and 1."""
    images, masks = [], []
    for case in cases_of(cell, part, run.folder.parent):
        image = load_image(case.image)
        images.append(_as_batch(image.get_fdata(dtype=np.float32)))
        masks.append(_as_batch(load_mask(target(case)[1], image)))
    images, masks = torch.cat(images), torch.cat(masks)
    return images / images.std(), masks


def _as_batch(volume):
    """(X, Y, Z) as (Z, 1, Y, X) float32."""
    return torch.from_numpy(np.ascontiguousarray(volume.T[:, None], np.float32))


def _batches(cell, count, steps, done):
    """The indices (epoch, index) of every step that is left, in a new order each epoch."""
    left = []
    for step in range(done, cell.config.epochs * steps):
        epoch, first = step // steps, step % steps * cell.config.batch_size
        order = np.random.default_rng((cell.seed, epoch)).permutation(count)
        left.append([(epoch, int(i)) for i in order[first : first + cell.config.batch_size]])
    return left


def _leave_stopping_to_the_parent(_worker):
    """A stop reaches the whole process group; torch's own handler would end this process by it,
    and that would be an error in the parent, which is about to save.
    """
    for one in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)


def _end_epoch(run, epoch, losses):
    mean_loss = float(np.mean(losses))
    # No validation: what is tested is interruption. The keys are those that live views read.
    run.add_history(epoch=epoch, loss=mean_loss, val_dice=0.0, best_epoch=epoch)
    log.info("epoch %d: loss %.4f", epoch, mean_loss)


def _save(file, model, optimizer, done, losses):
    with replacing(file) as partial:
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": torch.get_rng_state(),
                "done": done,
                "losses": losses,
            },
            partial,
        )


def _restore(file, model, optimizer):
    """The steps done and the losses of the epoch under way, after loading a checkpoint."""
    if not file.exists():
        return 0, []
    saved = torch.load(file, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["generator"])
    log.info("continuing from step %d", saved["done"])
    return saved["done"], saved["losses"]


def _predict(cell, run, model):
    for case in cases_of(cell, "test", run.folder.parent):
        image = load_image(case.image)
        volume = _as_batch(image.get_fdata(dtype=np.float32))
        with torch.no_grad():
            probability = torch.sigmoid(model(volume / volume.std()))
        mask = (probability > cell.config.threshold).numpy()[:, 0].T
        save_mask(run.predictions / f"{case.id}.nii.gz", mask, image)
