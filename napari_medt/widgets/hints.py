"""What about the picture does not suit the model, in sentences, with the click that mends it where there is one."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout

from napari_medt.widgets import texts
from napari_medt.widgets.answers import Hint
from napari_medt.widgets.parts import quiet_button, text_label


class Hints(QFrame):
    """A bar with one sentence for each misfit; nothing is shown where there is none.

    Signals
    -------
    mended
        The user wants what is proposed: the `Hint`.
    """

    mended = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "hints")
        self._rows = QVBoxLayout(self)
        self._rows.setContentsMargins(8, 6, 6, 6)
        self._rows.setSpacing(4)
        self.hints: tuple[Hint, ...] = ()
        self.hide()

    def show_hints(self, hints: Sequence[Hint]) -> None:
        """Show these, in place of those before."""
        self.hints = tuple(hints)
        while self._rows.count():
            row = self._rows.takeAt(0).widget()
            row.hide()
            row.deleteLater()
        for hint in self.hints:
            self._rows.addWidget(self._row(hint))
        self.setVisible(bool(self.hints))

    def _row(self, hint: Hint) -> QFrame:
        row = QFrame()
        row.setProperty("role", "plain")
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        remedy = f"; {hint.remedy}" if hint.remedy else ""
        line.addWidget(text_label(f"{hint.what}{remedy}."), 1)
        if hint.fix in texts.FIXES:
            line.addWidget(quiet_button(texts.FIXES[hint.fix], "mend", clicked=lambda: self.mended.emit(hint)))
        return row
