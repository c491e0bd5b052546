"""Margins: structures that grow, shrink or become a shell, by true distances in mm.

The distance is that between the centres of voxels, computed exactly (Felzenszwalb and Huttenlocher 2012). Beyond the edge of
the image nothing is assumed: a structure that is cut by it does not shrink there.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from napari_medt.core.volume import Array
from napari_medt.editing.checks import Spacing, check_left, check_length, no_change, spacing_mm, structure_box
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import ROUNDING, by_slabs, distance_to_false, read, voxels_within


def grow(labels: Array, value: int, *, margin_mm: float, spacing: Spacing) -> Edit:
    """Add a margin around a structure.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    value
        Label of the structure.
    margin_mm
        Every voxel whose centre is no farther than this from the centre of one of the structure joins it.
    spacing
        Geometry, or spacing in mm.

    Raises
    ------
    BadEdit
        If the structure is not there or has no size in mm.
    NothingToChange
        If the margin is less than a voxel, or the structure fills the image.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.array([[0, 0, 1, 0, 0]], np.uint8)
    >>> grow(labels, 1, margin_mm=1, spacing=(1, 0.5)).after.tolist()
    [[1, 1, 1, 1, 1]]
    """
    box, before, reached = _reach(labels, value, margin_mm, spacing, outwards=True)
    after = before.copy()
    after[reached] = value
    return make_edit("grow", (value,), box, before, after, unchanged=no_change("grow", value).what)


def shrink(labels: Array, value: int, *, margin_mm: float, spacing: Spacing) -> Edit:
    """Take a margin off a structure: the voxels whose centre is no farther than `margin_mm` from one outside.

    Parameters and errors are those of `grow`; a structure that would vanish is a `BadEdit`.
    """
    box, before, reached = _reach(labels, value, margin_mm, spacing, outwards=False)
    after = before.copy()
    after[reached] = 0
    check_left(after == value, value, f"A margin of {margin_mm:g} mm")
    return make_edit("shrink", (value,), box, before, after, unchanged=no_change("shrink", value).what)


def hollow(
    labels: Array,
    value: int,
    *,
    thickness_mm: float,
    spacing: Spacing,
    shell: Literal["inside", "middle", "outside"] = "inside",
) -> Edit:
    """Leave only the shell of a structure.

    Parameters
    ----------
    labels, value, spacing
        As for `grow`.
    thickness_mm
        Of the shell.
    shell
        Where it lies: within the structure's present surface, on both sides of it, or around it.

    Raises
    ------
    BadEdit
        If the structure is not there, has no size in mm, or no voxel is so near to its surface.
    NothingToChange
        If the structure is no thicker than the shell.
    """
    check_length(thickness_mm, "The thickness")
    share = {"inside": (0.0, 1.0), "middle": (0.5, 0.5), "outside": (1.0, 0.0)}[shell]
    steps = spacing_mm(spacing, labels.ndim)
    widest = voxels_within(thickness_mm * share[0], steps)
    box = structure_box(labels, (value,), margin=[reach + 1 for reach in widest])
    before = read(labels, box)
    outer, inner = (thickness_mm * part * (1 + ROUNDING) for part in share)

    def near_surface(block: Array) -> Array:
        mask = block == value
        near = np.zeros(mask.shape, bool)
        if outer:
            near |= ~mask & (distance_to_false(~mask, steps) <= outer)
        if inner:
            near |= mask & (distance_to_false(mask, steps) <= inner)
        return near

    kept = by_slabs(near_surface, before, [reach + 1 for reach in voxels_within(thickness_mm, steps)])
    check_left(kept, value, f"A shell of {thickness_mm:g} mm")
    after = before.copy()
    after[before == value] = 0
    after[kept] = value
    return make_edit(
        "hollow", (value,), box, before, after, unchanged=f"Label {value} is nowhere thicker than the shell"
    )


def _reach(
    labels: Array, value: int, margin_mm: float, spacing: Spacing, *, outwards: bool
) -> tuple[tuple[slice, ...], Array, Array]:
    """Return a box, its values, and what lies within the margin on one side of the structure's surface."""
    check_length(margin_mm, "The margin")
    steps = spacing_mm(spacing, labels.ndim)
    reach = voxels_within(margin_mm, steps)
    # One voxel more, so that what is outside of the structure is seen.
    box = structure_box(labels, (value,), margin=reach if outwards else [1] * labels.ndim)
    before = read(labels, box)

    def near(block: Array) -> Array:
        side = (block != value) if outwards else (block == value)
        return np.asarray(side & (distance_to_false(side, steps) <= margin_mm * (1 + ROUNDING)))

    return box, before, by_slabs(near, before, [voxels + 1 for voxels in reach])
