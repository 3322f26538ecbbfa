"""The transformer of DETR: normalisation after each block, places added to queries and keys only.

Sequences have the axes (tokens, images, features): what a feature map becomes without a copy.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Transformer(nn.Module):
    """An encoder of the feature map and a decoder of queries, with the names of official files.

    Parameters
    ----------
    hidden, heads, feedforward
        Features of a token, heads of attention, features inside a layer.
    encoder_layers, decoder_layers
        How many.
    dropout
        Fraction.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        feedforward: int,
        encoder_layers: int,
        decoder_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        sizes = (hidden, heads, feedforward, dropout)
        self.encoder = Encoder([EncoderLayer(*sizes) for _ in range(encoder_layers)])
        self.decoder = Decoder([DecoderLayer(*sizes) for _ in range(decoder_layers)], hidden)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, features: Tensor, position: Tensor, queries: Tensor, padding: Tensor | None
    ) -> Tensor:
        """What each query found, after every layer of the decoder.

        Parameters
        ----------
        features, position
            Float (B, hidden, H, W).
        queries
            Float (Q, hidden).
        padding
            Bool (B, H, W), true where there is no image; None = nowhere.

        Returns
        -------
        Tensor
            Float (decoder layers, B, Q, hidden).
        """
        tokens, places = (x.flatten(2).permute(2, 0, 1) for x in (features, position))
        ignored = None if padding is None else padding.flatten(1)
        memory = self.encoder(tokens, places, ignored)
        asked = queries[:, None].expand(-1, features.shape[0], -1)
        found: Tensor = self.decoder(asked, memory, memory + places, ignored)
        return found.transpose(1, 2)


class Encoder(nn.Module):
    """Layers one after another, without a normalisation at the end."""

    def __init__(self, layers: list["EncoderLayer"]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor, places: Tensor, ignored: Tensor | None) -> Tensor:
        """Tokens (S, B, hidden) that know of each other; `ignored` is bool (B, S)."""
        for layer in self.layers:
            tokens = layer(tokens, places, ignored)
        return tokens


class Decoder(nn.Module):
    """Layers one after another; the same normalisation ends the output of each."""

    def __init__(self, layers: list["DecoderLayer"], hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(hidden)

    def forward(
        self, queries: Tensor, memory: Tensor, keys: Tensor, ignored: Tensor | None
    ) -> Tensor:
        """What queries (Q, B, hidden) found after each layer, (layers, Q, B, hidden).

        `memory` is what the encoder made, `keys` the same with its places, both (S, B, hidden).
        """
        found = torch.zeros_like(queries)
        every = []
        for layer in self.layers:
            found = layer(found, queries, memory, keys, ignored)
            every.append(self.norm(found))
        return torch.stack(every)


class EncoderLayer(nn.Module):
    """Each place of the map looks at all others."""

    def __init__(self, hidden: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(hidden, heads, dropout)
        self.linear1 = nn.Linear(hidden, feedforward)
        self.linear2 = nn.Linear(feedforward, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, places: Tensor, ignored: Tensor | None) -> Tensor:
        """One step of `Encoder.forward`."""
        placed = tokens + places
        seen = _attend(self.self_attn, placed, placed, tokens, ignored)
        tokens = self.norm1(tokens + self.dropout(seen))
        inner = self.dropout(F.relu(self.linear1(tokens)))
        normalised: Tensor = self.norm2(tokens + self.dropout(self.linear2(inner)))
        return normalised


class DecoderLayer(nn.Module):
    """Each query looks at the others, then at the map."""

    def __init__(self, hidden: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(hidden, heads, dropout)
        self.multihead_attn = nn.MultiheadAttention(hidden, heads, dropout)
        self.linear1 = nn.Linear(hidden, feedforward)
        self.linear2 = nn.Linear(feedforward, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.norm3 = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        found: Tensor,
        queries: Tensor,
        memory: Tensor,
        keys: Tensor,
        ignored: Tensor | None,
    ) -> Tensor:
        """One step of `Decoder.forward`; `found` is what the layer before found."""
        asking = found + queries
        others = _attend(self.self_attn, asking, asking, found, None)
        found = self.norm1(found + self.dropout(others))
        seen = _attend(self.multihead_attn, found + queries, keys, memory, ignored)
        found = self.norm2(found + self.dropout(seen))
        inner = self.dropout(F.relu(self.linear1(found)))
        normalised: Tensor = self.norm3(found + self.dropout(self.linear2(inner)))
        return normalised


def _attend(
    attention: nn.MultiheadAttention,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    ignored: Tensor | None,
) -> Tensor:
    # Without the weights of attention, which nobody asks for, torch takes its fast kernels.
    seen: Tensor = attention(queries, keys, values, key_padding_mask=ignored, need_weights=False)[0]
    return seen
