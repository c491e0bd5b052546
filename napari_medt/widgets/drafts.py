"""The mask as it lies on disk after every change, and the one that is found there from an earlier session.

All of `Draft` but its construction runs on the bridge's thread for file work, in the order of the changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt.cases import CaseFolder, cases_folder, image_digest
from napari_medt.core import MedtError
from napari_medt.widgets import texts

if TYPE_CHECKING:
    from napari_medt.core import Volume
    from napari_medt.widgets.layers import Picture


@dataclass(frozen=True, eq=False)
class Found:
    """A mask from an earlier session."""

    labels: np.ndarray
    edits: int
    when: str
    notes: tuple[str, ...]


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
        self._unanswered = False
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
        if found is None or not found.labels.any():
            return None
        self._unanswered = True
        return Found(found.labels, found.edits, texts.moment(found.when, datetime.now().astimezone()), found.notes)

    def record(self, entry: Any) -> str:
        """Keep a change; it is on disk when this returns what to tell the user.

        A draft whose offer was not answered is put aside by the first change.

        Raises
        ------
        StorageError
            If the disk refuses it; it is tried again with the next change.
        """
        if self._closed:
            return ""
        self._waiting.append(entry)
        folder = self._open()
        if folder.read_only:
            self._waiting.clear()
            return folder.notice
        if self._unanswered:
            self._unanswered = False
            folder.discard()
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
        if self._unanswered or self._closed:
            raise MedtError(texts.UNANSWERED, remedy=texts.UNANSWERED_REMEDY)
        return self._open()

    def go_on(self) -> bool:
        """Continue the found draft; False when it was put aside meanwhile, and has to be recorded anew."""
        still, self._unanswered = self._unanswered, False
        return still

    def discard(self) -> None:
        """Put the found draft aside."""
        if self._unanswered:
            self._unanswered = False
            self._open().discard()

    def close(self) -> None:
        """Let other windows have the case; nothing is recorded any more."""
        self._closed = True
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _open(self) -> CaseFolder:
        if self._folder is None:
            volume = self._volume if self._volume is not None else self._picture.load()
            self._folder = self._opener(volume) if self._opener else CaseFolder.open(volume, name=volume.source)
            self._volume = None
        return self._folder
