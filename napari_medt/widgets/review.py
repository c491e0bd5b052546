"""The state of a review that all steps share: the picture, the model, the mask, and what is being calculated."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medt.core import Cancelled, MedtError
from napari_medt.io.picture import fits_memory
from napari_medt.widgets import layers, texts
from napari_medt.widgets._compat import remove_together
from napari_medt.widgets.bridge import Bridge
from napari_medt.widgets.client import Client, Job, Worker
from napari_medt.widgets.mask_editor import MaskEditor
from napari_medt.widgets.runs import Ran, doubts_of, hints_of
from napari_medt.widgets.slice_shown import slice_shown

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from napari_medt._napari_io.finding import LayerData
    from napari_medt.cases import LastRun

Say = Callable[..., None]


class Review(QObject):
    """Knows what the steps show and does what they ask; it has no widgets of its own.

    Signals
    -------
    image_changed
        Another image layer was chosen, or the chosen one changed or went.
    models_changed
        The list of models changed; the string is the key that should be chosen now, or empty.
    model_changed
        Another model or device was chosen.
    busy_changed
        What is being calculated: `"run"`, `"learn"`, `"compare"` or nothing.
    progressed
        How far it is: done, total, message.
    mask_changed
        The mask, its undo history or its draft changed.
    mask_counted
        The sizes of the structures are others now.
    stage_changed
        Another step makes sense next.
    said
        A sentence for the message line of a step: step, text, kind.
    devices_known
        The calculation process is ready; which devices there are.
    ran_on
        A run on the chosen image put its result on the mask: `runs.Ran`.
    taken_up
        The mask of the chosen image is gone on with from an earlier session, with the model of its `LastRun`.
    doubted
        The doubtful regions of the chosen image are others now.
    tool_taken
        The user took a painting tool, so that clicks belong to it now.
    worse_changed
        Other versions of models are known to be worse than one before.
    overlap_asked
        A change would take voxels from other structures: the `MaskEditor`, its `Verdict`, and who made the change.
    """

    image_changed = Signal()
    models_changed = Signal(str)
    model_changed = Signal()
    busy_changed = Signal(str)
    progressed = Signal(int, int, str)
    mask_changed = Signal()
    mask_counted = Signal()
    stage_changed = Signal(str)
    said = Signal(str, str, str)
    devices_known = Signal(dict)
    ran_on = Signal(object)
    taken_up = Signal(object)
    doubted = Signal(object)
    tool_taken = Signal()
    worse_changed = Signal()
    overlap_asked = Signal(object, object, str)

    def __init__(self, viewer: Any, *, worker: Worker | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.bridge = Bridge(self)
        self.changes = Bridge(self)  # so that no save or export keeps a change from being undone, or from the disk
        self.client = Client(self.bridge, worker)
        self.layers = layers.OurLayers(viewer)
        self.cards: dict[str, Any] = {}
        self.models_listed = False
        self.model_key = ""
        self.device = "auto"
        self.preferred = ""
        self.worse: set[tuple[str, str]] = set()
        """A version of a model, and another that a comparison on held-out cases found to be worse than it."""
        self.busy = ""
        self.stage = "run"
        self.closed = False
        self._job: Job | None = None
        self._image: weakref.ref[Image] | None = None
        self._doubtful: dict[str, tuple[Any, ...]] = {}
        self._works: dict[str, MaskEditor] = {}
        self._openers: dict[str, Callable[[Any], Any]] = {}
        self._cancel_early = False
        self._own_model = ""  # that was chosen before the one of a mask from an earlier session

    # ------------------------------------------------------------------------------------------------ image, model, mask

    @property
    def image(self) -> Image | None:
        """The chosen image layer, if it is still in the viewer."""
        layer = self._image() if self._image is not None else None
        return layer if layer is not None and layer in self.viewer.layers else None

    @property
    def work(self) -> MaskEditor | None:
        """What was done on the chosen image, or `None` without an image that can be worked on."""
        image = self.image
        return None if image is None else self._works.get(layers.identity(image))

    @property
    def works(self) -> list[tuple[Image, MaskEditor]]:
        """All images of the viewer that were begun on, with what was done on them."""
        known = [layer for layer in self.viewer.layers if layers.KEY in layer.metadata and not layers.is_ours(layer)]
        images = {layers.identity(layer): layer for layer in known}
        return [(images[key], work) for key, work in self._works.items() if key in images]

    def keep_case_with(self, layer: Image, opener: Callable[[Any], Any]) -> None:
        """Let `opener(volume)` open the case of an image, and take up what is found there without asking."""
        self._openers[layers.identity(layer)] = opener

    def choose_image(self, layer: Image | None) -> None:
        """Work on another image layer; its mask is made, or found from before."""
        if layer is self.image and (layer is None or self.work is not None):
            return
        left = self.work
        if left is not None and left.untouched:
            self._drop(left)
        if self._own_model:
            self.models_changed.emit(self._own_model)
        former = self.image
        if former is not None:
            former.events.data.disconnect(self._picture_replaced)
        self._image = None if layer is None else weakref.ref(layer)
        if layer is not None:
            layer.events.data.connect(self._picture_replaced)
            self._begin(layer)
        work = self.work
        self.set_stage("run" if work is None or not work.has_mask else "look" if work.model_key else "correct")
        self.image_changed.emit()
        self.doubted.emit(self.doubtful)
        self.mask_changed.emit()
        self._use_model_of_mask()

    def _picture_replaced(self, event: Any = None) -> None:
        """Take note that somebody put another picture into the chosen layer; later, as its place may follow."""
        self.bridge.post(self._begin_anew)

    def _begin_anew(self) -> None:
        """Give another picture in the chosen layer a mask of its own: nobody may sign that of the former for it."""
        image, work = self.image, self.work
        if image is None or work is None or self.closed or work.picture.signature == layers.signature(image):
            return
        key, mask = layers.identity(image), work.mask
        for kept in (self._openers, self._doubtful):
            kept.pop(key, None)
        remove_together(self.viewer, self.layers.shown_of(image))
        if self._leave(work):
            if mask is not None:
                mask.visible = False
            self.said.emit("run", texts.PICTURE_REPLACED.format(name=image.name), "plain")
        self.choose_image(image)

    def choose_model(self, key: str, device: str) -> None:
        """Use another model or device from now on."""
        if (key, device) == (self.model_key, self.device):
            return
        self.model_key, self.device, self._own_model = key, device, ""
        work = self.work
        if work is not None and work.untouched:
            work.set_classes(self.classes)
        self.model_changed.emit()

    @property
    def doubtful(self) -> tuple[Any, ...]:
        """Regions of the chosen image in which the last run was unsure, the most doubtful first."""
        image = self.image
        return () if image is None else self._doubtful.get(layers.identity(image), ())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels of the chosen model, background first."""
        card = self.cards.get(self.model_key)
        return tuple(card.classes) if card is not None else ("background", "foreground")

    def mask_removed(self, layer: Any) -> None:
        """Take note that the user deleted a layer that may be a mask of ours; what was drawn on it is offered again."""
        for work in list(self._works.values()):
            if work.mask is layer:
                del self._works[work.image_id]
                work.close()
                self.set_stage("run")
                self.mask_changed.emit()
                # Later, because a closing viewer takes its layers out one after the other.
                self.bridge.post(lambda work=work: self._mask_again(work))

    def _mask_again(self, gone: MaskEditor) -> None:
        image = self.image
        if image is not None and self.work is None and layers.identity(image) == gone.image_id:
            self._begin(image)
            self.image_changed.emit()
            self.mask_changed.emit()

    def image_removed(self, layer: Any) -> None:
        """Take note that an image layer went: its mask stays if it was worked on, and is offered again; all else goes with it."""
        # Later, because napari may be taking out several layers one after the other.
        self.bridge.post(lambda: remove_together(self.viewer, self.layers.shown_of(layer)))
        work = self._works.get(layers.identity(layer))
        if work is None:
            return
        if self._leave(work):
            self.mask_changed.emit()
            if work.image_id not in self._openers:  # cases of a folder go and come
                gone = texts.IMAGE_REMOVED.format(name=layer.name)
                self.bridge.post(lambda: self.said.emit("run", gone, "plain"))  # once another image is chosen
        if self.image is None:
            self.set_stage("run")

    def show_another(self, image: Image, made: LayerData) -> list[Layer]:
        """Put another picture into an image layer, once what was done on the former is kept; returns what lies over that."""
        key = layers.identity(image)
        work = self._works.pop(key, None)
        if work is not None:
            work.close()
        for kept in (self._openers, self._doubtful):
            kept.pop(key, None)
        data, options, _ = made
        return self.layers.give_on(image, data, options)

    def editor_for(self, image: Image) -> MaskEditor | None:
        """Return the editor of an image's mask; makes the mask again if the user deleted it."""
        key = layers.identity(image)
        self._begin(image)
        return self._works.get(key)

    def better_than(self, key: str) -> str:
        """Key of a version that a model was found to be worse than; usually empty."""
        return max((old for old, new in self.worse if new == key and old in self.cards), default="")

    def title_of(self, key: str) -> str:
        """Name of a model for people."""
        card = self.cards.get(key)
        return card.title if card is not None else key

    def ran(self, image: Image, ran: Ran) -> None:
        """Take note that a run on an image put its result on the mask; its doubtful places can be gone through."""
        self._show_doubt(image, ran.run, ran.uncertainty)
        if image is self.image:
            self.set_stage("look")
            self.ran_on.emit(ran)

    def _show_doubt(self, image: Image, run: LastRun, uncertainty: np.ndarray | None) -> None:
        """Show where a run was unsure, in the place of what was shown of the one before."""
        self._doubtful[layers.identity(image)] = doubts_of(run)
        if uncertainty is None:
            self.layers.remove(image, "uncertainty")
        else:
            self.layers.show_map(
                image,
                "uncertainty",
                uncertainty,
                layers.spatial_state(image),
                name=texts.UNSURE_OF.format(name=image.name),
                colormap="magma",
                limits=(0.0, 1.0),
            )
        if image is self.image:
            self.doubted.emit(self.doubtful)

    def restore(self, work: MaskEditor) -> None:
        """Take the mask that was found from an earlier session."""
        found, image, fresh = work.found, work.picture.layer(), _is_fresh(work)
        if found is not None and image is not None and work.restore():
            if found.run is not None:
                layers.add_fixes(image, hints_of(found.run))
                self._show_doubt(image, found.run, found.uncertainty)
            self._use_model_of_mask()
            back = texts.RESTORED if fresh else texts.RESTORED_OVER
            said = [back.format(when=found.when), *found.notes, self._about_model(work.run)]
            self.said.emit("correct", " ".join(filter(None, said)), "good")
            if work.status != "accepted":
                self.set_stage("correct")
        self.mask_changed.emit()

    def _use_model_of_mask(self) -> None:
        """Choose the model that made a mask of an earlier session, for this picture; another version of it that is in use stays."""
        work, before = self.work, self.model_key
        run = None if work is None else work.run
        if work is None or run is None or not self._same_weights(run):
            return
        if run.model != before and not self._other_version(run):
            self.models_changed.emit(run.model)
            self._own_model = before
        work.model_key = run.model
        self.taken_up.emit(run)

    def go_on_with(self, key: str) -> None:
        """Choose the model that was in use when a review was left, if it is still there."""
        if key in self.cards:
            self.models_changed.emit(key)

    def _same_weights(self, run: LastRun) -> bool:
        card = self.cards.get(run.model)
        return card is not None and card.sha256 == run.weights_sha256

    def _other_version(self, run: LastRun) -> bool:
        """Whether another version of the model of a run is in use, which somebody decided on."""
        now, then = self.cards.get(self.model_key), self.cards[run.model]
        return now is not None and now.name == then.name and now.version != then.version

    def _about_model(self, run: LastRun | None) -> str:
        """Say where the model in use is not the one that made a mask of an earlier session."""
        if run is None or not self.models_listed:
            return ""
        if not self._same_weights(run):
            gone = texts.MODEL_GONE if run.model not in self.cards else texts.MODEL_CHANGED
            return gone.format(name=run.title)
        return texts.MODEL_OTHER_VERSION.format(old=run.model, new=self.model_key) if self._other_version(run) else ""

    def start_anew(self, work: MaskEditor) -> None:
        """Put the found mask aside."""
        work.start_anew()
        self.said.emit("run", texts.FORGOTTEN if _is_fresh(work) else texts.FORGOTTEN_LATER, "plain")

    def _leave(self, work: MaskEditor) -> bool:
        """Forget a picture, and its mask if it is untouched; returns whether the mask stays as a layer."""
        if work.untouched:
            self._drop(work)
            return False
        del self._works[work.image_id]
        work.close()
        return True

    def _drop(self, work: MaskEditor) -> None:
        """Forget a picture, and take its untouched mask out of the viewer."""
        self._works.pop(work.image_id, None)
        mask = work.mask
        work.close()
        if mask is not None and mask in self.viewer.layers:
            self.viewer.layers.remove(mask)

    def _plane(self, image: Image) -> tuple[slice, ...] | None:
        """Return the slice of a scan that is shown, where strokes land."""
        found, shape = slice_shown(self.viewer, image), layers.spatial_shape_of(image)
        if found is None or not 0 <= found[1] < shape[found[0]]:
            return None
        box = [slice(0, size) for size in shape]
        box[found[0]] = slice(max(0, found[1] - 1), found[1] + 2)
        return tuple(box)

    def _begin(self, image: Image) -> None:
        key = layers.identity(image)
        known = self._works.get(key)
        if known is not None and known.mask is not None:
            if known.picture.signature == layers.signature(image):
                return
            del self._works[key]  # another picture was put into the layer; its old mask stays beside it
            known.close()
        try:
            picture = layers.take(image)
        except MedtError as error:
            self.said.emit("run", str(error), "error")
            return
        if not fits_memory(math.prod(picture.spatial_shape)):
            self.said.emit("run", texts.too_large(image.name, picture.spatial_shape), "error")
            return
        labels = np.zeros(picture.spatial_shape, np.uint8)
        mask = self.layers.add_mask(image, labels, classes=len(self.classes))
        shown = weakref.ref(image)

        def plane() -> tuple[slice, ...] | None:
            layer = shown()
            return None if layer is None else self._plane(layer)

        opener = self._openers.get(key)
        work = MaskEditor(picture, key, mask, self.changes, self.classes, plane=plane, opener=opener)
        work.changed.connect(self._work_changed)
        work.edited.connect(self._work_edited)
        work.counted.connect(self.mask_counted)
        work.failed.connect(lambda error: self.said.emit("correct", str(error), "error"))
        work.caught_up.connect(lambda: self.said.emit("correct", texts.CAUGHT_UP, "good"))
        work.refused.connect(lambda error: self.said.emit("correct", str(error), "plain"))
        work.asked.connect(lambda verdict, by: self.overlap_asked.emit(work, verdict, by))
        self._works[key] = work
        work.look_for_draft()

    def _work_changed(self) -> None:
        work = self.work
        # After changes that were made while it was being looked for, nothing is put in their place unasked.
        if work is not None and work.found is not None and work.image_id in self._openers and _is_fresh(work):
            self.restore(work)
        else:
            self.mask_changed.emit()

    def _work_edited(self) -> None:
        if self.stage != "compare":
            self.set_stage("accept")

    def set_stage(self, stage: str) -> None:
        """Say which step makes sense next: run, look, correct, accept, next, learn or compare."""
        if stage != self.stage:
            self.stage = stage
            self.stage_changed.emit(stage)

    # ------------------------------------------------------------------------------------------------------ calculations

    def start(self) -> None:
        """Start the calculation process and list the models; called when the dock opens."""
        self.refresh_models()
        self.client.start(then=self.devices_known.emit, failed=lambda error: self.said.emit("run", str(error), "error"))

    def refresh_models(self, choose: str = "") -> None:
        """List the models anew, and choose one by its key."""

        def listing() -> tuple[list[Any], str]:
            from napari_medt.widgets.remembered import remembered
            from napari_medt.zoo import list_models

            return list(list_models()), str(remembered().get("model", ""))

        def listed(found: tuple[list[Any], str]) -> None:
            cards, self.preferred = found
            first, self.models_listed = not self.models_listed, True
            self.cards = {card.key: card for card in cards}
            self.models_changed.emit(choose)
            work = self.work
            if first and work is not None and work.run is not None:  # a mask that was there before them
                self._use_model_of_mask()
                if said := self._about_model(work.run):
                    self.said.emit("correct", said, "plain")

        self.bridge.aside(listing, then=listed, failed=lambda error: self.said.emit("run", str(error), "error"))

    def begin(
        self,
        what: str,
        step: str,
        method: str,
        *args: Any,
        then: Callable[[Any], Any],
        failed: Callable[[MedtError], Any] | None = None,
        **options: Any,
    ) -> None:
        """Run the one long calculation of the dock; `cancel` stops it. Why it failed is said, and then `failed` told."""

        def finished() -> None:
            self._job = None
            self.release()

        def say(error: MedtError) -> None:
            if isinstance(error, Cancelled):
                self.said.emit(step, texts.CANCELLED, "good")
            else:
                self.said.emit(step, str(error), "error")
            if failed is not None:
                failed(error)

        self.hold(what)
        self._job = self.client.ask(
            method, *args, then=then, failed=say, finished=finished, on_progress=self.progressed.emit, **options
        )
        if self._cancel_early:
            self.cancel()

    def hold(self, what: str) -> None:
        """Say that something is being calculated, or made ready for it."""
        if self.busy != what:
            self.busy, self._cancel_early = what, False
            self.busy_changed.emit(what)

    def release(self) -> None:
        """Say that nothing is being calculated any more."""
        self.busy, self._cancel_early = "", False
        self.busy_changed.emit("")

    @property
    def cancelling(self) -> bool:
        """Whether the running calculation was asked to stop."""
        return self._cancel_early or (self._job is not None and self._job.cancelled)

    def cancel(self) -> None:
        """Stop the running calculation."""
        self._cancel_early = bool(self.busy)
        if self._job is not None:
            self._job.cancel()

    @property
    def paused(self) -> bool:
        """Whether the running calculation was asked to wait."""
        return self._job is not None and self._job.paused

    def pause(self, paused: bool) -> None:
        """Let the running calculation wait, or go on."""
        if self._job is not None:
            self._job.pause(paused)

    def stop(self) -> None:
        """End the running calculation with the best it has."""
        if self._job is not None:
            self._job.stop()

    def close(self) -> None:
        """End the process, keep the drafts, and let go of the layers."""
        if self.closed:
            return
        self.closed = True
        if self.busy != "learn":  # what was learnt is gone on with another time, from its checkpoint
            self.cancel()
        self.bridge.close()  # an export may still need a case
        for work in list(self._works.values()):
            if work.untouched:
                self._drop(work)
            else:
                work.close()
        self._works.clear()
        self.changes.close()
        self.client.close()


def _is_fresh(work: MaskEditor) -> bool:
    """Whether nothing was done on a mask so far, nor is being drawn."""
    if not work.timeline.changes:
        work.settle()
    return not work.timeline.changes
