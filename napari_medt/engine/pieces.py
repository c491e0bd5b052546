"""Structures that come in one piece: what a model marks far from the rest of one is left out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

WHOLE = 0.95  # share of a mask: those that people draw have stray voxels too
Labels = npt.NDArray[np.integer[Any]]


def largest_part(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest connected part of a mask `(y, x)` or `(z, y, x)`, neighbours by corners included; an empty mask stays empty."""
    part: npt.NDArray[np.bool_] = cc3d.largest_k(mask, k=1, connectivity=8 if mask.ndim == 2 else 26) > 0
    return part


def is_one_piece(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether the largest part is nearly all of a mask; an empty one is in one piece."""
    return bool(largest_part(mask).sum() >= WHOLE * mask.sum())


def leave_out_strays(labels: Labels, values: Collection[int]) -> tuple[int, ...]:
    """Set to 0, in place, what is not in the largest part of each structure.

    Parameters
    ----------
    labels
        `(y, x)` or `(z, y, x)`.
    values
        Labels of the structures.

    Returns
    -------
    tuple of int
        Those that had further parts.
    """
    found = []
    boxes = find_objects(labels, max_label=max(values, default=0))
    for value in values:
        box = boxes[value - 1]
        if box is None:
            continue
        part = labels[box]
        mask = part == value
        strays = mask & ~largest_part(mask)
        if strays.any():
            part[strays] = 0
            found.append(value)
    return tuple(found)
