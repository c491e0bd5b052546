"""Where windows lie, how their edges are filled, and how their results are blended."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


MANY = 1000  # windows; where there are more, they overlap less


def plan_windows(
    shape: Sequence[int], window: Sequence[int], *, overlap: float | None = None
) -> list[tuple[slice, ...]]:
    """Lay windows over an array so that every sample is covered, row by row.

    Parameters
    ----------
    shape
        Spatial shape of the array.
    window
        Shape of a window, same axes. Where the array is smaller, the slice ends at the array's border and the window is to be
        filled with `pad_to_window`.
    overlap
        Share of a window that neighbours have in common, in [0, 1); the last window is shifted back to end at the border. By
        default 0.5, and 0.25 where that would be more than a thousand windows, which then take half the time.

    Returns
    -------
    list of tuple of slice
        With explicit start and stop.

    Examples
    --------
    >>> plan_windows((100,), (64,))
    [(slice(0, 64, None),), (slice(32, 96, None),), (slice(36, 100, None),)]
    """
    if overlap is None:
        windows = plan_windows(shape, window, overlap=0.5)
        return windows if len(windows) <= MANY else plan_windows(shape, window, overlap=0.25)
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, not {overlap}")
    starts = []
    for size, edge in zip(shape, window, strict=True):
        last = max(size - edge, 0)
        step = max(1, round(edge * (1 - overlap)))
        starts.append([*range(0, last, step), last])
    return [
        tuple(slice(a, min(a + edge, size)) for a, edge, size in zip(corner, window, shape, strict=True))
        for corner in product(*starts)
    ]


def pad_to_window(array: Floats, window: Sequence[int]) -> Floats:
    """Fill `(c, *spatial)` up to the window at the far ends: by reflection, by repetition where that is too short."""
    missing = [max(0, edge - size) for edge, size in zip(window, array.shape[1:], strict=True)]
    if not any(missing):
        return array
    reflect = [min(m, size - 1) for m, size in zip(missing, array.shape[1:], strict=True)]
    array = np.pad(array, [(0, 0), *((0, r) for r in reflect)], mode="reflect")
    return np.pad(array, [(0, 0), *((0, m - r) for m, r in zip(missing, reflect, strict=True))], mode="edge")


def blend_weights(window: Sequence[int]) -> Floats:
    """Gaussian weight of every sample of a window, 1 at the centre, an eighth of the edge as its width, never zero."""
    weights = np.ones(tuple(window), dtype=np.float32)
    for axis, edge in enumerate(window):
        distance = (np.arange(edge) - (edge - 1) / 2) / (edge / 8)
        profile = np.maximum(np.exp(-0.5 * distance**2), 1e-3).astype(np.float32)
        weights *= profile.reshape([-1 if a == axis else 1 for a in range(len(window))])
    return weights
