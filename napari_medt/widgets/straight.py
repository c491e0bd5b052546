"""Between a scan at an angle to the patient, which a model sees as it is, and the copy turned straight that is shown."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from napari_medt.core import AttentionMap, BadImage, LabelMap, Prediction, Volume

Region = tuple[slice, ...]


def region_of_scan(region: Region, shown: Volume, scan: Volume) -> Region:
    """Return the smallest box of the scan's axes that holds a box of the copy's.

    Raises
    ------
    BadImage
        If the scan does not reach there.
    """
    edges = product(*((part.start - 0.5, part.stop - 0.5) for part in region))
    corners = scan.geometry.index(shown.geometry.position(np.asarray(list(edges))))
    first = np.floor(corners.min(axis=0) + 0.5 + 1e-6).clip(0)
    last = np.ceil(corners.max(axis=0) + 0.5 - 1e-6).clip(max=scan.spatial_shape)
    if (first >= last).any():
        raise BadImage("The chosen region lies in a corner the scan does not reach", remedy="choose another region")
    return tuple(slice(int(start), int(stop)) for start, stop in zip(first, last, strict=True))


def labels_on_scan(labels: np.ndarray, shown: Volume, scan: Volume) -> np.ndarray:
    """Put labels of the copy on the scan's grid, by the nearest."""
    from napari_medt.io import resample

    return resample(LabelMap(labels, shown.geometry), scan.geometry, scan.spatial_shape, nearest=True).array


def found_on_copy(found: Prediction, shown: Volume) -> Prediction:
    """Put what was found in the scan on the copy's grid: labels by the nearest, uncertainty by interpolation.

    Of structures that overlap, the labels are kept, which are what is shown.
    """
    from napari_medt.io import resample

    grid = shown.geometry, shown.spatial_shape
    labels = resample(LabelMap(found.labels, found.geometry), *grid, nearest=True).array
    doubt = found.uncertainty
    if doubt is not None:
        doubt = resample(Volume(doubt.astype(np.float32)[None], found.geometry), *grid).array[0]
    return replace(found, labels=labels, uncertainty=doubt, structures=None, geometry=shown.geometry)


def map_on_copy(found: AttentionMap, shown: Volume, scan: Volume) -> AttentionMap:
    """Put a map of attention on the part of the copy's grid that it reaches into, by the nearest, and what lies beside it too.

    As it was, it stays in `extras["on_scan"]`.
    """
    from napari_medt.io import resample

    ends = product(*((-0.5, n - 0.5) for n in found.data.shape))
    at = shown.geometry.index(found.geometry.position(np.asarray(list(ends))))
    first = np.clip(np.floor(at.min(axis=0) + 0.5 + 1e-6), 0, np.array(shown.spatial_shape) - 1).astype(int)
    last = np.maximum(np.ceil(at.max(axis=0) + 0.5 - 1e-6).clip(max=shown.spatial_shape).astype(int), first + 1)
    geometry = shown.geometry.part(first)
    data = resample(Volume(found.data[None], found.geometry), geometry, last - first, nearest=True).array[0]
    extras = {**found.extras, "on_scan": found}
    if "window" in extras:
        extras["window"] = np.array([first, last]) - 0.5  # as the map lies: two frames beside each other tell nothing
    if "targets" in extras:
        extras["targets"] = shown.geometry.index(scan.geometry.position(extras["targets"]))
    return replace(found, data=data, geometry=geometry, extras=extras)
