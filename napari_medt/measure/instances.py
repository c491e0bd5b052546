"""How many single objects (nuclei, lesions) were found: average precision at a threshold of overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import generate_binary_structure, label
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching


@dataclass(frozen=True)
class Matches:
    """Counts of objects, addable, so that scores can be taken of one image or pooled over many.

    Attributes
    ----------
    found, false, missed
        Objects in both (true positives), only in the prediction, only in the reference.
    """

    found: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: Matches) -> Matches:
        """Pool the objects of two comparisons."""
        return Matches(self.found + other.found, self.false + other.false, self.missed + other.missed)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), as StarDist and the Data Science Bowl 2018 have it; 1 if there is no object at all."""
        total = self.found + self.false + self.missed
        return self.found / total if total else 1.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 if there is no object at all."""
        total = 2 * self.found + self.false + self.missed
        return 2 * self.found / total if total else 1.0

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 if no object was found though there are some."""
        total = self.found + self.false
        return self.found / total if total else float(not self.missed)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 if only the reference has none."""
        total = self.found + self.missed
        return self.found / total if total else float(not self.false)


def match(prediction: npt.ArrayLike, reference: npt.ArrayLike, *, threshold: float = 0.5) -> Matches:
    """Match objects whose intersection over union is at least `threshold`, as many as possible and each once.

    Parameters
    ----------
    prediction, reference
        Of the same shape; each value but 0 is one object.
    threshold
        Above 0.5 an object can match only one other, so there is only one way to match.

    Returns
    -------
    Matches

    Raises
    ------
    ValueError
        If the shapes differ or the threshold is not in (0, 1].

    Examples
    --------
    >>> match([1, 1, 0, 2, 2, 2], [0, 0, 0, 5, 5, 0])
    Matches(found=1, false=1, missed=0)
    """
    found, true = np.asarray(prediction), np.asarray(reference)
    if found.shape != true.shape:
        raise ValueError(f"masks of shape {found.shape} and {true.shape} cannot be compared")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} is not above 0 and at most 1")
    found_sizes, true_sizes, shared = _overlaps(found, true)
    union = found_sizes[shared.row] + true_sizes[shared.col] - shared.data
    enough = shared.data >= threshold * union
    pairs = csr_array((shared.data[enough], (shared.row[enough], shared.col[enough])), shape=shared.shape)
    matched = int(np.count_nonzero(maximum_bipartite_matching(pairs) >= 0)) if pairs.nnz else 0
    return Matches(matched, len(found_sizes) - matched, len(true_sizes) - matched)


def _overlaps(
    found: npt.NDArray[np.integer], true: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], coo_array]:
    """Sizes of the objects of both masks, and of what each has in common with each, in samples."""
    (_, rows, found_sizes), (_, columns, true_sizes) = (
        np.unique(labels[labels != 0], return_inverse=True, return_counts=True) for labels in (found, true)
    )
    both = (found != 0) & (true != 0)
    where = (rows[both[found != 0]], columns[both[true != 0]])
    shared = coo_array((np.ones(len(where[0]), np.int64), where), shape=(len(found_sizes), len(true_sizes)))
    shared.sum_duplicates()
    return found_sizes, true_sizes, shared


def components(mask: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Number the connected parts of a mask from 1; what touches at an edge or a corner is connected.

    Examples
    --------
    >>> components([[1, 0, 0, 1], [0, 1, 0, 0]])
    array([[1, 0, 0, 2],
           [0, 1, 0, 0]], dtype=int32)
    """
    inside = np.asarray(mask) != 0
    numbered, _ = label(inside, structure=generate_binary_structure(inside.ndim, inside.ndim), output=np.int32)
    return np.asarray(numbered)
