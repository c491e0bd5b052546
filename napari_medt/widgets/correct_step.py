"""Step 3: structures, tools and history: everything that changes the mask by hand, and every change can be undone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QButtonGroup, QFileDialog

from napari_medt._napari_io.reading import name_of
from napari_medt.cases.entry import By
from napari_medt.core import MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets.guard import Verdict
from napari_medt.widgets.history_list import HistoryList
from napari_medt.widgets.mask_editor import MaskEditor
from napari_medt.widgets.mask_files import mask_endings, reader, writer
from napari_medt.widgets.parts import ElidedLabel, FlowLayout, WholeNumber, button, chooser, named, text_label
from napari_medt.widgets.review import Review
from napari_medt.widgets.slice_shown import box_in_view
from napari_medt.widgets.step import Offer, Step
from napari_medt.widgets.structures import Structures, rows_of
from napari_medt.widgets.toolbox import Toolbox

TOOLS = {
    "paint": ("brush", texts.BRUSH),
    "erase": ("erase", texts.ERASE),
    "fill": ("fill", texts.FILL),
    "pan_zoom": ("move", texts.MOVE),
}


class CorrectStep(Step):
    """Puts the tools in the user's hand and keeps every change."""

    def __init__(self, review: Review) -> None:
        super().__init__(3, texts.STEP_TITLES["correct"])
        self.review = review
        self.offer = Offer((texts.RESTORE, "restore"), (texts.START_ANEW, "start_anew"))
        self.overlap_offer = Offer((texts.TAKE, "take"), (texts.KEEP_OTHERS, "keep_others"))
        self.hint = text_label(texts.CORRECT_HINT, role="muted")
        self.structures = Structures()
        self.tools = QButtonGroup(self)
        self.tools.setExclusive(True)
        self.tool_buttons: dict[str, Any] = {}
        for mode, (name, text) in TOOLS.items():
            made = button(text, name, checkable=True)
            made.clicked.connect(lambda _=False, mode=mode: self.use(mode))
            self.tools.addButton(made)
            self.tool_buttons[mode] = made
        self.brush_button = self.tool_buttons["paint"]
        self.size_box = named(WholeNumber(), "size")
        self.size_box.setRange(1, 999)
        self.size_box.setValue(10)
        self.size_box.setSuffix(" px")
        self.size_box.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.overlap_box = chooser("overlap")
        self.freeze_button = button(texts.FREEZE, "freeze", clicked=self.freeze)
        self.unfreeze_button = button("", "unfreeze", clicked=self.unfreeze)
        self.toolbox = Toolbox(review)
        for policy, text in texts.OVERLAPS.items():
            self.overlap_box.addItem(text, policy)
        self.undo_button = button(texts.UNDO, "undo", clicked=self.undo)
        self.redo_button = button(texts.REDO, "redo", clicked=self.redo)
        self.history = HistoryList()
        self.save_button = button(texts.SAVE, "save", clicked=self._ask_save)
        self.load_button = button(texts.LOAD, "load", clicked=self._ask_load)
        self.kept = ElidedLabel(role="muted")

        self.content.addWidget(self.hint)
        self.content.addWidget(self.structures)
        self.content.addLayout(FlowLayout(*self.tool_buttons.values(), spacing=4))
        form = self.add_form()
        form.row(texts.SIZE, self.size_box)
        form.row(texts.OVERLAP, self.overlap_box)
        self.content.addLayout(FlowLayout(self.freeze_button, self.unfreeze_button, spacing=4))
        self.content.addWidget(self.toolbox)
        self.content.addWidget(self.overlap_offer)
        self.content.addLayout(FlowLayout(self.undo_button, self.redo_button, spacing=4))
        self.content.addWidget(self.history)
        self.content.addLayout(FlowLayout(self.save_button, self.load_button))
        self.content.addWidget(self.kept)

        self.structures.chosen.connect(self.choose)
        self.structures.lock_wished.connect(self.lock)
        self.size_box.valueChanged.connect(self._size_chosen)
        self.overlap_box.currentIndexChanged.connect(self._overlap_chosen)
        self.history.wished.connect(self.go_to)
        review.mask_changed.connect(self.refresh)
        review.mask_counted.connect(self._show_structures)
        review.image_changed.connect(self.refresh)
        review.busy_changed.connect(lambda _: self.refresh())
        review.overlap_asked.connect(self._ask_overlap)
        self.offer.accepted.connect(self._restore)
        self.offer.declined.connect(self._start_anew)
        self.overlap_offer.accepted.connect(self._take_others)
        self.overlap_offer.declined.connect(self._keep_others)
        self.toolbox.said.connect(lambda text, kind: self.message.say(text, kind=kind))
        self._asked: tuple[MaskEditor, Verdict, By] | None = None
        self._followed: Any = None
        self._bind_keys()
        self.refresh()

    # ------------------------------------------------------------------------------------------------------- tools, labels

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

    def choose(self, label: int) -> None:
        """Make a structure the one that is painted and that the tools work on."""
        work = self.review.work
        if work is not None and work.mask is not None:
            work.mask.selected_label = label

    def lock(self, label: int, locked: bool) -> None:
        """Lock a structure, or unlock it."""
        work = self.review.work
        if work is not None:
            work.set_locked(label, locked)

    def freeze(self) -> None:
        """Let nothing change any more in the part of the picture that is on the canvas."""
        work = self.review.work
        mask = work.mask if work is not None else None
        box = None if mask is None else box_in_view(self.review.viewer, mask)
        if work is not None and box is not None:
            work.freeze(box)
            self.message.say(texts.froze(work.frozen_share), kind="good")
        elif work is not None:
            self.message.say(texts.NOTHING_IN_VIEW, kind="plain")

    def unfreeze(self) -> None:
        """Let everything be changed again."""
        work = self.review.work
        if work is not None:
            work.freeze(None)
            self.message.clear()

    def _size_chosen(self, value: int) -> None:
        work = self.review.work
        if work is not None and work.mask is not None and round(work.mask.brush_size) != value:
            work.mask.brush_size = value

    def _overlap_chosen(self, _: int = 0) -> None:
        work = self.review.work
        if work is not None:
            work.overlap = self.overlap_box.currentData()

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
        self._show_structures()

    def _show_structures(self) -> None:
        work = self.review.work
        mask = work.mask if work is not None else None
        self.structures.show_rows(rows_of(work), int(mask.selected_label) if mask is not None else 0)

    def follow(self, mask: Any) -> None:
        """Show the tool, size and label that are set on the mask by napari's own controls and keys."""
        if mask is self._followed:
            return
        names = ("mode", "brush_size", "selected_label", "colormap")
        if self._followed is not None:
            for event in names:
                getattr(self._followed.events, event).disconnect(self._show_tool)
        self._followed = mask
        if mask is not None:
            for event in names:
                getattr(mask.events, event).connect(self._show_tool)

    def close_tools(self) -> None:
        """Let go of the mask, the mouse and the keys."""
        self.follow(None)
        self.toolbox.shut()
        for key in texts.KEYS:
            self.review.viewer.bind_key(key, None, overwrite=True)

    def _bind_keys(self) -> None:
        """Give the tools their keys; those of the active layer, napari's own, go before them."""
        acts: dict[str, Callable[[], None]] = {
            "apply": self.toolbox.apply,
            "cancel_tool": self.toolbox.close_tool,
            "next_structure": lambda: self.structures.step(1),
            "lock_structure": self.structures.toggle_lock,
        }
        for key, name in texts.KEYS.items():
            act = acts.get(name) or partial(self.toolbox.toggle, name)
            self.review.viewer.bind_key(key, lambda _, act=act: act(), overwrite=True)

    # ----------------------------------------------------------------------------------------------------------- history

    def step_anywhere(self, *, back: bool) -> None:
        """Undo or redo for the whole window: of the layer in use, if it is a mask of the user's own, else of ours."""
        active = self.review.viewer.layers.selection.active
        if active is not None and hasattr(active, "undo") and not layers.is_ours(active):
            active.undo() if back else active.redo()
        else:
            self.undo() if back else self.redo()

    def undo(self) -> None:
        """Take back the last change."""
        work = self.review.work
        if work is not None and self.review.busy != "run":
            work.undo()

    def redo(self) -> None:
        """Bring back what was undone."""
        work = self.review.work
        if work is not None and self.review.busy != "run":
            work.redo()

    def go_to(self, position: int) -> None:
        """Go to a place in the history."""
        work = self.review.work
        if work is not None and self.review.busy != "run":
            work.go_to(position)
        self.refresh()

    # ----------------------------------------------------------------------------------------------------------- overlap

    def _ask_overlap(self, work: MaskEditor, verdict: Verdict, by: By) -> None:
        self._asked = work, verdict, by
        self.overlap_offer.offer(texts.overlap(verdict.asked.name, _named(work, verdict)))

    def _take_others(self) -> None:
        asked, self._asked = self._asked, None
        self.overlap_offer.hide()
        if asked is not None:
            work, verdict, by = asked
            work.take(verdict.asked, by)

    def _keep_others(self) -> None:
        self._asked = None
        self.overlap_offer.hide()

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
        """Write the mask, off the window's thread."""
        work, image = self.review.work, self.review.image
        if work is None or image is None:
            return
        if work.moving:
            work.when_still(lambda: self.save(path))
            return
        self.review.bridge.aside(
            writer(work, image, path),
            then=lambda written: self.message.say(texts.MASK_SAVED.format(name=written.name), kind="good"),
            failed=lambda error: self.message.say(str(error), kind="error"),
        )

    def load(self, path: str | Path) -> None:
        """Take a mask from a file; it must be of the picture's size, or say where in the patient it lies."""
        work, image = self.review.work, self.review.image
        if work is None or image is None:
            return

        name, onto = Path(path).name, image.name

        def loaded(found: tuple[Any, Any]) -> None:
            def made() -> None:
                layers.made_of(work.mask, found[1])
                self.message.say(texts.MASK_LOADED.format(name=name, image=onto), kind="good")
                work.on_case(lambda case: case.read_only or case.log.loaded(name), failed=failed)

            if not work.replace(found[0], texts.LOADED_NAME.format(name=name), by="file", then=made):
                self.message.say(texts.LOADED_LATE.format(name=name, image=onto), kind="error")

        def failed(error: MedtError) -> None:
            self.message.say(str(error), kind="error")

        self.review.bridge.aside(reader(work, image, path), then=loaded, failed=failed)

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
        if self._asked is not None and self._asked[0] is not work:
            self._keep_others()
        usable = mask is not None and self.review.busy != "run"
        for widget in (*self.tool_buttons.values(), self.size_box, self.overlap_box, self.structures):
            widget.setEnabled(usable)
        share = work.frozen_share if work is not None else 0.0
        self.freeze_button.setEnabled(usable)
        self.unfreeze_button.setEnabled(usable)
        self.unfreeze_button.setText(texts.unfreeze(share))
        self.unfreeze_button.setVisible(share > 0)
        for widget in (self.toolbox, self.save_button, self.load_button):
            widget.setEnabled(usable)
        if work is not None:
            self.overlap_box.blockSignals(True)
            self.overlap_box.setCurrentIndex(self.overlap_box.findData(work.overlap))
            self.overlap_box.blockSignals(False)
        self.toolbox.offer()
        self._show_history(work)
        self.hint.setText(texts.CORRECT_HINT if mask is not None else texts.NO_MASK_HINT)
        self.structures.setVisible(mask is not None)
        self.kept.setText(work.kept_words if work is not None else "")
        self.kept.setVisible(bool(self.kept.text()))
        self.set_summary(texts.changes(work.edits) if work is not None and work.edits else "")
        self._show_tool()

    def _show_history(self, work: MaskEditor | None) -> None:
        undo = work.undo_name if work is not None else ""
        redo = work.redo_name if work is not None else ""
        for made, name, label, tip in (
            (self.undo_button, undo, texts.undo_label(undo), texts.TOOLTIPS["undo"]),
            (self.redo_button, redo, texts.redo_label(redo), texts.TOOLTIPS["redo"]),
        ):
            made.setEnabled(bool(name) and self.review.busy != "run")
            made.setToolTip(f"{label}\n{tip}" if name else tip)
            made.setText(label)
        self.history.setEnabled(self.review.busy != "run")
        if work is None:
            self.history.hide()
        else:
            self.history.show_timeline(work.timeline)


def _named(work: MaskEditor, verdict: Verdict) -> dict[str, str]:
    geometry = work.picture.geometry
    return {
        work.name_of(label): texts.extent(voxels, geometry.spacing, geometry.units)
        for label, voxels in verdict.taken.items()
    }
