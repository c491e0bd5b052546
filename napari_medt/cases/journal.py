"""Undo and redo of everything that changes a mask, within a budget of memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from napari_medt.cases.edited import Corrections, EditedMask
from napari_medt.cases.entry import Box, By, Entry, changed_box, check_fits, make_entry
from napari_medt.core import BadCase, StorageError
from napari_medt.core.volume import Array
from napari_medt.io.atomic import storage_error

BUDGET_BYTES = 256 * 2**20


@dataclass(frozen=True)
class _Kept:
    """An entry in memory, or the place in the spill file where its values lie."""

    entry: Entry
    offset: int | None = None
    lengths: tuple[int, int] = (0, 0)


class Journal:
    """The history of one mask.

    All methods may be called from any thread.

    Parameters
    ----------
    budget_bytes
        How much memory the compressed changes may take.
    spill
        A file for the oldest changes beyond that, which can then still be undone; without one they are forgotten.
        The file is the journal's own: it is emptied at the start and removed by `close`.

    Examples
    --------
    >>> import numpy as np
    >>> labels, journal = np.zeros((4, 4), np.uint8), Journal()
    >>> before = labels.copy()
    >>> labels[1, 2] = 1
    >>> journal.record("brush", before, labels).box
    ((1, 2), (2, 3))
    >>> journal.undo_name
    'brush'
    >>> journal.undo(labels).kind, int(labels.sum())
    ('undo', 0)
    """

    def __init__(self, *, budget_bytes: int = BUDGET_BYTES, spill: Path | None = None) -> None:
        self._budget = budget_bytes
        self._spill = spill
        self._spill_end = 0
        self._done: list[_Kept] = []
        self._undone: list[_Kept] = []
        self._in_memory = 0
        self._lost = 0
        self._older = Corrections()
        self._lock = threading.RLock()
        if spill is not None:
            with contextlib.suppress(OSError):  # a spill that cannot be used is found out, and told, when needed
                spill.unlink(missing_ok=True)

    @classmethod
    def of(
        cls,
        done: Iterable[Entry],
        undone: Iterable[Entry],
        *,
        older: Corrections,
        budget_bytes: int = BUDGET_BYTES,
        spill: Path | None = None,
    ) -> Journal:
        """Return the history of an earlier session.

        Parameters
        ----------
        done, undone
            Changes that can be undone, oldest first, and brought back, the last undone first.
        older
            Corrections that stand in the mask but can no longer be undone.
        budget_bytes, spill
            As for a new one.
        """
        made = cls(budget_bytes=budget_bytes, spill=spill)
        made._older = older
        for entry in done:
            made._keep(entry)
        made._undone = [_Kept(entry) for entry in reversed(tuple(undone))]
        made._in_memory += sum(kept.entry.nbytes for kept in made._undone)
        return made

    # ------------------------------------------------------------------------------------------------------------- state

    @property
    def timeline(self) -> tuple[Entry, ...]:
        """All changes in the order in which they were made, for a list: the first `position` of them are in the mask."""
        with self._lock:
            return tuple(kept.entry for kept in (*self._done, *reversed(self._undone)))

    @property
    def position(self) -> int:
        """How many of the `timeline` are in the mask."""
        return len(self._done)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The changes that can be undone, oldest first; those spilled to disk without their values."""
        with self._lock:
            return tuple(kept.entry for kept in self._done)

    @property
    def undo_name(self) -> str:
        """Title of the change that `undo` would take back; empty without one."""
        with self._lock:
            return self._done[-1].entry.title if self._done else ""

    @property
    def redo_name(self) -> str:
        """Title of the change that `redo` would bring back; empty without one."""
        with self._lock:
            return self._undone[-1].entry.title if self._undone else ""

    @property
    def lost(self) -> int:
        """How many of the oldest changes can no longer be undone because the budget was used up."""
        return self._lost

    @property
    def nbytes(self) -> int:
        """Memory taken by the changes, about."""
        return self._in_memory

    # ----------------------------------------------------------------------------------------------------------- changes

    def record(
        self,
        name: str,
        before: Array,
        after: Array,
        *,
        structure: str = "",
        value: int | None = None,
        by: By = "hand",
    ) -> Entry | None:
        """Take note of a change, finding the box it lies in.

        Parameters
        ----------
        name
            Of the operation, as the user shall read it after "Undo: ".
        before, after
            The whole mask, `(y, x)` or `(z, y, x)`, of one shape and dtype; copied.
        structure, value
            Name of the structure it was about, and its value in the mask.
        by
            Who changed it: the user's `"hand"`, a `"tool"`, a `"model"`, or a `"file"` it was taken from.

        Returns
        -------
        Entry or None
            None when nothing changed; then the history is as it was.

        Raises
        ------
        BadCase
            If shapes or dtypes differ or the values are no whole numbers.
        """
        if before.shape != after.shape:
            raise BadCase(f"A mask of shape {before.shape} cannot become one of shape {after.shape} in one change")
        if before.dtype != after.dtype:
            raise BadCase(f"A mask of type {before.dtype} cannot become one of type {after.dtype} in one change")
        box = changed_box(before, after)
        if box is None:
            return None
        return self.record_box(name, box, before[box], after[box], structure=structure, value=value, by=by)

    def record_box(
        self,
        name: str,
        box: Box,
        before_box: Array,
        after_box: Array,
        *,
        structure: str = "",
        value: int | None = None,
        by: By = "hand",
    ) -> Entry:
        """Take note of a change whose box is known.

        Parameters
        ----------
        name
            Of the operation.
        box
            Slices with start and stop along every axis of the mask.
        before_box, after_box
            The values in the box; copied.
        structure, value
            Name of the structure it was about, and its value in the mask.
        by
            Who changed it: the user's `"hand"`, a `"tool"`, a `"model"`, or a `"file"` it was taken from.

        Raises
        ------
        BadCase
            If shapes or dtypes do not fit.
        """
        entry = make_entry(name, box, before_box, after_box, structure=structure, value=value, by=by)
        with self._lock:
            self._drop_undone()
            self._keep(entry)
        return entry

    def undo(self, labels: Array | None = None) -> Entry | None:
        """Take back the last change.

        Parameters
        ----------
        labels
            The mask, written in place. Without it nothing is written, and the caller puts the entry's `after()` at
            its `slices`.

        Returns
        -------
        Entry or None
            What was done, of kind `"undo"`: its `box` is what a viewer must redraw, its `after()` what is there now.
            None when there is nothing to undo.

        Raises
        ------
        BadCase
            If the mask is not of the form the change was recorded on; nothing is written then.
        StorageError
            If the change lies on disk and cannot be read; the history stays as it was.
        """
        return self._step(self._done, self._undone, labels, back=True)

    def redo(self, labels: Array | None = None) -> Entry | None:
        """Bring back the change undone last; parameters, result and errors as for `undo`, of kind `"redo"`."""
        return self._step(self._undone, self._done, labels, back=False)

    def jump(self, position: int, labels: Array | None = None) -> tuple[Entry, ...]:
        """Go to any place of the `timeline`, by as many steps of undo or redo as it takes.

        Parameters
        ----------
        position
            How many changes shall be in the mask then; 0 takes back all.
        labels
            As for `undo`.

        Returns
        -------
        tuple of Entry
            The steps in their order, each as `undo` or `redo` returns it; empty where the mask is there already.

        Raises
        ------
        BadCase, StorageError
            As for `undo`; nothing is written then and the history stays as it was.
        """
        with self._lock:
            here, last = len(self._done), len(self._done) + len(self._undone)
            if not 0 <= position <= last:
                raise BadCase(f"The history has no place {position}, only 0 to {last}")
            back = position < here
            source, target = (self._done, self._undone) if back else (self._undone, self._done)
            chosen = source[: -abs(position - here) - 1 : -1]
            steps = [self._whole(kept).step(back=back) for kept in chosen]
            if labels is not None:
                for step in steps:
                    check_fits(step, labels.shape, labels.dtype)
                for step in steps:
                    labels[step.slices] = step.after()
            if steps:
                target += chosen
                del source[-len(steps) :]
            return tuple(steps)

    def edited_mask(self, shape: tuple[int, ...]) -> EditedMask:
        """Return which voxels are corrected now, by hand or by a tool, and what stood there before; undone changes do not count.

        Parameters
        ----------
        shape
            Of the mask.

        Raises
        ------
        BadCase
            If the changes are of a mask of another shape.
        StorageError
            If changes lie on disk and cannot be read.
        """
        with self._lock:
            made = self._older.copy()
            for kept in self._done:
                made.add(self._whole(kept))
        return made.mask(shape)

    def clear(self) -> None:
        """Forget the history; the mask stays."""
        with self._lock:
            self._drop_undone()
            self._undone, self._done = self._done, []
            self._drop_undone()
            self._older = Corrections()

    def close(self) -> None:
        """Forget the history and remove the spill file."""
        with self._lock:
            self.clear()
            if self._spill is not None:
                with contextlib.suppress(OSError):
                    self._spill.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------------ inside

    def _step(self, source: list[_Kept], target: list[_Kept], labels: Array | None, *, back: bool) -> Entry | None:
        with self._lock:
            if not source:
                return None
            done = self._whole(source[-1]).step(back=back)
            if labels is not None:
                done.apply(labels)
            target.append(source.pop())
            return done

    def _keep(self, entry: Entry) -> None:
        self._done.append(_Kept(entry))
        self._in_memory += entry.nbytes
        self._keep_budget()

    def _drop_undone(self) -> None:
        """Forget what was undone: a new change has taken its place."""
        for kept in self._undone:
            if kept.offset is None:
                self._in_memory -= kept.entry.nbytes
            else:  # the newest entries lie at the end of the file
                self._spill_end = min(self._spill_end, kept.offset)
        self._undone.clear()

    def _keep_budget(self) -> None:
        """Move the oldest changes out of memory; the newest always stays."""
        position = 0
        while self._in_memory > self._budget and position < len(self._done) - 1:
            kept = self._done[position]
            if kept.offset is not None:
                position += 1
                continue
            self._in_memory -= kept.entry.nbytes
            spilled = self._to_disk(kept.entry)
            if spilled is not None:
                self._done[position] = spilled
                position += 1
            else:  # what is older cannot be undone without it either
                for old in self._done[: position + 1]:
                    with contextlib.suppress(StorageError):
                        self._older.add(self._whole(old))
                del self._done[: position + 1]
                self._lost += position + 1
                position = 0

    def _to_disk(self, entry: Entry) -> _Kept | None:
        if self._spill is None:
            return None
        try:
            with self._spill.open("r+b" if self._spill.exists() else "w+b") as file:
                file.seek(self._spill_end)
                file.write(entry.packed_before)
                file.write(entry.packed_after)
        except OSError:  # a full disk takes the oldest undo, nothing else; `lost` tells it
            return None
        lengths = (len(entry.packed_before), len(entry.packed_after))
        spilled = _Kept(entry.without_values(), self._spill_end, lengths)
        self._spill_end += sum(lengths)
        return spilled

    def _whole(self, kept: _Kept) -> Entry:
        if kept.offset is None or self._spill is None:
            return kept.entry
        try:
            with self._spill.open("rb") as file:
                file.seek(kept.offset)
                before, after = file.read(kept.lengths[0]), file.read(kept.lengths[1])
        except OSError as error:
            raise storage_error(error, self._spill, doing="read") from error
        if (len(before), len(after)) != kept.lengths:
            raise StorageError(f"{self._spill} is shorter than it was, so older changes cannot be undone")
        return replace(kept.entry, packed_before=before, packed_after=after)
