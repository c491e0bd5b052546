"""Masks to OME-Zarr: beside an image or on their own, in slabs as they come, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr

from napari_medt.core import BadImage, Geometry, Volume
from napari_medt.io.label_values import label_dtype, label_values
from napari_medt.io.lazy import block_shape
from napari_medt.io.ngff import OURS, Version, multiscale_metadata, ome_attributes, our_geometry
from napari_medt.io.pyramid import level_shapes, parts
from napari_medt.io.zarr_nodes import levels_of, open_node
from napari_medt.io.zarr_places import enlist, on_disk, open_list, place_of
from napari_medt.io.zarr_pyramid import CHUNKS, ZarrPyramid


class ZarrLabels(ZarrPyramid):
    """A mask on its way to disk: assign slabs as to an array, in any order, then `finish` or `discard`.

    Attributes
    ----------
    shape, dtype
        Of the mask.
    path
        Where it will be.
    """

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        geometry: Geometry,
        *,
        names: Mapping[int, str],
        colours: Mapping[int, tuple[float, float, float]],
    ) -> None:
        with on_disk(path):
            place, self._image = place_of(path)
        self._names, self._colours = names, colours
        shapes: Sequence[Sequence[int]] = level_shapes(shape, geometry.spacing)
        zarr_format: Literal[2, 3] = 2
        if self._image is not None:
            zarr_format, theirs = _form_of(self._image, geometry)
            shapes = theirs if theirs[0] == tuple(shape) else shapes
        super().__init__(
            place, shapes, dtype, geometry, labels=True, beside=self._image or place.parent, zarr_format=zarr_format
        )

    def _describe(self, group: zarr.Group) -> None:
        version: Version = "0.4" if self._format == 2 else "0.5"
        ome = multiscale_metadata(self.path.name, self._geometry, self._factors(), version=version, kind="mode")
        label: dict[str, Any] = {"version": version}
        if self._colours:
            label["colors"] = [
                {"label-value": int(value), "rgba": [*(round(255 * part) for part in colour), 255]}
                for value, colour in self._colours.items()
            ]
        if self._names:
            label["properties"] = [{"label-value": int(value), "name": name} for value, name in self._names.items()]
        if self._image is not None:
            label["source"] = {"image": "../../"}
        ome["image-label"] = label
        group.attrs.update(ome if version == "0.4" else {"ome": {"version": version, **ome}})
        group.attrs[OURS] = our_geometry(self._geometry)

    def _move(self) -> None:
        if self._image is None:
            super()._move()
            return
        open_list(self._image, self._format)
        super()._move()
        enlist(self._image, self._format, self.path.name)


def _form_of(image: Path, geometry: Geometry) -> tuple[Literal[2, 3], list[tuple[int, ...]]]:
    """Format of an image's file, and the shapes of its levels along the axes of a mask."""
    group = open_node(image)
    assert isinstance(group, zarr.Group)
    described, arrays = levels_of(image, group, ome_attributes(group.attrs.asdict()))
    names = [axis.name for axis in described.axes]
    kept = [names.index(name) for name in geometry.axis_names if name in names]
    return group.metadata.zarr_format, [tuple(array.shape[i] for i in kept) for array in arrays]


def create_zarr_labels(
    path: str | os.PathLike[str],
    *,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    geometry: Geometry,
    names: Mapping[int, str] | None = None,
    colours: Mapping[int, tuple[float, float, float]] | None = None,
) -> ZarrLabels:
    """Begin a mask on disk that is filled slab by slab.

    Parameters
    ----------
    path
        An OME-Zarr image, which then gets the mask as `labels/segmentation`; `labels/<name>` inside one; or a new
        `.ome.zarr`, in a folder that exists.
    shape, dtype
        `(y, x)` or `(z, y, x)`; uint8, uint16 or uint32.
    geometry
        Of the mask. Rotations and the frame of a patient, for which OME-Zarr has no words, are kept beside its own.
    names, colours
        By label value; colours are red, green and blue in [0, 1].

    Raises
    ------
    BadImage
        If there is something else at `path`, or the shape does not fit the geometry.
    StorageError
        If the disk refuses it.
    """
    if geometry.ndim != len(shape) or min(shape, default=0) < 1:
        raise BadImage(f"A mask of shape {tuple(shape)} does not fit a geometry of {geometry.ndim} axes")
    return ZarrLabels(Path(path).expanduser(), shape, dtype, geometry, names=names or {}, colours=colours or {})


def write_zarr_labels(
    labels: npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    geometry: Geometry | None = None,
    names: Mapping[int, str] | None = None,
    colours: Mapping[int, tuple[float, float, float]] | None = None,
    source: Volume | None = None,
) -> Path:
    """Write a mask as OME-Zarr, whole or not at all.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)` of whole numbers from 0 up; a Dask array is computed block by block.
    path, names, colours
        As for `create_zarr_labels`.
    geometry
        Of the mask; that of `source`, or 1 px, by default.
    source
        The image it belongs to.

    Returns
    -------
    Path
        Where the mask is.

    Raises
    ------
    BadImage
        If the array is no mask, or does not fit.
    StorageError
        If the disk refuses it.
    """
    array: Any = labels if hasattr(labels, "dask") else np.asarray(labels)
    place = Path(path).expanduser()
    if array.ndim not in (2, 3) or array.size == 0:
        raise BadImage(
            f"An array of shape {array.shape} is no mask of an image or a scan", remedy="give a 2D or 3D mask"
        )
    if source is not None and source.spatial_shape != array.shape and geometry is None:
        raise BadImage(f"The mask of shape {array.shape} does not fit its image of shape {source.spatial_shape}")
    geometry = geometry or (source.geometry if source else Geometry.from_spacing((1.0,) * array.ndim))
    dtype = label_dtype(array, place.name)
    with create_zarr_labels(
        place, shape=array.shape, dtype=dtype, geometry=geometry, names=names, colours=colours
    ) as target:
        if hasattr(array, "dask"):
            _store_lazily(array, target, place.name)
        else:
            for where in parts(array.shape, block_shape(array.shape, CHUNKS[array.ndim], array.itemsize)):
                target[where] = array[where]
        return target.finish()


def _store_lazily(array: Any, target: ZarrLabels, name: str) -> None:
    import dask.array as da

    checked = array.map_blocks(label_values, dtype=target.dtype, to=target.dtype, name_of_file=name)
    da.store(checked, target, lock=False)  # type: ignore[arg-type]
