"""Step 5: two versions side by side, and which of them is used from now on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QFrame, QGridLayout

from napari_medt.core import MedtError
from napari_medt.training.gate import Change
from napari_medt.widgets import layers, texts
from napari_medt.widgets.casework import Casework
from napari_medt.widgets.lessons import Compared, Lesson
from napari_medt.widgets.parts import FlowLayout, button, chooser, mark, named, text_label
from napari_medt.widgets.remembered import remember, remembered
from napari_medt.widgets.review import Review
from napari_medt.widgets.side_by_side import SideBySide
from napari_medt.widgets.starter import Starter
from napari_medt.widgets.step import Step

DIFFERENCE = "difference"
ROLE_COLOURS = {1: "#3fa2ff", 2: "#fe6100"}  # mended, spoilt: told apart with every form of colour blindness


class Scores(QFrame):
    """A small table: structure and measure, before, after, and what the change lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "modelcard")
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(8, 6, 8, 6)
        self._grid.setHorizontalSpacing(7)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(0, 1)
        self.rows: list[tuple[str, ...]] = []
        self.hide()

    def show_changes(self, groups: Sequence[tuple[str, Sequence[Change]]], units: str, axes: int) -> None:
        """Show groups of changes, each under its heading."""
        while self._grid.count():
            old = self._grid.takeAt(0).widget()
            old.hide()
            old.deleteLater()
        self.rows = []
        for heading, found in groups:
            if not found:
                continue
            self._put([heading], roles=["strong"])
            titles = (texts.BEFORE, texts.AFTER, texts.CHANGE)
            previous = None
            for change in found:
                if change.structure != previous:
                    previous = change.structure
                    self._put([previous or texts.ALL_STRUCTURES, *titles], roles=["", "muted", "muted", "muted"])
                    titles = ("", "", "")
                words = texts.change_words(change, units, axes)
                self.rows.append((heading, change.structure, *words))
                self._put(list(words), roles=["muted", "", "", texts.change_role(change)])
        self.setVisible(bool(self.rows))

    def _put(self, words: Sequence[str], *, roles: Sequence[str]) -> None:
        at = self._grid.rowCount()
        for column, (text, role) in enumerate(zip(words, roles, strict=True)):
            made = text_label(text, role=role, wrap=not column)
            made.setAlignment(Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft)
            self._grid.addWidget(made, at, column, 1, 1 if len(words) > 1 else 4)


