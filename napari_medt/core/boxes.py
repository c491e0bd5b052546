"""Boxes of arrays."""

from __future__ import annotations

import numpy as np

from napari_medt.core.volume import Array

Box = tuple[slice, ...]


def bounding_box(mask: Array) -> Box | None:
    """Return the smallest box outside which nothing is true; `None` when nothing is."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        # What was found along the axes before makes the next searches smaller.
        part = mask[tuple(box)]
        places = np.flatnonzero(part.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(places):
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)
