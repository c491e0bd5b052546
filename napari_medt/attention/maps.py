"""From what a state says about one place to maps that lie over the image, and what they are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from torch import Tensor

from napari_medt.attention.scene import Scene
from napari_medt.attention.sources import Hops, Source
from napari_medt.core import AttentionMap, Geometry
from napari_medt.engine.blocks import Job
from napari_medt.engine.windows import Floats
from napari_medt.nets.axial_states import RowAndColumnState
from napari_medt.nets.states import State
from napari_medt.nets.token_attention import VolumeState

TARGETS = 8  # places that were looked at most
NOTEWORTHY = 0.01  # share of attention that goes to what lies beyond an image smaller than the window
NO_CAUSE = "Weights of a computation, not proof of a cause."


@dataclass(frozen=True)
class Look:
    """One map of a place: `values (heads, *places)` that begin at cell `corner`; of the volume's cells where `volume`."""

    kind: str
    values: Tensor
    text: str
    even: float | None
    corner: tuple[int, ...] = (0, 0, 0)
    volume: bool = False


def looks_of(source: Source, state: State, cell: tuple[int, ...]) -> list[Look]:
    """What a source says about one of its cells: the whole first, then its parts."""
    if source.kind in STILL_TEXTS:
        return [Look(source.kind, state.row(cell), STILL_TEXTS[source.kind], None)]
    even = 1 / max(1, state.choices(cell))
    if isinstance(state, RowAndColumnState):
        whole, row, column = state.product(cell)
        y, x = state.corner(cell)
        where = "its patch" if state.height.patches > 1 else "the window"
        text = f"How much this layer took from each place of {where} to describe the point"
        across, down = (
            "What this layer took from the row of the point",
            "What this layer took from the column of the point",
        )
        return [
            Look("row and column", whole, text, even, (y, x)),
            Look("row", row[:, None], across, 1 / row.shape[1], (cell[0], x)),
            Look("column", column[:, :, None], down, 1 / column.shape[1], (y, cell[1])),
        ]
    if isinstance(state, Hops):
        image, volume, direct = state.reach(cell)
        looks = [
            Look("composed", image, "How much the point drew on each place, itself and by way of tokens", even),
            Look("in its window", direct, "What the point took from its own window itself", even),
            Look("by way of tokens", image - direct, "What the point took by way of the tokens of windows", even),
        ]
        if volume is not None:
            text = "What the point took from parts of the whole volume, by way of tokens"
            looks.append(Look("volume", volume, text, 1 / volume[0].numel(), volume=True))
        return looks
    return [Look(source.kind, state.row(cell), PICKED[source.kind], even, volume=isinstance(state, VolumeState))]


STILL_TEXTS = {
    "gate": "How much the skip connection let through at each place, 0 to 1",
    "guided": "How strong the guided features are at each place, 1 where they are strongest in their window",
    "channel": "Channels look at channels here and at no place: how strongly this changed each place, "
    "in units of the usual size of the features",
}
PICKED = {
    "token": "How much this layer took from each place to describe the point",
    "cross": "From which places the gate at the point was made",
    "window": "How much this layer took from each place of its window to describe the point",
    "position": "How much this layer took from each place to describe the point",
    "rollout": "How much of each place flowed into the point through all layers, if residual paths count half",
    "volume": "At which parts of the whole volume the tokens around the point looked",
}


def of_heads(head: int | None, source: Source) -> str:
    """In brackets behind a sentence: which heads."""
    if source.heads == 1:
        return ""
    return " (mean of the heads)" if head is None else f" (head {head + 1})"


def chosen(values: Tensor, head: int | None, source: Source) -> Floats:
    """`(heads, *places)` of the head asked for, or their mean: `(*places)`."""
    one = values.mean(0) if head is None or source.heads == 1 else values[head]
    return np.ascontiguousarray(one.float().cpu().numpy())


