"""Attention U-Net as its authors wrote it: gates on a coarser grid, one or two a skip, every scale in the last layer.

Source: Oktay, Schlemper, Le Folgoc, Lee, Heinrich, Misawa, Mori, McDonagh, Hammerla, Kainz, Glocker, Rueckert, "Attention U-Net:
Learning Where to Look for the Pancreas", MIDL 2018, section 2. Layer sizes follow the released implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.capture import Recorder
from napari_medt.nets.layers import (
    CONV,
    LINEAR,
    Axes,
    BatchNormNd,
    Strides,
    conv_norm_relu,
    crop,
    double_conv,
    level_strides,
    pad_to_multiple,
    total_stride,
)
from napari_medt.nets.states import AttentionSource, GateState


class GridGate(Recorder):
    """Grid attention (section 2.2, equations 1 and 2).

    The skip is brought to the next coarser grid by a strided convolution, the signal is interpolated to that grid, their sum
    gives one weight a place, and the weights are interpolated back.

    Parameters
    ----------
    dims
        2 or 3.
    channels, signal
        Channels of the skip and of the gating signal.
    stride
        From the skip's grid to the gate's.
    weights
        `"sigmoid"`: each place by itself, between 0 and 1. `"softmax"`: over all places of the image.
    """

    def __init__(
        self, dims: int, channels: int, signal: int, stride: Axes, weights: Literal["sigmoid", "softmax"]
    ) -> None:
        super().__init__()
        self.weights: Literal["sigmoid", "softmax"] = weights
        self.mode = LINEAR[dims]
        self.theta = CONV[dims](channels, channels, stride, stride, bias=False)
        self.phi = CONV[dims](signal, channels, 1)
        self.psi = CONV[dims](channels, 1, 1)
        self.out = nn.Sequential(CONV[dims](channels, channels, 1), BatchNormNd(channels))

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """`(n, channels, *size)` and `(n, signal, *coarser)` to `(n, channels, *size)`."""
        theta = self.theta(skip)
        phi = F.interpolate(self.phi(signal), size=theta.shape[2:], mode=self.mode)
        alpha: Tensor = self.psi(F.relu(theta + phi))
        alpha = alpha.sigmoid() if self.weights == "sigmoid" else alpha.flatten(2).softmax(-1).view_as(alpha)
        alpha = F.interpolate(alpha, size=skip.shape[2:], mode=self.mode)
        if self.seen is not None:
            self.seen.append(GateState(alpha.detach()))
        gated: Tensor = self.out(alpha * skip)
        return gated


class SkipGates(nn.Module):
    """The gates of one skip, and the convolution that combines them where the network has one."""

    def __init__(self, gates: Sequence[GridGate], dims: int, channels: int, *, combine: bool) -> None:
        super().__init__()
        self.gates = nn.ModuleList(gates)
        self.combine = (
            nn.Sequential(*conv_norm_relu(dims, len(gates) * channels, channels, (1,) * dims))
            if combine
            else nn.Identity()
        )

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """The gated skip, in its own shape."""
        gated: Tensor = self.combine(torch.cat([gate(skip, signal) for gate in self.gates], 1))
        return gated


class GridAttentionUNet(nn.Module):
    """Attention U-Net of the authors; the finest skip has no gate.

    Parameters
    ----------
    in_channels, num_classes
        Channels of the image; classes, background included.
    spatial_dims
        2 or 3.
    form
        `"single"` and `"multi"`: one or two gates a skip, steered by the decoder one level below (the bottom for the deepest),
        and logits made from the decoder's output at every scale. `"grid"`: the first version, in-plane in 3D (kernel 1 x 3 x 3,
        stride 1 x 2 x 2), one gate a skip, all steered by the bottom, logits from the finest scale.
    channels
        Width of every level, finest first, at least three.
    strides
        From each level to the next: a number, or one an axis.
    weights
        How a gate's weights are normalised, see `GridGate`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        spatial_dims: int,
        form: Literal["single", "multi", "grid"],
        channels: Sequence[int],
        strides: Strides = None,
        weights: Literal["sigmoid", "softmax"] = "sigmoid",
    ) -> None:
        super().__init__()
        if len(channels) < 3:
            raise ValueError(f"the form {form!r} needs at least three levels, not {len(channels)}")
        self.in_channels, self.num_classes, self.spatial_dims = in_channels, num_classes, spatial_dims
        self.form, dims, levels = form, spatial_dims, len(channels) - 1
        in_plane = form == "grid" and dims == 3
        kernel = (1, 3, 3) if in_plane else (3,) * dims
        steps = level_strides(strides, levels, dims, (1, 2, 2) if in_plane else (2,) * dims)
        self.multiple = total_stride(steps)
        self.encoder = nn.ModuleList(
            double_conv(dims, above, width, kernel) for above, width in pairwise((in_channels, *channels))
        )
        bottom = channels[-2] if form == "grid" else channels[-1]
        self.bridge = nn.Sequential(*conv_norm_relu(dims, channels[-1], bottom, (1,) * dims))
        self.gates = nn.ModuleList()
        for level in range(1, levels):
            signal = bottom if form == "grid" else channels[level + 1]
            gates = [
                GridGate(dims, channels[level], signal, steps[level], weights)
                for _ in range(2 if form == "multi" else 1)
            ]
            self.gates.append(SkipGates(gates, dims, channels[level], combine=form != "grid"))
        self.merges = nn.ModuleList(
            double_conv(dims, below + width, width, kernel) for width, below in pairwise(channels)
        )
        self.steps = steps
        self.scales = nn.ModuleList()
        if form != "grid":
            self.scales.extend(CONV[dims](width, num_classes, 1) for width in channels[:-1])
        self.head = CONV[dims](channels[0] if form == "grid" else levels * num_classes, num_classes, 1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, *size)` to logits `(n, num_classes, *size)`."""
        size, mode = x.shape[2:], LINEAR[self.spatial_dims]
        x = pad_to_multiple(x, self.multiple)
        pool = F.max_pool2d if self.spatial_dims == 2 else F.max_pool3d
        skips = []
        for block, step in zip(self.encoder, (*self.steps, None), strict=True):
            x = block(x)
            if step is not None:
                skips.append(x)
                x = pool(x, step)
        signal = self.bridge(x)
        decoded: list[Tensor] = []
        for level in reversed(range(len(skips))):
            skip = self.gates[level - 1](skips[level], signal) if level else skips[level]
            up = F.interpolate(x, size=skip.shape[2:], mode=mode)
            x = self.merges[level](torch.cat((skip, up), 1))
            if self.form != "grid":
                signal = x
            decoded.insert(0, x)
        if self.scales:
            finest = decoded[0].shape[2:]
            logits = (scale(y) for scale, y in zip(self.scales, decoded, strict=True))
            x = torch.cat([F.interpolate(y, size=finest, mode=mode) for y in logits], 1)
        return crop(self.head(x), size)

    def attention_sources(self) -> dict[AttentionSource, GridGate]:
        """Every gate, deepest first: `"level3"`, or `"level3.1"` and `"level3.2"` where a skip has two."""
        sources = {}
        for level, skip in reversed(list(enumerate(self.gates, start=1))):
            assert isinstance(skip, SkipGates)
            for number, gate in enumerate(skip.gates, start=1):
                assert isinstance(gate, GridGate)
                name = f"level{level}.{number}" if len(skip.gates) > 1 else f"level{level}"
                sources[AttentionSource(name, "gate", 1, level)] = gate
        return sources


def _initialise(module: nn.Module) -> None:
    """Normal weights by fan-in for convolutions, near 1 for batch norm, as the authors' training does."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, BatchNormNd):
        nn.init.normal_(module.weight, 1.0, 0.02)
