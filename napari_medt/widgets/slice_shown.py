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


def box_in_view(viewer: Any, mask: Any) -> tuple[slice, ...] | None:
    """Return the part of a mask that is on the canvas, of a scan on the slice that is shown; `None` where that is nothing."""
    shape = mask.data.shape
    found = slice_shown(viewer, mask)
    if viewer.dims.ndisplay != 2 or (found is not None and not 0 <= found[1] < shape[found[0]]):
        return None
    low, high = np.floor(mask.corner_pixels[0]), np.ceil(mask.corner_pixels[1])
    box = [slice(max(0, int(a)), min(n, int(b) + 1)) for a, b, n in zip(low, high, shape, strict=True)]
    if found is not None:
        box[found[0]] = slice(found[1], found[1] + 1)
    return tuple(box) if all(part.start < part.stop for part in box) else None
