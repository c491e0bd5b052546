"""Questions and remarks about a file that is being opened; Qt and napari are only used where there is a window."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from napari_medt.core import AmbiguousImage

if TYPE_CHECKING:
    from qtpy.QtWidgets import QDialog

TITLE = "How is this file meant?"
OPEN = "Open"


def has_window() -> bool:
    """Whether napari has a window that is shown, so that somebody can answer."""
    if not any(name in sys.modules for name in ("PyQt6", "PySide6", "PyQt5", "PySide2")):
        return False
    from qtpy.QtWidgets import QApplication

    return any(widget.isVisible() for widget in QApplication.topLevelWidgets()) if QApplication.instance() else False


def choose(question: AmbiguousImage) -> str | None:
    """Ask which way of reading is meant; None if the user declines."""
    dialog = dialog_of(question)
    agreed, row = bool(dialog.exec()), int(dialog.choices.currentRow())
    dialog.deleteLater()
    return question.choices[row].key if agreed else None


def dialog_of(question: AmbiguousImage) -> Any:
    """Make the dialog; its list is the attribute `choices`."""
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication, QDialog, QDialogButtonBox, QLabel, QListWidget, QMainWindow, QVBoxLayout

    # Inside napari's window it has napari's colours.
    windows = [widget for widget in QApplication.topLevelWidgets() if isinstance(widget, QMainWindow)]
    shown = [window for window in windows if window.isVisible()]
    dialog: QDialog = QDialog(QApplication.activeWindow() or (shown[0] if shown else None))
    dialog.setWindowTitle(TITLE)
    said = QLabel(f"{question.what}.")
    said.setTextFormat(Qt.TextFormat.PlainText)
    said.setWordWrap(True)
    choices = QListWidget()
    choices.addItems([choice.title for choice in question.choices])
    choices.setCurrentRow(0)
    choices.itemDoubleClicked.connect(dialog.accept)
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
    buttons.addButton(OPEN, QDialogButtonBox.ButtonRole.AcceptRole)
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    column = QVBoxLayout(dialog)
    for widget in (said, choices, buttons):
        column.addWidget(widget)
    widest = choices.sizeHintForColumn(0) + 48
    dialog.resize(max(420, min(900, widest)), max(220, min(520, 130 + 24 * len(question.choices))))
    dialog.choices = choices  # type: ignore[attr-defined]
    return dialog


def tell(sentence: str, *, failed: bool = False) -> None:
    """Show a remark as napari shows them; without a window it stays unsaid, as errors are raised anyway."""
    if not has_window():
        return
    from napari.utils.notifications import show_error, show_info

    (show_error if failed else show_info)(sentence)
