"""Attention inside the windows of a 3D grid, with tokens that stand for a window.

Sources: Liu et al., "Swin Transformer", ICCV 2021 (windows, cyclic shift, relative positions); Themyr et al., "Full Contextual
Attention for Multi-resolution Transformers in Semantic Segmentation" (GLAM), WACV 2023, and "Memory transformers for full
context and high-resolution 3D Medical Segmentation" (FINE), MLMI 2022 (the tokens).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.capture import Recorder
from napari_medt.nets.states import TOGETHER, QueriesAndKeys

Wiring = Literal["standard", "authors"]
FAR = -1e4  # added to the logits of what must not be seen: its weight is 0 in every precision, and no row is empty


@dataclass(frozen=True)
class Layout:
    """Windows over a grid of places `(z, y, x)`; at the far borders they may hang over.

    Attributes
    ----------
    grid
        Places along each axis.
    window
        Places of a window along each axis.
    shift
        How far the windows are moved towards the far borders; what they leave behind joins the last ones (cyclic shift).
    wiring
        `"authors"` lets all see the places into which windows hang over, as zeros; else nobody sees them.
    """

    grid: tuple[int, ...]
    window: tuple[int, ...]
    shift: tuple[int, ...]
    wiring: Wiring = "standard"

    @classmethod
    def over(cls, grid: Sequence[int], window: int, *, shifted: bool, wiring: Wiring = "standard") -> Layout:
        """Windows of `window` places, or of the whole axis where that is shorter; shifted by half where there are several.

        The authors shift along no axis if one is too short.
        """
        sides = tuple(min(window, size) for size in grid)
        shifted = shifted and (wiring == "standard" or min(grid) > window)
        shift = tuple(window // 2 if shifted and size > window else 0 for size in grid)
        return cls(tuple(grid), sides, shift, wiring)

    @property
    def counts(self) -> tuple[int, ...]:
        """Windows along each axis."""
        return tuple(-(-size // side) for size, side in zip(self.grid, self.window, strict=True))

    def split(self, x: Tensor, fill: float = 0) -> Tensor:
        """`(n, z, y, x, c)` to `(n, windows, places, c)`, `fill` where a window hangs over."""
        n, *_, c = x.shape
        over = [count * side - size for count, side, size in zip(self.counts, self.window, self.grid, strict=True)]
        if any(over):
            x = F.pad(x, (0, 0, 0, over[2], 0, over[1], 0, over[0]), value=fill)
        if any(self.shift):
            x = x.roll([-shift for shift in self.shift], (1, 2, 3))
        (a, b, c_), (i, j, k) = self.counts, self.window
        return x.view(n, a, i, b, j, c_, k, c).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, a * b * c_, i * j * k, c)

    def join(self, windows: Tensor) -> Tensor:
        """`(n, windows, places, c)` back to `(n, z, y, x, c)`."""
        n, _, _, c = windows.shape
        x = windows.view(n, *self.counts, *self.window, c).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(n, *(count * side for count, side in zip(self.counts, self.window, strict=True)), c)
        if any(self.shift):
            x = x.roll(self.shift, (1, 2, 3))
        return x[:, : self.grid[0], : self.grid[1], : self.grid[2]]

    @cached_property
    def cells(self) -> Tensor:
        """`(windows, places)`: row-major index of each place in the grid, -1 where a window hangs over."""
        index = torch.arange(math.prod(self.grid), device="cpu").view(1, *self.grid, 1)
        return self.split(index, fill=-1)[0, :, :, 0]

    def locate(self, cell: Sequence[int]) -> tuple[int, int]:
        """Window and place of a cell of the grid."""
        z, y, x = cell
        window, place = (self.cells == (z * self.grid[1] + y) * self.grid[2] + x).nonzero()[0].tolist()
        return window, place

    def spread(self, shares: Tensor) -> Tensor:
        """Shares of windows `(heads, windows)` to places `(heads, z, y, x)`, equal inside a window."""
        inside = (self.cells >= 0).to(shares)
        places = shares[..., None] * (inside / inside.sum(1, keepdim=True))
        return self.join(places[..., None]).squeeze(-1)

    def _filled(self) -> Layout:
        """The same windows over a grid that they fill."""
        grid = tuple(count * side for count, side in zip(self.counts, self.window, strict=True))
        return replace(self, grid=grid)

    def mask(self, tokens: int, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """What to add to logits, `(windows, tokens + places, tokens + places)`; None where all see all.

        Places see their neighbours in the image alone, tokens all places of their window.
        """
        hidden = self.wiring == "standard" and any(n % side for n, side in zip(self.grid, self.window, strict=True))
        if not any(self.shift) and not hidden:
            return None
        full = self if hidden else self._filled()
        region = torch.zeros(1, *full.grid, 1, dtype=torch.int8, device=device)
        for axis, shift in enumerate(self.shift, start=1):  # the part that the shift wraps round
            region.narrow(axis, 0, shift).add_(2**axis)
        regions = full.split(region, fill=-1)[0, :, :, 0]
        outside = (regions < 0)[:, None]
        apart = F.pad((regions[:, :, None] != regions[:, None]) | outside, (0, 0, tokens, 0))
        apart[:, :tokens] = outside
        return F.pad(torch.zeros(apart.shape, dtype=dtype, device=device).masked_fill_(apart, FAR), (tokens, 0))


def relative_index(window: Sequence[int], reach: int, wiring: Wiring) -> Tensor:
    """Row of the table of relative positions for each pair of places of a window.

    Parameters
    ----------
    window
        Places along each axis, `reach` at most.
    reach
        Side of the window that the table was made for: it has `(2 reach - 1) ** 3` rows.
    wiring
        `"authors"` counts the first axis in steps of `3 reach - 1`, so that different offsets share rows.

    Returns
    -------
    Tensor
        `(places, places)`, int64.
    """
    axes = [torch.arange(side, device="cpu") for side in window]
    places = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")])
    offsets = places[:, :, None] - places[:, None, :] + reach - 1
    span = 2 * reach - 1
    return offsets[0] * (span * span if wiring == "standard" else 3 * reach - 1) + offsets[1] * span + offsets[2]


class Seen(NamedTuple):
    """Where a place or a token looked, `(heads, tokens)` of its window and `(heads, z, y, x)`: both together sum to 1."""

    tokens: Tensor
    places: Tensor


@dataclass(frozen=True)
class WindowState(QueriesAndKeys):
    """Window attention of one forward pass.

    Rows are those of a place, over the places of its window: what it gave to the window's tokens is in `look` alone, and what
    to places beyond the grid is left out.

    Attributes
    ----------
    q, k
        `(n, windows, heads, tokens + places, c)`.
    bias
        Of relative positions, `(heads, tokens + places, tokens + places)`.
    tokens
        Tokens of a window, which come before its places.
    layout
        The windows.
    scale
        Factor of the products.
    """

    bias: Tensor
    tokens: int
    layout: Layout
    scale: float

    @property
    def grid(self) -> tuple[int, ...]:
        """Places that look and are looked at."""
        return self.layout.grid

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return super().nbytes + self.bias.nbytes

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """Where one place looked among the places: `(heads, z, y, x)`, 0 outside its window, sums to 1 a head."""
        window, place = self.layout.locate(cell)
        ((_, logits),) = self._logits(sample, [window], slice(self.tokens + place, self.tokens + place + 1))
        return self._scatter(window, logits[0, :, 0, self.tokens :].softmax(-1))

    def look(self, cell: tuple[int, ...], sample: int = 0) -> Seen:
        """Where one place looked, tokens included."""
        window, place = self.layout.locate(cell)
        ((_, logits),) = self._logits(sample, [window], slice(self.tokens + place, self.tokens + place + 1))
        row = logits[0, :, 0].softmax(-1)
        return Seen(row[:, : self.tokens], self._scatter(window, row[:, self.tokens :]))

    def read(self, sample: int = 0) -> Tensor:
        """Where the tokens looked among the places: `(windows, heads, tokens, places)`, sums to 1 over places."""
        parts = self._logits(sample, range(self.q.shape[1]), slice(0, self.tokens))
        return torch.cat([logits[..., self.tokens :].softmax(-1) for _, logits in parts])

    def received(self, sample: int = 0) -> Tensor:
        """Mean of the rows of all places, `(heads, z, y, x)`."""
        return self.weighed(self.q.new_full(self.grid, 1 / math.prod(self.grid)), sample)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Sum of the rows of all places by their weights, computed some windows at a time."""
        return self._joined(self._summed(weights, sample, slice(self.tokens, None)))

    def give(self, weights: Tensor, sample: int = 0) -> tuple[Tensor, Tensor]:
        """Sum of where places looked, tokens included: `(heads, windows, tokens)` and `(heads, z, y, x)`."""
        windows = self._summed(weights, sample, slice(0, None))
        return windows[..., : self.tokens], self._joined(windows[..., self.tokens :])

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """The places of its window that it may see."""
        window, place = self.layout.locate(cell)
        mask = self.layout.mask(0, self.layout.cells.device, torch.float32)
        inside = self.layout.cells[window] >= 0
        return int(inside.sum() if mask is None else (inside & (mask[window, place] == 0)).sum())

    def _summed(self, weights: Tensor, sample: int, seen: slice) -> Tensor:
        """Rows over the keys `seen`, summed up in every window: `(heads, windows, seen)`; only windows with weight are computed."""
        cells = self.layout.cells.to(weights.device)
        asking = (weights.flatten()[cells.clamp_min(0)] * (cells >= 0)).to(self.q)  # (windows, places)
        total = self.q.new_zeros(self.q.shape[2], self.q.shape[1], len(range(self.k.shape[3])[seen]))
        windows = asking.any(1).nonzero()[:, 0].tolist()
        for which, logits in self._logits(sample, windows, slice(self.tokens, None)):
            rows = logits[..., seen].softmax(-1)
            total[:, which] = torch.einsum("whqk,wq->hwk", rows, asking[which])
        return total

    def _joined(self, windows: Tensor) -> Tensor:
        """`(heads, windows, places)` to `(heads, z, y, x)`."""
        return self.layout.join(windows[..., None]).squeeze(-1)

    def _scatter(self, window: int, row: Tensor) -> Tensor:
        """`(heads, places)` of one window to `(heads, z, y, x)`."""
        cells = self.layout.cells[window].to(row.device)
        grid = row.new_zeros(len(row), math.prod(self.grid))
        grid[:, cells[cells >= 0]] = row[:, cells >= 0]
        return grid.view(-1, *self.grid)

    def _logits(self, sample: int, windows: Sequence[int], which: slice) -> Iterator[tuple[list[int], Tensor]]:
        """Logits, `(windows, heads, which, tokens + places)`, of some windows at a time."""
        mask = self.layout.mask(self.tokens, self.q.device, self.q.dtype)
        heads, seen = self.q.shape[2:4]
        step = max(1, TOGETHER // (heads * seen * seen))
        for start in range(0, len(windows), step):
            part = list(windows[start : start + step])
            logits = (self.q[sample, part][:, :, which] * self.scale) @ self.k[sample, part].transpose(-1, -2)
            logits += self.bias[:, which]
            if mask is not None:
                logits += mask[part][:, None, which]
            over = F.pad(self.layout.cells[part] < 0, (self.tokens, 0))
            yield part, logits.masked_fill_(over[:, None, None].to(logits.device), FAR) if over.any() else logits


class WindowAttention(Recorder):
    """Joint attention of the places of a window and of its tokens.

    Relative positions and the limits of shifted windows hold between places; tokens see, and are seen by, their whole window.

    Parameters
    ----------
    channels, heads
        `heads` divides `channels`.
    window
        Side of a window.
    shifted
        Moves the windows by half their side.
    wiring
        See `relative_index`.
    """

    def __init__(self, channels: int, heads: int, window: int, *, shifted: bool, wiring: Wiring) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared by {heads} heads")
        self.heads, self.window, self.shifted, self.wiring = heads, window, shifted, wiring
        self.scale = (channels // heads) ** -0.5
        self.relative = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 3, heads), std=0.02))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attend in every window.

        Parameters
        ----------
        x
            Places, `(n, z, y, x, c)`.
        tokens
            `(n, windows, tokens, c)`, or None.

        Returns
        -------
        tuple of Tensor
            Both, in the same shapes; no tokens where there were none.
        """
        layout = Layout.over(x.shape[1:4], self.window, shifted=self.shifted, wiring=self.wiring)
        joint = layout.split(x)
        count = 0
        if tokens is not None:
            count = tokens.shape[2]
            joint = torch.cat((tokens, joint), 2)
        q, k, v = self.qkv(joint).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias(layout, count)
        if self.seen is not None:
            self.seen.append(WindowState(q.detach(), k.detach(), bias.detach(), count, layout, self.scale))
        mask = layout.mask(count, q.device, q.dtype)
        out = self.proj(self.attend(q, k, v, bias, mask).transpose(2, 3).flatten(3))
        return layout.join(out[:, :, count:]), out[:, :, :count]

    def bias(self, layout: Layout, tokens: int) -> Tensor:
        """Bias of relative positions `(heads, tokens + places, tokens + places)`, 0 where a token takes part."""
        index = relative_index(layout.window, self.window, self.wiring).to(self.relative.device)
        return F.pad(self.relative[index].permute(2, 0, 1), (tokens, 0, tokens, 0))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """`(n, windows, heads, tokens + places, c)` each, to the same shape; one image at a time where windows differ."""
        if mask is None:
            fq, fk, fv = (t.flatten(0, 1) for t in (q, k, v))
            out = F.scaled_dot_product_attention(fq, fk, fv, attn_mask=bias[None], scale=self.scale)
            return out.view(q.shape)
        both = bias + mask[:, None]
        outs = [
            F.scaled_dot_product_attention(*image, attn_mask=both, dropout_p=0.0, is_causal=False, scale=self.scale)
            for image in zip(q, k, v, strict=True)
        ]
        return torch.stack(outs)
