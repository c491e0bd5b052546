"""A step of the dock that folds, its message line, its progress, and the bar that offers something."""

from __future__ import annotations

import time
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractButton,
    QFrame,
    QHBoxLayout,
    QProgressBar,
    QStyle,
    QStyleOption,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)

from napari_medt.widgets import texts
from napari_medt.widgets.parts import ElidedLabel, Form, button, mark, named, quiet_button, text_label


class Message(QFrame):
    """The one line at the bottom of a step; an error stays until it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "message")
        self._sign = text_label(role="sign", wrap=False)
        self._text = text_label()
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._close = quiet_button("✕", "dismiss", clicked=self.clear)
        line = QHBoxLayout(self)
        line.setContentsMargins(6, 4, 4, 4)
        line.setSpacing(6)
        line.addWidget(self._sign, 0, Qt.AlignmentFlag.AlignTop)
        line.addWidget(self._text, 1)
        line.addWidget(self._close, 0, Qt.AlignmentFlag.AlignTop)
        self.kind = "plain"
        for part in (self, self._sign, self._close):
            part.hide()

    @property
    def text(self) -> str:
        """What is shown, empty when nothing is."""
        return self._text.text()

    def say(self, text: str, *, kind: str = "plain") -> None:
        """Show a sentence; `kind` is plain, good or error. Nothing but an error or `clear` replaces an unread error."""
        if (self.kind == "error" and kind == "plain" and self.text) or (kind, text) == (self.kind, self.text):
            return
        self.kind = kind
        mark(self, kind=kind)
        for child in (self._sign, self._text):
            child.style().unpolish(child)
            child.style().polish(child)
        self._sign.setText({"good": "✓", "error": "!"}.get(kind, ""))
        self._sign.setVisible(kind != "plain")
        self._close.setVisible(kind == "error")
        self._text.setText(text)
        self.setVisible(bool(text))

    def clear(self) -> None:
        """Show nothing."""
        self.kind = "plain"
        self.say("")


class Offer(QFrame):
    """A bar inside the dock that offers two ways on; it blocks nothing.

    Parameters
    ----------
    accept, decline
        Text and name of the two buttons.
    """

    accepted = Signal()
    declined = Signal()

    def __init__(self, accept: tuple[str, str], decline: tuple[str, str]) -> None:
        super().__init__()
        self.setProperty("role", "offer")
        self._text = text_label()
        self.accept_button = button(*accept, clicked=self.accepted.emit)
        self.decline_button = button(*decline, clicked=self.declined.emit)
        self.accept_button.setProperty("primary", True)
        box = QVBoxLayout(self)
        box.setContentsMargins(10, 8, 10, 8)
        box.addWidget(self._text)
        line = QHBoxLayout()
        line.addWidget(self.accept_button)
        line.addWidget(self.decline_button)
        line.addStretch(1)
        box.addLayout(line)
        self.hide()

    @property
    def text(self) -> str:
        """What is offered."""
        return self._text.text()

    def offer(self, text: str) -> None:
        """Show the bar with a sentence."""
        self._text.setText(text)
        self.show()


class ProgressLine(QWidget):
    """A bar, what is being done, and how long it will still take, once that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.caption = ElidedLabel(role="muted")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(3)
        box.addWidget(self.bar)
        box.addWidget(self.caption)
        self._began = 0.0
        self._first: tuple[float, int] | None = None
        self.hide()

    def begin(self, message: str) -> None:
        """Show the bar without a length."""
        self._began = time.monotonic()
        self._first = None
        self.bar.setRange(0, 0)
        self.caption.setText(message)
        self.show()

    @property
    def took(self) -> float:
        """Seconds since `begin`."""
        return time.monotonic() - self._began

    def report(self, done: int, total: int, message: str = "") -> None:
        """Show how far the job is; the time left is told after the first tenth, from the pace of the steps themselves."""
        now = time.monotonic()
        if total <= 0:
            return
        self.bar.setRange(0, total)
        self.bar.setValue(min(done, total))
        if self._first is None or done < self._first[1]:
            self._first = now, done
        words = [message] if message else []
        since, at = self._first
        if total > done > at and (done - at) / total >= 0.1 and now - since > 0.5:
            words.append(texts.time_left((now - since) / (done - at) * (total - done)))
        self.caption.setText(" · ".join(words))

    def hold(self, words: str) -> None:
        """Say that the job waits, or with no words that it goes on; the time left is then measured anew."""
        self._first = None
        if words:
            self.caption.setText(words)

    def end(self) -> None:
        """Hide the bar."""
        self.hide()


