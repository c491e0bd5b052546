"""The straightforward form of multi-scale guided attention: what `napari_medt.nets.guided_attention` is measured against.

Every attention matrix is written out, the autoencoder runs scale by scale, all eight predictions are made and enlarged
although evaluation uses four. Modules and weights are those of our network, the results are the same.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.dual_attention import PositionAttention
from napari_medt.nets.guided_attention import GuidedAttentionNet, GuidedStep
from napari_medt.nets.norm import BatchNorm


class PlainPositionAttention(nn.Module):
    """Position attention with its `(n, h w, h w)` matrix."""

    def __init__(self, ours: PositionAttention) -> None:
        super().__init__()
        self.query, self.key, self.value, self.gamma = ours.query, ours.key, ours.value, ours.gamma

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)`, the same shape."""
        matrix = torch.bmm(self.query(x).flatten(2).mT, self.key(x).flatten(2)).softmax(-1)
        return self.gamma * torch.bmm(self.value(x).flatten(2), matrix.mT).view(x.shape) + x


class PlainGuidedAttention(nn.Module):
    """The network scale by scale; in training it gives the logits alone."""

    def __init__(self, net: GuidedAttentionNet) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        for step in (self.net.first, self.net.second):
            for layer in step.position:
                layer[3] = PlainPositionAttention(layer[3])
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.groups = 1  # one scale at a time

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, h, w)`, sizes multiples of 32, to logits `(n, num_classes, h, w)`."""
        net, size = self.net, x.shape[-2:]
        features = net.backbone(x)[::-1]
        scales = [_resize(down(f), features[-1].shape[-2:]) for down, f in zip(net.down, features, strict=True)]
        fused = net.fuse(torch.cat(scales, 1))
        predictions = [_resize(head(scale), size) for head, scale in zip(net.coarse_heads, scales, strict=True)]
        for index, scale in enumerate(scales):
            guided = _guide(net.first, index, torch.cat((scale, fused), 1))
            refined = _guide(net.second, index, torch.cat((scale, guided * fused), 1))
            predictions.append(_resize(net.refined_heads[index](refined), size))
        return sum(predictions[len(scales) :], torch.zeros(())) / len(scales)


def _guide(step: GuidedStep, index: int, x: Tensor) -> Tensor:
    _, reconstruction = step.autoencoder(x)
    return step.guides[index](step.channel[index](x) + step.position[index](x), reconstruction)


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def plain(net: GuidedAttentionNet) -> nn.Module:
    """The same network in evaluation, with a copy of its weights."""
    return PlainGuidedAttention(net).eval()
