"""Structures by the intensities of the image: within a region, or inside a line of equal grey."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from skimage.draw import polygon2mask
from skimage.measure import find_contours

from napari_medt.core import BadEdit
from napari_medt.core.boxes import Box
from napari_medt.core.volume import Array
from napari_medt.editing.checks import check_axis, check_image, check_label, check_point, check_range, structure_box
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import in_range, read


def threshold(
    labels: Array,
    value: int,
    image: Array,
    *,
    within: int | Box,
    low: float = -math.inf,
    high: float = math.inf,
) -> Edit:
    """Mark the voxels of a region whose intensity lies in a range.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    value
        Label of the structure that is marked.
    image
        Of the mask's shape.
    within
        The region: the label of a structure, or a box. With `value` itself, what is outside the range leaves it.
    low, high
        Range of intensities, both included.

    Raises
    ------
    BadEdit
        If image, region or range do not fit, or nothing in the region lies in the range.
    NothingToChange
        If all of that has the label already.

    Examples
    --------
    >>> import numpy as np
    >>> labels, image = np.array([[1, 1, 1, 0]], np.uint8), np.array([[10, 50, 90, 90]])
    >>> threshold(labels, 2, image, within=1, low=60).box
    (slice(0, 1, None), slice(2, 3, None))
    """
    check_label(labels, value)
    check_image(labels, image)
    check_range(low, high)
    if isinstance(within, tuple):
        box = tuple(slice(*part.indices(size)[:2]) for part, size in zip(within, labels.shape, strict=True))
        before = read(labels, box)
        region = np.ones(before.shape, bool)
        structures = {value}
    else:
        box = structure_box(labels, (within,))
        before = read(labels, box)
        region = before == within
        structures = {value, within}
    found = in_range(read(image, box), low, high)
    if not (region & found).any():
        raise BadEdit(f"Nothing in this region has an intensity of {low:g} to {high:g}", remedy="widen the range")
    after = before.copy()
    if within == value:
        after[region & ~found] = 0
    else:
        after[region & found] = value
    return make_edit("threshold", structures, box, before, after, unchanged="All of this has the label already")


def trace_level(labels: Array, value: int, image: Array, point: Sequence[int], *, axis: int = 0) -> Edit:
    """Fill the closed line of equal grey that goes through a point of a slice.

    Parameters
    ----------
    labels, value, image
        As for `threshold`.
    point
        Index of a voxel on the edge that is meant.
    axis
        Of a volume, along which its slices lie.

    Raises
    ------
    BadEdit
        If image or point do not fit, or no closed line goes through the point.
    NothingToChange
        If all that it encloses has the label already.
    """
    check_label(labels, value)
    check_image(labels, image)
    index = check_point(labels, point)
    box = tuple(slice(0, size) for size in labels.shape)
    if labels.ndim == 3:
        check_axis(labels, axis)
        box = (*box[:axis], slice(index[axis], index[axis] + 1), *box[axis + 1 :])
        index = (*index[:axis], *index[axis + 1 :])
    grey = read(image, box).reshape(
        [part.stop - part.start for i, part in enumerate(box) if i != axis or labels.ndim == 2]
    )
    lines = [
        outline
        for outline in find_contours(grey.astype(float, copy=False), float(grey[index]))
        if np.array_equal(outline[0], outline[-1]) and np.abs(outline - index).max(axis=1).min() <= 1
    ]
    if not lines:
        raise BadEdit("No closed line of equal grey goes through this point", remedy="click on the edge of a structure")
    nearest = min(lines, key=lambda outline: float(np.square(outline - index).sum(axis=1).min()))
    inside = polygon2mask(grey.shape, nearest)
    before = read(labels, box)
    after = before.copy()
    after[inside.reshape(before.shape)] = value
    return make_edit("level tracing", (value,), box, before, after, unchanged="All of this has the label already")
