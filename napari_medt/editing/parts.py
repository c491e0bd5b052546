"""What the tools share: reading the part of a mask that matters, checks of what they are asked, work in slabs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import or_

import edt
import numpy as np

from napari_medt.core import BadEdit, Geometry, NothingToChange
from napari_medt.core.volume import Array

Box = tuple[slice, ...]
Spacing = Geometry | Sequence[float]
"""A geometry in mm or µm, or the distance between neighbouring samples along each axis, in mm."""

ROUNDING = 1e-5  # share by which a distance in single precision may miss a length it is equal to
_BAND_VOXELS = 2_000_000
_SLAB_VOXELS = 4_000_000

# -------------------------------------------------------------------------------------------------------------- reading


def read(labels: Array, box: Box) -> Array:
    """Return the values in a box; a mask that lies on disk is read only there."""
    return np.asarray(labels[box])


def among(values: Array, chosen: Iterable[int]) -> Array:
    """Say where one of the chosen labels is."""
    wanted = list(chosen)
    if not wanted or len(wanted) > 8:  # comparing again and again is quicker, up to a point
        return np.isin(values, wanted)
    return np.asarray(reduce(or_, (values == value for value in wanted)))


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


def box_where(values: Array, test: Callable[[Array], Array]) -> Box | None:
    """Return the smallest box outside which a test is false, read in bands; `None` when it is false everywhere."""
    boxes = []
    for band in _bands(values):
        found = bounding_box(test(read(values, band)))
        if found is not None:
            start = band[0].start
            boxes.append((slice(found[0].start + start, found[0].stop + start), *found[1:]))
    return around(boxes) if boxes else None


def box_of(labels: Array, chosen: Iterable[int]) -> Box | None:
    """Return the smallest box that holds some structures; `None` where none of them is."""
    wanted = list(chosen)
    return box_where(labels, lambda block: among(block, wanted))


def around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of some boxes."""
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )


def widened(box: Box, margin: Sequence[int], shape: Sequence[int]) -> Box:
    """Return a box larger by `margin` voxels on both sides of each axis, within an array of `shape`."""
    return tuple(
        slice(max(0, part.start - more), min(size, part.stop + more))
        for part, more, size in zip(box, margin, shape, strict=True)
    )


def structure_box(labels: Array, chosen: Iterable[int], *, margin: Sequence[int] | None = None) -> Box:
    """Return the box of some structures with a margin in voxels.

    Raises
    ------
    BadEdit
        If the mask is no mask, a label is no structure, or none of the structures is there.
    """
    wanted = list(chosen)
    for value in wanted:
        check_label(labels, value)
    box = box_of(labels, wanted)
    if box is None:
        raise BadEdit(f"There is no {_said(wanted)} in this mask", remedy="choose a structure that is there")
    return box if margin is None else widened(box, margin, labels.shape)


def _bands(labels: Array) -> Iterator[Box]:
    rows = max(1, _BAND_VOXELS // max(1, math.prod(labels.shape[1:])))
    for start in range(0, labels.shape[0], rows):
        yield (slice(start, min(start + rows, labels.shape[0])), *(slice(0, size) for size in labels.shape[1:]))


def _said(labels: Sequence[int]) -> str:
    return f"label {labels[0]}" if len(labels) == 1 else f"label {', '.join(map(str, labels[:-1]))} or {labels[-1]}"


# --------------------------------------------------------------------------------------------------------------- checks


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


def in_range(values: Array, low: float, high: float) -> Array:
    """Say where the intensity lies in a range, its ends included; nowhere where it is not a number."""
    return np.asarray((values >= low) & (values <= high))


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


# ---------------------------------------------------------------------------------------------------------------- work


def voxels_within(length: float, steps: Sequence[float]) -> tuple[int, ...]:
    """Return how many voxels a length in mm reaches along each axis."""
    return tuple(int(length * (1 + ROUNDING) / step) for step in steps)


def distance_to_false(mask: Array, steps: Sequence[float]) -> Array:
    """Return the distance of each true voxel's centre to the nearest false one's, in mm, single precision; else 0.

    What lies beyond the array counts as neither; without a false voxel the distance is infinite.
    """
    return np.asarray(edt.edt(np.ascontiguousarray(mask), anisotropy=tuple(steps), parallel=1))


def by_slabs(act: Callable[[Array], Array], values: Array, reach: Sequence[int]) -> Array:
    """Work on a large array in slabs, so that what the work needs besides does not grow with it.

    Parameters
    ----------
    act
        Gives for an array one of its shape, of which each voxel depends on no voxel farther than `reach`.
    values
        What to work on.
    reach
        In voxels along each axis.
    """
    axis = int(np.argmax(values.shape))
    length = values.shape[axis]
    step = max(1, _SLAB_VOXELS * length // values.size)
    if step >= length:
        return act(values)
    done: Array | None = None
    for start in range(0, length, step):
        stop = min(start + step, length)
        low, high = max(0, start - reach[axis]), min(length, stop + reach[axis])
        part = act(values[(slice(None),) * axis + (slice(low, high),)])
        if done is None:
            done = np.empty(values.shape, part.dtype)
        done[(slice(None),) * axis + (slice(start, stop),)] = part[
            (slice(None),) * axis + (slice(start - low, stop - low),)
        ]
    return values if done is None else done
