"""Step 3: paint on the mask with napari's own tools, with an undo that knows the model's runs too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QButtonGroup, QFileDialog, QSpinBox

from napari_medt._napari_io import write_labels
from napari_medt._napari_io.as_layers import CLASS_COLOURS
from napari_medt._napari_io.origin import origin_of
from napari_medt._napari_io.reading import name_of
from napari_medt.core import MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets.mask_editor import MaskEditor
from napari_medt.widgets.parts import ElidedLabel, FlowLayout, button, chooser, named, text_label
from napari_medt.widgets.review import Review
from napari_medt.widgets.step import Offer, Step

TOOLS = {
    "paint": ("brush", texts.BRUSH),
    "erase": ("erase", texts.ERASE),
    "fill": ("fill", texts.FILL),
    "pan_zoom": ("move", texts.MOVE),
}


class CorrectStep(Step):
    """Puts napari's tools in the user's hand and keeps every change."""

    def __init__(self, review: Review) -> None:
        super().__init__(3, texts.STEP_TITLES["correct"])
        self.review = review
        self.offer = Offer()
        self.hint = text_label(texts.CORRECT_HINT, role="muted")
        self.tools = QButtonGroup(self)
        self.tools.setExclusive(True)
        self.tool_buttons: dict[str, Any] = {}
        for mode, (name, text) in TOOLS.items():
            made = button(text, name, checkable=True)
            made.clicked.connect(lambda _=False, mode=mode: self.use(mode))
            self.tools.addButton(made)
            self.tool_buttons[mode] = made
        self.brush_button = self.tool_buttons["paint"]
        self.label_box = chooser("label")
        self.size_box = named(QSpinBox(), "size")
        self.size_box.setRange(1, 999)
        self.size_box.setValue(10)
        self.size_box.setSuffix(" px")
        self.size_box.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.undo_button = button(texts.UNDO, "undo", clicked=self.undo)
        self.redo_button = button(texts.REDO, "redo", clicked=self.redo)
        self.save_button = button(texts.SAVE, "save", clicked=self._ask_save)
        self.load_button = button(texts.LOAD, "load", clicked=self._ask_load)
        self.kept = ElidedLabel(role="muted")

        self.content.addWidget(self.hint)
        self.content.addLayout(FlowLayout(*self.tool_buttons.values(), spacing=4))
        form = self.add_form()
        form.row(texts.LABEL, self.label_box)
        form.row(texts.SIZE, self.size_box)
        self.content.addLayout(FlowLayout(self.undo_button, self.redo_button, spacing=4))
        self.content.addLayout(FlowLayout(self.save_button, self.load_button))
        self.content.addWidget(self.kept)

        self.label_box.currentIndexChanged.connect(self._label_chosen)
        self.size_box.valueChanged.connect(self._size_chosen)
        review.mask_changed.connect(self.refresh)
        review.image_changed.connect(self.refresh)
        review.busy_changed.connect(lambda _: self.refresh())
        self.offer.accepted.connect(self._restore)
        self.offer.declined.connect(self._start_anew)
        self._followed: Any = None
        self.refresh()

    # ------------------------------------------------------------------------------------------------------------- tools

    def use(self, mode: str) -> None:
        """Take a tool of napari's: the mask becomes the active layer."""
        work = self.review.work
        mask = work.mask if work is not None else None
        if mask is None:
            return
        self.review.tool_taken.emit()
        self.review.viewer.layers.selection.active = mask
        self.review.layers.outline(self.review.image, False)
        if mode != "pan_zoom":
            mask.visible = True
        mask.mode = mode
        self._show_tool()

    def _label_chosen(self, _: int = 0) -> None:
        work = self.review.work
        if work is not None and work.mask is not None and self.label_box.currentData() is not None:
            work.mask.selected_label = self.label_box.currentData()

    def _size_chosen(self, value: int) -> None:
        work = self.review.work
        if work is not None and work.mask is not None and round(work.mask.brush_size) != value:
            work.mask.brush_size = value

    def _show_tool(self, _: Any = None) -> None:
        work = self.review.work
        mask = work.mask if work is not None else None
        active = mask is not None and self.review.viewer.layers.selection.active is mask
        mode = str(mask.mode) if active else ""
        self.tools.setExclusive(False)
        for name, made in self.tool_buttons.items():
            made.setChecked(name == mode)
        self.tools.setExclusive(True)
        if mask is not None:
            self.size_box.blockSignals(True)
            self.size_box.setValue(round(mask.brush_size))
            self.size_box.blockSignals(False)
            at = self.label_box.findData(int(mask.selected_label))
            if at >= 0 and at != self.label_box.currentIndex():
                self.label_box.blockSignals(True)
                self.label_box.setCurrentIndex(at)
                self.label_box.blockSignals(False)

    def follow(self, mask: Any) -> None:
        """Show the tool, size and label that are set on the mask by napari's own controls and keys."""
        if mask is self._followed:
            return
        if self._followed is not None:
            for event in ("mode", "brush_size", "selected_label"):
                getattr(self._followed.events, event).disconnect(self._show_tool)
        self._followed = mask
        if mask is not None:
            for event in ("mode", "brush_size", "selected_label"):
                getattr(mask.events, event).connect(self._show_tool)

    # ----------------------------------------------------------------------------------------------------------- history

    def undo(self) -> None:
        """Take back the last change."""
        work = self.review.work
        if work is not None and not self.review.busy:
            work.undo()

    def redo(self) -> None:
        """Bring back what was undone."""
        work = self.review.work
        if work is not None and not self.review.busy:
            work.redo()

    # ------------------------------------------------------------------------------------------------------------- files

    def _ask_save(self) -> None:
        image = self.review.image
        stem = "mask" if image is None else f"{name_of(Path(image.name))}_mask"
        endings = mask_endings(image)
        path, chosen = QFileDialog.getSaveFileName(
            self, texts.SAVE, stem + endings[0], ";;".join(f"{texts.ENDINGS[end]} (*{end})" for end in endings)
        )
        if path:
            ending = next((end for end in endings if f"(*{end})" in chosen), endings[0])
            self.save(path if Path(path).suffix else path + ending)

    def _ask_load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, texts.LOAD, "", texts.MASK_FILES)
        if path:
            self.load(path)

    def save(self, path: str | Path) -> None:
        """Write the mask, off the window's thread: on the grid of the file the picture came from, names of classes with it."""
        work, image = self.review.work, self.review.image
        if work is None or image is None:
            return
        labels = work.snapshot()
        attributes = {
            **layers.spatial_state(image),
            "metadata": dict((image if work.mask is None else work.mask).metadata),
            **layers.names_of_classes(work.classes),
        }

        def write() -> Path:
            return Path(write_labels(str(path), labels, attributes)[0])

        self.review.bridge.aside(
            write,
            then=lambda written: self.message.say(texts.MASK_SAVED.format(name=written.name), kind="good"),
            failed=lambda error: self.message.say(str(error), kind="error"),
        )

    def load(self, path: str | Path) -> None:
        """Take a mask from a file; it must be of the picture's size, or say where in the patient it lies."""
        work, image = self.review.work, self.review.image
        if work is None or image is None:
            return
        origin = origin_of(image.metadata)
        if origin is not None and not origin.still_holds(layers.spatial_state(image), work.shape):
            origin = None

        def read() -> tuple[np.ndarray, np.ndarray | None]:
            from napari_medt.io import read_labels, read_segmentation

            if origin is None or origin.geometry.frame != "patient":
                return fitting(read_labels(path)[0], work.shape, Path(path).name), None
            found = read_segmentation(path, like=origin.stand_in())[0]
            shown = np.asarray(origin.forth(found).array)
            return fitting(shown, work.shape, Path(path).name), origin.axes.apply(np.asarray(found.array))

        def loaded(found: tuple[np.ndarray, np.ndarray | None]) -> None:
            if work.replace(found[0], texts.LOADED_NAME):
                layers.made_of(work.mask, found[1])
                self.message.say(texts.MASK_LOADED.format(name=Path(path).name), kind="good")

        self.review.bridge.aside(read, then=loaded, failed=lambda error: self.message.say(str(error), kind="error"))

    # ----------------------------------------------------------------------------------------------------------- recovery

    def _restore(self) -> None:
        work = self.review.work
        if work is not None:
            self.offer.hide()
            self.review.restore(work)

    def _start_anew(self) -> None:
        work = self.review.work
        if work is not None:
            self.offer.hide()
            self.review.start_anew(work)

    # ------------------------------------------------------------------------------------------------------------ display

    def refresh(self) -> None:
        """Show what the mask, its history and its draft are now."""
        work: MaskEditor | None = self.review.work
        mask = work.mask if work is not None else None
        self.follow(mask)
        found = work.found if work is not None else None
        self.offer.offer(texts.found_mask(found.when, found.edits)) if found is not None else self.offer.hide()
        self._list_labels(work)
        usable = mask is not None and self.review.busy != "run"
        for widget in (*self.tool_buttons.values(), self.label_box, self.size_box, self.save_button, self.load_button):
            widget.setEnabled(usable)
        undo = work.undo_name if work is not None else ""
        redo = work.redo_name if work is not None else ""
        for made, name, label, tip in (
            (self.undo_button, undo, texts.undo_label(undo), texts.TOOLTIPS["undo"]),
            (self.redo_button, redo, texts.redo_label(redo), texts.TOOLTIPS["redo"]),
        ):
            made.setEnabled(bool(name) and not self.review.busy)
            made.setToolTip(f"{label}\n{tip}" if name else tip)
            made.setText(label)
        self.hint.setText(texts.CORRECT_HINT if mask is not None else texts.NO_MASK_HINT)
        self.kept.setText(work.kept_words if work is not None else "")
        self.kept.setVisible(bool(self.kept.text()))
        self.set_summary(texts.changes(work.edits) if work is not None and work.edits else "")
        self._show_tool()

    def _list_labels(self, work: MaskEditor | None) -> None:
        names = list(work.classes) if work is not None else []
        if [self.label_box.itemText(i) for i in range(self.label_box.count())] == names[1:]:
            return
        self.label_box.blockSignals(True)
        self.label_box.clear()
        self.label_box.setIconSize(QSize(12, 12))
        for value, name in enumerate(names[1:], start=1):
            self.label_box.addItem(_swatch(CLASS_COLOURS[(value - 1) % len(CLASS_COLOURS)]), name, value)
        self.label_box.blockSignals(False)


