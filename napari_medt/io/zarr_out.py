"""Masks to OME-Zarr: beside an image or on their own, in slabs as they come, whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import zarr

from napari_medt.core import BadImage, Cancel, Geometry, Progress, Volume
from napari_medt.core.progress import silent
from napari_medt.io.atomic import sync_folder
from napari_medt.io.label_values import label_dtype, label_values
from napari_medt.io.lazy import block_shape, sampling_factor
from napari_medt.io.ngff import OURS, Version, multiscale_metadata, ome_attributes, our_geometry
from napari_medt.io.pyramid import coarser, level_shapes, parts
from napari_medt.io.zarr_nodes import ZarrArray, levels_of, open_node
from napari_medt.io.zarr_places import enlist, on_disk, open_list, place_of, sync_files

_CHUNKS = {2: (1024, 1024), 3: (64, 128, 128)}


class ZarrLabels:
    """A mask on its way to disk: assign slabs as to an array, in any order, then `finish` or `discard`.

    What is assigned to is given by slices without steps, as many as there are axes or fewer.

    Nothing is seen at its place before `finish`; without it nothing is left. Several threads may assign.

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
        self.shape, self.dtype, self.ndim = tuple(shape), np.dtype(dtype), len(shape)
        self.path, self._image = place_of(path)
        self._geometry, self._names, self._colours = geometry, names, colours
        self._format: Literal[2, 3] = 2
        self._shapes = level_shapes(self.shape, geometry.spacing)
        if self._image is not None:
            self._join(self._image)
        home = self._image or self.path.parent
        self._beside = home / f".{self.path.name[:40]}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
        self._lock = threading.Lock()
        with on_disk(self.path):
            self._beside.mkdir()  # not its parents, as Zarr would
            self._clean = weakref.finalize(self, shutil.rmtree, self._beside, ignore_errors=True)
            self._group = zarr.open_group(self._beside, mode="a", zarr_format=self._format)
            self._finest = self._array(0)

    def _join(self, image: Path) -> None:
        """Take over the form of the image's file and, where the mask covers its array, its levels."""
        group = open_node(image)
        assert isinstance(group, zarr.Group)
        self._format = group.metadata.zarr_format
        described, arrays = levels_of(image, group, ome_attributes(group.attrs.asdict()))
        names = [axis.name for axis in described.axes]
        kept = [names.index(name) for name in self._geometry.axis_names if name in names]
        shapes = [tuple(array.shape[i] for i in kept) for array in arrays]
        if shapes[0] == self.shape:
            self._shapes = shapes

    def _array(self, level: int) -> ZarrArray:
        shape = self._shapes[level]
        chunks = tuple(min(chunk, size) for chunk, size in zip(_CHUNKS[self.ndim], shape, strict=True))
        return self._group.create_array(
            str(level),
            shape=shape,
            chunks=chunks,
            dtype=self.dtype,
            fill_value=0,
            chunk_key_encoding={"name": "v2" if self._format == 2 else "default", "separator": "/"},
            dimension_names=None if self._format == 2 else self._geometry.axis_names,
        )

    def __setitem__(self, where: Any, values: npt.ArrayLike) -> None:
        given = where if isinstance(where, tuple) else (where,)
        given = (*given, *(slice(None),) * (self.ndim - len(given)))
        box = [range(*part.indices(size)) for part, size in zip(given, self.shape, strict=True)]
        array = np.broadcast_to(np.asarray(values), [len(part) for part in box])
        with self._lock, on_disk(self.path):
            for part in _by_chunk(box, self._finest.chunks):  # all at once would take several times their memory
                inside = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(part, box, strict=True))
                self._finest[part] = array[inside].astype(self.dtype, copy=False)

    def finish(self, *, progress: Progress = silent, cancel: Cancel | None = None) -> Path:
        """Add the coarser levels and the description, and put the mask in its place; an older one there is replaced.

        Parameters
        ----------
        progress, cancel
            Told of, and looked at, between parts of the levels.

        Returns
        -------
        Path
            Where the mask is.

        Raises
        ------
        StorageError
            If the disk refuses it; nothing is left then.
        Cancelled
            If asked to stop; nothing is left then.
        """
        try:
            with on_disk(self.path):
                self._add_levels(progress, cancel or Cancel())
                self._describe()
                sync_files(self._beside)
                self._move()
        except BaseException:
            self.discard()
            raise
        self._clean.detach()
        return self.path

    def discard(self) -> None:
        """Leave nothing behind."""
        self._clean()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Discard what was not finished."""
        if self._clean.alive:
            self.discard()

    def _add_levels(self, progress: Progress, cancel: Cancel) -> None:
        finer = self._finest
        for level, shape in enumerate(self._shapes[1:], 1):
            array = self._array(level)
            todo = list(parts(shape, array.chunks))
            for done, where in enumerate(todo):
                cancel.check()
                progress(done, len(todo), f"Writing level {level} of {len(self._shapes) - 1}")
                part = coarser(finer, shape, where, labels=True)
                if part.any():
                    array[where] = part
            finer = array

    def _describe(self) -> None:
        version: Version = "0.4" if self._format == 2 else "0.5"
        factors = [
            [sampling_factor(size, count) for size, count in zip(self.shape, shape, strict=True)]
            for shape in self._shapes
        ]
        ome = multiscale_metadata(self.path.name, self._geometry, factors, version=version)
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
        self._group.attrs.update(ome if version == "0.4" else {"ome": {"version": version, **ome}})
        self._group.attrs[OURS] = our_geometry(self._geometry)

    def _move(self) -> None:
        """Put the finished folder in its place; one that was there is only removed afterwards."""
        if self._image is not None:
            open_list(self._image, self._format)
        old = self._beside.with_name(f"{self._beside.name}-old")
        replaced = self.path.exists()
        if replaced:
            self.path.rename(old)
        try:
            self._beside.rename(self.path)
        except OSError:
            if replaced:
                old.rename(self.path)
            raise
        sync_folder(self.path.parent)
        if self._image is not None:
            enlist(self._image, self._format, self.path.name)
        if replaced:
            shutil.rmtree(old, ignore_errors=True)


def _by_chunk(box: Sequence[range], chunks: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Cut a box at the borders of chunks."""
    edges = [
        [part.start, *range((part.start // chunk + 1) * chunk, part.stop, chunk), part.stop]
        for part, chunk in zip(box, chunks, strict=True)
    ]
    return product(*([slice(a, b) for a, b in pairwise(edge)] for edge in edges))


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
            for where in parts(array.shape, block_shape(array.shape, _CHUNKS[array.ndim], array.itemsize)):
                target[where] = array[where]
        return target.finish()


def _store_lazily(array: Any, target: ZarrLabels, name: str) -> None:
    import dask.array as da

    checked = array.map_blocks(label_values, dtype=target.dtype, to=target.dtype, name_of_file=name)
    da.store(checked, target, lock=False)  # type: ignore[arg-type]
