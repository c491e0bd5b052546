"""The small form of a tool: its few options, what it would change, and whether to do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_medt.widgets import texts
from napari_medt.widgets.parts import Form, Number, align, button, chooser, named, text_label
from napari_medt.widgets.step import ProgressLine
from napari_medt.widgets.tools import EVERYWHERE, THIS_SLICE, Option, Scale, Tool


class Offered:
    """What a form can offer for the present picture: its scale, its structures and other masks.

    Parameters
    ----------
    scale
        Of lengths and sizes.
    names
        Of the structures, by label.
    present
        Labels that are in the mask.
    active
        The label the tools work on.
    volume
        Whether the picture is one.
    levels
        Darkest and brightest intensity that is shown; `None` for a picture in colour.
    masks
        Other layers of labels of the same shape, by name.
    """

    def __init__(
        self,
        scale: Scale,
        names: Mapping[int, str],
        present: tuple[int, ...],
        active: int,
        *,
        volume: bool,
        levels: tuple[float, float] | None,
        masks: Mapping[str, Any],
    ) -> None:
        self.scale = scale
        self.names = names
        self.present = present
        self.active = active
        self.volume = volume
        self.levels = levels
        self.masks = masks

    def choices(self, option: Option) -> list[tuple[str, Any]]:
        """Return texts and values for an option with a list."""
        others = [(name, label) for label, name in self.names.items() if label != self.active]
        return {
            "choice": [(texts.TOOL_CHOICES[key], key) for key in option.choices],
            "other": others,
            "target": [(texts.NEW_STRUCTURE, 0), *others],
            "free": [(name, label) for name, label in others if label not in self.present] + [(texts.NEW_STRUCTURE, 0)],
            "region": [(texts.EVERYWHERE, EVERYWHERE)]
            + ([(texts.ON_THIS_SLICE, THIS_SLICE)] if self.volume else [])
            + [(texts.WITHIN.format(name=self.names[label]), label) for label in self.present if label in self.names],
            "mask": list(self.masks.items()),
        }[option.kind]


class ToolForm(QFrame):
    """Shows one tool at a time; hidden without one.

    Signals
    -------
    changed
        An option was changed.
    applied, cancelled
        The user wants the change, or not.
    """

    changed = Signal()
    applied = Signal()
    cancelled = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "toolform")
        self.title = text_label(role="title", wrap=False)
        self.hint = text_label(role="muted")
        self.form = Form()
        self._rows = QWidget()
        self._rows.setLayout(self.form)
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setWordWrap(True)
        self.progress = ProgressLine()
        self.apply_button = button(texts.APPLY, "apply", clicked=self._apply)
        self.cancel_button = button(texts.CLOSE_TOOL, "cancel_tool", clicked=self.cancelled.emit)
        self.boxes: dict[str, Any] = {}
        self._scale = Scale("px", "px", (1.0, 1.0), 1.0, 1.0)
        box = QVBoxLayout(self)
        box.setContentsMargins(10, 6, 10, 8)
        box.setSpacing(5)
        for widget in (self.title, self.hint, self._rows, self.legend, self.progress):
            box.addWidget(widget)
        line = QHBoxLayout()
        line.addWidget(self.apply_button)
        line.addWidget(self.cancel_button)
        line.addStretch(1)
        box.addLayout(line)
        self.hide()

    def ask(self, tool: Tool, offered: Offered) -> None:
        """Show the options of a tool, with sensible values."""
        self._clear()
        self._scale = offered.scale
        self.title.setText(texts.TOOL_NAMES[tool.name])
        self.hint.setText(texts.TOOLTIPS[tool.name])
        for option in tool.options:
            if not option.volume or offered.volume:
                box = self._box(option, offered)
                self.boxes[option.name] = box
                self.form.row(texts.TOOL_OPTIONS[option.name], box)
        align([self.form])
        self._rows.setVisible(bool(self.boxes))
        self.apply_button.setVisible(tool.clicks != "stroke")
        self.say("")
        self.show()

    def values(self) -> dict[str, Any]:
        """Return what the user chose, in mm and ml, by the fields of `Wish`."""
        found: dict[str, Any] = {}
        for name, box in self.boxes.items():
            if isinstance(box, Number):
                factor = {"size": self._scale.to_size, "low": 1.0, "high": 1.0}.get(name, self._scale.to_mm)
                found[name] = box.value() * factor
            elif box.count():
                found[name] = box.currentData()
        return found

    def say(self, html: str, *, ready: bool = False) -> None:
        """Tell what the tool would do, and whether it can be done."""
        self.legend.setText(html)
        self.legend.setVisible(bool(html))
        self.apply_button.setEnabled(ready)

    def _apply(self) -> None:
        for box in self.boxes.values():
            if isinstance(box, Number):
                box.interpretText()  # a click does not take the focus from what is typed on every system
        self.applied.emit()

    def _clear(self) -> None:
        self.boxes = {}
        fresh = QWidget()
        self.form = Form()
        fresh.setLayout(self.form)
        self.layout().replaceWidget(self._rows, fresh)
        self._rows.hide()
        self._rows.deleteLater()
        self._rows = fresh

    def _box(self, option: Option, offered: Offered) -> Any:
        if option.kind in ("length", "size", "level"):
            return self._number(option, offered)
        box = chooser(f"tool_{option.name}")
        for text, value in offered.choices(option):
            box.addItem(text, value)
        box.currentIndexChanged.connect(lambda _: self.changed.emit())
        return box

    def _number(self, option: Option, offered: Offered) -> Number:
        made: Number = named(Number(), f"tool_{option.name}")
        scale = offered.scale
        if option.kind == "level":
            low, high = offered.levels or (0.0, 1.0)
            start, step, suffix = (low if option.name == "low" else high), max((high - low) / 50, 1e-6), ""
            made.setRange(-1e9, 1e9)
        else:
            start = scale.length(option.steps) if option.kind == "length" else scale.size
            step, suffix = start / 2, f" {scale.unit if option.kind == 'length' else scale.size_unit}"
            made.setRange(0.0, 1e9)
        made.setDecimals(_decimals(step))
        made.setSingleStep(step)
        made.setValue(start)
        made.setSuffix(suffix)
        made.setKeyboardTracking(False)
        made.setAlignment(Qt.AlignmentFlag.AlignCenter)
        made.valueChanged.connect(lambda _: self.changed.emit())
        return made


def _decimals(step: float) -> int:
    """Return how many digits behind the point show a step."""
    return next((digits for digits in range(8) if step * 10**digits >= 1), 8)
