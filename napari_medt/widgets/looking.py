"""Questions about attention on their way: one at a time, the latest wins, and what was shown last can be asked anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medt.core import AttentionMap, Cancelled, MedtError
from napari_medt.widgets import layers
from napari_medt.widgets.answers import Block, Question
from napari_medt.widgets.client import Job
from napari_medt.widgets.review import Review
from napari_medt.widgets.slice_shown import index_shown

if TYPE_CHECKING:
    from napari_medt.cases import LastRun

Asked = tuple[str, str]


class Looking(QObject):
    """Asks the calculation process about the attention of the chosen model on the chosen picture.

    Signals
    -------
    listed
        The blocks that can be asked.
    answered
        Maps are there: the layer of the picture, the picture as it was sent, the question, and the maps.
    checked
        Whether the map shown deserves belief.
    compared
        All heads: `HeadLine`s.
    progressed
        How far a long question is: done, total, message.
    busy_changed
        Whether a long question is being answered.
    failed
        What went wrong, as a sentence; empty where it was stopped.
    """

    listed = Signal(object)
    answered = Signal(object, object, object, object)
    checked = Signal(object)
    compared = Signal(object)
    progressed = Signal(int, int, str)
    busy_changed = Signal(bool)
    failed = Signal(str)

    def __init__(self, review: Review) -> None:
        super().__init__(review)
        self._review = review
        self.blocks: tuple[Block, ...] = ()
        self.last: Question | None = None
        self.clicked: tuple[int, ...] | None = None
        self.last_answer_s = 0.0
        self.asked_model: Asked = ("", "")
        self._warming: Job | None = None
        self._cut_short = False  # the preparation, by a question that takes long
        self._pending: Job | None = None
        self._long = False
        self._next: Question | None = None
        review.busy_changed.connect(self._make_way)

    @property
    def model(self) -> Asked:
        """Key and device of the chosen model."""
        return self._review.model_key, self._review.device

    @property
    def warm(self) -> bool:
        """Whether nothing is being prepared, so that a click is answered at once."""
        return bool(self.blocks) and self._warming is None

    @property
    def asking(self) -> bool:
        """Whether an answer, or the preparation that the first of them needs, is on the way."""
        return self._pending is not None or self._warming is not None

    @property
    def busy(self) -> bool:
        """Whether a long question is being answered."""
        return self._pending is not None and self._long

    def heads(self, source: str) -> int:
        """How many heads a source has."""
        return next((block.heads for block in self.blocks if block.name == source), 1)

    def forget(self) -> None:
        """Another picture or model: nothing of the former one may be shown as if it were of this."""
        self.last = self._next = self.clicked = None
        self._cut_short = False
        self.stop()
        if self.model != self.asked_model:
            self.blocks = ()

    def prepare(self) -> None:
        """List what can be asked, and pass the picture through the network so that clicks are quick."""
        image = self._review.image
        if image is None:
            return
        asked = self.model

        def listed(blocks: tuple[Block, ...]) -> None:
            if asked == self.model:
                self.blocks = blocks
                self.listed.emit(blocks)

        if asked != self.asked_model or not self.blocks:
            self.asked_model = asked
            self._review.client.ask("sources", *asked, then=listed, failed=self._tell)

        def warmed() -> None:
            if self._warming is job[0]:
                self._warming = None

        job: list[Job | None] = [None]
        with suppress(MedtError):
            self._warming = job[0] = self._review.client.ask(
                "prepare_attention",
                *asked,
                picture=layers.take(image),
                at=self.place_shown(),
                failed=lambda _: None,  # a model without attention is no failure of the run; the first question says it
                finished=warmed,
            )

    def take_up(self, run: LastRun) -> None:
        """Prepare to answer about the mask of an earlier session, in whose run slices may have been cut in a plane of their own."""
        image = self._review.image
        if image is not None and not self._review.busy:
            self._review.client.ask(
                "take_up",
                self._review.model_key,
                run.settings.get("plane"),
                picture=layers.take(image),
                then=lambda _: self.prepare(),
                failed=self._tell,
            )

    def ask(self, question: Question) -> None:
        """Ask; while another question is being answered only the last one waits, and one that takes long gives way."""
        image = self._review.image
        if image is None or not question.source or self._review.busy:
            return
        if self._pending is not None:
            self._next = question
            if self._long:
                self._pending.cancel()
            return
        self._next = None
        picture, began = layers.take(image), time.perf_counter()

        def answered(maps: list[AttentionMap]) -> None:
            self.last = question
            self.answered.emit(self._review.image, picture, question, maps)
            self.last_answer_s = time.perf_counter() - began

        long = question.what != "point" or bool(question.against)
        self._send("look", question, picture=picture, long=long, then=answered)

    def again(self, **changes: Any) -> None:
        """Ask the last question anew, for another block or head."""
        if self.last is not None:
            self.ask(replace(self.last, **changes))

    def check(self, structure: int) -> None:
        """Ask whether the map shown deserves belief."""
        if self.last is not None:
            self._aside("check_map", self.last, structure=structure, then=self.checked.emit)

    def compare_heads(self) -> None:
        """Ask for the table of all heads."""
        self._aside("compare_heads", at=self.place_shown(), then=self.compared.emit)

    def stop(self) -> None:
        """Stop what takes long."""
        self._next = None
        if self._pending is not None:
            self._pending.cancel()

    def place_shown(self) -> tuple[int, ...]:
        """A place in the slice that is shown: where the viewer is, moved into the picture."""
        image = self._review.image
        if image is None:
            return ()
        shape = layers.spatial_shape_of(image)
        if image.ndim == 2:
            return tuple(n // 2 for n in shape)
        at = index_shown(self._review.viewer, image)
        return tuple(int(i) for i in np.clip(at, 0, np.array(shape) - 1))

    # ----------------------------------------------------------------------------------------------------------- on the way

    def _aside(self, method: str, *args: Any, then: Any, **options: Any) -> None:
        image = self._review.image
        if image is None or self._review.busy or self._pending is not None:
            return
        self._send(method, *args, picture=layers.take(image), long=True, then=then, **options)

    def _send(self, method: str, *args: Any, picture: layers.Picture, long: bool, then: Any, **options: Any) -> None:
        """Ask, and do not prepare; what comes for another picture or model than is then chosen is put aside."""
        asked = self.model

        def if_meant(tell: Callable[[Any], Any], answer: Any) -> None:
            layer = picture.still_there(self._review.viewer)
            if layer is not None and layer is self._review.image and asked == self.model:
                tell(answer)

        if self._warming is not None:
            self._warming.cancel()
            self._cut_short = long
        self._long = long
        if long:
            options["on_progress"] = self.progressed.emit
        self._pending = self._review.client.ask(
            method,
            *asked,
            *args,
            picture=picture,
            then=partial(if_meant, then),
            failed=partial(if_meant, self._tell),
            finished=self._finished,
            **options,
        )
        if long:
            self.busy_changed.emit(True)

    def _finished(self) -> None:
        self._pending = None
        if self._long:
            self.busy_changed.emit(False)
        if self._next is not None:
            self._review.bridge.post(self._ask_next)
        elif self._cut_short and not self._review.busy:
            self._cut_short = False
            self._review.bridge.post(self.prepare)

    def _ask_next(self) -> None:
        question, self._next = self._next, None
        if question is not None:
            self.ask(question)

    def _make_way(self, busy: str) -> None:
        """A run or learning has begun: what is only prepared can wait."""
        if busy:
            self.stop()
            if self._warming is not None:
                self._warming.cancel()

    def _tell(self, error: MedtError) -> None:
        if self._next is None:
            self.failed.emit("" if isinstance(error, Cancelled) else str(error))
