"""Distances between the surfaces of two masks: Hausdorff, average, and the share within a tolerance.

Three public codes measure them in three ways, so each function says whose definition it follows:

- `"monai"`: the surface is the border voxels, each counts alike; a percentile is taken of the distances in each
  direction, and the larger of the two is the result (MONAI 1.x; also the definition of Metrics Reloaded).
- `"medpy"`: the same border voxels, but one percentile of the distances of both directions together (MedPy 0.5, so also
  nnU-Net 1 and the tables of TransUNet and nnFormer, which leave out the spacing).
- `"deepmind"`: the surface runs between voxels and each of its elements counts by its area (surface-distance 0.1, Nikolov
  et al. 2018); percentiles as MONAI.

Both masks empty: distances 0, share 1. One empty: distances infinite, share 0. Never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from napari_medt.core import boxes
from napari_medt.core.boxes import Box
from napari_medt.measure.distances import Distances
from napari_medt.measure.surfels import Mask, Reals, border, surface_elements

Definition = Literal["monai", "medpy", "deepmind"]


class Surfaces:
    """Two masks whose surfaces are found, and their distances measured, when they are first asked for.

    Parameters
    ----------
    prediction, reference
        `(y, x)` or `(z, y, x)`, of the same shape; anything not zero is inside, beyond the array is outside.
    spacing
        Of neighbouring samples, one an axis, in mm or whatever unit the distances are wanted in. How the axes lie in the
        patient does not matter, as long as they stand upright on each other.

    Raises
    ------
    ValueError
        If shapes or spacing do not fit.
    """

    def __init__(self, prediction: npt.ArrayLike, reference: npt.ArrayLike, *, spacing: Sequence[float]) -> None:
        masks = [np.asarray(mask).astype(bool, copy=False) for mask in (prediction, reference)]
        if masks[0].shape != masks[1].shape:
            raise ValueError(f"masks of shape {masks[0].shape} and {masks[1].shape} cannot be compared")
        if masks[0].ndim not in (2, 3) or len(spacing) != masks[0].ndim:
            raise ValueError(f"masks of {masks[0].ndim} axes and {len(spacing)} spacings do not fit")
        if not all(np.isfinite(step) and step > 0 for step in spacing):
            raise ValueError(f"spacing {tuple(spacing)} is not positive")
        self.spacing = tuple(float(step) for step in spacing)
        box = bounding_box(masks[0] | masks[1])
        self.prediction, self.reference = masks[0][box], masks[1][box]

    @cached_property
    def voxels(self) -> Distances:
        """Between border voxels, each of size 1."""
        found = _between(border(self.prediction), border(self.reference), self.spacing)
        return Distances(*found, *(np.ones(len(each)) for each in found))

    @cached_property
    def elements(self) -> Distances:
        """Between the elements of surface that lie between voxels, each of its length or area."""
        sizes = [surface_elements(mask, self.spacing) for mask in (self.prediction, self.reference)]
        surfaces = [each > 0 for each in sizes]
        found = _between(surfaces[0], surfaces[1], self.spacing)
        return Distances(*found, *(each[where] for each, where in zip(sizes, surfaces, strict=True)))

    def hausdorff(self, percent: float = 100, *, definition: Definition = "monai") -> float:
        """As `hausdorff_distance`."""
        if definition == "monai":
            return self.voxels.percentile(percent)
        return (
            self.voxels.pooled_percentile(percent)
            if definition == "medpy"
            else self.elements.percentile_by_size(percent)
        )

    def average(
        self, *, of: Literal["both", "prediction", "reference"] = "both", definition: Definition = "monai"
    ) -> float:
        """As `average_surface_distance`."""
        return (self.elements if definition == "deepmind" else self.voxels).mean(of=of)

    def dice(self, tolerance: float, *, definition: Definition = "deepmind") -> float:
        """As `surface_dice`."""
        return (self.elements if definition == "deepmind" else self.voxels).share_within(tolerance)


def bounding_box(mask: Mask) -> Box:
    """Smallest part of an array outside which nothing is inside; empty if nothing is."""
    return boxes.bounding_box(mask) or (slice(0, 0),) * mask.ndim


def _between(first: Mask, second: Mask, spacing: Sequence[float]) -> tuple[Reals, Reals]:
    """Distance from each voxel of one surface to the nearest of the other, in the order of the array, both ways."""
    masks = (first, second)
    places = [np.stack(np.nonzero(mask), axis=-1) for mask in masks]
    points = [where * np.asarray(spacing) for where in places]
    if not len(points[0]) or not len(points[1]):
        return (np.full(len(points[0]), np.inf), np.full(len(points[1]), np.inf))
    found = []
    for here, there in ((0, 1), (1, 0)):
        distances = np.zeros(len(points[here]))
        apart = ~masks[there][masks[here]]
        # Points of a grid come in many equal rows: a tree that is split in its middles is far quicker to search than a
        # balanced one, when the surfaces lie far from each other.
        tree = KDTree(points[there], balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(points[here][apart])[0]
        found.append(distances)
    return found[0], found[1]


def hausdorff_distance(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    spacing: Sequence[float],
    percent: float = 100,
    definition: Definition = "monai",
) -> float:
    """Distance within which so many per cent of each surface lie from the other (Huttenlocher et al. 1993).

    Parameters
    ----------
    prediction, reference, spacing
        As for `Surfaces`.
    percent
        95 for HD95; 100 for the Hausdorff distance itself, where the definitions differ only in where the surface lies.
    definition
        Whose, see the module.

    Returns
    -------
    float
        In the unit of `spacing`; infinite if one mask is empty, 0 if both are.

    Examples
    --------
    >>> hausdorff_distance([[1, 0, 0, 0]], [[1, 0, 0, 1]], spacing=(1, 0.5))
    1.5
    """
    return Surfaces(prediction, reference, spacing=spacing).hausdorff(percent, definition=definition)


def hd95(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    spacing: Sequence[float],
    definition: Definition = "monai",
) -> float:
    """95th percentile of the Hausdorff distance; see `hausdorff_distance`.

    Examples
    --------
    >>> hd95([[1, 1, 0, 0]], [[1, 0, 0, 0]], spacing=(1, 2)), hd95([[0, 0]], [[0, 1]], spacing=(1, 1))
    (1.9, inf)
    """
    return hausdorff_distance(prediction, reference, spacing=spacing, percent=95, definition=definition)


def average_surface_distance(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    spacing: Sequence[float],
    of: Literal["both", "prediction", "reference"] = "both",
    definition: Definition = "monai",
) -> float:
    """Mean distance between two surfaces (ASSD), or from one to the other (ASD).

    Parameters
    ----------
    prediction, reference, spacing
        As for `Surfaces`.
    of
        `"both"` takes the mean over the elements of both surfaces together, `"prediction"` that of the prediction's
        distances to the reference, `"reference"` the other way round.
    definition
        Whose, see the module; MONAI's and MedPy's are one.

    Returns
    -------
    float
        In the unit of `spacing`; infinite if one mask is empty, 0 if both are.

    Examples
    --------
    >>> average_surface_distance([[1, 0, 0]], [[1, 0, 1]], spacing=(1, 3), of="reference")
    3.0
    """
    return Surfaces(prediction, reference, spacing=spacing).average(of=of, definition=definition)


def surface_dice(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    spacing: Sequence[float],
    tolerance: float,
    definition: Definition = "deepmind",
) -> float:
    """Share of both surfaces that lies within a tolerance of the other (Nikolov et al. 2018); normalised surface Dice.

    Parameters
    ----------
    prediction, reference, spacing
        As for `Surfaces`.
    tolerance
        In the unit of `spacing`.
    definition
        `"deepmind"` measures the surface by its area, `"monai"` counts border voxels; MedPy has none and is taken as MONAI.

    Returns
    -------
    float
        In [0, 1]; 0 if one mask is empty, 1 if both are.

    Examples
    --------
    >>> surface_dice([[1, 0, 0]], [[0, 0, 1]], spacing=(1, 1), tolerance=2)
    1.0
    """
    return Surfaces(prediction, reference, spacing=spacing).dice(tolerance, definition=definition)
