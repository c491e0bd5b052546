"""How the heads of every source look: how widely, how far, and whether alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_medt.attention.scene import Scene
from napari_medt.attention.sources import STILL, Source, state_of
from napari_medt.core import Cancel, HeadRow, Progress, silent
from napari_medt.engine.blocks import Job
from napari_medt.engine.windows import Floats
from napari_medt.nets.dual_attention import ChannelState
from napari_medt.nets.states import State

WINDOWS = 12  # of the image, evenly spread, that are looked at
PLACES = 24  # of each


def head_rows(
    scene: Scene, sources: Sequence[Source], *, progress: Progress | None = None, cancel: Cancel | None = None
) -> list[HeadRow]:
    """A table of all heads of some sources."""
    report = progress or silent
    count = min(WINDOWS, len(scene))
    wanted = set(np.linspace(0, len(scene) - 1, count).round().astype(int).tolist())
    last = max(wanted) + 1
    jobs = [job for number, job in enumerate(islice(scene.jobs(), last)) if number in wanted]
    names = list(dict.fromkeys(part for source in sources for part in source.parts))
    found: dict[str, list[tuple[Tensor, Tensor]]] = {source.name: [] for source in sources}
    for done, job in enumerate(jobs):
        if cancel is not None:
            cancel.check()
        report(done, count, "Comparing the heads")
        captured = scene.capture([job], names)
        for source in sources:
            if source.kind == "channel":
                matrix = captured[source.parts[0]]
                assert isinstance(matrix, ChannelState)
                found[source.name].append((_entropy(matrix.full()[0], matrix.weights.shape[-1]).mean()[None], NOTHING))
            elif source.kind not in STILL:
                found[source.name].append(_measured(scene, state_of(source, captured), job))
    report(count, count, "The heads are compared")
    return [row for source in sources for row in _rows(scene, source, found[source.name])]


NOTHING = torch.tensor([math.nan])


def _rows(scene: Scene, source: Source, measured: Sequence[tuple[Tensor, Tensor]]) -> list[HeadRow]:
    mm = scene.geometry.unit_mm
    rows = []
    for head in range(source.heads):
        entropy = distance = None
        if measured:
            entropy = float(torch.stack([entropies[head] for entropies, _ in measured]).mean())
            far = float(torch.stack([distances[head] for _, distances in measured]).mean())
            distance = None if math.isnan(far) else far * (mm or 1.0)
        rows.append(HeadRow(source.name, source.kind, source.level, head, entropy, distance, "mm" if mm else "px"))
    return rows


@torch.inference_mode()
def _measured(scene: Scene, state: State, job: Job) -> tuple[Tensor, Tensor]:
    """Entropy and distance of each head, on average over places of one window."""
    grid = state.grid
    steps = [size / cells for size, cells in zip(scene.padded, grid, strict=True)]
    inside = [
        max(1, min(cells, math.ceil((n - part.start) / step)))
        for n, part, cells, step in zip(scene.shape[-scene.dims :], job[1], grid, steps, strict=True)
    ]
    metric = scene.geometry.affine[:-1, :-1][:, -scene.dims :] * steps
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, len(grid))
    entropies, distances = [], []
    for number in np.linspace(0, math.prod(inside) - 1, min(PLACES, math.prod(inside))).round().astype(int):
        cell = tuple(int(i) for i in np.unravel_index(number, inside))
        row = state.row(cell)
        flat = row.flatten(1).float().cpu()
        flat = flat / flat.sum(1, keepdim=True).clamp_min(1e-30)
        entropies.append(_entropy(flat, state.choices(cell)))
        if tuple(row.shape[1:]) != tuple(grid):  # the cells of the whole volume
            distances.append(NOTHING.expand(len(flat)))
            continue
        apart = np.linalg.norm((places - cell) @ metric.T, axis=1)
        distances.append(flat @ torch.from_numpy(apart).float())
    return torch.stack(entropies).mean(0), torch.stack(distances).mean(0)


def _entropy(rows: Tensor, choices: int) -> Tensor:
    """Of rows that sum to 1, over that of even ones."""
    entropy: Tensor = torch.special.entr(rows.float().cpu()).sum(-1)
    return entropy / math.log(max(2, choices))


def agreement(values: npt.NDArray[np.float32]) -> Floats:
    """How much heads `(heads, *cells)` agree on each place: their geometric mean over their mean.

    1 where all give it the same, near 0 where one alone looks at it; 0 where none does.
    """
    mean = values.mean(0)
    with np.errstate(divide="ignore"):
        geometric = np.exp(np.log(values).mean(0))
    found: Floats = np.divide(geometric, mean, out=np.zeros_like(mean), where=mean > 0)
    return found
