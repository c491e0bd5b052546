"""Which part of a draft somebody looked at: all that may be learnt from it before a person vouches for the whole mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

LEAST = 32
"""Pixels around a change, however small, that nobody changes without having them in view."""

Mask = npt.NDArray[np.bool_]


def looked_at(edited: Mask) -> Mask:
    """Return what was changed and what lies around it in the slice: as far as the change is large, at least `LEAST` pixels.

    Parameters
    ----------
    edited
        `(y, x)` or `(z, y, x)`, true where a person changed the mask. Slices of a scan are those across the axis along which
        the fewest were worked on.

    Examples
    --------
    >>> edited = np.zeros((400, 400), bool)
    >>> edited[200, 100:140] = True
    >>> seen = looked_at(edited)
    >>> int(seen[200].sum()), int(seen[:, 120].sum())
    (120, 81)
    """
    if edited.ndim == 2:
        return _around(edited)
    worked_on = [edited.any(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    axis = min(range(3), key=lambda axis: worked_on[axis].sum())
    seen = np.zeros_like(edited)
    for index in np.flatnonzero(worked_on[axis]):
        place = (slice(None),) * axis + (index,)
        seen[place] = _around(edited[place])
    return seen


def _around(edited: Mask) -> Mask:
    seen = np.zeros_like(edited)
    for change in ndimage.find_objects(ndimage.label(edited, np.ones((3, 3)))[0]):
        reach = max(LEAST, *(part.stop - part.start for part in change))
        seen[tuple(slice(max(0, part.start - reach), part.stop + reach) for part in change)] = True
    return seen
