"""Cord masks of whole volumes by a trained nnU-Net, on the image's own voxel grid."""

# mypy: untyped-calls-exclude="nibabel,nnunetv2"

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from torch import nn

from spine_tasks.configs import CordNnunet
from spine_tasks.data.bids import Case
from spine_tasks.data.nifti import load_image, save_mask
from spine_tasks.nnunet.volumes import turned, turned_back
from spine_tasks.tasks.weights_file import about_network, load_network, weights_of
from spine_tasks.torch_machine import use_this_machine

ABOUT = ("plans", "configuration", "dataset", "mirror_axes")  # what a weights file says


class Segmenter:
    """A network with all that nnU-Net needs to know to predict with it.

    Parameters
    ----------
    network
        On the device to predict on, without deep supervision.
    about
        `plans` and `dataset`, as nnU-Net's files of these names hold them, the name of the
        `configuration`, and the `mirror_axes` to average over, or None.
    tile_step
        Of the sliding window, in patches.
    """

    def __init__(self, network: nn.Module, about: dict[str, Any], tile_step: float) -> None:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        plans = PlansManager(about["plans"])
        device = next(network.parameters()).device
        with redirect_stdout(io.StringIO()):  # it prints what a CPU means
            self._predictor = nnUNetPredictor(
                tile_step_size=tile_step,
                use_mirroring=about["mirror_axes"] is not None,
                device=device,
                allow_tqdm=False,
            )
        self._predictor.manual_initialization(
            network,
            plans,
            plans.get_configuration(about["configuration"]),
            [network.state_dict()],
            about["dataset"],
            "CordTrainer",
            about["mirror_axes"],
        )

    def __call__(self, image: Any) -> NDArray[np.bool_]:
        """The cord's mask (X, Y, Z), bool, of a nibabel image, on its own voxel grid."""
        las = turned(image, np.asarray(image.dataobj, np.float32))
        # nnU-Net's arrays are (channel, Z, Y, X), as SimpleITK reads files.
        volume = np.asarray(las.dataobj, np.float32).transpose(2, 1, 0)[None]
        spacing_mm = [float(edge) for edge in voxel_sizes(las.affine)[::-1]]
        found = self._predictor.predict_single_npy_array(volume, {"spacing": spacing_mm})
        return turned_back(image, np.asarray(found).transpose(2, 1, 0) == 1)


def predictor(config: CordNnunet, weights: Path) -> Callable[[Case, Path], None]:
    """Ready this process and the network; returns what predicts a case into a mask file.

    Parameters
    ----------
    config
        Its knobs of prediction and machine are used.
    weights
        The folder of a complete run, or its weights file.

    Raises
    ------
    WeightsError
        The run keeps no weights, or the file is not of such a network.
    """
    file = weights_of(weights) if weights.is_dir() else weights
    device = use_this_machine(config.threads, gpus=int(torch.cuda.is_available()))
    about = dict(zip(ABOUT, about_network(file, *ABOUT), strict=True))
    if not config.mirror:
        about["mirror_axes"] = None
    network = build(about)
    load_network(file, network)
    segment = Segmenter(network.to(device).eval(), about, config.tile_step)

    def predict(case: Case, output: Path) -> None:
        image = load_image(case.image)
        save_mask(output, segment(image), image)

    return predict


def build(about: dict[str, Any]) -> nn.Module:
    """The untrained network that plans describe, without deep supervision."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    network = about["plans"]["configurations"][about["configuration"]]["architecture"]
    built: nn.Module = get_network_from_plans(
        network["network_class_name"],
        network["arch_kwargs"],
        network["_kw_requires_import"],
        1,
        len(about["dataset"]["labels"]),
        deep_supervision=False,
    )
    return built
