"""Which slices of a scan were looked at, along each of its axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class SlicesSeen:
    """Slices that were on the screen.

    Parameters
    ----------
    shape
        Of the image, `(z, y, x)`; a picture `(y, x)` is one slice.

    Examples
    --------
    >>> seen = SlicesSeen((10, 4, 4))
    >>> for index in (0, 1, 2, 7):
    ...     seen.mark("z", index)
    >>> seen.share["z"], seen.facts()["z"]["seen"]
    (0.4, '0-2, 7')
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._seen = {"z": np.zeros(1, bool)} if len(shape) == 2 else {}
        self._seen |= {axis: np.zeros(size, bool) for axis, size in zip("zyx", shape, strict=False) if len(shape) == 3}

    def mark(self, axis: str, index: int) -> None:
        """Note that the slice `index` across an axis, `"z"`, `"y"` or `"x"`, is on the screen; others are passed over."""
        if axis in self._seen and 0 <= index < len(self._seen[axis]):
            self._seen[axis][index] = True

    @property
    def share(self) -> dict[str, float]:
        """Share of the slices across each axis that were seen, 0 to 1."""
        return {axis: float(seen.mean()) for axis, seen in self._seen.items()}

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what was seen, as a log keeps it: ranges of slices, their number, and the share."""
        return {
            axis: {"seen": _ranges(seen), "of": len(seen), "share": round(float(seen.mean()), 4)}
            for axis, seen in self._seen.items()
        }

    def add(self, facts: Mapping[str, Any]) -> None:
        """Take in what `facts` returned earlier; axes of another length are passed over."""
        for axis, seen in self._seen.items():
            told = facts.get(axis, {})
            if told.get("of") == len(seen):
                for part in filter(None, str(told.get("seen", "")).split(", ")):
                    first, _, last = part.partition("-")
                    seen[int(first) : int(last or first) + 1] = True


def _ranges(seen: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    edges = np.flatnonzero(np.diff(np.pad(seen, 1).astype(np.int8))).reshape(-1, 2)
    return ", ".join(f"{first}-{stop - 1}" if stop - first > 1 else f"{first}" for first, stop in edges)
