"""Step 2: where the model looked, for a clicked point or on average."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from qtpy.QtCore import Signal

from napari_medt.core import AttentionMap, Cancelled, Geometry, MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets.client import Job
from napari_medt.widgets.doubts import Doubts
from napari_medt.widgets.parts import FlowLayout, button, chooser, text_label
from napari_medt.widgets.review import Review
from napari_medt.widgets.step import Step


class LookStep(Step):
    """Asks for attention and lays it over the picture; one map at a time, replaced by the next."""

    shown = Signal()

    def __init__(self, review: Review) -> None:
        super().__init__(2, texts.STEP_TITLES["look"])
        self.review = review
        self.source_box = chooser("source")
        self.head_box = chooser("head")
        self.pick_button = button(texts.PICK, "pick", checkable=True)
        self.mean_button = button(texts.MEAN_ATTENTION, "mean", clicked=self.show_mean)
        self.caption = text_label(texts.LOOK_HINT, role="muted")
        form = self.add_form()
        form.row(texts.ATTENTION, self.source_box)
        form.row(texts.HEAD, self.head_box)
        self.content.addLayout(FlowLayout(self.pick_button, self.mean_button))
        self.content.addWidget(self.caption)
        self.doubts = Doubts(review)
        self.content.addWidget(self.doubts)
        self.last_answer_s = 0.0
        self._heads: dict[str, int] = {}
        self._asked_model = ("", "")
        self._warming: Job | None = None
        self._pending: Job | None = None
        self._next: tuple[int, ...] | None = None
        self._again: Any = None

        self.pick_button.toggled.connect(self._pick_toggled)
        self.source_box.currentIndexChanged.connect(self._source_chosen)
        self.head_box.currentIndexChanged.connect(self._repeat)
        review.ran_on.connect(self._prepare)
        review.image_changed.connect(self._forget)
        review.model_changed.connect(self._forget)
        review.busy_changed.connect(lambda _: self._refresh())
        self._refresh()

    # ------------------------------------------------------------------------------------------------- what can be asked

    @property
    def source(self) -> str:
        """The chosen attention block."""
        return self.source_box.currentData() or ""

    @property
    def ready(self) -> bool:
        """Whether the picture was prepared, so that a click is answered at once."""
        return bool(self._heads) and self._warming is None and self.pick_button.isEnabled()

    @property
    def head(self) -> int | None:
        """The chosen head, `None` for the mean."""
        return self.head_box.currentData()

    def _prepare(self) -> None:
        """After a run: list the attention blocks, and pass the picture through once so that clicks are quick."""
        review = self.review
        image = review.image
        if image is None:
            return
        asked = review.model_key, review.device

        def listed(sources: list[tuple[str, int]]) -> None:
            if asked == (review.model_key, review.device):
                self._list(sources)

        if asked != self._asked_model or not self._heads:
            self._asked_model = asked
            review.client.ask("sources", *asked, then=listed, failed=self._failed)
        with suppress(MedtError):
            self._warming = review.client.ask(
                "prepare_attention",
                *asked,
                picture=layers.take(image),
                z=self._slice(image) or 0,
                then=lambda _: None,
                failed=self._warm_failed,
                finished=self._warmed,
            )

    def _list(self, sources: list[tuple[str, int]]) -> None:
        self._heads = dict(sources)
        self.source_box.blockSignals(True)
        self.source_box.clear()
        for name, _ in sources:
            self.source_box.addItem(texts.source_name(name), name)
        # The deepest block that sees the whole picture usually shows the most telling pattern.
        whole = [name for name, _ in sources if name.startswith("global")] or [name for name, _ in sources]
        self.source_box.setCurrentIndex(max(0, self.source_box.findData(whole[-1] if whole else "")))
        self.source_box.blockSignals(False)
        self._source_chosen()
        if not sources:
            self.caption.setText(texts.NO_ATTENTION)
        self._refresh()

    def _source_chosen(self, _: int = 0) -> None:
        chosen = self.head
        self.head_box.blockSignals(True)
        self.head_box.clear()
        self.head_box.addItem(texts.head_name(None), None)
        for head in range(self._heads.get(self.source, 0)):
            self.head_box.addItem(texts.head_name(head), head)
        at = next((i for i in range(self.head_box.count()) if self.head_box.itemData(i) == chosen), 0)
        self.head_box.setCurrentIndex(at)
        self.head_box.blockSignals(False)
        self._repeat()

    @property
    def answered_query(self) -> tuple[int, ...] | None:
        """The point whose attention is shown, or `None`."""
        return self._point_of_last()

    def _forget(self) -> None:
        """Another picture or model: nothing of the former one may be shown as if it were of this."""
        self._again = None
        if (self.review.model_key, self.review.device) != self._asked_model:
            self._heads = {}
            self.source_box.clear()
            self.head_box.clear()
        self.pick_button.setChecked(False)
        self._refresh()

    def _refresh(self) -> None:
        work = self.review.work
        ready = work is not None and bool(work.model_key) and bool(self._heads) and not self.review.busy
        for widget in (self.source_box, self.head_box, self.pick_button, self.mean_button):
            widget.setEnabled(ready)
        if work is None or not work.model_key:
            self.caption.setText(texts.ATTENTION_FIRST)
        elif not self._again and self._heads:
            self.caption.setText(texts.PICK_HINT if self.pick_button.isChecked() else texts.LOOK_HINT)

    # -------------------------------------------------------------------------------------------------------------- picking

    def _pick_toggled(self, on: bool) -> None:
        callbacks = self.review.viewer.mouse_drag_callbacks
        if on and self._on_mouse not in callbacks:
            image = self.review.image
            work = self.review.work
            if work is not None and work.mask is not None:
                work.mask.mode = "pan_zoom"
            if image is not None and self.review.layers.find(image, "attention") is None:
                # The layers are made now, so that the click itself only has to fill them.
                blank = np.zeros((1,) * (image.ndim - 2) + (2, 2), np.float32)
                self._show(image, blank, layers.spatial_state(image), name="Attention", limits=(0.0, 1.0), framed=False)
            if image is not None:
                self.review.layers.show_point(image, self._point_of_last(), name="Point asked about")
            callbacks.append(self._on_mouse)
        elif not on and self._on_mouse in callbacks:
            callbacks.remove(self._on_mouse)
        self._refresh()

    def _point_of_last(self) -> tuple[int, ...] | None:
        return self._again[1] if self._again is not None and self._again[0] == "pick" else None

    def _on_mouse(self, viewer: Any, event: Any) -> Iterator[None]:
        """Take a click, but not the end of a drag, as a question."""
        if event.button not in (1, None):
            return
        began = np.asarray(event.pos if event.pos is not None else (0, 0), dtype=float)
        at = tuple(event.position)
        yield
        while event.type == "mouse_move":
            if event.pos is not None and np.abs(np.asarray(event.pos) - began).max() > 4:
                return
            yield
        self.pick_world(at)

    def pick_world(self, position: tuple[float, ...]) -> None:
        """Ask about the pixel at a world position of the viewer."""
        image = self.review.image
        if image is None:
            return
        index = np.round(np.asarray(image.world_to_data(position[-image.ndim :]))).astype(int)
        shape = layers.spatial_shape_of(image)
        if any(not 0 <= i < n for i, n in zip(index, shape, strict=True)):
            self.message.say(texts.OUTSIDE, kind="plain")
            return
        self.pick(tuple(int(i) for i in index))

    def pick(self, query: tuple[int, ...]) -> None:
        """Ask where the model looked to describe the pixel with this array index."""
        image = self.review.image
        if image is None or not self.source or self.review.busy:
            return
        self._stop_warming()
        if self._pending is not None:
            self._next = query
            return
        self._next = None
        picture, source, head, asked = layers.take(image), self.source, self.head, time.perf_counter()

        def answered(maps: list[AttentionMap]) -> None:
            self._answer(picture, maps[0], query, "pick")
            self.last_answer_s = time.perf_counter() - asked

        self._ask(
            "pick",
            self.review.model_key,
            self.review.device,
            query,
            picture=picture,
            source=source,
            head=head,
            then=answered,
        )

    def show_mean(self) -> None:
        """Ask how often each place was looked at."""
        image = self.review.image
        if image is None or not self.source or self.review.busy or self._pending is not None:
            return
        self._stop_warming()
        picture, z = layers.take(image), self._slice(image)

        def answered(found: AttentionMap) -> None:
            self._answer(picture, found, None if z is None else (z, 0, 0), "mean")

        self._ask(
            "overview",
            self.review.model_key,
            self.review.device,
            picture=picture,
            source=self.source,
            head=self.head,
            z=z or 0,
            then=answered,
        )

    def _ask(self, method: str, *args: Any, **options: Any) -> None:
        self.message.clear()
        self._pending = self.review.client.ask(method, *args, failed=self._failed, finished=self._answered, **options)

    def _answered(self) -> None:
        self._pending = None
        if self._next is not None:
            query, self._next = self._next, None
            self.review.bridge.post(lambda: self.pick(query))

    def _answer(self, picture: layers.Picture, found: AttentionMap, query: tuple[int, ...] | None, kind: str) -> None:
        image = picture.still_there(self.review.viewer)
        if image is None or image is not self.review.image:
            return
        z = query[0] if query is not None and len(query) == 3 else None
        data, state = layers.map_state(image, found, picture.geometry, z)
        name = f"Attention: {texts.source_name(found.source)}, {texts.head_name(found.head).lower()}"
        high = float(np.percentile(found.data, 99.7)) or float(found.data.max())
        whole = _covers(found, picture.geometry, picture.spatial_shape[-2:])
        low = 0.0 if kind == "pick" else float(found.data.min())
        self._show(image, data, state, name=name, limits=(low, high), framed=not whole)
        self._again = (kind, query)
        if kind == "pick" or self.review.layers.find(image, "point") is not None:
            self.review.layers.show_point(image, query if kind == "pick" else None, name="Point asked about")
        self.review.layers.outline(image, True)
        self.caption.setText(found.caption)
        self.shown.emit()

    def _show(self, image: Any, data: Any, state: dict[str, Any], **options: Any) -> None:
        self.review.layers.show_map(image, "attention", data, state, colormap="inferno", **options)

    def _repeat(self, _: int = 0) -> None:
        """Ask the last question again for another block or head."""
        if self._again is None or not self.source:
            return
        kind, query = self._again
        if kind == "pick":
            self.pick(query)
        else:
            self.show_mean()

    def _stop_warming(self) -> None:
        if self._warming is not None:
            self._warming.cancel()

    def _warmed(self) -> None:
        self._warming = None

    def _warm_failed(self, error: MedtError) -> None:
        """A model without attention is no failure of the run; the first question says what is wrong."""

    def _failed(self, error: MedtError) -> None:
        if not isinstance(error, Cancelled):
            self.message.say(str(error), kind="error")

    def _slice(self, image: Any) -> int | None:
        """Index of the shown slice of a scan, `None` for a 2D picture."""
        if image.ndim == 2:
            return None
        point = self.review.viewer.dims.point[-image.ndim :]
        return int(np.clip(round(float(image.world_to_data(point)[0])), 0, layers.spatial_shape_of(image)[0] - 1))

    def close_picking(self) -> None:
        """Stop listening to clicks."""
        self.pick_button.setChecked(False)


def _covers(found: AttentionMap, volume: Geometry, shape: tuple[int, ...]) -> bool:
    """Whether a map covers the whole picture."""
    steps = np.asarray(found.geometry.spacing) / np.asarray(volume.spacing[-2:])
    return bool(all(cells * step >= n for cells, step, n in zip(found.data.shape, steps, shape, strict=True)))
