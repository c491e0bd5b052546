"""How well each structure is found while a model learns, drawn as the numbers come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_medt._napari_io.as_layers import CLASS_COLOURS
from napari_medt.widgets import texts
from napari_medt.widgets.parts import named, text_label
from napari_medt.widgets.style import Palette

SMOOTH = 0.15  # weight of the newest value in the line of the training
SHOWN = 6  # structures; more lines than that say nothing
MARKS = ("o", "s", "t", "d", "+", "x")


class LearningCurves(QWidget):
    """Dice of each structure: a line on the windows learnt from, marks on the held-out cases."""

    def __init__(self) -> None:
        super().__init__()
        import pyqtgraph

        named(self, "curve")
        self._pyqtgraph = pyqtgraph
        self.plot = pyqtgraph.PlotWidget()
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.getPlotItem().setContentsMargins(0, 4, 8, 0)
        self.plot.setLabel("bottom", texts.CURVE_STEP)
        self.plot.setLabel("left", texts.CURVE_DICE)
        self.plot.setYRange(0, 1, padding=0.02)
        for side in ("left", "bottom"):
            self.plot.getAxis(side).enableAutoSIPrefix(False)
        self.legend = text_label(role="muted")
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.losses: list[float] = []
        self.training: dict[str, list[tuple[float, float]]] = {}
        self.validation: dict[str, list[tuple[float, float]]] = {}
        self._lines: dict[tuple[str, str], Any] = {}
        self._colours: Sequence[str] = CLASS_COLOURS
        self._drawing = QTimer(self)  # many quick steps are drawn together
        self._drawing.setSingleShot(True)
        self._drawing.setInterval(150)
        self._drawing.timeout.connect(self._draw)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        box.addWidget(self.plot)
        box.addWidget(self.legend)
        self.plot.setFixedHeight(10 * self.fontMetrics().height())

    def clear(self) -> None:
        """Begin anew."""
        self.losses, self.training, self.validation = [], {}, {}
        for line in self._lines.values():
            self.plot.removeItem(line)
        self._lines = {}
        self.legend.setText("")

    def add(self, event: Mapping[str, Any]) -> None:
        """Take what a fine-tuning told of one step, or of a look at the held-out cases."""
        step = float(event.get("step", len(self.losses) + 1))
        if "loss" in event:
            self.losses.append(float(event["loss"]))
        if event.get("steps"):
            self.plot.setXRange(0, float(event["steps"]), padding=0.02)
        for kind, store in (("training", self.training), ("validation", self.validation)):
            for name, value in list(event.get(kind, {}).items())[:SHOWN]:
                if value == value:  # a structure that is not there has no Dice
                    points = store.setdefault(name, [])
                    if kind == "training" and points:
                        value = points[-1][1] + SMOOTH * (value - points[-1][1])
                    points.append((step, float(value)))
        if not self._drawing.isActive():
            self._drawing.start()

    def recolour(self, palette: Palette) -> None:
        """Take the colours of the theme; those of structures are darkened where the background is bright."""
        from qtpy.QtGui import QColor

        dark = palette.look.dark
        self._colours = [colour if dark else QColor(colour).darker(160).name() for colour in CLASS_COLOURS]
        self.plot.setBackground(palette.card)
        for side in ("left", "bottom"):
            axis = self.plot.getAxis(side)
            axis.setPen(palette.line)
            axis.setTextPen(palette.muted)
            font = self.font()
            font.setPointSizeF(max(7.0, palette.look.font_pt - 1))
            axis.setTickFont(font)
            axis.label.setFont(font)
        for line in self._lines.values():
            self.plot.removeItem(line)
        self._lines = {}
        self._draw()

    def _draw(self) -> None:
        names = list(dict.fromkeys((*self.training, *self.validation)))
        for number, name in enumerate(names):
            colour = self._colours[number % len(self._colours)]
            for kind, store in (("training", self.training), ("validation", self.validation)):
                if name in store:
                    steps, values = zip(*store[name], strict=True)
                    self._line(kind, name, colour, MARKS[number % len(MARKS)]).setData(steps, values)
        words = [
            f"<span style='color:{self._colours[n % len(self._colours)]}'>■</span> {texts.plain(name)}"
            for n, name in enumerate(names)
        ]
        self.legend.setText("&nbsp;&nbsp;".join(words) + (f"<br>{texts.CURVE_LEGEND}" if words else ""))

    def _line(self, kind: str, name: str, colour: str, mark: str) -> Any:
        if (kind, name) not in self._lines:
            pen = self._pyqtgraph.mkPen(colour, width=1.5 if kind == "training" else 2.5)
            marks = {"symbol": mark, "symbolBrush": colour, "symbolPen": None, "symbolSize": 9}
            self._lines[kind, name] = self.plot.plot([], [], pen=pen, **(marks if kind == "validation" else {}))
        return self._lines[kind, name]
