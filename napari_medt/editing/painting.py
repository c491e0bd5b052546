"""Painting with a round brush of a size in mm, everywhere or only on some intensities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadEdit
from napari_medt.core.boxes import Box
from napari_medt.core.volume import Array
from napari_medt.editing.checks import (
    Spacing,
    check_axis,
    check_image,
    check_label,
    check_length,
    check_range,
    spacing_mm,
)
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import ROUNDING, around, in_range, read


def brush(
    labels: Array,
    stroke: npt.ArrayLike,
    value: int,
    *,
    radius_mm: float,
    spacing: Spacing,
    axis: int | None = None,
    image: Array | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Edit:
    """Paint every voxel whose centre is no farther than a radius from a stroke.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    stroke
        `(n, axes)`: points that the brush went through in straight lines, as indices, which may lie between voxels.
    value
        Label to paint; 0 erases.
    radius_mm
        Of the brush: a ball in a volume, a disc in a picture.
    spacing
        Geometry, or spacing in mm.
    axis
        Paint a disc only on the slice of the first point along this axis of a volume.
    image
        Of the mask's shape; then only voxels between `low` and `high` in it, both included, are painted.

    Raises
    ------
    BadEdit
        If the stroke, the image or the range do not fit the mask, which may have no size in mm.
    NothingToChange
        If all that is under the brush has that label already, or is of other intensity.

    Examples
    --------
    >>> import numpy as np
    >>> brush(np.zeros((3, 5), np.uint8), [(1, 2)], 1, radius_mm=1, spacing=(1, 1)).after.tolist()
    [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    check_label(labels, value or 1)
    check_length(radius_mm, "The radius of the brush")
    check_range(low, high)
    steps = spacing_mm(spacing, labels.ndim)
    points = np.atleast_2d(np.asarray(stroke, float))
    if points.shape[1:] != (labels.ndim,) or not len(points) or not np.isfinite(points).all():
        raise BadEdit(f"A stroke takes points of {labels.ndim} numbers, not an array of shape {points.shape}")
    if axis is not None:
        check_axis(labels, axis)
        points[:, axis] = round(points[0, axis])
    pieces = [
        piece
        for first, last in zip(points[: max(1, len(points) - 1)], points[-len(points) + 1 :], strict=True)
        if (piece := _piece(first, last, radius_mm, steps, labels.shape, axis)) is not None
    ]
    if not pieces:
        raise BadEdit("The brush lies outside the image", remedy="paint on the image")
    box = around([place for place, _ in pieces])
    inside = np.zeros([part.stop - part.start for part in box], bool)
    for place, painted in pieces:
        inside[_within(place, box)] |= painted
    if image is not None:
        check_image(labels, image)
        inside &= in_range(read(image, box), low, high)
    before = read(labels, box)
    after = before.copy()
    after[inside] = value
    structures = (value,) if value else np.unique(before[inside & (before != 0)]).tolist()
    return make_edit(
        "brush" if value else "erase", structures, box, before, after, unchanged="There is nothing to paint here"
    )


def _piece(
    first: Array, last: Array, radius: float, steps: Sequence[float], shape: Sequence[int], axis: int | None
) -> tuple[Box, Array] | None:
    """Return the box and the voxels of a straight piece of a stroke; `None` outside the image."""
    box = []
    for i, (step, size) in enumerate(zip(steps, shape, strict=True)):
        reach = 0 if i == axis else radius * (1 + ROUNDING) / step
        low, high = min(first[i], last[i]) - reach, max(first[i], last[i]) + reach
        start, stop = max(0, math.ceil(low)), min(size, math.floor(high) + 1)
        if start >= stop:
            return None
        box.append(slice(start, stop))
    grid = np.ogrid[tuple(box)]
    from_first = [(place - start) * step for place, start, step in zip(grid, first, steps, strict=True)]
    way = (last - first) * steps
    length_squared = float(way @ way)
    share: Array | float = 0.0
    if length_squared:
        along = sum(part * component for part, component in zip(from_first, way, strict=True))
        share = np.clip(along / length_squared, 0, 1)
    squared = sum((part - share * component) ** 2 for part, component in zip(from_first, way, strict=True))
    return tuple(box), np.asarray(squared <= (radius * (1 + ROUNDING)) ** 2)


def _within(part: Box, whole: Box) -> Box:
    """Return a box as an index into the values of a larger one."""
    return tuple(
        slice(inner.start - outer.start, inner.stop - outer.start) for inner, outer in zip(part, whole, strict=True)
    )
