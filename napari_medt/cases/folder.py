"""The folder that keeps the review of one image: safe after every stroke, whatever happens to the program."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from napari_medt.cases import recovery
from napari_medt.cases.entry import Entry
from napari_medt.cases.framed_log import FramedLog, frame
from napari_medt.cases.identity import CaseCard, Status, cases_folder, describe, image_digest, load_card, store_card
from napari_medt.cases.journal import BUDGET_BYTES, Journal
from napari_medt.cases.lock import CaseLock
from napari_medt.cases.snapshot import write_snapshot
from napari_medt.core import BadCase, Geometry, StorageError, Volume
from napari_medt.core.volume import Array
from napari_medt.io.atomic import storage_error, sync_folder

DISCARDED = "discarded.tif"
_HISTORY = "history.bin"
_LOCK = "lock"


@dataclass(frozen=True, eq=False)
class Recovered:
    """A mask as it was after the last finished change.

    Attributes
    ----------
    labels
        `(y, x)` or `(z, y, x)`, an array of its own.
    edits
        How many changes it contains, undone and redone ones among them.
    when
        Time of the last change, local.
    notes
        Sentences for the user on anything damaged or missing; usually empty.
    """

    labels: Array
    edits: int
    when: datetime
    notes: tuple[str, ...] = ()


class CaseFolder:
    """The review of one image on disk; make it with `CaseFolder.open`.

    Every change goes to `journal.bin` and is on the disk when `record` returns. Every few changes the whole mask goes
    to `mask.tif` and the journal starts anew. A crash between any two steps leaves a folder from which `recover`
    gives the mask after the last finished change.

    All methods may be called from any thread, and calls are carried out one after the other. As forcing bytes to disk
    may take long on a slow disk, call `record` and `save` from one worker thread, in the order of the changes, rather
    than from the window's.

    Attributes
    ----------
    path
        The folder, named by the image's digest alone.
    card
        What `case.json` says.
    read_only
        Whether another window has this case; nothing can be recorded here then.
    notice
        A sentence for the user when `read_only`, else empty.
    """

    def __init__(
        self, path: Path, card: CaseCard, geometry: Geometry, *, snapshot_every: int, lock: CaseLock | None
    ) -> None:
        self.path = path
        self.card = card
        self.read_only = lock is None
        self.notice = "" if lock is not None else _say_held(path)
        self._geometry = geometry
        self._every = snapshot_every
        self._lock = lock
        self._guard = threading.RLock()
        self._labels: Array | None = None
        self._sequence = 0
        self._log: FramedLog | None = None
        self._pending: list[bytes] = []
        self._unsaved = 0
        self._begun = False

    @classmethod
    def open(cls, image: Volume, *, root: Path | None = None, name: str = "", snapshot_every: int = 8) -> CaseFolder:
        """Open the case of an image, new or known.

        Parameters
        ----------
        image
            Recognised by its values, wherever its file lies now.
        root
            Folder of all cases; that of the user by default.
        name
            Of the image, for lists; that of its file by default. Folders in it are left out.
        snapshot_every
            Changes between two writes of the whole mask.

        Raises
        ------
        StorageError
            If the folder cannot be made or written to.
        BadCase
            If the folder was made by a newer version, or belongs to another image.
        """
        digest = image_digest(image)
        path = Path(root if root is not None else cases_folder()) / digest
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, path) from error
        lock = CaseLock(path / _LOCK)
        held = lock.acquire()
        try:
            fresh = describe(image, digest, name=name)
            card = load_card(path, fresh)
            if held:
                recovery.sweep(path)
                if card is None:
                    store_card(path, fresh)
            return cls(path, card or fresh, image.geometry, snapshot_every=snapshot_every, lock=lock if held else None)
        except BaseException:
            lock.release()
            raise

    def journal(self, *, budget_bytes: int = BUDGET_BYTES) -> Journal:
        """Return an undo history whose oldest changes move into this folder when memory runs short."""
        return Journal(budget_bytes=budget_bytes, spill=None if self.read_only else self.path / _HISTORY)

    # ----------------------------------------------------------------------------------------------------------- changes

    @property
    def edits(self) -> int:
        """Number of changes recorded, those of a draft that was recovered among them."""
        return self._sequence

    @property
    def pending(self) -> int:
        """Number of changes the disk has refused so far; they are tried again with the next one."""
        return len(self._pending)

    def record(self, entry: Entry) -> None:
        """Keep one change; it is on disk when this returns.

        A draft from an earlier session is continued if `recover` was called, else it is put aside as by `discard`.

        Parameters
        ----------
        entry
            From `Journal.record`, `undo` or `redo`, in their order.

        Raises
        ------
        StorageError
            If the disk refuses it. The change is kept in memory and tried again by the next `record` or `save`.
        BadCase
            If it does not fit this case's mask.
        """
        with self._guard:
            self._check_writable()
            self._begin()
            labels = self._labels if self._labels is not None else np.zeros(self.card.shape, np.dtype(entry.dtype))
            self._labels = recovery.applied(entry, labels)
            self._sequence += 1
            self._unsaved += 1
            self._pending.append(frame(entry.to_bytes(self._sequence)))
            self._write_pending()
            if self._unsaved >= self._every:
                self._snapshot()

    def save(self, labels: Array | None = None) -> Path:
        """Write the whole mask to `mask.tif`, where any program can read it.

        Parameters
        ----------
        labels
            The mask as it is now; by default as the recorded changes made it.

        Returns
        -------
        Path
            Of the mask.

        Raises
        ------
        StorageError
            If the disk refuses it; what was there before stays, and the next `record` tries again.
        BadCase
            If the mask is of another shape than the image.
        """
        with self._guard:
            self._check_writable()
            if labels is not None and (labels.shape != self.card.shape or labels.dtype.kind not in "bui"):
                raise BadCase(
                    f"A mask of shape {labels.shape} and type {labels.dtype} does not belong to an image of shape "
                    f"{self.card.shape}",
                    remedy="choose the mask of this image",
                )
            self._begin()
            if labels is not None:
                self._labels = labels.copy()
                self._unsaved = self._every
            if self._labels is not None:
                self._snapshot()
            return self.path / recovery.MASK

    def recover(self) -> Recovered | None:
        """Return the mask after the last finished change, or None when nothing was ever recorded.

        Changes recorded from now on continue it; call `discard` first if the user does not want it.

        Raises
        ------
        StorageError
            If the folder cannot be read.
        """
        with self._guard:
            found = recovery.read_case(self.path, self.card.shape)
            if not self._begun:
                self._continue(found)
            if found.labels is None:
                return None
            when = datetime.fromtimestamp(found.when).astimezone()
            return Recovered(found.labels, found.sequence, when, found.notes)

    def discard(self) -> None:
        """Start anew from a blank mask; the draft stays beside it as `discarded.tif`, the next as `discarded-2.tif`.

        Raises
        ------
        StorageError
            If the disk refuses it; the draft is still there then.
        """
        with self._guard:
            self._check_writable()
            found = recovery.read_case(self.path, self.card.shape)
            labels = self._labels if self._begun else found.labels
            if labels is not None and labels.any():
                write_snapshot(self._free_name(), labels, sequence=found.sequence, geometry=self._geometry)
            if found.keep_journal:
                recovery.keep_aside(self.path)
            # First no change that could be put upon a blank mask, then no mask.
            self._start_log(0, blank=True)
            try:
                (self.path / recovery.MASK).unlink(missing_ok=True)
                sync_folder(self.path)
            except OSError as error:
                raise storage_error(error, self.path / recovery.MASK, doing="removed") from error
            self._labels, self._sequence, self._unsaved, self._begun = None, 0, 0, True
            self._pending.clear()

    def _free_name(self) -> Path:
        """Where a discarded mask goes; no earlier one is ever replaced."""
        first = self.path / DISCARDED
        later = (first.with_stem(f"{first.stem}-{number}") for number in count(2))
        return next(path for path in chain([first], later) if not path.exists())

    def set_status(self, status: Status) -> None:
        """Write down how far the review is.

        Raises
        ------
        StorageError
            If the disk refuses it.
        """
        with self._guard:
            self._check_writable()
            card = self.card.model_copy(update={"status": status})
            store_card(self.path, card)
            self.card = card

    def close(self) -> None:
        """Save what is not yet in `mask.tif` and let other windows have the case.

        Raises
        ------
        StorageError
            If the mask cannot be written; changes that `record` accepted are in the journal all the same.
        """
        with self._guard:
            if self._lock is None:
                return
            try:
                if self._unsaved and self._labels is not None:
                    self._snapshot()
            finally:
                if self._log is not None:
                    self._log.close()
                with contextlib.suppress(OSError):
                    os.unlink(self.path / _HISTORY)
                lock, self._lock = self._lock, None
                lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------------ inside

    def _check_writable(self) -> None:
        if self.read_only:
            raise StorageError(self.notice.rstrip("."))
        if self._lock is None:
            raise StorageError("This case was closed", remedy="open it again")

    def _begin(self) -> None:
        """Decide what the first change of this session builds on."""
        if self._begun:
            return
        found = recovery.read_case(self.path, self.card.shape)
        if found.labels is not None:
            self.discard()
        else:
            self._continue(found)

    def _continue(self, found: recovery.OnDisk) -> None:
        if not self.read_only and found.keep_journal:
            recovery.keep_aside(self.path)
        self._labels = None if found.labels is None else found.labels.copy()
        self._sequence = found.sequence
        # Behind damage nothing may be appended, as it would never be found: begin again from a whole mask.
        usable = found.log_end is not None and not found.notes
        self._log = FramedLog(self.path / recovery.JOURNAL, end=found.log_end or 0) if usable else None
        self._unsaved = 0 if usable or found.labels is None else self._every
        self._begun = True

    def _write_pending(self) -> None:
        if self._log is None:
            if self._unsaved >= self._every:
                return  # a snapshot comes next and starts the log
            self._start_log(self._sequence - len(self._pending), blank=True)
        assert self._log is not None
        self._log.append(b"".join(self._pending))
        self._pending.clear()

    def _snapshot(self) -> None:
        """Write the mask, then start the journal anew; a crash in between leaves changes that the mask contains already."""
        assert self._labels is not None
        write_snapshot(self.path / recovery.MASK, self._labels, sequence=self._sequence, geometry=self._geometry)
        self._pending.clear()
        self._unsaved = 0
        self._start_log(self._sequence, blank=False)

    def _start_log(self, base: int, *, blank: bool) -> None:
        if self._log is not None:
            self._log.close()
        self._log = FramedLog.start(self.path / recovery.JOURNAL, recovery.header(base, blank=blank))


def _say_held(path: Path) -> str:
    holder = CaseLock(path / _LOCK).holder()
    if holder is not None and holder.pid == os.getpid():
        return (
            "This image is open a second time here, so changes made to this mask are not kept; work on the first one."
        )
    where = f" (process {holder.pid} on {holder.host})" if holder is not None else ""
    return f"This image is open in another window{where}, so changes made here are not kept; close it there first."
