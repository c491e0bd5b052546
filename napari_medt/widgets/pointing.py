"""Where in a layer the mouse points, in 2D, in any plane of a volume and in 3D, and whether a press was a click."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

STILL_PX = 5.0
"""A click may tremble by so many pixels of the canvas before it is a drag."""

Point = tuple[float, ...]
Voxels = npt.NDArray[np.intp]


def held_still(event: Any) -> Generator[None, None, bool]:
    """Follow a press until the button is let go, for `yield from`; return whether it was a click and not a drag."""
    began = np.asarray(event.pos if event.pos is not None else (0, 0), dtype=float)

    def near() -> bool:
        return event.pos is None or bool(np.abs(np.asarray(event.pos) - began).max() <= STILL_PX)

    still = True
    yield
    while event.type == "mouse_move":
        still &= near()
        yield
    return still and near()


def place_at(
    layer: Any, shape: Sequence[int], world: Sequence[float], *, displayed: Sequence[int] = ()
) -> Point | None:
    """Return the array index under a position of the world, between voxels along the axes that are displayed.

    Parameters
    ----------
    layer, shape
        The layer, and the shape of its grid.
    world
        In the viewer's axes, of which the last are those of the layer.
    displayed
        Of them, those that are seen.

    Returns
    -------
    tuple of float or None
        `None` beside the layer.
    """
    place = np.asarray(layer.world_to_data(world), dtype=float)
    seen = {axis - (len(world) - layer.ndim) for axis in displayed}
    hidden = [axis for axis in range(layer.ndim) if axis not in seen]
    place[hidden] = np.rint(place[hidden])
    last = np.asarray(shape) - 1
    if (place < -0.5).any() or (place > last + 0.5).any():
        return None
    return tuple(float(part) for part in place.clip(0, last))


def line_of_sight(
    layer: Any, shape: Sequence[int], world: Sequence[float], direction: Sequence[float], displayed: Sequence[int]
) -> Voxels | None:
    """Return the voxels `(k, 3)` of a volume shown in 3D that lie behind the pointer, the nearest first; `None` beside it."""
    first, last = layer.get_ray_intersections(world, direction, list(displayed))
    if first is None or last is None:
        return None
    steps = int(2 * np.abs(np.subtract(last, first)).max()) + 2
    return np.rint(np.linspace(first, last, steps)).astype(np.intp).clip(0, np.asarray(shape) - 1)


def first_seen(labels: npt.NDArray[Any], line: Voxels) -> tuple[int, ...] | None:
    """Return the first voxel of a structure on a line of sight."""
    hit = np.flatnonzero(labels[tuple(line.T)])
    return tuple(int(i) for i in line[hit[0]]) if hit.size else None


def brightest(layer: Any, line: Voxels) -> tuple[int, ...]:
    """Return the voxel on a line of sight that a maximum projection shows; of a picture shown otherwise, the one half way."""
    at = len(line) // 2
    if isinstance(layer.data, np.ndarray) and str(layer.rendering) in ("mip", "attenuated_mip"):
        values = layer.data[tuple(line.T)]
        at = int(np.argmax(np.nan_to_num(values if values.ndim == 1 else values.sum(axis=1))))
    return tuple(int(i) for i in line[at])
