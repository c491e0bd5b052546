"""Images that stay on disk: a Dask array whose parts are read when they are asked for."""

from __future__ import annotations

import errno
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage, MedtError
from napari_medt.core.volume import Array
from napari_medt.io.arrangement import Arrangement

_BLOCK_BYTES = 2**24
_MOST_BLOCKS = 20_000


class Stored:
    """An array on disk, seen with its axes in the order wanted.

    May be read by several threads at once, and may be sent to another process, which opens the file anew.

    Parameters
    ----------
    opener
        Opens what is on disk: something with `shape`, `dtype` and indexing by slices. Called at the first reading, and
        again in each process; a failure in it, or later in reading, becomes one sentence.
    shape, dtype
        Of the array on disk.
    seen
        How its axes are seen from outside.
    name
        Of the file, for messages.
    identity
        What tells these values from all others: path, part and time of change.
    """

    def __init__(
        self,
        opener: Callable[[], Any],
        *,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        seen: Arrangement,
        name: str,
        identity: tuple[Any, ...],
    ) -> None:
        self.shape = seen.shape(shape)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)
        self._opener, self._seen, self._name, self._identity = opener, seen, name, identity
        self._opened: Any = None
        self._lock = threading.Lock()

    def __getitem__(self, where: Any) -> Array:
        given = where if isinstance(where, tuple) else (where,)
        missing = self.ndim - sum(part is not None for part in given)
        given = (*given, *(slice(None),) * missing)
        try:
            with self._lock:
                if self._opened is None:
                    self._opened = self._opener()
            return self._part(given)
        except (MedtError, MemoryError):
            raise
        except Exception as error:
            if getattr(error, "errno", None) == errno.ENOMEM:  # a file that cannot be mapped, not a bad one
                raise MemoryError from error
            raise BadImage(
                f"A part of {self._name} cannot be read: it is damaged, or the file is no longer there",
                remedy="copy or export it again",
            ) from error

    def _part(self, given: Sequence[Any]) -> Array:
        """Read what NumPy's indexing by numbers, slices, `None` and at most one list means."""
        boxes: list[int | slice] = []
        picks: list[Any] = []
        for part in (part for part in given if part is not None):
            if isinstance(part, (int, np.integer)):
                boxes.append(int(part))
            elif isinstance(part, slice):
                boxes.append(part)
                picks.append(slice(None))
            else:
                chosen = np.asarray(part, np.intp)
                start, stop = (int(chosen.min()), int(chosen.max()) + 1) if chosen.size else (0, 0)
                boxes.append(slice(start, stop))
                picks.append(chosen - start)
        found = self._seen.part(self._opened, boxes)[tuple(picks)]
        places = [part for part in given if not isinstance(part, (int, np.integer))]
        return np.expand_dims(found, [place for place, part in enumerate(places) if part is None])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _opened=None, _lock=threading.Lock())

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (*self._identity, self.shape, self._seen.order, tuple(sorted(self._seen.fixed.items())))


def lazy(stored: Stored, chunks: Sequence[int]) -> Array:
    """Show an array on disk as a Dask array.

    Parameters
    ----------
    stored
        The array.
    chunks
        Shape of the pieces it is stored in, axes as in `stored`. The Dask array's blocks are made of several, so that
        also an image of 100,000 by 100,000 has no more than some thousands; a small part is read without the rest of
        its block.
    """
    blocks = block_shape(stored.shape, chunks, stored.dtype.itemsize)
    meta = np.empty((0,) * stored.ndim, stored.dtype)
    array: Array = da.from_array(stored, chunks=blocks, meta=meta)
    return array


def block_shape(shape: Sequence[int], chunks: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Group chunks into blocks of about 16 MB, first along the last two axes, then along the others but the first."""
    blocks = [min(chunk, size) for chunk, size in zip(chunks, shape, strict=True)]
    target = max(_BLOCK_BYTES, math.prod(shape) * itemsize // _MOST_BLOCKS)
    for group in ([len(shape) - 2, len(shape) - 1], list(range(len(shape) - 3, 0, -1))):
        while 2 * math.prod(blocks) * itemsize <= target:
            axis = min(
                (axis for axis in group if blocks[axis] < shape[axis]), key=lambda axis: blocks[axis], default=None
            )
            if axis is None:
                break
            blocks[axis] = min(2 * blocks[axis], shape[axis])
    return tuple(blocks)


def sampling_factor(size: int, level: int) -> float:
    """Say how many of `size` samples one of `level` samples stands for: whole where rounding explains the rest."""
    whole = round(size / level)
    return float(whole) if whole and size // whole <= level <= -(-size // whole) else size / level
