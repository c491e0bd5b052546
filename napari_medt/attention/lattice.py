"""Putting the cells of many windows together into one map of the image.

The blend weights of a prediction are products over the axes, and so are cells. What the cells of a window add to the cells of a
map is therefore one small matrix an axis: the mean, over the voxels of a cell of the map, of the share of the window at a voxel
times the value of the window's cell that it lies in. A map with a cell a voxel is stitched exactly as the prediction is; a
coarser one is the mean of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_medt.attention.scene import Scene
from napari_medt.core import Geometry
from napari_medt.engine.blocks import Job
from napari_medt.engine.windows import Floats


class Lattice:
    """The cells of a map over the part of the model's grid that is looked at, and the sum of what windows add to them.

    Parameters
    ----------
    scene
        Of the windows.
    step
        Voxels of a cell along each axis of the model's grid.
    heads
        Maps side by side.

    Attributes
    ----------
    values
        `(heads, *cells)` float32.
    """

    def __init__(self, scene: Scene, step: Sequence[int], heads: int) -> None:
        self._scene, self._step = scene, tuple(step)
        self.values: Floats = np.zeros((heads, *cells_over(scene, step)), dtype=np.float32)
        self._known: dict[tuple[int, int, int, bool], tuple[slice, Floats]] = {}

    @property
    def geometry(self) -> Geometry:
        """Of the cells."""
        corner = [part.start + (step - 1) / 2 for part, step in zip(self._scene.box, self._step, strict=True)]
        return self._scene.geometry.part(corner, step=[float(step) for step in self._step])

    def add(self, values: Floats, job: Job, *, blended: bool = True) -> None:
        """Add one window.

        Parameters
        ----------
        values
            `(heads, *cells of the window)`.
        job
            The window.
        blended
            By the share that the window has in each voxel, else as it is.
        """
        index, where = job
        axes = len(self._step)
        values = values.reshape(len(values), *(1 for _ in index), *values.shape[1:])
        starts = (*index, *(part.start for part in where))
        matrices = [self._matrix(axis, starts[axis], values.shape[1 + axis], blended) for axis in range(axes)]
        for axis, (_, matrix) in enumerate(matrices):
            values = np.moveaxis(np.tensordot(matrix, values, axes=(1, 1 + axis)), 0, 1 + axis)
        self.values[(slice(None), *(part for part, _ in matrices))] += values

    def _matrix(self, axis: int, start: int, cells: int, blended: bool) -> tuple[slice, Floats]:
        key = (axis, start, cells, blended)
        if key not in self._known:
            self._known[key] = self._made(*key)
        return self._known[key]

    def _made(self, axis: int, start: int, cells: int, blended: bool) -> tuple[slice, Floats]:
        scene, part, step = self._scene, self._scene.box[axis], self._step[axis]
        inner = axis - (len(self._step) - scene.dims)  # negative along the slices of a 2D model
        edge, padded = (1, 1) if inner < 0 else (scene.window[inner], scene.padded[inner])
        voxels = np.arange(max(start, part.start), min(start + edge, part.stop))
        onto = (voxels - part.start) // step
        within = np.minimum(step, part.stop - part.start - onto * step)  # voxels of a cell; the last may have fewer
        share = scene.shares[inner][start][voxels - start] if blended and inner >= 0 else np.ones(len(voxels))
        first, last = int(onto[0]), int(onto[-1])
        matrix = np.zeros((last + 1 - first, cells), dtype=np.float32)
        np.add.at(matrix, (onto - first, (voxels - start) * cells // padded), share / within)
        return slice(first, last + 1), matrix


def cells_over(scene: Scene, step: Sequence[int]) -> tuple[int, ...]:
    """How many cells of `step` voxels cover what is looked at."""
    return tuple(-(-(part.stop - part.start) // size) for part, size in zip(scene.box, step, strict=True))


def fitting_steps(
    scene: Scene, grids: Sequence[tuple[int, ...]], heads: Sequence[int], *, budget: int
) -> list[tuple[int, ...]]:
    """Voxels of a cell for the maps of several sources, so that together they fit into a budget of bytes.

    One voxel if possible; then up to the size that the cells of each source have anyway; then more.
    """
    extra = (1,) * (len(scene.shape) - scene.dims)
    natural = [
        (*extra, *(max(1, size // cells) for size, cells in zip(scene.padded, grid, strict=True))) for grid in grids
    ]
    largest = max((max(cells) for cells in natural), default=1)
    power = 1
    while True:
        if power <= largest:
            steps = [tuple(min(power, cell) for cell in cells) for cells in natural]
        else:
            steps = [tuple(max(cell, power * cell // largest) for cell in cells) for cells in natural]
            steps = [
                tuple(min(step, part.stop - part.start) for step, part in zip(cells, scene.box, strict=True))
                for cells in steps
            ]
        sizes = [np.prod(cells_over(scene, step), dtype=np.int64) for step in steps]
        total = 4 * sum(int(size) * count for size, count in zip(sizes, heads, strict=True))
        if total <= budget or all(size == 1 for size in sizes):
            return steps
        power *= 2
