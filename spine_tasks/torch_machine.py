"""PyTorch on this machine: threads, device, and equal bits for equal cells."""

import logging
import os

import torch

from spine_tasks.errors import ConfigError

log = logging.getLogger(__name__)


def use_this_machine(threads: int, gpus: int, local_rank: int = 0) -> torch.device:
    """Fix threads and determinism; return the device to train on.

    Parameters
    ----------
    threads
        CPU threads of this process.
    gpus
        How many the cell asked for on this node; 0: the CPU is used, whatever is there.
    local_rank
        Which of them is this process's.

    Raises
    ------
    ConfigError
        GPUs were asked for and given to this process, and PyTorch cannot use them.
    """
    torch.set_num_threads(threads)
    there = torch.cuda.is_available()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus and not there and given:  # else a GPU would be held for hours while the CPU works
        raise ConfigError(
            f"this process was given GPU {given}, but PyTorch sees none: install a PyTorch for "
            "this node's driver or load the site's CUDA in its profile's `setup`; or ask for none: "
            "--set resources.gpus=0"
        )
    # Some CUDA kernels, such as that of RoIAlign's gradient, have no deterministic form.
    torch.use_deterministic_algorithms(True, warn_only=there and gpus > 0)
    # Filling new memory, which that switches on too, finds reads of what was never written; it
    # costs a twelfth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not (gpus and there):
        if gpus:
            log.info("no GPU here: on the CPU")
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = True
    return device
