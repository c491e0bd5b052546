"""Where windows lie, how their edges are filled, and how their results are blended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Box = tuple[slice, ...]
Blending = Literal["smooth", "monai"]

MANY = 1000  # windows; where there are more, they overlap less
FAINTEST = 1e-3  # weight at the far edge of a window, so that none is zero


@dataclass(frozen=True)
class Layout:
    """Windows laid over an array: every combination of one start per axis.

    Attributes
    ----------
    shape
        Of the array, spatial axes.
    window
        Of a window, same axes.
    starts
        Ascending, axis by axis. Where the array is smaller than the window there is one, which may be negative.
    bands
        Starts along the first axis in the groups that are passed together.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    bands: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, shape: Sequence[int], window: Sequence[int], *, overlap: float | None = None, centred: bool = False
    ) -> Layout:
        """Lay windows so that every sample is covered; parameters as of `plan_windows`.

        With `centred`, an array that is smaller than the window lies in its middle, as MONAI has it, not at its start.
        """
        if overlap is None:
            layout = cls.of(shape, window, overlap=0.5, centred=centred)
            return layout if len(layout) <= MANY else cls.of(shape, window, overlap=0.25, centred=centred)
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must be at least 0 and below 1, not {overlap}")
        starts = []
        for size, edge in zip(shape, window, strict=True):
            if size <= edge:
                starts.append((-((edge - size) // 2) if centred else 0,))
            else:
                starts.append((*range(0, size - edge, max(1, int(edge * (1 - overlap)))), size - edge))
        return cls(tuple(shape), tuple(window), tuple(starts), _bands(starts[0], window[0]))

    def touching(self, box: Box) -> Layout:
        """Only the windows that reach into a box; what they say about it is what all of them say."""

        def near(starts: tuple[int, ...], axis: int) -> tuple[int, ...]:
            part, edge = box[axis], self.window[axis]
            return tuple(start for start in starts if start < part.stop and start + edge > part.start)

        kept = tuple(near(starts, axis) for axis, starts in enumerate(self.starts))
        return replace(self, starts=kept, bands=tuple(band for band in (near(b, 0) for b in self.bands) if band))

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    def __iter__(self) -> Iterator[Box]:
        """Windows in the order in which `Stitch` wants them; they may reach beyond a smaller array."""
        for band in self.bands:
            for rest in product(*self.starts[1:]):
                for first in band:
                    yield tuple(slice(a, a + edge) for a, edge in zip((first, *rest), self.window, strict=True))


def _bands(starts: tuple[int, ...], edge: int) -> tuple[tuple[int, ...], ...]:
    """The last two starts together where they are close, else each alone.

    The last is often moved back to end at the border, so that much of the last two rows of windows overlaps, and would have to
    be remembered. Passed together, they are remembered as one.
    """
    if len(starts) > 1:
        regular = starts[1] - starts[0] if len(starts) > 2 else edge
        if starts[-1] - starts[-2] < min(regular, edge // 2):
            return (*((start,) for start in starts[:-2]), starts[-2:])
    return tuple((start,) for start in starts)


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
    layout = Layout.of(shape, window, overlap=overlap)
    return [
        tuple(slice(a, min(a + edge, size)) for a, edge, size in zip(corner, window, shape, strict=True))
        for corner in product(*layout.starts)
    ]


def pad_to_window(array: Floats, window: Sequence[int]) -> Floats:
    """Fill `(c, *spatial)` up to the window at the far ends: by reflection, by repetition where that is too short."""
    missing = [max(0, edge - size) for edge, size in zip(window, array.shape[1:], strict=True)]
    if not any(missing):
        return array
    reflect = [min(m, size - 1) for m, size in zip(missing, array.shape[1:], strict=True)]
    array = np.pad(array, [(0, 0), *((0, r) for r in reflect)], mode="reflect")
    return np.pad(array, [(0, 0), *((0, m - r) for m, r in zip(missing, reflect, strict=True))], mode="edge")


def pad_with_zeros(array: Floats, window: Sequence[int]) -> Floats:
    """Fill `(c, *spatial)` up to the window on both sides with zeros, the odd one at the far end, as MONAI does."""
    missing = [max(0, edge - size) for edge, size in zip(window, array.shape[1:], strict=True)]
    return np.pad(array, [(0, 0), *((m // 2, m - m // 2) for m in missing)]) if any(missing) else array


def blend_profiles(window: Sequence[int]) -> list[Floats]:
    """Gaussian weights along each axis of a window, 1 at the centre, an eighth of the edge as its width, never zero."""
    profiles = []
    for edge in window:
        distance = (np.arange(edge) - (edge - 1) / 2) / (edge / 8)
        profiles.append(np.maximum(np.exp(-0.5 * distance**2), FAINTEST).astype(np.float32))
    return profiles


def blend_shares(layout: Layout) -> list[dict[int, Floats]]:
    """Weights along each axis by start of a window, divided by the sum over all windows.

    Their products are what every window adds to every sample; of all windows over one sample they sum to 1.
    """
    found = []
    for starts, edge, profile in zip(layout.starts, layout.window, blend_profiles(layout.window), strict=True):
        total = np.zeros(starts[-1] - starts[0] + edge, dtype=np.float32)
        for start in starts:
            total[start - starts[0] :][:edge] += profile
        found.append({start: profile / total[start - starts[0] :][:edge] for start in starts})
    return found


def blend_weights(window: Sequence[int], *, blending: Blending = "smooth") -> Floats:
    """Gaussian weight of every sample of a window.

    Parameters
    ----------
    window
        Its shape.
    blending
        `"smooth"`: the product of `blend_profiles`. `"monai"`: nothing below a thousandth, as MONAI has it; along the borders
        of an image, where every window is faint, windows then have equal weight up to their edges.
    """
    profiles = blend_profiles(window)
    if blending == "monai":
        profiles = [np.exp(-0.5 * (((np.arange(e) - (e - 1) / 2) / (e / 8)) ** 2)).astype(np.float32) for e in window]
    weights = np.ones((), dtype=np.float32)
    for profile in profiles:
        weights = weights[..., None] * profile
    return np.maximum(weights, max(float(weights.min()), FAINTEST)) if blending == "monai" else weights
