"""Drawing on few slices: what lies between them is filled in, or a slice is copied to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.ndimage import center_of_mass, shift

from napari_medt.core import BadEdit, NothingToChange
from napari_medt.core.volume import Array
from napari_medt.editing.checks import Spacing, check_axis, check_label, spacing_mm, structure_box
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import among, distance_to_false, read


def fill_between(labels: Array, values: Sequence[int], *, axis: int, spacing: Spacing) -> Edit:
    """Fill the empty slices between those on which structures were drawn.

    Between two slices the signed distance to the outline, in mm, changes evenly (Raya and Udupa 1990), and each voxel goes
    to the structure it lies deepest in. Structures with the same gap are filled jointly, so that none arises between
    them. Where the two outlines of a structure have no point in common, they are moved onto each other's centre on the way.

    Parameters
    ----------
    labels
        `(z, y, x)`, whole numbers. The slices that were drawn stay as they are.
    values
        Labels of the structures.
    axis
        Along which the slices lie.
    spacing
        Geometry, or spacing in mm; slices are taken to be equally far from each other.

    Raises
    ------
    BadEdit
        If the mask is no volume, has no size in mm, or none of the structures is there.
    NothingToChange
        If no structure has an empty slice between two drawn ones.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((3, 1, 7), np.uint8)
    >>> labels[0, 0, 3], labels[2, 0, 1:6] = 1, 1
    >>> fill_between(labels, [1], axis=0, spacing=(5, 1, 1)).after.tolist()
    [[[1, 1, 1]]]
    """
    check_axis(labels, axis)
    steps = spacing_mm(spacing, labels.ndim)
    in_plane = (*steps[:axis], *steps[axis + 1 :])
    box = structure_box(labels, values, margin=[int(other != axis) for other in range(3)])
    before = read(labels, box)
    after = before.copy()
    drawn, filled = np.moveaxis(before, axis, 0), np.moveaxis(after, axis, 0)
    gaps = _gaps(drawn, values)
    if not gaps:
        raise NothingToChange("There is no empty slice between two drawn ones")
    for (first, last), group in sorted(gaps.items(), key=lambda gap: gap[0][1] - gap[0][0]):
        between = _Between([(drawn[first] == value, drawn[last] == value) for value in group], in_plane)
        for index in range(first + 1, last):
            inside, nearest = between.at((index - first) / (last - first))
            inside &= ~among(filled[index], values)
            filled[index][inside] = np.asarray(group, before.dtype)[nearest[inside]]
    return make_edit("fill between slices", values, box, before, after, unchanged="All slices between are full")


def copy_slice(labels: Array, values: Sequence[int], *, axis: int, index: int, to: int) -> Edit:
    """Make structures on one slice what they are on another.

    Parameters
    ----------
    labels
        `(z, y, x)`, whole numbers.
    values
        Labels of the structures.
    axis
        Along which the slices lie.
    index, to
        Of the slice that is copied, and of the one that changes.

    Raises
    ------
    BadEdit
        If the mask is no volume, a slice is not in it, or none of the structures is on the first.
    NothingToChange
        If both are equal.
    """
    check_axis(labels, axis)
    for place in (index, to):
        if not 0 <= place < labels.shape[axis]:
            raise BadEdit(f"There is no slice {place}: along this axis they are 0 to {labels.shape[axis] - 1}")
    boxes = [
        tuple(slice(i, i + 1) if other == axis else slice(0, size) for other, size in enumerate(labels.shape))
        for i in (index, to)
    ]
    source, before = (read(labels, box) for box in boxes)
    for value in values:
        check_label(labels, value)
    copied = among(source, values)
    if not copied.any():
        raise BadEdit(f"There is nothing to copy on slice {index}", remedy="go to a slice where the structure is")
    after = before.copy()
    after[among(before, values)] = 0
    after[copied] = source[copied]
    return make_edit("copy slice", values, boxes[1], before, after, unchanged="Both slices are equal")


def _gaps(drawn: Array, values: Sequence[int]) -> dict[tuple[int, int], list[int]]:
    """Return the structures to fill between each two slices."""
    gaps: dict[tuple[int, int], list[int]] = {}
    for value in values:
        there = np.flatnonzero([(plane == value).any() for plane in drawn])
        for first, last in pairwise(there.tolist()):
            if last - first > 1:
                gaps.setdefault((first, last), []).append(value)
    return gaps


class _Between:
    """Structures on two slices, and what they are on the way from one to the other."""

    def __init__(self, pairs: list[tuple[Array, Array]], steps: Sequence[float]) -> None:
        self._ways = [_Way(first, last, steps) for first, last in pairs]
        together = [np.logical_or.reduce(sides) for sides in zip(*pairs, strict=True)]
        self._union = _Way(together[0], together[1], steps) if len(pairs) > 1 else None

    def at(self, share: float) -> tuple[Array, Array]:
        """Return what lies inside at a share of the way, and the number of the structure it lies deepest in."""
        depths = np.stack([way.at(share) for way in self._ways])
        inside = depths.max(axis=0) >= 0
        if self._union is not None:  # where two structures meet, rounding must leave no gap
            inside |= self._union.at(share) >= 0
        return inside, depths.argmax(axis=0)


class _Way:
    """One outline on its way to another, as signed distances, positive inside."""

    def __init__(self, first: Array, last: Array, steps: Sequence[float]) -> None:
        self._ends = [_signed(mask, steps) for mask in (first, last)]
        self._move: Array | None = None
        if not (first & last).any():
            self._move = np.subtract(center_of_mass(last), center_of_mass(first))

    def at(self, share: float) -> Array:
        first, last = self._ends
        if self._move is not None:
            first = shift(first, share * self._move, order=1, mode="nearest")
            last = shift(last, (share - 1) * self._move, order=1, mode="nearest")
        return np.asarray((1 - share) * first + share * last)


def _signed(mask: Array, steps: Sequence[float]) -> Array:
    farthest = sum(step * size for step, size in zip(steps, mask.shape, strict=True))
    return np.asarray(np.minimum(distance_to_false(mask, steps), farthest) - distance_to_false(~mask, steps))
