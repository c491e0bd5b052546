"""What the values of an image say about where it comes from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import Volume
from napari_medt.engine.rows import in_rows

Array = npt.NDArray[Any]
AIR = -900.0  # Hounsfield units; scanners give about -1000, and fill what they did not see with that or less


def sampled(array: Array, *, at_most: int) -> tuple[Array, tuple[int, ...]]:
    """Every n-th sample of `(c, *spatial)` along each spatial axis, and these n; read in bands, so that little is held.

    Longer axes are thinned out first, so that thick slices are all looked at.
    """
    shape = array.shape[1:]
    edge = max(shape)
    while array.shape[0] * math.prod(min(size, edge) for size in shape) > at_most and edge > 1:
        edge = edge * 9 // 10
    strides = tuple(-(-size // edge) for size in shape)
    source, every = in_rows(array), tuple(slice(None, None, stride) for stride in strides[1:])
    rest = [slice(0, size) for size in shape[1:]]
    rows = (source[(slice(None), slice(row, row + 1), *rest)] for row in range(0, shape[0], strides[0]))
    return np.concatenate([np.asarray(row)[(slice(None), slice(None), *every)] for row in rows], axis=1), strides


def is_hounsfield(volume: Volume, sample: Array) -> bool:
    """Whether values are Hounsfield units: the file says so, or says nothing and a sample holds air and tissue like CT."""
    acquisition = volume.acquisition
    if acquisition.value_unit or acquisition.modality:
        return acquisition.value_unit == "HU" or (not acquisition.value_unit and acquisition.modality == "CT")
    return looks_like(sample) == "CT"


def looks_like(sample: Array) -> str:
    """Where values come from, `"CT"`, `"MR"` or empty where it cannot be told.

    CT has air at about -1000 and tissue around 0, nothing in much of the range between. MR has no negative values, fractions
    of its largest value everywhere, and reaches beyond the 255 of pictures.
    """
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return ""
    low, high = float(finite.min()), float(finite.max())
    if low < 0:
        tissue = np.mean((finite > -200) & (finite < 300))
        return "CT" if low <= AIR and high > 100 and tissue > 0.02 else ""
    return "MR" if 255 < high < 2**15 and float(np.mean(finite < 0.1 * high)) > 0.05 else ""
