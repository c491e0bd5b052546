"""Attention U-Net written down formula by formula, on the weights of ours: the yardstick for its speed and memory.

Evaluation only. Batch norm, pooling, nearest-neighbour upsampling and the gates are spelt out; both give the same numbers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.attention_unet import AttentionUNet
from napari_medt.nets.grid_attention_unet import GridAttentionUNet
from napari_medt.nets.layers import BatchNormNd, crop, pad_to_multiple


def plain(net: nn.Module) -> nn.Module:
    """The plain form of an Attention U-Net of any form."""
    if isinstance(net, GridAttentionUNet):
        return PlainGrid(copy.deepcopy(net))
    assert isinstance(net, AttentionUNet)
    return PlainAdditive(copy.deepcopy(net))


class PlainAdditive(nn.Module):
    """The forms `"additive"` and `"monai"`."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, *size)` to logits."""
        net, size = self.net, x.shape[2:]
        features = [run(net.encoder[0], pad_to_multiple(x, net.multiple))]
        for pool, block in zip(net.pools, net.encoder[1:], strict=True):
            below = features[-1] if isinstance(pool, nn.Identity) else max_of_blocks(features[-1], pool.kernel_size)
            features.append(run(block, below))
        y = features.pop()
        for up, gate, merge in zip(net.ups[::-1], net.gates[::-1], net.merges[::-1], strict=True):
            y = run(up, y)
            skip = features.pop()
            logit = run(gate.psi, relu(run(gate.signal, y) + run(gate.skip, skip)))
            y = run(merge, torch.cat((skip / (1 + torch.exp(-logit)), y), 1))
        return crop(net.head(y), size)


class PlainGrid(nn.Module):
    """The forms `"single"`, `"multi"` and `"grid"`."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, *size)` to logits."""
        net, size = self.net, x.shape[2:]
        features = [run(net.encoder[0], pad_to_multiple(x, net.multiple))]
        for step, block in zip(net.steps, net.encoder[1:], strict=True):
            features.append(run(block, max_of_blocks(features[-1], step)))
        y = features.pop()
        bottom = run(net.bridge, y)
        outputs: list[Tensor] = []
        for level in range(len(features) - 1, -1, -1):
            skip = features[level]
            if level > 0:
                signal = bottom if net.form == "grid" or not outputs else outputs[-1]
                gated = [self.gate(gate, skip, signal) for gate in net.gates[level - 1].gates]
                gated_skip = torch.cat(gated, 1)
                skip = gated_skip if net.form == "grid" else run(net.gates[level - 1].combine, gated_skip)
            y = run(net.merges[level], torch.cat((skip, self.enlarge(y, skip)), 1))
            outputs.append(y)
        if net.form != "grid":
            every = [self.enlarge(scale(o), y) for scale, o in zip(net.scales, reversed(outputs), strict=True)]
            y = torch.cat(every, 1)
        return crop(net.head(y), size)

    def gate(self, gate: Any, skip: Tensor, signal: Tensor) -> Tensor:
        """One gated skip."""
        theta = gate.theta(skip)
        logit = gate.psi(relu(theta + self.enlarge(gate.phi(signal), theta)))
        if gate.weights == "sigmoid":
            alpha = 1 / (1 + torch.exp(-logit))
        else:
            powers = torch.exp(logit - logit.flatten(1).amax(1).view(-1, 1, *[1] * (logit.ndim - 2)))
            alpha = powers / powers.flatten(1).sum(1).view(-1, 1, *[1] * (logit.ndim - 2))
        return run(gate.out, self.enlarge(alpha, skip) * skip)

    def enlarge(self, x: Tensor, like: Tensor) -> Tensor:
        """Linear interpolation to the size of `like`."""
        return F.interpolate(x, size=like.shape[2:], mode="bilinear" if x.ndim == 4 else "trilinear")


def run(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Layer by layer, those without weights and batch norm spelt out."""
    for layer in layers:
        if isinstance(layer, BatchNormNd):
            shape = (1, -1, *[1] * (x.ndim - 2))
            mean, var = layer.running_mean.view(shape), layer.running_var.view(shape)
            x = (x - mean) / torch.sqrt(var + layer.eps) * layer.weight.view(shape) + layer.bias.view(shape)
        elif isinstance(layer, nn.ReLU):
            x = relu(x)
        elif isinstance(layer, nn.Upsample):
            for axis, factor in enumerate(layer.scale_factor, start=2):
                x = x.repeat_interleave(int(factor), axis)
        else:
            x = layer(x)
    return x


def relu(x: Tensor) -> Tensor:
    """What is positive."""
    return x * (x > 0)


def max_of_blocks(x: Tensor, block: tuple[int, ...]) -> Tensor:
    """Maximum over blocks, axis by axis."""
    for axis, length in enumerate(block, start=2):
        x = x.unflatten(axis, (-1, length)).amax(axis + 1)
    return x
