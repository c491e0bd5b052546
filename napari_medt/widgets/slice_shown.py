"""Where in an image the viewer is: which slice of a scan it shows, and which place of that."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def index_shown(viewer: Any, image: Any) -> npt.NDArray[np.int_]:
    """Return the place of the viewer's sliders as an index of an image's array, which may lie outside of it."""
    return np.rint(np.asarray(image.world_to_data(viewer.dims.point[-image.ndim :]), float)).astype(int)


def slice_shown(viewer: Any, image: Any) -> tuple[int, int] | None:
    """Return across which axis a slice of a scan is shown, and which; `None` of a picture, or of a scan shown as a whole."""
    first = viewer.dims.ndim - image.ndim
    across = [int(axis) - first for axis in viewer.dims.not_displayed if axis >= first]
    return (across[0], int(index_shown(viewer, image)[across[0]])) if across else None
