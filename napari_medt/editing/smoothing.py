"""Smoother surfaces: one structure alone, or several together so that neither gaps nor overlaps arise between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

from napari_medt.core import NothingToChange
from napari_medt.core.boxes import bounding_box
from napari_medt.core.volume import Array
from napari_medt.editing.checks import Spacing, check_left, check_length, spacing_mm, structure_box
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import by_slabs, read, widened

_TRUNCATE = 4.0  # standard deviations after which the Gaussian ends


def smooth(labels: Array, value: int, *, sigma_mm: float, spacing: Spacing) -> Edit:
    """Smooth the surface of one structure by a Gaussian: what is then more than half inside belongs to it.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    value
        Label of the structure.
    sigma_mm
        Standard deviation; details thinner than about twice this vanish.
    spacing
        Geometry, or spacing in mm.

    Raises
    ------
    BadEdit
        If the structure is not there, has no size in mm, or would vanish.
    NothingToChange
        If it is as smooth.
    """
    return _smoothed("smooth", labels, (value,), sigma_mm, spacing)


def smooth_together(labels: Array, values: Sequence[int], *, sigma_mm: float, spacing: Spacing) -> Edit:
    """Smooth several structures: each voxel goes to the one, or the background, that has most of the Gaussian around it.

    Parameters
    ----------
    labels, sigma_mm, spacing
        As for `smooth`.
    values
        Labels of the structures.

    Raises
    ------
    BadEdit
        As for `smooth`; of several structures, none may vanish.
    NothingToChange
        If they are as smooth.
    """
    return _smoothed("smooth together", labels, tuple(values), sigma_mm, spacing)


def median(labels: Array, value: int, *, width_mm: float, spacing: Spacing) -> Edit:
    """Remove details of a structure's surface: each voxel becomes what most voxels of the cube around it are.

    Parameters
    ----------
    labels, value, spacing
        As for `smooth`.
    width_mm
        Of the cube, rounded to the nearest odd number of voxels along each axis.

    Raises
    ------
    BadEdit
        If the structure is not there, has no size in mm, or would vanish.
    NothingToChange
        If the cube is a single voxel, or nothing differs from what is around it.
    """
    check_length(width_mm, "The width")
    steps = spacing_mm(spacing, labels.ndim)
    size = [2 * round((width_mm / step - 1) / 2) + 1 if width_mm > step else 1 for step in steps]
    if max(size) == 1:
        raise NothingToChange(f"A cube of {width_mm:g} mm is a single voxel here")
    box = structure_box(labels, (value,), margin=[width // 2 for width in size])
    before = read(labels, box)

    def mostly(block: Array) -> Array:
        mask = (block == value).astype(np.float32)
        return np.asarray(uniform_filter(mask, size, mode="nearest") > 0.5)

    inside = by_slabs(mostly, before, [width // 2 for width in size])
    check_left(inside, value, f"A cube of {width_mm:g} mm")
    after = before.copy()
    after[before == value] = 0
    after[inside] = value
    return make_edit("median", (value,), box, before, after, unchanged=f"Label {value} is as smooth already")


def _smoothed(name: str, labels: Array, values: tuple[int, ...], sigma_mm: float, spacing: Spacing) -> Edit:
    check_length(sigma_mm, "The standard deviation")
    sigma = [sigma_mm / step for step in spacing_mm(spacing, labels.ndim)]
    reach = [int(_TRUNCATE * part + 0.5) for part in sigma]
    box = structure_box(labels, values, margin=reach)
    before = read(labels, box)
    after = by_slabs(lambda block: _winners(block, values, sigma, reach), before, reach)
    for value in values:
        if (before == value).any():
            check_left(after == value, value, f"Smoothing by {sigma_mm:g} mm")
    return make_edit(name, values, box, before, after, unchanged="They are as smooth already")


def _winners(block: Array, values: tuple[int, ...], sigma: Sequence[float], reach: Sequence[int]) -> Array:
    """Give each voxel to the structure with the most weight around it; background where that is what all leave over."""
    best = np.zeros(block.shape, np.float32)
    rest = np.ones(block.shape, np.float32)
    won = np.zeros(block.shape, block.dtype)
    after = block.copy()
    for value in values:
        mask = block == value
        there = bounding_box(mask)
        if there is None:
            continue
        after[mask] = 0
        place = widened(there, reach, block.shape)
        weight = gaussian_filter(mask[place], sigma, output=np.float32, mode="nearest", truncate=_TRUNCATE)
        rest[place] -= weight
        more = weight > best[place]
        best[place][more] = weight[more]
        won[place][more] = value
    inside = best > rest
    after[inside] = won[inside]
    return after
