"""The dock *MedT Review*: five steps under each other; the one that makes sense next is open and has the bright button."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QApplication, QFrame, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from napari_medt.widgets import layers, texts
from napari_medt.widgets._compat import look_of, make_current, on_look_changed
from napari_medt.widgets.case_bar import CaseBar
from napari_medt.widgets.casework import Casework
from napari_medt.widgets.client import Worker
from napari_medt.widgets.compare_step import CompareStep
from napari_medt.widgets.compass import Compass
from napari_medt.widgets.correct_step import CorrectStep
from napari_medt.widgets.interface import Interface
from napari_medt.widgets.learn_step import LearnStep
from napari_medt.widgets.look_step import LookStep
from napari_medt.widgets.open_cases import OpenCases
from napari_medt.widgets.parts import align, mark
from napari_medt.widgets.review import Review
from napari_medt.widgets.run_step import RunStep
from napari_medt.widgets.shortcuts import Shortcuts
from napari_medt.widgets.sign_off import SignOffLine
from napari_medt.widgets.sliders import Sliders
from napari_medt.widgets.step import Step
from napari_medt.widgets.style import Palette, stylesheet

if TYPE_CHECKING:
    import napari

MIN_WIDTH = 340


class ReviewDock(Interface, QWidget):
    """Segment, look, correct, teach, compare: one widget for the napari window.

    Parameters
    ----------
    viewer
        The viewer whose layers are worked on; napari gives it.
    worker
        What calculates; by default a process of its own, started when the dock opens.
    """

    def __init__(self, viewer: napari.viewer.Viewer, *, worker: Worker | None = None) -> None:
        super().__init__()
        self.setObjectName("medtDock")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setWindowTitle(texts.TITLE)
        self.viewer = viewer
        self._closing = False
        self.review = Review(viewer, worker=worker, parent=self)
        self.run_step = RunStep(self.review)
        self.look_step = LookStep(self.review)
        self.correct_step = CorrectStep(self.review)
        self.cases = Casework(self.review)
        self.learn_step = LearnStep(self.review, self.cases)
        self.compare_step = CompareStep(self.review, self.cases)
        self.opened = OpenCases(self.review, self.cases)
        self.case_bar = CaseBar(self.opened, self.cases)
        self.sign_off = SignOffLine(self.review, self.cases)
        self.correct_step.content.addWidget(self.sign_off)
        self._to_compare = ""
        self.steps: dict[str, Step] = {
            "run": self.run_step,
            "look": self.look_step,
            "correct": self.correct_step,
            "learn": self.learn_step,
            "compare": self.compare_step,
        }
        page = QWidget()
        page.setObjectName("medtPage")
        column = QVBoxLayout(page)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(6)
        column.addWidget(self.case_bar)
        column.addWidget(self.correct_step.offer)
        column.addWidget(self.learn_step.cut_short)
        for step in self.steps.values():
            column.addWidget(step)
        column.addStretch(1)
        self.scroll = QScrollArea()
        self.scroll.setWidgetResizable(True)
        self.scroll.setFrameShape(QFrame.Shape.NoFrame)
        self.scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.scroll.setWidget(page)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.scroll)

        self._connect()
        self._restyle()
        self._show_stage(self.review.stage)
        self.review.start()

    def _connect(self) -> None:
        review, events = self.review, self.viewer.layers.events
        review.stage_changed.connect(self._show_stage)
        review.said.connect(lambda step, text, kind: self.steps[step].message.say(text, kind=kind))
        review.tool_taken.connect(self.look_step.close_picking)
        review.image_changed.connect(self._another_picture)
        review.mask_changed.connect(self._mark_done)
        self.look_step.shown.connect(lambda: self._advance("look", "correct"))
        self.look_step.doubts.list.currentRowChanged.connect(lambda row: row < 0 or self._advance("look", "correct"))
        self.cases.decided.connect(self._decided)
        self.cases.state_changed.connect(self._state_known)
        self.learn_step.learnt.connect(self._learnt)
        review.models_changed.connect(self._compare_learnt)
        self.compare_step.taken.connect(self._version_taken)
        self.compare_step.compared.connect(self._compared)
        review.busy_changed.connect(lambda _: self._mark_done())
        self.opened.changed.connect(self._mark_done)
        events.inserted.connect(self._layers_changed)
        events.removing.connect(self._layer_goes)
        events.removed.connect(self._layer_removed)
        events.reordered.connect(self._layers_changed)
        self.viewer.layers.selection.events.active.connect(self._active_changed)
        for layer in self.viewer.layers:
            layer.events.name.connect(self._layers_changed)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.close_review)
        self.compass, self.sliders = Compass(self.viewer), Sliders(self.viewer)
        review.image_changed.connect(lambda: self.compass.follow(review.image))
        self.compass.follow(review.image)
        self._stop_looking = on_look_changed(self.viewer, self._restyle)
        self.correct_step.toolbox.turned.connect(self._tool_turned)
        self.correct_step.overlap_offer.declined.connect(self._mark_done)
        review.overlap_asked.connect(lambda *_: self._mark_done())
        self.look_step.pick_button.toggled.connect(lambda on: self.correct_step.toolbox.close_tool() if on else None)
        for keys, back in (("Ctrl+Z", True), ("Ctrl+Shift+Z", False)):
            shortcut = QShortcut(QKeySequence(keys), self)
            shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
            shortcut.activated.connect(lambda back=back: self.correct_step.step_anywhere(back=back))

        acts = {
            "run": self.run_step.run,
            "next_doubt": self.next_doubtful,
            "previous_doubt": lambda: self.look_step.doubts.step(-1),
            "accept": self.accept,
            "second_look": self.cases.second_look,
            "learn": self.learn,
            "compare": self.compare,
            "accept_new": self.compare_step.accept_new,
            "keep_old": self.compare_step.keep_old,
            "next_case": lambda: self.opened.step(1),
            "previous_case": lambda: self.opened.step(-1),
            "next_source": lambda: self.look_step.step_source(1),
            "previous_source": lambda: self.look_step.step_source(-1),
            "next_head": lambda: self.look_step.step_head(1),
            "previous_head": lambda: self.look_step.step_head(-1),
        }
        self.shortcuts = Shortcuts(self.viewer, self, {key: acts[name] for key, name in texts.REVIEW_KEYS.items()})

    # ------------------------------------------------------------------------------------------------------------ layers

    def _layers_changed(self, event: Any = None) -> None:
        layer = getattr(event, "value", None)
        if layer is not None and hasattr(layer, "events") and event.type == "inserted":
            layer.events.name.connect(self._layers_changed)
        if layer is None or not hasattr(layer, "metadata") or not layers.is_ours(layer):
            self.review.bridge.post(self._list_images)

    def _layer_goes(self, event: Any = None) -> None:
        window = self.parentWidget()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        if window is not None:
            make_current(window.centralWidget())

    def _layer_removed(self, event: Any) -> None:
        layer = event.value
        with suppress(ValueError, TypeError):
            layer.events.name.disconnect(self._layers_changed)
        self.review.mask_removed(layer)
        self._layers_changed(event)
        self.review.image_removed(layer)

    def _list_images(self) -> None:
        self.run_step.list_images()

    def _active_changed(self, event: Any = None) -> None:
        self.correct_step.refresh()

    def _another_picture(self) -> None:
        """Take away what was said of the picture before; an error stays until it is read."""
        for step in (self.run_step, self.look_step, self.correct_step):
            if step.message.kind == "good":
                step.message.clear()
        self.run_step.set_summary("")
        self._mark_done()

    # ------------------------------------------------------------------------------------------------------------- stages

    def _advance(self, since: str, to: str) -> None:
        if self.review.stage == since:
            self.review.set_stage(to)

    def _version_taken(self, _: str, other: bool) -> None:
        # A case that was signed off is left as it is: a run would take its signature away.
        self.review.set_stage("run" if other and self.cases.state != "accepted" else self._after_case())

    def _decided(self, _: str) -> None:
        self.review.set_stage(self._after_case())

    def _after_case(self) -> str:
        """What makes sense once a case is done: the next one, or to learn from those that are done."""
        left = [item for item in self.opened.items if item.state != "accepted" and item.key != self.opened.key]
        return "next" if left and self.opened.following is not None else "learn"

    def _state_known(self) -> None:
        """Go on from a case that was opened and is done."""
        if self.cases.state == "accepted" and self.review.stage in ("run", "look", "correct"):
            self.review.set_stage(self._after_case())

    def _learnt(self, _: str, key: str) -> None:
        self._to_compare = key
        self.review.set_stage("compare")

    def _compare_learnt(self, _: str = "") -> None:
        """Compare a version that was just learnt, as soon as it is listed."""
        key, self._to_compare = self._to_compare, ""
        if key in self.review.cards:
            self.compare_step.compare(key)
        else:
            self._to_compare = key

    def _compared(self) -> None:
        """Let a comparison be decided on, also one that was asked for in between."""
        if self.compare_step.found is not None:
            self.review.set_stage("compare")
            self.review.bridge.post(self._show_bright)  # below a table that is only there now
        self._mark_done()

    def _show_bright(self) -> None:
        self.scroll.ensureWidgetVisible(self._bright(), 0, 12)

    def _tool_turned(self) -> None:
        """Bring the form of a tool into sight, which a key opens too."""
        opened = self.correct_step.toolbox.tool is not None
        if opened:
            self.correct_step.set_open(True)
            self.review.bridge.post(self._show_bright)
        self._mark_done()

    def _show_stage(self, stage: str) -> None:
        """Open the step that makes sense next, keep the one in use, fold the others, and give out the bright button."""
        opened = {
            "run": ("run",),
            "look": ("run", "look"),
            "correct": ("look", "correct"),
            "accept": ("correct",),
            "next": ("correct",),
            "learn": ("learn",),
            "compare": ("learn", "compare"),
        }[stage]
        for name, step in self.steps.items():
            step.set_open(name in opened or bool(step.message.text and step.message.kind == "error"))
        self._mark_done()
        self.review.bridge.post(self._show_bright)

    def _bright(self) -> QWidget:
        """The control of the action that makes sense next; what is open or asks for an answer comes before the steps."""
        correct = self.correct_step
        for first in (
            correct.offer.accept_button,
            correct.overlap_offer.accept_button,
            correct.toolbox.form.apply_button,
        ):
            if first.isVisibleTo(self):
                return first
        stage, doubts, compared = self.review.stage, self.look_step.doubts, self.compare_step.found
        return {
            "run": self.case_bar.open_button if self.review.image is None else self.run_step.run_button,
            "look": doubts.on if doubts.places else self.look_step.pick_button,
            "correct": self.correct_step.brush_button,
            "accept": self.sign_off.accept_button,
            "next": self.case_bar.next_button,
            "learn": self.learn_step.learn_button,
            "compare": self.compare_step.compare_button
            if compared is None
            else self.compare_step.keep_button
            if compared.verdict.worse or compared.verdict.unsure
            else self.compare_step.accept_button,
        }[stage]

    def _mark_done(self) -> None:
        work, stage = self.review.work, self.review.stage
        bright = self._bright()
        for control in (
            self.correct_step.toolbox.form.apply_button,
            self.case_bar.open_button,
            self.run_step.run_button,
            self.look_step.doubts.on,
            self.look_step.pick_button,
            self.correct_step.brush_button,
            self.sign_off.accept_button,
            self.case_bar.next_button,
            self.learn_step.learn_button,
            self.compare_step.compare_button,
            self.compare_step.keep_button,
            self.compare_step.accept_button,
        ):
            mark(control, primary=control is bright)
        done = {
            "run": work is not None and bool(work.model_key),
            "look": work is not None and self.review.layers.find(self.review.image, "attention") is not None,
            "correct": work is not None and (work.edits > 0 or work.status == "accepted"),
            "learn": bool(self.learn_step.header.summary.text()),
            "compare": False,
        }
        now = {"accept": "correct", "next": ""}.get(stage, stage)
        for name, step in self.steps.items():
            step.set_state("next" if name == now else "done" if done[name] else "")

    # --------------------------------------------------------------------------------------------------------------- look

    def _restyle(self) -> None:
        look = look_of(self.viewer)
        self.setStyleSheet(stylesheet(look))
        self.setMinimumWidth(max(MIN_WIDTH, round(27 * look.font_pt)))
        align([form for step in self.steps.values() for form in step.forms])
        align([self.run_step.more.form])
        align([self.look_step.more.form])
        self.learn_step.curve.recolour(Palette(look))

    def showEvent(self, event: Any) -> None:
        """Find out which window the dock is in, to notice when it closes."""
        super().showEvent(event)
        self.window().removeEventFilter(self)
        self.window().installEventFilter(self)

    def event(self, event: Any) -> bool:
        """Notice when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.review.bridge.post(self._without_window)
        return super().event(event)

    def _without_window(self) -> None:
        if self.parent() is None and not self.isVisible():
            self.close_review()

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Let go of everything when the window closes: it is asked to, and then, unless something keeps it open, hides."""
        if watched is self.window():
            if event.type() == QEvent.Type.Close:
                self._closing = True
                self.review.bridge.post(self._stays_open)
            elif event.type() == QEvent.Type.Hide and self._closing:
                self.close_review()
        return False

    def _stays_open(self) -> None:
        self._closing = False

    def closeEvent(self, event: Any) -> None:
        """End the calculation process and keep the drafts."""
        self.close_review()
        super().closeEvent(event)

    def close_review(self) -> None:
        """Let go of everything; may be called more than once."""
        if self.review.closed:
            return
        self._stop_looking()
        self.shortcuts.release()
        self.cases.close()
        self.opened.close()
        self.case_bar.close_bar()
        self.compass.close()
        self.sliders.close()
        self.look_step.leave()
        self.compare_step.leave()
        self.correct_step.close_tools()
        events = self.viewer.layers.events
        for emitter, callback in (
            (events.inserted, self._layers_changed),
            (events.reordered, self._layers_changed),
            (events.removing, self._layer_goes),
            (events.removed, self._layer_removed),
            (self.viewer.layers.selection.events.active, self._active_changed),
            *((layer.events.name, self._layers_changed) for layer in self.viewer.layers),
        ):
            with suppress(ValueError, RuntimeError):
                emitter.disconnect(callback)
        self.review.close()
