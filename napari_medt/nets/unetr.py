"""UNETR: a transformer over patches as the encoder of a U-Net.

Source: Hatamizadeh, Tang, Nath, Yang, Myronenko, Landman, Roth, Xu, "UNETR: Transformers for 3D Medical Image Segmentation",
WACV 2022, section 3. There are two implementations whose weights do not fit each other; both forms are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.layers import CONV, TRANSPOSED, crop, pad_to_multiple, per_axis
from napari_medt.nets.registry import register
from napari_medt.nets.states import AttentionSource
from napari_medt.nets.vit import PATCH, SelfAttention, ViT

PAPER = "Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, WACV 2022"
LEVELS = 4  # halvings from the image to the tokens
UnetrForm = Literal["self-attention-cv", "monai", "monai-linear"]
Size = int | Sequence[int]


@dataclass(frozen=True)
class _Layout:
    """Where the implementations differ."""

    taps: tuple[int, int, int]  # blocks that feed the skips, counted from 1
    refine: bool  # a residual block after every doubling of a skip but the first
    token_bias: bool
    conv_bias: bool
    norm: bool  # layer norm after the last block
    position_std: float


_MONAI = _Layout((4, 7, 10), refine=True, token_bias=True, conv_bias=False, norm=True, position_std=0.02)
_LAYOUTS: dict[str, _Layout] = {
    "self-attention-cv": _Layout(
        (3, 6, 9), refine=False, token_bias=False, conv_bias=True, norm=False, position_std=1.0
    ),
    "monai": _MONAI,
    "monai-linear": replace(_MONAI, refine=False),
}


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions with instance norm, added to the input, which is projected where the channels differ."""

    def __init__(self, channels: int, width: int, dims: int, *, bias: bool) -> None:
        super().__init__()
        conv = CONV[dims]
        self.conv1 = conv(channels, width, 3, padding=1, bias=bias)
        self.conv2 = conv(width, width, 3, padding=1, bias=bias)
        self.shortcut = conv(channels, width, 1, bias=bias) if channels != width else None

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, *size)` to `(n, width, *size)`, two places or more."""
        out = F.leaky_relu(F.instance_norm(self.conv1(x)), 0.01, inplace=True)
        out = F.instance_norm(self.conv2(out))
        out = out + (x if self.shortcut is None else F.instance_norm(self.shortcut(x)))
        return F.leaky_relu(out, 0.01, inplace=True)


class UNETR(nn.Module):
    """Transformer encoder, convolutional decoder; options as `unetr`."""

    multiple = PATCH

    def __init__(
        self,
        size: tuple[int, ...],
        *,
        in_channels: int,
        num_classes: int,
        layout: _Layout,
        width: int,
        embed: int,
        heads: int,
        hidden: int,
    ) -> None:
        super().__init__()
        dims = len(size)
        self.in_channels, self.num_classes, self.spatial_dims = in_channels, num_classes, dims
        self.encoder = ViT(
            in_channels,
            tuple(edge // PATCH for edge in size),
            embed=embed,
            heads=heads,
            hidden=hidden,
            taps=layout.taps,
            bias=layout.token_bias,
            norm=layout.norm,
            position_std=layout.position_std,
        )
        self.stem = ResidualBlock(in_channels, width, dims, bias=layout.conv_bias)
        self.skips, self.ups, self.fuse = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        widths = [width << level for level in range(LEVELS)]  # finest first
        for level, channels in enumerate(widths[1:], start=1):
            skip = nn.Sequential(_double(embed, channels, dims))
            for _ in range(LEVELS - level - 1):
                skip.append(_double(channels, channels, dims))
                if layout.refine:
                    skip.append(ResidualBlock(channels, channels, dims, bias=False))
            self.skips.append(skip)
        for below, channels in zip([*widths[1:], embed], widths, strict=True):
            self.ups.append(_double(below, channels, dims))
            self.fuse.append(ResidualBlock(2 * channels, channels, dims, bias=layout.conv_bias))
        self.head = CONV[dims](width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, *size)` of any size to logits `(n, num_classes, *size)`."""
        size = x.shape[2:]
        x = pad_to_multiple(x, PATCH)
        *taps, out = self.encoder(x)
        for level in reversed(range(LEVELS)):
            skip = self.skips[level - 1](taps[level - 1]) if level else self.stem(x)
            out = self.fuse[level](torch.cat((self.ups[level](out), skip), 1))
        return crop(self.head(out), size)

    def attention_sources(self) -> dict[AttentionSource, SelfAttention]:
        """Every block, counted from 1."""
        attention = [block.attention for block in self.encoder.blocks if isinstance(block.attention, SelfAttention)]
        return {
            AttentionSource(f"block{number}", "token", module.heads, LEVELS): module
            for number, module in enumerate(attention, start=1)
        }


def _double(channels: int, width: int, dims: int) -> nn.Module:
    return TRANSPOSED[dims](channels, width, 2, 2, bias=False)


@register(
    "unetr",
    title="UNETR",
    spatial_dims=(2, 3),
    multiple=PATCH,
    paper=PAPER,
    attention="every patch of 16 to all patches, in each of twelve blocks",
    small={"img_size": 64, "width": 8, "embed": 64, "heads": 4, "hidden": 128},
    published={
        "img_size": (128, 128, 64),
        "in_channels": 4,
        "num_classes": 3,
        "embed": 512,
        "heads": 10,
        "hidden": 2048,
    },
)
def unetr(
    img_size: Size = 96,
    in_channels: int = 1,
    num_classes: int = 2,
    spatial_dims: int = 3,
    form: UnetrForm = "self-attention-cv",
    width: int = 16,
    embed: int = 384,
    heads: int = 6,
    hidden: int = 1536,
) -> UNETR:
    """UNETR for images and volumes: 49,667,123 parameters as published in self-attention-cv.

    Parameters
    ----------
    img_size
        Size the position table is made for, one number or one an axis, multiples of 16; other sizes use an interpolated table.
    in_channels, num_classes
        Channels of the image; classes, background included.
    spatial_dims
        2 or 3.
    form
        `"self-attention-cv"`: skips from blocks 3, 6 and 9 through linear layers, the decoder from block 12. `"monai"`: skips from
        blocks 4, 7 and 10 with residual blocks, the decoder from the normalised output. `"monai-linear"`: the same without those
        residual blocks, the default of early versions of MONAI.
    width
        Channels at full resolution, doubled at every level.
    embed, heads, hidden
        Channels of a token, attention heads, channels inside the transformer's linear layers.

    Raises
    ------
    ValueError
        If a size or the number of heads does not fit, or the form is unknown.
    """
    if spatial_dims not in CONV:
        raise ValueError(f"spatial_dims is 2 or 3, not {spatial_dims}")
    if form not in _LAYOUTS:
        raise ValueError(f"form is one of {', '.join(_LAYOUTS)}, not {form}")
    size = per_axis(img_size, spatial_dims, name="img_size")
    if any(edge % PATCH for edge in size):
        raise ValueError(f"img_size must be {spatial_dims} multiples of {PATCH}, not {' x '.join(map(str, size))}")
    if form != "self-attention-cv" and embed % heads:
        raise ValueError(f"{heads} heads do not divide {embed} channels")
    return UNETR(
        size,
        in_channels=in_channels,
        num_classes=num_classes,
        layout=_LAYOUTS[form],
        width=width,
        embed=embed,
        heads=heads,
        hidden=hidden,
    )
