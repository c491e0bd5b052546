"""What the distances between the elements of two surfaces say: percentiles, means, and the share within a tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_medt.measure.surfels import Reals

_SLACK = 1 + 1e-9  # so that what is exactly at a tolerance, or at a share of the surface, is so however it was rounded


@dataclass(frozen=True, eq=False)
class Distances:
    """From each element of one surface to the nearest of the other, and how large each element is.

    Attributes
    ----------
    to_reference, to_prediction
        From the prediction's elements and from the reference's, in the unit of the spacing.
    of_prediction, of_reference
        Size of each element: 1 for border voxels; length in 2D and area in 3D for elements between voxels.
    """

    to_reference: Reals
    to_prediction: Reals
    of_prediction: Reals
    of_reference: Reals

    @property
    def undefined(self) -> float | None:
        """What every distance is where a surface is missing: 0 if both are, infinity if one is, else `None`."""
        missing = (not self.to_reference.size) + (not self.to_prediction.size)
        return (None, np.inf, 0.0)[missing]

    def percentile(self, percent: float) -> float:
        """Larger of the two directions' percentiles, interpolated; 100 is the Hausdorff distance."""
        if self.undefined is not None:
            return self.undefined
        return float(max(np.percentile(each, percent) for each in (self.to_reference, self.to_prediction)))

    def pooled_percentile(self, percent: float) -> float:
        """Percentile of both directions together, interpolated."""
        if self.undefined is not None:
            return self.undefined
        return float(np.percentile(np.concatenate((self.to_reference, self.to_prediction)), percent))

    def percentile_by_size(self, percent: float) -> float:
        """Larger of the two distances within which so much of each surface lies; none is interpolated."""
        if self.undefined is not None:
            return self.undefined
        found = []
        for distances, sizes in ((self.to_reference, self.of_prediction), (self.to_prediction, self.of_reference)):
            order = np.argsort(distances, kind="stable")
            share = np.cumsum(sizes[order]) / np.sum(sizes)
            place = min(int(np.searchsorted(share, percent / 100 / _SLACK)), len(order) - 1)
            found.append(float(distances[order[place]]))
        return max(found)

    def mean(self, *, of: Literal["both", "prediction", "reference"] = "both") -> float:
        """Mean distance of the elements of both surfaces, or from one to the other, each counting by its size."""
        if self.undefined is not None:
            return self.undefined
        parts = {
            "prediction": [(self.to_reference, self.of_prediction)],
            "reference": [(self.to_prediction, self.of_reference)],
        }
        chosen = [pair for name, pairs in parts.items() if of in (name, "both") for pair in pairs]
        total = sum(float(distances @ sizes) for distances, sizes in chosen)
        return total / sum(float(sizes.sum()) for _, sizes in chosen)

    def share_within(self, tolerance: float) -> float:
        """Share of both surfaces that lies within `tolerance` of the other."""
        if self.undefined is not None:
            return 0.0 if self.undefined else 1.0
        within = sum(
            float(sizes[distances <= tolerance * _SLACK].sum())
            for distances, sizes in (
                (self.to_reference, self.of_prediction),
                (self.to_prediction, self.of_reference),
            )
        )
        return within / float(self.of_prediction.sum() + self.of_reference.sum())
