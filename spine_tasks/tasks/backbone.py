"""The part of a detector that makes feature maps of an image: a ResNet, or any network of timm."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from spine_tasks.errors import ConfigError

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
PROBE_PX = 64  # side of the image that tells what maps a network has


class Backbone(nn.Module):
    """Feature maps of images, fine to coarse.

    Parameters
    ----------
    name
        `resnet18`, `resnet34`, `resnet50` or `resnet101` are torchvision's; other names are timm's.
    channels
        Of the images.
    maps
        How many maps are returned: the coarsest ones.
    dilation
        The coarsest map has twice the resolution (DC5).
    frozen
        For weights that are loaded: batch normalisation keeps its statistics and its affine
        parameters, and what the map at a quarter of the resolution is made of (of a ResNet `conv1`
        and `layer1`) is not trained. Without loaded weights all of it is trained.

    Attributes
    ----------
    body
        The network. ResNets bear torchvision's names.
    channels, strides
        Of each map that is returned.

    Raises
    ------
    ConfigError
        There is no such network, it has no such maps, or it cannot be dilated.
    """

    def __init__(
        self,
        name: str,
        *,
        channels: int = 3,
        maps: int = 1,
        dilation: bool = False,
        frozen: bool = True,
    ) -> None:
        super().__init__()
        self.frozen = frozen
        self.maps = maps
        make = _resnet if name in RESNETS else _of_timm
        self.body = make(name, channels, dilation, frozen)
        found = _maps_of(self, name, channels)
        if len(found) < maps:
            raise ConfigError(f"backbone {name} has {len(found)} feature maps, {maps} are needed")
        self.channels = tuple(one.shape[1] for one in found[-maps:])
        self.strides = tuple(PROBE_PX // one.shape[2] for one in found[-maps:])
        if frozen:
            _freeze(self.body, [one for one in found if PROBE_PX // one.shape[2] <= 4])
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """The coarsest `maps` maps of normalised images.

        Parameters
        ----------
        images
            Float (B, C, H, W).

        Returns
        -------
        list of Tensor
            Float (B, channels, H / stride, W / stride), rounded up or down as the network does.
        """
        return self._all_maps(images)[-self.maps :]

    def train(self, mode: bool = True) -> "Backbone":
        """Switch dropout and the like; frozen batch normalisation stays as it is."""
        super().train(mode)
        if self.frozen:
            for normalisation in _batch_norms(self.body):
                normalisation.eval()
        return self

    def _all_maps(self, images: Tensor) -> list[Tensor]:
        found = self.body(images)
        return list(found.values() if isinstance(found, dict) else found)


def _resnet(name: str, channels: int, dilation: bool, frozen: bool) -> nn.Module:
    try:
        network = getattr(resnet, name)(
            norm_layer=Fixed if frozen else nn.BatchNorm2d,
            replace_stride_with_dilation=[False, False, dilation],
        )
    except NotImplementedError as error:
        raise ConfigError(
            f"backbone {name} cannot be dilated ({error}); take resnet50 or dilation=false"
        ) from error
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if frozen:
        _join(network)
    stages = {f"layer{number}": str(number) for number in range(1, 5)}
    body: nn.Module = IntermediateLayerGetter(network, stages)
    return body


class Fixed(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision has no types
    """A frozen normalisation that the convolution before it applies."""

    def forward(self, features: Tensor) -> Tensor:
        """What comes in."""
        return features


class Normalising(nn.Conv2d):
    """A convolution and the frozen normalisation after it in one, which saves passes over the map.

    Both keep the names of their tensors.
    """

    def __init__(self, convolution: nn.Conv2d, normalisation: Fixed) -> None:
        c: Any = convolution  # whose numbers are typed as one or a pair
        super().__init__(
            c.in_channels,
            c.out_channels,
            c.kernel_size,
            c.stride,
            c.padding,
            c.dilation,
            c.groups,
            bias=False,
            device="meta",  # on none: the weights are those that are there
        )
        self.weight = c.weight
        self.after = (normalisation,)  # in a tuple: its tensors shall not get a second name

    def forward(self, features: Tensor) -> Tensor:
        """Features normalised after the convolution."""
        (norm,) = self.after
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        shape: Any = (self.stride, self.padding, self.dilation, self.groups)
        places = features[:, 0].numel() // (self.stride[0] * self.stride[1])
        if self.weight[0].numel() < places:  # less of the weights than of the map is to be scaled
            return F.conv2d(features, self.weight * scale.reshape(-1, 1, 1, 1), shift, *shape)
        found = F.conv2d(features, self.weight, None, *shape)
        scale, shift = (one.to(found.dtype).reshape(-1, 1, 1) for one in (scale, shift))
        return torch.addcmul(shift, found, scale)


def _join(network: nn.Module) -> None:
    """Let each convolution of a ResNet apply the normalisation that follows it."""
    for block in list(network.modules()):
        children = list(block.named_children())
        for (name, convolution), (_, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, Fixed):
                setattr(block, name, Normalising(convolution, norm))


def unknown(name: str, others: str = "") -> ConfigError:
    """The error of a name that timm does not know; `others` are networks that are not timm's."""
    import timm

    near = get_close_matches(name, timm.list_models(), n=6, cutoff=0.5)
    also = f" nor one of {others}" if others else ""
    return ConfigError(
        f"backbone {name!r}: no network of timm{also}"
        f"{'; similar names: ' + ', '.join(near) if near else ''}"
    )


