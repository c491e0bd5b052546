"""What runs in the calculation process to teach a model and to compare two versions of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt.core import BadTrainingData, Cancel, MedtError, Prediction, Progress, Volume, silent
from napari_medt.widgets.lessons import Compared, LearnAhead, Learnt, Lesson, Who, patients
from napari_medt.widgets.one_slice import one_slice, slicing
from napari_medt.widgets.remembered import fine_tunings
from napari_medt.widgets.reviewed import looked_at
from napari_medt.widgets.session import Session, mended
from napari_medt.widgets.straight import labels_on_scan

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medt.training.corrections import Correction
    from napari_medt.training.fine_tuning import TuningCost
    from napari_medt.training.gate import Scores
    from napari_medt.zoo import Model, ModelCard

MOST_SLICES = 64
MENDED, SPOILT = 1, 2
TOLERANCE = 1.0  # of the surface Dice, in the unit of the image


@dataclass(frozen=True, eq=False)
class Taught:
    """A lesson that was read: the image as a model sees it, with what is known of its mask there.

    `reviewed` is `None` where all of it is vouched for, of a draft what somebody looked at; `shown` is the picture in the
    viewer, with its mask.
    """

    who: Who
    image: Volume
    labels: np.ndarray
    edited: np.ndarray | None
    reviewed: np.ndarray | None
    shown: Volume
    shown_labels: np.ndarray


class TeachingSession(Session):
    """The dock's session with what learning and comparing need."""

    def __init__(self) -> None:
        super().__init__()
        self._costs: dict[tuple[str, str, str], TuningCost] = {}

    def learn_ahead(
        self, who: Sequence[Who], model_key: str, device: str = "auto", *, learns: str = "everything"
    ) -> LearnAhead:
        """What learning from these cases would take; nothing is stored."""
        from napari_medt.training.fine_tuning import fine_tuning_cost
        from napari_medt.widgets.rehearsal import rehearsal_for

        model = self._model(model_key, device)
        cost = self._costs.get((model_key, device, learns))
        if cost is None:
            cost = self._costs[model_key, device, learns] = fine_tuning_cost(model, learns=learns)
        sides = self._sides(who, model.card.name)
        held_out = sum(sides[one.patient] == "held out" for one in who)
        return LearnAhead(
            len(who) - held_out,
            held_out,
            len(rehearsal_for(model.card)),
            cost.seconds_per_step,
            cost.nbytes / 1e6,
        )

    def learn(
        self,
        lessons: Sequence[Lesson],
        model_key: str,
        device: str = "auto",
        *,
        learns: str = "everything",
        minutes: float = 2.0,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        emit: Callable[[dict[str, Any]], None] | None = None,
    ) -> Learnt:
        """Teach a model all lessons but those held out; the result is stored as a new version, whose name comes back.

        The same call after a crash goes on where the last one was.
        """
        from napari_medt.training import fine_tune
        from napari_medt.training.sides import keep_sides, load_sides, stand_in
        from napari_medt.widgets.rehearsal import rehearsal_for

        report = progress or silent
        report(0, 1, "Reading the cases")
        model = self._model(model_key, device)
        lessons = sorted(lessons, key=lambda lesson: lesson.who.name)  # whatever was opened first goes on the same way
        who = [lesson.who for lesson in lessons]
        sides = self._sides(who, model.card.name)
        if all(side == "held out" for side in sides.values()):
            raise BadTrainingData(
                "All these cases are kept for measuring, so there is nothing to learn from",
                remedy="correct another case",
            )
        place = _sides_of(model.card.name)
        known = load_sides(place)
        cases = list(rehearsal_for(model.card))
        for lesson in lessons:
            held_out = sides[lesson.who.patient] == "held out"
            learnt_before = stand_in(lesson.who.patient) in known and not lesson.who.current
            group = "earlier" if learnt_before and not held_out else "new"
            cases += self._corrections(read_lesson(lesson), model, held_out=held_out, group=group)
        if not any(
            np.asarray(case.labels).any() or case.edited is not None for case in cases if case.labels is not None
        ):
            raise BadTrainingData("The masks are empty, so there is nothing to learn", remedy="paint or run first")
        learnt = fine_tune(
            model,
            cases,
            learns=learns,
            minutes=minutes,
            folder=fine_tunings(),
            progress=progress,
            cancel=cancel,
            on_step=emit,
        )
        keep_sides(place, known, sides)
        self._models[learnt.card.key, device] = learnt
        return Learnt(learnt.card.key, tuple(learnt.card.notes))

    def compare(
        self,
        lessons: Sequence[Lesson],
        old_key: str,
        new_key: str,
        device: str = "auto",
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Compared:
        """Measure two versions on the held-out cases, and on the case being worked on."""
        from napari_medt.training.gate import changes, judge

        report = progress or silent
        models = self._model(old_key, device), self._model(new_key, device)
        sides = self._sides([lesson.who for lesson in lessons], models[0].card.name)
        chosen = [le for le in lessons if le.who.current or sides[le.who.patient] == "held out"]
        held_out: tuple[list[Scores], list[Scores]] = [], []
        here: tuple[list[Scores], list[Scores]] = [], []
        difference, drawn = None, ()
        for number, lesson in enumerate(chosen):
            taught = read_lesson(lesson)
            found = []
            for turn, model in enumerate(models):
                report(2 * number + turn, 2 * len(chosen), f"Measuring on {lesson.who.name}")
                found.append(_predicted(model, taught.image, cancel))
            scores = [_scores(taught, each, models[1].card) for each in found]
            for wanted, side in ((sides[lesson.who.patient] == "held out", held_out), (lesson.who.current, here)):
                if wanted:
                    for of_version, each in zip(side, scores, strict=True):
                        of_version.append(each)
            if lesson.who.current:
                difference = _difference(taught, found)
                drawn = tuple(_over_picture(taught, each.labels) for each in found)
        outside = changes(*held_out)
        return Compared(old_key, new_key, outside, changes(*here), judge(outside), difference, drawn)

    def _sides(self, who: Sequence[Who], name: str) -> dict[str, Any]:
        from napari_medt.training.sides import draw_sides, load_sides, with_former

        known = with_former(load_sides(_sides_of(name)), [(one.patient, one.former) for one in who])
        wanted = [one.patient for one in who if one.hold_out]
        last = next((one.patient for one in who if one.current), "")
        return dict(draw_sides(known, patients(who), wanted=wanted, last=last))

    def _corrections(self, taught: Taught, model: Model, *, held_out: bool, group: str) -> Iterator[Correction]:
        """A case as a model learns from it: whole, or for a 2D model the slices of a scan in which something was reviewed."""
        from napari_medt.engine.prepare import fit
        from napari_medt.training.corrections import Correction

        card = model.card
        if card.overlapping:
            raise BadTrainingData(
                f"{card.title} finds structures that overlap, which one mask cannot teach",
                remedy="choose another model",
            )
        if taught.reviewed is not None and not taught.reviewed.any():
            return
        known = {"patient": taught.who.patient, "held_out": held_out, "group": group}
        axes = slicing(taught.image, card)
        if axes is None:
            yield Correction(taught.image, taught.labels, reviewed=taught.reviewed, edited=taught.edited, **known)
            return
        labels, edited, reviewed = (
            None if each is None else axes.apply(each) for each in (taught.labels, taught.edited, taught.reviewed)
        )
        scale = fit(taught.image, card).scale
        for number in _slices(labels, edited, reviewed):
            yield Correction(
                one_slice(taught.image, axes, number),
                labels[number],
                reviewed=None if reviewed is None else reviewed[number],
                edited=None if edited is None else edited[number],
                scale=scale,
                **known,
            )


def read_lesson(lesson: Lesson) -> Taught:
    """Read a lesson, and put its mask where a model sees the image.

    Raises
    ------
    MedtError
        If the image or its case cannot be read.
    """
    if lesson.image is not None and lesson.labels is not None:
        shown, scan = mended(lesson.image, lesson.fixes), lesson.scan
        labels, edited, accepted = lesson.labels, lesson.edited, lesson.accepted
        scan = None if scan is None else mended(scan, lesson.fixes)
    else:
        shown, scan, labels, edited, accepted = _from_disk(lesson)
    if labels.shape != shown.spatial_shape:
        raise BadTrainingData(
            f"The mask of {lesson.who.name} of shape {labels.shape} does not fit its picture of shape {shown.spatial_shape}",
            remedy="run the model again",
        )
    edited = np.zeros(labels.shape, bool) if edited is None else edited
    reviewed = None if accepted else looked_at(edited)
    edited = edited if edited.any() else None
    if scan is None:
        return Taught(lesson.who, shown, labels, edited, reviewed, shown, labels)

    def over(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else labels_on_scan(array.astype(np.uint8), shown, scan) > 0

    there = labels_on_scan(labels, shown, scan)
    return Taught(lesson.who, scan, there, over(edited), over(reviewed), shown, labels)


def _from_disk(lesson: Lesson) -> tuple[Volume, Volume | None, np.ndarray, np.ndarray, bool]:
    """The picture as the viewer would show it, the scan it is a copy of, its mask, what was edited, whether it is accepted."""
    from napari_medt._napari_io.as_layers import image_layers
    from napari_medt._napari_io.origin import origin_of
    from napari_medt.cases import CaseFolder, image_digest
    from napari_medt.io import read

    assert lesson.path is not None
    assert lesson.root is not None
    volume = read(lesson.path, choose=lesson.choose)
    begun = None
    for data, options, _ in image_layers(volume, lesson.who.name)[0]:
        origin = origin_of(options["metadata"])
        array = data[0] if options.get("multiscale") else data
        shown = Volume.from_array(np.asarray(array), rgb=options["rgb"], geometry=origin.shown, source=volume.source)
        if not (lesson.root / image_digest(shown)).is_dir():
            continue
        with CaseFolder.open(shown, root=lesson.root) as case:
            found = case.recover()
            if found is not None:
                edited = case.journal().edited_mask(found.labels.shape).by > 0
                begun = shown, origin.scan, found.labels, edited, case.status == "accepted"
                if case.status == "accepted":  # which counts before a draft on another channel
                    break
    if begun is not None:
        return begun
    raise MedtError(f"The mask of {lesson.who.name} was not found", remedy="open that case once")


def _slices(labels: np.ndarray, edited: np.ndarray | None, reviewed: np.ndarray | None) -> list[int]:
    """Along the first axis, slices with something on them, or edited, at most so many, evenly spread."""
    filled = labels.astype(bool) if edited is None else (labels > 0) | edited
    if reviewed is not None:
        filled = filled & reviewed
    at = np.flatnonzero(filled.any(axis=(1, 2)))
    if not at.size:
        return []
    return [int(z) for z in at[np.unique(np.linspace(0, len(at) - 1, min(MOST_SLICES, len(at))).round().astype(int))]]


def _predicted(model: Model, image: Volume, cancel: Cancel | None) -> Prediction:
    from napari_medt.engine.running import predict

    return predict(model, image, cancel=cancel)


def _scores(taught: Taught, found: Prediction, card: ModelCard) -> Scores:
    """Of one version on one case; what nobody reviewed does not count."""
    from napari_medt.measure import compare
    from napari_medt.training.gate import MEASURES

    geometry, scores = found.geometry, {}
    for value, name in enumerate(card.classes[1:], start=1):
        predicted, true = found.labels == value, taught.labels == value
        if taught.reviewed is not None:
            predicted, true = predicted & taught.reviewed, true & taught.reviewed
        measured = compare(
            predicted,
            true,
            spacing=geometry.spacing,
            units=geometry.units,
            metrics=MEASURES,
            tolerance=TOLERANCE,
            both_empty="not applicable",
        )
        scores |= {(name, measure): measured[measure] for measure in MEASURES}
    return scores


def _difference(taught: Taught, found: Sequence[Prediction]) -> np.ndarray:
    """Where the new version is right and the old was not, and the other way round, as far as anybody knows what is right."""
    old, new = (each.labels for each in found)
    made = np.zeros(taught.labels.shape, np.uint8)
    other = old != new if taught.reviewed is None else (old != new) & taught.reviewed
    made[other & (new == taught.labels)] = MENDED
    made[other & (old == taught.labels)] = SPOILT
    return _over_picture(taught, made)


def _over_picture(taught: Taught, labels: np.ndarray) -> np.ndarray:
    """Labels of the image that a model sees, on the grid of the picture that is shown."""
    return labels if taught.shown is taught.image else labels_on_scan(labels, taught.image, taught.shown)


def _sides_of(name: str) -> Path:
    return fine_tunings() / f"{name}-sides.json"
