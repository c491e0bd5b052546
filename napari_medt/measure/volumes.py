"""How much larger or smaller a prediction is than its reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MM3_PER_ML = 1000.0


def volume_ml(mask: npt.ArrayLike, *, spacing_mm: Sequence[float]) -> float:
    """Volume of a mask, in ml.

    Parameters
    ----------
    mask
        `(z, y, x)`; anything not zero is inside.
    spacing_mm
        One an axis.

    Examples
    --------
    >>> import numpy as np
    >>> volume_ml(np.ones((10, 10, 10)), spacing_mm=(1, 1, 2))
    2.0
    """
    return float(np.count_nonzero(np.asarray(mask)) * np.prod(spacing_mm) / MM3_PER_ML)


def volume_difference_ml(prediction: npt.ArrayLike, reference: npt.ArrayLike, *, spacing_mm: Sequence[float]) -> float:
    """Volume of the prediction less that of the reference, in ml: above 0 where too much was marked.

    Examples
    --------
    >>> import numpy as np
    >>> volume_difference_ml(np.ones((10, 10, 10)), np.zeros((10, 10, 10)), spacing_mm=(1, 1, 2))
    2.0
    """
    return volume_ml(prediction, spacing_mm=spacing_mm) - volume_ml(reference, spacing_mm=spacing_mm)


def relative_volume_difference(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """The same as a share of the reference: -1 if nothing was found, infinite if only the reference is empty, 0 if both.

    Examples
    --------
    >>> relative_volume_difference([1, 1, 1], [1, 1, 0])
    0.5
    """
    return relative_difference(*(float(np.count_nonzero(np.asarray(mask))) for mask in (prediction, reference)))


def relative_difference(found: float, there: float) -> float:
    """(found - there) / there; infinite if nothing was there, 0 if nothing was found either."""
    if not there:
        return np.inf if found else 0.0
    return float((found - there) / there)
