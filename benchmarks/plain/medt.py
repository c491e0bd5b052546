"""The Medical Transformer written down plainly, as the yardstick our form is measured against.

Same weights, same numbers, no rearrangement: the three logit terms are stacked and normalised as a tensor, batch norm is a
layer of its own, and the local branch passes its sixteen patches through the network one after the other.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.axial import HEADS, AxialAttention, AxialBlock
from napari_medt.nets.medt import GRID, AxialUNet, Decoder, Encoder, LocalGlobalNet, Stem


def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """One ordinary batch norm over axis 1, whatever the number of axes."""
    if layer.training:
        layer.num_batches_tracked += 1
    return F.batch_norm(
        x,
        layer.running_mean,
        layer.running_var,
        layer.weight,
        layer.bias,
        layer.training,
        layer.momentum or 0.1,
        layer.eps,
    )


def attention(m: AxialAttention, x: Tensor) -> Tensor:
    """Axial attention, term by term."""
    if m.axis == "height":
        x = x.transpose(-1, -2)
    n, channels, lines, length = x.shape
    x = x.permute(0, 2, 1, 3).reshape(n * lines, channels, length)
    qkv = norm(F.conv1d(x, m.qkv.weight[..., 0]), m.qkv_norm).view(n * lines, HEADS, 2 * m.value_channels, length)
    c = m.key_channels
    q, k, v = qkv.split((c, c, 2 * c), dim=2)
    logits = torch.einsum("bgci,bgcj->bgij", q, k)
    if m.kind == "content":
        weights = norm(logits, m.logits_norm).softmax(-1)
        out = norm(torch.einsum("bgij,bgcj->bgci", weights, v).reshape(n * lines, channels, length), m.out_norm)
    else:
        eq, ek, ev = m.tables(length)
        by_query = torch.einsum("bgci,cij->bgij", q, eq)
        by_key = torch.einsum("bgci,cij->bgij", k, ek).transpose(2, 3)
        if m.kind == "gated":
            by_query, by_key = by_query * m.gates[0], by_key * m.gates[1]
        stacked = norm(torch.cat((logits, by_query, by_key), dim=1), m.logits_norm)
        weights = stacked.view(n * lines, 3, HEADS, length, length).sum(1).softmax(-1)
        content = torch.einsum("bgij,bgcj->bgci", weights, v)
        position = torch.einsum("bgij,cij->bgci", weights, ev)
        if m.kind == "gated":
            content, position = content * m.gates[2], position * m.gates[3]
        pair = torch.cat((content, position), dim=-1).view(n * lines, 2 * channels, length)
        out = norm(pair, m.out_norm).view(n * lines, channels, 2, length).sum(2)
    out = out.view(n, lines, channels, length).permute(0, 2, 1, 3)
    return out.transpose(-1, -2) if m.axis == "height" else out


def block(m: AxialBlock, x: Tensor) -> Tensor:
    """Residual block."""
    out = F.relu(norm(m.reduce(x), m.reduce_norm))
    out = attention(m.width, attention(m.height, out))
    if m.stride == 2:
        out = F.avg_pool2d(out, 2)
    out = norm(m.expand(F.relu(out)), m.expand_norm)
    return F.relu(out + (x if m.shortcut is None else norm(m.shortcut(x), m.shortcut_norm)))


def stem(m: Stem, x: Tensor) -> Tensor:
    """Three convolutions."""
    for conv, layer in ((m.conv1, m.norm1), (m.conv2, m.norm2), (m.conv3, m.norm3)):
        x = F.relu(norm(conv(x), layer))
    return x


def branch(encoder: Encoder, decoder: Decoder, x: Tensor) -> Tensor:
    """Encoder and decoder."""
    size = x.shape[-2:]
    x = stem(encoder.stem, x)
    features = []
    for layer in encoder.layers:
        for child in layer:
            x = block(child, x)
        features.append(x)
    return decoder(features, size)


class Plain(nn.Module):
    """The plain form of one of our networks, with a copy of its weights; the side must be a multiple of 128."""

    def __init__(self, net: AxialUNet | LocalGlobalNet) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.groups = 1

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` to logits."""
        net = self.net
        if isinstance(net, AxialUNet):
            return net.head(branch(net.encoder, net.decoder, x))
        whole = branch(net.global_encoder, net.global_decoder, x)
        local = whole.clone()
        h, w = x.shape[-2] // GRID, x.shape[-1] // GRID
        for row in range(GRID):
            for column in range(GRID):
                here = (..., slice(row * h, row * h + h), slice(column * w, column * w + w))
                local[here] = branch(net.local_encoder, net.local_decoder, x[here])
        return net.head(F.relu(net.fuse(whole + local)))


def plain(net: AxialUNet | LocalGlobalNet) -> nn.Module:
    """The plain form of one of our networks."""
    return Plain(net)
