"""Holes: background that a structure encloses."""

from __future__ import annotations

import numpy as np

from napari_medt.core.volume import Array
from napari_medt.editing.checks import check_axis, structure_box
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import pieces, read


def fill_holes(labels: Array, value: int, *, axis: int | None = None) -> Edit:
    """Fill the background that a structure encloses; other structures inside it stay.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    value
        Label of the structure.
    axis
        Along which to look at each slice on its own, which also fills what is open towards the slices beside it.
        By default a hole must be closed in all directions.

    Raises
    ------
    BadEdit
        If the structure or the axis is not there.
    NothingToChange
        If there is no hole.

    Examples
    --------
    >>> import numpy as np
    >>> ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    >>> fill_holes(ring, 1).voxels
    1
    """
    if axis is not None:
        check_axis(labels, axis)
    box = structure_box(labels, (value,))
    before = read(labels, box)
    after = before.copy()
    if axis is None:
        after[_enclosed(before == value) & (before == 0)] = value
    else:
        for old, new in zip(np.moveaxis(before, axis, 0), np.moveaxis(after, axis, 0), strict=True):
            new[_enclosed(old == value) & (old == 0)] = value
    return make_edit("fill holes", (value,), box, before, after, unchanged=f"Label {value} has no holes")


def _enclosed(mask: Array) -> Array:
    """Say what is cut off from a rim that is laid around the mask."""
    rim = np.pad(~mask, 1, constant_values=True)
    numbered = pieces(rim, corners=False)  # a hole does not leak through a corner
    inside = numbered[(slice(1, -1),) * mask.ndim]
    return np.asarray((inside != numbered.flat[0]) & ~mask)
