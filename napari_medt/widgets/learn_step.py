"""Step 4: teach the model the corrected mask, watch how it gets nearer, and run what it became."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QSpinBox, QVBoxLayout, QWidget

from napari_medt.core import MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets.parts import FlowLayout, button, named, text_label
from napari_medt.widgets.review import Review
from napari_medt.widgets.step import ProgressLine, Step
from napari_medt.widgets.style import Palette


class LossCurve(QWidget):
    """The loss after each step, drawn while it comes in."""

    def __init__(self) -> None:
        super().__init__()
        import pyqtgraph

        named(self, "curve")
        self.plot = pyqtgraph.PlotWidget()
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.getPlotItem().setContentsMargins(0, 4, 8, 0)
        self.line = self.plot.plot([], [])
        for side in ("left", "bottom"):
            self.plot.getAxis(side).enableAutoSIPrefix(False)
        self.plot.setLabel("bottom", "step")
        self.plot.setLabel("left", "loss")
        self._pyqtgraph = pyqtgraph
        self._steps: list[float] = []
        self._losses: list[float] = []
        self._drawing = QTimer(self)  # many quick steps are drawn together
        self._drawing.setSingleShot(True)
        self._drawing.setInterval(100)
        self._drawing.timeout.connect(lambda: self.line.setData(self._steps, self._losses))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.plot)
        self.setMinimumHeight(10 * self.fontMetrics().height())
        self.setMaximumHeight(12 * self.fontMetrics().height())

    @property
    def losses(self) -> list[float]:
        """What is drawn."""
        return list(self._losses)

    def clear(self, steps: int) -> None:
        """Begin anew with an axis that is long enough for all steps."""
        self._steps, self._losses = [], []
        self.line.setData([], [])
        self.plot.setXRange(0, max(1, steps), padding=0.02)
        self.plot.enableAutoRange(axis="y")

    def add(self, step: float, loss: float) -> None:
        """Append a point."""
        self._steps.append(step)
        self._losses.append(loss)
        if not self._drawing.isActive():
            self._drawing.start()

    def recolour(self, palette: Palette) -> None:
        """Take the colours of the theme."""
        self.plot.setBackground(palette.card)
        self.line.setPen(self._pyqtgraph.mkPen(palette.good, width=2))
        for side in ("left", "bottom"):
            axis = self.plot.getAxis(side)
            axis.setPen(palette.line)
            axis.setTextPen(palette.muted)
            font = self.font()
            font.setPointSizeF(max(7.0, palette.look.font_pt - 1))
            axis.setTickFont(font)
            axis.label.setFont(font)


class LearnStep(Step):
    """Fine-tunes on the present picture and mask; the result is a new version beside the old."""

    learnt = Signal(str)
    run_again = Signal()

    def __init__(self, review: Review) -> None:
        super().__init__(4, texts.STEP_TITLES["learn"])
        self.review = review
        self.hint = text_label(texts.LEARN_HINT, role="muted")
        self.steps_box = named(QSpinBox(), "steps")
        self.steps_box.setRange(1, 5000)
        self.steps_box.setSingleStep(20)
        self.steps_box.setValue(100)
        self.steps_box.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.learn_button = button(texts.LEARN, "learn", clicked=self._learn_or_cancel)
        self.again_button = button(texts.RUN_AGAIN, "run_again", clicked=self.run_again.emit)
        for made in (self.learn_button, self.again_button):
            made.setProperty("role", "big")
        self.progress = ProgressLine()
        self.curve = LossCurve()
        self.curve.hide()
        self._new_key = ""

        self.content.addWidget(self.hint)
        self.add_form().row(texts.STEPS, self.steps_box)
        self.content.addLayout(FlowLayout(self.learn_button, self.again_button))
        self.content.addWidget(self.progress)
        self.content.addWidget(self.curve)
        self.again_button.hide()

        review.busy_changed.connect(self._busy_changed)
        review.progressed.connect(self._progressed)
        review.mask_changed.connect(self._refresh)
        review.image_changed.connect(self._refresh)
        review.model_changed.connect(self._refresh)
        self._refresh()

    def learn(self) -> None:
        """Teach the chosen model the present mask."""
        review, work, image = self.review, self.review.work, self.review.image
        if review.busy or work is None or image is None or not review.model_key:
            return
        self.message.clear()
        try:
            picture = layers.take(image)
        except MedtError as error:
            self.message.say(str(error), kind="error")
            return
        labels = work.snapshot()
        if not labels.any():
            self.message.say(texts.NOTHING_TO_LEARN, kind="error")
            return
        self.curve.clear(self.steps_box.value())
        self.curve.show()
        self.again_button.hide()
        self.progress.begin(texts.STARTING)
        review.begin(
            "learn",
            "learn",
            "fine_tune",
            labels,
            review.model_key,
            review.device,
            picture=picture,
            steps=self.steps_box.value(),
            on_event=self._stepped,
            then=self._stored,
        )

    def _stepped(self, event: dict[str, Any]) -> None:
        if "loss" in event:
            self.curve.add(float(event.get("step", len(self.curve.losses) + 1)), float(event["loss"]))

    def _stored(self, found: dict[str, Any]) -> None:
        losses = self.curve.losses
        first, last = (losses[0], losses[-1]) if len(losses) > 1 else (None, None)
        self._new_key = found["key"]
        self.message.say(texts.learnt(found["key"], self.progress.took, first, last), kind="good")
        self.set_summary(found["key"])
        self.review.refresh_models(found["key"])
        self.again_button.show()
        self.learnt.emit(found["key"])

    def _learn_or_cancel(self) -> None:
        if self.review.busy == "learn":
            self.review.cancel()
            self.learn_button.setText(texts.CANCELLING)
            self.learn_button.setEnabled(False)
        else:
            self.learn()

    def _busy_changed(self, what: str) -> None:
        if what == "learn":
            self.learn_button.setText(texts.CANCEL)
            self.learn_button.setToolTip(texts.TOOLTIPS["cancel"])
        else:
            self.progress.end()
            self.learn_button.setText(texts.LEARN)
            self.learn_button.setToolTip(texts.TOOLTIPS["learn"])
            if not self.curve.losses:
                self.curve.hide()
        self._refresh()

    def _progressed(self, done: int, total: int, message: str) -> None:
        if self.review.busy == "learn" and not self.review.cancelling:
            self.progress.report(done, total, message)

    def _refresh(self) -> None:
        work, busy = self.review.work, self.review.busy
        ready = work is not None and work.has_mask and bool(self.review.model_key)
        self.learn_button.setEnabled(busy == "learn" or (ready and not busy))
        self.steps_box.setEnabled(not busy)
        self.again_button.setEnabled(not busy)
