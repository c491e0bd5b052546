"""All heads of a network in a table: small pictures beside their figures, to be sorted, and to be shown by a click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from napari_medt.widgets import texts
from napari_medt.widgets.answers import HeadLine
from napari_medt.widgets.parts import named

SMALL_PX = 40
ROW = Qt.ItemDataRole.UserRole
VALUE = Qt.ItemDataRole.UserRole + 1


class HeadsTable(QWidget):
    """A small window; lives and closes with the dock.

    Signals
    -------
    chosen
        A row was clicked: source and head.
    """

    chosen = Signal(str, object)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Tool)
        self.setObjectName("medtHeads")
        self.lines: tuple[HeadLine, ...] = ()
        self.table = named(QTableWidget(0, len(texts.HEAD_COLUMNS)), "head_table")
        self.table.setHorizontalHeaderLabels(texts.HEAD_COLUMNS)
        for column, tip in enumerate(texts.HEAD_COLUMN_TIPS):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(SMALL_PX + 6)
        self.table.setIconSize(QSize(SMALL_PX, SMALL_PX))
        self.table.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.table.currentCellChanged.connect(lambda row, *_: self._row_chosen(row))
        box = QVBoxLayout(self)
        box.setContentsMargins(6, 6, 6, 6)
        box.addWidget(self.table)
        self.resize(620, 520)

    def fill(self, lines: Sequence[HeadLine], *, title: str) -> None:
        """Show these heads in place of those before."""
        self.lines = tuple(lines)
        self.setWindowTitle(texts.HEADS_TITLE.format(name=title))
        table = self.table
        table.blockSignals(True)
        table.setSortingEnabled(False)
        table.setRowCount(len(self.lines))
        for row, line in enumerate(self.lines):
            picture = QTableWidgetItem(_icon(line.small), "")
            picture.setData(ROW, row)
            table.setItem(row, 0, picture)
            name = texts.source_name(line.source, line.kind)
            figures = (
                (name, row),
                (str(line.head + 1), line.head),
                (texts.figure(line.entropy), line.entropy),
                (texts.figure(line.distance, line.unit), line.distance),
                (texts.figure(line.agreement), line.agreement),
            )
            for column, (text, value) in enumerate(figures, start=1):
                table.setItem(row, column, _Figure(text, value))
        table.setSortingEnabled(True)
        table.sortItems(1)
        table.setCurrentItem(None)
        table.blockSignals(False)
        table.resizeColumnsToContents()
        table.setColumnWidth(0, SMALL_PX + 12)

    def _row_chosen(self, row: int) -> None:
        item = self.table.item(row, 0)
        if item is not None:
            line = self.lines[item.data(ROW)]
            self.chosen.emit(line.source, line.head)


class _Figure(QTableWidgetItem):
    """Sorted by its value; what has none comes last."""

    def __init__(self, text: str, value: float | None) -> None:
        super().__init__(text)
        self.setData(VALUE, float("inf") if value is None else float(value))

    def __lt__(self, other: Any) -> bool:
        return bool(self.data(VALUE) < other.data(VALUE))


def _icon(small: Any) -> QIcon:
    from napari.utils.colormaps import ensure_colormap

    colours = (255 * ensure_colormap("inferno").map(small.ravel() / 255.0)).astype("uint8")
    height, width = small.shape
    picture = QImage(colours.tobytes(), width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()
    return QIcon(QPixmap.fromImage(picture).scaled(SMALL_PX, SMALL_PX, Qt.AspectRatioMode.KeepAspectRatio))
