"""The line at the dock's top: which case, how far it is, which comes next, and the list of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QFrame, QHBoxLayout, QListWidget, QListWidgetItem, QMenu, QVBoxLayout

from napari_medt.widgets import texts
from napari_medt.widgets.casework import Casework
from napari_medt.widgets.open_cases import OpenCases
from napari_medt.widgets.parts import ElidedLabel, button, mark, named, quiet_button, text_label
from napari_medt.widgets.remembered import remembered

ROWS = 6
SIGNS = {"to do": "○", "draft": "◐", "accepted": "●", "second look": "?", "unreadable": "×"}


class CaseBar(QFrame):
    """Case name, state, `◀ 3/12 ▶` and `☰`."""

    def __init__(self, opened: OpenCases, cases: Casework) -> None:
        super().__init__()
        self.setProperty("role", "card")
        self.opened, self.cases = opened, cases
        self.review = opened.review
        self.name = ElidedLabel(role="title")
        self.state = text_label(role="chip", wrap=False)
        self.place = text_label(role="muted", wrap=False)
        self.back_button = quiet_button("◀", "previous_case", clicked=lambda: opened.step(-1))
        self.next_button = quiet_button("▶", "next_case", clicked=lambda: opened.step(1))
        self.menu_button = quiet_button("☰", "cases_menu", clicked=self._show_menu)
        self.open_button = button(texts.OPEN_FOLDER, "open_folder", clicked=self.ask_folder)
        self.again_button = button("", "folder_again", clicked=self._again)
        self.notes = ElidedLabel(role="muted")
        self.list = named(QListWidget(), "cases")
        self.list.itemActivated.connect(self._chosen)
        self.list.itemClicked.connect(self._chosen)
        self.list.hide()
        self._last = ""
        line = QHBoxLayout()
        line.setSpacing(4)
        line.addWidget(self.name, 1)
        for widget in (self.state, self.menu_button):
            line.addWidget(widget)
        around = QHBoxLayout()
        around.setSpacing(4)
        around.addWidget(self.notes, 1)
        for widget in (self.back_button, self.place, self.next_button):
            around.addWidget(widget)
        offers = QHBoxLayout()
        offers.addWidget(self.open_button)
        offers.addWidget(self.again_button)
        box = QVBoxLayout(self)
        box.setContentsMargins(10, 6, 6, 6)
        box.setSpacing(4)
        box.addLayout(line)
        box.addLayout(around)
        box.addLayout(offers)
        box.addWidget(self.list)
        opened.changed.connect(self.refresh)
        cases.state_changed.connect(self.refresh)
        self.review.image_changed.connect(self.refresh)
        self.review.busy_changed.connect(lambda _: self.refresh())
        self.review.viewer.dims.events.current_step.connect(self._tell_seen)
        self.review.devices_known.connect(lambda _: self.review.bridge.aside(remembered, then=self._remembered))
        self.refresh()

    def close_bar(self) -> None:
        """Let go of the viewer."""
        self.review.viewer.dims.events.current_step.disconnect(self._tell_seen)

    # -------------------------------------------------------------------------------------------------------------- open

    def ask_folder(self) -> None:
        """Let the user choose a folder of images."""
        folder = QFileDialog.getExistingDirectory(self, texts.OPEN_FOLDER)
        if folder:
            self.opened.open_folder(Path(folder))

    def _remembered(self, found: dict[str, Any]) -> None:
        folder = str(found.get("folder", ""))
        self._last = folder if folder and Path(folder).is_dir() else ""
        self.refresh()

    def _again(self) -> None:
        self.opened.open_folder(Path(self._last))

    def _chosen(self, row: QListWidgetItem) -> None:
        self.opened.go(row.data(Qt.ItemDataRole.UserRole))

    # -------------------------------------------------------------------------------------------------------------- menu

    def make_menu(self) -> QMenu:
        """Make the menu behind ☰."""
        opened, menu = self.opened, QMenu(self)
        menu.addAction(texts.OPEN_FOLDER, self.ask_folder)
        listed = menu.addAction(texts.SHOW_LIST, self._toggle_list)
        listed.setCheckable(True)
        listed.setChecked(not self.list.isHidden())
        orders = menu.addMenu(texts.ORDER_BY)
        for order, words in texts.ORDERS.items():
            action = orders.addAction(words, lambda order=order: opened.sort(order))
            action.setCheckable(True)
            action.setChecked(opened.worklist is not None and opened.worklist.order == order)
        for action in (listed, orders.menuAction()):
            action.setEnabled(opened.worklist is not None)
        hand = menu.addAction(texts.HAND_OVER, self._ask_hand_over)
        hand.setEnabled(self.cases.state == "accepted")
        return menu

    def _show_menu(self) -> None:
        self.make_menu().popup(self.menu_button.mapToGlobal(self.menu_button.rect().bottomLeft()))

    def _toggle_list(self) -> None:
        self.list.setVisible(self.list.isHidden())
        self.refresh()

    def _ask_hand_over(self) -> None:
        from napari_medt.widgets.mask_files import mask_endings

        image = self.review.image
        if image is None:
            return
        ending = mask_endings(image)[0]
        path, _ = QFileDialog.getSaveFileName(self, texts.HAND_OVER, f"{image.name}_mask{ending}")
        if path:
            self.cases.hand_over(path if Path(path).suffix else path + ending)

    # ----------------------------------------------------------------------------------------------------------- display

    def refresh(self) -> None:
        """Show what is open, how far it is, and what lies around it."""
        opened, image = self.opened, self.review.image
        items, at = opened.items, opened.place
        listed = bool(items)
        name = texts.OPENING.format(name=opened.opening) if opened.opening else "" if image is None else str(image.name)
        self.name.setText(name or texts.NO_CASE)
        self.name.setToolTip(name)
        state = self.cases.state
        self.state.setText(f"{SIGNS[state]} {texts.STATES[state]}")
        mark(self.state, state=state)
        self.state.setVisible(image is not None and not opened.opening)
        self.place.setText(f"{at + 1}/{len(items)}")
        idle = not opened.opening and not self.review.busy
        self.back_button.setEnabled(idle and at > 0)
        self.next_button.setEnabled(idle and opened.following is not None)
        for widget in (self.place, self.back_button, self.next_button):
            widget.setVisible(listed)
        self.open_button.setVisible(not listed)
        self.again_button.setVisible(not listed and bool(self._last))
        self.again_button.setText(texts.FOLDER_AGAIN.format(name=Path(self._last).name))
        if not self.list.isHidden():
            self._fill_list()
        self._tell_seen()

    def _fill_list(self) -> None:
        self.list.clear()
        for item in self.opened.items:
            state = "unreadable" if item.problem else item.state
            row = QListWidgetItem(texts.case_row(SIGNS[state], item.name, state, item.uncertainty))
            row.setData(Qt.ItemDataRole.UserRole, item.key)
            row.setToolTip(item.problem or str(item.image.path))
            self.list.addItem(row)
        self.list.setCurrentRow(self.opened.place)
        height = max(16, self.list.sizeHintForRow(0)) if self.list.count() else 16
        self.list.setFixedHeight(height * min(ROWS, max(1, self.list.count())) + 8)

    def _tell_seen(self, event: Any = None) -> None:
        share = self.cases.seen_share()
        self.notes.setText("" if share is None else texts.seen(share))
        self.notes.setVisible(bool(self.notes.text() or self.opened.items))
