"""The box around the body, found on a coarse grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_medt.core import AxisMap, Volume
from napari_medt.engine.channels import Channels
from napari_medt.engine.looks import is_hounsfield, sampled
from napari_medt.engine.windows import Box

Array = npt.NDArray[Any]
COARSE = 2_000_000  # values that are looked at
BODY = -500.0  # Hounsfield units, halfway between air and water
FAINT = 0.05  # of the way from the first percentile to the last but one, below which there is only noise
ISLAND = 0.05  # share of the largest part that another must have to count
MARGIN_MM = 10.0
MARGIN = 0.03  # share of an axis, where lengths are not known


def foreground_box(array: Array, volume: Volume, channels: Channels, axes: AxisMap) -> Box | None:
    """The box around what is not air or empty, with a margin.

    In CT, that is the largest connected part above -500 Hounsfield units; elsewhere, all large parts that are brighter than
    the darkest.

    Parameters
    ----------
    array
        `(c, *spatial)`, that of `volume`, its axes rearranged by `axes`; possibly lazily loaded.
    volume
        For its spacing, and for what its values are.
    channels
        Which are looked at: a place counts where any of them is not empty.

    Returns
    -------
    tuple of slice or None
        In the axes of `array`; `None` where nothing is found, or nothing would be gained.
    """
    coarse, strides = sampled(array, at_most=COARSE)
    picked = channels.pick(coarse)
    hounsfield = is_hounsfield(volume, picked)
    inside = np.zeros(picked.shape[1:], dtype=bool)
    for values in picked:
        if hounsfield:
            inside |= values > BODY
            continue
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = np.percentile(finite, (1, 99))
            inside |= values > low + FAINT * (high - low)
    parts, count = ndimage.label(inside)
    if not count:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    share = 1.0 if hounsfield else ISLAND
    kept = [
        box for box, size in zip(ndimage.find_objects(parts), sizes[1:], strict=True) if size >= share * sizes.max()
    ]
    box = []
    for axis, (size, stride) in enumerate(zip(array.shape[1:], strides, strict=True)):
        spacing = volume.geometry.spacing[axes.order[axis]] * (volume.geometry.unit_mm or 0.0)
        margin = stride + int(np.ceil(MARGIN_MM / spacing if spacing else MARGIN * size))
        start = min(part[axis].start for part in kept) * stride - margin
        stop = (max(part[axis].stop for part in kept) - 1) * stride + 1 + margin
        box.append(slice(max(0, start), min(size, stop)))
    whole = all(part == slice(0, size) for part, size in zip(box, array.shape[1:], strict=True))
    return None if whole else tuple(box)
