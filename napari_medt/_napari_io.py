"""What napari calls to save our masks; reading and writing itself is done by `napari_medt.io`."""

from __future__ import annotations

from typing import Any

import numpy as np


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one labels layer as TIFF and keep its scale, which napari's own TIFF writer loses.

    Parameters
    ----------
    path
        Where to; ends in `.tif` or `.tiff`.
    data
        `(y, x)` or `(z, y, x)` label values, also lazily loaded.
    attributes
        Of the layer as napari gives them: `scale`, `translate` and `units` are used.

    Returns
    -------
    list of str
        The path written.

    Raises
    ------
    BadImage
        If the layer has neither two nor three axes.
    StorageError
        If the file cannot be written.
    """
    from napari_medt.core import BadImage, Geometry
    from napari_medt.io import write

    labels = np.asarray(data)
    while labels.ndim > 3 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.ndim not in (2, 3):
        raise BadImage(
            f"A mask of shape {labels.shape} has neither two nor three axes",
            remedy="save one time point or channel at a time",
        )
    ndim = labels.ndim
    spacing = _last(attributes.get("scale"), ndim, 1.0)
    if min(spacing) <= 0:
        raise BadImage(f"The scale {spacing} of this mask is not positive", remedy="correct the layer's scale")
    origin = _last(attributes.get("translate"), ndim, 0.0)
    geometry = Geometry.from_spacing(spacing, origin=origin, units=_unit(attributes.get("units")))
    return [str(write(labels, path, geometry=geometry))]


def _last(values: Any, count: int, default: float) -> tuple[float, ...]:
    """Return the last `count` numbers, for the axes nearest to the picture."""
    numbers = [float(value) for value in (() if values is None else values)][-count:]
    return (*(default for _ in range(count - len(numbers))), *numbers)


def _unit(units: Any) -> str:
    """Name the unit as `Geometry` does: px, mm or um; pint's units and plain text are understood."""
    if units is None:
        return "px"
    names = {str(unit) for unit in ((units,) if isinstance(units, str) else units)}
    known = {"millimeter": "mm", "mm": "mm", "micrometer": "um", "um": "um", "µm": "um", "micron": "um"}
    return known.get(names.pop(), "px") if len(names) == 1 else "px"
