"""Decoder of the fast DETR: queries look at the image and at each other, and mend their boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spine_tasks.tasks.detr.fast_attention import DeformableAttention

EDGE = 1e-4  # boxes are kept this far from 0 and 1, where a logit is infinite
RARE = -4.6  # logit of a probability of .01


class Decoder(nn.Module):
    """Layers that mend boxes one after the other; their heads for classes and boxes are shared."""

    def __init__(
        self,
        hidden: int,
        classes: int,
        *,
        maps: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(
            Layer(hidden, maps=maps, heads=heads, feedforward=feedforward, dropout=dropout)
            for _ in range(layers)
        )
        self.place = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.classes = class_head(hidden, classes)
        self.boxes = box_head(hidden)

    def forward(
        self,
        queries: Tensor,
        boxes: Tensor,
        memory: Sequence[Tensor],
        blocked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mend boxes.

        Parameters
        ----------
        queries
            (B, Q, hidden).
        boxes
            (B, Q, 4) cxcywh, fractions of the maps.
        memory
            Feature maps (B, hidden, H, W), fine to coarse.
        blocked
            (B, Q, Q) bool: the first query must not see the second.

        Returns
        -------
        tuple of Tensor
            Class logits (layers, B, Q, classes) and boxes (layers, B, Q, 4), float32. A layer
            learns from its own error alone: no gradient flows through the box it starts from.
        """
        if blocked is not None:
            blocked = blocked.repeat_interleave(self.heads, 0)  # attention wants one a head
        logits, mended = [], []
        for layer in self.layers:
            queries = layer(queries, self.place(boxes), boxes, memory, blocked)
            logits.append(self.classes(queries).float())
            mended.append(mend(boxes, self.boxes(queries)))
            boxes = mended[-1].detach()
        return torch.stack(logits), torch.stack(mended)


class Layer(nn.Module):
    """Attention among queries, attention to the image, and a network for each query."""

    def __init__(
        self, hidden: int, *, maps: int, heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(hidden, heads, dropout, batch_first=True)
        self.look = DeformableAttention(hidden, heads, maps)
        self.think = nn.Sequential(
            nn.Linear(hidden, feedforward),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, hidden),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Tensor,
        places: Tensor,
        boxes: Tensor,
        memory: Sequence[Tensor],
        blocked: Tensor | None,
    ) -> Tensor:
        """Queries (B, Q, hidden) after a round; `places` are features of their boxes."""
        placed = queries + places
        heard, _ = self.among(placed, placed, queries, attn_mask=blocked, need_weights=False)
        queries = self.norms[0](queries + self.dropout(heard))
        seen = self.look(queries + places, boxes, memory)
        queries = self.norms[1](queries + self.dropout(seen))
        answer: Tensor = self.norms[2](queries + self.dropout(self.think(queries)))
        return answer


def mend(boxes: Tensor, change: Tensor) -> Tensor:
    """Move boxes (..., 4) in [0, 1] by a change of their logits; float32, in (0, 1)."""
    inside = boxes.float().clamp(EDGE, 1 - EDGE)
    return (inside.logit() + change.float()).sigmoid()


def box_head(hidden: int) -> nn.Sequential:
    """A network from features to a change of a box, at first none."""
    last = nn.Linear(hidden, 4)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last
    )


def class_head(hidden: int, classes: int) -> nn.Linear:
    """A layer from features to class logits, at first about .01 everywhere.

    Nearly all of a thousand places are background; to start there saves the first epochs.
    """
    head = nn.Linear(hidden, classes)
    nn.init.constant_(head.bias, RARE)
    return head
