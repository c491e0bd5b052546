"""The visible history of a mask: every change by its name, and a click that goes back to it."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_medt.widgets import texts
from napari_medt.widgets.parts import KeysElsewhere, named
from napari_medt.widgets.timeline import Timeline

ROWS = 4


class HistoryList(KeysElsewhere, QListWidget):
    """One row a change, oldest first, below a row for the time before all of them; what was undone is pale.

    Signals
    -------
    wished
        The user clicked a row: how many changes shall be in the mask.
    """

    wished = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        named(self, "history")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self._showing = False
        self.currentRowChanged.connect(self._chosen)

    @property
    def names(self) -> list[str]:
        """What is listed."""
        return [self.item(at).text() for at in range(self.count())]

    def show_timeline(self, timeline: Timeline) -> None:
        """List the changes, and mark the last that is in the mask; what is listed already stays."""
        wanted = [texts.HISTORY_START, *(change.title for change in timeline.changes)]
        had = self.names
        same = next(
            (at for at, (a, b) in enumerate(zip(had, wanted, strict=False)) if a != b), min(len(had), len(wanted))
        )
        self._showing = True
        for at in reversed(range(same, len(had))):
            self.takeItem(at)
        self.addItems(wanted[same:])
        for at in range(self.count()):
            _fade(self.item(at), undone=at > timeline.position)
        self.setCurrentRow(timeline.position)
        self._showing = False
        height = max(16, self.sizeHintForRow(0))
        self.setFixedHeight(height * min(ROWS, self.count()) + 8)
        self.scrollToItem(self.item(timeline.position))
        self.setVisible(bool(timeline.changes))

    def _chosen(self, row: int) -> None:
        if row >= 0 and not self._showing:
            self.wished.emit(row)


def _fade(item: QListWidgetItem, *, undone: bool) -> None:
    font: Any = item.font()
    if font.italic() != undone:
        font.setItalic(undone)
        item.setFont(font)
    item.setToolTip(texts.UNDONE_TIP if undone else texts.TOOLTIPS["history"])
