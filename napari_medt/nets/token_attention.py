"""Attention among the tokens of windows and of a whole volume, and how the hops from place to place compose.

Sources: Themyr et al., GLAM, WACV 2023 (`GlamMixer`) and FINE, MLMI 2022 (`FineMixer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.nets.capture import Recorder
from napari_medt.nets.states import CHUNK, QueriesAndKeys, State
from napari_medt.nets.window_attention import Layout, WindowState, Wiring


class Tokens(NamedTuple):
    """Tokens of the windows `(n, windows, tokens, c)`, and of the volume `(n, cells, c)` where there are any."""

    window: Tensor
    volume: Tensor | None


class Crop(NamedTuple):
    """Where each image of a batch lies in its volume.

    Attributes
    ----------
    near
        The cells of the volume around its centre, `(n, near)`, row-major indices into `grid`.
    visible
        `(n, cells)`: cells that are nearby or that training has seen.
    grid
        Cells of a volume, `(z, y, x)`.
    """

    near: Tensor
    visible: Tensor
    grid: tuple[int, ...]


@dataclass(frozen=True)
class TokenState(QueriesAndKeys):
    """Attention of window tokens, to each other and to the volume tokens near their image.

    Rows are over the windows, spread evenly over their places: what went to volume tokens is in `look` alone.

    Attributes
    ----------
    q, k
        `(n, heads, near + windows * tokens, c)`, volume tokens first.
    scale
        Factor of the products.
    layout
        The windows, where they were when their tokens last read them.
    tokens
        Tokens of a window.
    crop
        Where the images lie; None without volume tokens.
    """

    scale: float
    layout: Layout
    tokens: int
    crop: Crop | None

    @property
    def grid(self) -> tuple[int, ...]:
        """Places whose windows look and are looked at."""
        return self.layout.grid

    @property
    def near(self) -> int:
        """Volume tokens among the keys."""
        return 0 if self.crop is None else self.crop.near.shape[1]

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """Where the tokens of one place's window looked: `(heads, z, y, x)`, sums to 1 a head."""
        start = self.near + self.layout.locate(cell)[0] * self.tokens
        return self.layout.spread(self._shares(slice(start, start + self.tokens), sample)[:, 0])

    def look(self, window: int, sample: int = 0) -> tuple[Tensor, Tensor]:
        """Where each token of one window looked, together 1: `(heads, tokens, near)` and `(heads, tokens, windows, tokens)`."""
        start = self.near + window * self.tokens
        rows = self.rows(slice(start, start + self.tokens), sample)
        return rows[..., : self.near], rows[..., self.near :].reshape(*rows.shape[:2], -1, self.tokens)

    def received(self, sample: int = 0) -> Tensor:
        """Mean of the rows of all windows, `(heads, z, y, x)`."""
        return self.weighed(self.q.new_full(self.grid, 1 / math.prod(self.grid)), sample)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Sum of the rows of all places by their weights, computed some hundred tokens at a time."""
        cells = self.layout.cells.to(weights.device)
        asking = (weights.flatten()[cells.clamp_min(0)] * (cells >= 0)).sum(1).to(self.q)  # with the tokens of a window
        total = self.q.new_zeros(self.q.shape[1], len(asking))
        for which in torch.split(asking.nonzero()[:, 0], max(1, CHUNK // self.tokens)):
            total += torch.einsum("haw,a->hw", self._shares(self._tokens_of(which), sample), asking[which])
        return self.layout.spread(total)

    def give(self, shares: Tensor, sample: int = 0) -> tuple[Tensor, Tensor]:
        """Sum of where tokens looked by `shares (k, windows, tokens)`, heads averaged: `(k, near)` and `(k, windows, tokens)`."""
        total = shares.new_zeros(len(shares), self.k.shape[2])
        asking = shares.flatten(2).any(-1).any(0).nonzero()[:, 0]
        for which in torch.split(asking, max(1, CHUNK // self.tokens)):
            rows = self.rows(self._tokens_of(which), sample).mean(0)
            total += shares[:, which].flatten(1) @ rows
        return total[:, : self.near], total[:, self.near :].reshape(shares.shape)

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """All places of the image, over which the shares of windows are spread."""
        return math.prod(self.grid)

    def _tokens_of(self, windows: Tensor) -> Tensor:
        """Where the tokens of some windows stand among all."""
        first = self.near + windows[:, None] * self.tokens
        return (first + torch.arange(self.tokens, device=windows.device)).flatten()

    def rows(self, which: slice | Tensor, sample: int = 0) -> Tensor:
        """Rows of the whole attention, `(heads, which, near + windows * tokens)`."""
        return self._logits(which, sample).softmax(-1)

    def _shares(self, which: slice | Tensor, sample: int) -> Tensor:
        """Attention of windows to windows without the volume, `(heads, windows asking, windows)`."""
        rows = self._logits(which, sample)[..., self.near :].softmax(-1)
        return rows.reshape(len(rows), -1, self.tokens, math.prod(self.layout.counts), self.tokens).mean(2).sum(-1)

    def _logits(self, which: slice | Tensor, sample: int) -> Tensor:
        return self.q[sample, :, which] @ self.k[sample].transpose(-1, -2) * self.scale


@dataclass(frozen=True)
class VolumeState(QueriesAndKeys):
    """Attention of the volume tokens to each other; the image is one place, which looks with the tokens around it.

    Places looked at are cells of the volume, not of the image.

    Attributes
    ----------
    q, k
        `(n, heads, cells, c)`.
    scale
        Factor of the products.
    crop
        Where the images lie.
    """

    scale: float
    crop: Crop

    @property
    def grid(self) -> tuple[int, ...]:
        """One place, the image."""
        return (1, 1, 1)

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """Where the volume tokens around the image looked, on average: `(heads, *cells of the volume)`, sums to 1 a head."""
        rows = self.rows(sample)[:, self.crop.near[sample]]
        return rows.mean(1).view(-1, *self.crop.grid)

    def received(self, sample: int = 0) -> Tensor:
        """As `row`: there is one place that looks."""
        return self.row((0, 0, 0), sample)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """The one row, by the sum of the weights."""
        return self.row((0, 0, 0), sample) * weights.sum()

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """The cells of the volume that are visible."""
        return int(self.crop.visible[sample].sum())

    def rows(self, sample: int = 0) -> Tensor:
        """The whole attention, `(heads, cells, cells)`; rows of cells that are not visible play no part."""
        logits = self.q[sample] @ self.k[sample].transpose(-1, -2) * self.scale
        return logits.masked_fill(~self.crop.visible[sample], -torch.inf).softmax(-1)


class TokenAttention(Recorder):
    """Multi-head self-attention of a sequence of tokens."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, state: Callable[..., State], visible: Tensor | None = None) -> Tensor:
        """`(n, tokens, c)`, the same shape; `visible (n, tokens)` are those that are looked at, `state` keeps `q, k, scale`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.seen is not None:
            self.seen.append(state(q.detach(), k.detach(), self.scale))
        mask = None if visible is None else visible[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        mixed: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return mixed


class GlamMixer(nn.Module):
    """A transformer layer over the tokens of all windows."""

    def __init__(self, channels: int, heads: int, drop: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attend = TokenAttention(channels, heads)
        self.mlp = mlp(channels)
        self.drop = drop

    def forward(self, tokens: Tokens, layout: Layout) -> Tokens:
        """Mix the window tokens; `layout` says where they are."""
        count = tokens.window.shape[2]
        x = tokens.window.flatten(1, 2)
        x = x + self.drop(self.attend(self.norm1(x), partial(TokenState, layout=layout, tokens=count, crop=None)))
        x = x + self.drop(self.mlp(self.norm2(x)))
        return Tokens(x.view(tokens.window.shape), None)


class FineMixer(nn.Module):
    """Window tokens attend to each other and to the volume tokens near their image; volume tokens attend to each other.

    As published, neither has a norm or a residual path. The authors' volume tokens attend after the window tokens have read
    them, so what they learnt is heard one block later; in the standard wiring they attend first.
    """

    def __init__(self, channels: int, heads: int, *, volume: bool, wiring: Wiring) -> None:
        super().__init__()
        self.attend = TokenAttention(channels, heads)
        self.volume = TokenAttention(channels, heads) if volume else None
        self.wiring = wiring

    def forward(self, tokens: Tokens, layout: Layout, positions: Tensor, crop: Crop | None) -> Tokens:
        """Mix all tokens; `positions (windows, c)` are added to those of windows."""
        count, (window, volume) = tokens.window.shape[2], tokens
        window = (window + positions[:, None]).flatten(1, 2)
        state = partial(TokenState, layout=layout, tokens=count, crop=crop)
        if self.volume is None or volume is None or crop is None:
            return Tokens(self.attend(window, state).view(tokens.window.shape), None)
        attend_volume = partial(self.volume, state=partial(VolumeState, crop=crop), visible=crop.visible)
        if self.wiring == "standard":
            volume = attend_volume(volume)
        near = crop.near[..., None].expand(-1, -1, volume.shape[-1])
        mixed = self.attend(torch.cat((volume.gather(1, near), window), 1), state)
        volume = volume.scatter_add(1, near, mixed[:, : near.shape[1]])
        if self.wiring == "authors":
            volume = attend_volume(volume)
        return Tokens(mixed[:, near.shape[1] :].reshape(tokens.window.shape), volume)


def mlp(channels: int) -> nn.Sequential:
    """Two linear layers, four times as wide between."""
    return nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))


class Reach(NamedTuple):
    """What a place drew on, `(heads, z, y, x)` of the image and `(heads, *cells)` of the volume; together 1 a head.

    `direct` is the part of `image` that it took from its window itself, not by way of tokens.
    """

    image: Tensor
    volume: Tensor | None
    direct: Tensor


def compose(
    ask: WindowState,
    mix: TokenState,
    read: WindowState,
    volume: VolumeState | None = None,
    *,
    cell: tuple[int, int, int],
    sample: int = 0,
) -> Reach:
    """Everything that one place drew on in two consecutive blocks of a stage, over all hops.

    With `a` the attention of place `v` in the second block, `t` that of tokens `g` and `r` what tokens read in the first,

        image(u) = a(v, u) + sum over g, g' of a(v, g) t(g, g') r(g', u)
        volume(c) = sum over g and cells b nearby of a(v, g) t(g, b) w(b, c)

    where `w` is the attention among volume tokens, or the identity without `volume`. Heads of the inner hops are averaged,
    since the layers between mix them; what a token gave to tokens while it read is shared out over the places it read.
    Residual paths and layers between hops are left out, as in every product of attentions.

    Parameters
    ----------
    ask
        Window attention of the second block.
    mix, read, volume
        Token, window and volume attention of the first. The authors' wiring lets volume tokens attend after they are read:
        leave `volume` out there in the first block of a stage.
    cell
        Index of the place in `ask.grid`.
    sample
        Image of the batch.
    """
    weights = ask.q.new_zeros(ask.grid)
    weights[cell] = 1
    return compose_weighed(ask, mix, read, volume, weights=weights, sample=sample)


def compose_weighed(
    ask: WindowState,
    mix: TokenState,
    read: WindowState,
    volume: VolumeState | None = None,
    *,
    weights: Tensor,
    sample: int = 0,
) -> Reach:
    """The sum of `compose` over all places, each by its weight in `weights (z, y, x)`; other parameters as there."""
    tokens, direct = ask.give(weights, sample)
    near, shares = mix.give(tokens, sample)
    places = torch.einsum("hwt,wtp->hwp", shares, read.read(sample).mean(1))
    image = direct + read.layout.join(places[..., None]).squeeze(-1)
    if mix.crop is None:
        return Reach(image, None, direct)
    cells = image.new_zeros(len(tokens), math.prod(mix.crop.grid))
    cells[:, mix.crop.near[sample]] = near
    if volume is not None:
        cells = cells @ volume.rows(sample).mean(0)
    return Reach(image, cells.view(-1, *mix.crop.grid), direct)
