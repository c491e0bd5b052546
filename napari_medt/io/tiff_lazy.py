"""TIFF tile by tile: what is looked at is read, the rest stays on disk."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import Any

import tifffile

from napari_medt.core.volume import Array
from napari_medt.io.arrangement import Arrangement
from napari_medt.io.lazy import Stored, lazy


class _OpenLevel:
    """A level of an image in an open file, which is closed when nobody needs it any more; safe for threads."""

    def __init__(self, path: Path, which: int, level: int) -> None:
        import zarr  # takes half a second, which the first look may cost but not the opening

        tiff = tifffile.TiffFile(path)
        weakref.finalize(self, tiff.close)
        store = tiff.series[which].aszarr(level=level)
        self._array = zarr.open_array(store, mode="r")

    def __getitem__(self, where: Any) -> Any:
        return self._array[where]


def lazy_levels(path: Path, which: int, series: Any, seen: Arrangement) -> list[Array]:
    """Show all levels of an image without loading them.

    Parameters
    ----------
    path, which
        The file, and the number of the image in it.
    series
        The image, as tifffile describes it.
    seen
        How its axes become `(c, [z,] y, x)`.

    Returns
    -------
    list of dask.array.Array
        Finest first.
    """
    changed = path.stat().st_mtime_ns
    levels = []
    for number, level in enumerate(series.levels):
        page = level.keyframe
        tile = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        by_letter = {"Y": tile[0], "X": tile[1], "S": page.samplesperpixel if page.planarconfig == 1 else 1}
        chunks = [by_letter.get(letter, 1) for letter in level.axes]
        stored = Stored(
            partial(_OpenLevel, path, which, number),
            shape=level.shape,
            dtype=level.dtype,
            seen=seen,
            name=path.name,
            identity=(str(path.resolve()), changed, which, number),
        )
        levels.append(lazy(stored, seen.shape(chunks)))
    return levels
