"""Points in the viewer: a click, or the pointer while Shift is held, in 2D, in any plane of a scan, and in 3D."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_medt.widgets import layers
from napari_medt.widgets.pointing import brightest, first_seen, held_still, line_of_sight, place_at
from napari_medt.widgets.review import Review


class Picking(QObject):
    """Listens to the mouse while it is on.

    Signals
    -------
    picked
        Array index of a place in the picture.
    missed
        The place lies outside the picture.
    overtaken
        The user took a tool of the active layer, so that clicks belong to it now.
    """

    picked = Signal(object)
    missed = Signal()
    overtaken = Signal()

    def __init__(self, review: Review) -> None:
        super().__init__(review)
        self._review = review
        self.following = False
        """Whether the last place is one that the pointer passed, not one that was clicked."""

        self._hovered: tuple[int, ...] | None = None
        self._watched: Any = None

    def listen(self, on: bool) -> None:
        """Begin or stop listening; when it begins, the tool of the active layer is put away."""
        viewer = self._review.viewer
        for callbacks, callback in (
            (viewer.mouse_drag_callbacks, self._on_mouse),
            (viewer.mouse_move_callbacks, self._on_move),
        ):
            if on and callback not in callbacks:
                callbacks.append(callback)
            elif not on and callback in callbacks:
                callbacks.remove(callback)
        selection = viewer.layers.selection
        selection.events.active.disconnect(self._active_changed)
        if on:
            if selection.active is not None:
                selection.active.mode = "pan_zoom"
            selection.events.active.connect(self._active_changed)
        self._watch(selection.active if on else None)

    def pick_world(
        self, position: Sequence[float], direction: Sequence[float] | None = None, dims: Sequence[int] = ()
    ) -> None:
        """Take the place of the picture at a world position; in 3D the first of the mask behind it, else the brightest."""
        index = self._index(position, direction, dims)
        if index is None:
            self.missed.emit()
        else:
            self.following = False
            self.picked.emit(index)

    def _active_changed(self, event: Any) -> None:
        self._watch(event.value)
        self._mode_changed()

    def _watch(self, layer: Any) -> None:
        """Notice when a tool of this layer is taken, and of no other: only the active one is given what the mouse does."""
        if self._watched is not None:
            self._watched.events.mode.disconnect(self._mode_changed)
        self._watched = layer
        if layer is not None:
            layer.events.mode.connect(self._mode_changed)

    def _mode_changed(self, event: Any = None) -> None:
        if self._watched is not None and str(self._watched.mode) != "pan_zoom":
            self.overtaken.emit()

    def _on_mouse(self, viewer: Any, event: Any) -> Iterator[None]:
        """Take a click, but no drag, as a question."""
        if event.button not in (1, None):
            return
        at = tuple(event.position), event.view_direction, tuple(event.dims_displayed)
        if (yield from held_still(event)):
            self.pick_world(*at)

    def _on_move(self, viewer: Any, event: Any) -> None:
        """Follow the pointer while Shift is held; places beside the picture ask nothing."""
        if "Shift" not in [getattr(key, "name", key) for key in event.modifiers]:
            return
        index = self._index(event.position, event.view_direction, event.dims_displayed)
        if index is not None and index != self._hovered:
            self._hovered, self.following = index, True
            self.picked.emit(index)

    def _index(
        self, position: Sequence[float], direction: Sequence[float] | None, dims: Sequence[int]
    ) -> tuple[int, ...] | None:
        image = self._review.image
        if image is None:
            return None
        shape = layers.spatial_shape_of(image)
        if direction is not None and len(dims) == 3 and image.ndim == 3:
            line = line_of_sight(image, shape, position, direction, dims)
            if line is None:
                return None
            mask = None if self._review.work is None else self._review.work.mask
            seen = first_seen(mask.data, line) if mask is not None and mask.visible else None
            return seen or brightest(image, line)
        place = place_at(image, shape, position)
        return None if place is None else tuple(round(part) for part in place)