def _of_timm(name: str, channels: int, dilation: bool, frozen: bool) -> nn.Module:
    import timm  # takes a tenth of a worker's start, which torchvision's need not wait for

    if not timm.is_model(name):
        raise unknown(name, f"torchvision's {', '.join(RESNETS)}")
    options: dict[str, Any] = {"output_stride": 16} if dilation else {}
    try:
        body: nn.Module = timm.create_model(name, features_only=True, in_chans=channels, **options)
    except Exception as error:  # timm has no class of its own for: this network cannot do that
        raise ConfigError(
            f"backbone {name}: timm makes no feature maps of it with in_chans={channels} and "
            f"{options or 'no other option'} ({error}); take another network"
        ) from error
    for normalisation in _batch_norms(body) if frozen else ():
        for parameter in normalisation.parameters():
            parameter.requires_grad_(False)
    return body


def _batch_norms(body: nn.Module) -> Iterable[nn.Module]:
    return (module for module in body.modules() if isinstance(module, nn.BatchNorm2d))


def _maps_of(backbone: Backbone, name: str, channels: int) -> list[Tensor]:
    """The maps of an empty image, fine to coarse."""
    backbone.eval()  # or batch normalisation would learn from it
    images = torch.zeros(1, channels, PROBE_PX, PROBE_PX)
    try:
        found = backbone._all_maps(images)
    except Exception as error:  # timm's networks say in many ways that they want another size
        raise ConfigError(
            f"backbone {name} cannot take images of any size ({error}); take a convolutional one"
        ) from error
    info: Any = getattr(backbone.body, "feature_info", None)
    if info is not None and [one.shape[1] for one in found] != info.channels():
        shapes = [tuple(one.shape) for one in found]
        raise ConfigError(f"backbone {name}: its maps {shapes} are not (B, C, H, W); take another")
    return found


def _freeze(body: nn.Module, fine: list[Tensor]) -> None:
    """Stop the training of all that some maps of the network are made of."""
    if not fine:
        return
    trained = [parameter for parameter in body.parameters() if parameter.requires_grad]
    total = torch.stack([one.sum() for one in fine]).sum()
    gradients = torch.autograd.grad(total, trained, allow_unused=True)
    for parameter, gradient in zip(trained, gradients, strict=True):
        if gradient is not None:
            parameter.requires_grad_(False)
