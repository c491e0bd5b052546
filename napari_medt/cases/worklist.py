"""A folder of images to review: what is left to do, in which order, and how each was shown when it was left."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from napari_medt.cases import worklist_file
from napari_medt.cases.folder import CaseFolder
from napari_medt.cases.identity import Status, now
from napari_medt.cases.lock import CaseLock
from napari_medt.cases.patient import patient_of
from napari_medt.cases.recovery import JOURNAL, MASK
from napari_medt.cases.worklist_file import Doubt, Known, Order, Screen
from napari_medt.cases.worklist_images import content_of, is_as_known, listed, matched, storable
from napari_medt.core import BadImage, Cancel, Progress, StorageError, Volume, silent
from napari_medt.io import read
from napari_medt.io.folders import FoundImage
from napari_medt.io.names import names_from_paths

_STATES: tuple[Status, ...] = ("to do", "draft", "second look", "accepted")  # as they are ordered
_DECIDE: tuple[Status, ...] = ("second look", "accepted", "draft")  # where the channels of an image differ
_CASES = "cases"


@dataclass(frozen=True)
class Item:
    """One image of a worklist.

    Attributes
    ----------
    key
        Stands for it in every call.
    name
        For people; safe as a file's name.
    image
        What is read.
    state
        How far its review is.
    uncertainty
        As the last model gave it; None before.
    problem
        A sentence on why it could not be read; usually empty.
    patient
        As `patient_of` says.
    """

    key: str
    name: str
    image: FoundImage
    state: Status
    uncertainty: float | None
    problem: str
    patient: str


class Worklist:
    """The images of a folder as cases; make it with `Worklist.open`.

    All methods may be called from any thread; those that read images take long.

    Attributes
    ----------
    folder
        Of the images.
    work
        Folder in which masks, logs and the list's own notes are kept.
    read_only
        Whether another window has this list; its notes are not kept then, while each case may still be free.
    notes
        Sentences for the user: where the work is kept if not beside the images, what is damaged, which images are gone.
    """

    def __init__(self, folder: Path, work: Path, *, lock: CaseLock | None, notes: tuple[str, ...]) -> None:
        self.folder = folder
        self.work = work
        self.read_only = lock is None
        self._lock = lock
        self._guard = threading.RLock()
        self._content, damaged = worklist_file.load(work)
        self._told = notes + damaged
        self._gone: tuple[Known, ...] = ()
        self._found: dict[str, tuple[str, FoundImage]] = {}
        self._known: dict[str, Known] = {}

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        work: Path | None = None,
        progress: Progress = silent,
        cancel: Cancel | None = None,
    ) -> Worklist:
        """Open a folder of images, new or known; every image and DICOM series in it is a case.

        Parameters
        ----------
        folder
            Of the images, and the folders in it.
        work
            Where the work is kept; by default in `napari-medt` beside the images, or in the user's own folder where nothing
            can be written there.
        progress, cancel
            Told about, and looked at between, DICOM headers.

        Raises
        ------
        BadImage
            If there is no image in it.
        StorageError
            If the work can be kept nowhere.
        BadCase
            If a newer version wrote the list.
        """
        place = folder.expanduser().absolute()
        if not place.is_dir():
            raise BadImage(f"There is no folder {place}", remedy="choose a folder with images")
        found = listed(place, leave_out=work or place / worklist_file.WORK, progress=progress, cancel=cancel)
        home, lock, notes = worklist_file.home_of_work(place, work)
        try:
            opened = cls(place, home, lock=lock, notes=notes)
            opened._take(found)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return opened

    # ------------------------------------------------------------------------------------------------------------- state

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""
        with self._guard:
            changed = [known.place for known in self._gone if known.key in self._known]
            gone = [known.place for known in self._gone if known.key not in self._known]
        notes = [f"{place} is another image than the one that was worked on; its mask is kept." for place in changed]
        if gone:
            several = (
                f"{len(gone)} images that were worked on are"
                if len(gone) > 1
                else f"{gone[0]}, which was worked on, is"
            )
            notes.append(f"{several} no longer in this folder; the masks are kept.")
        return (*self._told, *notes)

    @property
    def cases_folder(self) -> Path:
        """Folder of the cases, each in one named by the digest of its image."""
        return self.work / _CASES

    @property
    def order(self) -> Order:
        """How `items` is ordered."""
        return self._content.order

    @property
    def current(self) -> Item | None:
        """The case that was opened last, also in an earlier session."""
        with self._guard:
            return next((item for item in self.items if item.key == self._content.current), None)

    @property
    def items(self) -> tuple[Item, ...]:
        """All images, by name, the most doubtful first, or by what is left to do; names decide where those are alike."""
        with self._guard:
            items = [
                Item(
                    key,
                    name,
                    image,
                    known.state,
                    known.doubt.uncertainty if known.doubt else None,
                    known.problem,
                    patient_of(image.path, image.patient),
                )
                for key, (name, image) in self._found.items()
                for known in (self._known[key],)
            ]
        return tuple(sorted(items, key=lambda item: (_rank(item, self.order), _natural(item.name))))

    def item(self, key: str) -> Item:
        """Return one image.

        Raises
        ------
        BadImage
            If there is none of that key, or no longer.
        """
        self._of(key)
        return next(item for item in self.items if item.key == key)

    def next(self, key: str, *, left: bool = False) -> Item | None:
        """Return the image after another in the order; None after the last.

        Parameters
        ----------
        key
            Of the other.
        left
            Only what is not accepted yet and can be read.
        """
        return self._neighbour(key, self.items, left=left)

    def previous(self, key: str, *, left: bool = False) -> Item | None:
        """Return the image before another; parameters as for `next`."""
        return self._neighbour(key, self.items[::-1], left=left)

    def screen(self, key: str) -> Screen | None:
        """Return how a case was shown when it was left; None where that is not known."""
        return self._of(key).screen

    # ----------------------------------------------------------------------------------------------------------- changes

    def refresh(self, *, progress: Progress = silent, cancel: Cancel | None = None) -> None:
        """Look into the folder anew: what was renamed or moved in it is recognised by its content.

        Raises
        ------
        BadImage
            If no image is left.
        StorageError
            If the notes cannot be written.
        """
        self._take(listed(self.folder, leave_out=self.work, progress=progress, cancel=cancel))

    def sort(self, order: Order) -> None:
        """Order by name, uncertainty or state; errors as for `refresh`."""
        with self._guard:
            self._store(order=order)

    def load(self, key: str, *, progress: Progress = silent, cancel: Cancel | None = None) -> Volume:
        """Read an image; one that cannot be read keeps the sentence that says why, and the list goes on without it.

        If its file was changed since the list was made, it is another image, and another case.

        Raises
        ------
        BadImage
            If it cannot be read.
        Cancelled
            If asked to stop.
        MedtError
            If a library for it is missing.
        """
        self._look_again(key)
        item = self.item(key)
        try:
            volume = read(item.image.path, choose=item.image.choose, progress=progress, cancel=cancel)
        except BadImage as error:
            with contextlib.suppress(StorageError):  # the sentence itself matters more
                self._update(key, problem=storable(str(error)))
            raise
        if item.problem:
            self._update(key, problem="")
        return volume

    def open_case(self, key: str, image: Volume, **options: Any) -> CaseFolder:
        """Open the case of an image that `load` returned, or of one of its channels.

        Parameters
        ----------
        key
            Of the image.
        image
            Its content.
        options
            As for `CaseFolder.open`.

        Raises
        ------
        MedtError
            As for `CaseFolder.open`.
        """
        item = self.item(key)
        case = CaseFolder.open(image, root=self.cases_folder, name=storable(item.image.path.name), **options)
        try:
            known = self._of(key)
            same = is_as_known(self.folder, item.image, known)  # else it was changed since it was read
            content = known.content or (content_of(item.image) if same else "")
        except OSError:  # gone meanwhile: it is recognised the next time
            content = ""
        with self._guard:
            first, *further = dict.fromkeys(filter(None, (*self._of(key).cases, case.card.digest)))
            update = {"digest": first, "channels": tuple(further), "content": content}
            self._known[key] = self._with_state(self._of(key).model_copy(update=update))
            self._store(current=key)
        return case

    def update(self, key: str) -> Item:
        """Take over how far a case is from its folder, after it was changed or decided on; the image as it is then."""
        with self._guard:
            self._known[key] = self._with_state(self._of(key))
            self._store()
        return self.item(key)

    def keep_screen(self, key: str, screen: Screen) -> None:
        """Remember how a case is shown; errors as for `refresh`."""
        self._update(key, screen=screen)

    def keep_doubt(self, key: str, uncertainty: float, *, model: str, weights_sha256: str = "") -> None:
        """Remember how unsure a model was of a whole image, 0 or more; errors as for `refresh`."""
        self._update(key, doubt=Doubt(uncertainty=uncertainty, model=model, weights_sha256=weights_sha256, when=now()))

    def close(self) -> None:
        """Let other windows have the list."""
        lock, self._lock = self._lock, None
        self.read_only = True
        if lock is not None:
            lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------------ inside

    def _take(self, found: tuple[FoundImage, ...]) -> None:
        extra = [image.choose[0] if image.choose else "" for image in found]
        names = names_from_paths([image.path for image in found], extra=extra, home=self.folder)
        while True:  # files may have to be read for it, so nobody waits meanwhile
            before = self._content
            known, gone = matched(self.folder, found, before.known)
            with self._guard:
                if self._content is before:
                    self._gone = gone
                    self._known = {each.key: self._with_state(each) for each in known}
                    self._found = dict(zip(self._known, zip(names, found, strict=True), strict=True))
                    self._store()
                    return

    def is_as_read(self, key: str) -> bool:
        """Whether the files of an image were left alone since they were listed, or read the last time."""
        return is_as_known(self.folder, self.item(key).image, self._of(key))

    def _look_again(self, key: str) -> None:
        """Find out whether the files of an image were changed since the list was made: what is known is then of another."""
        known, image = self._of(key), self.item(key).image
        (now,), gone = matched(self.folder, [image], [known])
        if now is known or not now.changed:  # what is not there is told by reading it
            return
        with self._guard:
            if self._of(key) is known:
                self._known[key], self._gone = self._with_state(now), (*self._gone, *gone)
                self._store()

    def _of(self, key: str) -> Known:
        with self._guard:
            if key not in self._known:
                raise BadImage(f"{key} is not in the worklist", remedy="open the folder again")
            return self._known[key]

    def _neighbour(self, key: str, items: Sequence[Item], *, left: bool) -> Item | None:
        self._of(key)
        after = items[[item.key for item in items].index(key) + 1 :]
        return next((item for item in after if not left or (item.state != "accepted" and not item.problem)), None)

    def _update(self, key: str, **values: Any) -> None:
        with self._guard:
            self._known[key] = self._of(key).model_copy(update=values)
            self._store()

    def _store(self, **values: Any) -> None:
        known = (*self._known.values(), *self._gone)
        self._content = self._content.model_copy(update={"known": known, **values})
        if not self.read_only:
            worklist_file.store(self.work, self._content)

    def _with_state(self, known: Known) -> Known:
        """How far an image is, as the folders of its cases say: what was decided on one channel counts for all."""
        states = [self._state_of(digest) for digest in known.cases]
        state = next((one for one in _DECIDE if one in states), "to do")
        return known.model_copy(update={"state": state})

    def _state_of(self, digest: str) -> Status:
        folder = self.cases_folder / digest
        if not any((folder / name).exists() for name in (MASK, JOURNAL)):
            return "to do"
        try:
            state = json.loads((folder / "case.json").read_bytes())["status"]
        except (OSError, ValueError, KeyError, TypeError):  # opening the case tells
            return "draft"
        return state if state in _STATES else "draft"


def _rank(item: Item, order: Order) -> tuple[bool, float]:
    if order == "uncertainty":
        return item.uncertainty is None, -(item.uncertainty or 0.0)
    return False, _STATES.index(item.state) if order == "state" else 0


def _natural(name: str) -> list[tuple[int, str]]:
    """Case 2 comes before case 10."""
    parts = re.split(r"(\d+)", name.casefold())  # numbers at every second place
    return [(int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts)]
