"""Where the network looked to describe all voxels of a structure, without one question a voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from napari_medt.attention.keeping import Kept
from napari_medt.attention.lattice import Lattice, fitting_steps
from napari_medt.attention.maps import NO_CAUSE, of_heads, volume_map
from napari_medt.attention.scene import Scene
from napari_medt.attention.sources import Source, state_of
from napari_medt.core import AttentionMap, BadImage, Cancel, Progress
from napari_medt.engine.blocks import Job
from napari_medt.engine.windows import Floats
from napari_medt.nets.token_attention import VolumeState

Mask = npt.NDArray[np.bool_]
ENOUGH = 100_000  # voxels of a structure that a gate is averaged over


class Looks:
    """Adds up where windows looked for the voxels of a structure, each by its share in their prediction.

    Parameters
    ----------
    scene, kept
        The image, and what is kept of it.
    source, head
        What is asked; the mean over heads by default.
    budget
        Bytes that the map may take.
    """

    def __init__(self, scene: Scene, kept: Kept, source: Source, head: int | None, budget: int) -> None:
        self._scene, self._kept, self._source, self._head, self._budget = scene, kept, source, head, budget
        self._lattice: Lattice | None = None
        self._volume: Floats | None = None

    @torch.inference_mode()
    def run(self, mask: Mask, report: Progress, cancel: Cancel | None) -> AttentionMap:
        """Go through the windows that the structure lies in.

        Raises
        ------
        BadImage
            If the mask is empty, or the model did not look there.
        """
        scene = self._scene
        turned, near = scene.grid.axes.apply(mask), nearest_voxels(scene)
        total, windows = 0.0, 0
        for done, job in enumerate(scene.jobs()):
            if cancel is not None:
                cancel.check()
            report(done, len(scene), "Attention of the structure")
            here = float(weights_of(scene, turned, job, (1,) * scene.dims, near=near).sum())
            if here:
                self._add(turned, job, near)
                total, windows = total + here, windows + 1
        report(len(scene), len(scene), "Attention of the structure is ready")
        if not total:
            raise BadImage(
                "There is nothing of this structure where the model looked", remedy="choose a structure inside the body"
            )
        return self._map(total, windows)

    def _add(self, mask: Mask, job: Job, near: Sequence[npt.NDArray[np.intp]]) -> None:
        scene, source = self._scene, self._source
        state = state_of(source, self._kept.get(job, source.parts))
        weights = torch.from_numpy(weights_of(scene, mask, job, tuple(state.grid), near=near))
        values = state.weighed(weights.to(scene.effort.device))
        values = values.mean(0, keepdim=True) if self._head is None or source.heads == 1 else values[[self._head]]
        found = values.float().cpu().numpy()
        found = found * np.float32(found[0].size)  # so that even attention is 1
        if isinstance(state, VolumeState):
            self._volume = found if self._volume is None else self._volume + found
            return
        if self._lattice is None:
            (step,) = fitting_steps(scene, [tuple(state.grid)], [1], budget=self._budget)
            self._lattice = Lattice(scene, step, 1)
        self._lattice.add(found, job, blended=False)

    def _map(self, total: float, windows: int) -> AttentionMap:
        if self._lattice is not None:
            data, geometry = self._lattice.values[0], self._lattice.geometry
        else:
            assert self._volume is not None
            data, geometry = volume_map(self._scene, self._volume[0])
        spread = self._lattice is not None and windows > 1
        less = (
            f", less over the {windows} that it lies in, as each place looks at its own window alone" if spread else ""
        )
        caption = (
            f"How much each place was looked at to describe the structure{of_heads(self._head, self._source)}; "
            f"1 is what even attention over one window would give{less}. {NO_CAUSE}"
        )
        data = data / np.float32(total)
        return AttentionMap(data, geometry, self._source.name, "structure", self._head, None, caption, 1.0)


def still(scene: Scene, found: AttentionMap, mask: Mask) -> AttentionMap:
    """A map that is the same for every structure, and what it says about this one.

    Raises
    ------
    BadImage
        If the mask is empty.
    """
    inside = np.argwhere(mask)
    if not len(inside):
        raise BadImage("There is nothing of this structure", remedy="choose another label")
    inside = inside[:: -(-len(inside) // ENOUGH)]
    at = np.round(found.geometry.index(scene.volume.geometry.position(inside))).astype(int)
    values = found.data[tuple(np.clip(at, 0, np.array(found.data.shape) - 1).T)]
    here = f"{values.mean():.2f} in this one, {found.data.mean():.2f} on average"
    caption = f"{found.caption} It is the same for every structure: {here}."
    return replace(found, caption=caption, extras={"inside": np.asarray(values.mean())})


def weights_of(
    scene: Scene, mask: npt.NDArray[np.bool_], job: Job, grid: tuple[int, ...], *, near: Sequence[npt.NDArray[np.intp]]
) -> Floats:
    """How many voxels of a mask each cell of a window's grid speaks for, by the shares of the window in them.

    Parameters
    ----------
    mask
        On the grid of the image, its axes rearranged.
    job, grid
        The window, and the cells of a source in it.
    near
        As of `nearest_voxels`.
    """
    index, where = job
    parts, matrices = [], []
    for axis, voxels in enumerate(near):
        inner = axis - len(index)
        start, edge = (index[axis], 1) if inner < 0 else (where[inner].start, scene.window[inner])
        low, high = (int(i) for i in np.searchsorted(voxels, (start, start + edge)))
        first = scene.body[axis].start
        parts.append(slice(first + low, first + high))
        if inner < 0:
            matrices.append(np.ones((1, high - low), dtype=np.float32))
            continue
        at = voxels[low:high] - start
        matrix = np.zeros((grid[inner], high - low), dtype=np.float32)
        matrix[at * grid[inner] // scene.padded[inner], np.arange(high - low)] = scene.shares[inner][start][at]
        matrices.append(matrix)
    here = mask[tuple(parts)]
    if not here.any():
        return np.zeros(grid, dtype=np.float32)
    found: Floats = here.astype(np.float32)
    for axis, matrix in enumerate(matrices):
        found = np.moveaxis(np.tensordot(matrix, found, axes=(1, axis)), 0, axis)
    return found.reshape(grid)


def nearest_voxels(scene: Scene) -> list[npt.NDArray[np.intp]]:
    """Along each axis, the voxel of the model's grid nearest to each sample of what is looked at of the image."""
    return [
        np.clip(np.round(line.to_model(np.arange(part.start, part.stop))), 0, line.model - 1).astype(np.intp)
        for line, part in zip(scene.grid.lines, scene.body, strict=True)
    ]
