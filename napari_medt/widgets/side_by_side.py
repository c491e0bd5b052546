"""What two versions drew on a picture, side by side in a canvas of its own that moves with the window's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_medt.widgets import texts
from napari_medt.widgets._compat import make_current, scene_camera, scene_grid
from napari_medt.widgets.layers import class_colormap, spatial_state
from napari_medt.widgets.parts import text_label

if TYPE_CHECKING:
    from napari.layers import Image

CAMERA = ("orientation", "angles", "zoom", "center")
OPACITY = 0.45
SHARE = 0.4
"""Of the window's height, at first."""

APART_PX = 6
CORNERS = {
    Qt.Corner.BottomLeftCorner: Qt.DockWidgetArea.LeftDockWidgetArea,
    Qt.Corner.BottomRightCorner: Qt.DockWidgetArea.RightDockWidgetArea,
}
"""What is beside the picture keeps its height, so that there is room below it, also in a small window."""


class SideBySide(QWidget):
    """A dock of its own below the picture; lives until `leave`, or until it is closed.

    Parameters
    ----------
    viewer
        The window's, with whose camera and slices it moves.
    image
        The picture; it is not copied.
    masks
        Two, on its grid.
    titles
        What they are.
    classes
        How many structures there are, the background among them.

    Signals
    -------
    closed
        The user closed it; to be listened to later than at once, since napari is still at it.
    """

    closed = Signal()

    def __init__(
        self, viewer: Any, image: Image, masks: Sequence[np.ndarray], *, titles: Sequence[str], classes: int
    ) -> None:
        from napari.components import ViewerModel
        from napari.qt import QtViewer

        super().__init__()
        self._viewer, self._copying, self._left = viewer, False, False
        self.model = model = ViewerModel()
        state = spatial_state(image)
        look = {name: getattr(image, name) for name in ("rgb", "multiscale", "colormap", "contrast_limits", "gamma")}
        for mask, title in zip(masks, titles, strict=True):
            model.add_image(image.data, name=f"{image.name}, {title}", **(look | state))
            drawn = model.add_labels(mask, name=title, opacity=OPACITY, colormap=class_colormap(classes), **state)
            drawn.editable = False
        model.layers.selection.clear()
        grid = scene_grid(model)
        grid.shape, grid.stride, grid.spacing, grid.enabled = (1, len(masks)), 2, APART_PX, True
        self.canvas = QtViewer(model)
        self.canvas.setAcceptDrops(False)
        heads = QHBoxLayout()
        for title in titles:
            head = text_label(title, role="strong", wrap=False)
            head.setAlignment(Qt.AlignmentFlag.AlignCenter)
            heads.addWidget(head, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 2, 0, 0)
        box.setSpacing(2)
        box.addLayout(heads)
        box.addWidget(self.canvas, 1)
        docked = viewer.window.add_dock_widget(self, name=texts.SIDE_BY_SIDE, area="bottom")
        self._window: Any = self.window()
        self._corners = {corner: self._window.corner(corner) for corner in CORNERS}
        self._give_corners(CORNERS)
        self._window.resizeDocks([docked], [round(SHARE * self._window.height())], Qt.Orientation.Vertical)
        self._emitters = [
            (emitter, follow)
            for of, follow in ((viewer, self._follow_window), (model, self._lead_window))
            for emitter in (
                *(getattr(scene_camera(of).events, name) for name in _moving(scene_camera(of))),
                *(getattr(of.dims.events, name) for name in ("ndisplay", "order", "point")),
            )
        ]
        for emitter, follow in self._emitters:
            emitter.connect(follow)
        self._follow_window()

    def leave(self) -> None:
        """Let go of the window, and close the canvas."""
        if self._left:
            return
        self._left = True
        for emitter, follow in self._emitters:
            emitter.disconnect(follow)
        self._give_corners(self._corners)
        with suppress(LookupError):  # the user closed it, or the window is closing
            self._viewer.window.remove_dock_widget(self)
        make_current(self.canvas)
        self.model.layers.clear()
        self.canvas.close()
        self.deleteLater()

    def event(self, event: Any) -> bool:
        """Notice when napari takes it out of the window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None and not self._left:
            self.closed.emit()
        return bool(super().event(event))

    def _give_corners(self, areas: Mapping[Any, Any]) -> None:
        for corner, area in areas.items():
            self._window.setCorner(corner, area)

    def _follow_window(self, event: Any = None) -> None:
        self._copy(self._viewer, self.model)

    def _lead_window(self, event: Any = None) -> None:
        self._copy(self.model, self._viewer)

    def _copy(self, source: Any, target: Any) -> None:
        """Show in one what is shown in the other: the same slice, as large and turned alike."""
        if self._copying:
            return
        self._copying = True
        try:
            here, there = source.dims, target.dims
            shared = min(here.ndim, there.ndim)
            if there.ndisplay != here.ndisplay:
                there.ndisplay = here.ndisplay
            if there.ndim == here.ndim and there.order != here.order:
                there.order = here.order
            for axis in range(1, shared + 1):
                if there.point[-axis] != here.point[-axis]:
                    there.set_point(there.ndim - axis, here.point[-axis])
            camera, shown = scene_camera(source), scene_camera(target)
            for name in _moving(camera):
                if getattr(shown, name) != getattr(camera, name):
                    setattr(shown, name, getattr(camera, name))
        finally:
            self._copying = False


def _moving(camera: Any) -> list[str]:
    """What of a camera is the same in both; how the axes run is known from napari 0.6 on."""
    return [name for name in CAMERA if hasattr(camera, name)]
