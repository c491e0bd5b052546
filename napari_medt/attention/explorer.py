"""Row and column attention in image space: for one pixel, and as a mean over the image."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from napari_medt.core import AttentionMap, BadImage, BadModel, Cancel, Geometry, Progress, Volume, silent
from napari_medt.engine.prepare import Scale, fit
from napari_medt.engine.windows import blend_weights, pad_to_window, plan_windows
from napari_medt.nets.axial import AxialBlock, AxialState
from napari_medt.nets.capture import capture, list_attention_sources
from napari_medt.zoo.model import Model

Floats = npt.NDArray[np.float32]


@runtime_checkable
class AxialNet(Protocol):
    """A network of axial blocks, whose height and width attention are looked at together."""

    def attention_blocks(self) -> dict[str, AxialBlock]:
        """Name, for example `"global.layer1.0"`, to block."""


@dataclass(frozen=True)
class BlockState:
    """The height and width attention of one block in one window; the first axis of their tensors counts patches."""

    height: AxialState
    width: AxialState

    @property
    def patches(self) -> int:
        """Edge of the grid of patches."""
        return self.height.patches

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of attention cells in the whole window."""
        return self.height.grid

    @property
    def nbytes(self) -> int:
        """Memory of the kept queries and keys."""
        return sum(t.nbytes for s in (self.height, self.width) for t in (s.q, s.k))


