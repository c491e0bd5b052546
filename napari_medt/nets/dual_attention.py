"""The two attentions of the dual attention network: all places to all places, all channels to all channels.

Source: Fu, Liu, Tian, Li, Bao, Fang, Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019, equations 1 to 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.capture import Recorder
from napari_medt.nets.states import DotState


@dataclass(frozen=True)
class ChannelState:
    """Attention of channels to channels, the same wherever one looks.

    Attributes
    ----------
    weights
        `(n, c, c)`, a row a channel that looks.
    change
        How strongly it changed every place, `(n, 1, h, w)`: the root mean square over channels of what it added, in units of
        that of the whole input.
    """

    weights: Tensor
    change: Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        """One place: the whole image."""
        return (1, 1)

    @property
    def samples(self) -> int:
        """Images in the batch."""
        return self.weights.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return self.weights.nbytes + self.change.nbytes

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """How much every channel is looked at, `(1, c)`, at any place: sums to 1."""
        return self.received(sample)

    def received(self, sample: int = 0) -> Tensor:
        """Mean over all channels that look, `(1, c)`."""
        return self.weights[sample].mean(0, keepdim=True)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """The same, by the sum of the weights."""
        return self.received(sample) * weights.sum()

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """All channels."""
        return self.weights.shape[-1]

    def full(self, sample: int = 0) -> Tensor:
        """The whole matrix `(1, c, c)`; every row sums to 1."""
        return self.weights[sample, None]


class PositionAttention(Recorder):
    """Every place gathers from all places, weighted by the softmax of unscaled dot products (Fu et al., equations 1 and 2).

    Keeps `(n, c, h, w)`; neither training nor evaluation holds the matrix of `h w` times `h w` where torch has a fused kernel
    (processors and CUDA). The factor `gamma` starts at 0: a fresh module hands its input on.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)`, the same shape."""
        grid = (x.shape[2], x.shape[3])
        q, k, v = (conv(x).flatten(2).mT[:, None] for conv in (self.query, self.key, self.value))
        if self.seen is not None:
            self.seen.append(DotState(q.detach(), k.detach(), grid, grid, scale=1.0))
        # Fused kernels want queries as wide as values; zeros change no product.
        missing = (0, v.shape[-1] - q.shape[-1])
        out = F.scaled_dot_product_attention(F.pad(q, missing), F.pad(k, missing), v.contiguous(), scale=1.0)
        return torch.addcmul(x, self.gamma[:, None, None], out[:, 0].mT.reshape(x.shape))


class ChannelAttention(Recorder):
    """Every channel gathers from all channels, most from the least alike (Fu et al., equations 3 and 4, sign as released).

    The products of two channels are summed over all places, too large for half precision: they are taken in float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)`, the same shape."""
        flat = x.flatten(2)
        flat = flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat
        with torch.autocast(x.device.type, enabled=False):
            energy = flat @ flat.mT
            weights = (-energy).softmax(-1)
            out = weights @ flat
        if self.seen is not None:
            added, usual = (self.gamma * out).view(x.shape), flat.square().mean((1, 2)).sqrt()
            change = added.square().mean(1, keepdim=True).sqrt() / usual.clamp_min(1e-12)[:, None, None, None]
            self.seen.append(ChannelState(weights.detach(), change.detach()))
        return torch.addcmul(x, self.gamma[:, None, None], out.to(x.dtype).reshape(x.shape))
