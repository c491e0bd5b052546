"""Small building blocks of the dock: named controls, labels, forms, and rows that wrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QPoint, QRect, QSize, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLayoutItem,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QStyle,
    QStyleOption,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QWidget,
)

from napari_medt.widgets import texts


def mark(widget: QWidget, **properties: Any) -> None:
    """Set style properties and let the style sheet see them."""
    for name, value in properties.items():
        if widget.property(name) != value:
            widget.setProperty(name, value)
            widget.style().unpolish(widget)
            widget.style().polish(widget)


def named(widget: QWidget, name: str) -> Any:
    """Give a control its name and its tooltip, which assistive technology reads too."""
    widget.setObjectName(name)
    tip = texts.TOOLTIPS[name]
    widget.setToolTip(tip)
    widget.setAccessibleDescription(tip)
    return widget


def button(text: str, name: str, *, clicked: Callable[[], Any] | None = None, checkable: bool = False) -> QPushButton:
    """Make a push button with its tooltip."""
    made = named(QPushButton(text), name)
    made.setCheckable(checkable)
    made.setCursor(Qt.CursorShape.PointingHandCursor)
    if clicked is not None:
        made.clicked.connect(lambda checked=False: clicked())
    return made


def quiet_button(text: str, name: str, *, clicked: Callable[[], Any] | None = None) -> QToolButton:
    """Make a small button without a background."""
    made = named(QToolButton(), name)
    made.setText(text)
    made.setProperty("role", "quiet")
    made.setCursor(Qt.CursorShape.PointingHandCursor)
    if clicked is not None:
        made.clicked.connect(lambda checked=False: clicked())
    return made


class KeysElsewhere:
    """For lists: letters are keys of the window, and do not look for an entry that begins with them."""

    def keyPressEvent(self, event: Any) -> None:
        """Leave letters and digits to the window."""
        if event.text().isalnum():
            event.ignore()
        else:
            super().keyPressEvent(event)


class _Number:
    """For boxes of numbers: letters and undo are keys of the window, and the wheel passes over what is not in use."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def event(self, event: Any) -> bool:
        """Take what was typed so far before a key does something else."""
        if event.type() in (QEvent.Type.ShortcutOverride, QEvent.Type.KeyPress) and (
            event.text().isalpha() or event.matches(QKeySequence.Undo) or event.matches(QKeySequence.Redo)
        ):
            self.interpretText()
            event.ignore()
            return False
        return super().event(event)

    def wheelEvent(self, event: Any) -> None:
        """Change the number only where it is in use."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class WholeNumber(_Number, QSpinBox):
    """A box for a whole number."""


class Number(_Number, QDoubleSpinBox):
    """A box for a number."""


class Chooser(KeysElsewhere, QComboBox):
    """A combo box that shortens a long entry with an ellipsis, and that the wheel passes over on its way through the dock."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: Any) -> None:
        """Change the entry only where it is in use."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    def paintEvent(self, event: Any) -> None:
        """Draw the frame, the icon and as much of the text as fits."""
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        room = field.width() - (option.iconSize.width() + 8 if not option.currentIcon.isNull() else 4)
        option.currentText = self.fontMetrics().elidedText(option.currentText, Qt.TextElideMode.ElideRight, room)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)


def align(forms: list[Form]) -> None:
    """Give the labels of several forms one width, so that their controls stand in one line; after the font is known."""
    titles = [title for form in forms for title in form.titles]
    for title in titles:
        title.ensurePolished()
        title.setMinimumWidth(0)
    widest = max((title.sizeHint().width() for title in titles), default=0)
    for title in titles:
        title.setMinimumWidth(widest)


def chooser(name: str) -> QComboBox:
    """Make a combo box that shortens long entries instead of widening the dock."""
    made = named(Chooser(), name)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(8)
    made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return made


def text_label(text: str = "", *, role: str = "", wrap: bool = True) -> QLabel:
    """Make a label; long text wraps."""
    made = QLabel(text)
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setWordWrap(wrap)
    if role:
        made.setProperty("role", role)
    return made


class ElidedLabel(QLabel):
    """One line that shortens its end with an ellipsis where it does not fit, and tells all in its tooltip."""

    def __init__(self, text: str = "", *, role: str = "") -> None:
        super().__init__(text)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        if role:
            self.setProperty("role", role)

    def minimumSizeHint(self) -> QSize:
        """Return no width of its own, so that it never widens the dock."""
        return QSize(0, super().minimumSizeHint().height())

    def paintEvent(self, event: Any) -> None:
        """Draw what fits."""
        painter = QStylePainter(self)
        option = QStyleOption()
        option.initFrom(self)
        shown = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, self.width())
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.drawText(self.rect(), int(self.alignment()), shown)


class Form(QGridLayout):
    """Rows of a short label and a control, aligned over the whole step."""

    def __init__(self) -> None:
        super().__init__()
        self.setContentsMargins(0, 0, 0, 0)
        self.setHorizontalSpacing(8)
        self.setVerticalSpacing(6)
        self.setColumnStretch(1, 1)
        self.titles: list[QLabel] = []

    def row(self, label: str, *controls: QWidget) -> QLabel:
        """Add a row; the first control takes the room."""
        at = self.rowCount()
        title = text_label(label, role="form", wrap=False)
        title.setBuddy(controls[0])
        self.titles.append(title)
        self.addWidget(title, at, 0)
        line = QHBoxLayout()
        line.setSpacing(4)
        for index, control in enumerate(controls):
            line.addWidget(control, 1 if index == 0 else 0)
        self.addLayout(line, at, 1)
        return title

    def below(self, widget: QWidget) -> None:
        """Add something under the last control, aligned with it."""
        self.addWidget(widget, self.rowCount(), 1)


class FlowLayout(QLayout):
    """Puts widgets beside each other and goes to the next line where the width ends."""

    def __init__(self, *widgets: QWidget, spacing: int = 6) -> None:
        super().__init__()
        self._items: list[QLayoutItem] = []
        self.setContentsMargins(0, 0, 0, 0)
        self.setSpacing(spacing)
        for widget in widgets:
            self.addWidget(widget)

    def addItem(self, item: QLayoutItem) -> None:
        """Take an item at the end."""
        self._items.append(item)

    def count(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        """Return an item, or `None` past the end."""
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        """Remove and return an item."""
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def hasHeightForWidth(self) -> bool:
        """Tell that the height follows from the width."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Return the height needed for a width."""
        return self._arrange(QRect(0, 0, width, 0), move=False)

    def sizeHint(self) -> QSize:
        """Return the size of the widest item."""
        return self.minimumSize()

    def minimumSize(self) -> QSize:
        """Return the size of the widest item."""
        size = QSize()
        for item in self._items:
            size = size.expandedTo(item.minimumSize())
        return size

    def setGeometry(self, rect: QRect) -> None:
        """Place the items."""
        super().setGeometry(rect)
        self._arrange(rect, move=True)

    def _arrange(self, rect: QRect, *, move: bool) -> int:
        """Place or only measure; items of one line share the width that is left."""
        lines: list[list[QLayoutItem]] = [[]]
        used = 0
        for item in self._items:
            if item.widget() is not None and item.widget().isHidden():
                continue
            width = item.sizeHint().width()
            if lines[-1] and used + self.spacing() + width > rect.width():
                lines.append([])
                used = 0
            used += width + (self.spacing() if lines[-1] else 0)
            lines[-1].append(item)
        y = rect.y()
        for line in filter(None, lines):
            height = max(item.sizeHint().height() for item in line)
            free = rect.width() - sum(i.sizeHint().width() for i in line) - self.spacing() * (len(line) - 1)
            x = rect.x()
            for place, item in enumerate(line):
                share = free * (place + 1) // len(line) - free * place // len(line)
                width = item.sizeHint().width() + max(0, share)
                if move:
                    item.setGeometry(QRect(QPoint(x, y), QSize(width, height)))
                x += width + self.spacing()
            y += height + self.spacing()
        return max(0, y - self.spacing() - rect.y())
