"""Islands: the pieces of a structure that touch each other nowhere, not even at a corner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_medt.core import BadEdit
from napari_medt.core.volume import Array
from napari_medt.editing.checks import (
    Spacing,
    check_label,
    check_left,
    check_length,
    check_point,
    spacing_mm,
    structure_box,
)
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import pieces, read, sizes_of

_MM3_PER_ML = 1000.0


def keep_largest(labels: Array, value: int) -> Edit:
    """Remove all islands of a structure but the largest.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    value
        Label of the structure.

    Raises
    ------
    BadEdit
        If the structure is not there.
    NothingToChange
        If it is in one piece.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.array([[1, 0, 1, 1]], np.uint8)
    >>> keep_largest(labels, 1).box
    (slice(0, 1, None), slice(0, 1, None))
    """
    box = structure_box(labels, (value,))
    before = read(labels, box)
    mask = before == value
    islands = pieces(mask, corners=True)
    after = before.copy()
    after[mask & (islands != np.argmax(sizes_of(islands)))] = 0
    return make_edit("keep largest", (value,), box, before, after, unchanged=f"Label {value} is in one piece")


def remove_islands(labels: Array, value: int, *, smaller_than: float, spacing: Spacing) -> Edit:
    """Remove the islands of a structure that are smaller than a volume, or in a picture than an area.

    Parameters
    ----------
    labels, value
        As for `keep_largest`.
    smaller_than
        In ml; for a mask of two axes in mm².
    spacing
        Geometry, or spacing in mm.

    Raises
    ------
    BadEdit
        If the structure is not there, has no size in mm, or would vanish.
    NothingToChange
        If no island is so small.
    """
    steps = spacing_mm(spacing, labels.ndim)
    check_length(smaller_than, "The size below which islands are removed")
    box = structure_box(labels, (value,))
    before = read(labels, box)
    mask = before == value
    most = smaller_than * (_MM3_PER_ML if labels.ndim == 3 else 1) / np.prod(steps)
    islands = pieces(mask, corners=True)
    # An island of exactly that size stays, however it was rounded.
    kept = mask & (sizes_of(islands) >= most * (1 - 1e-9))[islands]
    check_left(kept, value, f"Removing islands under {smaller_than:g} {'ml' if labels.ndim == 3 else 'mm²'}")
    after = before.copy()
    after[mask & ~kept] = 0
    return make_edit("remove islands", (value,), box, before, after, unchanged=f"Label {value} has no island so small")


def change_island(labels: Array, point: Sequence[int], *, to: int = 0) -> Edit:
    """Remove the island at a point, or give it another label.

    Parameters
    ----------
    labels
        As for `keep_largest`.
    point
        Index of a voxel of the island.
    to
        Its new label, 0 to remove it.

    Raises
    ------
    BadEdit
        If there is no structure at the point, or the mask cannot hold the label.
    NothingToChange
        If it has that label.
    """
    if to:
        check_label(labels, to)
    value, box, before, island = _island_at(labels, point)
    after = before.copy()
    after[island] = to
    name, structures = ("relabel island", (value, to)) if to else ("remove island", (value,))
    return make_edit(name, structures, box, before, after, unchanged=f"This island is of label {to} already")


def keep_island(labels: Array, point: Sequence[int]) -> Edit:
    """Remove all islands of the structure at a point but the one there; parameters and errors as for `change_island`."""
    value, box, before, island = _island_at(labels, point)
    after = before.copy()
    after[(before == value) & ~island] = 0
    return make_edit("keep island", (value,), box, before, after, unchanged=f"Label {value} is in one piece")


def _island_at(labels: Array, point: Sequence[int]) -> tuple[int, tuple[slice, ...], Array, Array]:
    index = check_point(labels, point)
    value = int(read(labels, tuple(slice(i, i + 1) for i in index)).item())
    if value == 0:
        raise BadEdit("There is no structure at this point", remedy="click on one")
    box = structure_box(labels, (value,))
    before = read(labels, box)
    islands = pieces(before == value, corners=True)
    clicked = islands[tuple(i - part.start for i, part in zip(index, box, strict=True))]
    return value, box, before, np.asarray(islands == clicked)
