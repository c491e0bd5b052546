"""Images and masks on another grid, part by part; interpolation by SimpleITK."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from napari_medt.core import BadImage, Geometry, LabelMap, Volume
from napari_medt.core.volume import Array
from napari_medt.io.needs import needs

_SLAB_BYTES = 2**27  # of what is read, or made, at a time
_WORK_BYTES = 8  # of a sample on the way
_AIR_HU = -1024.0
_Grid = TypeVar("_Grid", Volume, LabelMap)


def resample(what: _Grid, geometry: Geometry, shape: Sequence[int], *, nearest: bool = False) -> _Grid:
    """Compute an image or a mask on another grid.

    Parameters
    ----------
    what
        In memory or on disk; of a Dask array only what a part of the result needs is read at a time.
    geometry, shape
        Of the grid wanted, spatial axes; in the same units and frame.
    nearest
        Take the nearest sample, as is always done for labels, instead of interpolating linearly.

    Returns
    -------
    Volume or LabelMap
        Of the same kind and dtype, in memory. Outside the image values are 0, or those of air where they are in
        Hounsfield units.

    Raises
    ------
    BadImage
        If the grids have different axes, units or frames.
    """
    old = what.geometry
    if (old.ndim, old.units, old.frame) != (geometry.ndim, geometry.units, geometry.frame) or len(shape) != old.ndim:
        raise BadImage(
            f"An image of {old.ndim} axes in {old.units} in the frame of the {old.frame} cannot be put on a grid of "
            f"{geometry.ndim} axes in {geometry.units} in that of the {geometry.frame}",
            remedy="choose images of the same patient and kind",
        )
    needs("SimpleITK", "volumes", doing="Resampling")
    # From an index of the new grid to one of the old.
    between = np.linalg.solve(old.affine, geometry.affine)
    if isinstance(what, LabelMap):
        array = _resampled(what.array[None], between, shape, nearest=not what.fraction, outside=0.0)[0]
        return replace(what, array=array, geometry=geometry)
    outside = _AIR_HU if what.acquisition.value_unit == "HU" else 0.0
    array = _resampled(what.array, between, shape, nearest=nearest, outside=outside)
    return replace(what, array=array, geometry=geometry, levels=())


def on_grid_of(mask: LabelMap, image: Volume) -> LabelMap:
    """Put a mask on the grid of an image.

    Parameters
    ----------
    mask
        Where it does not say where it lies, it is taken to lie where the image does, if it is of its shape.
    image
        Gives the grid.

    Raises
    ------
    BadImage
        If it does not fit.
    """
    shape, geometry = tuple(mask.array.shape), mask.geometry
    if shape == image.spatial_shape:
        if geometry.close_to(image.geometry, shape=shape):
            return replace(mask, geometry=image.geometry)
        if geometry.frame == "image" and (geometry.units == "px" or image.geometry.frame == "patient"):
            note = "The mask does not say where it lies and is taken to lie where the image does"
            return replace(mask, geometry=image.geometry, notes=(*mask.notes, note))
    if geometry.frame != image.geometry.frame or geometry.units != image.geometry.units or geometry.units == "px":
        sizes = [" x ".join(map(str, size)) for size in (shape, image.spatial_shape)]
        raise BadImage(
            f"The mask of {sizes[0]} voxels does not fit the image of {sizes[1]}",
            remedy="choose the mask of this image",
        )
    moved = resample(mask, image.geometry, image.spatial_shape)
    note = "The mask was made on another grid and has been put on that of the image, by the nearest label"
    return replace(moved, notes=(*mask.notes, note))


def _resampled(array: Any, between: Array, shape: Sequence[int], *, nearest: bool, outside: float) -> Array:
    """Resample each channel of `(c, *spatial)`; `between` leads from new to old indices."""
    outside = max(outside, float(np.iinfo(array.dtype).min)) if array.dtype.kind in "iu" else outside
    result = np.full((array.shape[0], *shape), outside, array.dtype)
    todo: list[tuple[slice, ...]] = [tuple(slice(0, size) for size in shape)]
    while todo:
        where = todo.pop()
        here = between.copy()
        here[:-1, -1] = between[:-1] @ [*(part.start for part in where), 1]
        size = tuple(part.stop - part.start for part in where)
        box = _needed(here, size, array.shape[1:])
        if box is None:
            continue
        read = math.prod(part.stop - part.start for part in box) * _WORK_BYTES
        if max(read, math.prod(size) * _WORK_BYTES) > _SLAB_BYTES and max(size) > 1:
            todo += _halves(where)
            continue
        here[:-1, -1] -= [part.start for part in box]
        for channel in range(array.shape[0]):
            part = np.asarray(array[(channel, *box)])
            result[channel][where] = _by_itk(part, here, size, nearest=nearest, outside=outside)
    return result


def _halves(where: tuple[slice, ...]) -> list[tuple[slice, ...]]:
    """Cut a part of an array in two: along its first axis, or its longest where the first cannot be cut."""
    sizes = [part.stop - part.start for part in where]
    axis = 0 if sizes[0] > 1 else sizes.index(max(sizes))
    start, stop = where[axis].start, where[axis].stop
    middle = (start + stop) // 2
    return [(*where[:axis], slice(*ends), *where[axis + 1 :]) for ends in ((middle, stop), (start, middle))]


def _needed(between: Array, size: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...] | None:
    """Part of the old array that a new one of `size` is computed from; `None` for none."""
    corners = np.stack(np.meshgrid(*((0, count - 1) for count in size), indexing="ij"), -1)
    places = (corners @ between[:-1, :-1].T + between[:-1, -1]).reshape(-1, len(size))
    low, high = np.floor(places.min(axis=0)) - 1, np.ceil(places.max(axis=0)) + 2
    if (high <= 0).any() or (low >= shape).any():
        return None
    return tuple(slice(max(0, int(a)), min(count, int(b))) for a, b, count in zip(low, high, shape, strict=True))


def _by_itk(part: Array, between: Array, size: Sequence[int], *, nearest: bool, outside: float) -> Array:
    import SimpleITK as sitk

    dtype = part.dtype
    n = part.ndim
    native = dtype.newbyteorder("=")
    if nearest:
        values = part.astype(np.uint8 if native.kind == "b" else np.float32 if native == np.float16 else native)
    else:
        values = part.astype(np.float64 if native.itemsize > 2 and native != np.float32 else np.float32)
    matrix = between[:-1, :-1][::-1, ::-1]
    transform = sitk.AffineTransform(matrix.ravel().tolist(), between[:-1, -1][::-1].tolist(), (0.0,) * n)
    moved = sitk.Resample(
        sitk.GetImageFromArray(np.ascontiguousarray(values)),
        tuple(int(count) for count in reversed(size)),
        transform,
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        (0.0,) * n,
        (1.0,) * n,
        tuple(np.eye(n).ravel().tolist()),
        outside,
    )
    found: Array = sitk.GetArrayViewFromImage(moved)
    if not nearest and native.kind in "iu":
        ends = np.iinfo(native)
        found = np.clip(np.rint(found), ends.min, ends.max)
    return np.asarray(found.astype(dtype))
