"""Images and masks to OME-TIFF: with pixel size, channels and, where they are large, tiles and coarser levels."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from napari_medt.core import BadImage, Geometry
from napari_medt.core.volume import Array
from napari_medt.io.ngff import OURS, our_geometry
from napari_medt.io.picture import RGB
from napari_medt.io.tiff_geometry import AXES_KEY

_TILE = 512
_WHOLE = 2048  # up to this width and height an image is written page by page, without levels
_SLAB_BYTES = 2**28
_ZEROS = 2**24
_OFFSET_LIMIT = 2**32 - 2**25  # beyond this, offsets need 64 bits


def encode_ome_tiff(
    file: BinaryIO, array: Any, geometry: Geometry, *, channel_names: Sequence[str] = (), labels: bool = False
) -> None:
    """Write an image or a mask into an open file.

    Parameters
    ----------
    file
        Open for writing, with a name; large images need about a third of their size beside it for a while.
    array
        An image `(c, y, x)` or `(c, z, y, x)`, or a mask `(y, x)` or `(z, y, x)`; a Dask array is computed part by part,
        and the memory needed does not grow with it.
    geometry
        Of the spatial axes. Rotations and the frame of a patient, for which OME has no words, are kept beside its own.
    channel_names
        Of an image; red, green and blue are written as colour.
    labels
        Whether this is a mask. Its coarser levels then hold the most frequent values, not means.

    Raises
    ------
    BadImage
        If the array does not fit the geometry, or holds what TIFF cannot.
    """
    image = array[None] if labels else array
    if image.ndim != geometry.ndim + 1 or 0 in image.shape:
        raise BadImage(f"An array of shape {array.shape} does not fit a geometry of {geometry.ndim} axes")
    if image.dtype.kind == "b":
        image = image.astype(np.uint8)
    if image.dtype.kind not in "uif" or image.dtype.itemsize > 8 or image.dtype == np.float16:
        raise BadImage(
            f"Values of type {image.dtype} cannot be written to TIFF", remedy="convert them to float32 first"
        )
    colour = tuple(channel_names) == RGB and image.dtype.kind == "u"
    large = max(image.shape[-2:]) > _WHOLE
    count = math.ceil(math.log2(2 * max(image.shape[-2:]) / _WHOLE)) if large else 0
    size_bytes = math.prod(image.shape) * image.dtype.itemsize
    options: dict[str, Any] = {
        "photometric": "rgb" if colour else "minisblack",
        "planarconfig": "contig" if colour else None,
        "compression": "zlib",
        "predictor": None if labels or image.dtype.kind == "f" else 2,
        "tile": (_TILE, _TILE) if large else None,
    }
    with (
        tempfile.TemporaryDirectory(dir=Path(file.name).parent, prefix=".levels-") as beside,
        tifffile.TiffWriter(file, ome=True, bigtiff=size_bytes * (4 / 3 if large else 1) >= _OFFSET_LIMIT) as tiff,
    ):
        metadata = _metadata(image.shape, geometry, () if colour or labels else channel_names, colour=colour)
        level = image
        for number in range(count + 1):
            shape = (*level.shape[1:], level.shape[0]) if colour else level.shape
            coarse = _scratch(Path(beside) / str(number), level) if number < count else None
            tiff.write(
                _tiles(level, coarse, colour=colour, labels=labels) if large else _pages(level, colour=colour),
                shape=shape,
                dtype=level.dtype,
                metadata=metadata if number == 0 else None,
                subifds=count if number == 0 and count else None,
                subfiletype=int(number > 0),
                **options,
            )
            level = coarse


def _scratch(path: Path, level: Any) -> Array:
    """An array on disk for the next level, half as high and as wide."""
    shape = (*level.shape[:-2], *(-(-size // 2) for size in level.shape[-2:]))
    missing = math.prod(shape) * level.dtype.itemsize
    with path.open("xb") as file:  # all of it at once: a disk found full later, through the map, ends the whole process
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, missing)
        else:
            while missing:
                missing -= file.write(bytes(min(missing, _ZEROS)))
    return np.memmap(path, level.dtype, "r+", shape=shape)


def _pages(image: Any, *, colour: bool) -> Iterator[Array]:
    """Yield the planes of an image `(c, [z,] y, x)`, reading several slices at once, as a Dask array has them."""
    stack = image if image.ndim == 4 else image[:, None]
    thick = max(stack.chunks[1]) if hasattr(stack, "dask") else 1
    plane_bytes = math.prod(stack.shape[2:]) * stack.dtype.itemsize * (stack.shape[0] if colour else 1)
    thick = max(1, min(thick, _SLAB_BYTES // plane_bytes))
    for channels in [slice(None)] if colour else [slice(c, c + 1) for c in range(stack.shape[0])]:
        for start in range(0, stack.shape[1], thick):
            slab = np.asarray(stack[channels, start : start + thick])
            for z in range(slab.shape[1]):
                yield np.ascontiguousarray(np.moveaxis(slab[:, z], 0, -1) if colour else slab[0, z])


def _tiles(image: Any, coarse: Array | None, *, colour: bool, labels: bool) -> Iterator[Array]:
    """Yield the tiles of an image `(c, [z,] y, x)` plane by plane, and put the next level's into `coarse` on the way."""
    height, width = image.shape[-2:]
    planes = np.ndindex(image.shape[1:-2] if colour else image.shape[:-2])
    for plane in planes:
        at = (slice(None), *plane) if colour else plane
        for y in range(0, height, _TILE):
            for left in range(0, width, 8 * _TILE):  # several tiles at once, as Dask's blocks are larger
                band = np.asarray(image[(*at, slice(y, y + _TILE), slice(left, left + 8 * _TILE))])
                if coarse is not None:
                    half = (slice(y // 2, (y + _TILE) // 2), slice(left // 2, left // 2 + 4 * _TILE))
                    coarse[(*at, *half)] = _halved(band, labels=labels)
                for x in range(0, band.shape[-1], _TILE):
                    tile = band[..., x : x + _TILE]
                    missing = [(0, 0)] * (tile.ndim - 2) + [(0, _TILE - size) for size in tile.shape[-2:]]
                    tile = np.pad(tile, missing, mode="edge")
                    yield np.ascontiguousarray(np.moveaxis(tile, 0, -1) if colour else tile)


def _halved(band: Array, *, labels: bool) -> Array:
    from napari_medt.io.pyramid import coarser

    shape = (*band.shape[:-2], *(-(-size // 2) for size in band.shape[-2:]))
    return coarser(band, shape, [slice(0, size) for size in shape], labels=labels)


def _metadata(shape: tuple[int, ...], geometry: Geometry, names: Sequence[str], *, colour: bool) -> dict[str, Any]:
    axes = geometry.axis_names
    unit = {"um": "µm", "px": "pixel"}.get(geometry.units, geometry.units)
    place = geometry.to_layer()
    channels = 1 if colour else shape[0]
    slices = shape[1] if geometry.ndim == 3 else 1
    values: dict[str, Any] = {
        "axes": "".join(axes).upper() + "S" if colour else "C" + "".join(axes).upper(),
        "Name": f"{AXES_KEY} {''.join(axes)}",
        "MapAnnotation": {OURS: json.dumps(our_geometry(geometry))},
    }
    if names:
        values["Channel"] = {"Name": list(names)}
    planes: dict[str, Any] = {}
    for axis, start, step in zip(axes, place["translate"], place["scale"], strict=True):
        letter = axis.upper()
        values[f"PhysicalSize{letter}"] = step
        values[f"PhysicalSize{letter}Unit"] = unit
        along = [start + step * z for z in range(slices)] if axis == "z" else [start] * slices
        planes[f"Position{letter}"] = along * channels
        planes[f"Position{letter}Unit"] = [unit] * slices * channels
    return {**values, "Plane": planes}
