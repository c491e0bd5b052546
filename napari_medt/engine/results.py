"""What is kept of a segmented image: labels, and beside them only what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Halves = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Wanted:
    """Which results are kept beside the labels."""

    probabilities: bool
    uncertainty: bool


@dataclass(frozen=True, eq=False)
class Results:
    """Arrays that fill up while an image is segmented.

    Attributes
    ----------
    labels
        `(*spatial)` uint8, uint16 above 256 classes.
    probabilities
        `(k, *spatial)` or None.
    uncertainty
        `(*spatial)` or None: entropy over its maximum.
    """

    labels: npt.NDArray[Any]
    probabilities: Halves | None
    uncertainty: Halves | None

    @classmethod
    def empty(cls, shape: tuple[int, ...], classes: int, wanted: Wanted) -> Results:
        """Nothing found yet in an image of this shape."""
        return cls(
            labels=np.zeros(shape, dtype=np.uint8 if classes <= 256 else np.uint16),
            probabilities=np.zeros((classes, *shape), dtype=np.float16) if wanted.probabilities else None,
            uncertainty=np.zeros(shape, dtype=np.float16) if wanted.uncertainty else None,
        )

    def keep(self, found: npt.NDArray[np.float32], where: tuple[int | slice, ...]) -> None:
        """Reduce class probabilities `(k, ...)` of a part of the image to what was asked for."""
        self.labels[where] = found.argmax(0)
        if self.probabilities is not None:
            self.probabilities[(slice(None), *where)] = found
        if self.uncertainty is not None:
            entropy = -(found * np.log(np.maximum(found, 1e-12))).sum(0) / np.log(len(found))
            self.uncertainty[where] = np.clip(entropy, 0, 1)