def lay(
    scene: Scene,
    look: Look,
    job: Job,
    *,
    source: Source,
    head: int | None,
    grid: tuple[int, ...],
    query: tuple[int, ...],
) -> AttentionMap:
    """A map in its place; `grid` are the cells of the whole window."""
    data, more = chosen(look.values, head, source), ""
    if look.volume:
        data, geometry = volume_map(scene, data)
    else:
        steps = [size / cells for size, cells in zip(scene.padded, grid, strict=True)]
        start = [part.start + c * step for part, c, step in zip(job[1], look.corner, steps, strict=False)]
        # Cells that lie wholly in the padding of an image smaller than the window are none.
        ends = [
            max(1, math.ceil((n - s) / step))
            for n, s, step in zip(scene.shape[-scene.dims :], start, steps, strict=True)
        ]
        whole = float(data.sum())
        data = data[tuple(slice(end) for end in ends)]
        if look.even is not None and (beyond := whole - float(data.sum())) > NOTEWORTHY:
            more = f" {beyond:.0%} went to the mirror image beyond the border."
        data, geometry = placed(scene, data, job[0], start, steps)
    targets, shares = strongest(data)
    corner = scene.geometry.index(geometry.position(targets))
    extras: dict[str, Any] = {"window": edges(scene, job)}
    if look.even is not None:
        extras |= {"targets": scene.to_image(corner), "shares": shares}
    caption = f"{look.text}{of_heads(head, source)}.{more} {NO_CAUSE}"
    return AttentionMap(data, geometry, source.name, look.kind, head, query, caption, look.even, extras)


def placed(
    scene: Scene, data: Floats, index: tuple[int, ...], start: Sequence[float], steps: Sequence[float]
) -> tuple[Floats, Geometry]:
    """Cells of a window, whose first begins at voxel edge `start`, with the axes of the slices in front; and their geometry."""
    corner = [*index, *(s + (step - 1) / 2 for s, step in zip(start, steps, strict=True))]
    geometry = scene.geometry.part(corner, step=[*(1.0 for _ in index), *steps])
    return data.reshape(*(1 for _ in index), *data.shape), geometry


def volume_map(scene: Scene, data: Floats) -> tuple[Floats, Geometry]:
    """The cells of the volume that reach into the image, and their geometry; an axis of one cell is not divided."""
    assert scene.cells is not None
    starts, steps, kept = [], [], []
    for size, cells, edge in zip(scene.shape, scene.cells.grid, scene.cells.cell_size, strict=True):
        step = edge if cells > 1 else size
        start = size / 2 - cells * step // 2 if cells > 1 else 0.0
        first = max(0, int(-start // step))
        last = min(cells, math.ceil((size - start) / step))
        kept.append(slice(first, last))
        starts.append(start + first * step)
        steps.append(float(step))
    return placed(scene, np.ascontiguousarray(data[tuple(kept)]), (), starts, steps)


def edges(scene: Scene, job: Job) -> npt.NDArray[np.float64]:
    """The first and the last edge of a window, `(2, n)` in array indices of the image."""
    low = [*job[0], *(max(part.start, 0) for part in job[1])]
    high = [*job[0], *(min(part.stop, n) - 1 for part, n in zip(job[1], scene.shape[-scene.dims :], strict=True))]
    ends = scene.to_image(np.array([low, high], float) + np.array([[-0.5], [0.5]]))
    return np.array([ends.min(0), ends.max(0)])


def strongest(data: Floats) -> tuple[npt.NDArray[np.float64], Floats]:
    """The indices `(k, n)` of the highest peaks of a map, highest first, and their values `(k,)`."""
    peaks = np.flatnonzero((ndimage.maximum_filter(data, size=3) == data) & (data > data.min()))
    peaks = peaks[np.argsort(-data.flat[peaks], kind="stable")[:TARGETS]]
    return np.stack(np.unravel_index(peaks, data.shape), -1).astype(float), data.flat[peaks]
