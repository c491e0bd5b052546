"""The case behind the picture: signed off, logged, and handed over as a lesson."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medt._napari_io.origin import origin_of
from napari_medt.cases import CaseFolder, SlicesSeen, export, former_names
from napari_medt.cases import patient_of as patient_at
from napari_medt.core import BadImage, MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets.lessons import Lesson, Who
from napari_medt.widgets.slice_shown import slice_shown

if TYPE_CHECKING:
    from napari_medt.widgets.mask_editor import MaskEditor
    from napari_medt.widgets.review import Review
    from napari_medt.widgets.runs import Ran


class Casework(QObject):
    """Decides on cases and knows which of them can be learnt from.

    Signals
    -------
    decided
        The present mask was accepted, or sent to a second look.
    state_changed
        The state of the present case changed.
    exported
        A mask was handed over, or could not be.
    """

    decided = Signal(str)
    state_changed = Signal()
    exported = Signal()

    def __init__(self, review: Review) -> None:
        super().__init__()
        self.review = review
        self.listed: Callable[[], list[Lesson]] = list
        """Accepted cases that are not open; set by who knows the worklist."""
        self.hold_out: set[str] = set()
        self.exports = 0
        """How many masks are being handed over, each from a case that must stay open for it."""
        self._seen: dict[str, SlicesSeen] = {}
        self._state = ("", "")
        review.mask_changed.connect(self._look_at_state)
        review.image_changed.connect(self._look_at_state)
        review.ran_on.connect(self._keep_run)
        self._dims = review.viewer.dims.events
        for emitter in (self._dims.current_step, self._dims.order, self._dims.ndisplay):
            emitter.connect(self._looked)
        review.image_changed.connect(self._looked)
        self._looked()

    def close(self) -> None:
        """Write down what was looked at, and let go of the viewer."""
        for emitter in (self._dims.current_step, self._dims.order, self._dims.ndisplay):
            emitter.disconnect(self._looked)
        for _, work in self.review.works:
            if not work.untouched:
                self.log_seen(work)

    # ------------------------------------------------------------------------------------------------------------- state

    @property
    def state(self) -> str:
        """How far the present case is: to do, draft, accepted or second look."""
        work = self.review.work
        return "to do" if work is None else work.status

    def _look_at_state(self) -> None:
        image = self.review.image
        now = ("" if image is None else layers.identity(image), self.state)
        if now == self._state:
            return
        before, self._state = self._state, now
        if before[0] == now[0] and before[1] in ("accepted", "second look") and now[1] == "draft":
            self.review.said.emit("correct", texts.AGAIN_DRAFT, "plain")
            if self.review.stage in ("next", "learn"):
                self.review.set_stage("accept")
        self.state_changed.emit()

    # ---------------------------------------------------------------------------------------------------------- sign-off

    def accept(self) -> None:
        """Sign the present mask off."""
        self._decide("accepted", lambda case: case.accept(person()))

    def second_look(self) -> None:
        """Say that the present mask needs a second look."""
        self._decide("second look", lambda case: case.reject(person()))

    def _decide(self, decision: str, act: Callable[[CaseFolder], Any]) -> None:
        review = self.review
        work, image = review.work, review.image
        if work is None or image is None or review.busy == "run" or work.status == decision:
            return
        if work.moving:
            work.when_still(lambda: self._decide(decision, act) if review.work is work else None)
            return
        if not work.has_mask:
            review.said.emit("correct", texts.NOTHING_TO_ACCEPT, "error")
            return
        work.settle()  # also what nobody told of is signed
        seen, depth = self._seen.get(work.image_id), work.depth

        def sign(case: CaseFolder) -> Any:
            if seen is not None:
                case.log.looked(seen)
            return act(case)

        def signed(made: Any) -> None:
            if review.work is work and work.depth == depth and work.status == decision:
                review.said.emit("correct", texts.signed(decision, made.by), "good")
                self.decided.emit(decision)

        work.on_case(sign, then=signed, failed=lambda error: review.said.emit("correct", str(error), "error"))

    def hand_over(self, path: str | Path) -> None:
        """Write the accepted mask and the record of how it came about, beside the thread that keeps changes."""
        review = self.review
        work, image = review.work, review.image
        if work is None or image is None:
            return
        names = dict(enumerate(work.classes))
        picture = layers.take(image)

        def failed(error: MedtError) -> None:
            review.said.emit("correct", str(error), "error")

        def write(case: CaseFolder) -> None:
            self.exports += 1
            review.bridge.aside(
                lambda: export(case, Path(path), names=names, source=picture.load())[0], then=written, failed=ended
            )

        def written(file: Path) -> None:
            ended(None)
            review.said.emit("correct", texts.HANDED_OVER.format(name=file.name), "good")

        def ended(error: MedtError | None) -> None:
            self.exports -= 1
            self.exported.emit()
            if error is not None:
                failed(error)

        work.on_case(lambda case: case, then=write, failed=failed)

    # --------------------------------------------------------------------------------------------------------------- log

    def _looked(self, event: Any = None) -> None:
        """Note which slice of the present picture is on the screen."""
        review = self.review
        image, work = review.image, review.work
        if image is None or work is None:
            return
        seen = self._seen.setdefault(work.image_id, SlicesSeen(work.shape))
        if len(work.shape) == 2:
            seen.mark("z", 0)
            return
        shown = slice_shown(review.viewer, image)
        if shown is not None:
            seen.mark("zyx"[shown[0]], shown[1])

    def seen_share(self) -> float | None:
        """Share of the slices across the scan's first axis that were on the screen; `None` of a single picture."""
        work = self.review.work
        seen = None if work is None else self._seen.get(work.image_id)
        return None if seen is None or work is None or len(work.shape) == 2 else seen.share["z"]

    def log_seen(self, work: MaskEditor) -> None:
        """Write down which slices were looked at."""
        seen = self._seen.get(work.image_id)
        if seen is not None and work.status != "to do":
            work.on_case(lambda case: None if case.read_only else case.log.looked(seen))

    def _keep_run(self, ran: Ran) -> None:
        """Write down which model was run, and keep with the case what a later session needs of it."""
        review, work, run = self.review, self.review.work, ran.run
        name, _, version = run.model.partition("@")

        def keep(case: CaseFolder) -> None:
            if not case.read_only:
                case.log.ran(name, version=version, weights_sha256=run.weights_sha256, settings=run.settings)
                case.keep_run(run, ran.uncertainty)

        if work is not None:
            work.on_case(keep, failed=lambda error: review.said.emit("run", str(error), "error"))

    # ----------------------------------------------------------------------------------------------------------- lessons

    def _open_lessons(self) -> list[tuple[Any, MaskEditor, Who]]:
        found = []
        for image, work in self.review.works:
            # An accepted mask that was found, but not restored, is not in the viewer yet.
            if work.mask is not None and work.has_mask and (work.edits or work.status == "accepted"):
                current = image is self.review.image
                patient = patient_of(image)
                origin = origin_of(image.metadata)
                former = former_names(Path(origin.source), patient) if origin is not None and origin.source else ()
                found.append((image, work, Who(str(image.name), patient, current, patient in self.hold_out, former)))
        return found

    def who(self) -> tuple[Who, ...]:
        """Cases that can be learnt from now."""
        return (*(who for *_, who in self._open_lessons()), *(lesson.who for lesson in self.listed()))

    def lessons(self, *, then: Callable[[tuple[Lesson, ...]], Any], failed: Callable[[MedtError], Any]) -> None:
        """Gather the cases that can be learnt from, off the window's thread."""
        taken, review = [], self.review
        for image, work, who in self._open_lessons():
            try:
                if work.picture.still_there(review.viewer) is None:
                    raise BadImage(texts.OTHER_PICTURE.format(name=who.name), remedy=texts.OPEN_AGAIN)
                labels, edited = work.snapshot(), review.changes.aside(work.edited_mask)
                taken.append((who, layers.take(image), labels, edited, work.status == "accepted"))
            except MedtError as error:
                failed(error)
                return
        listed = self.listed()

        def gather() -> tuple[Lesson, ...]:
            opened = [
                Lesson(
                    who,
                    picture.load(),
                    picture.scan,
                    picture.fixes,
                    labels,
                    edited.result(),  # this thread may wait, the window's may not
                    accepted=accepted,
                )
                for who, picture, labels, edited, accepted in taken
            ]
            return (*opened, *listed)

        review.bridge.aside(gather, then=then, failed=failed)


def person() -> str:
    """Who signs: the name of the user's account."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        return texts.SOMEBODY


def patient_of(image: Any) -> str:
    """Whose an image is: as its file says, or the layer itself where it is of none."""
    origin = origin_of(image.metadata)
    if origin is None or not origin.source:
        return str(image.name)
    return patient_at(Path(origin.source), origin.acquisition.patient)
