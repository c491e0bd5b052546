"""One structure becomes several: by seeds, or along a line that is drawn across it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, distance_transform_edt, generate_binary_structure
from skimage.draw import line
from skimage.segmentation import watershed

from napari_medt.core import BadEdit, NothingToChange
from napari_medt.core.boxes import bounding_box
from napari_medt.core.volume import Array
from napari_medt.editing.checks import Spacing, check_axis, check_label, check_point, spacing_mm, structure_box
from napari_medt.editing.edit import Edit, make_edit
from napari_medt.editing.parts import distance_to_false, pieces, read, sizes_of, widened

_UNCUT = "The line does not cut the structure through; draw it from one side across to the other"


def split_by_seeds(
    labels: Array, value: int, seeds: Sequence[Sequence[int]], *, to: Sequence[int], spacing: Spacing
) -> Edit:
    """Split a structure at its necks: a watershed of the depth in it, from one point in each part.

    Where in its part a point lies does not matter, be it near the surface: the flood begins at the deepest place uphill.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    value
        Label of the structure.
    seeds
        Index of a voxel in each part.
    to
        Label of the part around each seed; `value` itself may be one. Islands without a seed stay as they are.
    spacing
        Geometry, or spacing in mm.

    Raises
    ------
    BadEdit
        If the structure is not there, has no size in mm, a seed lies outside it, the mask cannot hold a label, or there
        are fewer than two different ones.
    """
    steps = spacing_mm(spacing, labels.ndim)
    if len(seeds) != len(to) or len(set(to)) < 2:
        raise BadEdit("To split a structure takes two points with labels of their own", remedy="click into each part")
    for label in to:
        check_label(labels, label)
    # One voxel more, so that what is outside of the structure is seen.
    box = structure_box(labels, (value,), margin=[1] * labels.ndim)
    before = read(labels, box)
    mask = before == value
    places = []
    for seed in seeds:
        index = check_point(labels, seed)
        place = tuple(i - part.start for i, part in zip(index, box, strict=True))
        if not all(0 <= i < n for i, n in zip(place, mask.shape, strict=True)) or not mask[place]:
            raise BadEdit(f"The point {index} is not in label {value}", remedy="click into the structure")
        places.append(place)
    depth = distance_to_false(mask, steps)
    tops = [_uphill(depth, place, steps) for place in places]
    markers = np.zeros(mask.shape, np.int32)
    for begun in (tops if len(set(tops)) == len(places) else [], places):  # without a neck between them: as they are
        for number, place in enumerate(begun, start=1):
            markers[place] = number
    parts = watershed(-depth, markers, mask=mask)
    after = before.copy()
    after[parts > 0] = np.asarray([0, *to], before.dtype)[parts[parts > 0]]
    return make_edit("split", (value, *to), box, before, after, unchanged="The structure would stay in one piece")


def _uphill(depth: Array, place: tuple[int, ...], steps: Sequence[float]) -> tuple[int, ...]:
    """Return the deepest voxel that is reached uphill, over small bumps: the ball as large as a voxel is deep lies inside."""
    while True:
        reach = float(depth[place])
        box = tuple(
            slice(max(0, i - max(1, int(reach / step))), i + max(1, int(reach / step)) + 1)
            for i, step in zip(place, steps, strict=True)
        )
        found = depth[box]
        away = np.ix_(
            *(np.arange(part.start, part.start + n) - i for part, n, i in zip(box, found.shape, place, strict=True))
        )
        far = sum((offset * step) ** 2 for offset, step in zip(away, steps, strict=True))
        next_to = np.maximum.reduce(np.broadcast_arrays(*map(np.abs, away))) <= 1
        best = np.where((far <= reach**2) | next_to, found, 0)
        if best.max() <= reach:
            return place
        top = np.unravel_index(int(best.argmax()), best.shape)
        place = tuple(int(i) + part.start for i, part in zip(top, box, strict=True))


def split_along_line(
    labels: Array, value: int, vertices: npt.ArrayLike, *, to: int, spacing: Spacing, axis: int = 0
) -> Edit:
    """Cut a structure along a line drawn across it; of a volume, along the line on every slice.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`, whole numbers.
    value
        Label of the structure. The largest part of each island that is cut keeps it.
    vertices
        `(n, 2)`: corners of the line, as indices along the axes of the slice.
    to
        Label of what is cut off.
    spacing
        Geometry, or spacing in mm: the voxels under the line go to the part that is nearest.
    axis
        Of a volume, along which its slices lie.

    Raises
    ------
    BadEdit
        If the structure is not there, has no size in mm, the line is no line, or the mask cannot hold the label.
    NothingToChange
        If the line does not cut the structure through.
    """
    corners = np.rint(np.asarray(vertices, float)).astype(int)
    if corners.ndim != 2 or len(corners) < 2 or corners.shape[1] != 2:
        raise BadEdit(f"A line takes at least two points of two numbers, not {corners.tolist()}")
    check_label(labels, to)
    steps = spacing_mm(spacing, labels.ndim)
    if labels.ndim == 3:
        check_axis(labels, axis)
    box = structure_box(labels, (value,))
    before = read(labels, box)
    mask = before == value
    in_plane = box if labels.ndim == 2 else (*box[:axis], *box[axis + 1 :])
    cut = _drawn(corners, in_plane)
    under_line = mask & (cut if labels.ndim == 2 else np.expand_dims(cut, axis))
    parts = _cut_off(mask, under_line, steps)
    after = before.copy()
    after[parts] = to
    return make_edit("split along line", (value, to), box, before, after, unchanged=_UNCUT)


def _drawn(corners: Array, box: Sequence[slice]) -> Array:
    """Draw a line into a plane, so thick that two voxels on its sides do not touch at a corner."""
    shape = tuple(part.stop - part.start for part in box)
    plane = np.zeros(shape, bool)
    for first, last in pairwise(corners):
        points = np.stack(line(*first, *last), axis=-1) - [part.start for part in box]
        points = points[((points >= 0) & (points < shape)).all(axis=1)]
        plane[tuple(points.T)] = True
    return np.asarray(binary_dilation(plane, generate_binary_structure(2, 1)))


def _cut_off(mask: Array, under_line: Array, steps: Sequence[float]) -> Array:
    """Say what is no longer in one piece with the largest part of its island."""
    place = bounding_box(under_line)
    if place is None:
        raise NothingToChange(_UNCUT)
    islands, parts = pieces(mask, corners=True), pieces(mask & ~under_line, corners=True)
    sizes = sizes_of(parts)
    island_of = np.zeros(len(sizes), islands.dtype)
    island_of[parts[parts > 0]] = islands[parts > 0]
    off = np.zeros(len(sizes), bool)
    for island in np.unique(islands[under_line]):
        members = np.flatnonzero(island_of == island)
        off[members] = True
        if len(members):
            off[members[np.argmax(sizes[members])]] = False
    if not off.any():
        raise NothingToChange(_UNCUT)
    cut_off = off[parts]
    # The voxels under the line go to the part that is nearest.
    place = widened(place, [2] * mask.ndim, mask.shape)
    nearest = distance_transform_edt(parts[place] == 0, sampling=steps, return_distances=False, return_indices=True)
    cut_off[place] |= under_line[place] & off[parts[place]][tuple(nearest)]
    return np.asarray(cut_off)
