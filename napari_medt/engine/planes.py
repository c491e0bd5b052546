"""Which way slices are cut, and boxes of an array whose axes are rearranged."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, Literal, Protocol

import numpy as np

from napari_medt.core import AxisMap, BadImage, Geometry
from napari_medt.engine.windows import Box

Plane = Literal["axial", "coronal", "sagittal"]
Roi = Sequence[slice | int]

# Slices as radiologists look at them: head or face up, the patient's left on the right.
_RADIOLOGICAL = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
_PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")  # across head to foot, front to back, side to side
_AXES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}


class Store(Protocol):
    """Anything that can be filled part by part like an array."""

    def __setitem__(self, where: Any, values: Any, /) -> None:
        """Fill one part."""


def plane_axes(geometry: Geometry, plane: Plane) -> AxisMap:
    """How to rearrange a scan so that its first axis counts slices of a plane.

    The plane is that of the patient where the scan lies in one, the nearest if it is oblique; else that of the axes, which
    are taken for `(z, y, x)`.

    Raises
    ------
    BadImage
        If the image has no slices.
    ValueError
        If there is no such plane.
    """
    if plane not in _AXES:
        raise ValueError(f"plane must be one of {', '.join(_AXES)}, not {plane!r}")
    if geometry.ndim != 3:
        raise BadImage(f"A 2D image has no {plane} slices", remedy="open the whole scan")
    if geometry.frame == "patient":
        return geometry.axes_towards(_RADIOLOGICAL[plane])
    return AxisMap(_AXES[plane], (False, False, False))


def acquired_plane(geometry: Geometry) -> Plane:
    """The plane of the patient in which a scan was probably acquired: that across which samples lie farthest apart.

    Where they lie alike within a tenth, axial. It does not depend on the order in which a file holds the axes.
    """
    apart = [geometry.spacing[axis] for axis in geometry.axes_towards(_RADIOLOGICAL["axial"]).order]
    farthest = int(np.argmax(apart))
    return _PLANES[farthest] if apart[farthest] > 1.1 * apart[0] else "axial"


def no_turn(ndim: int) -> AxisMap:
    """The axes as they are."""
    return AxisMap(tuple(range(ndim)), (False,) * ndim)


def turned_box(axes: AxisMap, box: Box, shape: Sequence[int]) -> Box:
    """A box of an array of `shape`, in the array after `axes.apply`."""
    return tuple(
        slice(shape[old] - box[old].stop, shape[old] - box[old].start) if flip else box[old]
        for old, flip in zip(axes.order, axes.flips, strict=True)
    )


def turned_shape(axes: AxisMap, shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of an array of `shape` after `axes.apply`."""
    return tuple(shape[old] for old in axes.order)


def common_box(box: Box, other: Box) -> Box:
    """What two boxes have in common; empty, wherever that is, if they do not meet."""
    starts = [max(part.start, more.start) for part, more in zip(box, other, strict=True)]
    stops = [min(part.stop, more.stop) for part, more in zip(box, other, strict=True)]
    return tuple(slice(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True))


def is_empty(box: Box) -> bool:
    """Whether nothing lies in a box."""
    return any(part.stop <= part.start for part in box)


class Turned:
    """An array to be filled part by part in other axes than its own.

    Parameters
    ----------
    store
        The array, or anything with its `__setitem__`.
    axes
        From its axes to those of the parts.
    shape
        Its own.
    """

    def __init__(self, store: Store, axes: AxisMap, shape: Sequence[int]) -> None:
        self._store, self._back, self._shape = store, axes.inverse, turned_shape(axes, shape)

    def __setitem__(self, where: Box, values: Any) -> None:
        self._store[turned_box(self._back, where, self._shape)] = self._back.apply(values)


def whole(shape: Sequence[int]) -> Box:
    """All of an array."""
    return tuple(slice(0, size) for size in shape)


def region(roi: Roi | None, shape: Sequence[int]) -> Box:
    """A region of interest as slices with explicit ends, inside an array of `shape`.

    Raises
    ------
    BadImage
        If it does not lie in the image, or has not one entry for each axis.
    """
    if roi is None:
        return whole(shape)
    try:
        parts = [part if isinstance(part, slice) else slice(index(part), index(part) + 1) for part in roi]
        explicit = [part.indices(size) for part, size in zip(parts, shape, strict=False)]
    except TypeError:
        raise BadImage(
            f"The region {roi!r} is none", remedy="give a slice or a whole number for each axis of the image"
        ) from None
    if len(parts) != len(shape):
        raise BadImage(f"The region has {len(parts)} axes, but the image has {len(shape)}")
    box = []
    for start, stop, step in explicit:
        if step != 1:
            raise BadImage("The region leaves out samples in between", remedy="give slices without a step")
        if start >= stop:
            raise BadImage(f"The region {_text(roi)} does not lie in this image of {' x '.join(map(str, shape))}")
        box.append(slice(start, stop))
    return tuple(box)


def _text(roi: Roi) -> str:
    """A region as `z0:z1,y0:y1,x0:x1`."""

    def end(value: Any) -> str:
        return "" if value is None else str(value)

    return ",".join(f"{end(part.start)}:{end(part.stop)}" if isinstance(part, slice) else str(part) for part in roi)
