"""Where the frames of a DICOM file fall in the array of another grid, exactly, in any orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_medt.core import Geometry
from napari_medt.core.volume import Array
from napari_medt.io.dicom_frames import Frame

_CLOSE = 0.1  # of a voxel: positions are often rounded


@dataclass(frozen=True)
class Place:
    """The samples of an array that a frame covers.

    Attributes
    ----------
    where
        Index into the array.
    turned
        Whether the rows of the frame run along the later of the array's two remaining axes.
    seen
        Rows and columns of the frame that lie within the array.
    """

    where: tuple[int | slice, ...]
    turned: bool
    seen: tuple[slice, slice]

    def view(self, array: Any) -> Any:
        """The part of an array that the frame covers, seen as the frame is: rows, then columns."""
        found = array[self.where]
        return found.T if self.turned else found


def place_in(frame: Frame, geometry: Geometry, shape: Sequence[int]) -> Place | None:
    """Find a frame in a grid.

    Returns
    -------
    Place or None
        `None` where the pixels of the frame do not fall on samples of the grid.
    """
    plane = frame.plane
    steps = geometry.affine[:3, :3]
    start = geometry.index(plane.position[::-1])
    down, across = (
        np.linalg.solve(steps, vector[::-1] * size)
        for vector, size in zip(plane.orientation[::-1], plane.spacing, strict=True)
    )
    axes = [int(np.argmax(abs(vector))) for vector in (down, across)]
    if axes[0] == axes[1]:
        return None
    index = np.rint(start).astype(int)
    drift = abs(start - index)
    signs = []
    for vector, axis, count in zip((down, across), axes, frame.shape, strict=True):
        sign = 1 if vector[axis] > 0 else -1
        ideal = np.zeros(3)
        ideal[axis] = sign
        drift = np.maximum(drift, abs(vector - ideal) * max(count - 1, 1))
        signs.append(sign)
    if drift.max() > _CLOSE:
        return None
    where: list[int | slice] = [int(i) for i in index]
    if not all(axis in axes or 0 <= index[axis] < shape[axis] for axis in range(3)):
        return None
    seen = []
    for axis, sign, count in zip(axes, signs, frame.shape, strict=True):
        covered = index[axis] + sign * np.arange(count)
        inside = np.flatnonzero((covered >= 0) & (covered < shape[axis]))
        if not inside.size:
            return None
        first, last = int(covered[inside[0]]), int(covered[inside[-1]])
        stop = last + sign
        where[axis] = slice(first, None if stop < 0 else stop, sign)
        seen.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return Place(tuple(where), axes[0] > axes[1], (seen[0], seen[1]))


def common_grid(frames: Sequence[Frame]) -> tuple[Geometry, tuple[int, int, int]]:
    """Find the grid on which parallel frames lie, with the places between them that no frame is at.

    Returns
    -------
    geometry, shape
        Of an array `(z, y, x)`, slices along the normal.

    Raises
    ------
    ValueError
        If they are not parallel, or their distances have no common step.
    """
    first = frames[0]
    for frame in frames:
        if frame.shape != first.shape or (abs(frame.plane.orientation - first.plane.orientation) > 1e-3).any():
            raise ValueError("frames of different orientations or sizes")
    positions = np.asarray([frame.plane.position for frame in frames])
    along = positions @ first.plane.normal
    order = np.argsort(along)
    apart = np.diff(along[order])
    apart = apart[apart > 0.01 * min(first.plane.spacing)]
    lowest, highest = positions[order[0]], positions[order[-1]]
    step = _common_step(apart, [value for value in (first.apart, first.thickness) if value])
    count = round(float((along[order[-1]] - along[order[0]]) / step)) + 1
    vector = (highest - lowest) / (count - 1) if count > 1 else first.plane.normal * step
    return geometry_of_plane(first, vector, origin=lowest), (count, *first.shape)


def geometry_of_plane(first: Frame, step: Array, *, origin: Array | None = None) -> Geometry:
    """From DICOM's words, in which x, y, z run to the left, the back and the head, and columns are counted before rows."""
    plane = first.plane
    down, across = plane.spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, plane.orientation[1] * down, plane.orientation[0] * across
    affine[:3, 3] = plane.position if origin is None else origin
    affine[:3] = affine[2::-1].copy()
    return Geometry(affine, "mm", "patient")


def _common_step(apart: Array, told: Sequence[float]) -> float:
    """The distance of slices of which all distances are multiples: what the file says, or the largest that fits."""
    if not apart.size:
        return told[0] if told else 1.0
    for step in (*told, float(apart.min())):
        if _multiples(apart, step):
            return step
    step = float(apart.min())
    for distance in apart:  # Euclid's way, with a tolerance
        rest, other = float(distance), step
        while rest > 0.05 * step:
            other, rest = rest, other % rest
            if other - rest < 0.05 * step:
                rest = 0.0
        step = other
    if not _multiples(apart, step) or apart.sum() / step > 10_000:
        raise ValueError("distances without a common step")
    return step


def _multiples(apart: Array, step: float) -> bool:
    times = apart / step
    return bool((np.rint(times) >= 1).all() and (abs(times - np.rint(times)) < _CLOSE).all())
