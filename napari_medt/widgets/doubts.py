"""The places where the last run was unsure, the most doubtful first, to be gone through one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QListWidget, QVBoxLayout

from napari_medt.widgets import texts
from napari_medt.widgets._compat import canvas_edge, scene_camera
from napari_medt.widgets.answers import Doubt
from napari_medt.widgets.layers import units_of
from napari_medt.widgets.parts import named, quiet_button, text_label
from napari_medt.widgets.review import Review

ROWS = 5
SURROUNDINGS = 5
"""How many times as wide as a doubtful place what is shown with it is."""

LEAST_ACROSS = 10
"""Pixels that the smallest place is taken to measure, so that something is seen around it."""


class Doubts(QFrame):
    """A list with the way to the next; hidden while no run marked unsure places."""

    def __init__(self, review: Review) -> None:
        super().__init__()
        self.setProperty("role", "plain")
        self._review = review
        self.places: tuple[Doubt, ...] = ()
        self.title = text_label(role="muted", wrap=False)
        self.back = quiet_button("◀", "previous_doubt", clicked=lambda: self.step(-1))
        self.on = quiet_button("▶", "next_doubt", clicked=lambda: self.step(1))
        self.list = named(QListWidget(), "doubts")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.currentRowChanged.connect(self._go)
        line = QHBoxLayout()
        line.addWidget(self.title, 1)
        line.addWidget(self.back)
        line.addWidget(self.on)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(line)
        box.addWidget(self.list)
        review.doubted.connect(self.show_places)
        self.show_places(())

    def show_places(self, places: Sequence[Doubt]) -> None:
        """List these places in place of those before."""
        image = self._review.image
        self.places = tuple(places)
        self.list.blockSignals(True)
        self.list.clear()
        unit, axes = ("px", 2) if image is None else (units_of(image), int(image.ndim))
        for number, place in enumerate(self.places, start=1):
            self.list.addItem(texts.doubtful_place(number, place.size, unit, axes, place.share, place.name))
        self.list.setCurrentRow(-1)
        self.list.blockSignals(False)
        self.title.setText(texts.doubtful(len(self.places)))
        row = max(16, self.list.sizeHintForRow(0)) if self.places else 16
        self.list.setFixedHeight(row * min(ROWS, max(1, len(self.places))) + 8)
        self.setVisible(bool(self.places))

    def step(self, by: int) -> None:
        """Go to the next place, or the one before."""
        if self.places:
            at = self.list.currentRow()
            self.list.setCurrentRow((at + by) % len(self.places) if at >= 0 or by > 0 else len(self.places) - 1)

    def _go(self, row: int) -> None:
        if not 0 <= row < len(self.places) or self._review.image is None:
            return
        place, image = self.places[row], self._review.image
        across = max(place.size ** (1 / image.ndim), LEAST_ACROSS * float(np.abs(image.scale).min()))
        extent = image.extent.world
        centre_on(self._review.viewer, place.centre, across=across, whole=float((extent[1] - extent[0]).max()))


def centre_on(viewer: Any, place: Sequence[float], *, across: float | None = None, whole: float = np.inf) -> None:
    """Show a place of the world in the middle of the canvas, in its slice, so near that something `across` is seen well.

    What is `whole` is not made smaller than the canvas.
    """
    dims = viewer.dims
    first = dims.ndim - len(place)
    dims.set_point(range(first, dims.ndim), [float(value) for value in place])  # at once: each is a drawing
    camera = scene_camera(viewer)
    centre = np.array(camera.center, dtype=float)
    shown = [axis - first for axis in dims.displayed]
    centre[-len(shown) :] = [place[axis] for axis in shown]
    camera.center = tuple(centre)
    if across is not None:
        edge = canvas_edge(viewer)
        camera.zoom = max(edge / (SURROUNDINGS * across), edge / whole)
