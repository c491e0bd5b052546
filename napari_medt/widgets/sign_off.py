"""The end of a case: accept it, or send it to a second look."""

from __future__ import annotations

from qtpy.QtWidgets import QFrame, QVBoxLayout

from napari_medt.widgets import texts
from napari_medt.widgets.casework import Casework
from napari_medt.widgets.parts import FlowLayout, button
from napari_medt.widgets.review import Review


class SignOffLine(QFrame):
    """Two buttons under the tools."""

    def __init__(self, review: Review, cases: Casework) -> None:
        super().__init__()
        self.setProperty("role", "plain")
        self._review, self._cases = review, cases
        self.accept_button = button(texts.ACCEPT, "accept", clicked=cases.accept)
        self.look_button = button(texts.SECOND_LOOK, "second_look", clicked=cases.second_look)
        for made in (self.accept_button, self.look_button):
            made.setProperty("role", "big")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addLayout(FlowLayout(self.look_button, self.accept_button))
        review.mask_changed.connect(self.refresh)
        review.image_changed.connect(self.refresh)
        review.busy_changed.connect(lambda _: self.refresh())
        cases.state_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what can be decided now."""
        work = self._review.work
        ready = work is not None and work.has_mask and self._review.busy != "run"
        self.accept_button.setEnabled(ready and self._cases.state != "accepted")
        self.look_button.setEnabled(ready and self._cases.state != "second look")
        self.accept_button.setText(texts.ACCEPTED if self._cases.state == "accepted" else texts.ACCEPT)
