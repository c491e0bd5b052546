"""What the mouse does in the picture for a tool: single points, a line, the pointer followed, or strokes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_medt.widgets.pointing import Point, first_seen, held_still, line_of_sight, place_at
from napari_medt.widgets.tools import Clicks


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
        place = self._place(event)
        if (yield from held_still(event)) and place is not None:
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
        shape = mask.data.shape
        if self._viewer.dims.ndisplay == 2 or mask.ndim == 2:
            return place_at(mask, shape, event.position, displayed=event.dims_displayed)
        line = line_of_sight(mask, shape, event.position, event.view_direction, event.dims_displayed)
        seen = None if line is None else first_seen(mask.data, line)
        return None if seen is None else tuple(map(float, seen))
