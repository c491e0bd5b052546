"""The mask of one picture: every change, by hand or by a model, can be undone and is kept on disk.

napari's own undo knows nothing of a model's run and would write old values into a new mask. Here a second copy of the mask
says what was there before: after a stroke the two are compared in the touched box, and the difference goes into the journal.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medt.cases import Journal
from napari_medt.widgets import layers, texts
from napari_medt.widgets._compat import forget_history
from napari_medt.widgets.bridge import Bridge
from napari_medt.widgets.drafts import Draft, Found

if TYPE_CHECKING:
    from napari.layers import Labels

Box = tuple[slice, ...]
KEYS = ("Control-Z", "Control-Shift-Z")

WHOLE_VOXELS = 8_000_000
"""Up to this size the whole mask is compared after a stroke, which takes milliseconds; above it only the touched box."""


class MaskEditor(QObject):
    """Watches one mask layer; `replace`, `undo` and `redo` are the ways to change it besides napari's tools.

    Signals
    -------
    changed
        The history, the draft or the classes changed.
    edited
        The user changed the mask by hand.
    failed
        A change could not be kept or brought back; the error.
    """

    changed = Signal()
    edited = Signal()
    failed = Signal(object)

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
        super().__init__()
        self.picture = picture
        self.image_id = image_id
        self.classes = classes
        self.shape = tuple(mask.data.shape)
        self.model_key = ""
        self.found: Found | None = None
        self.kept_words = ""
        self._mask = weakref.ref(mask)
        self._bridge = bridge
        self._plane = plane
        self._shadow = np.array(mask.data)
        self._journal = Journal()
        self._draft = Draft(picture, opener)
        self._told_status = ""
        self._done: list[tuple[str, bool]] = []
        self._undone: list[tuple[str, bool]] = []
        self._touched: list[Box] = []
        self._stroke = ""
        self._moving = False
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self.flush)
        self._take_over(mask)

    # ------------------------------------------------------------------------------------------------------------- state

    @property
    def mask(self) -> Any | None:
        """The layer, or `None` when it is gone."""
        return self._mask()

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever done to this mask, so that it may go without asking."""
        return not self._done and not self._undone and not self.model_key

    @property
    def has_mask(self) -> bool:
        """Whether there is something to learn from or to save."""
        return bool(self._done)

    @property
    def edits(self) -> int:
        """Number of changes by hand that are in the mask now."""
        return sum(by_hand for _, by_hand in self._done)

    @property
    def depth(self) -> int:
        """Number of changes that can be undone."""
        return len(self._done)

    @property
    def undo_name(self) -> str:
        """What `undo` would take back, empty when there is nothing."""
        return self._done[-1][0] if self._done else ""

    @property
    def redo_name(self) -> str:
        """What `redo` would bring back."""
        return self._undone[-1][0] if self._undone else ""

    @property
    def status(self) -> str:
        """How far the review of this mask is: to do, draft, accepted or second look."""
        return self._draft.status

    def on_case(
        self,
        act: Callable[[Any], Any],
        *,
        then: Callable[[Any], Any] | None = None,
        failed: Callable[[Any], Any] | None = None,
    ) -> None:
        """Run `act(case)` on the case's folder, off the window's thread, once all changes so far are kept there."""
        self.flush()

        def acted(result: Any) -> None:
            self._tell_status()
            if then is not None:
                then(result)

        draft = self._draft
        self._bridge.aside(lambda: act(draft.case()), then=acted, failed=failed)

    def edited_mask(self) -> np.ndarray:
        """Return where a person changed the mask; to be called off the window's thread."""
        return self._journal.edited_mask(self.shape).by > 0

    def snapshot(self) -> np.ndarray:
        """Return a copy of the mask as it is now."""
        self.flush(everywhere=True)
        return self._shadow.copy()

    def set_classes(self, classes: tuple[str, ...]) -> None:
        """Name the labels, and give them their colours."""
        mask = self.mask
        if mask is not None and len(classes) != len(self.classes):
            mask.colormap = layers.class_colormap(len(classes))
        if mask is not None:
            mask.features = layers.names_of_classes(classes)["features"]
        if classes != self.classes:
            self.classes = classes
            self.changed.emit()

    # ------------------------------------------------------------------------------------------------------------- draft

    def look_for_draft(self) -> None:
        """See whether a mask of this picture was left from an earlier session; `found` then holds it."""

        def looked(found: Found | None) -> None:
            self.found = found
            self.changed.emit()

        self._bridge.aside(self._draft.look, then=looked, failed=self.failed.emit)

    def restore(self) -> bool:
        """Take the mask that was found, as one step of the history; returns whether that could be done."""
        found, self.found = self.found, None
        if found is None or self.mask is None:
            return False
        # The case goes on where it ended, unless changes were made before the answer.
        goes_on = self._bridge.aside(self._draft.go_on).result()
        return self.replace(found.labels, texts.RESTORED_NAME, kept=not goes_on)

    def start_anew(self) -> None:
        """Put the mask that was found aside."""
        self.found = None
        self._bridge.aside(self._draft.discard, failed=self.failed.emit)
        self.changed.emit()

    # ----------------------------------------------------------------------------------------------------------- changes

    def replace(self, labels: np.ndarray, name: str, *, model_key: str = "", kept: bool = True) -> bool:
        """Put a whole new mask in the place of the present one, as one step of the history.

        Parameters
        ----------
        labels
            Of the mask's shape.
        name
            Of the step, for the undo button.
        model_key
            The model that made it, or empty.
        kept
            Whether the change goes to the draft on disk; false for what the draft has already.

        Returns
        -------
        bool
            Whether the layer was still there and the shape fits.
        """
        mask = self.mask
        if mask is None or labels.shape != self.shape:
            return False
        self.flush(everywhere=True)
        if labels.dtype.itemsize > self._shadow.dtype.itemsize:
            self._shadow = self._shadow.astype(labels.dtype)
            mask.data = self._shadow.copy()
        before = self._shadow
        self._shadow = labels.astype(before.dtype)  # a copy: what came from elsewhere may change or be read-only
        mask.data[...] = self._shadow
        forget_history(mask)
        mask.visible = True
        mask.refresh()
        if model_key:
            self.model_key = model_key
        self._record(
            name, tuple(slice(0, n) for n in self.shape), before, self._shadow.copy(), by_hand=False, kept=kept
        )
        return True

    def undo(self) -> None:
        """Take back the last change; what is painted meanwhile stays."""
        self._move(self._done, self._undone, back=True)

    def redo(self) -> None:
        """Bring back what was undone last."""
        self._move(self._undone, self._done, back=False)

    def flush(self, *, everywhere: bool = False) -> None:
        """Take what was painted since the last time into the journal.

        Parameters
        ----------
        everywhere
            Also look where nobody said that something was painted, as other plugins write into layers without telling.
        """
        self._later.stop()
        mask = self.mask
        if mask is None or self._moving:
            return
        for box in self._search(everywhere):
            found = self._difference(box)
            if found is not None:
                before, after = self._shadow[found].copy(), np.array(mask.data[found])
                self._shadow[found] = after
                self._record(self._stroke or texts.OTHER_EDIT, found, before, after, by_hand=True)
                self.edited.emit()
        self._touched.clear()
        self._stroke = ""

    def close(self) -> None:
        """Give the layer back to napari; the draft on disk stays."""
        mask = self.mask
        if mask is not None:
            self._moving = False  # a step back that is still being unpacked is not taken any more
            self.flush(everywhere=True)
        self._later.stop()
        self._bridge.aside(self._draft.close, failed=self.failed.emit)
        if mask is None:
            return
        self._mask = _nothing
        mask.events.paint.disconnect(self._painted)
        mask.events.labels_update.disconnect(self._updated)
        mask.events.data.disconnect(self._data_replaced)
        del mask.undo, mask.redo
        for keys in KEYS:
            mask.bind_key(keys, None, overwrite=True)
        forget_history(mask)

    # ----------------------------------------------------------------------------------------------------------- inside

    def _take_over(self, mask: Labels) -> None:
        """Listen to the brush, and take the place of napari's undo on this one layer."""
        mask.events.paint.connect(self._painted)
        mask.events.labels_update.connect(self._updated)
        mask.events.data.connect(self._data_replaced)
        # The keys are bound on the layer, and its methods replaced, so that no way is left to napari's own history.
        mask.undo, mask.redo = self.undo, self.redo
        mask.features = layers.names_of_classes(self.classes)["features"]
        for keys, act in zip(KEYS, (self.undo, self.redo), strict=True):
            mask.bind_key(keys, lambda _, act=act: act(), overwrite=True)

    def _updated(self, event: Any) -> None:
        """Remember the box that napari redrew."""
        if len(self.shape) == 2:
            offset, shape = event.offset, event.data.shape
            self._touched.append(tuple(slice(int(o), int(o) + n) for o, n in zip(offset, shape[:2], strict=True)))

    def _painted(self, event: Any) -> None:
        """Look at the stroke soon: napari announces some edits before it has written them."""
        mask = self.mask
        if mask is not None:
            self._stroke = texts.STROKE_NAMES.get(str(mask.mode), texts.OTHER_EDIT)
        self._later.start(0)

    def _data_replaced(self, event: Any = None) -> None:
        """Take a new array, which somebody else put into the layer, as a change like any other."""
        mask = self.mask
        if mask is None or self._moving:
            return
        if tuple(mask.data.shape) != self.shape:
            self._shadow = np.array(mask.data)
            self.shape = tuple(mask.data.shape)
            self._journal = Journal()
            self._done, self._undone = [], []
            self.changed.emit()
        else:
            self._shadow = self._shadow.astype(mask.data.dtype, copy=False)  # larger labels may follow
            self._touched = [tuple(slice(0, n) for n in self.shape)]
            self._later.start(0)

    def _search(self, everywhere: bool) -> list[Box]:
        """Boxes in which something may have changed."""
        whole = tuple(slice(0, n) for n in self.shape)
        if everywhere or self._shadow.size <= WHOLE_VOXELS:
            return [whole]
        if self._touched:
            low = [min(box[axis].start for box in self._touched) for axis in range(len(self.shape))]
            high = [max(box[axis].stop for box in self._touched) for axis in range(len(self.shape))]
            return [tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        if not self._stroke:
            return []
        mask = self.mask
        everywhere = mask is not None and mask.n_edit_dimensions > 2  # a ball, not a disc on the slice that is shown
        return [(None if everywhere else self._plane()) or whole]

    def _difference(self, box: Box) -> Box | None:
        """Return the smallest box inside `box` that holds all changes, or `None` without any; compared in bands of rows."""
        mask = self.mask
        if mask is None:
            return None
        rows = box[0]
        width = max(1, int(np.prod([s.stop - s.start for s in box[1:]])))
        step = max(1, 2_000_000 // width)
        low: list[int] | None = None
        high: list[int] = []
        for start in range(rows.start, rows.stop, step):
            band = (slice(start, min(start + step, rows.stop)), *box[1:])
            differs = np.asarray(mask.data[band]) != self._shadow[band]
            if not differs.any():
                continue
            for axis in range(differs.ndim):
                seen = np.flatnonzero(differs.any(axis=tuple(a for a in range(differs.ndim) if a != axis)))
                first, last = int(seen[0]) + band[axis].start, int(seen[-1]) + band[axis].start + 1
                if low is None or len(low) <= axis:
                    low = [*(low or []), first]
                    high = [*high, last]
                else:
                    low[axis], high[axis] = min(low[axis], first), max(high[axis], last)
        return None if low is None else tuple(slice(a, b) for a, b in zip(low, high, strict=True))

    def _record(
        self, name: str, box: Box, before: np.ndarray, after: np.ndarray, *, by_hand: bool, kept: bool = True
    ) -> None:
        """Take a change into the journal and onto the disk; the work of it is done aside."""
        self._done.append((name, by_hand))
        self._undone.clear()
        journal, draft = self._journal, self._draft if kept else None

        def keep() -> str:
            entry = journal.record_box(name, box, before, after, by="hand" if by_hand else "model")
            return "" if draft is None else draft.record(entry)

        self._bridge.aside(keep, then=self._kept, failed=self.failed.emit)
        self.changed.emit()

    def _move(self, source: list[tuple[str, bool]], target: list[tuple[str, bool]], *, back: bool) -> None:
        """Take one step through the history; the journal unpacks it aside."""
        self.flush(everywhere=self._shadow.size <= WHOLE_VOXELS)
        if not source or self._moving:
            return
        self._moving = True
        journal = self._journal

        def step() -> Any:
            entry = journal.undo() if back else journal.redo()
            return None if entry is None else (entry, entry.after())

        def moved(change: Any) -> None:
            self._moving = False
            if self.mask is None or journal is not self._journal or not source:
                return
            if change is None:  # the oldest changes were forgotten to save memory
                source.clear()
            else:
                entry, values = change
                target.append(source.pop())
                self._write(entry.slices, values)
                self._bridge.aside(lambda: self._draft.record(entry), then=self._kept, failed=self.failed.emit)
            self.changed.emit()

        def failed(error: Any) -> None:
            self._moving = False
            self.failed.emit(error)

        self._bridge.aside(step, then=moved, failed=failed)

    def _write(self, box: Box, values: np.ndarray) -> None:
        """Put values of the history into the mask, and keep what was painted while they were unpacked."""
        mask = self.mask
        if mask is None:
            return
        painted = self._difference(tuple(slice(0, n) for n in self.shape)) if self._touched else None
        kept = (self._shadow[painted] != mask.data[painted], np.array(mask.data[painted])) if painted else None
        self._shadow[box] = values
        mask.data[box] = values
        if painted is not None and kept is not None:
            mask.data[painted][kept[0]] = kept[1][kept[0]]
        mask.refresh()
        if painted is not None:
            self._later.start(0)
        else:
            self._touched.clear()

    def _kept(self, words: str) -> None:
        if words and words != self.kept_words:
            self.kept_words = words
            self.changed.emit()
        self._tell_status()

    def _tell_status(self) -> None:
        if self.status != self._told_status:
            self._told_status = self.status
            self.changed.emit()


def _nothing() -> None:
    """Stand for a layer that was given back."""