class CompareStep(Step):
    """Compares the version in use with another; a worse one is kept out unless the user insists.

    Signals
    -------
    taken
        A version is used from now on; its key, and whether it is another than before.
    compared
        There is a comparison to decide on, or no longer.
    """

    taken = Signal(str, bool)
    compared = Signal()

    def __init__(self, review: Review, cases: Casework) -> None:
        super().__init__(5, texts.STEP_TITLES["compare"])
        self.review, self.cases = review, cases
        self.hint = text_label(texts.COMPARE_HINT, role="muted")
        self.version_box = chooser("versions")
        self.starter = Starter(review, "compare", texts.COMPARE, self.compare)
        self.compare_button, self.progress = self.starter.button, self.starter.progress
        self.back_button = button(texts.ROLL_BACK, "roll_back", clicked=self._roll_back)
        self.table = Scores()
        self.verdict = text_label()
        self.difference = named(QCheckBox(texts.SHOW_DIFFERENCE), "difference")
        self.difference.setChecked(True)
        self.side_by_side = named(QCheckBox(texts.SIDE_BY_SIDE), "side_by_side")
        self.views: SideBySide | None = None
        self.keep_button = button(texts.KEEP_OLD, "keep_old", clicked=self.keep_old)
        self.accept_button = button(texts.ACCEPT_NEW, "accept_new", clicked=self.accept_new)
        self.insist = named(QCheckBox(texts.INSIST), "insist")
        self.found: Compared | None = None
        self._pair = ("", "")  # the version in use and the one chosen here, of which the user may insist on the worse
        self._taking = ("", "")  # a version that is to be used from now on, and what is said then
        for made in (self.keep_button, self.accept_button):
            made.setProperty("role", "big")

        self.content.addWidget(self.hint)
        form = self.add_form()
        form.row(texts.VERSION, self.version_box)
        self.content.addLayout(FlowLayout(self.compare_button, self.back_button))
        self.content.addWidget(self.progress)
        self.content.addWidget(self.table)
        self.content.addWidget(self.verdict)
        self.content.addWidget(self.difference)
        self.content.addWidget(self.side_by_side)
        self.content.addWidget(self.insist)
        self.content.addLayout(FlowLayout(self.keep_button, self.accept_button))

        self.version_box.currentIndexChanged.connect(lambda _: self.refresh())
        self.difference.toggled.connect(self._show_difference)
        self.side_by_side.toggled.connect(self._show_views)
        self.insist.toggled.connect(lambda _: self.refresh())
        review.models_changed.connect(self._listed)
        review.model_changed.connect(self.list_versions)
        review.mask_changed.connect(self.refresh)
        review.image_changed.connect(self._another_image)
        review.busy_changed.connect(lambda _: self.refresh())
        review.bridge.aside(remembered, then=self._remembered)
        self.refresh()

    # ---------------------------------------------------------------------------------------------------------- versions

    def list_versions(self, choose: str = "") -> None:
        """List all versions of the model in use, the newest first."""
        review = self.review
        card = review.cards.get(review.model_key)
        wanted = choose or self.version_box.currentData()
        family = [other for other in review.cards.values() if card is not None and other.name == card.name]
        family.sort(key=lambda other: -other.version)
        self.version_box.blockSignals(True)
        self.version_box.clear()
        for other in family:
            self.version_box.addItem(texts.version(other.version, in_use=other.key == review.model_key), other.key)
            at = self.version_box.count() - 1
            self.version_box.setItemData(at, " ".join(other.notes) or other.description, Qt.ItemDataRole.ToolTipRole)
        self.version_box.setCurrentIndex(max(0, self.version_box.findData(wanted)))
        self.version_box.blockSignals(False)
        self.refresh()

    @property
    def _other(self) -> str:
        """The chosen version, where it is not the one in use."""
        chosen = self.version_box.currentData() or ""
        return "" if chosen == self.review.model_key else chosen

    def _roll_back(self) -> None:
        other, old = self._other, self.review.model_key
        if other and self.back_button.isEnabled():
            self._forget()
            self._take(other, texts.rolled_back(old, other))

    # ----------------------------------------------------------------------------------------------------------- compare

    def compare(self, key: str = "") -> None:
        """Measure the version in use and another on the held-out cases and the present one."""
        review, work = self.review, self.review.work
        if work is not None and work.moving:
            work.when_still(lambda: self.compare(key))
            return
        new = key or self._other
        if review.busy or not new or not self.cases.who():
            return
        self._forget()
        self.message.clear()
        self.list_versions(new)
        self.progress.begin(texts.STARTING)
        review.hold("compare")
        old, image = review.model_key, review.image

        def compared(found: Compared) -> None:
            if (review.model_key, review.image) == (old, image):
                self._compared(found)
            else:
                self.message.say(texts.COMPARED_OTHER, kind="plain")

        def gathered(lessons: tuple[Lesson, ...]) -> None:
            review.begin("compare", "compare", "compare", lessons, old, new, review.device, then=compared)

        def failed(error: MedtError) -> None:
            review.release()
            self.message.say(str(error), kind="error")

        self.cases.lessons(then=gathered, failed=failed)

    def _compared(self, found: Compared) -> None:
        self.found = found
        worse, image = self.review.worse, self.review.image
        (worse.add if found.verdict.worse else worse.discard)((found.old, found.new))
        self._remember(worse=sorted(worse))
        self.review.worse_changed.emit()
        units, axes = ("px", 2) if image is None else (layers.units_of(image), int(image.ndim))
        cases = max((change.cases for change in found.held_out), default=0)
        self.table.show_changes(
            [(texts.held_out_heading(cases), found.held_out), (texts.THIS_CASE, found.here)], units, axes
        )
        self.verdict.setText(found.verdict.why)
        mark(self.verdict, role="bad" if found.verdict.worse else "")
        self.set_summary(texts.WORSE if found.verdict.worse else "")
        self._show_difference()
        self._show_views()
        self.refresh()
        self.compared.emit()

    def _show_difference(self, _: Any = None) -> None:
        """Lay what the new version mends and spoils over the picture, or take it away."""
        image, found = self.review.image, self.found
        if image is None:
            return
        if found is None or found.difference is None or not self.difference.isChecked():
            self.review.layers.hide(image, DIFFERENCE)
            return
        if found.difference.shape == layers.spatial_shape_of(image):
            self.review.layers.show_labels(
                image,
                DIFFERENCE,
                found.difference,
                name=texts.DIFFERENCE_OF.format(name=image.name),
                colours=ROLE_COLOURS,
                words=texts.DIFFERENCE_NAMES,
            )

    def _show_views(self, _: Any = None) -> None:
        """Show what both versions draw in a second view, or close it."""
        self.leave()
        image, found = self.review.image, self.found
        if image is None or found is None or not self.side_by_side.isChecked():
            return
        if [mask.shape for mask in found.drawn] == [layers.spatial_shape_of(image)] * 2:
            titles = [
                texts.title_of_view(when, key) for when, key in zip(texts.VIEWS, (found.old, found.new), strict=True)
            ]
            classes = len(self.review.classes)
            self.views = SideBySide(self.review.viewer, image, found.drawn, titles=titles, classes=classes)
            self.views.closed.connect(lambda: self.side_by_side.setChecked(False), Qt.ConnectionType.QueuedConnection)

    def leave(self) -> None:
        """Close the second view."""
        if self.views is not None:
            self.views.leave()
            self.views = None

    def _another_image(self) -> None:
        if self.found is not None:
            self._forget()
        self.refresh()

    def _forget(self) -> None:
        self.found = None
        self.table.show_changes((), "px", 2)
        self.verdict.setText("")
        self.insist.setChecked(False)
        for image, _ in self.review.works:
            self.review.layers.hide(image, DIFFERENCE)
        self.leave()
        self.set_summary("")
        self.compared.emit()

    # ---------------------------------------------------------------------------------------------------------- decision

    def keep_old(self) -> None:
        """Go on with the version in use; the other stays on disk."""
        if self.found is not None and not self.review.busy:
            old = self.found.old
            self._forget()
            self.refresh()
            self.message.say(texts.kept_old(old), kind="good")
            self.taken.emit(old, False)

    def accept_new(self) -> None:
        """Use the new version from now on, unless it is blocked."""
        if self.accept_button.isEnabled() and self.found is not None:
            new = self.found.new
            self._forget()
            self._take(new, texts.accepted_new(new))

    def _take(self, key: str, said: str) -> None:
        """Use a version from now on, once it was seen to be there still."""
        self._taking = key, said
        self.review.refresh_models()

    def _listed(self, _: str = "") -> None:
        self.list_versions()
        (key, said), self._taking = self._taking, ("", "")
        review = self.review
        if key and key not in review.cards:
            self.message.say(texts.VERSION_GONE.format(key=key), kind="error")
        elif key:
            self._remember(model=key)
            review.preferred = key
            review.models_changed.emit(key)
            self.message.say(said, kind="good")
            self.taken.emit(key, True)

    def _remember(self, **values: Any) -> None:
        self.review.bridge.aside(
            lambda: remember(**values), failed=lambda error: self.message.say(str(error), kind="error")
        )

    def _remembered(self, found: dict[str, Any]) -> None:
        """Take up which versions were found to be worse in an earlier session."""
        pairs = found.get("worse")
        if isinstance(pairs, list):
            self.review.worse.update(
                (str(pair[0]), str(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2
            )
            self.review.worse_changed.emit()
        self.refresh()

    # ----------------------------------------------------------------------------------------------------------- display

    def refresh(self) -> None:
        """Show what can be done now."""
        busy, found = self.review.busy, self.found
        if self.review.image is None:
            self.leave()
        several = self.version_box.count() > 1
        self.hint.setText(texts.COMPARE_HINT if several else texts.ONE_VERSION)
        self.starter.refresh(bool(self._other) and bool(self.cases.who()))
        pair = (self.review.model_key, self._other)
        if pair != self._pair:
            self._pair = pair
            self.insist.setChecked(False)
        known_worse = pair in self.review.worse
        allowed = not known_worse or self.insist.isChecked()
        self.back_button.setEnabled(bool(self._other) and allowed and not busy)
        self.version_box.setEnabled(several and not busy)
        worse = found is not None and found.verdict.worse
        self.verdict.setVisible(bool(self.verdict.text()))
        self.insist.setVisible(worse or known_worse)
        for widget in (self.keep_button, self.accept_button, self.difference, self.side_by_side):
            widget.setVisible(found is not None)
        self.keep_button.setEnabled(not busy)
        self.accept_button.setEnabled(not busy and found is not None and (not worse or self.insist.isChecked()))
