"""What about the picture does not suit the model, in sentences, with the click that mends it where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout

from napari_medt.widgets import texts
from napari_medt.widgets.parts import quiet_button, text_label


class Hints(QFrame):
    """A bar with one sentence for each misfit; nothing is shown where there is none.

    Signals
    -------
    mended
        The user wants what is proposed: the misfit's `fix`.
    """

    mended = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "hints")
        self._rows = QVBoxLayout(self)
        self._rows.setContentsMargins(8, 6, 6, 6)
        self._rows.setSpacing(4)
        self.misfits: tuple[Any, ...] = ()
        self.hide()

    def show_misfits(self, misfits: Sequence[Any]) -> None:
        """Show these, in place of those before."""
        self.misfits = tuple(misfits)
        while self._rows.count():
            row = self._rows.takeAt(0).widget()
            row.hide()
            row.deleteLater()
        for misfit in self.misfits:
            self._rows.addWidget(self._row(misfit))
        self.setVisible(bool(self.misfits))

    def _row(self, misfit: Any) -> QFrame:
        row = QFrame()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        remedy = f"; {misfit.remedy}" if misfit.remedy else ""
        line.addWidget(text_label(f"{misfit.what}{remedy}."), 1)
        if misfit.fix:
            line.addWidget(quiet_button(texts.MEND, "mend", clicked=lambda: self.mended.emit(misfit.fix)))
        return row
