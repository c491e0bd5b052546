"""What is kept of row and column attention, each by itself and both of a block taken together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_medt.nets.states import TOGETHER, QueriesAndKeys


@dataclass(frozen=True)
class AxialState(QueriesAndKeys):
    """What one axial attention needs to give any row of its attention again, kept while attention is captured.

    Attributes
    ----------
    q, k
        Queries and keys, `(n, heads, c, lines, K)`.
    scales
        `(3, heads)`, or `(1, heads)` where attention ignores position: what batch norm and gates make of each term.
    eq, ek
        Tables `(c, K, K)`, or `None` where attention ignores position.
    axis
        `"height"` (lines are columns) or `"width"` (lines are rows).
    patches
        Edge of the grid of patches that an image was cut into, patch after patch on the first axis; 1 for whole images.
    """

    scales: Tensor
    eq: Tensor | None
    ek: Tensor | None
    axis: str
    patches: int = 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of places that look, over all patches of an image."""
        lines, length = self.q.shape[-2:]
        rows, columns = (length, lines) if self.axis == "height" else (lines, length)
        return self.patches * rows, self.patches * columns

    @property
    def samples(self) -> int:
        """Images in the batch; the first axis of the tensors counts their patches."""
        return self.q.shape[0] // self.patches**2

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """Attention `(heads, K)` of one cell of `grid` over its column or row, within its patch; sums to 1 a head."""
        rows, columns = (size // self.patches for size in self.grid)
        (row, y), (column, x) = divmod(cell[0], rows), divmod(cell[1], columns)
        patch = (sample * self.patches + row) * self.patches + column
        return self.line(x, y, patch) if self.axis == "height" else self.line(y, x, patch)

    def received(self, sample: int = 0) -> Tensor:
        """Attention received from the own line, mean over the positions that look: `(heads, *grid)`."""
        return self.weighed(self.q.new_full(self.grid, 1 / self.q.shape[-1]), sample)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Sum of the rows of all cells by their weights, each on its own line: `(heads, *grid)`."""
        return self.joined(self.sums(self.cut(weights), sample))

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """The positions of one line."""
        return self.q.shape[-1]

    def cut(self, values: Tensor) -> Tensor:
        """Values `(*grid)` as `(patches, lines, K)`."""
        edge = self.patches
        tiles = values.to(self.q).view(edge, self.grid[0] // edge, edge, self.grid[1] // edge).transpose(1, 2)
        tiles = tiles.flatten(0, 1)
        return tiles.mT if self.axis == "height" else tiles

    def joined(self, values: Tensor) -> Tensor:
        """Values `(patches, heads, lines, K)` as `(heads, *grid)`."""
        values = values.mT if self.axis == "height" else values
        whole = torch.unflatten(values, 0, (self.patches, self.patches))  # (row, column, heads, y, x)
        return whole.permute(2, 0, 3, 1, 4).reshape(-1, *self.grid)

    def sums(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Rows summed up by line, by weights `(patches, lines, K)`, or those of each head `(patches, heads, lines, K)`.

        Returns
        -------
        Tensor
            `(patches, heads, lines, K)`.
        """
        count = self.patches**2
        patches = slice(sample * count, (sample + 1) * count)
        total = torch.zeros_like(self.q[patches, :, 0])
        each = weights if weights.ndim == 4 else weights[:, None]
        step = max(1, TOGETHER // total.numel())
        for start in range(0, total.shape[-1], step):
            part = each[..., start : start + step, None]
            if part.any():
                total += (part.mT @ self._block(slice(start, start + step), patches)).squeeze(-2)
        return total

    def rows(self, index: int, sample: int = 0) -> Tensor:
        """Attention `(heads, lines, K)` of position `index` of every line over all positions; sums to 1 over K."""
        return self._block(slice(index, index + 1), sample).squeeze(-2)

    def _block(self, which: slice, sample: int | slice) -> Tensor:
        """Attention `(heads, lines, positions, K)` of some positions of every line, of several samples in front of it."""
        q, k = self.q[sample][..., which], self.k[sample]  # (g, c, l, i), (g, c, l, K)
        scales = self.scales[..., None, None, None]
        logits = (q * scales[0]).movedim(-3, -1) @ k.movedim(-3, -2)
        if self.eq is not None and self.ek is not None:
            # Channel by channel, since there are few: products over them would come out with their axes exchanged.
            queries, keys = q * scales[1], k * scales[2]
            for channel in range(q.shape[-3]):
                logits.addcmul_(queries[..., channel, :, :, None], self.eq[channel, which])
                logits.addcmul_(keys[..., channel, :, None, :], self.ek[channel, :, which].mT.contiguous())
        return logits.softmax(-1)

    def line(self, line: int, index: int, sample: int = 0) -> Tensor:
        """Attention `(heads, K)` of position `index` of one line."""
        one = slice(line, line + 1)
        state = AxialState(self.q[:, :, :, one], self.k[:, :, :, one], self.scales, self.eq, self.ek, self.axis)
        return state.rows(index, sample)[:, 0]

    def full(self, sample: int = 0) -> Tensor:
        """The whole attention `(heads, lines, K, K)` of one sample: for tests and summaries, line by line cheap to ask for."""
        length = self.q.shape[-1]
        return torch.stack([self.rows(i, sample) for i in range(length)], dim=-2)


@dataclass(frozen=True)
class RowAndColumnState:
    """Height attention runs before width attention: the exact weight of a place's value is the product of both.

        M[y, x] = A_width[y0][x0, x] * A_height[x][y0, y]

    It sums to 1 over the image, or over the patch where an image was cut into patches.
    """

    height: AxialState
    width: AxialState

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of places that look, over all patches of an image."""
        return self.height.grid

    @property
    def samples(self) -> int:
        """Images in the batch."""
        return self.height.samples

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return self.height.nbytes + self.width.nbytes

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """Where one cell of `grid` looked, `(heads, *grid)`; 0 outside its patch."""
        whole, (y, x) = self.product(cell, sample)[0], self.corner(cell)
        found = whole.new_zeros(len(whole), *self.grid)
        found[:, y : y + whole.shape[1], x : x + whole.shape[2]] = whole
        return found

    def product(self, cell: tuple[int, ...], sample: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """The same over its patch alone, `(heads, h, w)`; its row `(heads, w)` and its column `(heads, h)`."""
        (row, y), (column, x) = (divmod(place, side) for place, side in zip(cell, self._sides, strict=True))
        patches = self.height.patches
        patch = (sample * patches + row) * patches + column
        columns = self.height.rows(y, patch)  # (heads, x, y): what every place of the row sees of its column
        across = self.width.line(y, x, patch)
        return (columns * across[..., None]).mT, across, columns[:, x]

    def corner(self, cell: tuple[int, ...]) -> tuple[int, int]:
        """The first cell of the patch that a cell lies in."""
        y, x = (place - place % side for place, side in zip(cell, self._sides, strict=True))
        return y, x

    def received(self, sample: int = 0) -> Tensor:
        """Mean over all cells, `(heads, *grid)`."""
        rows, columns = self.grid
        return self.weighed(self.height.q.new_full(self.grid, 1 / (rows * columns)), sample)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Sum of the rows of all cells by their weights, `(heads, *grid)`."""
        asked = self.width.sums(self.width.cut(weights), sample)  # (patches, heads, y0, x): of the row, by every row
        return self.height.joined(self.height.sums(asked.mT, sample))

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """The cells of its patch."""
        rows, columns = self._sides
        return rows * columns

    @property
    def _sides(self) -> tuple[int, int]:
        rows, columns = self.grid
        return rows // self.height.patches, columns // self.height.patches
