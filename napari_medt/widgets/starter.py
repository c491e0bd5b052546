"""The button of a long calculation, which becomes Cancel while that runs, with the progress beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_medt.widgets import texts
from napari_medt.widgets.parts import button
from napari_medt.widgets.review import Review
from napari_medt.widgets.step import ProgressLine


class Starter:
    """Starts one of the calculations of the dock, and cancels it.

    Parameters
    ----------
    review
        What is worked on.
    what
        The calculation as `Review.busy` names it, and the name of the button.
    words
        On the button while nothing runs.
    start
        Begins the calculation.
    cancel
        Name of the tooltip while it runs.
    """

    def __init__(
        self, review: Review, what: str, words: str, start: Callable[[], Any], *, cancel: str = "cancel"
    ) -> None:
        self._review, self._what, self._words, self._start, self._cancel = review, what, words, start, cancel
        self.button = button(words, what, clicked=self._clicked)
        self.progress = ProgressLine()
        review.busy_changed.connect(self._busy_changed)
        review.progressed.connect(self._progressed)

    @property
    def running(self) -> bool:
        """Whether this calculation runs."""
        return self._review.busy == self._what

    def refresh(self, ready: bool) -> None:
        """Enable the button where there is something to start, or to cancel."""
        self.button.setEnabled(not self._review.cancelling if self.running else ready and not self._review.busy)

    def _clicked(self) -> None:
        if self.running:
            self._review.cancel()
            self.button.setText(texts.CANCELLING)
            self.button.setEnabled(False)
        else:
            self._start()

    def _busy_changed(self, _: str) -> None:
        self.button.setText(texts.CANCEL if self.running else self._words)
        self.button.setToolTip(texts.TOOLTIPS[self._cancel if self.running else self._what])
        if not self.running:
            self.progress.end()

    def _progressed(self, done: int, total: int, message: str) -> None:
        if self.running and not self._review.cancelling and not self._review.paused:
            self.progress.report(done, total, message)
