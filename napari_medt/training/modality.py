"""Of which kind images are, as far as training treats them differently."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_medt.core import Volume
from napari_medt.engine.looks import is_hounsfield, looks_like, sampled

Kind = Literal["ct", "mr", "microscopy", "fundus", ""]
_SAMPLE = 500_000
_DARK, _LIT = 0.15, 0.25  # of the range: corners of a fundus photograph, and its middle at least
_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("ct", "computed", "cbct"), "ct"),
    **dict.fromkeys(
        ("mr", "mri", "magnetic", "t1", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "flair", "adc", "dwi"), "mr"
    ),
    **dict.fromkeys(("sm", "gm", "microscopy", "histology", "pathology", "fluorescence"), "microscopy"),
    **dict.fromkeys(("op", "fundus", "retina", "retinal"), "fundus"),
}


def kind_named(text: str) -> Kind:
    """The kind that a modality's name stands for; empty for a name that is not known."""
    words = re.split(r"[^a-z0-9]+", text.casefold())
    return next((_WORDS[word] for word in words if word in _WORDS), "")


def kind_of(volume: Volume) -> Kind:
    """The kind of an image: what its file says, else what its values look like; empty where that cannot be told.

    Pictures without a place in a patient are taken for microscopy, unless they are reddish with four dark corners.
    """
    if said := kind_named(volume.acquisition.modality):
        return said
    sample, _ = sampled(volume.array, at_most=_SAMPLE)
    if volume.geometry.ndim == 3 or volume.geometry.frame == "patient":
        looks = "CT" if is_hounsfield(volume, sample) else looks_like(volume, sample)
        return "ct" if looks == "CT" else "mr" if looks == "MR" else ""
    return "fundus" if volume.is_rgb and _is_fundus(sample) else "microscopy"


def _is_fundus(sample: npt.NDArray[Any]) -> bool:
    """Whether `(3, y, x)` is a lit, reddish disc in a dark frame."""
    span = float(sample.max()) or 1.0
    height, width = sample.shape[1:]
    y, x = max(1, height // 25), max(1, width // 25)
    corners = [
        sample[:, rows, columns].mean()
        for rows in (slice(y), slice(-y, None))
        for columns in (slice(x), slice(-x, None))
    ]
    red, _, blue = (float(channel[height // 4 : -height // 4, width // 4 : -width // 4].mean()) for channel in sample)
    return bool(np.max(corners) < _DARK * span and red > _LIT * span and red > 1.5 * blue)
