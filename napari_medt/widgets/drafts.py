"""The mask as it lies on disk after every change, its history, and the one that is found there from an earlier session.

All of `Draft` but its construction runs on the thread for changes of masks, in their order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt.cases import CaseFolder, Journal, LastRun, Protection, cases_folder, image_digest
from napari_medt.core import BadCase, MedtError, StorageError
from napari_medt.widgets import texts
from napari_medt.widgets.timeline import Timeline

if TYPE_CHECKING:
    from napari_medt.core import Volume
    from napari_medt.widgets.layers import Picture


@dataclass(frozen=True, eq=False)
class Found:
    """A mask from an earlier session, with its history, its locks, the run it began with, and what to tell about it."""

    labels: np.ndarray
    edits: int
    when: str
    notes: tuple[str, ...]
    timeline: Timeline = field(default_factory=Timeline)
    protection: Protection = field(default_factory=Protection)
    run: LastRun | None = None
    uncertainty: np.ndarray | None = None


class Draft:
    """Keeps the changes of one picture's mask in its case folder, which is made with the first of them.

    Parameters
    ----------
    picture
        Recognised by its values, so that it is found again under any name.
    opener
        Opens its case, where that is not among the user's own cases.
    """

    def __init__(self, picture: Picture, opener: Callable[[Volume], CaseFolder] | None = None) -> None:
        self._picture = picture
        self._opener = opener
        self._volume: Volume | None = None
        self._folder: CaseFolder | None = None
        self._journal: Journal | None = None
        self._found: Journal | None = None
        self._labels: np.ndarray | None = None
        self._protection = Protection()
        self._waiting: list[Any] = []
        self._closed = False

    def look(self) -> Found | None:
        """Return the mask that was left on disk for this picture, if there is one with something on it.

        Raises
        ------
        BadImage, StorageError, BadCase
            If the picture or its folder cannot be read.
        """
        self._volume = self._picture.load()
        if self._opener is None and not (cases_folder() / image_digest(self._volume)).is_dir():
            return None
        folder = self._open()
        if folder.read_only:
            return None
        found = folder.recover()
        if found is None:
            return None
        self._found = folder.journal()
        if not found.labels.any():
            return None
        self._labels = found.labels
        notes, protection, run = found.notes, Protection(), None
        try:
            protection = folder.protection
        except BadCase as error:
            notes += (str(error),)
        try:
            run = folder.last_run
        except BadCase as error:
            notes += (str(error),)
        when = texts.moment(found.when, datetime.now().astimezone())
        timeline = Timeline.of(self._found.timeline, self._found.position)
        return Found(found.labels, found.edits, when, notes, timeline, protection, *(run or ()))

    @property
    def journal(self) -> Journal:
        """The history of the mask, whose oldest changes move into the case's folder when memory runs short."""
        if self._journal is None or self._found is not None:
            with contextlib.suppress(MedtError):  # `record` meets the same, and tells it
                folder = self._begin()
                self._journal = self._journal or folder.journal()
        self._journal = self._journal or Journal()
        return self._journal

    def record(self, *entries: Any) -> str:
        """Keep changes; they are on disk when this returns what to tell the user.

        A draft whose offer was not answered goes before the first change: it is put aside as one step, which can be undone.

        Raises
        ------
        StorageError
            If the disk refuses it; it is tried again with the next change.
        """
        if self._closed:
            return ""
        self._waiting += entries
        folder = self._begin()
        if folder.read_only:
            self._waiting.clear()
            return folder.notice
        while self._waiting:
            folder.record(self._waiting.pop(0))  # from here on the folder keeps what the disk refuses
        return texts.KEPT.format(when=datetime.now().strftime("%H:%M"))

    @property
    def status(self) -> str:
        """How far the review is, as far as that is known; may be asked from any thread."""
        folder = self._folder
        untouched = folder is None or (folder.status == "draft" and not folder.edits)
        return "to do" if untouched else folder.status

    def case(self) -> CaseFolder:
        """The case, to decide on it.

        Raises
        ------
        MedtError
            If nobody said yet whether it goes on with the mask that was found, or it was closed.
        """
        if self._closed or (self._found is not None and self._labels is not None):
            raise MedtError(texts.UNANSWERED, remedy=texts.UNANSWERED_REMEDY)
        return self._open()

    def protect(self, kept: Protection) -> None:
        """Keep locks and frozen regions with the case.

        Raises
        ------
        StorageError
            If the disk refuses it.
        """
        folder, self._protection = self._open(), kept
        if not folder.read_only:
            folder.protect(kept)

    def go_on(self) -> None:
        """Continue the found draft."""
        if self._found is not None:
            self._journal, self._found = self._found, None

    def discard(self) -> None:
        """Put the found draft aside."""
        folder = self._open()
        if self._found is not None:
            folder.discard()
            self._found = None
        folder.protect(self._protection)

    def forget(self) -> None:
        """Begin a new history, as another mask was put in the place of this one."""
        self._journal, self._found = Journal(), None

    def close(self) -> None:
        """Let other windows have the case; nothing is recorded any more."""
        self._closed = True
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _begin(self) -> CaseFolder:
        """Open the folder for a change; a draft that was found but not asked for becomes the history before it."""
        folder, found = self._open(), self._found
        if found is None:
            return folder
        if self._labels is None:  # nothing is on it
            folder.discard()
        else:
            self._journal = found
            whole = tuple(slice(0, n) for n in self._labels.shape)
            blank = np.zeros_like(self._labels)
            entry = found.record_box(texts.PUT_ASIDE_NAME, whole, self._labels, blank, by="file")
            with contextlib.suppress(
                StorageError
            ):  # the folder keeps what the disk refuses, and the change itself tells
                folder.record(entry)
        self._found = None
        return folder

    def _open(self) -> CaseFolder:
        if self._folder is None:
            volume = self._volume if self._volume is not None else self._picture.load()
            self._folder = self._opener(volume) if self._opener else CaseFolder.open(volume, name=volume.source)
            self._volume = None
        return self._folder
