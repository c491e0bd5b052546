"""Images to OME-Zarr: with all levels, part by part, whole or not at all."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_medt.core import BadImage, Geometry
from napari_medt.core.volume import Array, numbered_channel_names
from napari_medt.io.contents import Contents, value_type
from napari_medt.io.kinds import is_zarr
from napari_medt.io.ngff import OURS, multiscale_metadata, ome_attributes, our_geometry
from napari_medt.io.picture import GREY, RGB
from napari_medt.io.pyramid import level_shapes, parts
from napari_medt.io.zarr_nodes import open_node
from napari_medt.io.zarr_places import on_disk
from napari_medt.io.zarr_pyramid import CHUNKS, ZarrPyramid

_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64", "uint64", "int64")
_SLAB_BYTES = 2**28
_COLOURS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
_WHITE = "FFFFFF"


class _ZarrImage(ZarrPyramid):
    """An image on its way to disk, of NGFF 0.4, which every program reads; it remembers the range of each channel."""

    def __init__(self, path: Path, contents: Contents, dtype: npt.DTypeLike) -> None:
        geometry = contents.geometry
        names = contents.channel_names or numbered_channel_names(len(contents.array))
        self._names = () if names in (GREY, ("channel 1",)) else names
        spatial = level_shapes(contents.array.shape[1:], geometry.spacing)
        shapes = [(len(names), *shape) for shape in spatial] if self._names else spatial
        self._ends = [[math.inf, -math.inf] for _ in names]
        super().__init__(path, shapes, dtype, geometry, labels=False)

    def add(self, where: tuple[slice, ...], values: Array) -> None:
        """Write a part of all channels."""
        for channel, part in enumerate(values):
            finite = part[np.isfinite(part)] if part.dtype.kind == "f" else part
            if finite.size:
                low, high = self._ends[channel]
                self._ends[channel] = [min(low, float(finite.min())), max(high, float(finite.max()))]
        if self._names:
            self[(slice(None), *where)] = values
        else:
            self[where] = values[0]

    def _describe(self, group: zarr.Group) -> None:
        ome = multiscale_metadata(self.path.name, self._geometry, self._factors(), version="0.4", kind="mean")
        if self._names:
            ome["omero"] = {
                "version": "0.4",
                "name": self.path.name,
                "channels": [
                    {
                        "label": name,
                        "color": _COLOURS.get(name, _WHITE),
                        "active": True,
                        "window": self._window(channel),
                    }
                    for channel, name in enumerate(self._names)
                ],
                "rdefs": {"model": "color"},
            }
        group.attrs.update(ome)
        group.attrs[OURS] = our_geometry(self._geometry)

    def _window(self, channel: int) -> dict[str, float]:
        low, high = self._ends[channel]
        if self._names == RGB and self.dtype.kind == "u":
            low, high = 0.0, float(np.iinfo(self.dtype).max)
        if low > high:  # nothing but NaN
            low, high = 0.0, 1.0
        return {"start": low, "end": high, "min": low, "max": high}


def write_zarr_image(contents: Contents, path: str | os.PathLike[str]) -> Path:
    """Write an image.

    Parameters
    ----------
    contents
        A Dask array is computed part by part, and the memory needed does not grow with it.
    path
        Of a folder to be made, in one that exists. An OME-Zarr image without masks that is there is replaced. Rotations and
        the frame of a patient, for which OME-Zarr has no words, are kept beside its own.

    Returns
    -------
    Path
        Where the image is.

    Raises
    ------
    BadImage
        If there is something else at `path`, or the values are of a type Zarr does not hold.
    StorageError
        If the disk refuses it; what was there before is then there still.
    """
    place = Path(os.path.realpath(path))
    with on_disk(place):
        _check_place(place)
    array: Any = contents.array
    dtype = value_type(array, allowed=_TYPES, name=place.name)
    with _ZarrImage(place, contents, dtype) as target:
        for where in parts(array.shape[1:], _part_shape(array, contents.geometry)):
            target.add(where, np.asarray(array[(slice(None), *where)]))
        return target.finish()


def _check_place(place: Path) -> None:
    if not place.exists():
        return
    node = open_node(place) if is_zarr(place) else None
    if not isinstance(node, zarr.Group) or "multiscales" not in ome_attributes(node.attrs.asdict()):
        raise BadImage(f"{place} is there already, and is no OME-Zarr image", remedy="choose another name")
    if (place / "labels").exists():
        raise BadImage(f"{place} is there already, with masks that would be lost", remedy="choose another name")


def _part_shape(array: Any, geometry: Geometry) -> tuple[int, ...]:
    """Spatial shape of what is read at a time: whole chunks, and as much of rows and slices as the memory allows."""
    channels, *shape = array.shape
    step = [min(chunk, size) for chunk, size in zip(CHUNKS[geometry.ndim], shape, strict=True)]
    for axis in (len(shape) - 1, len(shape) - 2):
        chunk = step[axis]
        most = _SLAB_BYTES * chunk // (channels * math.prod(step) * array.dtype.itemsize)
        step[axis] = shape[axis] if most >= shape[axis] else max(1, most // chunk) * chunk
    return tuple(step)
