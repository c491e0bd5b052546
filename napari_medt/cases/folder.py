"""The folder that keeps the review of one image: safe after every stroke, whatever happens to the program."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from napari_medt.cases import last_run, protection, recovery
from napari_medt.cases.draft import Draft
from napari_medt.cases.edited import Corrections
from napari_medt.cases.entry import Entry
from napari_medt.cases.history import History
from napari_medt.cases.identity import (
    CaseCard,
    SignOff,
    Status,
    cases_folder,
    describe,
    image_digest,
    load_card,
    mask_digest,
    now,
    store_card,
)
from napari_medt.cases.journal import BUDGET_BYTES, Journal
from napari_medt.cases.last_run import LastRun
from napari_medt.cases.lock import CaseLock
from napari_medt.cases.log import CaseLog
from napari_medt.cases.protection import Protection
from napari_medt.core import BadCase, Geometry, StorageError, Volume
from napari_medt.core.volume import Array
from napari_medt.io.atomic import storage_error

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
        Sentences for the user on anything damaged or missing, or on an acceptance that no longer counts; usually empty.
    """

    labels: Array
    edits: int
    when: datetime
    notes: tuple[str, ...] = ()


class CaseFolder:
    """The review of one image on disk; make it with `CaseFolder.open`.

    Every change goes to `journal.bin` and is on the disk when `record` returns, and the journal keeps what can be undone
    over a restart. From time to time the whole mask goes to `mask.tif`. A crash between any two steps leaves a folder from
    which `recover` gives the mask after the last finished change, and `journal` the changes before it.

    All methods may be called from any thread, and calls are carried out one after the other. As forcing bytes to disk
    may take long on a slow disk, call `record` and `save` from one worker thread, in the order of the changes, rather
    than from the window's.

    Attributes
    ----------
    path
        The folder, named by the image's digest alone.
    card
        What `case.json` says.
    log
        What was done in this case, line by line.
    geometry
        Of the image and its mask.
    read_only
        Whether another window has this case; nothing can be recorded here then.
    notice
        A sentence for the user when `read_only`, else empty.
    """

    def __init__(
        self,
        path: Path,
        card: CaseCard,
        geometry: Geometry,
        *,
        snapshot_every: int,
        budget_bytes: int,
        lock: CaseLock | None,
    ) -> None:
        self.path = path
        self.card = card
        self.geometry = geometry
        self.read_only = lock is None
        self.notice = "" if lock is not None else _say_held(path)
        self.log = CaseLog(path, read_only=self.read_only)
        self._lock = lock
        self._guard = threading.RLock()
        self._draft = Draft(path, card.shape, geometry, snapshot_every=snapshot_every, budget_bytes=budget_bytes)
        self._made: Counter[str] = Counter()

    @classmethod
    def open(
        cls,
        image: Volume,
        *,
        root: Path | None = None,
        name: str = "",
        snapshot_every: int = 32,
        budget_bytes: int = BUDGET_BYTES,
    ) -> CaseFolder:
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
        budget_bytes
            What the journal may take on disk; beyond it the oldest changes can no longer be undone after a restart.

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
            opened = cls(
                path,
                card or fresh,
                image.geometry,
                snapshot_every=snapshot_every,
                budget_bytes=budget_bytes,
                lock=lock if held else None,
            )
            if held:
                opened.log.add("opened", image=digest)
        except BaseException:
            lock.release()
            raise
        return opened

    def journal(self, *, budget_bytes: int = BUDGET_BYTES) -> Journal:
        """Return the undo history, whose oldest changes move into this folder when memory runs short.

        After `recover` it holds the changes of earlier sessions too, as far as they can still be undone; else it is empty.

        Raises
        ------
        StorageError
            If the folder cannot be read.
        """
        with self._guard:
            spill = None if self.read_only else self.path / _HISTORY
            history = self._draft.read().history if self._draft.begun else History()
            return Journal.of(
                [change.entry for change in history.done],
                [change.entry for change in reversed(history.undone)],
                older=Corrections.from_bytes(history.older),
                budget_bytes=budget_bytes,
                spill=spill,
            )

    # ----------------------------------------------------------------------------------------------------------- changes

    @property
    def edits(self) -> int:
        """Number of changes recorded, those of a draft that was recovered among them."""
        return self._draft.sequence

    @property
    def pending(self) -> int:
        """Number of changes the disk has refused so far; they are tried again with the next one."""
        return self._draft.pending

    def record(self, *entries: Entry) -> None:
        """Keep a change, or the steps of a jump; all are on disk when this returns.

        A draft from an earlier session is continued if `recover` was called, else it is put aside as by `discard`. An
        acceptance no longer counts.

        Parameters
        ----------
        entries
            From `Journal.record`, `undo`, `redo` or `jump`, in their order.

        Raises
        ------
        StorageError
            If the disk refuses it. The change is kept in memory and tried again by the next `record` or `save`.
        BadCase
            If it does not fit this case's mask.
        """
        with self._guard:
            self._check_writable()
            self._draft.record(entries)
            self._made.update(entry.by for entry in entries)
            self._void()

    def save(self, labels: Array | None = None) -> Path:
        """Write the whole mask to `mask.tif`, where any program can read it.

        Parameters
        ----------
        labels
            The mask as it is now; by default as the recorded changes made it. What differs becomes a change of its own.

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
            path = self._draft.save(labels)
            self._void()
            return path

    def recover(self) -> Recovered | None:
        """Return the mask after the last finished change, or None when nothing was ever recorded.

        Changes recorded from now on continue it; call `discard` first if the user does not want it. An accepted mask that
        another program has changed meanwhile is no longer accepted, which the notes say.

        Raises
        ------
        StorageError
            If the folder cannot be read.
        """
        with self._guard:
            found = self._draft.read()
            if not self._draft.begun:
                self._draft.go_on(found, writing=not self.read_only)
            notes = found.notes + self._check_acceptance(found.labels)
            if found.labels is None:
                return None
            when = datetime.fromtimestamp(found.when).astimezone()
            return Recovered(found.labels, found.sequence, when, notes)

    def discard(self) -> None:
        """Start anew from a blank mask; the draft stays beside it as `discarded.tif`, the next as `discarded-2.tif`.

        Raises
        ------
        StorageError
            If the disk refuses it; the draft is still there then.
        """
        with self._guard:
            self._check_writable()
            self._draft.discard()
            self.log.add("discarded")
            self._void()

    # ------------------------------------------------------------------------------------------------- status, sign-off

    @property
    def status(self) -> Status:
        """How far the review is."""
        return self.card.status

    def set_status(self, status: Status) -> None:
        """Write down how far the review is; `accept` is the better way to accept.

        Raises
        ------
        StorageError
            If the disk refuses it.
        """
        with self._guard:
            self._check_writable()
            self._store(status=status, sign_off=None)

    def accept(self, by: str, *, remark: str = "") -> SignOff:
        """Sign the mask off as it is now: who, when and the mask's digest go to the log and to `case.json`.

        Raises
        ------
        BadCase
            If there is no mask, or nobody is named.
        StorageError
            If the disk refuses it; the mask is not accepted then.
        """
        return self._decide("accepted", by, remark)

    def reject(self, by: str, *, remark: str = "") -> SignOff:
        """Say that the mask needs a second look; as `accept`."""
        return self._decide("second look", by, remark)

    def verify(self) -> str:
        """Return a sentence on what is wrong with the log, or with what `case.json` says beside it; empty if nothing is.

        Raises
        ------
        StorageError
            If the log cannot be read.
        """
        return self.log.verify(holding=self.card.sign_off.log if self.card.sign_off else "")

    @property
    def protection(self) -> Protection:
        """Which structures are locked and which regions are frozen.

        Raises
        ------
        BadCase
            If what lies on disk is damaged.
        """
        with self._guard:
            return protection.load(self.path, self.card.shape)

    def protect(self, kept: Protection) -> None:
        """Keep locks and frozen regions with the case.

        Raises
        ------
        StorageError
            If the disk refuses it.
        BadCase
            If the regions are of another shape than the image.
        """
        with self._guard:
            self._check_writable()
            protection.store(self.path, kept, self.card.shape)

    @property
    def last_run(self) -> tuple[LastRun, Array | None] | None:
        """The run that `keep_run` kept, and its uncertainty; None before the first, and after `discard`.

        Raises
        ------
        BadCase
            If what lies on disk is damaged.
        StorageError
            If it cannot be read.
        """
        with self._guard:
            return last_run.load(self.path, self.card.shape)

    def keep_run(self, run: LastRun, uncertainty: Array | None = None) -> None:
        """Keep which model was run, and how unsure it was, in the place of what was kept before.

        Raises
        ------
        StorageError
            If the disk refuses it.
        """
        with self._guard:
            self._check_writable()
            last_run.store(self.path, run, uncertainty)

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
                self._draft.close()
                self._tell_changes()
            finally:
                self.log.close()
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

    def _store(self, *, status: Status, sign_off: SignOff | None) -> None:
        card = self.card.model_copy(update={"status": status, "sign_off": sign_off})
        store_card(self.path, card)
        self.card = card

    def _tell_changes(self) -> None:
        """Write down how many changes were made by whom since this was told last."""
        if self._made and self._draft.labels is not None:
            self.log.add("edited", changes=dict(self._made), mask=mask_digest(self._draft.labels))
            self._made.clear()

    def _decide(self, decision: Status, by: str, remark: str) -> SignOff:
        with self._guard:
            self._check_writable()
            if not by.strip():
                raise BadCase("A mask is signed off by somebody", remedy="give a name")
            if not self._draft.begun:
                self.recover()
            self._draft.save(None)
            labels = self._draft.labels
            if labels is None:
                raise BadCase("There is no mask to decide on", remedy="run the model or paint first")
            made = SignOff(decision=decision, by=by.strip(), when=now(), mask=mask_digest(labels), remark=remark)
            self._tell_changes()
            line = self.log.add("decided", **made.model_dump(exclude={"log"}))
            made = made.model_copy(update={"log": line.hash})
            self._store(status=decision, sign_off=made)
            return made

    def _check_acceptance(self, labels: Array | None) -> tuple[str, ...]:
        """See whether the mask is still the one that was accepted."""
        signed = self.card.sign_off
        if signed is None or self._still_accepted(labels):
            return ()
        if self.read_only or self._lock is None:
            self.card = self.card.model_copy(update={"status": "draft", "sign_off": None})
        else:
            self._void()
        return (f"The mask was changed after {signed.by} accepted it, so it is a draft again.",)

    def _void(self) -> None:
        """Let an acceptance no longer count once the mask is another."""
        if not self._still_accepted(self._draft.labels):
            self.log.add("no longer accepted", accepted=self.card.sign_off and self.card.sign_off.log)
            self._store(status="draft", sign_off=None)

    def _still_accepted(self, labels: Array | None) -> bool:
        """Whether there is no acceptance, or one of this mask."""
        if self.card.status != "accepted":
            return True
        signed = self.card.sign_off
        return signed is not None and labels is not None and mask_digest(labels) == signed.mask


def _say_held(path: Path) -> str:
    holder = CaseLock(path / _LOCK).holder()
    if holder is not None and holder.pid == os.getpid():
        return (
            "This image is open a second time here, so changes made to this mask are not kept; work on the first one."
        )
    where = f" (process {holder.pid} on {holder.host})" if holder is not None else ""
    return f"This image is open in another window{where}, so changes made here are not kept; close it there first."
