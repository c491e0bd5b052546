"""What a network keeps of its attention while somebody asks for it, and how a row is computed from that.

Attention itself is never kept: queries and keys are, and the row of one query is their softmax, computed when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Kind = Literal["gate", "axial row", "axial column", "token", "cross", "window", "volume", "position", "channel"]
LARGEST = 4096  # queries or keys of an attention matrix that may be held as a whole
CHUNK = 512  # queries whose rows are held at once where all are needed
TOGETHER = 2**19  # weights that are computed at once: few enough for a processor's cache


@dataclass(frozen=True)
class AttentionSource:
    """One place in a network that attends.

    Attributes
    ----------
    name
        Dotted, for example `"local.layer1.0.width"`; unique in its network.
    kind
        What attends to what: `"gate"` (one value a place, 0 to 1, no query), `"axial row"`, `"axial column"`, `"token"` (all
        tokens to all), `"cross"` (queries of one feature map, values of another), `"window"` (tokens of one window),
        `"volume"` (tokens of the whole volume), `"position"` (all places to all), `"channel"` (channels to channels, no place).
    heads
        Number of attention heads; 1 for gates.
    level
        How often the input was halved where it sits: 0 at full resolution.
    """

    name: str
    kind: Kind
    heads: int
    level: int


class State(Protocol):
    """One forward pass of one source."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Places that look, `(h, w)` or `(d, h, w)`, over the padded input of the network."""

    @property
    def samples(self) -> int:
        """Images in the batch."""

    @property
    def nbytes(self) -> int:
        """Memory kept."""

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """Where one cell of `grid` looked: `(heads, *places looked at)`."""

    def received(self, sample: int = 0) -> Tensor:
        """Mean over all queries: `(heads, *places looked at)`."""

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Sum of the rows of all cells, each by its weight in `weights (*grid)`: `(heads, *places looked at)`."""

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """Among how many places one cell may divide its attention."""


@dataclass(frozen=True)
class GateState:
    """A gate: `values (n, channels, *grid)` between 0 and 1, the same for every query."""

    values: Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        """Places with a value."""
        return tuple(self.values.shape[2:])

    @property
    def samples(self) -> int:
        """Images in the batch."""
        return self.values.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return self.values.nbytes

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """The gate itself, `(channels, *grid)`: it does not depend on a query."""
        return self.values[sample]

    def received(self, sample: int = 0) -> Tensor:
        """The gate itself, `(channels, *grid)`."""
        return self.values[sample]

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """The gate itself, by the sum of the weights: it does not depend on a query."""
        return self.values[sample] * weights.sum()

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """None: a gate divides nothing."""
        return 0


@dataclass(frozen=True)
class QueriesAndKeys:
    """What is kept of a softmax attention: `q` and `k`, images on the first axis."""

    q: Tensor
    k: Tensor

    @property
    def samples(self) -> int:
        """Images in the batch."""
        return self.q.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return self.q.nbytes + self.k.nbytes


@dataclass(frozen=True)
class DotState(QueriesAndKeys):
    """Softmax attention of all queries over all keys.

    Attributes
    ----------
    q, k
        `(n, heads, queries, c)` and `(n, heads, keys, c)`, row-major over their grids.
    grid, key_grid
        Places that look, and places looked at.
    scale
        Factor of the logits.
    """

    grid: tuple[int, ...]
    key_grid: tuple[int, ...]
    scale: float

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """Attention of one cell of `grid`: `(heads, *key_grid)`, sums to 1 a head."""
        index = 0
        for place, size in zip(cell, self.grid, strict=True):
            index = index * size + place
        return self._rows(sample, slice(index, index + 1)).reshape(-1, *self.key_grid)

    def received(self, sample: int = 0) -> Tensor:
        """Mean over all queries, `(heads, *key_grid)`."""
        return self.weighed(self.q.new_full(self.grid, 1 / self.q.shape[2]), sample)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Sum of the rows of all cells by their weights, computed some queries at a time."""
        flat = weights.flatten().to(self.q)
        total = self.q.new_zeros(self.k.shape[1], self.k.shape[2])
        for which in torch.split(flat.nonzero()[:, 0], max(1, TOGETHER // total.numel())):
            total += flat[which] @ self._rows(sample, which)
        return total.reshape(-1, *self.key_grid)

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """All places looked at."""
        return self.k.shape[2]

    def full(self, sample: int = 0) -> Tensor:
        """The whole matrix `(heads, queries, keys)`.

        Raises
        ------
        ValueError
            If there are more than 4,096 queries or keys: ask for rows instead.
        """
        if max(self.q.shape[2], self.k.shape[2]) > LARGEST:
            raise ValueError(f"a matrix of {self.q.shape[2]} x {self.k.shape[2]} is too large to hold: ask for rows")
        return self._rows(sample, slice(None))

    def _rows(self, sample: int, which: slice | Tensor) -> Tensor:
        logits = torch.matmul(self.q[sample, :, which], self.k[sample].transpose(-1, -2)) * self.scale
        return logits.softmax(-1)
