"""On which grid a network learns: orientation, spacing, and the shape that images have there.

The spacing is the median; where one axis is more than three times coarser than the others and has less than a third of their
samples, it is the 10th percentile along that axis, so that fine scans are not thrown together with coarse ones (nnU-Net).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_medt.training.facts import CaseFacts
from napari_medt.training.fingerprint import Fingerprint

ANISOTROPIC = 3.0
COARSE = 1.5  # times coarser than the others, from which an axis comes first
AXIAL = "SPL"
_MM = {"mm": 1.0, "um": 1e-3}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GridPlan:
    """A grid.

    Attributes
    ----------
    orientation, spacing
        As in `ModelCard`.
    shape
        Median shape of the images on it, axes of the network.
    full
        The same with the axis that counts slices, where a 2D network learns slices.
    notes
        Sentences about what was decided.
    """

    orientation: str
    spacing: tuple[float, ...] | None
    shape: tuple[float, ...]
    full: tuple[float, ...]
    notes: tuple[str, ...] = ()


def plan_grid(data: Fingerprint, *, dims: Literal[2, 3], cropped: bool) -> GridPlan:
    """Plan the grid for a network of `dims` axes; where images are `cropped`, their shape is that of the body."""
    orientation, notes = _orientation(data)
    rows = [_along(fact, orientation, cropped) for fact in data.cases]
    shapes = np.array([shape for shape, _ in rows], float)
    if any(spacing is None for _, spacing in rows):
        full, spacing = np.median(shapes, axis=0), None
        if any(spacing is not None for _, spacing in rows):
            notes += ("Some images do not say how far apart their samples are, so all are taken as they come.",)
    else:
        spacings = np.array([spacing for _, spacing in rows], float)
        spacing, coarse = _target(spacings, shapes)
        full = np.median(shapes * spacings / spacing, axis=0)
        which = "the median" if coarse is None else "the median, but along the coarse axis the 10th percentile"
        notes += (f"Images are brought to {_by(spacing)} mm, {which}.",)
    return GridPlan(
        orientation,
        None if spacing is None else tuple(float(f"{value:.4g}") for value in spacing[-dims:]),
        tuple(map(float, full[-dims:])),
        tuple(map(float, full)),
        notes,
    )


def _orientation(data: Fingerprint) -> tuple[str, tuple[str, ...]]:
    """Axial slices, or those of the axis that is coarser than the others; empty where a file does not say how it lies."""
    if data.dims == 2:
        return "", ()
    if any(fact.frame != "patient" for fact in data.cases):
        return "", ("Some scans do not say how the patient lies, so all are taken as they come.",)
    spacings = np.median([_along(fact, AXIAL, cropped=False)[1] for fact in data.cases], axis=0)
    coarse = int(np.argmax(spacings))
    first = AXIAL[coarse] if spacings[coarse] > COARSE * np.median(spacings) else AXIAL[0]
    return first + AXIAL.replace(first, ""), ()


def _along(fact: CaseFacts, orientation: str, cropped: bool) -> tuple[list[int], list[float] | None]:
    """Shape, and spacing in mm, along the axes of the network."""
    shape = fact.body if cropped else fact.shape
    geometry = fact.geometry
    order = geometry.axes_towards(orientation).order if orientation else range(len(shape))
    scale = _MM.get(fact.units)
    return [shape[axis] for axis in order], None if scale is None else [
        geometry.spacing[axis] * scale for axis in order
    ]


def _target(spacings: Floats, shapes: Floats) -> tuple[Floats, int | None]:
    """Spacing in mm, and the coarse axis, if there is one."""
    target = np.median(spacings, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != worst]
    sizes = np.median(shapes * spacings / target, axis=0)
    if target[worst] <= ANISOTROPIC * target[others].max() or sizes[worst] * ANISOTROPIC >= sizes[others].min():
        return target, None
    finest = float(np.percentile(spacings[:, worst], 10))
    target[worst] = max(finest, float(target[others].max()))
    return target, worst


def _by(lengths: Sequence[float] | npt.NDArray[Any]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)
