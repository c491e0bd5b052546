"""What the tools share: reading the part of a mask that matters, and working on it in slabs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import or_

import cc3d
import edt
import numpy as np
from scipy.ndimage import generate_binary_structure, label

from napari_medt.core.boxes import Box, bounding_box
from napari_medt.core.volume import Array

ROUNDING = 1e-5  # share by which a distance in single precision may miss a length it is equal to
_BAND_VOXELS = 2_000_000
_SLAB_VOXELS = 4_000_000


def read(labels: Array, box: Box) -> Array:
    """Return the values in a box; a mask that lies on disk is read only there."""
    return np.asarray(labels[box])


def among(values: Array, chosen: Iterable[int]) -> Array:
    """Say where one of the chosen labels is."""
    wanted = list(chosen)
    if not wanted or len(wanted) > 8:  # comparing again and again is quicker, up to a point
        return np.isin(values, wanted)
    return np.asarray(reduce(or_, (values == value for value in wanted)))


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


def _bands(labels: Array) -> Iterator[Box]:
    rows = max(1, _BAND_VOXELS // max(1, math.prod(labels.shape[1:])))
    for start in range(0, labels.shape[0], rows):
        yield (slice(start, min(start + rows, labels.shape[0])), *(slice(0, size) for size in labels.shape[1:]))


def in_range(values: Array, low: float, high: float) -> Array:
    """Say where the intensity lies in a range, its ends included; nowhere where it is not a number."""
    return np.asarray((values >= low) & (values <= high))


def voxels_within(length: float, steps: Sequence[float]) -> tuple[int, ...]:
    """Return how many voxels a length in mm reaches along each axis."""
    return tuple(int(length * (1 + ROUNDING) / step) for step in steps)


def pieces(mask: Array, *, corners: bool) -> Array:
    """Number the connected pieces of a mask from 1; 0 is what is false.

    Parameters
    ----------
    mask
        Of two or three axes.
    corners
        Whether voxels that touch at an edge or a corner are connected, or only at a face.
    """
    if mask.ndim == 3 and sorted(mask.shape)[1] > 1:
        return np.asarray(cc3d.connected_components(mask, connectivity=26 if corners else 6))
    # cc3d 4.1 gives gaps in the numbers of planes and fails on lines.
    structure = generate_binary_structure(mask.ndim, mask.ndim if corners else 1)
    return np.asarray(label(mask, structure, output=np.int32)[0])


def sizes_of(numbered: Array) -> Array:
    """Return the size of each numbered piece in voxels, by its number; 0 for what is in none."""
    return np.bincount(numbered[numbered > 0], minlength=2)


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
