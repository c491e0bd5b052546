"""The dock for scripts and tests: each word does what a button does, and returns at once; `wait` waits for what was begun."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from qtpy.QtCore import QCoreApplication, QEventLoop

from napari_medt.core import MedtError
from napari_medt.widgets import texts

if TYPE_CHECKING:
    from napari_medt.widgets.case_bar import CaseBar
    from napari_medt.widgets.compare_step import CompareStep
    from napari_medt.widgets.correct_step import CorrectStep
    from napari_medt.widgets.learn_step import LearnStep
    from napari_medt.widgets.look_step import LookStep
    from napari_medt.widgets.review import Review
    from napari_medt.widgets.run_step import RunStep
    from napari_medt.widgets.step import Step

PAUSE_S = 0.005


class Interface:
    """What `ReviewDock` offers to Python beside its buttons."""

    review: Review
    case_bar: CaseBar
    steps: dict[str, Step]
    run_step: RunStep
    look_step: LookStep
    correct_step: CorrectStep
    learn_step: LearnStep
    compare_step: CompareStep

    @property
    def busy(self) -> bool:
        """Whether something is being read, calculated or written."""
        review = self.review
        starting = not review.models_listed or not self.run_step.ready or self.run_step.choosing
        asking = self.look_step.looking.asking
        idle = review.bridge.idle and review.changes.idle
        return bool(starting or asking or review.busy or self.case_bar.opened.busy or not idle)

    def open_case(self, path: str | Path) -> None:
        """Open an image, or a folder of images as a list of cases."""
        self.case_bar.opened.open_path(path)

    def run(self, model: str = "") -> None:
        """Let a model segment the chosen image; without one the model that is chosen in the dock.

        Parameters
        ----------
        model
            Its name or key, `"medt-nuclei@1"`, as `napari-medt models` lists them.

        Raises
        ------
        BadModel
            If there is none of this name.
        """
        if model:
            from napari_medt.zoo.shelf import find_model

            self.run_step.choose(find_model(model)[1].key)
        self.run_step.run()

    def look(self, source: str = "", *, at: tuple[int, ...] | None = None, head: int | None = None) -> None:
        """Show where the model looked: for one place, or on average over the picture.

        Parameters
        ----------
        source
            The attention block, as `napari_medt.attention.list_sources` names them; by default the one chosen in the dock.
        at
            Array index of the place asked about; `None` for the whole picture.
        head
            Which head; `None` for their mean.

        Raises
        ------
        MedtError
            If the model has no such block.
        """
        there = [block.name for block in self.look_step.looking.blocks]
        if not there or (source and source not in there):
            raise MedtError(texts.no_such_source(source, self.review.model_key), remedy=texts.sources_there(there))
        self.look_step.choose(source or self.look_step.source, head, ask=at is None)
        if at is not None:
            self.look_step.pick(tuple(at))

    def next_doubtful(self) -> None:
        """Show the next place in which the last run was unsure."""
        self.look_step.doubts.step(1)

    def accept(self) -> None:
        """Sign the mask off."""
        self.case_bar.cases.accept()

    def learn(self, minutes: float | None = None) -> None:
        """Teach the model all corrected cases, for so many minutes, and compare it with what it was."""
        self.learn_step.learn(minutes)

    def compare(self, version: str = "") -> None:
        """Compare the version in use with another; by default with the one chosen in the list."""
        self.compare_step.compare(version)

    def undo(self) -> None:
        """Take back the last change of the mask."""
        self.correct_step.undo()

    def redo(self) -> None:
        """Bring back what was undone last."""
        self.correct_step.redo()

    def wait(self, timeout_s: float = 600.0) -> Self:
        """Keep the window alive until everything that was begun has ended.

        Raises
        ------
        MedtError
            If a step shows an error, or it takes longer than `timeout_s`.
        """
        limit = time.monotonic() + timeout_s
        quiet = 0
        while quiet < 2:  # what has ended may have posted what follows from it
            QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
            quiet = 0 if self.busy else quiet + 1
            if time.monotonic() > limit:
                raise MedtError(texts.TOO_LONG.format(seconds=texts.seconds(timeout_s)))
            if self.busy:
                time.sleep(PAUSE_S)
        for step in self.steps.values():
            if step.message.kind == "error" and step.message.text:
                raise MedtError(step.message.text.rstrip("."))
        return self