class _Header(QAbstractButton):
    """The line of a step that is always visible: number, title, what came of it, and whether it is open."""

    def __init__(self, number: int, title: str) -> None:
        super().__init__()
        named(self, "step_header")
        self.setProperty("role", "header")
        self.setCheckable(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName(f"{number} {title}")
        self.number = number
        self.badge = text_label(str(number), role="badge", wrap=False)
        self.badge.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.title = text_label(title, role="title", wrap=False)
        self.summary = ElidedLabel(role="summary")
        self.summary.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.chevron = text_label("›", role="chevron", wrap=False)
        line = QHBoxLayout(self)
        line.setContentsMargins(10, 6, 10, 6)
        line.setSpacing(8)
        line.addWidget(self.badge)
        line.addWidget(self.title)
        line.addWidget(self.summary, 1)
        line.addWidget(self.chevron)
        for child in (self.badge, self.title, self.summary, self.chevron):
            child.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def sizeHint(self) -> QSize:
        """Return what the labels need."""
        return self.layout().sizeHint()

    def minimumSizeHint(self) -> QSize:
        """Return what the labels need at least."""
        return self.layout().minimumSize()

    def paintEvent(self, event: Any) -> None:
        """Draw the background the style sheet asks for."""
        painter = QStylePainter(self)
        option = QStyleOption()
        option.initFrom(self)
        painter.drawPrimitive(QStyle.PrimitiveElement.PE_Widget, option)


class Step(QFrame):
    """One numbered step of the dock, open or folded, with its message line at the bottom."""

    toggled = Signal(bool)

    def __init__(self, number: int, title: str) -> None:
        super().__init__()
        self.setProperty("role", "card")
        self.header = _Header(number, title)
        self.body = QFrame()
        self.body.setProperty("role", "body")
        self.message = Message()
        self.forms: list[Form] = []
        self.content = QVBoxLayout()
        self.content.setSpacing(8)
        inside = QVBoxLayout(self.body)
        inside.setContentsMargins(12, 2, 12, 10)
        inside.setSpacing(8)
        inside.addLayout(self.content)
        inside.addWidget(self.message)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(self.header)
        box.addWidget(self.body)
        self.header.toggled.connect(self._show_body)
        self._show_body(False)

    def add_form(self) -> Form:
        """Add rows of labelled controls, aligned with those of the other steps."""
        form = Form()
        self.forms.append(form)
        self.content.addLayout(form)
        return form

    @property
    def is_open(self) -> bool:
        """Whether the step shows its controls."""
        return self.header.isChecked()

    def set_open(self, opened: bool) -> None:
        """Open or fold the step."""
        self.header.setChecked(opened)

    def set_summary(self, text: str) -> None:
        """Say in the header what came of the step."""
        self.header.summary.setText(text)
        self.header.summary.setToolTip(text)

    def set_state(self, state: str) -> None:
        """Mark the step as `next`, `done` or neither (empty)."""
        for widget in (self, self.header.badge):
            mark(widget, state=state)
        self.header.badge.setText("✓" if state == "done" else str(self.header.number))

    def _show_body(self, opened: bool) -> None:
        self.body.setVisible(opened)
        self.header.chevron.setText("⌄" if opened else "›")
        self.toggled.emit(opened)
