"""Step 1: which picture, which model, which device, and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QFrame, QLabel, QVBoxLayout

from napari_medt._napari_io.origin import origin_of
from napari_medt.core import Acquisition, MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets.answers import Ahead, Found, Hint
from napari_medt.widgets.cards import card_html
from napari_medt.widgets.hints import Hints
from napari_medt.widgets.more import More, Roi
from napari_medt.widgets.parts import chooser, named, quiet_button, text_label
from napari_medt.widgets.review import Review
from napari_medt.widgets.runs import REGION, Ran, ran
from napari_medt.widgets.starter import Starter
from napari_medt.widgets.step import Step

AHEAD_MS = 400
TOLD_WINDOWS = 12
"""Below this many windows a run is over before what it takes was read."""

DEFAULT_MODEL = "medt-nuclei@1"


class RunStep(Step):
    """Collects what a run needs, starts it, and puts its result on the mask."""

    def __init__(self, review: Review) -> None:
        super().__init__(1, texts.STEP_TITLES["run"])
        self.review = review
        self.image_box = chooser("image")
        self.image_words = text_label(role="muted")
        self.model_box = chooser("model")
        self.card_button = quiet_button(texts.ABOUT, "card", clicked=self._toggle_card)
        self.card_button.setCheckable(True)
        self.card = QFrame()
        self.card.setProperty("role", "modelcard")
        self._card_text = QLabel()
        self._card_text.setTextFormat(Qt.TextFormat.RichText)
        self._card_text.setWordWrap(True)
        self._card_text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        inside = QVBoxLayout(self.card)
        inside.setContentsMargins(10, 8, 10, 8)
        inside.addWidget(self._card_text)
        self.card.hide()
        self.device_box = chooser("device")
        self.device_box.addItem(texts.device_name("auto"), "auto")
        self.uncertainty = named(QCheckBox(texts.UNCERTAINTY), "uncertainty")
        self.more_button = quiet_button(texts.MORE, "more", clicked=self._toggle_more)
        self.more_button.setCheckable(True)
        self.more = More(review)
        self.hints = Hints()
        self.ahead = text_label(role="muted")
        self.ahead.hide()
        self.starter = Starter(review, "run", texts.RUN, self.run)
        self.run_button, self.progress = self.starter.button, self.starter.progress
        self.run_button.setProperty("role", "big")

        form = self.add_form()
        form.row(texts.IMAGE, self.image_box)
        form.below(self.image_words)
        form.row(texts.MODEL, self.model_box, self.card_button)
        self.content.addWidget(self.card)
        form = self.add_form()
        form.row(texts.DEVICE, self.device_box, self.more_button)
        form.below(self.uncertainty)
        self.content.addWidget(self.more)
        self.content.addWidget(self.hints)
        self.content.addWidget(self.ahead)
        self.content.addWidget(self.run_button)
        self.content.addWidget(self.progress)

        self.image_box.currentIndexChanged.connect(self._image_chosen)
        self.model_box.currentIndexChanged.connect(self._model_chosen)
        self.model_box.activated.connect(self._chosen_by_hand)
        self.device_box.currentIndexChanged.connect(self._model_chosen)
        review.image_changed.connect(self.show_image)
        review.models_changed.connect(self._models_listed)
        review.devices_known.connect(self._devices_listed)
        review.taken_up.connect(lambda run: self.wish(run.settings))
        review.worse_changed.connect(lambda: self._list_models(review.model_key))
        review.busy_changed.connect(lambda _: self._refresh_button())
        self.hints.mended.connect(self._mend)
        self._suiting: tuple[str, ...] = ()  # models that the picture suits, the best first
        self._choosing = False
        self._by_hand = False  # whether the model was chosen by the user, who is not overruled
        self._asked = self._asked_suiting = ""
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(AHEAD_MS)
        self._soon.timeout.connect(self._ask_suiting)
        self._soon.timeout.connect(self._look_ahead)
        self._ready = False
        for changed in (review.image_changed, review.model_changed, self.more.changed, self.uncertainty.toggled):
            changed.connect(lambda *_: self._soon.start())
        self.list_images()

    # ----------------------------------------------------------------------------------------------------------- choices

    @property
    def ready(self) -> bool:
        """Whether the calculation process is there."""
        return self._ready

    @property
    def choosing(self) -> bool:
        """Whether it is still to be found out which models the picture suits."""
        return self._choosing or self._soon.isActive()

    def list_images(self) -> None:
        """Fill the image chooser from the viewer's layers, and keep the choice where it is still there."""
        images = [layer for layer in self.review.viewer.layers if _is_picture(layer)]
        wanted = self.review.image
        if wanted is None and images:
            active = self.review.viewer.layers.selection.active
            shown = [layer for layer in images if layer.visible] or images
            wanted = active if active in images else shown[-1]
        self.image_box.blockSignals(True)
        self.image_box.clear()
        for layer in reversed(images):
            self.image_box.addItem(layer.name, layer)
        if not images:
            self.image_box.addItem(texts.NO_IMAGE, None)
        self.image_box.setEnabled(bool(images))
        self.image_box.setCurrentIndex(next((i for i, layer in enumerate(reversed(images)) if layer is wanted), 0))
        self.image_box.blockSignals(False)
        self._image_chosen()

    def _image_chosen(self, _: int = 0) -> None:
        self.review.choose_image(self.image_box.currentData())
        self.show_image()

    def show_image(self) -> None:
        """Say what was read, or how to open something."""
        image = self.review.image
        index = next((i for i in range(self.image_box.count()) if self.image_box.itemData(i) is image), -1)
        if image is not None and index >= 0 and index != self.image_box.currentIndex():
            self.image_box.setCurrentIndex(index)
        if image is None:
            self.image_words.setText(texts.NO_IMAGE_HINT)
        else:
            try:
                origin = origin_of(image.metadata)
                made = Acquisition() if origin is None else origin.acquisition
                words = texts.image_words(
                    layers.spatial_shape_of(image),
                    dtype=str(layers.level_0(image).dtype),
                    colour=bool(image.rgb),
                    spacing=[float(s) for s in image.scale],
                    units=layers.units_of(image),
                    modality=made.modality,
                    value_unit=made.value_unit,
                )
                odd = () if origin is None else origin.notes
                self.image_words.setText("\n".join([words, *(f"{note.rstrip('.')}." for note in odd)]))
            except MedtError as error:
                self.image_words.setText(str(error))
        self._refresh_button()

    def _models_listed(self, choose: str) -> None:
        self._by_hand = self._by_hand or bool(self.review.preferred)
        self._list_models(choose or self.review.model_key or self.review.preferred or DEFAULT_MODEL)
        self._asked_suiting = ""
        self._soon.start()

    def _list_models(self, wanted: str) -> None:
        """Fill the chooser: the models that the picture suits, the best first, then under a line the others."""
        cards = self.review.cards
        first = [key for key in self._suiting if key in cards]
        self.model_box.blockSignals(True)
        self.model_box.clear()
        for key in [*first, *(key for key in cards if key not in first)]:
            if self.model_box.count() == len(first) > 0:
                self.model_box.insertSeparator(len(first))
            card = cards[key]
            self.model_box.addItem(texts.model_row(card.title, card.version, self.review.better_than(key)), key)
            self.model_box.setItemData(
                self.model_box.count() - 1, f"{key}: {card.description}", Qt.ItemDataRole.ToolTipRole
            )
        if not cards:
            self.model_box.addItem(texts.NO_MODEL, "")
        self.model_box.setCurrentIndex(max(0, self.model_box.findData(wanted)))
        self.model_box.setEnabled(bool(cards))
        self.model_box.blockSignals(False)
        self._model_chosen()

    def choose(self, key: str) -> None:
        """Choose a model by its key, as a user does."""
        self.model_box.setCurrentIndex(self.model_box.findData(key))
        self._chosen_by_hand()

    def _chosen_by_hand(self, _: int = 0) -> None:
        """Stay with the user's choice, and say where it is known to be a bad one."""
        self._by_hand = True
        key = self.review.model_key
        better = self.review.better_than(key)
        if better:
            self.message.say(texts.CHOSEN_WORSE.format(worse=key, better=better), kind="plain")

    def _ask_suiting(self) -> None:
        """Ask which models the picture suits, once for each picture; until the user chooses one, the best of them is taken."""
        review, image = self.review, self.review.image
        if not self._ready or review.busy or image is None or not review.cards:
            return
        try:
            picture = layers.take(image)
        except MedtError:
            return  # Run says it
        if picture.token == self._asked_suiting:
            return
        self._asked_suiting = asked = picture.token

        self._choosing = True

        def answered(found: tuple[str, ...]) -> None:
            if asked != self._asked_suiting:
                return
            self._suiting = found
            work = review.work
            ran = bool(review.busy) or (work is not None and bool(work.model_key))
            self._list_models(review.model_key if ran or self._by_hand or not found else found[0])

        def finished() -> None:
            self._choosing = self._choosing and asked != self._asked_suiting

        review.client.ask("suiting", picture=picture, then=answered, failed=lambda _: None, finished=finished)

    def _devices_listed(self, known: dict[str, Any]) -> None:
        self._ready = True
        self._soon.start()
        if not self.review.busy:
            self.message.clear()
        chosen = self.device_box.currentData()
        self.device_box.blockSignals(True)
        self.device_box.clear()
        self.device_box.addItem(texts.device_name("auto", resolved=known["auto"]), "auto")
        for device in known["devices"]:
            self.device_box.addItem(texts.device_name(device), device)
        self.device_box.setCurrentIndex(max(0, self.device_box.findData(chosen)))
        self.device_box.blockSignals(False)

    def _model_chosen(self, _: int = 0) -> None:
        key = self.model_box.currentData() or ""
        self.review.choose_model(key, self.device_box.currentData() or "auto")
        card = self.review.cards.get(key)
        self.card_button.setEnabled(card is not None)
        self._card_text.setText(card_html(card) if card is not None else "")
        if card is None:
            self.card_button.setChecked(False)
            self.card.hide()
        self._refresh_button()

    # ------------------------------------------------------------------------------------------------------------- ahead

    def _look_ahead(self) -> None:
        """Ask what a run would take and whether the picture suits the model, when there is time."""
        review = self.review
        image = review.image
        self.hints.show_hints(())
        self.ahead.hide()
        self._asked = ""
        if not self._ready or review.busy or review.work is None or not review.model_key or image is None:
            return
        try:
            picture, wishes = layers.take(image), self.wishes(image)
        except MedtError:
            return  # Run says it
        self._asked = asked = f"{picture.token} {review.model_key} {review.device} {wishes}"

        def answered(found: Ahead) -> None:
            if asked != self._asked or self.review.busy:
                return
            self.hints.show_hints(found.hints)
            self.ahead.setText(texts.ahead(found.windows, found.memory_mb, found.seconds))
            self.ahead.setVisible(found.windows >= TOLD_WINDOWS)

        review.client.ask(
            "look_ahead",
            review.model_key,
            review.device,
            picture=picture,
            then=answered,
            failed=lambda _: None,  # Run says it
            **wishes,
        )

    def _mend(self, hint: Hint) -> None:
        """Do what a hint proposes."""
        image = self.review.image
        if hint.fix == "other model":
            self.model_box.showPopup()
        elif hint.fix == "choose region":
            self.more_button.setChecked(True)
            self._toggle_more()
            self.more.region_box.setFocus()
        elif image is not None:
            layers.add_fixes(image, [hint])
            self._look_ahead()

    def _toggle_more(self) -> None:
        self.more.setVisible(self.more_button.isChecked())

    def _toggle_card(self) -> None:
        self.card.setVisible(self.card_button.isChecked())

    # --------------------------------------------------------------------------------------------------------------- run

    def run(self) -> None:
        """Start a run of the chosen model on the chosen picture."""
        review = self.review
        image = review.image
        if review.busy or image is None or not review.model_key:
            return
        self.message.clear()
        try:
            picture, wishes = layers.take(image), self.wishes(image)
        except MedtError as error:
            self.message.say(str(error), kind="error")
            return
        key, device = review.model_key, review.device
        card = review.cards[key]

        def done(result: Found) -> None:
            noted = ran(result, card, wishes=wishes, device=device, fixes=picture.fixes)
            self._apply(picture, result, noted, wishes.get(REGION), self.progress.took)

        self.progress.begin(texts.STARTING)
        review.begin(
            "run",
            "run",
            "predict",
            key,
            review.device,
            picture=picture,
            then=done,
            **wishes,
        )

    def wishes(self, image: Any) -> dict[str, Any]:
        """What is asked of a run, as `engine.predict` takes it."""
        found = self.more.wishes(image)
        if self.uncertainty.isChecked():
            found["uncertainty"] = self.more.doubt_box.currentData()
        return found

    def wish(self, settings: Mapping[str, Any]) -> None:
        """Choose what was chosen for an earlier run, so that the next is as that was; the region and the computer stay."""
        doubt = settings.get("uncertainty")
        self.uncertainty.setChecked(bool(doubt))
        self.more.wish(settings)

    def _apply(self, picture: layers.Picture, found: Found, noted: Ran, roi: Roi | None, took: float) -> None:
        """Put a result on its picture's mask: all of it or nothing; outside a region the mask stays as it was."""
        prediction, key = found.prediction, noted.run.model
        image = picture.still_there(self.review.viewer)
        if image is None:
            self.message.say(texts.IMAGE_GONE, kind="error")
            return
        editor = self.review.editor_for(image)
        if editor is None:
            return
        if editor.moving:
            editor.when_still(lambda: self._apply(picture, found, noted, roi, took))
            return
        editor.set_classes(prediction.classes)
        labels = prediction.labels
        if roi is not None:
            labels = editor.snapshot()
            labels = labels.astype(np.promote_types(labels.dtype, prediction.labels.dtype), copy=False)
            labels[roi] = prediction.labels[roi]
        if not editor.replace(labels, texts.RUN_NAME, model_key=key):
            self.message.say(texts.IMAGE_GONE, kind="error")
            return
        layers.made_of(editor.mask, found.on_scan)
        named_shares = list(zip(prediction.classes[1:], found.shares[1:], strict=True))
        said = texts.run_done(self.review.title_of(key), took, named_shares)
        self.message.say(" ".join([said, *prediction.notes]), kind="good")
        self.set_summary(f"{key}, {texts.seconds(took)}")
        self.review.ran(image, noted)
        self._soon.start()

    def _refresh_button(self) -> None:
        review = self.review
        ready = review.image is not None and review.work is not None and bool(review.model_key)
        self.more.offer()
        self.more.setEnabled(not review.busy)
        self.starter.refresh(ready)
        for box in (self.image_box, self.model_box, self.device_box):
            box.setEnabled(not review.busy and box.count() > 0 and box.itemData(0) not in (None, ""))
        self.uncertainty.setEnabled(not review.busy)


def _is_picture(layer: Any) -> bool:
    from napari.layers import Image

    return isinstance(layer, Image) and not layers.is_ours(layer)
