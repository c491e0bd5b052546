"""The U-Transformer with its attention written down: the whole matrix of logits, its softmax, and one layer after the other.

Same weights, same numbers. It is the yardstick for speed and memory of `napari_medt.nets.u_transformer`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain.swap import swapped
from napari_medt.nets.cross_attention import CrossAttention, DotAttention


def plain(net: nn.Module) -> nn.Module:
    """A copy of a U-Transformer, or of one of its modules, in the plain form."""
    return swapped(net, {DotAttention: PlainAttention, CrossAttention: PlainCross})


class PlainAttention(DotAttention):
    """Softmax attention with its matrix."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        """As `DotAttention`."""
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        logits = torch.matmul(q, k.transpose(-1, -2)) * self.scale
        weights = logits.softmax(-1 if self.over == "keys" else -2)
        return torch.matmul(weights, v).transpose(1, 2).flatten(2)


class PlainCross(CrossAttention):
    """Cross-attention that doubles the deep map by two convolutions."""

    def _double(self, y: Tensor) -> Tensor:
        y = F.interpolate(y, scale_factor=2, mode=self.mode, align_corners=True)
        return F.relu(self.narrow_norm(self.narrow(self.widen(y))))
