"""What the mouse does in the picture for a tool: single points, a line, the pointer followed, or strokes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medt.widgets.tools import Clicks

STILL_PX = 5.0
"""A click may tremble by so many pixels of the canvas before it is a drag."""

Point = tuple[float, ...]


class CanvasClicks(QObject):
    """Listens to the mouse over one mask layer, between `listen` and `stop`.

    Places are indices into the mask, between voxels where the pointer is.

    Signals
    -------
    clicked
        A place in the mask.
    hovered
        A place in the mask the pointer is over.
    drawn
        Places a stroke went through since the last time; the first time where it began.
    ended
        The stroke or the line has ended.
    """

    clicked = Signal(tuple)
    hovered = Signal(tuple)
    drawn = Signal(list)
    ended = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._mask: Any = None
        self._kind: Clicks = ""

    def listen(self, mask: Any, kind: Clicks) -> None:
        """Listen for one kind of input; the mask becomes the active layer, and its own tools are put away."""
        self.stop()
        if not kind:
            return
        self._mask, self._kind = mask, kind
        self._viewer.layers.selection.active = mask
        mask.visible = True
        mask.mode = "pan_zoom"
        self._viewer.mouse_drag_callbacks.append(self._pressed)
        if kind == "hover":
            self._viewer.mouse_move_callbacks.append(self._moved)
        if kind in ("line", "stroke"):
            mask.mouse_pan = False
        if kind != "stroke":
            mask.cursor = "cross"

    def show_brush(self, diameter: float) -> None:
        """Show a brush of this diameter, in the unit of the world, in the place of the pointer."""
        if self._mask is not None:
            self._mask.cursor_size = diameter
            self._mask.cursor = "circle"

    def stop(self) -> None:
        """Listen no more."""
        if self._mask is not None:
            if str(self._mask.mode) == "pan_zoom":  # else a tool of napari's has set them as it needs
                self._mask.mouse_pan, self._mask.cursor = True, "standard"
            for callbacks, mine in (
                (self._viewer.mouse_drag_callbacks, self._pressed),
                (self._viewer.mouse_move_callbacks, self._moved),
            ):
                with suppress(ValueError):
                    callbacks.remove(mine)
        self._mask, self._kind = None, ""

    def _pressed(self, viewer: Any, event: Any) -> Iterator[None]:
        if self._mask is None or event.button not in (1, None):
            return
        if self._kind in ("line", "stroke"):
            yield from self._dragged(event)
            return
        began = np.asarray(event.pos if event.pos is not None else (0, 0), dtype=float)
        place = self._place(event)
        yield
        while event.type == "mouse_move":
            yield
        ended = np.asarray(event.pos if event.pos is not None else began, dtype=float)
        if place is not None and np.abs(ended - began).max() <= STILL_PX:
            self.clicked.emit(place)

    def _dragged(self, event: Any) -> Iterator[None]:
        place = self._place(event)
        if place is None or self._viewer.dims.ndisplay == 3:
            return
        self.drawn.emit([place])
        yield
        while event.type == "mouse_move":
            place = self._place(event)
            if place is not None:
                self.drawn.emit([place])
            yield
        self.ended.emit()

    def _moved(self, viewer: Any, event: Any) -> None:
        place = self._place(event)
        if place is not None and self._viewer.dims.ndisplay == 2:
            self.hovered.emit(place)

    def _place(self, event: Any) -> Point | None:
        """Return the index in the mask under the pointer; of a volume shown in 3D, of the structure that is seen there."""
        mask = self._mask
        if mask is None:
            return None
        if self._viewer.dims.ndisplay == 3 and mask.ndim == 3:
            return _first_seen(mask, event)
        place = np.asarray(mask.world_to_data(event.position), float)[-mask.ndim :]
        shape = np.asarray(mask.data.shape)
        hidden = [axis - (self._viewer.dims.ndim - mask.ndim) for axis in self._viewer.dims.not_displayed]
        for axis in hidden:
            if axis >= 0:
                place[axis] = round(place[axis])
        if (place < -0.5).any() or (place > shape - 0.5).any():
            return None
        return tuple(float(part) for part in np.clip(place, 0, shape - 1))


def _first_seen(mask: Any, event: Any) -> Point | None:
    start, end = mask.get_ray_intersections(event.position, event.view_direction, event.dims_displayed)
    if start is None or end is None:
        return None
    steps = int(np.ceil(2 * np.linalg.norm(np.subtract(end, start)))) + 1
    way = np.rint(np.linspace(start, end, steps)).astype(int)
    way = way[((way >= 0) & (way < mask.data.shape)).all(axis=1)]
    seen = np.flatnonzero(np.asarray(mask.data)[tuple(way.T)])
    return tuple(float(part) for part in way[seen[0]]) if len(seen) else None
