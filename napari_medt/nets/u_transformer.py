"""U-Transformer: a U-Net with self-attention at its deepest level and cross-attention in its skip connections.

Source: Petit, Thome, Rambour, Themyr, Collins, Soler, "U-Net Transformer: Self and Cross Attention for Medical Image
Segmentation", MLMI 2021. Channels and counts follow its figures; either attention can be left out, which gives the columns
of the paper's ablation, down to the plain U-Net.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from math import lcm
from typing import Literal

import torch
from torch import Tensor, nn

from napari_medt.nets.cross_attention import WIRINGS, CrossAttention, Over, Scale, SelfAttention
from napari_medt.nets.layers import CONV, POOL, TRANSPOSED, Norm, crop, double_conv, pad_to_multiple
from napari_medt.nets.registry import register
from napari_medt.nets.states import LARGEST, AttentionSource

PAPER = "Petit et al., U-Net Transformer: Self and Cross Attention for Medical Image Segmentation, MLMI 2021"
USUAL_SIDE = {2: 256, 3: 96}  # of the images that tokens are counted for


class Join(nn.Module):
    """Doubles a deep map and puts it beside the skip connection, as in the plain U-Net."""

    def __init__(self, deep: int, skip: int, spatial_dims: int) -> None:
        super().__init__()
        self.up = TRANSPOSED[spatial_dims](deep, skip, 2, stride=2)

    def forward(self, y: Tensor, s: Tensor) -> Tensor:
        """`(n, deep, *size)` and `(n, skip, *2 size)` to `(n, 2 skip, *2 size)`."""
        return torch.cat((s, self.up(y)), dim=1)


def usual_token_strides(levels: int, spatial_dims: int) -> tuple[int, ...]:
    """Strides, finest skip first, with which an image of 256 x 256 or 96 x 96 x 96 has at most 4,096 tokens everywhere.

    Examples
    --------
    >>> usual_token_strides(3, 2), usual_token_strides(3, 3)
    ((2, 1, 1), (4, 2, 1))
    """
    strides = []
    for level in range(levels):
        side, stride = USUAL_SIDE[spatial_dims] >> (level + 1), 1
        while (side // stride) ** spatial_dims > LARGEST:
            stride *= 2
        strides.append(stride)
    return tuple(strides)


@register(
    "u-transformer",
    title="U-Transformer",
    spatial_dims=(2, 3),
    multiple=8,
    paper=PAPER,
    attention="all places to all at the deepest level, and how each skip connection is filtered",
    small={"channels": (16, 32, 64, 128)},
    published={"token_strides": (1, 1, 1), "num_classes": 7},
)
class UTransformer(nn.Module):
    """U-Net with self-attention at the deepest level and cross-attention in the skips: 12.0 million parameters at the defaults.

    Parameters
    ----------
    in_channels, num_classes
        Channels of the image; classes, background included.
    spatial_dims
        2 or 3.
    channels
        A level, finest first; the image is halved between them.
    heads
        Heads of every attention.
    mhsa
        Self-attention at the deepest level.
    mhca
        Cross-attention in all skips, in none, or in those named: 0 is the skip at full resolution.
    token_strides
        Places along each axis that make one token of cross-attention, finest skip first. By default those that keep an image
        of 256 x 256 or 96 x 96 x 96 within 4,096 tokens.
    norm
        `"batch"` as published, or `"instance"` for batches of one.
    wiring
        Details in which the public codes differ, see `Wiring`.
    scale, over
        See `DotAttention`.
    residual
        Adds its input to the result of the self-attention.

    Raises
    ------
    ValueError
        If a value does not fit.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        *,
        spatial_dims: int = 2,
        channels: Sequence[int] = (64, 128, 256, 512),
        heads: int = 8,
        mhsa: bool = True,
        mhca: bool | Collection[int] = True,
        token_strides: Sequence[int] | None = None,
        norm: Norm = "batch",
        wiring: Literal["standard", "authors", "community"] = "standard",
        scale: Scale = "channels",
        over: Over = "keys",
        residual: bool = False,
    ) -> None:
        super().__init__()
        levels = len(channels) - 1
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {spatial_dims}")
        if levels < 1:
            raise ValueError(f"channels must name two levels or more, not {tuple(channels)}")
        if wiring not in WIRINGS:
            raise ValueError(f"wiring must be one of {', '.join(WIRINGS)}, not {wiring!r}")
        crossed = set(range(levels)) if mhca is True else set(mhca or ())
        if not crossed <= set(range(levels)):
            raise ValueError(f"mhca may name the skips 0 (finest) to {levels - 1}, not {sorted(crossed)}")
        strides = usual_token_strides(levels, spatial_dims) if token_strides is None else tuple(token_strides)
        if len(strides) != levels or min(strides) < 1:
            raise ValueError(f"token_strides must be {levels} positive numbers, finest skip first, not {strides}")
        form = WIRINGS[wiring]
        self.in_channels, self.num_classes, self.spatial_dims = in_channels, num_classes, spatial_dims
        self.multiple = 2**levels
        self.pool = POOL[spatial_dims](2)
        self.encoder = nn.ModuleList(
            double_conv(spatial_dims, before, after, norm=norm) for before, after in pairwise((in_channels, *channels))
        )
        self.self_attention = (
            SelfAttention(channels[-1], heads, wiring=form, scale=scale, over=over, residual=residual) if mhsa else None
        )
        self.joins, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, stride in reversed(list(enumerate(strides))):
            skip, deep = channels[level : level + 2]
            if level in crossed:
                self.joins.append(
                    CrossAttention(
                        deep,
                        skip,
                        heads,
                        spatial_dims=spatial_dims,
                        stride=stride,
                        norm=norm,
                        wiring=form,
                        scale=scale,
                        over=over,
                    )
                )
                self.multiple = lcm(self.multiple, 2 ** (level + 1) * stride)
            else:
                self.joins.append(Join(deep, skip, spatial_dims))
            self.decoder.append(double_conv(spatial_dims, 2 * skip, skip, norm=norm))
        self.head = CONV[spatial_dims](channels[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, *size)` of any size to logits `(n, num_classes, *size)`."""
        size = x.shape[2:]
        x = pad_to_multiple(x, self.multiple)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        x = skips.pop()
        if self.self_attention is not None:
            x = self.self_attention(x)
        for join, block in zip(self.joins, self.decoder, strict=True):
            x = block(join(x, skips.pop()))
        return crop(self.head(x), size)

    def attention_sources(self) -> dict[AttentionSource, nn.Module]:
        """`"self"` at the deepest level, then `"cross.<level>"` and `"gate.<level>"` of every filtered skip, deepest first."""
        deepest = len(self.encoder) - 1
        sources: dict[AttentionSource, nn.Module] = {}
        if self.self_attention is not None:
            attend = self.self_attention.attend
            sources[AttentionSource("self", "token", attend.heads, deepest)] = attend
        for level, join in zip(reversed(range(deepest)), self.joins, strict=True):
            if isinstance(join, CrossAttention):
                tokens = level + join.stride.bit_length()
                sources[AttentionSource(f"cross.{level}", "cross", join.attend.heads, tokens)] = join.attend
                sources[AttentionSource(f"gate.{level}", "gate", 1, level)] = join.gate
        return sources
