"""The sliders of a scan: one step a slice, whatever lies over the picture."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from napari_medt.widgets.layers import only_over


class Sliders:
    """Keeps maps and marks of the dock out of what the viewer measures its sliders by.

    A slider of napari's begins and steps as the outermost and the finest of all layers do. The frame of a window begins half a
    slice before the picture, and cells are finer or coarser than its slices, so that a slider would pass over some of them.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._range, self._point = viewer.dims.range, viewer.dims.point
        events = viewer.dims.events
        self._listened = ((events.range, self._measured), (events.point, self._moved))
        for emitter, callback in self._listened:
            emitter.connect(callback)

    def close(self) -> None:
        """Leave the sliders to napari."""
        for emitter, callback in self._listened:
            with suppress(ValueError, RuntimeError):
                emitter.disconnect(callback)

    def _moved(self, event: Any = None) -> None:
        self._point = self._viewer.dims.point

    def _measured(self, event: Any = None) -> None:
        """Measure by the pictures alone; napari tells its sliders first, which may have moved to another slice by now."""
        layers, dims = self._viewer.layers, self._viewer.dims
        pictures = [layer for layer in layers if not only_over(layer)]
        wanted = dims.range
        if dims.ndim > 2 and pictures and len(pictures) < len(layers):
            extent = layers.get_extent(pictures)
            measured = tuple(zip(*extent.world.tolist(), extent.step.tolist(), strict=True))
            wanted = measured if len(measured) == dims.ndim else wanted
        if dims.range != wanted:
            dims.range = wanted
            if wanted == self._range:
                dims.point = self._point
            else:
                dims.current_step = dims.current_step  # on a slice
        self._range = wanted