class AttentionExplorer:
    """Answers where a model looked, for any pixel of one image.

    A window is passed through the network when one of its pixels is first asked about; its queries and keys are kept, oldest
    forgotten first, so that further questions take milliseconds. Attention itself is never stored.

    Parameters
    ----------
    model
        A model whose network shows its attention.
    image
        2D image, as for `predict`.
    overlap
        Of neighbouring windows, as in `predict`.
    scale
        Of the intensities of the scan, if the image is a slice of one; fitted to the image by default.
    memory_mb
        Upper bound for what is kept.

    Raises
    ------
    BadModel
        If the network shows no attention, or none along rows and columns.
    """

    def __init__(
        self,
        model: Model,
        image: Volume | npt.ArrayLike,
        *,
        overlap: float | None = None,
        scale: Scale | None = None,
        memory_mb: float = 256,
    ) -> None:
        if not isinstance(model.net, AxialNet):
            if not list_attention_sources(model.net):
                raise BadModel(f"{model.card.title} shows no attention", remedy="choose one of the attention models")
            raise BadModel(
                f"The attention of {model.card.title} cannot be drawn over images yet",
                remedy="read it from Python, with napari_medt.nets.capture",
            )
        self._net: AxialNet = model.net
        self._model = model
        volume = image if isinstance(image, Volume) else Volume.from_array(image)
        if volume.geometry.ndim != 2:
            raise BadImage("Attention of this model is shown on 2D images", remedy="choose one slice of the scan")
        prepared = fit(volume, model.card, scale=scale)
        self.geometry, self._lines = prepared.geometry, prepared.grid.lines
        self._image = prepared.whole()
        self.shape: tuple[int, int] = self._image.shape[-2], self._image.shape[-1]
        self._window = model.card.window
        self._windows = plan_windows(self.shape, self._window, overlap=overlap)
        self._budget = int(memory_mb * 2**20)
        self._states: OrderedDict[int, dict[str, BlockState]] = OrderedDict()

    def sources(self) -> tuple[str, ...]:
        """Names of the blocks that can be asked about, from the input towards the output."""
        return tuple(self._net.attention_blocks())

    def heads(self, source: str) -> int:
        """Number of attention heads of a block."""
        self._check_source(source)
        return self._net.attention_blocks()[source].height.heads

    def warm(self, *, progress: Progress | None = None, cancel: Cancel | None = None) -> None:
        """Pass windows through the network until all are kept or the memory is full, so that the first click is quick."""
        report = progress or silent
        for done, index in enumerate(range(len(self._windows))):
            if cancel is not None:
                cancel.check()
            report(done, len(self._windows), "Preparing attention")
            kept = self._state(index)
            if self._kept_bytes() + sum(state.nbytes for state in kept.values()) > self._budget:
                break
        report(len(self._windows), len(self._windows), "Attention is ready")

    def pick(self, query: tuple[int, int], *, source: str, head: int | None = None) -> list[AttentionMap]:
        """Where the block looked to describe one pixel.

        Parameters
        ----------
        query
            `(y, x)` array index of the pixel.
        source
            A block of `sources()`.
        head
            0 to 7, or `None` for the mean over heads.

        Returns
        -------
        list of AttentionMap
            First the whole map `M[y, x] = A_width[y0][x0, x] * A_height[x][y0, y]`, which sums to 1 over the window (over the
            patch, in the local branch): height attention runs before width attention, so their product is the exact weight of
            every position's value. Then the row and the column through the pixel, which are what each module sees.

        Raises
        ------
        BadImage
            If the pixel lies outside the image.
        """
        self._check_source(source)
        query = int(query[0]), int(query[1])
        sizes = [line.size for line in self._lines]
        if not all(0 <= q < n for q, n in zip(query, sizes, strict=True)):
            raise BadImage(f"The point {query} lies outside the image of {sizes[0]} x {sizes[1]} pixels")
        y, x = (
            min(max(round(float(line.to_model(q))), 0), line.model - 1)
            for line, q in zip(self._lines, query, strict=True)
        )
        index = self._nearest_window((y, x))
        start = tuple(s.start for s in self._windows[index])
        state = self._state(index)[source]
        steps = tuple(w / g for w, g in zip(self._window, state.grid, strict=True))
        cell = [int((q - s) // step) for q, s, step in zip((y, x), start, steps, strict=True)]
        side = [g // state.patches for g in state.grid]
        patch = [c // n for c, n in zip(cell, side, strict=True)]
        y0, x0 = (c % n for c, n in zip(cell, side, strict=True))
        sample = patch[0] * state.patches + patch[1]
        columns = _select(state.height.rows(y0, sample), head)  # (heads, x, y): what (y0, x) sees of its column
        row = _select(state.width.line(y0, x0, sample), head)  # (heads, x): what (y0, x0) sees of its row
        whole = torch.einsum("hxy,hx->yx", columns, row) / row.shape[0]
        origin = [s + p * n * step for s, p, n, step in zip(start, patch, side, steps, strict=True)]
        where = "its patch" if state.patches > 1 else "the window"
        heads = "mean of the heads" if head is None else f"head {head + 1}"
        made = (
            (
                "row and column",
                whole,
                (0, 0),
                f"How much this layer took from each place of {where} to describe the point",
            ),
            ("row", row.mean(0)[None], (y0, 0), "What this layer took from the row of the point"),
            (
                "column",
                columns[:, x0].mean(0)[:, None],
                (0, x0),
                "What this layer took from the column of the point",
            ),
        )
        maps = []
        for kind, values, (row_at, column_at), text in made:
            corner = origin[0] + row_at * steps[0], origin[1] + column_at * steps[1]
            data = self._inside(values.float().cpu().numpy(), corner, steps)
            caption = f"{text} ({heads}). Weights of a computation, not proof of a cause."
            geometry = self._cells(corner, steps)
            maps.append(AttentionMap(data, geometry, source, kind, head=head, query=query, caption=caption))
        return maps

    def overview(
        self, source: str, head: int | None = None, *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> AttentionMap:
        """How much attention every place of the image received, on average over all pixels that looked.

        The map is on the image's own grid, windows blended as in `predict`; 1 is the mean, 3 is three times as much.
        """
        self._check_source(source)
        report = progress or silent
        total = np.zeros(self.shape, dtype=np.float32)
        weight = np.zeros(self.shape, dtype=np.float32)
        blend = blend_weights(self._window)
        for index, window in enumerate(self._windows):
            if cancel is not None:
                cancel.check()
            report(index, len(self._windows), "Attention of the whole image")
            state = self._state(index)[source]
            received = _received(state, head)
            for axis, (size, cells) in enumerate(zip(self._window, received.shape, strict=True)):
                received = received.repeat(-(-size // cells), axis=axis)
            here = tuple(slice(0, s.stop - s.start) for s in window)
            total[window] += (received * blend)[here]
            weight[window] += blend[here]
        report(len(self._windows), len(self._windows), "Attention of the whole image is ready")
        heads = "mean of the heads" if head is None else f"head {head + 1}"
        caption = (
            f"How much each place was looked at by this layer ({heads}); 1 is the average. "
            "Weights of a computation, not proof of a cause."
        )
        return AttentionMap(total / weight, self.geometry, source, "received", head=head, caption=caption)

    def window_input(self, index: int) -> Floats:
        """What the network sees of one window, `(c, y, x)` after intensity treatment and padding."""
        return np.ascontiguousarray(pad_to_window(self._image[(slice(None), *self._windows[index])], self._window))

    def _check_source(self, source: str) -> None:
        if source not in self._net.attention_blocks():
            raise BadModel(
                f"{self._model.card.title} has no attention called {source!r}",
                remedy="choose one of " + ", ".join(self.sources()),
            )

    def _nearest_window(self, query: tuple[int, int]) -> int:
        def distance(index: int) -> float:
            window = self._windows[index]
            return float(max(abs((s.start + s.stop - 1) / 2 - q) for s, q in zip(window, query, strict=True)))

        return min(range(len(self._windows)), key=distance)

    def _state(self, index: int) -> dict[str, BlockState]:
        """Attention states of one window, from memory or by a pass through the network."""
        if index not in self._states:
            self._states[index] = self._capture(index)
            while len(self._states) > 1 and self._kept_bytes() > self._budget:
                self._states.popitem(last=False)
        self._states.move_to_end(index)
        return self._states[index]

    def _kept_bytes(self) -> int:
        return sum(state.nbytes for states in self._states.values() for state in states.values())

    def _capture(self, index: int) -> dict[str, BlockState]:
        batch = torch.from_numpy(self.window_input(index))[None].to(self._model.device)
        with torch.inference_mode(), capture(self._model.net) as captured:
            self._model.net(batch)
        return {
            name: BlockState(*(captured[f"{name}.{axis}"][0] for axis in ("height", "width")))
            for name in self.sources()
        }

    def _cells(self, corner: tuple[float, float], steps: tuple[float, ...]) -> Geometry:
        """Geometry of a grid of attention cells whose first cell begins at pixel edge `corner`."""
        to_pixels = np.diag([*steps, 1.0])
        to_pixels[:-1, -1] = [c + (s - 1) / 2 for c, s in zip(corner, steps, strict=True)]
        return Geometry(self.geometry.affine @ to_pixels, self.geometry.units)

    def _inside(self, data: Floats, corner: tuple[float, float], steps: tuple[float, ...]) -> Floats:
        """Leave out cells that lie wholly in the padding of an image smaller than the window."""
        cells = [max(1, int(np.ceil((n - c) / s))) for n, c, s in zip(self.shape, corner, steps, strict=True)]
        return data[: cells[0], : cells[1]]


def _select(attention: torch.Tensor, head: int | None) -> torch.Tensor:
    return attention if head is None else attention[head : head + 1]


def _received(state: BlockState, head: int | None) -> Floats:
    """Attention received by every cell of the window, relative to the mean."""
    rows, columns = state.grid[0] // state.patches, state.grid[1] // state.patches
    tiles = []
    for sample in range(state.patches**2):
        height = _select(state.height.full(sample), head)  # (heads, x, y0, y)
        width = _select(state.width.full(sample), head).mean(2)  # (heads, y0, x), mean over the looking x0
        tiles.append(torch.einsum("hxqy,hqx->yx", height, width) * (columns / height.shape[0]))
    whole = torch.stack(tiles).view(state.patches, state.patches, rows, columns).transpose(1, 2)
    result: Floats = whole.reshape(state.grid).float().cpu().numpy()
    return result


def attention_maps(
    model: Model,
    image: Volume | npt.ArrayLike,
    source: str | None = None,
    query: tuple[int, int] | None = None,
    *,
    head: int | None = None,
) -> list[AttentionMap]:
    """Attention of a model on an image.

    Parameters
    ----------
    model, image
        As for `predict`.
    source
        A block, for example `"global.layer1.0"`; all blocks by default.
    query
        `(y, x)` of a pixel: where the model looked to describe it. By default the mean over the image.
    head
        0 to 7, or the mean over heads.

    Returns
    -------
    list of AttentionMap
        One mean map a block, or for a query three maps a block: whole, row and column.
    """
    explorer = AttentionExplorer(model, image)
    chosen = explorer.sources() if source is None else (source,)
    if query is None:
        return [explorer.overview(name, head) for name in chosen]
    return [found for name in chosen for found in explorer.pick(query, source=name, head=head)]
