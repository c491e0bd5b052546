"""Multi-head self-attention of a feature map, and cross-attention that filters a skip connection.

Source: Petit, Thome, Rambour, Themyr, Collins, Soler, "U-Net Transformer: Self and Cross Attention for Medical Image
Segmentation", MLMI 2021, section 2. Two public codes differ from each other and from the paper; `Wiring` says in what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_medt.nets.capture import Recorder
from napari_medt.nets.layers import CONV, LINEAR, POOL, Norm, conv_norm_relu, norm_layer
from napari_medt.nets.states import CHUNK, DotState, GateState

Over = Literal["keys", "queries"]
Scale = Literal["channels", "head"]


@dataclass(frozen=True)
class Wiring:
    """In what the public codes of the two modules differ.

    Attributes
    ----------
    pooled
        Values are max-pooled from the skip, and queries and keys have the skip's channels; else values come from a strided
        convolution, and queries and keys keep the channels of the deeper map.
    self_bias, cross_bias
        Projections to queries, keys and values have a bias.
    merge
        A linear layer follows the heads of self-attention.
    sigmoid
        The gate is a sigmoid, else a ReLU.
    gated_positions
        The gate multiplies the skip with its position codes in it, else the skip itself.
    interleaved
        Layout of the position codes, see `with_positions`.
    rounded_up
        Likewise.
    """

    pooled: bool
    self_bias: bool
    cross_bias: bool
    merge: bool
    sigmoid: bool
    gated_positions: bool
    interleaved: bool
    rounded_up: bool = False


WIRINGS = {
    "standard": Wiring(True, True, False, merge=True, sigmoid=True, gated_positions=False, interleaved=False),
    "authors": Wiring(False, True, True, merge=False, sigmoid=True, gated_positions=True, interleaved=True),
    "community": Wiring(
        True, False, False, merge=False, sigmoid=False, gated_positions=True, interleaved=False, rounded_up=True
    ),
}


def with_positions(x: Tensor, *, interleaved: bool, rounded_up: bool = False) -> Tensor:
    """`x (n, c, *size)` plus sines and cosines of its places, of frequencies from 1 down to nearly 1/10,000 radian a place.

    Every axis has an equal even share of the channels, what remains is left alone; or, `rounded_up`, nothing remains and the
    last share is cut short. All sines stand before all cosines and the first axis comes first; or, `interleaved`, sines and
    cosines alternate and the last axis comes first.
    """
    channels, dims = x.shape[1], x.dim() - 2
    share = (channels + (2 * dims - 1 if rounded_up else 0)) // (2 * dims) * 2
    if not share:
        return x
    frequencies = 10000.0 ** (-torch.arange(0, share, 2, device=x.device) / share)
    out = x.clone()
    for place, axis in enumerate(reversed(range(dims)) if interleaved else range(dims)):
        angles = frequencies[:, None] * torch.arange(x.shape[2 + axis], device=x.device)
        waves = torch.stack((angles.sin(), angles.cos()), 1 if interleaved else 0).flatten(0, 1).to(x.dtype)
        waves = waves.view(share, *(-1 if i == axis else 1 for i in range(dims)))
        out[:, place * share : (place + 1) * share] += waves[: max(channels - place * share, 0)]
    return out


def _coded(x: Tensor, wiring: Wiring) -> Tensor:
    return with_positions(x, interleaved=wiring.interleaved, rounded_up=wiring.rounded_up)


@dataclass(frozen=True)
class ColumnState(DotState):
    """Attention whose softmax runs over the queries, as in one public code: columns sum to one, rows do not.

    `totals (n, heads, 1, keys)` are the logarithms of the columns' sums of exponentials.
    """

    totals: Tensor

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return super().nbytes + self.totals.nbytes

    def _rows(self, sample: int, which: slice | Tensor) -> Tensor:
        logits = torch.matmul(self.q[sample, :, which], self.k[sample].transpose(-1, -2)) * self.scale
        return (logits - self.totals[sample]).exp()


class DotAttention(Recorder):
    """Softmax attention in heads, without parameters and without its matrix in memory.

    Parameters
    ----------
    channels
        Channels of queries and keys, all heads together.
    heads
        Number of heads; divides the channels of queries, keys and values.
    scale
        Logits are divided by the square root of all `"channels"`, as published, or of those of one `"head"`.
    over
        What the softmax runs over. `"queries"` is a defect of the community code, kept for networks trained with it.
    """

    def __init__(self, channels: int, heads: int, *, scale: Scale = "channels", over: Over = "keys") -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared by {heads} heads")
        if scale not in get_args(Scale) or over not in get_args(Over):
            raise ValueError(
                f"scale must be one of {get_args(Scale)}, over one of {get_args(Over)}, not {scale!r}, {over!r}"
            )
        self.heads, self.over = heads, over
        self.scale = (channels if scale == "channels" else channels // heads) ** -0.5

    def forward(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        """`q`, `k` `(n, tokens, c)` and `v` `(n, tokens, c')` on one grid to `(n, tokens, c')`."""
        q, k, v = (t.reshape(*t.shape[:2], self.heads, -1).transpose(1, 2) for t in (q, k, v))
        if self.over == "keys":
            out = fused(q, k, v, self.scale)
            if self.seen is not None:
                self.seen.append(DotState(q.detach(), k.detach(), grid, grid, self.scale))
        else:
            out, totals = softmax_over_queries(q, k, v, self.scale)
            if self.seen is not None:
                self.seen.append(ColumnState(q.detach(), k.detach(), grid, grid, self.scale, totals.detach()))
        return out.transpose(1, 2).flatten(2)


def fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Softmax attention in memory that grows with the tokens, not with their square.

    The fused kernels take queries, keys and values of one width (on CUDA a multiple of eight) whose channels lie side by side,
    and anything else falls back to the whole matrix: so they are laid out anew, and the narrower ones filled with zeros.
    """
    channels = v.shape[-1]
    width = max(q.shape[-1], channels)
    width += -width % 8 if q.is_cuda else 0
    q, k, v = (F.pad(t, (0, width - t.shape[-1])).contiguous() for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=scale)[..., :channels]


