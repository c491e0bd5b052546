"""What was read as an image, taken as masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage
from napari_medt.core.volume import Array


def one_channel(array: Array, name: str) -> Array:
    """Return the one channel of `(c, *spatial)`; several are one where they are equal, as in a grey mask kept as colour.

    Raises
    ------
    BadImage
        If they differ.
    """
    if len(array) > 1 and not all(np.array_equal(array[0], other) for other in array[1:]):
        raise BadImage(
            f"{name} holds {len(array)} different channels, so it is a picture and not a mask",
            remedy="choose a file with one number a pixel",
        )
    first: Array = array[0]
    return first


def as_labels(values: Array, name: str) -> npt.NDArray[np.unsignedinteger]:
    """Return whole numbers from 0 up as uint8, uint16 or uint32: as stored, the smallest that fits for other types.

    Raises
    ------
    BadImage
        If the values are fractions, negative or too large.
    """
    labels = np.asarray(values)
    if labels.dtype.kind not in "buif":
        raise BadImage(f"{name} holds values of type {labels.dtype}, so it is not a mask", remedy="choose another file")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            raise BadImage(f"{name} holds fractions, so it is not a mask", remedy="choose a file with whole numbers")
        if abs(labels).max() >= 2**32:
            raise BadImage(f"{name} holds numbers too large for labels", remedy="number its labels anew")
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise BadImage(
            f"{name} holds negative numbers, so it is not a mask", remedy="choose a file with labels from 0 up"
        )
    if labels.dtype not in (np.uint8, np.uint16, np.uint32):
        labels = labels.astype(smallest_dtype(int(labels.max()), name))
    return np.ascontiguousarray(labels)


def smallest_dtype(highest: int, name: str) -> np.dtype[np.unsignedinteger]:
    """Return the smallest of uint8, uint16 and uint32 that holds `highest`.

    Raises
    ------
    BadImage
        If none does.
    """
    for dtype in (np.uint8, np.uint16, np.uint32):
        if highest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise BadImage(
        f"{name} holds labels up to {highest}, which is more than fits a file", remedy="number its labels anew"
    )
