"""A pyramid on its way into a Zarr: filled part by part beside its place, and moved there when it is whole."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import weakref
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import zarr

from napari_medt.core import Cancel, Geometry, Progress
from napari_medt.core.progress import silent
from napari_medt.io.atomic import sync_folder
from napari_medt.io.lazy import sampling_factor
from napari_medt.io.pyramid import coarser, parts
from napari_medt.io.zarr_nodes import ZarrArray
from napari_medt.io.zarr_places import on_disk, sync_files

CHUNKS = {2: (1024, 1024), 3: (64, 128, 128)}


class ZarrPyramid:
    """Assign parts as to an array, in any order, then `finish` or `discard`.

    What is assigned to is given by slices without steps, as many as there are axes or fewer.

    Nothing is seen at its place before `finish`; without it nothing is left. Several threads may assign.

    Parameters
    ----------
    path
        Where it will be.
    shapes
        Of the levels, finest first: of the spatial axes, after that of channels where there is one.
    dtype
        Of the values.
    geometry
        Of the spatial axes.
    labels
        Whether coarser levels hold the most frequent values instead of means; pieces of zeros are then left out.
    beside
        Folder in which it is made; that of `path` by default.
    zarr_format
        2 or 3.

    Attributes
    ----------
    shape, dtype
        Of the finest level.
    path
        Where it will be.
    """

    def __init__(
        self,
        path: Path,
        shapes: Sequence[Sequence[int]],
        dtype: npt.DTypeLike,
        geometry: Geometry,
        *,
        labels: bool,
        beside: Path | None = None,
        zarr_format: Literal[2, 3] = 2,
    ) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self.shape, self.ndim = tuple(shapes[0]), len(shapes[0])
        self._shapes, self._geometry, self._labels, self._format = shapes, geometry, labels, zarr_format
        self._beside = (beside or path.parent) / f".{path.name[:40]}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
        self._lock = threading.Lock()
        with on_disk(self.path):
            self._beside.mkdir()  # not its parents, as Zarr would
            self._clean = weakref.finalize(self, shutil.rmtree, self._beside, ignore_errors=True)
            self._group = zarr.open_group(self._beside, mode="a", zarr_format=self._format)
            self._finest = self._array(0)

    def _array(self, level: int) -> ZarrArray:
        shape, geometry = self._shapes[level], self._geometry
        channels = (1,) * (self.ndim - geometry.ndim)
        chunks = tuple(min(chunk, size) for chunk, size in zip((*channels, *CHUNKS[geometry.ndim]), shape, strict=True))
        return self._group.create_array(
            str(level),
            shape=tuple(shape),
            chunks=chunks,
            dtype=self.dtype,
            fill_value=0,
            chunk_key_encoding={"name": "v2" if self._format == 2 else "default", "separator": "/"},
            dimension_names=None if self._format == 2 else (*("c" for _ in channels), *geometry.axis_names),
            config={"write_empty_chunks": not self._labels},  # of an image, what is missing has been lost
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
        """Add the coarser levels and the description, and put it in its place; what was there before is replaced.

        Parameters
        ----------
        progress, cancel
            Told of, and looked at, between parts of the levels.

        Returns
        -------
        Path
            Where it is.

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
                self._describe(self._group)
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
                part = coarser(finer, shape, where, labels=self._labels)
                if not self._labels or part.any():
                    array[where] = part
            finer = array

    def _factors(self) -> list[list[float]]:
        """By level and axis: how many of the finest samples one stands for."""
        return [
            [sampling_factor(size, count) for size, count in zip(self.shape, shape, strict=True)]
            for shape in self._shapes
        ]

    def _describe(self, group: zarr.Group) -> None:
        """Write the attributes."""
        raise NotImplementedError

    def _move(self) -> None:
        """Put the finished folder in its place; one that was there is only removed afterwards."""
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
        if replaced:
            shutil.rmtree(old, ignore_errors=True)


def _by_chunk(box: Sequence[range], chunks: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Cut a box at the borders of chunks."""
    edges = [
        [part.start, *range((part.start // chunk + 1) * chunk, part.stop, chunk), part.stop]
        for part, chunk in zip(box, chunks, strict=True)
    ]
    return product(*([slice(a, b) for a, b in pairwise(edge)] for edge in edges))
