"""Attention U-Net: a U-Net whose skips pass gates that weigh every place of the image.

Source: Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018. Most people mean by the name a simpler
form that came after it, with gates at the resolution of the skips; both are here, the authors' own in `grid_attention_unet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.capture import Recorder
from napari_medt.nets.grid_attention_unet import GridAttentionUNet
from napari_medt.nets.layers import (
    CONV,
    POOL,
    TRANSPOSED,
    BatchNormNd,
    Strides,
    conv_norm_relu,
    crop,
    double_conv,
    level_strides,
    pad_to_multiple,
    total_stride,
)
from napari_medt.nets.registry import register
from napari_medt.nets.states import AttentionSource, GateState

PAPER = "Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018"
Form = Literal["additive", "monai", "single", "multi", "grid"]
FORMS: tuple[Form, ...] = ("additive", "monai", "single", "multi", "grid")


class Gate(Recorder):
    """Additive gate: `alpha = sigmoid(psi(relu(signal + skip)))`, each term a 1 x 1 convolution with batch norm.

    Parameters
    ----------
    dims
        2 or 3.
    channels
        Channels of the skip and of the signal, which have the same size here.
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.signal = nn.Sequential(CONV[dims](channels, inner, 1), BatchNormNd(inner))
        self.skip = nn.Sequential(CONV[dims](channels, inner, 1), BatchNormNd(inner))
        self.psi = nn.Sequential(CONV[dims](inner, 1, 1), BatchNormNd(1))

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Two of `(n, channels, *size)` to the weighed skip."""
        alpha: Tensor = self.psi(F.relu(self.signal(signal) + self.skip(skip))).sigmoid()
        if self.seen is not None:
            self.seen.append(GateState(alpha.detach()))
        return alpha * skip


class AttentionUNet(nn.Module):
    """U-Net with a gate on every skip, steered by the decoder's features after they were brought to the skip's size.

    Parameters
    ----------
    in_channels, num_classes
        Channels of the image; classes, background included.
    spatial_dims
        2 or 3.
    form
        `"additive"`: pooling, nearest-neighbour upsampling with a convolution, two convolutions after each skip. `"monai"`:
        strided convolutions down, transposed convolutions up, after each skip one convolution with instance norm and PReLU.
    channels
        Width of every level, finest first, at least two.
    strides
        From each level to the next: a number, or one an axis; 2 by default.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        spatial_dims: int,
        form: Literal["additive", "monai"],
        channels: Sequence[int],
        strides: Strides = None,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"the form {form!r} needs at least two levels, not {len(channels)}")
        self.in_channels, self.num_classes, self.spatial_dims = in_channels, num_classes, spatial_dims
        dims = spatial_dims
        steps = level_strides(strides, len(channels) - 1, dims)
        self.multiple = total_stride(steps)
        self.encoder = nn.ModuleList([double_conv(dims, in_channels, channels[0])])
        self.pools, self.ups, self.gates, self.merges = (nn.ModuleList() for _ in range(4))
        for width, below, step in zip(channels[:-1], channels[1:], steps, strict=True):
            self.gates.append(Gate(dims, width))
            if form == "additive":
                self.pools.append(POOL[dims](step))
                self.encoder.append(double_conv(dims, width, below))
                up = nn.Upsample(scale_factor=tuple(map(float, step)), mode="nearest")
                self.ups.append(nn.Sequential(up, *conv_norm_relu(dims, below, width)))
                self.merges.append(double_conv(dims, 2 * width, width))
            else:
                self.pools.append(nn.Identity())
                self.encoder.append(double_conv(dims, width, below, stride=step))
                self.ups.append(nn.Sequential(_transposed(dims, below, width, step), BatchNormNd(width), nn.ReLU()))
                norm = (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(width)
                self.merges.append(nn.Sequential(CONV[dims](2 * width, width, 3, padding=1), norm, nn.PReLU()))
        self.head = CONV[dims](channels[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, *size)` to logits `(n, num_classes, *size)`."""
        size = x.shape[2:]
        x = self.encoder[0](pad_to_multiple(x, self.multiple))
        skips = []
        for pool, block in zip(self.pools, self.encoder[1:], strict=True):
            skips.append(x)
            x = block(pool(x))
        for up, gate, merge in zip(self.ups[::-1], self.gates[::-1], self.merges[::-1], strict=True):
            x = up(x)
            x = merge(torch.cat((gate(skips.pop(), x), x), 1))
        return crop(self.head(x), size)

    def attention_sources(self) -> dict[AttentionSource, Gate]:
        """Every gate, deepest first: `"level3"` down to `"level0"` at full resolution."""
        sources = {}
        for level, gate in reversed(list(enumerate(self.gates))):
            assert isinstance(gate, Gate)
            sources[AttentionSource(f"level{level}", "gate", 1, level)] = gate
        return sources


def _transposed(dims: int, channels: int, width: int, step: tuple[int, ...]) -> nn.Module:
    """A transposed convolution of kernel 3 that multiplies the size by its stride exactly."""
    leftover = tuple(s - 1 for s in step)
    return TRANSPOSED[dims](channels, width, 3, step, padding=1, output_padding=leftover)


@register(
    "attention-unet",
    title="Attention U-Net",
    spatial_dims=(2, 3),
    multiple=16,
    paper=PAPER,
    attention="the gate of every skip",
    small={"channels": (16, 32, 64, 128)},
    published={
        "form": "multi",
        "spatial_dims": 3,
        "channels": (16, 32, 64, 128, 256),
        "in_channels": 1,
        "num_classes": 4,
    },
)
def attention_unet(
    in_channels: int = 1,
    num_classes: int = 2,
    spatial_dims: int = 2,
    form: Form = "additive",
    channels: Sequence[int] = (32, 64, 128, 256, 512),
    strides: Strides = None,
    gate_weights: Literal["sigmoid", "softmax"] = "sigmoid",
) -> AttentionUNet | GridAttentionUNet:
    """Attention U-Net in one of its five forms: 8.7 million parameters at the defaults.

    `gate_weights="softmax"` belongs to the authors' forms `"single"`, `"multi"` and `"grid"`.

    Raises
    ------
    ValueError
        If a value does not fit.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is 2 or 3, not {spatial_dims}")
    if form not in FORMS:
        raise ValueError(f"form is one of {', '.join(FORMS)}, not {form!r}")
    if form == "additive" or form == "monai":
        if gate_weights != "sigmoid":
            raise ValueError(f"the form {form!r} has sigmoid gates only")
        return AttentionUNet(
            in_channels=in_channels,
            num_classes=num_classes,
            spatial_dims=spatial_dims,
            form=form,
            channels=channels,
            strides=strides,
        )
    return GridAttentionUNet(
        in_channels=in_channels,
        num_classes=num_classes,
        spatial_dims=spatial_dims,
        form=form,
        channels=channels,
        strides=strides,
        weights=gate_weights,
    )
