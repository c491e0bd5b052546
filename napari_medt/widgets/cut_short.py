"""A fine-tuning that a crash cut short: remembered while it runs, and offered again once its cases are open."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal

from napari_medt.widgets import texts
from napari_medt.widgets.casework import Casework
from napari_medt.widgets.remembered import checkpoint_left, remember, remembered
from napari_medt.widgets.review import Review
from napari_medt.widgets.step import Offer


class CutShort(Offer):
    """The offer to go on; what is remembered names the cases, as only the same cases go on from the last checkpoint.

    Signals
    -------
    wanted
        It shall go on: what it was asked for, as `began` was told.
    """

    wanted = Signal(dict)

    def __init__(self, review: Review, cases: Casework) -> None:
        super().__init__((texts.GO_ON_LEARNING, "learn_on"), (texts.FORGET_LEARNING, "learn_off"))
        self._review, self._cases = review, cases
        self.found: dict[str, Any] = {}
        self.accepted.connect(self._accepted)
        self.declined.connect(self.forget)
        for answered in (self.accepted, self.declined):
            answered.connect(lambda: review.said.emit("run", "", "plain"))  # that it was cut short is no longer news

    def began(self, **wishes: Any) -> None:
        """Remember a fine-tuning of the cases there are; from here until it has ended that stands on disk."""
        image = self._review.image
        told = {
            **wishes,
            "name": "" if image is None else str(image.name),
            "model": self._review.model_key,
            "cases": self._names(),
            "hold_out": sorted(self._cases.hold_out),
        }
        self.found = {}
        self.refresh()
        self._review.bridge.aside(lambda: remember(learning=told))

    def forget(self) -> None:
        """Take note that it has ended, or is not wanted any more."""
        self.found = {}
        self.refresh()
        self._review.bridge.aside(lambda: remember(learning=None))

    def look(self) -> None:
        """Find out whether one was cut short that left something to go on from."""
        self._review.bridge.aside(lambda: remembered() if checkpoint_left() else {}, then=self._looked)

    def failed(self) -> None:
        """Take note that it ended before its time; it can go on if it left a checkpoint behind."""

        def left() -> dict[str, Any]:
            if not checkpoint_left():
                remember(learning=None)
            return remembered()

        self._review.bridge.aside(left, then=self._looked)

    def _looked(self, known: dict[str, Any]) -> None:
        found = known.get("learning")
        if isinstance(found, dict) and not self._review.busy:
            self.found = found
            self._review.said.emit("run", texts.CUT_SHORT.format(name=found.get("name", "")), "plain")
        self.refresh()

    def refresh(self) -> None:
        """Show the offer while its cases, and its model, are there and nothing else is under way."""
        found, names = self.found, self._names()
        there = bool(names) and names == found.get("cases") and found.get("model") in self._review.cards
        if there and not self._review.busy:
            self.offer(texts.cut_short(names))
        else:
            self.hide()

    def _names(self) -> list[str]:
        return sorted(one.name for one in self._cases.who())

    def _accepted(self) -> None:
        found, review = self.found, self._review
        self._cases.hold_out.update(str(patient) for patient in found.get("hold_out", ()))
        for image, _ in review.works:  # which case is the present one decides who is held out
            if str(image.name) == found.get("name"):
                review.choose_image(image)
        review.models_changed.emit(str(found["model"]))
        self.wanted.emit(found)
