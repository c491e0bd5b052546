"""Step 4: teach the model the corrected cases, and watch how it gets nearer."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QCheckBox

from napari_medt.core import Cancelled, MedtError
from napari_medt.widgets import texts
from napari_medt.widgets.casework import Casework, patient_of
from napari_medt.widgets.curves import LearningCurves
from napari_medt.widgets.cut_short import CutShort
from napari_medt.widgets.lessons import LearnAhead, Learnt, Lesson
from napari_medt.widgets.parts import FlowLayout, Number, button, chooser, named, text_label
from napari_medt.widgets.review import Review
from napari_medt.widgets.starter import Starter
from napari_medt.widgets.step import Step

AHEAD_MS = 500


class LearnStep(Step):
    """Fine-tunes on all corrected cases; the result is a new version beside the old.

    Signals
    -------
    learnt
        A version was stored: the key of the old one, and of the new.
    """

    learnt = Signal(str, str)

    def __init__(self, review: Review, cases: Casework) -> None:
        super().__init__(4, texts.STEP_TITLES["learn"])
        self.review, self.cases = review, cases
        self.hint = text_label(texts.LEARN_HINT, role="muted")
        self.ahead = text_label()
        self.preset_box = chooser("preset")
        for preset, words in texts.PRESETS.items():
            self.preset_box.addItem(words, preset)
        self.minutes_box = named(Number(), "minutes")
        self.minutes_box.setRange(0.1, 600)
        self.minutes_box.setDecimals(1)
        self.minutes_box.setSingleStep(1)
        self.minutes_box.setValue(2)
        self.minutes_box.setSuffix(" min")
        self.minutes_box.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hold_out = named(QCheckBox(texts.HOLD_OUT), "hold_out")
        self.starter = Starter(review, "learn", texts.LEARN, self.learn, cancel="cancel_learning")
        self.learn_button, self.progress = self.starter.button, self.starter.progress
        self.learn_button.setProperty("role", "big")
        self.pause_button = button(texts.PAUSE, "pause", clicked=self._pause)
        self.stop_button = button(texts.STOP, "stop", clicked=self._stop)
        self.cut_short = CutShort(review, cases)
        self.curve = LearningCurves()
        self.curve.hide()
        self._ready = False
        self._asked = ""
        self._told: tuple[str, LearnAhead] | None = None

        self.content.addWidget(self.hint)
        form = self.add_form()
        form.row(texts.PRESET, self.preset_box)
        form.row(texts.MINUTES, self.minutes_box)
        self.content.addWidget(self.hold_out)
        self.content.addWidget(self.ahead)
        self.content.addLayout(FlowLayout(self.learn_button, self.pause_button, self.stop_button))
        self.content.addWidget(self.progress)
        self.content.addWidget(self.curve)

        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(AHEAD_MS)
        self._soon.timeout.connect(self._look_ahead)
        review.busy_changed.connect(self._busy_changed)
        review.devices_known.connect(self._devices_known)
        review.models_changed.connect(lambda _: self.cut_short.refresh())
        self.cut_short.wanted.connect(self._go_on)
        for changed in (review.mask_changed, review.image_changed, review.model_changed, cases.state_changed):
            changed.connect(self.refresh)
        self.preset_box.currentIndexChanged.connect(lambda _: self.refresh())
        self.minutes_box.valueChanged.connect(lambda _: self._say_ahead())
        self.hold_out.toggled.connect(self._hold_out)
        self.toggled.connect(lambda _: self.refresh())
        self.refresh()

    # ------------------------------------------------------------------------------------------------------------- ahead

    def refresh(self) -> None:
        """Show what can be learnt from now, and ask what that would take once there is time."""
        work, busy = self.review.work, self.review.busy
        who = self.cases.who()
        ready = bool(who) and bool(self.review.model_key)
        self.starter.refresh(ready)
        for widget in (self.preset_box, self.minutes_box):
            widget.setEnabled(not busy)
        image = self.review.image
        self.hold_out.blockSignals(True)
        self.hold_out.setEnabled(not busy and work is not None and work.has_mask)
        self.hold_out.setChecked(image is not None and patient_of(image) in self.cases.hold_out)
        self.hold_out.blockSignals(False)
        for made in (self.pause_button, self.stop_button):
            made.setVisible(busy == "learn")
        self.cut_short.refresh()
        self._say_ahead()
        self._soon.start()

    def _question(self) -> str:
        who = self.cases.who()
        return f"{who} {self.review.model_key} {self.review.device} {self.preset_box.currentData()}"

    def _look_ahead(self) -> None:
        review, who, asked = self.review, self.cases.who(), self._question()
        if not (self._ready and self.is_open and who and review.model_key) or review.busy or asked == self._asked:
            return
        self._asked = asked

        def answered(found: LearnAhead) -> None:
            self._told = (asked, found)
            self._say_ahead()

        review.client.ask(
            "learn_ahead",
            who,
            review.model_key,
            review.device,
            learns=self.preset_box.currentData(),
            then=answered,
            failed=lambda _: None,  # Learn says it
        )

    def _say_ahead(self) -> None:
        """Say how many cases there are, and what learning from them takes as far as that is known."""
        who = self.cases.who()
        known = self._told[1] if self._told is not None and self._told[0] == self._question() else None
        self.ahead.setText(texts.learn_ahead(len(who), self.minutes_box.value(), known) if who else "")
        self.ahead.setVisible(bool(who))

    def _hold_out(self, wanted: bool) -> None:
        image = self.review.image
        if image is not None:
            (self.cases.hold_out.add if wanted else self.cases.hold_out.discard)(patient_of(image))
        self.refresh()

    def _devices_known(self, _: Any) -> None:
        self._ready = True
        self._soon.start()
        self.cut_short.look()

    def _go_on(self, wishes: dict[str, Any]) -> None:
        """Learn with the wishes of a fine-tuning that was cut short, which goes on from its last checkpoint."""
        self.preset_box.setCurrentIndex(max(0, self.preset_box.findData(wishes.get("learns"))))
        self.learn(float(wishes.get("minutes", 2)))

    # ------------------------------------------------------------------------------------------------------------- learn

    def learn(self, minutes: float | None = None) -> None:
        """Teach the chosen model all cases that can be learnt from."""
        review, work = self.review, self.review.work
        if work is not None and work.moving:
            work.when_still(lambda: self.learn(minutes))
            return
        if work is not None:
            work.settle()  # a stroke that was just made counts
        if review.busy or not self.cases.who() or not review.model_key:
            return
        if minutes is not None:
            self.minutes_box.setValue(minutes)
        self.message.clear()
        self.curve.clear()
        self.curve.show()
        self.progress.begin(texts.STARTING)
        review.hold("learn")
        key = review.model_key
        wishes = {"learns": self.preset_box.currentData(), "minutes": self.minutes_box.value()}
        self.cut_short.began(**wishes)

        def gathered(lessons: tuple[Lesson, ...]) -> None:
            review.begin(
                "learn",
                "learn",
                "learn",
                lessons,
                key,
                review.device,
                on_event=self._stepped,
                then=lambda found: self._stored(key, found),
                failed=lambda error: self._ended_early(isinstance(error, Cancelled)),
                **wishes,
            )

        def failed(error: MedtError) -> None:
            review.release()
            self.cut_short.forget()
            self.message.say(str(error), kind="error")

        self.cases.lessons(then=gathered, failed=failed)

    def _stepped(self, event: dict[str, Any]) -> None:
        self.curve.add(event)

    def _ended_early(self, cancelled: bool) -> None:
        (self.cut_short.forget if cancelled else self.cut_short.failed)()

    def _stored(self, old: str, found: Learnt) -> None:
        self.cut_short.forget()
        self.message.say(texts.learnt(found.key, self.progress.took, found.notes), kind="good")
        self.set_summary(found.key)
        self.review.refresh_models()
        self.learnt.emit(old, found.key)

    def _pause(self) -> None:
        self.review.pause(not self.review.paused)
        self.pause_button.setText(texts.GO_ON if self.review.paused else texts.PAUSE)
        self.progress.hold(texts.PAUSED if self.review.paused else "")

    def _stop(self) -> None:
        self.review.stop()
        self.stop_button.setEnabled(False)
        self.pause_button.setEnabled(False)

    def _busy_changed(self, what: str) -> None:
        if what == "learn":
            self.pause_button.setText(texts.PAUSE)
            for made in (self.pause_button, self.stop_button):
                made.setEnabled(True)
        else:
            self.curve.setVisible(bool(self.curve.losses))
        self.refresh()
