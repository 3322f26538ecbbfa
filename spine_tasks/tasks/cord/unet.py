"""A plain 2-D U-Net on axial slices: input, augmentation, network, prediction of a volume."""

# mypy: untyped-calls-exclude="nibabel,dynamic_network_architectures"

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from spine_tasks.configs import CordUnet
from spine_tasks.data.bids import Case
from spine_tasks.data.nifti import load_image, save_mask
from spine_tasks.data.slices import mask_to_slices, to_image, to_slices
from spine_tasks.nnunet.pairs import Pair
from spine_tasks.nnunet.volumes import image_and_mask
from spine_tasks.tasks.weights_file import load_network, weights_of
from spine_tasks.torch_machine import use_this_machine

MOST_FEATURES = 16  # times those of the first stage
SLICES_AT_ONCE = 32
GAIN, SHIFT, NOISE = 0.2, 0.2, 0.1  # of intensities in standard deviations

Part = tuple[Tensor, Tensor]

move = v2.RandomAffine(
    degrees=15.0,
    translate=(0.1, 0.1),
    scale=(0.8, 1.25),
    interpolation=v2.InterpolationMode.BILINEAR,
)


class Unet(nn.Module):
    """The network; its loss terms in training, probabilities (N, H, W) in [0, 1] otherwise."""

    def __init__(self, config: CordUnet) -> None:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet

        super().__init__()
        most = MOST_FEATURES * config.features
        self.network = PlainConvUNet(
            input_channels=1,
            n_stages=config.stages,
            features_per_stage=[min(config.features * 2**at, most) for at in range(config.stages)],
            conv_op=nn.Conv2d,
            kernel_sizes=3,
            strides=[1] + [2] * (config.stages - 1),
            n_conv_per_stage=2,
            num_classes=1,
            n_conv_per_stage_decoder=2,
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"affine": True},
            dropout_op=nn.Dropout2d if config.dropout else None,
            dropout_op_kwargs={"p": config.dropout} if config.dropout else None,
            nonlin=nn.LeakyReLU,
        )

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Any:
        """Of images (N, H, W) and, in training, masks (N, H, W) of 0 and 1."""
        logits = self.network(images[:, None])[:, 0].float()
        if masks is None:
            return logits.sigmoid()
        p = logits.sigmoid()
        both, total = (p * masks).sum(), p.sum() + masks.sum()
        entropy = functional.binary_cross_entropy_with_logits(logits, masks)
        return {"cross_entropy": entropy, "dice": 1 - (2 * both + 1) / (total + 1)}


class Slices(Dataset[Part]):
    """The slices of some volumes with their masks, in memory."""

    def __init__(self, pairs: Sequence[Pair], config: CordUnet, seed: int) -> None:
        self.config, self.seed = config, seed
        images, masks = [], []
        for pair in pairs:
            image, mask, _ = image_and_mask(pair)
            slices, placement = to_slices(
                image, spacing_mm=config.spacing_mm, size_px=config.image_px
            )
            images.append(torch.from_numpy(slices))
            masks.append(torch.from_numpy(mask_to_slices(mask, placement).astype(np.float32)))
        self.images, self.masks = torch.cat(images), torch.cat(masks)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: Sequence[tuple[int, int]]) -> Part:
        """Some (epoch, slice), augmented as these say."""
        found = [self._one(epoch, at) for epoch, at in part]
        return torch.stack([image for image, _ in found]), torch.stack([mask for _, mask in found])

    def _one(self, epoch: int, at: int) -> Part:
        image, mask = self.images[at], self.masks[at]
        if not self.config.augment:
            return image, mask
        with torch.random.fork_rng(devices=[]):  # it follows from seed, epoch and slice alone
            torch.manual_seed(int(np.random.default_rng((self.seed, epoch, at)).integers(2**62)))
            return augment(image, mask)


def augment(image: Tensor, mask: Tensor) -> Part:
    """A random variant of a slice (H, W) and its mask, by torch's global generator."""
    moved, mask_moved = move(Image(image[None]), Mask(mask[None]))
    gain = 1 + GAIN * (2 * torch.rand(()) - 1)
    shift = SHIFT * (2 * torch.rand(()) - 1)
    noise = NOISE * torch.rand(()) * torch.randn(image.shape)
    return gain * moved[0].as_subclass(Tensor) + shift + noise, mask_moved[0].as_subclass(Tensor)


def probabilities(
    model: nn.Module, images: Tensor, device: torch.device, bfloat16: bool
) -> NDArray[np.float32]:
    """The cord's probability in each pixel of slices (N, H, W), in [0, 1]."""
    found = []
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=bfloat16),
    ):
        for at in range(0, len(images), SLICES_AT_ONCE):
            part = images[at : at + SLICES_AT_ONCE].to(device)
            found.append(model.eval()(part).float().cpu().numpy())
    return np.concatenate(found)


def segment(
    model: nn.Module, image: Any, config: CordUnet, device: torch.device
) -> NDArray[np.bool_]:
    """The cord's mask (X, Y, Z), bool, of a nibabel image, on its own voxel grid."""
    slices, placement = to_slices(image, spacing_mm=config.spacing_mm, size_px=config.image_px)
    p = probabilities(model, torch.from_numpy(slices), device, config.precision == "bfloat16")
    return to_image(p, placement, config.threshold)


def predictor(config: CordUnet, weights: Path) -> Callable[[Case, Path], None]:
    """Ready this process and the network; returns what predicts a case into a mask file.

    Parameters
    ----------
    config
        Its knobs of input, network, output and machine are used.
    weights
        The folder of a complete run, or its weights file.

    Raises
    ------
    WeightsError
        The run keeps no weights, or the file is not of this network.
    """
    file = weights_of(weights) if weights.is_dir() else weights
    device = use_this_machine(config.threads, gpus=0)
    model = Unet(config)
    load_network(file, model)

    def predict(case: Case, output: Path) -> None:
        image = load_image(case.image)
        save_mask(output, segment(model, image, config, device), image)

    return predict


def soft_dice(masks: NDArray[np.float32], p: NDArray[np.float32]) -> float:
    """Soft Dice over all pixels of all slices together, in [0, 1]; NaN if there is no cord.

    Examples
    --------
    >>> truth = np.ones((1, 2, 2), np.float32)
    >>> soft_dice(truth, truth), soft_dice(truth, truth / 2)
    (1.0, 0.6666666666666666)
    """
    total = np.sum(masks, dtype=np.float64) + np.sum(p, dtype=np.float64)
    return float(2 * np.sum(masks * p, dtype=np.float64) / total) if masks.any() else math.nan
