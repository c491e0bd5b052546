"""What the values of an image say about where it comes from."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from napari_medt.core import Volume
from napari_medt.engine.rows import in_rows

Array = npt.NDArray[Any]
Looks = Literal["CT", "MR", "fundus photographs"]
FUNDUS: Final = "fundus photographs"
AIR = -900.0  # Hounsfield units; scanners give about -1000, and fill what they did not see with that or less
SHIFT = 1024.0  # often added to them, so that they are not negative


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
    return looks_like(volume, sample) == "CT"


def looks_like(volume: Volume, sample: Array) -> Looks | None:
    """Where the values of an image seem to come from; `None` where that cannot be told.

    A photograph of the fundus is a bright disc, redder than green and greener than blue, in a dark frame. CT and MR are looked
    for in scans in the frame of a patient only. In CT, half of all values or more are those of air and of soft tissue. MR has
    hardly any negative values. What has no negative values may also be CT to which 1024 was added, if there are two such heaps;
    and a mask has few different values.
    """
    values = sample[np.isfinite(sample)]
    if values.size and volume.geometry.ndim == 2 and len(sample) == 3:
        return FUNDUS if _is_fundus(sample) else None
    if volume.geometry.frame != "patient" or not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    if low <= AIR:
        return "CT" if _heaps(values, at_least=0.0) > 0.5 else None
    if low < -0.1 * high or len(np.unique(values[:: max(1, values.size // 10_000)])) < 30:
        return None
    if SHIFT <= high < 5 * SHIFT and low >= 0 and _heaps(values.astype(np.float32) - SHIFT, at_least=0.1) > 0.8:
        return None
    return "MR"


def _is_fundus(sample: Array) -> bool:
    """Whether colours `(3, y, x)` show a disc of the fundus in a dark frame."""
    colours = sample.astype(np.float32)
    rows, columns = (max(1, size // 20) for size in colours.shape[1:])
    edges = (slice(None, rows), slice(-rows, None)), (slice(None, columns), slice(-columns, None))
    corners = [colours[:, row, column].mean() for row in edges[0] for column in edges[1]]
    red, green, blue = (float(colour.mean()) for colour in colours[:, colours.shape[1] // 4 : -colours.shape[1] // 4])
    return red > 1.2 * green and green > 1.1 * blue and max(corners) < 0.25 * red


def _heaps(values: Array, *, at_least: float) -> float:
    """Share of values that are air or soft tissue, if both are there."""
    air, tissue = float(np.mean(values <= AIR)), float(np.mean((values > -200) & (values < 300)))
    return air + tissue if min(air, tissue) > at_least else 0.0
