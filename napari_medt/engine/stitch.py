"""Blending overlapping windows without ever holding the whole image for every class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from napari_medt.engine.windows import blend_weights

Floats = npt.NDArray[np.float32]


class Stitch:
    """Blends windows that come row by row, and hands out rows that no later window reaches.

    Only the rows of windows in work are held: `classes x window height x width`.
    """

    def __init__(self, classes: int, shape: tuple[int, ...], window: tuple[int, ...]) -> None:
        self._shape, self._classes = shape, classes
        self._blend = blend_weights(window)
        self._first = 0  # first row that is held
        self._sum = np.zeros((classes, 0, *shape[1:]), dtype=np.float32)
        self._weight = np.zeros((0, *shape[1:]), dtype=np.float32)

    def add(self, where: tuple[slice, ...], values: Floats) -> Iterator[tuple[slice, Floats]]:
        """Add one window; yields `(rows, probabilities (k, rows, ...))` that are finished."""
        if where[0].start > self._first:
            yield from self._release(where[0].start)
        missing = where[0].stop - self._first - self._weight.shape[0]
        if missing > 0:
            self._sum = np.concatenate(
                (self._sum, np.zeros((self._classes, missing, *self._shape[1:]), np.float32)), axis=1
            )
            self._weight = np.concatenate((self._weight, np.zeros((missing, *self._shape[1:]), np.float32)))
        inside = tuple(slice(0, w.stop - w.start) for w in where)
        rows = slice(where[0].start - self._first, where[0].stop - self._first)
        blend = self._blend[inside]
        self._sum[(slice(None), rows, *where[1:])] += values[(slice(None), *inside)] * blend
        self._weight[(rows, *where[1:])] += blend

    def finish(self) -> Iterator[tuple[slice, Floats]]:
        """The rows that are left."""
        yield from self._release(self._shape[0])

    def _release(self, stop: int) -> Iterator[tuple[slice, Floats]]:
        count = min(stop - self._first, self._weight.shape[0])
        if count > 0:
            yield slice(self._first, self._first + count), self._sum[:, :count] / self._weight[:count]
            self._sum, self._weight = self._sum[:, count:], self._weight[count:]
            self._first += count
