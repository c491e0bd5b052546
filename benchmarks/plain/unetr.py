"""UNETR with its attention written down: queries, keys and values one by one, the whole matrix of logits and its softmax.

Same weights, same numbers. It is the yardstick for speed and memory of `napari_medt.nets.unetr`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.plain.swap import swapped
from napari_medt.nets.vit import SelfAttention


def plain(net: nn.Module) -> nn.Module:
    """A copy of a UNETR, or of one of its modules, in the plain form."""
    return swapped(net, {SelfAttention: PlainAttention})


class PlainAttention(SelfAttention):
    """Softmax attention with its matrix."""

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """As `SelfAttention`."""
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in self.qkv(x).chunk(3, -1))
        logits = torch.einsum("nihc,njhc->nhij", q, k) * self.head_width**-0.5
        return self.out(torch.einsum("nhij,njhc->nihc", logits.softmax(-1), v).flatten(2))