def softmax_over_queries(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention normalised over the queries, and `(n, heads, 1, keys)`, in pieces that training computes again."""

    def total(piece: Tensor) -> Tensor:
        return (piece @ k.transpose(-1, -2) * scale).logsumexp(-2, keepdim=True)

    def weigh(piece: Tensor, totals: Tensor) -> Tensor:
        return (piece @ k.transpose(-1, -2) * scale - totals).exp() @ v

    def run(step: Callable[..., Tensor], *args: Tensor) -> Tensor:
        return checkpoint(step, *args, use_reentrant=False) if torch.is_grad_enabled() else step(*args)

    pieces = torch.split(q, CHUNK, dim=-2)
    totals = torch.cat([run(total, piece) for piece in pieces], -2).logsumexp(-2, keepdim=True)
    return torch.cat([run(weigh, piece, totals) for piece in pieces], -2), totals


class SelfAttention(nn.Module):
    """Multi-head self-attention of `(n, channels, *size)` with position codes: every place attends to every place.

    `residual` adds the input to the result.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        wiring: Wiring = WIRINGS["standard"],
        scale: Scale = "channels",
        over: Over = "keys",
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.wiring, self.residual = wiring, residual
        self.query, self.key, self.value = (nn.Linear(channels, channels, bias=wiring.self_bias) for _ in range(3))
        self.attend = DotAttention(channels, heads, scale=scale, over=over)
        self.merge = nn.Linear(channels, channels) if wiring.merge else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(n, channels, *size)` to the same shape."""
        tokens = _coded(x, self.wiring).flatten(2).transpose(1, 2)
        out: Tensor = self.attend(self.query(tokens), self.key(tokens), self.value(tokens), tuple(x.shape[2:]))
        out = self.merge(out).transpose(1, 2).reshape(x.shape)
        return x + out if self.residual else out


class Gate(Recorder):
    """From attended values on the token grid to a gate at the size of the skip."""

    def __init__(self, channels: int, spatial_dims: int, norm: Norm, *, sigmoid: bool) -> None:
        super().__init__()
        self.conv = CONV[spatial_dims](channels, channels, 1)
        self.norm = norm_layer(norm, channels)
        self.sigmoid, self.mode = sigmoid, LINEAR[spatial_dims]

    def forward(self, z: Tensor, size: tuple[int, ...]) -> Tensor:
        """`(n, channels, *tokens)` to `(n, channels, *size)`, between 0 and 1 unless it is the community's ReLU."""
        z = self.norm(self.conv(z))
        gate = F.interpolate(z.sigmoid() if self.sigmoid else z.relu(), size, mode=self.mode, align_corners=True)
        if self.seen is not None:
            self.seen.append(GateState(gate.detach()))
        return gate


class CrossAttention(nn.Module):
    """Doubles a deep map and joins it with a skip connection that cross-attention has filtered.

    Queries and keys come from the deep map `y`, values from the skip `s`; what is attended to becomes a gate on the skip.

    Parameters
    ----------
    deep, skip
        Channels of `y (n, deep, *size)` and of `s (n, skip, *2 size)`.
    heads
        Number of heads.
    stride
        Places of `y` along each axis that make one token.
    norm, wiring, scale, over
        See `norm_layer`, `Wiring` and `DotAttention`.
    """

    def __init__(
        self,
        deep: int,
        skip: int,
        heads: int,
        *,
        spatial_dims: int,
        stride: int = 1,
        norm: Norm = "batch",
        wiring: Wiring = WIRINGS["standard"],
        scale: Scale = "channels",
        over: Over = "keys",
    ) -> None:
        super().__init__()
        conv, bias = CONV[spatial_dims], wiring.cross_bias
        if skip % heads:
            raise ValueError(f"{skip} channels cannot be shared by {heads} heads")
        self.wiring, self.stride, self.mode = wiring, stride, LINEAR[spatial_dims]
        inner = skip if wiring.pooled else deep

        self.reduce = nn.Sequential(*conv_norm_relu(spatial_dims, deep, inner, 1, norm=norm))
        self.query = conv(inner, inner, stride, stride=stride, bias=bias)
        self.key = conv(inner, inner, stride, stride=stride, bias=bias)
        self.pool = POOL[spatial_dims](2 * stride) if wiring.pooled else nn.Identity()
        self.enter = nn.Sequential(*conv_norm_relu(spatial_dims, skip, skip, 1, norm=norm))
        kernel = 1 if wiring.pooled else 2 * stride
        self.value = conv(skip, skip, kernel, stride=kernel, bias=bias)
        self.attend = DotAttention(inner, heads, scale=scale, over=over)
        self.gate = Gate(skip, spatial_dims, norm, sigmoid=wiring.sigmoid)
        self.widen = conv(deep, deep, 3, padding=1)
        self.narrow = conv(deep, skip, 1)
        self.narrow_norm = norm_layer(norm, skip)

    def forward(self, y: Tensor, s: Tensor) -> Tensor:
        """`(n, deep, *size)` and `(n, skip, *2 size)` to `(n, 2 skip, *2 size)`: the filtered skip, then the deep map."""
        y = _coded(y, self.wiring)
        coded = _coded(s, self.wiring)
        doubled = self._double(y)
        deep = self.reduce(y)
        q, k, v = self.query(deep), self.key(deep), self.value(self.enter(self.pool(coded)))
        if not self.wiring.gated_positions:
            coded = s  # gated below
        grid = tuple(q.shape[2:])
        z = self.attend(*(t.flatten(2).transpose(1, 2) for t in (q, k, v)), grid)
        gate = self.gate(z.transpose(1, 2).unflatten(2, grid), tuple(s.shape[2:]))
        return torch.cat((gate * coded, doubled), dim=1)

    def _double(self, y: Tensor) -> Tensor:
        # Nothing stands between the 3x3 and the 1x1 convolution, so their product is one 3x3 convolution to half the channels.
        y = F.interpolate(y, scale_factor=2, mode=self.mode, align_corners=True)
        inner = self.narrow.weight.flatten(1)
        weight = torch.einsum("oc,ci...->oi...", inner, self.widen.weight)
        assert self.widen.bias is not None
        assert self.narrow.bias is not None
        convolve = F.conv2d if self.mode == "bilinear" else F.conv3d
        y = convolve(y, weight, inner @ self.widen.bias + self.narrow.bias, padding=1)
        return F.relu(self.narrow_norm(y), inplace=True)
