"""A mask on disk: each change as it is made, the whole from time to time, and what can be undone after a restart."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path

import numpy as np

from napari_medt.cases import last_run, recovery
from napari_medt.cases.edited import Corrections
from napari_medt.cases.entry import Entry, changed_box, make_entry
from napari_medt.cases.framed_log import FramedLog, Place, frame
from napari_medt.cases.history import History
from napari_medt.cases.snapshot import write_snapshot
from napari_medt.core import BadCase, Geometry
from napari_medt.core.volume import Array
from napari_medt.io.atomic import storage_error, sync_folder

DISCARDED = "discarded.tif"


class Draft:
    """The mask of one case folder, for its only writer; `CaseFolder` sees to it that there is but one, in one thread at a time.

    Parameters
    ----------
    path
        The folder.
    shape, geometry
        Of the mask.
    snapshot_every
        Changes between two writes of the whole mask.
    budget_bytes
        What the journal may take on disk; beyond it the oldest changes can no longer be undone after a restart.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], geometry: Geometry, *, snapshot_every: int, budget_bytes: int
    ) -> None:
        self.path = path
        self.labels: Array | None = None
        self.sequence = 0
        self.begun = False
        self._shape = shape
        self._geometry = geometry
        self._every = snapshot_every
        self._budget = budget_bytes
        self._history = History()
        self._places: dict[int, Place] = {}
        self._log: FramedLog | None = None
        self._start: tuple[Array | None, int] = (None, 0)
        self._pending: list[tuple[int, bytes]] = []
        self._unsaved = 0

    @property
    def pending(self) -> int:
        """Number of changes the disk has refused so far."""
        return len(self._pending)

    def read(self) -> recovery.OnDisk:
        """Return what lies on disk."""
        return recovery.read_case(self.path, self._shape)

    def record(self, entries: tuple[Entry, ...]) -> None:
        """Keep changes; parameters and errors as for `CaseFolder.record`."""
        self._begin()
        for entry in entries:
            labels = self.labels if self.labels is not None else np.zeros(self._shape, np.dtype(entry.dtype))
            self.labels = recovery.applied(entry, labels)
            self.sequence += 1
            self._unsaved += 1
            known = self._history.knows(entry)
            record = (entry.without_values() if known else entry).to_bytes(self.sequence)
            self._history.follow(self.sequence, entry.without_values())
            self._pending.append((self.sequence, frame(record)))
        self._write_pending()
        if self._unsaved >= self._every or (self._log is not None and self._log.end > self._budget):
            self._snapshot()

    def save(self, labels: Array | None) -> Path:
        """Write the whole mask; parameters and errors as for `CaseFolder.save`."""
        if labels is not None and (labels.shape != self._shape or labels.dtype.kind not in "bui"):
            raise BadCase(
                f"A mask of shape {labels.shape} and type {labels.dtype} does not belong to an image of shape "
                f"{self._shape}",
                remedy="choose the mask of this image",
            )
        self._begin()
        if labels is not None:
            self._record_difference(labels)
        if self.labels is not None:
            self._snapshot()
        return self.path / recovery.MASK

    def go_on(self, found: recovery.OnDisk, *, writing: bool) -> None:
        """Let changes follow what was found on disk."""
        if writing and found.keep_journal:
            recovery.keep_aside(self.path)
        self.labels = None if found.labels is None else found.labels.copy()
        self.sequence = found.sequence
        self._unsaved = found.unsaved
        self._history, self._places = found.history.bare(), dict(found.places)
        # Behind damage nothing may be appended, as it would never be found: begin again from the mask as it was found.
        self._log = None if found.log_end is None else FramedLog(self.path / recovery.JOURNAL, end=found.log_end)
        if self._log is None and self.labels is not None:
            self._start = (self.labels.copy(), found.sequence)
        else:
            self._start = (None, found.sequence)
        self.begun = True

    def discard(self) -> None:
        """Start anew from a blank mask; errors as for `CaseFolder.discard`."""
        found = self.read()
        labels = self.labels if self.begun else found.labels
        if labels is not None and labels.any():
            write_snapshot(self._free_name(), labels, sequence=found.sequence, geometry=self._geometry)
        if found.keep_journal:
            recovery.keep_aside(self.path)
        # First no change that could be put upon a blank mask, then no mask.
        self._start_log(0, History(), blank=True)
        try:
            (self.path / recovery.MASK).unlink(missing_ok=True)
            (self.path / last_run.NAME).unlink(missing_ok=True)
            sync_folder(self.path)
        except OSError as error:
            raise storage_error(error, self.path / recovery.MASK, doing="removed") from error
        self._history = History()
        self.labels, self.sequence, self._unsaved, self.begun = None, 0, 0, True
        self._pending.clear()

    def close(self) -> None:
        """Save what is not in the mask's file yet."""
        try:
            if self._unsaved and self.begun and self.labels is not None:
                self._snapshot()
        finally:
            if self._log is not None:
                self._log.close()

    # ------------------------------------------------------------------------------------------------------------ inside

    def _begin(self) -> None:
        """Decide what the first change of this session builds on."""
        if self.begun:
            return
        found = self.read()
        if found.labels is not None:
            self.discard()
        else:
            self.go_on(found, writing=True)

    def _record_difference(self, labels: Array) -> None:
        """Take a mask that was made elsewhere as one change."""
        if self.labels is None:
            self.labels = np.zeros(self._shape, labels.dtype)
        common = np.promote_types(self.labels.dtype, labels.dtype)
        before, after = self.labels.astype(common, copy=False), labels.astype(common, copy=False)
        box = changed_box(before, after)
        if box is not None:
            self.record((make_entry("saved mask", box, before[box], after[box], by="tool"),))

    def _write_pending(self) -> None:
        if self._log is None:
            labels, base = self._start
            if labels is not None:
                write_snapshot(self.path / recovery.MASK, labels, sequence=base, geometry=self._geometry)
            self._start_log(base, History(), blank=labels is None)
            self._start = (None, 0)
        if self._pending:
            self._append([frame_ for _, frame_ in self._pending], [number for number, _ in self._pending])
            self._pending.clear()

    def _append(self, frames: list[bytes], numbers: list[int]) -> None:
        assert self._log is not None
        at = self._log.end
        self._log.append(b"".join(frames))
        for number, framed in zip(numbers, frames, strict=True):
            self._places[number] = (at, at + len(framed))
            at += len(framed)

    def _snapshot(self) -> None:
        """Write the mask; a crash right after it leaves changes in the journal that the mask contains already."""
        assert self.labels is not None
        self._write_pending()
        write_snapshot(self.path / recovery.MASK, self.labels, sequence=self.sequence, geometry=self._geometry)
        self._unsaved = 0
        assert self._log is not None
        if self._log.end > self._budget:
            self._shorten()
        else:
            self._log.append(frame(recovery.saved(self.sequence)))

    def _shorten(self) -> None:
        """Forget the oldest changes, but not what they corrected."""
        assert self._log is not None
        sizes = [(number, stop - start) for number, (start, stop) in self._places.items()]
        history, forgotten = self._history.newest(sizes, self._budget // 2)
        older = Corrections.from_bytes(history.older)
        for change in forgotten:
            older.add(Entry.from_bytes(self._log.read(self._places[change.number]))[1])
        history.older = older.to_bytes()
        self._start_log(self.sequence, history, blank=False)
        self._history = history

    def _start_log(self, base: int, history: History, *, blank: bool) -> None:
        """Begin a journal with the changes of a history that lie in the old one."""
        if self._log is not None:
            self._log.close()
        kept = [*history.done, *reversed(history.undone)]
        places = [self._places[change.number] for change in kept]
        head = recovery.header(base, blank=blank, undone=len(history.undone), older=history.older)
        self._log = FramedLog.start(self.path / recovery.JOURNAL, head, keep=places)
        at = self._log.end - sum(stop - start for start, stop in places)
        self._places.clear()
        for change, (start, stop) in zip(kept, places, strict=True):
            self._places[change.number] = (at, at + stop - start)
            at += stop - start

    def _free_name(self) -> Path:
        """Where a discarded mask goes; no earlier one is ever replaced."""
        first = self.path / DISCARDED
        later = (first.with_stem(f"{first.stem}-{number}") for number in count(2))
        return next(path for path in chain([first], later) if not path.exists())
