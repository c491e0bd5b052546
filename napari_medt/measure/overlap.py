"""Overlap of a mask with its reference: Dice, intersection over union, precision and recall.

Both masks empty: 1, they agree. One empty: 0, nothing was found or nothing was there. Never NaN, never left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Overlap:
    """Counts of samples, addable, so that scores can be taken of one image or pooled over many.

    Attributes
    ----------
    both, only_prediction, only_reference
        True positives, false positives, false negatives.
    """

    both: int = 0
    only_prediction: int = 0
    only_reference: int = 0

    def __add__(self, other: Overlap) -> Overlap:
        """Pool the samples of two comparisons."""
        return Overlap(
            self.both + other.both,
            self.only_prediction + other.only_prediction,
            self.only_reference + other.only_reference,
        )

    @property
    def dice(self) -> float:
        """2 |A and B| / (|A| + |B|); the same number as the F1 of the samples."""
        wrong = self.only_prediction + self.only_reference
        return 2 * self.both / (2 * self.both + wrong) if self.both + wrong else 1.0

    @property
    def iou(self) -> float:
        """|A and B| / |A or B|."""
        union = self.both + self.only_prediction + self.only_reference
        return self.both / union if union else 1.0

    @property
    def precision(self) -> float:
        """|A and B| / |A|: how much of what was found is right; 0 if nothing was found though there was something."""
        found = self.both + self.only_prediction
        return self.both / found if found else float(not self.only_reference)

    @property
    def recall(self) -> float:
        """|A and B| / |B|: how much of what is there was found, the sensitivity; 0 if only the reference is empty."""
        there = self.both + self.only_reference
        return self.both / there if there else float(not self.only_prediction)


def count(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> Overlap:
    """Compare two masks of the same shape; anything not zero is inside.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> count([1, 1, 0, 0], [0, 1, 1, 0])
    Overlap(both=1, only_prediction=1, only_reference=1)
    """
    found, true = np.asarray(prediction).astype(bool), np.asarray(reference).astype(bool)
    if found.shape != true.shape:
        raise ValueError(f"masks of shape {found.shape} and {true.shape} cannot be compared")
    both = int(np.count_nonzero(found & true))
    return Overlap(both, int(np.count_nonzero(found)) - both, int(np.count_nonzero(true)) - both)


def dice(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Dice similarity coefficient (Dice 1945) of two masks, in [0, 1].

    Examples
    --------
    >>> dice([1, 1, 0, 0], [0, 1, 1, 0])
    0.5
    >>> dice([0, 0], [0, 0]), dice([0, 1], [0, 0])
    (1.0, 0.0)
    """
    return count(prediction, reference).dice


def iou(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Intersection over union (Jaccard 1912) of two masks, in [0, 1].

    Examples
    --------
    >>> round(iou([1, 1, 0, 0], [0, 1, 1, 0]), 3)
    0.333
    """
    return count(prediction, reference).iou


def f1(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """F1 of the single samples, 2 precision recall / (precision + recall), in [0, 1]: for masks, the same number as Dice.

    Examples
    --------
    >>> f1([1, 1, 0, 0], [0, 1, 1, 0])
    0.5
    """
    return count(prediction, reference).dice


def precision(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Share of the prediction that lies in the reference, in [0, 1]; also called positive predictive value.

    Examples
    --------
    >>> precision([1, 1, 1, 1], [0, 1, 1, 1]), precision([0, 0], [0, 1])
    (0.75, 0.0)
    """
    return count(prediction, reference).precision


def recall(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Share of the reference that was found, in [0, 1]; also called sensitivity.

    Examples
    --------
    >>> recall([0, 1, 1, 1], [1, 1, 1, 1]), recall([0, 1], [0, 0])
    (0.75, 0.0)
    """
    return count(prediction, reference).recall
