"""Step 2: where the model looked, for a clicked point, for a structure or on average, and whether to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout

from napari_medt.core import AttentionMap
from napari_medt.widgets import layers, map_layers, texts
from napari_medt.widgets.answers import Belief, Block, Question
from napari_medt.widgets.doubts import Doubts
from napari_medt.widgets.look_more import LookMore
from napari_medt.widgets.looking import Looking
from napari_medt.widgets.parts import FlowLayout, button, chooser, quiet_button, text_label
from napari_medt.widgets.picking import Picking
from napari_medt.widgets.review import Review
from napari_medt.widgets.slice_shown import slice_shown
from napari_medt.widgets.step import ProgressLine, Step

REST_MS = 150
"""A pointer that moves nothing for so long rests."""


class LookStep(Step):
    """Asks for attention and lays it over the picture; one map at a time, replaced by the next."""

    shown = Signal()

    def __init__(self, review: Review) -> None:
        super().__init__(2, texts.STEP_TITLES["look"])
        self.review = review
        self.looking = Looking(review)
        self.picking = Picking(review)
        self.doubts = Doubts(review)
        self.source_box = chooser("source")
        self.head_box = chooser("head")
        self.part_box = chooser("part")
        self.pick_button = button(texts.PICK, "pick", checkable=True)
        self.mean_button = button(texts.MEAN_ATTENTION, "mean", clicked=self.show_mean)
        self.check_button = button(texts.CHECK, "check", clicked=self.check)
        self.more_button = quiet_button(texts.MORE, "look_more", clicked=self._toggle_more)
        self.more_button.setCheckable(True)
        self.stop_button = quiet_button("✕", "stop_look", clicked=self.looking.stop)
        self.caption = text_label(texts.LOOK_HINT, role="muted")
        self.belief = text_label()
        self.progress = ProgressLine()
        self.more = LookMore(review, self.looking)
        self._lay_out()
        self._pick_again = False  # once another model has run
        self._limits: tuple[float, float] | None = None
        self._answer: tuple[Any, layers.Picture, Question, list[AttentionMap]] | None = None

        self._rested = QTimer(self)
        self._rested.setSingleShot(True)
        self._rested.setInterval(REST_MS)
        self._rested.timeout.connect(self._draw_arrows)
        self.pick_button.toggled.connect(self._pick_toggled)
        self.source_box.currentIndexChanged.connect(self._source_chosen)
        self.head_box.currentIndexChanged.connect(self._repeat)
        self.part_box.currentIndexChanged.connect(lambda _: self._draw())
        self.picking.picked.connect(self.pick)
        self.picking.overtaken.connect(self.close_picking)
        self.picking.missed.connect(lambda: self.message.say(texts.OUTSIDE, kind="plain"))
        looking = self.looking
        looking.listed.connect(self._list)
        looking.answered.connect(self._answered)
        looking.checked.connect(self._checked)
        looking.compared.connect(lambda lines: self.more.show_heads(lines, self.choose))
        looking.failed.connect(self._failed)
        looking.busy_changed.connect(self._long)
        looking.progressed.connect(self.progress.report)
        self.more.asked.connect(self._ask_structure)
        self.more.right_asked.connect(self._ask_right_and_wrong)
        self.more.agreement_wanted.connect(lambda: self._ask("agreement", at=looking.place_shown()))
        self.more.against_changed.connect(self._against)
        self.more.said.connect(lambda text, kind: self.message.say(text, kind=kind))
        review.ran_on.connect(self._ran)
        review.taken_up.connect(looking.take_up)
        for masked in (review.ran_on, review.taken_up):
            masked.connect(lambda _: self._refresh())  # blocks that are known are not listed again
        review.image_changed.connect(self._forget)
        review.model_changed.connect(self._another_model)
        review.busy_changed.connect(lambda _: self._refresh())
        self._refresh()

    def _lay_out(self) -> None:
        self.content.addWidget(self.doubts)
        form = self.add_form()
        form.row(texts.ATTENTION, self.source_box)
        form.row(texts.HEAD, self.head_box)
        self._part_title = form.row(texts.PART, self.part_box)
        self._show_parts(())
        self.content.addLayout(FlowLayout(self.pick_button, self.mean_button, self.check_button, self.more_button))
        self.content.addWidget(self.more)
        line = QHBoxLayout()
        line.addWidget(self.progress, 1)
        line.addWidget(self.stop_button)
        self.content.addLayout(line)
        self.stop_button.hide()
        self.content.addWidget(self.belief)
        self.belief.hide()
        self.content.addWidget(self.caption)

    # ------------------------------------------------------------------------------------------------- what can be asked

    @property
    def source(self) -> str:
        """The chosen attention block."""
        return self.source_box.currentData() or ""

    @property
    def head(self) -> int | None:
        """The chosen head, `None` for the mean."""
        return self.head_box.currentData()

    @property
    def ready(self) -> bool:
        """Whether the picture was prepared, so that a click is answered at once."""
        return self.looking.warm and self.pick_button.isEnabled()

    @property
    def last_answer_s(self) -> float:
        """Seconds from the last question to its map in the viewer."""
        return self.looking.last_answer_s

    @property
    def answered_query(self) -> tuple[int, ...] | None:
        """The point whose attention is shown, or `None`."""
        last = self.looking.last
        return last.at if last is not None and last.what == "point" else None

    @property
    def map_shown(self) -> AttentionMap | None:
        """The map that is shown, of a map in several parts the chosen one."""
        if self._answer is None:
            return None
        maps = self._answer[3]
        return next((found for found in maps if found.kind == self.part_box.currentData()), maps[0])

    def choose(self, source: str, head: int | None, *, ask: bool = True) -> None:
        """Choose another block and head, and show their map of the whole picture."""
        if source not in (self.source_box.itemData(row) for row in range(self.source_box.count())):
            return
        for box, value in ((self.source_box, source), (self.head_box, head)):
            box.blockSignals(True)
            box.setCurrentIndex(_index_of(box, value))
            box.blockSignals(False)
            if box is self.source_box:
                self._list_heads()
        if ask:
            self.show_mean()

    def step_source(self, by: int) -> None:
        """Go to the next attention block, or the one before."""
        _step(self.source_box, by)

    def step_head(self, by: int) -> None:
        """Go to the next head, or the one before."""
        _step(self.head_box, by)

    def _list(self, blocks: Sequence[Block]) -> None:
        self.source_box.blockSignals(True)
        self.source_box.clear()
        for block in blocks:
            self.source_box.addItem(texts.source_name(block.name, block.kind), block.name)
        # The deepest block that sees the whole picture usually shows the most telling pattern.
        names = [block.name for block in blocks]
        whole = [name for name in names if name.startswith("global")] or names
        self.source_box.setCurrentIndex(max(0, _index_of(self.source_box, whole[-1] if whole else "")))
        self.source_box.blockSignals(False)
        self._source_chosen()
        self._refresh()
        if not blocks:
            self.caption.setText(texts.NO_ATTENTION)

    def _source_chosen(self, _: int = 0) -> None:
        self._list_heads()
        self._repeat()

    def _list_heads(self) -> None:
        chosen = self.head
        heads = self.looking.heads(self.source)
        self.head_box.blockSignals(True)
        self.head_box.clear()
        self.head_box.addItem(texts.head_name(None, heads=heads), None)
        for head in range(heads if heads > 1 else 0):
            self.head_box.addItem(texts.head_name(head), head)
        self.head_box.setCurrentIndex(_index_of(self.head_box, chosen))
        self.head_box.blockSignals(False)

    def _forget(self) -> None:
        """Another picture or model: nothing of the former one may be shown as if it were of this."""
        self.looking.forget()
        self.more.close_table()
        self._answer = self._limits = None
        self._show_parts(())
        self.belief.hide()
        if not self.looking.blocks:
            self.source_box.clear()
            self.head_box.clear()
        self.close_picking()
        self._refresh()

    def _ran(self, _: Any) -> None:
        """Prepare to be asked, which can be at once if the model was asked about another picture before."""
        self.looking.prepare()
        self._refresh()

    def _another_model(self) -> None:
        """Take the maps of the former model out of the viewer; those that were kept stay."""
        picking = self._pick_again or self.pick_button.isChecked()
        self._forget()
        self._pick_again = picking
        self.caption.setText(texts.ATTENTION_FIRST)
        for image, _ in self.review.works:
            map_layers.remove(self.review.layers, image)

    def _refresh(self) -> None:
        work = self.review.work
        ran = work is not None and bool(work.model_key)
        ready = ran and bool(self.looking.blocks) and not self.review.busy
        for widget in (self.source_box, self.head_box, self.part_box, self.pick_button, self.mean_button):
            widget.setEnabled(ready)
        self.check_button.setEnabled(ready and self._answer is not None and not self.looking.busy)
        self.more.refresh(ready, shown=self._answer is not None)
        if not ran:
            self.caption.setText(texts.ATTENTION_FIRST)
        elif self._answer is None and self.looking.blocks:
            self.caption.setText(texts.PICK_HINT if self.pick_button.isChecked() else texts.LOOK_HINT)
        if ready and self._pick_again:
            self._pick_again = False
            active = self.review.viewer.layers.selection.active
            self.pick_button.setChecked(active is None or str(active.mode) == "pan_zoom")  # no tool was taken meanwhile

    # -------------------------------------------------------------------------------------------------------------- asking

    def _pick_toggled(self, on: bool) -> None:
        image = self.review.image
        if on and image is not None:
            work = self.review.work
            if work is not None and work.mask is not None:
                work.mask.mode = "pan_zoom"
            if self.review.layers.find(image, "attention") is None:
                # The layers are made now, so that the click itself only has to fill them.
                blank = np.zeros((1,) * (image.ndim - 2) + (2, 2), np.float32)
                state = layers.spatial_state(image)
                self.review.layers.show_map(
                    image, "attention", blank, state, name=texts.ATTENTION_LAYER, colormap="inferno", limits=(0.0, 1.0)
                )
                map_layers.clear_marks(self.review.layers, image)
        self.picking.listen(on and image is not None)
        self._refresh()

    def pick_world(self, position: tuple[float, ...]) -> None:
        """Ask about the pixel at a world position of the viewer."""
        self.picking.pick_world(position)

    def pick(self, query: tuple[int, ...]) -> None:
        """Ask where the model looked to describe the pixel with this array index."""
        work = self.review.work
        label = 0 if work is None or work.mask is None else int(work.mask.data[tuple(query)])
        self.looking.clicked = tuple(query)
        self._ask("point", at=tuple(query), label=label)

    def show_mean(self) -> None:
        """Ask how often each place was looked at."""
        self._ask("whole", at=self.looking.place_shown())

    def _ask_structure(self, label: int, crop: Any) -> None:
        """Ask for a structure, cut out of the mask; label 0 is the piece at the point clicked last."""
        if label:
            self._ask("structure", inside=crop, label=label)
        else:
            self._ask("piece", inside=crop, at=self.looking.clicked)

    def _ask_right_and_wrong(self, label: int, crop: Any) -> None:
        self.message.say(texts.RIGHT_ALONE if self.more.against else "")
        self.looking.ask(Question("right and wrong", self.source, self.head, inside=crop, label=label))

    def _against(self, key: str) -> None:
        """Ask the last question anew against another model, or against none."""
        last = self.looking.last
        if last is not None and last.what == "right and wrong":  # a difference already
            self.message.say(texts.RIGHT_ALONE if key else "")
        else:
            self.looking.again(against=key)

    def _ask(self, what: Any, **options: Any) -> None:
        self.message.clear()
        self.looking.ask(Question(what, self.source, self.head, against=self.more.against, **options))

    def _repeat(self, _: int = 0) -> None:
        """Ask the last question again for another block or head."""
        if self.source:
            self.looking.again(source=self.source, head=self.head)

    def check(self) -> None:
        """Find out whether the map that is shown deserves belief."""
        last = self.looking.last
        if last is None:
            return
        if last.against or last.what in ("agreement", "right and wrong"):
            self.message.say(texts.NOTHING_TO_CHECK)
            return
        self.message.clear()
        self.looking.check(last.label or self.more.label or 1)

    def _long(self, on: bool) -> None:
        if on:
            self.progress.begin(texts.LOOKING)
        else:
            self.progress.end()
        self.stop_button.setVisible(on)
        self._refresh()

    def _failed(self, why: str) -> None:
        self.message.say(why or texts.CANCELLED, kind="error" if why else "good")

    # ------------------------------------------------------------------------------------------------------------- showing

    def _answered(self, image: Any, picture: layers.Picture, question: Question, maps: list[AttentionMap]) -> None:
        unsure = self.review.layers.find(image, "uncertainty")
        if self._answer is None and unsure is not None:
            unsure.visible = False  # two maps over each other are read as one
        self._answer = image, picture, question, maps
        self.belief.hide()
        self._show_parts([found.kind for found in maps])
        self._draw()
        self._refresh()
        self.shown.emit()

    def _show_parts(self, kinds: Sequence[str]) -> None:
        if [self.part_box.itemData(row) for row in range(self.part_box.count())] != list(kinds):
            chosen = self.part_box.currentData()
            self.part_box.blockSignals(True)
            self.part_box.clear()
            for kind in kinds:
                self.part_box.addItem(texts.PARTS.get(kind, kind), kind)
            self.part_box.setCurrentIndex(max(0, _index_of(self.part_box, chosen)))
            self.part_box.blockSignals(False)
        for widget in (self._part_title, self.part_box):
            widget.setVisible(len(kinds) > 1)

    def _draw(self, belief: Belief | None = None) -> None:
        """Lay the map over the picture, with its marks and its caption."""
        found = self.map_shown
        if self._answer is None or found is None:
            return
        image, picture, question, _ = self._answer
        heads = self.looking.heads(found.source)
        limits = self._limits if self.more.same_colours and self._limits else map_layers.limits_of(found)
        self._limits = limits
        facts = {"model": self.review.model_key, "against": question.against}
        if belief is not None:
            facts |= {"faithfulness": belief.score, "verdict": belief.verdict, "belief": belief.sentence}
        layer = map_layers.show_map(
            self.review.layers, image, found, picture.geometry, limits=limits, heads=heads, **facts
        )
        following = self.picking.following and question.what == "point"
        map_layers.show_marks(self.review.layers, image, found, arrows=not following)
        if following:
            self._rested.start()
        self.review.layers.outline(image, True)
        unit = layer.metadata[map_layers.METADATA]["unit"]
        across = slice_shown(self.review.viewer, image)
        away = (
            ""
            if across is None
            else texts.arrows_elsewhere(*map_layers.arrows_elsewhere(found, picture.geometry, across[0]))
        )
        self.caption.setText(f"{found.caption} {texts.colours_mean(*limits, unit)}{away}")

    def _draw_arrows(self) -> None:
        """Draw them once the pointer rests: napari takes as long for new arrows as for the map."""
        found = self.map_shown
        if self._answer is not None and found is not None and self._answer[0] in self.review.viewer.layers:
            map_layers.show_marks(self.review.layers, self._answer[0], found)

    def _checked(self, belief: Belief) -> None:
        """Say beside the map how it did; a map no better than chance carries the sentence."""
        if self._answer is None:
            return
        image, picture, question, maps = self._answer
        if belief.verdict in ("chance", "untestable"):
            first = replace(maps[0], caption=f"{maps[0].caption} {belief.sentence}")
            self._answer = image, picture, question, [first, *maps[1:]]
        self._draw(belief)
        self.belief.setText(texts.belief(belief.score, belief.interval, belief.chance, belief.verdict))
        self.belief.setToolTip(belief.sentence)
        self.belief.show()

    def _toggle_more(self) -> None:
        self.more.setVisible(self.more_button.isChecked())

    def close_picking(self) -> None:
        """Stop listening to clicks."""
        self._pick_again = False
        self.pick_button.setChecked(False)

    def leave(self) -> None:
        """Let go of the viewer, and close the window of heads."""
        self.close_picking()
        self.more.leave()


def _index_of(box: QComboBox, value: Any) -> int:
    """Row of a value; `findData` takes `None` for no value."""
    return next((row for row in range(box.count()) if box.itemData(row) == value), 0)


def _step(box: QComboBox, by: int) -> None:
    if box.isEnabled() and box.count():
        box.setCurrentIndex((box.currentIndex() + by) % box.count())
