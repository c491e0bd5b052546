"""Whole numbers from 0 up: what may be a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage
from napari_medt.core.volume import Array


def label_dtype(array: Any, name: str) -> np.dtype[np.unsignedinteger]:
    """Choose the type in which labels are kept.

    Parameters
    ----------
    array
        In memory, or a Dask array, which is not computed.
    name
        Of the file, for messages.

    Returns
    -------
    numpy.dtype
        uint8, uint16 or uint32: that of the array where it is one of them, else the smallest that holds its values; for
        arrays that are not in memory, the smallest that holds whatever their type can.

    Raises
    ------
    BadImage
        If the values are fractions, negative or too large.
    """
    if array.dtype.kind not in "bui":
        raise BadImage(f"The values for {name} are of type {array.dtype}, which are no labels", remedy="give a mask")
    kept: tuple[type[np.unsignedinteger], ...] = (np.uint8, np.uint16, np.uint32)
    if array.dtype.kind == "b":
        return np.dtype(np.uint8)
    if hasattr(array, "dask") or array.dtype in kept:
        return np.dtype(next((dtype for dtype in kept if np.dtype(dtype).itemsize == array.dtype.itemsize), np.uint32))
    highest = int(array.max(initial=0))
    chosen = np.dtype(next((dtype for dtype in kept if highest <= np.iinfo(dtype).max), np.uint32))
    label_values(array, to=chosen, name_of_file=name)
    return chosen


def label_values(array: Array, *, to: npt.DTypeLike, name_of_file: str) -> Array:
    """Return labels as another type, if that holds them.

    Raises
    ------
    BadImage
        If values are negative or too large.
    """
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise BadImage(
            f"{name_of_file} holds negative numbers, so it is not a mask", remedy="number its labels from 0 up"
        )
    if array.dtype.itemsize > np.dtype(to).itemsize and array.size and array.max() > np.iinfo(np.dtype(to)).max:
        raise BadImage(f"{name_of_file} holds numbers too large for labels", remedy="number its labels anew")
    return array.astype(to, copy=False)
