"""The list of structures: colour, name, how large each is, and whether it is locked; a click makes it the active label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_medt.widgets import texts
from napari_medt.widgets.mask_editor import MaskEditor
from napari_medt.widgets.parts import KeysElsewhere, named

ROWS = 6
_NAME, _SIZE, _LOCK = range(3)


@dataclass(frozen=True)
class Row:
    """What is shown of one structure."""

    label: int
    name: str
    colour: str
    size: str
    locked: bool


def rows_of(work: MaskEditor | None) -> list[Row]:
    """Return the rows for a mask; none without one."""
    mask = work.mask if work is not None else None
    if work is None or mask is None:
        return []
    geometry = work.picture.geometry
    locked = work.protection.locked
    return [
        Row(
            label,
            work.name_of(label),
            _hex(mask.get_color(label)),
            texts.extent(work.voxels.get(label, 0), geometry.spacing, geometry.units),
            label in locked,
        )
        for label in work.structures
    ]


class Structures(KeysElsewhere, QTreeWidget):
    """One row a structure.

    Signals
    -------
    chosen
        The user clicked a structure: its label.
    lock_wished
        The user clicked a padlock: the label, and whether to lock it.
    """

    chosen = Signal(int)
    lock_wished = Signal(int, bool)

    def __init__(self) -> None:
        self.rows: list[Row] = []
        super().__init__()
        named(self, "structures")
        self.setColumnCount(3)
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setIconSize(QSize(14, 14))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_SIZE, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_LOCK, QHeaderView.ResizeMode.ResizeToContents)
        self._showing = False
        self.currentItemChanged.connect(self._current_changed)
        self.itemClicked.connect(self._clicked)

    def show_rows(self, rows: Sequence[Row], active: int) -> None:
        """Show these structures, and mark the active one."""
        self._showing = True
        if [row.label for row in rows] != [row.label for row in self.rows]:
            self.clear()
            self.addTopLevelItems([QTreeWidgetItem() for _ in rows])
            self.rows = []
        for at, row in enumerate(rows):
            if at >= len(self.rows) or self.rows[at] != row:
                self._fill(self.topLevelItem(at), row)
        self.rows = list(rows)
        found = next((at for at, row in enumerate(rows) if row.label == active), -1)
        self.setCurrentItem(self.topLevelItem(found) if found >= 0 else None)
        self._showing = False
        height = max(18, self.sizeHintForRow(0)) if rows else 18
        self.setFixedHeight(height * min(ROWS, max(1, len(rows))) + 8)

    def step(self, by: int) -> None:
        """Make the structure below or above the active one, from the last on to the first."""
        if self.rows:
            at = self.indexOfTopLevelItem(self.currentItem()) if self.currentItem() is not None else -1
            self.setCurrentItem(self.topLevelItem((at + by) % len(self.rows)))

    def toggle_lock(self) -> None:
        """Lock or unlock the active structure."""
        item = self.currentItem()
        if item is not None:
            self._clicked(item, _LOCK)

    def keyPressEvent(self, event: Any) -> None:
        """Let the space bar lock the active structure, as a click on the padlock does."""
        if event.key() == Qt.Key.Key_Space:
            self.toggle_lock()
        else:
            super().keyPressEvent(event)

    def changeEvent(self, event: Any) -> None:
        """Draw the padlocks in the colour of the theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            for at, row in enumerate(self.rows):
                self._fill(self.topLevelItem(at), row)

    def _fill(self, item: QTreeWidgetItem, row: Row) -> None:
        item.setText(_NAME, row.name)
        item.setIcon(_NAME, swatch(row.colour))
        item.setText(_SIZE, row.size)
        item.setTextAlignment(_SIZE, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        item.setIcon(_LOCK, padlock(self.palette().text().color(), closed=row.locked))
        item.setToolTip(_NAME, texts.structure_tip(row.name, row.label))
        item.setToolTip(_SIZE, texts.TOOLTIPS["structures"])
        item.setToolTip(_LOCK, texts.lock_tip(row.name, locked=row.locked))
        item.setData(_LOCK, Qt.ItemDataRole.AccessibleTextRole, texts.lock_tip(row.name, locked=row.locked))

    def _current_changed(self, item: QTreeWidgetItem | None, _: Any = None) -> None:
        if item is not None and not self._showing:
            self.chosen.emit(self.rows[self.indexOfTopLevelItem(item)].label)

    def _clicked(self, item: QTreeWidgetItem, column: int) -> None:
        row = self.rows[self.indexOfTopLevelItem(item)]
        if column == _LOCK:
            self.lock_wished.emit(row.label, not row.locked)
        else:
            self.chosen.emit(row.label)


def swatch(colour: str) -> QIcon:
    """Draw a small square of a colour."""
    pixmap = QPixmap(14, 14)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(colour))
    painter.setPen(QPen(QColor(0, 0, 0, 120), 1))
    painter.drawRoundedRect(QRectF(0.5, 0.5, 13, 13), 3, 3)
    painter.end()
    return QIcon(pixmap)


def padlock(colour: QColor, *, closed: bool) -> QIcon:
    """Draw a padlock: whole and strong when closed, pale with its shackle open otherwise."""
    pixmap = QPixmap(28, 28)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setOpacity(1.0 if closed else 0.5)
    painter.setPen(QPen(colour, 3))
    painter.drawArc(QRectF(9, 3, 10, 14), 0 if closed else 30 * 16, 180 * 16 if closed else 150 * 16)
    if closed:
        painter.setBrush(colour)
    painter.drawRoundedRect(QRectF(5, 13, 18, 12), 2, 2)
    if closed:
        painter.setPen(QPen(QColor(128, 128, 128), 3))
        painter.drawPoint(QPointF(14, 19))
    painter.end()
    return QIcon(pixmap)


def _hex(colour: Any) -> str:
    if colour is None:
        return "#808080"
    red, green, blue = (round(255 * float(part)) for part in colour[:3])
    return f"#{red:02x}{green:02x}{blue:02x}"
