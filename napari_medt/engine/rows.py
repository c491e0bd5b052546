"""Reading a lazily loaded image row by row, each part once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
AHEAD = 2**27  # bytes that may be read beyond what is asked for


class Rows:
    """A lazily loaded array `(c, *spatial)` of which the rows in work are held, so that windows side by side share them.

    Rows are read up to the next border of the array's own chunks, so that none is read or computed twice, unless that would be
    much more than is asked for.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape, self.dtype, self.ndim = tuple(array.shape), np.dtype(array.dtype), array.ndim
        self._borders = _borders(array)
        self._ahead = int(AHEAD // max(1, self.dtype.itemsize * np.prod(self.shape) // self.shape[1]))
        self._first = 0
        self._held: Array = np.empty((self.shape[0], 0, *self.shape[2:]), dtype=self.dtype)

    def __getitem__(self, where: tuple[slice, ...]) -> Array:
        """One part, by slices with explicit ends for every spatial axis."""
        channels, rows, *rest = where
        height = rows.stop - rows.start
        end = self._first + self._held.shape[1]
        if rows.start < self._first or rows.stop > end:
            keep = slice(max(rows.start - height, self._first), end)  # windows may go back a little
            if rows.start < self._first or rows.start > end:
                keep = slice(rows.start, rows.start)
            stop = self._up_to(rows.stop, at_most=rows.stop + max(2 * height, self._ahead))
            kept = self._held[:, keep.start - self._first : keep.stop - self._first]
            read = np.asarray(self._array[:, keep.stop : stop])
            self._held = np.concatenate((kept, read), axis=1) if kept.shape[1] else read
            self._first = keep.start
        return self._held[(channels, slice(rows.start - self._first, rows.stop - self._first), *rest)]

    def _up_to(self, row: int, *, at_most: int) -> int:
        border = int(self._borders[np.searchsorted(self._borders, row)]) if len(self._borders) else row
        return border if border <= at_most else row


def in_rows(array: Any) -> Any:
    """The array itself where it lies in memory or is mapped there, else its `Rows`."""
    return array if isinstance(array, np.ndarray) else Rows(array)


def _borders(array: Any) -> Array:
    """Where chunks end along the first spatial axis; of Dask's arrays and of Zarr's."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return np.empty(0, dtype=int)
    along, size = chunks[1], array.shape[1]
    return np.cumsum(along) if isinstance(along, tuple) else np.minimum(np.arange(along, size + along, along), size)
