"""The folded part of step 2: attention of a structure, against another model, of all heads, and on paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFileDialog, QFrame, QVBoxLayout

from napari_medt._napari_io.writing import write_image
from napari_medt.core import BadImage
from napari_medt.core.boxes import bounding_box
from napari_medt.widgets import figure, layers, texts
from napari_medt.widgets.answers import HeadLine
from napari_medt.widgets.heads_table import HeadsTable
from napari_medt.widgets.looking import Looking
from napari_medt.widgets.parts import FlowLayout, Form, button, chooser, named, text_label
from napari_medt.widgets.review import Review
from napari_medt.widgets.tool_context import other_masks

PIECE = 0


class LookMore(QFrame):
    """Choices that not every look needs.

    Signals
    -------
    asked
        Attention of a structure is wanted: its label, and where in the mask it is.
    right_asked
        The same for what of it is right and what is wrong: its label, and where it is drawn and meant to be.
    agreement_wanted
        A map of where the heads agree is wanted.
    against_changed
        Maps are to be compared with those of this model; empty for none.
    said
        A sentence for the message line: text, kind.
    """

    asked = Signal(int, object)
    right_asked = Signal(int, object)
    agreement_wanted = Signal()
    against_changed = Signal(str)
    said = Signal(str, str)

    def __init__(self, review: Review, looking: Looking) -> None:
        super().__init__()
        self.setProperty("role", "modelcard")
        self._review, self._looking = review, looking
        self.structure_box = chooser("structure")
        self.structure_button = button(texts.SHOW_STRUCTURE, "show_structure", clicked=self.ask_structure)
        self.reference_box = chooser("reference")
        self.right_button = button(texts.RIGHT_AND_WRONG, "right_and_wrong", clicked=self.ask_right_and_wrong)
        self.against_box = chooser("against")
        self.colours = named(QCheckBox(texts.SAME_COLOURS), "same_colours")
        self.agreement_button = button(texts.AGREEMENT, "agreement", clicked=self.agreement_wanted.emit)
        self.heads_button = button(texts.HEADS, "heads", clicked=looking.compare_heads)
        self.keep_button = button(texts.KEEP, "keep", clicked=self.keep)
        self.save_button = button(texts.SAVE_MAP, "save_map", clicked=self._ask_save)
        self.figure_button = button(texts.FIGURE, "figure", clicked=self._ask_figure)
        self.table: HeadsTable | None = None
        self.form = form = Form()
        form.row(texts.STRUCTURE, self.structure_box, self.structure_button)
        self.no_reference = text_label(texts.NO_REFERENCE, role="muted")
        form.row(texts.REFERENCE, self.reference_box, self.right_button, self.no_reference)
        form.row(texts.AGAINST, self.against_box)
        form.below(self.colours)
        inside = QVBoxLayout(self)
        inside.setContentsMargins(10, 8, 10, 8)
        inside.addLayout(form)
        inside.addLayout(FlowLayout(self.heads_button, self.agreement_button))
        inside.addLayout(FlowLayout(self.keep_button, self.save_button, self.figure_button))
        self.against_box.currentIndexChanged.connect(lambda _: self.against_changed.emit(self.against))
        for changed in (review.model_changed, review.models_changed, review.image_changed):
            changed.connect(lambda *_: self._offer())
        self._events = review.viewer.layers.events
        for event in (self._events.inserted, self._events.removed):
            event.connect(self._offer_references)
        review.image_changed.connect(self._offer_references)
        self._offer()
        self._offer_references()
        self.hide()

    @property
    def label(self) -> int:
        """The chosen structure; 0 for the piece at the point clicked last."""
        return int(self.structure_box.currentData() or 0)

    @property
    def against(self) -> str:
        """Key of the model that maps are compared with, or empty."""
        return self.against_box.currentData() or ""

    @property
    def same_colours(self) -> bool:
        """Whether the next maps are shown with the limits of this one."""
        return bool(self.colours.isChecked())

    def refresh(self, ready: bool, *, shown: bool) -> None:
        """Enable what can be asked now; `shown` says that there is a map."""
        for widget in (
            self.structure_box,
            self.structure_button,
            self.right_button,
            self.heads_button,
            self.agreement_button,
        ):
            widget.setEnabled(ready and not self._looking.busy)
        self.against_box.setEnabled(ready and self.against_box.count() > 1)
        for widget in (self.keep_button, self.save_button, self.figure_button):
            widget.setEnabled(shown)

    def _offer(self) -> None:
        """Offer the structures of the model, and other models whose blocks have the same names."""
        review = self._review
        names = review.classes
        if [self.structure_box.itemText(row) for row in range(1, self.structure_box.count())] != [
            texts.WHOLE_LABEL.format(name=name) for name in names[1:]
        ]:
            self.structure_box.clear()
            self.structure_box.addItem(texts.THIS_PIECE, PIECE)
            for label, name in enumerate(names[1:], start=1):
                self.structure_box.addItem(texts.WHOLE_LABEL.format(name=name), label)
            self.structure_box.setCurrentIndex(min(1, len(names) - 1))
        card, chosen = review.cards.get(review.model_key), self.against
        self.against_box.blockSignals(True)
        self.against_box.clear()
        self.against_box.addItem(texts.NOTHING, "")
        for key, other in review.cards.items():
            alike = card is not None and (other.architecture, other.window) == (card.architecture, card.window)
            if alike and key != review.model_key:
                self.against_box.addItem(texts.version_name(other.title, other.version), key)
        self.against_box.setCurrentIndex(max(0, self.against_box.findData(chosen)))
        self.against_box.blockSignals(False)

    def _offer_references(self, event: Any = None) -> None:
        """Offer the masks that may say what is right; without one there is a word on how to get one."""
        work, chosen = self._review.work, self.reference_box.currentData()
        found = [] if work is None else other_masks(self._review, work)
        self.reference_box.clear()
        for layer in found:
            self.reference_box.addItem(layer.name, layer)
        if chosen in found:
            self.reference_box.setCurrentIndex(found.index(chosen))
        for widget in (self.reference_box, self.right_button):
            widget.setVisible(bool(found))
        self.no_reference.setVisible(not found)

    # --------------------------------------------------------------------------------------------------------- structures

    def ask_structure(self) -> None:
        """Cut the chosen structure out of the mask, off the window's thread, and ask about it."""
        work, label = self._review.work, self.label
        if work is None or work.mask is None:
            return
        labels, last = work.mask.data, self._looking.clicked
        asked = work, self._looking.model
        if label == PIECE and last is None:
            self.said.emit(texts.NO_POINT, "plain")
            return

        def cut() -> Any:
            inside = labels == (label or labels[last])
            box = bounding_box(inside)
            if box is None or (label == PIECE and not labels[last]):
                raise BadImage(texts.NO_STRUCTURE, remedy=texts.NO_STRUCTURE_REMEDY)
            return tuple(part.start for part in box), inside[box].copy()

        def if_meant(tell: Any, *answer: Any) -> None:
            if asked == (self._review.work, self._looking.model):
                tell.emit(*answer)

        self._review.bridge.aside(
            cut,
            then=lambda crop: if_meant(self.asked, label, crop),
            failed=lambda error: if_meant(self.said, str(error), "error"),
        )

    def ask_right_and_wrong(self) -> None:
        """Hold the chosen structure against the reference, off the window's thread, and ask about what is right and wrong."""
        work, reference, last = self._review.work, self.reference_box.currentData(), self._looking.clicked
        if work is None or work.mask is None or reference is None:
            return
        labels, meant = work.mask.data, reference.data
        label = self.label or (0 if last is None else int(labels[last]))
        if not label:
            self.said.emit(texts.NO_POINT, "plain")
            return
        alone = len(self._review.classes) == 2  # a reference of a single structure may number its pieces

        def cut() -> Any:
            both = np.stack([labels == label, np.asarray(meant) > 0 if alone else np.asarray(meant) == label])
            box = bounding_box(both.any(axis=0))
            for there, why in ((both.all(axis=0), texts.NOTHING_RIGHT), (both[0] != both[1], texts.NOTHING_WRONG)):
                if not there.any():
                    raise BadImage(why, remedy=texts.REFERENCE_REMEDY)
            assert box is not None
            return tuple(part.start for part in box), both[(slice(None), *box)].copy()

        self._review.bridge.aside(
            cut,
            then=lambda crop: self.right_asked.emit(label, crop),
            failed=lambda error: self.said.emit(str(error), "error"),
        )

    # ------------------------------------------------------------------------------------------------------------- all heads

    def show_heads(self, lines: Sequence[HeadLine], choose: Callable[[str, int | None], None]) -> None:
        """Show the table of all heads in a small window of its own; a click on a row calls `choose`."""
        if self.table is None:
            self.table = HeadsTable(self)
            self.table.chosen.connect(choose)
        self.table.fill(lines, title=self._review.title_of(self._review.model_key))
        self.table.show()
        self.table.raise_()

    def leave(self) -> None:
        """Let go of the viewer, and close the window of heads."""
        for event in (self._events.inserted, self._events.removed):
            event.disconnect(self._offer_references)
        self.close_table()

    def close_table(self) -> None:
        """Close the window of heads."""
        if self.table is not None:
            self.table.close()

    # --------------------------------------------------------------------------------------------------------------- paper

    def keep(self) -> None:
        """Make a copy of the map that the next one does not replace."""
        image = self._review.image
        layer = None if image is None else self._review.layers.find(image, "attention")
        if layer is not None:
            name = self._review.layers.keep(image, layer).name
            self.said.emit(texts.MAP_KEPT.format(name=name), "good")

    def _ask_save(self) -> None:
        kinds = ";;".join(f"{title} (*{ending})" for ending, title in texts.MAP_ENDINGS.items())
        path, chosen = QFileDialog.getSaveFileName(self, texts.SAVE_MAP, "attention.nii.gz", kinds)
        if path:
            ending = next((end for end in texts.MAP_ENDINGS if f"(*{end})" in chosen), ".nii.gz")
            self.save(path if Path(path).suffix else path + ending)

    def save(self, path: str | Path) -> None:
        """Write the map that is shown, off the window's thread, in its own place and grid."""
        image = self._review.image
        layer = None if image is None else self._review.layers.find(image, "attention")
        if layer is None:
            return
        data, attributes = layer.data, {**layers.spatial_state(layer), "metadata": dict(layer.metadata)}
        self._aside(lambda: write_image(str(path), data, attributes), Path(path).name)

    def _ask_figure(self) -> None:
        path, chosen = QFileDialog.getSaveFileName(self, texts.FIGURE, "attention.png", texts.FIGURE_FILES)
        if path:
            self.save_figure(path if Path(path).suffix else path + (".pdf" if "pdf" in chosen else ".png"))

    def save_figure(self, path: str | Path) -> None:
        """Write picture, mask, attention and unsure places side by side, off the window's thread."""
        image = self._review.image
        if image is not None:
            scene = figure.scene_of(self._review, image)
            self._aside(lambda: figure.draw(scene, Path(path)), Path(path).name)

    def _aside(self, job: Callable[[], Any], name: str) -> None:
        self._review.bridge.aside(
            job,
            then=lambda _: self.said.emit(texts.MASK_SAVED.format(name=name), "good"),
            failed=lambda error: self.said.emit(str(error), "error"),
        )
