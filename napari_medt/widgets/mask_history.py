"""The history of one mask for the window: what can be undone, how large each structure is, and what lies on disk.

The journal, the counting and the case folder are only touched on the bridge's thread, in the order of the changes; what comes
of it arrives here. The window never waits for it: what cannot go on before a step was unpacked is done when it was.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medt.cases import Protection
from napari_medt.cases.entry import By
from napari_medt.core import BadEdit
from napari_medt.editing import Edit, Rules
from napari_medt.widgets import texts
from napari_medt.widgets.bridge import Bridge
from napari_medt.widgets.counts import Counts
from napari_medt.widgets.drafts import Draft, Found
from napari_medt.widgets.guard import Box, Moved, move
from napari_medt.widgets.timeline import Change, Timeline


class MaskHistory(QObject):
    """Records changes, and goes back and forth through them.

    Parameters
    ----------
    draft
        The mask on disk.
    bridge
        Brings the work to another thread, which nothing but changes of masks keeps busy.
    write
        Puts values into the mask at a box, on the window's thread.
    name_of
        Names a structure.

    Signals
    -------
    changed
        The timeline, or what is said of the draft, changed.
    counted
        `voxels` has other numbers now; the labels that were not there before.
    refused
        The rules do not allow a step; the error.
    failed
        A change could not be kept or brought back; the error.
    caught_up
        All changes are kept, after some could not be.
    """

    changed = Signal()
    counted = Signal(object)
    refused = Signal(object)
    failed = Signal(object)
    caught_up = Signal()

    def __init__(
        self,
        draft: Draft,
        bridge: Bridge,
        *,
        write: Callable[[Box, np.ndarray], None],
        name_of: Callable[[int], str],
    ) -> None:
        super().__init__()
        self.timeline = Timeline()
        self.voxels: dict[int, int] = {}
        self.kept_words = ""
        self._told_status = ""
        self._behind = False
        self._draft = draft
        self._bridge = bridge
        self._write = write
        self._name_of = name_of
        self._counts = Counts()
        self._moving: Future[Any] | None = None
        self._target = 0
        self._waiting: list[Callable[[], Any]] = []
        self._found: Found | None = None

    # ------------------------------------------------------------------------------------------------------------- draft

    def look(self, then: Callable[[Found | None], None]) -> None:
        """See whether a mask of this picture was left from an earlier session."""

        def looked(found: Found | None) -> None:
            self._found = found
            if self.timeline.changes:  # made while it was being looked for
                self._put_aside()
            then(found)

        self._bridge.aside(self._draft.look, then=looked, failed=self.failed.emit)

    def _put_aside(self) -> None:
        """List the history of a mask that was found before the changes that were made without an answer, as `Draft` keeps it."""
        found, self._found = self._found, None
        if found is not None:
            before = [*found.timeline.changes[: found.timeline.position], Change(texts.PUT_ASIDE_NAME, "file")]
            self.timeline.changes[:0] = before
            self.timeline.position += len(before)
            self._target += len(before)

    def go_on(self, found: Found) -> bool:
        """Continue the history of a mask that was found; False after changes that were made before the answer."""
        if self.timeline.changes:
            return False
        self._found = None
        self._bridge.aside(self._draft.go_on, failed=self.failed.emit)
        self.timeline = found.timeline
        self._bridge.aside(lambda: self._counts.start(found.labels), then=self._counted)
        return True

    def discard(self) -> None:
        """Put a mask that was found aside."""
        self._found = None
        self._bridge.aside(self._draft.discard, failed=self.failed.emit)

    def protect(self, kept: Protection) -> None:
        """Keep locks and frozen regions with the case."""
        self._bridge.aside(lambda: self._draft.protect(kept), failed=self.failed.emit)

    @property
    def status(self) -> str:
        """How far the review of the mask is: to do, draft, accepted or second look."""
        return self._draft.status

    def on_case(
        self,
        act: Callable[[Any], Any],
        *,
        then: Callable[[Any], Any] | None,
        failed: Callable[[Any], Any] | None,
    ) -> None:
        """Run `act(case)` on the case's folder, after everything that was recorded."""

        def acted(result: Any) -> None:
            self._tell_status()
            if then is not None:
                then(result)

        draft = self._draft
        self._bridge.aside(lambda: act(draft.case()), then=acted, failed=failed)

    def edited_mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return where a person changed the mask; to be called on the bridge's thread for file work."""
        return self._draft.journal.edited_mask(shape).by > 0

    def restart(self, labels: np.ndarray) -> None:
        """Begin anew, as a mask of another shape was put in the place of this one."""
        self.timeline, self._moving, self._found = Timeline(), None, None
        self._go_ahead()
        self._bridge.aside(self._draft.forget)
        self._bridge.aside(lambda: self._counts.start(labels), then=self._counted)
        self.changed.emit()

    def close(self) -> None:
        """Let go of the case folder, after everything that was recorded."""
        self._bridge.aside(self._draft.close, failed=self.failed.emit)

    # ----------------------------------------------------------------------------------------------------------- changes

    def record_edit(self, edit: Edit, by: By) -> None:
        """Take a change that was made into the history."""
        names = {label: self._name_of(label) for label in edit.structures}
        structure = edit.structure(names) if names else ""
        value = edit.structures[0] if len(names) == 1 else None
        title = f"{edit.name}, {structure}" if structure else edit.name
        about = {"structure": structure, "value": value}
        self.record(Change(title, by), edit.name, edit.box, edit.before, edit.after, **about)

    def record(self, change: Change, name: str, box: Box, before: np.ndarray, after: np.ndarray, **about: Any) -> None:
        """Take the values before and after a change into the journal and onto the disk, and count them."""
        self._put_aside()
        self.timeline.add(change)
        draft, counts = self._draft, self._counts

        def keep() -> str:
            return draft.record(draft.journal.record_box(name, box, before, after, by=change.by, **about))

        self._bridge.aside(lambda: counts.change(before, after), then=self._counted)
        self._bridge.aside(keep, then=self._kept, failed=self._not_kept)
        self.changed.emit()

    # ------------------------------------------------------------------------------------------------------ back and forth

    @property
    def moving(self) -> bool:
        """Whether the way to another place in the history is being unpacked."""
        return self._moving is not None

    @property
    def target(self) -> int:
        """Where the way leads, or where the mask is."""
        return self._target if self.moving else self.timeline.position

    def go_to(self, position: int, now: Callable[[], tuple[np.ndarray, Rules]]) -> None:
        """Go to a place in the timeline; places that are wished on the way follow it. `now()` gives the mask and its rules."""
        self._target = min(max(position, 0), len(self.timeline.changes))
        if self._moving is None and self._target != self.timeline.position:
            self._begin(now)

    def when_still(self, act: Callable[[], Any]) -> None:
        """Do something once no step is being unpacked: now, or when the last that is wished has arrived."""
        if self.moving:
            self._waiting.append(act)
        else:
            act()

    def leave(self) -> None:
        """Forget what waits for a step; the one that is being unpacked is waited for, so that mask and disk agree."""
        self._waiting.clear()
        moving, self._moving = self._moving, None
        if moving is not None and moving.exception() is None:
            self._arrive(moving.result())

    def _go_ahead(self) -> None:
        while self._waiting and not self.moving:
            self._waiting.pop(0)()

    def _begin(self, now: Callable[[], tuple[np.ndarray, Rules]]) -> None:
        labels, rules = now()
        by, draft, name_of = self._target - self.timeline.position, self._draft, self._name_of
        mine: list[Future[Any]] = []

        def arrived(moved: Moved | None) -> None:
            if self._moving is not mine[0]:
                return  # it is no longer wanted
            self._moving = None
            self._arrive(moved)
            self.changed.emit()
            if moved is not None:
                self.go_to(self._target, now)
            self._go_ahead()

        def failed(error: Any) -> None:
            if self._moving is mine[0]:
                self._moving = None
            (self.refused if isinstance(error, BadEdit) else self.failed).emit(error)
            self.changed.emit()
            self._go_ahead()

        def keep() -> str:
            job = mine[0]  # ended before this began, on the same thread
            moved: Moved | None = None if job.exception() else job.result()
            return "" if moved is None else draft.record(*moved.steps)

        mine.append(
            self._bridge.aside(lambda: move(draft.journal, by, labels, rules, name_of), then=arrived, failed=failed)
        )
        self._moving = mine[0]
        self._bridge.aside(keep, then=self._kept, failed=self._not_kept)

    def _arrive(self, moved: Moved | None) -> None:
        if moved is None:  # the oldest changes were forgotten to save memory
            self.timeline.moved(0, len(self.timeline.changes) - self.timeline.position)
            return
        self.timeline.moved(moved.position, moved.length)
        self._write(moved.box, moved.after)
        counts = self._counts
        self._bridge.aside(lambda: counts.change(moved.before, moved.after), then=self._counted)

    # ------------------------------------------------------------------------------------------------------------ inside

    def _counted(self, voxels: dict[int, int]) -> None:
        new = set(voxels) - set(self.voxels)
        self.voxels = voxels
        self.counted.emit(new)

    def _not_kept(self, error: Any) -> None:
        self._behind = True
        self.failed.emit(error)

    def _kept(self, words: str) -> None:
        if words and self._behind:
            self._behind = False
            self.caught_up.emit()
        if words and words != self.kept_words:
            self.kept_words = words
            self.changed.emit()
        self._tell_status()

    def _tell_status(self) -> None:
        if self.status != self._told_status:
            self._told_status = self.status
            self.changed.emit()
