"""The folded part of step 1: where to run, how, and on which computer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFrame, QVBoxLayout

from napari_medt.core import MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets.parts import Form, chooser, named
from napari_medt.widgets.review import Review
from napari_medt.widgets.slice_shown import slice_shown

WHOLE, SLICE = "whole", "slice"
DOUBTS = ("entropy", "margin", "flips", "dropout")
Roi = tuple[slice, ...]


class More(QFrame):
    """Choices most runs do not need; what is left as it is costs nothing and is not passed on.

    Signals
    -------
    changed
        Something was chosen that changes what a run takes.
    """

    changed = Signal()

    def __init__(self, review: Review) -> None:
        super().__init__()
        self.setProperty("role", "modelcard")
        self._review = review
        self.region_box = chooser("region")
        self.plane_box = chooser("plane")
        for plane, title in texts.PLANES.items():
            self.plane_box.addItem(title, plane)
        self.doubt_box = chooser("doubt")
        for kind in DOUBTS:
            self.doubt_box.addItem(texts.DOUBTS[kind], kind)
        self.mirror = named(QCheckBox(texts.MIRROR), "mirror")
        self.compute_box: QComboBox = chooser("compute")
        self.compute_box.setEditable(True)
        self.compute_box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.compute_box.addItem(texts.THIS_COMPUTER)
        self.compute_box.lineEdit().setPlaceholderText(texts.SCHEDULER)
        self.form = Form()
        self.form.row(texts.REGION, self.region_box)
        self._plane_title = self.form.row(texts.PLANE, self.plane_box)
        self.form.row(texts.DOUBT, self.doubt_box)
        self.form.row(texts.COMPUTE, self.compute_box)
        self.form.below(self.mirror)
        inside = QVBoxLayout(self)
        inside.setContentsMargins(10, 8, 10, 8)
        inside.addLayout(self.form)
        for box in (self.region_box, self.plane_box, self.doubt_box):
            box.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.mirror.toggled.connect(lambda _: self.changed.emit())
        self.compute_box.lineEdit().editingFinished.connect(self.changed.emit)
        self.hide()

    @property
    def compute(self) -> str:
        """Where the computation runs: `"local"`, or the address of a Dask scheduler."""
        typed = str(self.compute_box.currentText()).strip()
        return "local" if typed in ("", texts.THIS_COMPUTER) else typed

    def offer(self) -> None:
        """Offer what there is to choose for the present picture, model and layers, and keep what was chosen."""
        image = self._review.image
        scan = image is not None and _ndim(image) == 3
        self._offer_regions(scan)
        card = self._review.cards.get(self._review.model_key)
        flat = scan and card is not None and len(card.window) == 2
        for widget in (self._plane_title, self.plane_box):
            widget.setVisible(flat)

    def _offer_regions(self, scan: bool) -> None:
        from napari.layers import Shapes

        chosen = self.region_box.currentData()
        self.region_box.blockSignals(True)
        self.region_box.clear()
        self.region_box.addItem(texts.WHOLE, WHOLE)
        if scan:
            self.region_box.addItem(texts.THIS_SLICE, SLICE)
        for layer in self._review.viewer.layers:
            if isinstance(layer, Shapes):
                self.region_box.addItem(texts.BOX_OF.format(name=layer.name), layer)
        # Qt hands out copies of strings, so that identity would lose them.
        found = [i for i in range(self.region_box.count()) if self.region_box.itemData(i) == chosen]
        self.region_box.setCurrentIndex(found[0] if found else 0)
        self.region_box.blockSignals(False)

    def wishes(self, image: Any) -> dict[str, Any]:
        """What is asked of a run besides the usual, as `engine.predict` takes it.

        Raises
        ------
        MedtError
            If there is no slice or no box to run on.
        """
        found: dict[str, Any] = {}
        region = self.region_box.currentData()
        if region == SLICE:
            found["roi"] = this_slice(self._review.viewer, image)
        elif region not in (None, WHOLE):
            found["roi"] = box_of(region, image)
        plane = "" if self.plane_box.isHidden() else self.plane_box.currentData()
        if plane:
            found["plane"] = plane
        if self.mirror.isChecked():
            found["flips"] = True
        if self.compute != "local":
            found["compute"] = self.compute
        return found

    def wish(self, settings: Mapping[str, Any]) -> None:
        """Choose the plane, the kind of uncertainty and the mirror images of an earlier run."""
        _choose(self.plane_box, settings.get("plane", ""))
        _choose(self.doubt_box, settings.get("uncertainty", DOUBTS[0]))
        self.mirror.setChecked(bool(settings.get("flips")))


def _choose(box: QComboBox, value: Any) -> None:
    box.setCurrentIndex(max(0, box.findData(value)))


def _ndim(image: Any) -> int:
    return int(image.ndim)


def this_slice(viewer: Any, image: Any) -> Roi:
    """The slice of a scan that is shown, in the axes of its array.

    Raises
    ------
    MedtError
        If the scan is shown as a whole, or another place than it.
    """
    shown, shape = slice_shown(viewer, image), layers.spatial_shape_of(image)
    if shown is None:
        raise MedtError(texts.NO_SLICE, remedy=texts.NO_SLICE_REMEDY)
    axis, index = shown
    if not 0 <= index < shape[axis]:
        raise MedtError(texts.SLICE_OUTSIDE, remedy=texts.SLICE_OUTSIDE_REMEDY)
    box = [slice(0, size) for size in shape]
    box[axis] = slice(index, index + 1)
    return tuple(box)


def box_of(shapes: Any, image: Any) -> Roi:
    """The box around all shapes of a layer, in the axes of the image's array; where they are flat, all of the image.

    Raises
    ------
    MedtError
        If nothing is drawn, or only beside the image.
    """
    shape = layers.spatial_shape_of(image)
    corners = [shapes.data_to_world(corner) for outline in shapes.data for corner in outline]
    if not corners:
        raise MedtError(texts.NO_BOX.format(name=shapes.name), remedy=texts.NO_BOX_REMEDY)
    world = np.asarray(corners, float)[:, -image.ndim :]
    if world.shape[1] < image.ndim:
        middle = np.asarray(image.data_to_world([0.0] * image.ndim))[: image.ndim - world.shape[1]]
        world = np.hstack([np.tile(middle, (len(world), 1)), world])
    places = np.asarray([image.world_to_data(corner) for corner in world])
    low, high = places.min(axis=0), places.max(axis=0)
    box = []
    for start, stop, size in zip(low, high, shape, strict=True):
        if stop - start < 1:
            box.append(slice(0, size))
            continue
        part = slice(max(0, int(np.ceil(start - 0.5))), min(size, int(np.floor(stop + 0.5)) + 1))
        if part.start >= part.stop:
            raise MedtError(texts.BOX_OUTSIDE.format(name=shapes.name), remedy=texts.NO_BOX_REMEDY)
        box.append(part)
    return tuple(box)
