"""What the tools are asked is checked here, so that every tool refuses in the same words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from napari_medt.core import BadEdit, Geometry, NothingToChange
from napari_medt.core.boxes import Box
from napari_medt.core.volume import Array
from napari_medt.editing.parts import box_of, widened

Spacing = Geometry | Sequence[float]
"""A geometry in mm or µm, or the distance between neighbouring samples along each axis, in mm."""


def structure_box(labels: Array, chosen: Iterable[int], *, margin: Sequence[int] | None = None) -> Box:
    """Return the box of some structures with a margin in voxels.

    Raises
    ------
    BadEdit
        If none is given, the mask is no mask, a label is no structure, or none of the structures is there.
    """
    wanted = list(chosen)
    if not wanted:
        raise BadEdit("No structure is chosen", remedy="choose at least one")
    for value in wanted:
        check_label(labels, value)
    box = box_of(labels, wanted)
    if box is None:
        raise BadEdit(f"There is no {_said(wanted)} in this mask", remedy="choose a structure that is there")
    return box if margin is None else widened(box, margin, labels.shape)


def check_label(labels: Array, value: int) -> None:
    """Refuse what is no mask, or no label of a structure that it can hold.

    Raises
    ------
    BadEdit
        With the reason.
    """
    if labels.ndim not in (2, 3) or labels.dtype.kind not in "bui":
        raise BadEdit(f"A mask has two or three axes and whole numbers, not {labels.ndim} axes of type {labels.dtype}")
    most = 1 if labels.dtype.kind == "b" else int(np.iinfo(labels.dtype).max)
    if value != int(value) or not 0 < value <= most:
        raise BadEdit(f"{value} is no label of a structure: in this mask they are numbers from 1 to {most}")


def check_axis(labels: Array, axis: int) -> None:
    """Refuse an axis that a volume does not have.

    Raises
    ------
    BadEdit
        Also if the mask is no volume.
    """
    if labels.ndim != 3:
        raise BadEdit("A single picture has no slices", remedy="use this tool on a volume")
    if not 0 <= axis < 3:
        raise BadEdit(f"A volume has the axes 0, 1 and 2, and no axis {axis}")


def check_image(labels: Array, image: Array) -> None:
    """Refuse an image that does not lie on the mask, voxel by voxel.

    Raises
    ------
    BadEdit
        With both shapes.
    """
    if image.shape != labels.shape:
        raise BadEdit(f"An image of shape {image.shape} does not lie on a mask of shape {labels.shape}")


def check_point(labels: Array, point: Sequence[int]) -> tuple[int, ...]:
    """Return a voxel's index as plain numbers.

    Raises
    ------
    BadEdit
        If it lies outside the mask.
    """
    index = tuple(int(part) for part in point)
    if len(index) != labels.ndim or not all(0 <= i < n for i, n in zip(index, labels.shape, strict=True)):
        raise BadEdit(f"The point {index} lies outside the mask of shape {labels.shape}")
    return index


def check_range(low: float, high: float) -> None:
    """Refuse a range of intensities that holds none.

    Raises
    ------
    BadEdit
        If so.
    """
    if not low <= high:
        raise BadEdit(f"No intensity lies between {low:g} and {high:g}", remedy="give the lower one first")


def spacing_mm(spacing: Spacing, ndim: int) -> tuple[float, ...]:
    """Return the distance between samples along each axis, in mm.

    Raises
    ------
    BadEdit
        If an image does not say how large its pixels are, or the numbers do not fit the mask.
    """
    if isinstance(spacing, Geometry):
        if spacing.unit_mm is None:
            raise BadEdit(
                "The image does not say how large its pixels are, so lengths in mm mean nothing in it",
                remedy="give the size of a pixel, or a spacing of 1 to have every length in pixels",
            )
        steps = tuple(step * spacing.unit_mm for step in spacing.spacing)
    else:
        steps = tuple(float(step) for step in spacing)
    if len(steps) != ndim or not all(math.isfinite(step) and step > 0 for step in steps):
        raise BadEdit(f"A spacing of {steps} mm does not fit a mask of {ndim} axes")
    return steps


def check_length(length: float, what: str) -> None:
    """Refuse a length, area or volume that is not above zero.

    Raises
    ------
    BadEdit
        If so; `what` begins the sentence.
    """
    if not (math.isfinite(length) and length > 0):
        raise BadEdit(f"{what} must be above 0, but is {length:g}")


def check_left(left: Array, value: int, what: str) -> None:
    """Refuse to make a structure vanish.

    Raises
    ------
    BadEdit
        If nothing is true in `left`; `what` begins the sentence.
    """
    if not left.any():
        raise BadEdit(f"{what} would leave nothing of label {value}", remedy="choose a smaller value, or erase it")


def no_change(name: str, value: int) -> NothingToChange:
    """Return the error of a length that is too small to reach a neighbouring voxel."""
    return NothingToChange(f"This is too little to {name} label {value} by a single voxel")


def _said(labels: Sequence[int]) -> str:
    return f"label {labels[0]}" if len(labels) == 1 else f"label {', '.join(map(str, labels[:-1]))} or {labels[-1]}"
