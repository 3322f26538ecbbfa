"""Encoder of the fast DETR: feature maps of three scales that know of each other."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Encoder(nn.Module):
    """Self-attention on the coarsest map, then a way down to the finest and back up [1]_.

    Attention over the coarsest map alone is cheap and tells where things are to each other; the
    convolutions carry that to the finer maps, and their edges back. Normalised are groups of
    features and not batches: a batch of four says little, and its parts on several GPUs less.

    References
    ----------
    .. [1] Zhao et al., DETRs beat YOLOs on real-time object detection, CVPR 2024,
       doi:10.1109/CVPR52733.2024.01605.
    """

    def __init__(
        self,
        channels: Sequence[int],
        hidden: int,
        *,
        heads: int,
        feedforward: int,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(_convolution(number, hidden, 1) for number in channels)
        layer = nn.TransformerEncoderLayer(hidden, heads, feedforward, dropout, batch_first=True)
        self.attention = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for weight in self.attention.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)  # torch makes all layers copies of the first
        steps = range(len(channels) - 1)
        self.down = nn.ModuleList(_convolution(hidden, hidden, 3) for _ in steps)
        self.shrink = nn.ModuleList(_convolution(hidden, hidden, 3, stride=2) for _ in steps)
        self.up = nn.ModuleList(_convolution(hidden, hidden, 3) for _ in steps)

    def forward(self, maps: Sequence[Tensor], inside: Sequence[Tensor]) -> list[Tensor]:
        """Fuse feature maps.

        Parameters
        ----------
        maps
            (B, C, H, W) of each scale, fine to coarse, each half as large as the one before.
        inside
            (B, H, W) bool of each scale: the cells that see the image and not its padding only.

        Returns
        -------
        list of Tensor
            (B, hidden, H, W) of each scale, 0 in cells that are not inside.
        """
        *finer, coarsest = (project(one) for project, one in zip(self.project, maps, strict=True))
        found = [self._attend(coarsest, inside[-1])]
        for convolve, one in zip(self.down, reversed(finer), strict=True):
            found.insert(0, convolve(one + F.interpolate(found[0], one.shape[-2:])))
        for at, (shrink, convolve) in enumerate(zip(self.shrink, self.up, strict=True)):
            found[at + 1] = convolve(found[at + 1] + shrink(found[at]))
        return [one * here[:, None] for one, here in zip(found, inside, strict=True)]

    def _attend(self, coarsest: Tensor, inside: Tensor) -> Tensor:
        tokens: Tensor = coarsest + places(*coarsest.shape[-3:]).to(coarsest)
        tokens = tokens.flatten(2).transpose(1, 2)
        tokens = self.attention(tokens, src_key_padding_mask=~inside.flatten(1))
        return tokens.transpose(1, 2).reshape(coarsest.shape)


def places(features: int, height: int, width: int) -> Tensor:
    """Sines and cosines (features, H, W) of the row, then of the column, in cells.

    Unlike the published DETR's, they do not depend on the size of the image: neighbours differ
    alike in images of any size. What `features` has beyond a multiple of 4 is 0.
    """
    speeds = 10000 ** -(torch.arange(features // 4) / (features // 4))
    rows = (speeds[:, None] * torch.arange(height))[..., None].expand(-1, -1, width)
    columns = (speeds[:, None] * torch.arange(width))[:, None].expand(-1, height, -1)
    waves = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()])
    return F.pad(waves, (0, 0, 0, 0, 0, features - len(waves)))


def _convolution(inputs: int, outputs: int, size: int, *, stride: int = 1) -> nn.Sequential:
    groups = next(number for number in (8, 4, 2, 1) if outputs % number == 0)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.GroupNorm(groups, outputs),
        nn.SiLU(),
    )
