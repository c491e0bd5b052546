"""The mask of one picture: every change, by hand, by a tool or by a model, keeps the rules, can be undone, and is kept on disk.

napari's own undo knows nothing of a model's run and would write old values into a new mask. Here a second copy of the mask
says what was there before: after a stroke the two are compared in the touched box, and the difference goes into the journal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal

from napari_medt.cases import Protection
from napari_medt.cases.entry import By, changed_box
from napari_medt.core import BadEdit, NothingToChange
from napari_medt.editing import Edit, OverlapPolicy, make_edit
from napari_medt.widgets import layers, strokes, texts
from napari_medt.widgets._compat import forget_history
from napari_medt.widgets.bridge import Bridge
from napari_medt.widgets.drafts import Draft, Found
from napari_medt.widgets.guard import Box, Verdict, about, judge, still_hold
from napari_medt.widgets.mask_history import MaskHistory
from napari_medt.widgets.mask_state import MaskState
from napari_medt.widgets.strokes import Strokes
from napari_medt.widgets.timeline import Change

if TYPE_CHECKING:
    from napari.layers import Labels

KEYS = ("Control-Z", "Control-Shift-Z")


class MaskEditor(MaskState):
    """Watches one mask layer; besides napari's tools, `replace`, `make`, `undo`, `redo` and `go_to` change it.

    Signals
    -------
    changed
        The history, the draft, the locks or the classes changed.
    edited
        The user changed the mask by hand or with a tool.
    counted
        `voxels` has other numbers now.
    asked
        A change would take voxels from other structures: its `Verdict` and who made it. `take` takes them.
    refused
        The rules left nothing of a change; the error.
    failed
        A change could not be kept or brought back; the error.
    caught_up
        All changes are kept, after some could not be.
    """

    changed = Signal()
    edited = Signal()
    counted = Signal()
    asked = Signal(object, str)
    refused = Signal(object)
    failed = Signal(object)
    caught_up = Signal()

    def __init__(
        self,
        picture: layers.Picture,
        image_id: str,
        mask: Labels,
        bridge: Bridge,
        classes: tuple[str, ...],
        *,
        plane: Callable[[], Box | None] = lambda: None,
        opener: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(picture, image_id, mask, classes)
        self._bridge = bridge
        self._strokes = Strokes(mask, plane)
        self._strokes.ended.connect(lambda: self.when_still(self.flush))
        self._strokes.replaced.connect(self._data_replaced)
        self._history = MaskHistory(Draft(picture, opener), bridge, write=self._write, name_of=self.name_of)
        for mine, its in (
            (self.changed, self._history.changed),
            (self.refused, self._history.refused),
            (self.failed, self._history.failed),
            (self.caught_up, self._history.caught_up),
        ):
            its.connect(mine)
        self._history.counted.connect(self._counted)
        # The keys are bound on the layer, and its methods replaced, so that no way is left to napari's own history.
        mask.undo, mask.redo = self.undo, self.redo
        mask.features = layers.names_of_classes(classes)["features"]
        for keys, act in zip(KEYS, (self.undo, self.redo), strict=True):
            mask.bind_key(keys, lambda _, act=act: act(), overwrite=True)

    # ------------------------------------------------------------------------------------------------------ mask, classes

    @property
    def status(self) -> str:
        """How far the review of this mask is: to do, draft, accepted or second look."""
        return self._history.status

    def on_case(
        self,
        act: Callable[[Any], Any],
        *,
        then: Callable[[Any], Any] | None = None,
        failed: Callable[[Any], Any] | None = None,
    ) -> None:
        """Run `act(case)` on the case's folder, off the window's thread, once all changes so far are kept there."""
        self.flush()
        self._history.on_case(act, then=then, failed=failed)

    def edited_mask(self) -> np.ndarray:
        """Return where a person changed the mask; to be called on the bridge's thread."""
        return self._history.edited_mask(self.shape)

    def snapshot(self) -> np.ndarray:
        """Return a copy of the mask as it is now; a step that is being unpacked is not in it yet, see `when_still`."""
        self.settle()
        return self._shadow.copy()

    def set_classes(self, classes: tuple[str, ...]) -> None:
        """Name the labels, and give them their colours."""
        mask = self.mask
        if mask is not None:
            mask.features = layers.names_of_classes(classes)["features"]
        if classes != self.classes:
            self.classes = classes
            self._colour()
            self.changed.emit()

    # ------------------------------------------------------------------------------------------------------------- rules

    @property
    def overlap(self) -> OverlapPolicy:
        """What happens where a change meets structures it is not about."""
        return self._overlap

    @overlap.setter
    def overlap(self, policy: OverlapPolicy) -> None:
        self.flush(everywhere=True)
        self._overlap = policy
        self.changed.emit()

    def set_locked(self, label: int, locked: bool) -> None:
        """Lock a structure, so that it neither loses nor gains a voxel, or unlock it; kept with the case."""
        self.flush(everywhere=True)  # what was painted before is still allowed
        held = {*self.protection.locked, label} if locked else {*self.protection.locked} - {label}
        self._protect(replace(self.protection, locked=tuple(sorted(held))))

    def freeze(self, box: Box | None) -> None:
        """Let nothing change in a box any more, or, without one, everything again; kept with the case."""
        self.flush(everywhere=True)
        frozen = None
        if box is not None:
            before = self.protection.frozen
            frozen = np.zeros(self.shape, bool) if before is None else np.array(before, bool)
            frozen[box] = True
        self._protect(replace(self.protection, frozen=frozen))

    def _protect(self, wanted: Protection) -> None:
        self.protection = wanted
        self._history.protect(self.protection)
        self.changed.emit()

    # ------------------------------------------------------------------------------------------------------------- draft

    def look_for_draft(self) -> None:
        """See whether a mask of this picture was left from an earlier session; `found` then holds it."""

        def looked(found: Found | None) -> None:
            self.found = found
            if found is not None:
                self._hold(found.labels.dtype)  # what was drawn before this is undone back to it
            self.changed.emit()

        self._history.look(looked)

    def restore(self) -> bool:
        """Take the mask that was found, with its history and its locks; returns whether that could be done.

        After changes that were made before the answer, it is a change like any other; its locks hold from then on.
        """
        found, self.found = self.found, None
        mask = self.mask
        if found is None or mask is None:
            return False
        self.settle()
        run = self.run = found.run
        if run is not None:
            self.set_classes(run.classes)
        if not self._history.go_on(found):
            done = self.replace(found.labels, texts.RESTORED_NAME, by="file")
            if run is not None:
                self.on_case(lambda case: case.read_only or case.keep_run(run, found.uncertainty), failed=self._no)
            self._bridge.aside(lambda: None, then=lambda _: self._hold_to(found.protection))  # once that is made
            return done
        self._hold(found.labels.dtype)
        self._shadow[...] = found.labels
        self._show_all(mask)
        self.protection, self._restored = found.protection, True
        self.changed.emit()
        return True

    def start_anew(self) -> None:
        """Put the mask that was found aside."""
        self.found = None
        self._history.discard()
        self.changed.emit()

    # ----------------------------------------------------------------------------------------------------------- changes

    def replace(
        self,
        labels: np.ndarray,
        name: str,
        *,
        by: By = "model",
        model_key: str = "",
        then: Callable[[], Any] = lambda: None,
    ) -> bool:
        """Put a whole new mask in the place of the present one, as one step of the history, as far as the rules allow.

        Parameters
        ----------
        labels
            Of the mask's shape.
        name
            Of the step, for the undo button.
        by
            A model, or the file it was taken from.
        model_key
            The model that made it, or empty.
        then
            Called once the change is made; never where the rules leave nothing of it.

        Returns
        -------
        bool
            Whether the layer was still there and the shape fits. With locks, or others to keep, what is left of the change
            is worked out beside the window and made soon; so it is while a step of the history is being unpacked.
        """
        mask = self.mask
        if mask is None or labels.shape != self.shape:
            return False
        if self.moving:
            self.when_still(lambda: self.replace(labels, name, by=by, model_key=model_key, then=then))
            return True
        self.settle()
        self._hold(labels.dtype)
        mask.visible = True
        if model_key:
            self.model_key, self.run = model_key, None
        before, rules = self._shadow, self.rules
        whole = tuple(slice(0, n) for n in self.shape)
        if rules.locked or rules.frozen is not None or rules.overlap != "replace":

            def left() -> Verdict:
                return judge(rules, make_edit(name, (), whole, before, labels.astype(before.dtype, copy=False)))

            def again() -> None:
                self.replace(labels, name, by=by, model_key=model_key, then=then)

            def make(verdict: Verdict) -> None:
                self.make(verdict, by=by, again=again, then=then)

            self._bridge.aside(left, then=make, failed=self._no)
            return True
        self._shadow = labels.astype(before.dtype)  # a copy: what came from elsewhere may change or be read-only
        self._show_all(mask)
        self._history.record(Change(name, by), name, whole, before, self._shadow.copy())
        then()
        return True

    def make(
        self,
        verdict: Verdict,
        *,
        by: By,
        again: Callable[[], None] | None = None,
        then: Callable[[], Any] = lambda: None,
    ) -> bool:
        """Make a change that the rules were applied to, as one step of the history.

        Parameters
        ----------
        verdict
            On an edit that was worked out beside the window.
        by
            Who made it.
        again
            Works it out again; called when the mask is no longer what it was.
        then
            Called once the change is made.

        Returns
        -------
        bool
            Whether anything was changed, or will be once a step of the history is unpacked.
        """
        mask = self.mask
        if mask is None:
            return False
        if self.moving:
            self.when_still(lambda: self.make(verdict, by=by, again=again, then=then))
            return True
        self.settle()
        edit = verdict.edit
        if edit is not None:
            try:
                if not still_hold(verdict.rules, self.rules):
                    raise BadEdit(texts.RULES_CHANGED, remedy=texts.WORK_OUT_AGAIN)
                edit.apply(self._shadow)
            except BadEdit as error:
                if again is None:
                    self.failed.emit(error)
                else:
                    again()
                return False
            mask.data[edit.box] = edit.after
            forget_history(mask)
            mask.refresh()
            self._history.record_edit(edit, by)
            then()
            if by in ("hand", "tool"):
                self.edited.emit()
        self._tell(verdict, by)
        return edit is not None

    def take(self, asked: Edit, by: By) -> None:
        """Answer that a change may take voxels from other structures."""
        if self.moving:
            self.when_still(lambda: self.take(asked, by))
            return
        self.settle()
        before = self._shadow[asked.box]
        after = np.where(asked.changed, asked.after, before)
        try:
            edit = make_edit(texts.over_others(asked.name), asked.structures, asked.box, before, after)
        except NothingToChange:
            return
        self.make(replace(judge(replace(self.rules, overlap="replace"), edit), rules=self.rules), by=by)

    def undo(self) -> None:
        """Take back the last change; what is painted meanwhile stays."""
        self._step(-1)

    def redo(self) -> None:
        """Bring back what was undone last."""
        self._step(1)

    def go_to(self, position: int) -> None:
        """Go to a place in the timeline; the journal unpacks the way there aside."""
        if not self.moving:
            self.flush(everywhere=self._shadow.size <= strokes.WHOLE_VOXELS)
        self._history.go_to(position, lambda: (self._shadow, self.rules))

    def draw(self, edit: Edit, name: str) -> None:
        """Show a piece of a stroke in the mask; it goes into the history, under this name, with the next `flush`."""
        mask = self.mask
        if mask is not None:
            changed = edit.changed
            mask.data[edit.box][changed] = edit.after[changed]
            self._strokes.draw(edit.box, name)
            mask.refresh()

    def flush(self, *, everywhere: bool = False) -> None:
        """Take what was painted since the last time into the journal, as far as the rules allow.

        Parameters
        ----------
        everywhere
            Also look where nobody said that something was painted, as other plugins write into layers without telling.
        """
        mask = self.mask
        if mask is None or self.moving:
            return
        box, name = self._strokes.places(self.shape, everywhere=everywhere), self._strokes.name
        self._strokes.seen()
        found = None if box is None else changed_box(self._shadow[box], np.asarray(mask.data[box]))
        if box is not None and found is not None:
            place = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, found, strict=True))
            self._take_stroke(mask, place, name or texts.OTHER_EDIT)

    def close(self) -> None:
        """Give the layer back to napari; the draft on disk stays."""
        mask = self.mask
        self._history.leave()
        if mask is not None:
            self.flush(everywhere=True)
        self._history.close()
        if mask is None:
            return
        self._mask = _nothing
        self._strokes.close()
        del mask.undo, mask.redo
        for keys in KEYS:
            mask.bind_key(keys, None, overwrite=True)
        forget_history(mask)

    # ------------------------------------------------------------------------------------------------------------ inside

    def _take_stroke(self, mask: Any, place: Box, name: str) -> None:
        """Take the difference in a box into the history, and put back what the rules forbid."""
        before, after = self._shadow[place], np.asarray(mask.data[place])
        edit = make_edit(name, about(before, after), place, before, after)
        verdict = judge(self.rules, edit)
        allowed = verdict.edit
        if allowed is not None:
            self._shadow[allowed.box] = allowed.after
        if allowed is None or allowed.voxels != edit.voxels:
            mask.data[place] = self._shadow[place]
            mask.refresh()
        if allowed is not None:
            self._history.record_edit(allowed, "hand")
            self.edited.emit()
        self._tell(verdict, "hand")

    def _step(self, by: int) -> None:
        if not self.moving:
            self.flush(everywhere=self._shadow.size <= strokes.WHOLE_VOXELS)
        self.go_to(self._history.target + by)

    def settle(self) -> None:
        """Bring what was painted into the history, also what nobody told of, before something else is done."""
        self.flush(everywhere=True)

    def _data_replaced(self) -> None:
        """Take a new array, which somebody else put into the layer, as a change like any other."""
        mask = self.mask
        if mask is None:
            return
        if tuple(mask.data.shape) != self.shape:
            self._shadow = np.array(mask.data)
            self.shape = tuple(mask.data.shape)
            self._history.restart(self._shadow.copy())
        else:
            larger = np.promote_types(self._shadow.dtype, mask.data.dtype)  # larger labels may follow
            self._shadow = self._shadow.astype(larger, copy=False)
            self._strokes.soon()

    def _write(self, box: Box, values: np.ndarray) -> None:
        """Put values of the history into the mask, and keep what was painted while they were unpacked."""
        mask = self.mask
        if mask is None:
            return
        painting = self._strokes.pending
        shown = values
        if painting:
            now = np.asarray(mask.data[box])
            shown = np.where(now != self._shadow[box], now, values)
        self._shadow[box] = values
        mask.data[box] = shown
        mask.refresh()
        if painting:
            self._strokes.soon()

    def _hold(self, dtype: np.dtype[Any]) -> None:
        """Let the mask hold larger labels."""
        mask = self.mask
        if mask is not None and dtype.itemsize > self._shadow.dtype.itemsize:
            self.settle()
            self._shadow = self._shadow.astype(dtype)
            mask.data = self._shadow.copy()
            self._strokes.seen()

    def _hold_to(self, found: Protection) -> None:
        """Let the locks of a mask that was found hold beside those there are."""
        if self.mask is not None:
            self._protect(self.protection.joined(found))

    def _show_all(self, mask: Any) -> None:
        mask.data[...] = self._shadow
        forget_history(mask)
        mask.visible = True
        mask.refresh()

    def _colour(self) -> None:
        """Give every structure its colour."""
        mask = self.mask
        if mask is not None:
            mask.colormap = layers.class_colormap(max(len(self.classes), *(n + 1 for n in (0, *self.structures))))

    def _tell(self, verdict: Verdict, by: By) -> None:
        if verdict.asked is not None:
            self.asked.emit(verdict, by)
        elif verdict.refused is not None:
            self.refused.emit(verdict.refused)

    def _no(self, error: Any) -> None:
        """Say why a change was not made: in passing where the rules or the mask leave nothing of it."""
        (self.refused if isinstance(error, BadEdit) else self.failed).emit(error)

    def _counted(self, new: set[int]) -> None:
        if any(label >= len(self.classes) for label in new):
            self._colour()
        self.counted.emit()


def _nothing() -> None:
    """Stand for a layer that was given back."""
