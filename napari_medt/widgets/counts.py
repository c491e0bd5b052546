"""How many voxels each structure has, kept up with every change; only the thread for file work counts."""

from __future__ import annotations

import numpy as np

_AT_ONCE = 4_000_000


class Counts:
    """Voxels of each label of one mask; the background is not counted."""

    def __init__(self) -> None:
        self._voxels: dict[int, int] = {}

    def start(self, labels: np.ndarray) -> dict[int, int]:
        """Count a whole mask, and return voxels by label."""
        self._voxels = {}
        self._add(labels, 1)
        return self.present()

    def change(self, before: np.ndarray, after: np.ndarray) -> dict[int, int]:
        """Follow a change of a part of the mask, and return voxels by label."""
        self._add(before, -1)
        self._add(after, 1)
        return self.present()

    def present(self) -> dict[int, int]:
        """Return voxels by label, in the order of the labels; without those that are not in the mask."""
        return {label: self._voxels[label] for label in sorted(self._voxels) if label and self._voxels[label]}

    def _add(self, labels: np.ndarray, sign: int) -> None:
        flat = labels.reshape(-1)
        for start in range(0, flat.size, _AT_ONCE):
            for label, count in _count(flat[start : start + _AT_ONCE]):
                self._voxels[label] = self._voxels.get(label, 0) + sign * count


def _count(labels: np.ndarray) -> list[tuple[int, int]]:
    if labels.dtype.itemsize <= 2 and labels.dtype.kind in "bu":  # much quicker than sorting
        voxels = np.bincount(labels)
        found = np.flatnonzero(voxels)
        return list(zip(found.tolist(), voxels[found].tolist(), strict=True))
    found, voxels = np.unique(labels, return_counts=True)
    return list(zip(found.tolist(), voxels.tolist(), strict=True))
