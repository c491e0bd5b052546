"""Slides in DICOM: tiles that make one picture, read when they are looked at."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from pydicom.dataset import Dataset

from napari_medt.core import Geometry
from napari_medt.core.volume import Array
from napari_medt.io.arrangement import Arrangement
from napari_medt.io.dicom_frames import Frame
from napari_medt.io.dicom_header import items, number, text
from napari_medt.io.lazy import Stored, lazy


def slide_geometry(spacing: tuple[float, float] | None) -> Geometry:
    """Of a slide whose pixels are `spacing` mm large, in um; in px where that is not known."""
    if spacing is None:
        return Geometry.from_spacing((1.0, 1.0))
    return Geometry.from_spacing([size * 1000 for size in spacing], units="um")


def read_levels(levels: Sequence[Frame]) -> list[Array]:
    """See each level of a slide as a Dask array `(c, y, x)`, finest first as given."""
    found = []
    for level in levels:
        header = level.header
        count = int(number(header, "SamplesPerPixel") or 1)
        stored = Stored(
            partial(_Tiles, level.file),
            shape=(*level.shape, count),
            dtype=np.uint8 if (number(header, "BitsAllocated") or 8) <= 8 else np.uint16,
            seen=Arrangement((2, 0, 1)),
            name=os.path.basename(level.file),
            identity=(os.path.realpath(level.file), os.stat(level.file).st_mtime_ns),
        )
        found.append(lazy(stored, (count, int(header.Rows), int(header.Columns))))
    return found


def tile_corners(header: Dataset) -> Iterator[tuple[int, int]]:
    """Row and column of the first pixel of each frame in the whole picture; those of a full tiling go row by row."""
    rows, columns = int(header.Rows), int(header.Columns)
    across = -(-int(header.TotalPixelMatrixColumns) // columns)
    tiles = across * -(-int(header.TotalPixelMatrixRows) // rows)
    each = items(header, "PerFrameFunctionalGroupsSequence")
    for index in range(int(number(header, "NumberOfFrames") or 1)):
        for slide in [tile for group in each[index : index + 1] for tile in items(group, "PlanePositionSlideSequence")]:
            yield (
                int(slide.RowPositionInTotalImagePixelMatrix) - 1,
                int(slide.ColumnPositionInTotalImagePixelMatrix) - 1,
            )
            break
        else:
            yield (index % tiles // across) * rows, (index % tiles % across) * columns


class _Tiles:
    """An open level as `(y, x, c)`; what was not scanned is white, or zero where there is no colour."""

    def __init__(self, file: str) -> None:
        from highdicom.io import ImageFileReader

        self._reader = ImageFileReader(file)
        self._reader.open()
        header = self._reader.metadata
        self._size = (int(header.Rows), int(header.Columns))
        self._total = (int(header.TotalPixelMatrixRows), int(header.TotalPixelMatrixColumns))
        self._blank = 255 if text(header, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2") else 0
        self._count = int(header.SamplesPerPixel)
        corners = np.asarray(list(tile_corners(header)))
        self._corners, self._frames = np.unique(corners, axis=0, return_index=True)  # the first of several focal planes
        self._lock = threading.Lock()

    def __getitem__(self, where: tuple[int | slice, ...]) -> Array:
        down, across = (
            range(*part.indices(size)) if isinstance(part, slice) else range(part, part + 1)
            for part, size in zip(where[:2], self._total, strict=True)
        )
        start, stop = np.array([min(down), min(across)]), np.array([max(down), max(across)]) + 1
        needed = ((self._corners < stop) & (self._corners + self._size > start)).all(axis=1)
        out: Array | None = None
        for corner, frame in zip(self._corners[needed], self._frames[needed], strict=True):
            with self._lock:
                tile = np.atleast_3d(self._reader.read_frame(int(frame), correct_color=False))
            if out is None:
                out = np.full((*(stop - start), self._count), self._blank, tile.dtype)
            low, high = np.maximum(corner, start), np.minimum(corner + self._size, stop)
            into, part = low - start, low - corner
            size = high - low
            out[into[0] : into[0] + size[0], into[1] : into[1] + size[1]] = tile[
                part[0] : part[0] + size[0], part[1] : part[1] + size[1]
            ]
        if out is None:
            out = np.full((*(stop - start), self._count), self._blank, np.uint8)
        seen = out[np.ix_([row - start[0] for row in down], [column - start[1] for column in across])]
        kept = tuple(slice(None) if isinstance(part, slice) else 0 for part in where[:2])
        return np.asarray(seen[(*kept, where[2])])
