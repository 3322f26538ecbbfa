"""Feature pyramids over convolutional networks, and what of them stays as it was loaded."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from spine_tasks.configs.detection import DiscFasterRcnn
from spine_tasks.errors import ConfigError

FINEST, COARSEST = 4, 32  # strides in px of the network's feature maps that are used


class Pyramid(nn.Module):
    """A feature pyramid over a network that gives feature maps.

    Parts and outputs are named as torchvision's: `body` and `fpn`; levels "0", "1", ... from the
    finest on, and "pool", the coarsest at twice its stride.
    """

    def __init__(
        self,
        body: nn.Module,
        body_channels: list[int],
        body_strides: list[int],
        out_channels: int,
        norm: Callable[..., nn.Module] | None,
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(body_channels, out_channels, LastLevelMaxPool(), norm)
        self.out_channels = out_channels
        self.strides = [*body_strides, 2 * body_strides[-1]]  # px, of all levels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The levels, each (B, out_channels, H / stride, W / stride), of images (B, C, H, W)."""
        levels: dict[str, Tensor] = self.fpn(_named(self.body(images)))
        return levels


def pyramid(config: DiscFasterRcnn) -> Pyramid:
    """The backbone of a config with a feature pyramid on top, freshly initialised.

    Raises
    ------
    ConfigError
        timm has no such network, or it gives no feature maps whose strides double.
    """
    norm = nn.BatchNorm2d if config.version == "v2" else None
    if config.backbone == "resnet50":
        body, channels, strides = _resnet(config), [256, 512, 1024, 2048], [4, 8, 16, 32]
    else:
        info = _maps_of(config.backbone)
        used, strides = _maps_used(config.backbone, info.reduction())
        body = timm.create_model(
            config.backbone,
            features_only=True,
            out_indices=used,
            in_chans=config.channels,
            pretrained=False,
        )
        channels = info.channels(used)
    return Pyramid(body, channels, strides, config.pyramid_channels, norm)


def freeze(body: nn.Module, channels: int) -> list[nn.Module]:
    """Stop the training of a body's batch norms, and of all that its finest map needs.

    For a ResNet that is the stem and the first stage.

    Parameters
    ----------
    channels
        Of its images.

    Returns
    -------
    list of Module
        The batch norms: to be kept in evaluation mode, so that their statistics stay too.
    """
    was_training = body.training
    body.eval()  # so that the image below leaves no trace in running statistics
    parameters = list(body.parameters())
    finest = next(iter(_named(body(torch.ones(1, channels, 64, 64))).values()))
    gradients = torch.autograd.grad(finest.sum(), parameters, allow_unused=True)
    body.train(was_training)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is None)
    norms: list[nn.Module] = [one for one in body.modules() if isinstance(one, _BatchNorm)]
    for norm in norms:
        norm.requires_grad_(False)
    return norms


def _named(maps: dict[str, Tensor] | list[Tensor]) -> OrderedDict[str, Tensor]:
    """Feature maps as the pyramid takes them, whether the network names or lists them."""
    if isinstance(maps, list):
        return OrderedDict((str(level), one) for level, one in enumerate(maps))
    return OrderedDict(maps)


def _resnet(config: DiscFasterRcnn) -> nn.Module:
    """Torchvision's, so that names and numbers are those of its published weights."""
    # Torchvision's v1 has batch norms without anything to train, v2 ordinary ones.
    fixed = config.version == "v1" and config.frozen and config.init != "none"
    network = resnet50(weights=None, norm_layer=FrozenBatchNorm2d if fixed else nn.BatchNorm2d)
    if config.channels != 3:
        network.conv1 = nn.Conv2d(config.channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    stages = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
    body: nn.Module = IntermediateLayerGetter(network, stages)
    return body


def _maps_of(name: str) -> Any:
    """What timm tells of a network's feature maps."""
    try:
        with torch.device("meta"):  # shapes alone
            network: Any = timm.create_model(name, features_only=True, pretrained=False)
    except Exception as error:  # timm's own are of many kinds
        raise ConfigError(
            f"backbone {name!r}: not resnet50, and timm gives no feature maps of it ({error}); "
            "timm.list_models() names its networks"
        ) from error
    return network.feature_info


def _maps_used(name: str, all_strides: list[int]) -> tuple[list[int], list[int]]:
    """Which feature maps of a network a pyramid stands on, and their strides in px."""
    # Of several maps with one stride (networks without stages) the last knows the most.
    last = {stride: index for index, stride in enumerate(all_strides)}
    strides = sorted(stride for stride in last if FINEST <= stride <= COARSEST)
    if not strides or any(coarser != 2 * finer for finer, coarser in pairwise(strides)):
        raise ConfigError(
            f"backbone {name!r}: its feature maps have strides {all_strides} px; a pyramid "
            f"needs some of {FINEST}, 8, 16, {COARSEST} px in a row"
        )
    return [last[stride] for stride in strides], strides
