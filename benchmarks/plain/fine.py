"""FINE and GLAM with their attention written down: every matrix of logits, its softmax, the masks for the whole batch.

Same weights, same numbers. It is the yardstick for speed and memory of `napari_medt.nets.fine`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from benchmarks.plain.swap import swapped
from napari_medt.nets.states import State
from napari_medt.nets.token_attention import TokenAttention
from napari_medt.nets.window_attention import WindowAttention


def plain(net: nn.Module) -> nn.Module:
    """A copy of FINE or GLAM, or of one of their modules, in the plain form."""
    return swapped(net, {WindowAttention: PlainWindowAttention, TokenAttention: PlainTokenAttention})


class PlainWindowAttention(WindowAttention):
    """Window attention with its matrices."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """As `WindowAttention`."""
        logits = q @ k.transpose(-1, -2) * self.scale + bias
        if mask is not None:
            logits = logits + mask[None, :, None]
        return logits.softmax(-1) @ v


class PlainTokenAttention(TokenAttention):
    """Token attention with its matrix."""

    def forward(self, x: Tensor, state: Callable[..., State], visible: Tensor | None = None) -> Tensor:
        """As `TokenAttention`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) * self.scale
        if visible is not None:
            logits = logits.masked_fill(~visible[:, None, None], -1000)
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