def mask_endings(image: Any) -> tuple[str, ...]:
    """Formats offered for the mask of a picture, that of the picture's own file first."""
    origin = None if image is None else origin_of(image.metadata)
    patient = origin is not None and origin.geometry.frame == "patient"
    endings = [".nii.gz", ".seg.nrrd", ".nrrd", ".mha", ".tif", ".ome.zarr"]
    if not patient:
        endings = [".tif", ".ome.tif", *([".png"] if image is not None and image.ndim == 2 else []), *endings[:4]]
    if origin is not None and origin.acquisition.files:
        endings.insert(0, ".dcm")
    if origin is not None:
        name = origin.source.lower()
        endings.sort(key=lambda ending: not (name.endswith(ending) or (ending == ".nii.gz" and name.endswith(".nii"))))
    return tuple(endings)


def _swatch(colour: str) -> QIcon:
    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor(colour))
    return QIcon(pixmap)


def fitting(labels: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return a mask as the picture needs it.

    Raises
    ------
    MedtError
        If the size differs.
    """
    squeezed = labels.reshape([n for n in labels.shape if n != 1]) if labels.shape != shape else labels
    if (
        squeezed.shape != shape
        and labels.size == int(np.prod(shape))
        and squeezed.shape == tuple(n for n in shape if n != 1)
    ):
        squeezed = labels.reshape(shape)
    if squeezed.shape != shape:
        raise MedtError(texts.wrong_size(name, labels.shape, shape), remedy="choose the mask that belongs to it")
    return squeezed.astype(np.min_scalar_type(int(labels.max(initial=0))), copy=False)
