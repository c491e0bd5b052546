"""A vision transformer that gives feature maps: patches become tokens, every token attends to all, and some blocks are tapped.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021, section 3.1;
attention after Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2. Rollout: Abnar, Zuidema, "Quantifying
Attention Flow in Transformers", ACL 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.capture import Recorder
from napari_medt.nets.layers import CONV, LINEAR
from napari_medt.nets.states import CHUNK, DotState

PATCH = 16
DEPTH = 12


class SelfAttention(Recorder):
    """Multi-head attention of all tokens over all tokens.

    Parameters
    ----------
    embed
        Channels of a token.
    heads
        Number of heads, each of `embed // heads` channels; what is left over is unused.
    bias
        Whether the output projection has a bias; queries, keys and values have none.
    """

    def __init__(self, embed: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads, self.head_width = heads, embed // heads
        inner = heads * self.head_width
        self.qkv = nn.Linear(embed, 3 * inner, bias=False)
        self.out = nn.Linear(inner, embed, bias=bias)

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """`(n, tokens, embed)`, row-major over `grid`, to the same shape."""
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        if self.seen is not None:
            queries, keys = (t.detach().clone(memory_format=torch.contiguous_format) for t in (q, k))
            self.seen.append(DotState(queries, keys, grid, grid, self.head_width**-0.5))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = self.out(attended.reshape(n, tokens, -1))
        return out


class Block(nn.Module):
    """Pre-norm transformer block: attention, then two linear layers with GELU, each added to its input."""

    def __init__(self, embed: int, heads: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(embed), nn.LayerNorm(embed)
        self.attention = SelfAttention(embed, heads, bias=bias)
        self.mlp = nn.Sequential(nn.Linear(embed, hidden), nn.GELU(), nn.Linear(hidden, embed))

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """`(n, tokens, embed)` to the same shape."""
        x = x + self.attention(self.norm1(x), grid)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT(nn.Module):
    """Twelve blocks over patches of 16, with a learned position for every patch.

    Parameters
    ----------
    in_channels
        Channels of the image.
    grid
        Patches an axis that the position table is made for; other sizes use the table interpolated linearly.
    embed, heads, hidden
        Channels of a token, attention heads, channels inside the linear layers.
    taps
        Blocks, counted from 1, whose output is wanted besides that of the last.
    bias
        Whether the patch projection and the output of attention have a bias.
    norm
        Whether the last output is normalised.
    position_std
        Spread of fresh positions.

    Raises
    ------
    ValueError
        If there are more heads than channels.
    """

    def __init__(
        self,
        in_channels: int,
        grid: tuple[int, ...],
        *,
        embed: int,
        heads: int,
        hidden: int,
        taps: tuple[int, ...],
        bias: bool,
        norm: bool,
        position_std: float,
    ) -> None:
        super().__init__()
        if not 1 <= heads <= embed:
            raise ValueError(f"{embed} channels cannot be shared by {heads} heads")
        self.taps = taps
        self.project = CONV[len(grid)](in_channels, embed, PATCH, PATCH, bias=bias)
        self.positions = nn.Parameter(position_std * torch.randn(1, embed, *grid))
        self.blocks = nn.ModuleList(Block(embed, heads, hidden, bias=bias) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(embed) if norm else None

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(n, in_channels, *size)`, sizes multiples of 16, to one map `(n, embed, *size / 16)` a tap and the last."""
        x = self.project(x)
        grid = tuple(x.shape[2:])
        tokens = (x + self._positions(grid)).flatten(2).transpose(1, 2)
        maps = []
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, grid)
            if number in self.taps:
                maps.append(_as_map(tokens, grid))
        return [*maps, _as_map(tokens if self.norm is None else self.norm(tokens), grid)]

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        if grid == tuple(self.positions.shape[2:]):
            return self.positions
        return F.interpolate(self.positions, size=grid, mode=LINEAR[len(grid)], align_corners=False)


def _as_map(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


@dataclass(frozen=True)
class Rollout:
    """Attention of successive blocks as one: the product of `(A + I) / 2`, `A` a block's attention averaged over heads.

    Attributes
    ----------
    states
        One a block, first block first, all over one grid.
    """

    states: tuple[DotState, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Tokens, over the padded input of the network."""
        return self.states[0].grid

    @property
    def samples(self) -> int:
        """Images in the batch."""
        return self.states[0].samples

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return sum(state.nbytes for state in self.states)

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """How much each token of the input flows into one cell: `(1, *grid)`, sums to 1."""
        start = self.states[0].q.new_zeros(self.grid)
        start[cell] = 1
        return self._back(start, sample)

    def received(self, sample: int = 0) -> Tensor:
        """Mean over all cells, `(1, *grid)`: how much each token is used."""
        return self._back(self.states[0].q.new_full(self.grid, 1 / prod(self.grid)), sample)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Sum of the rows of all cells by their weights, `(1, *grid)`."""
        return self._back(weights.to(self.states[0].q), sample)

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """All tokens."""
        return prod(self.grid)

    def _back(self, weights: Tensor, sample: int) -> Tensor:
        """Weights of the output's tokens to weights of the input's, from the last block to the first, without a matrix."""
        flow = weights.flatten()
        for state in reversed(self.states):
            q, k = state.q[sample], state.k[sample]
            looked = torch.zeros_like(flow)
            for start in range(0, len(flow), CHUNK):
                which = slice(start, start + CHUNK)
                rows = (q[:, which] @ k.transpose(1, 2) * state.scale).softmax(-1).mean(0)
                looked += flow[which] @ rows
            flow = (looked + flow) / 2
        return flow.view(1, *self.grid)


def rollout(states: Sequence[DotState]) -> Rollout:
    """Attention of a whole stack of blocks, as a state that gives rows like that of one block.

    Parameters
    ----------
    states
        What one forward pass recorded in each block, first block first.

    Raises
    ------
    ValueError
        If there is none, or they are not of one grid and batch.
    """
    if len({(state.grid, state.key_grid, state.samples) for state in states}) != 1:
        raise ValueError("rollout needs one state of every block, all of the same forward pass")
    return Rollout(tuple(states))
