"""Where a model looked, as the dock asks: the calculation process's side, without Qt and napari."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt.core import AttentionMap, AxisMap, BadImage, Cancel, Progress, Volume
from napari_medt.widgets import texts
from napari_medt.widgets.answers import Belief, HeadLine, Question
from napari_medt.widgets.latest import kept
from napari_medt.widgets.one_slice import one_slice, slicing
from napari_medt.widgets.straight import labels_on_scan, map_on_copy

if TYPE_CHECKING:
    from napari_medt.attention import AttentionExplorer
    from napari_medt.engine.planes import Plane
    from napari_medt.engine.prepare import Scale
    from napari_medt.zoo import Model

EXPLORERS = 3
MEMORY_MB = 160
"""Of each explorer, so that no more than `EXPLORERS` times this is kept to answer quickly, whatever the size of the image."""

SMALL = 48
"""Largest edge of the small pictures of a table of heads."""

PREPARED = 3
"""Along each axis of a slice, places whose windows are prepared before the first click."""

FEW_WINDOWS = PREPARED**3
"""Of so few windows of a scan all are prepared, so that every click is answered at once."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One picture under one model: as it is shown, as the model sees it, and in which plane its slices are cut."""

    token: str
    shown: Volume
    seen: Volume
    model: str
    device: str
    plane: Plane | None


class Looks:
    """Answers questions about attention; keeps what it needs to answer the next one quickly, within a bound.

    Parameters
    ----------
    load
        Gives a model by its key and device.
    """

    def __init__(self, load: Callable[[str, str], Model]) -> None:
        self._load = load
        self._explorers: OrderedDict[tuple[Any, ...], AttentionExplorer] = OrderedDict()
        self._scales: dict[tuple[Any, ...], Scale] = {}
        self._compared: tuple[tuple[Any, ...], dict[tuple[str, int | None], AttentionMap]] = ((), {})

    def forget(self, *, but: Collection[str] = ()) -> None:
        """Let go of all images but those with these tokens."""
        for store in (self._explorers, self._scales):
            for key in [key for key in store if key[0] not in but]:
                del store[key]
        if self._compared[0] and self._compared[0][0] not in but:
            self._compared = ((), {})

    def prepare(
        self, subject: Subject, at: tuple[int, ...], *, progress: Progress | None, cancel: Cancel | None
    ) -> None:
        """Pass through the network what is likely to be asked about next."""
        explorer = self._explorer(subject)
        if subject.seen.geometry.ndim == 2 or explorer.windows <= FEW_WINDOWS:
            explorer.warm(progress=progress, cancel=cancel)
            return
        lines = [
            [at[0]],
            *([n * (2 * k + 1) // (2 * PREPARED) for k in range(PREPARED)] for n in subject.shown.spatial_shape[1:]),
        ]
        last = explorer.sources()[-1]
        for place in product(*lines):
            if cancel is not None:
                cancel.check()
            with suppress(BadImage):  # a place that the scan does not reach, or where the model did not look
                explorer.pick(_point(subject, place), source=last)

    def look(
        self, subject: Subject, question: Question, *, progress: Progress | None, cancel: Cancel | None
    ) -> list[AttentionMap]:
        """Where the model looked, on the grid of what is shown where the scan lies at an angle to it."""
        from napari_medt.attention import difference

        found = self._answers(subject, question, progress, cancel)
        if question.against:
            other = self._answers(replace(subject, model=question.against), question, progress, cancel)
            cards = (self._load(key, subject.device).card for key in (subject.model, question.against))
            this, that = (texts.version_name(card.title, card.version) for card in cards)
            found = [replace(difference(found[0], other[0]), caption=texts.has_more(this, that, question.what))]
        if subject.shown is not subject.seen:
            found = [map_on_copy(one, subject.shown, subject.seen) for one in found]
        return [replace(one, query=question.at if question.what == "point" else None) for one in found]

    def compare_heads(
        self, subject: Subject, at: tuple[int, ...], *, progress: Progress | None, cancel: Cancel | None
    ) -> tuple[HeadLine, ...]:
        """All heads of all sources; their maps are kept, so that each can be shown at once."""
        from napari_medt.attention.heads import agreement

        explorer = self._of_slice(subject, at)
        rows = explorer.head_table(progress=progress, cancel=cancel)
        maps = explorer.overviews(each_head=True, progress=progress, cancel=cancel)
        by_source: dict[str, list[AttentionMap]] = {}
        for found in maps:
            by_source.setdefault(found.source, []).append(found)
        agreed = {
            name: float(agreement(np.stack([one.data for one in found])).mean())
            for name, found in by_source.items()
            if len(found) > 1
        }
        kept: dict[tuple[str, int | None], AttentionMap] = {}
        lines = []
        for row in rows:
            found = by_source[row.source][row.head]
            kept[row.source, row.head if row.source in agreed else None] = found
            lines.append(HeadLine(**vars(row), agreement=agreed.get(row.source), small=small(found.data)))
        self._compared = self._slice_key(subject, at), kept
        return tuple(lines)

    def check(
        self, subject: Subject, question: Question, structure: int, *, progress: Progress | None, cancel: Cancel | None
    ) -> Belief:
        """Whether the model needs the places that the map of a question marks."""
        from napari_medt.attention import check_faithfulness

        model = self._load(subject.model, subject.device)
        scale = self._scale(subject)
        if model.card.spatial_dims < subject.seen.geometry.ndim:
            subject, question = self._flat(subject, question)
        else:
            subject, question = self._straight(subject, question)
        explorer = self._new(subject, scale)
        (found, *_) = self._answers(subject, question, progress, cancel, explorer)
        checked = check_faithfulness(
            model,
            subject.seen,
            found,
            structure=structure,
            region=_mask(subject, question) if question.inside is not None else None,
            scale=scale,
            progress=progress,
            cancel=cancel,
        )
        return Belief(
            checked.structure, checked.score, checked.interval, checked.chance, checked.verdict, checked.sentence
        )

    # --------------------------------------------------------------------------------------------------------- answering

    def _answers(
        self,
        subject: Subject,
        question: Question,
        progress: Progress | None,
        cancel: Cancel | None,
        explorer: AttentionExplorer | None = None,
    ) -> list[AttentionMap]:
        source, head, watch = question.source, question.head, {"progress": progress, "cancel": cancel}
        if question.what == "point":
            explorer = explorer or self._explorer(subject)
            return explorer.pick(_point(subject, question.at), source=source, head=head)
        if question.what == "right and wrong":
            return self._right_and_wrong(subject, question, **watch)
        if question.inside is not None:
            explorer = explorer or self._explorer(subject)
            return [explorer.structure(_mask(subject, question), source=source, head=head, **watch)]
        if question.what == "agreement":
            return [(explorer or self._of_slice(subject, question.at)).agreement(source, **watch)]
        where, kept = self._compared
        if (source, head) in kept and where == self._slice_key(subject, question.at):
            return [kept[source, head]]
        return [(explorer or self._of_slice(subject, question.at)).overview(source, head, **watch)]

    def _right_and_wrong(self, subject: Subject, question: Question, **watch: Any) -> list[AttentionMap]:
        from napari_medt.attention import right_and_wrong, wrong_against_right

        assert question.inside is not None
        start, (drawn, meant) = question.inside
        explorer = self._explorer(subject)
        maps = []
        for part in right_and_wrong(drawn, meant, True):
            mask = _mask(subject, replace(question, inside=(start, part)))
            maps.append(explorer.structure(mask, source=question.source, head=question.head, **watch))
        return wrong_against_right(*maps)

    # ---------------------------------------------------------------------------------------------------------- explorers

    def _new(self, subject: Subject, scale: Scale | None) -> AttentionExplorer:
        from napari_medt.attention import AttentionExplorer

        model = self._load(subject.model, subject.device)
        return AttentionExplorer(model, subject.seen, scale=scale, plane=subject.plane, memory_mb=MEMORY_MB)

    def _explorer(self, subject: Subject) -> AttentionExplorer:
        key = (subject.token, subject.model, subject.device, subject.plane)
        return self._kept(key, lambda: self._new(subject, self._scale(subject)))

    def _of_slice(self, subject: Subject, at: tuple[int, ...]) -> AttentionExplorer:
        """Of a scan under a 2D model, an explorer of one slice alone; else of the whole image."""
        axes = self._slices(subject)
        if axes is None:
            return self._explorer(subject)
        axis = axes.order[0]
        here = _on_scan(subject, at)[axis]
        start = [here if number == axis else 0 for number in range(3)]
        volume = subject.seen
        part = replace(
            volume,
            array=volume.array[(slice(None), *(slice(here, here + 1) if s == axis else slice(None) for s in range(3)))],
            geometry=volume.geometry.part(start),
            levels=(),
        )
        return self._kept(
            self._slice_key(subject, at), lambda: self._new(replace(subject, seen=part), self._scale(subject))
        )

    def _slice_key(self, subject: Subject, at: tuple[int, ...]) -> tuple[Any, ...]:
        axes = self._slices(subject)
        here = None if axes is None else _on_scan(subject, at)[axes.order[0]]
        return (subject.token, subject.model, subject.device, subject.plane, here)

    def _slices(self, subject: Subject) -> AxisMap | None:
        return slicing(subject.seen, self._load(subject.model, subject.device).card, subject.plane)

    def _scale(self, subject: Subject) -> Scale:
        """Intensities as a run on the whole image sees them."""
        from napari_medt.engine.prepare import fit

        key = (subject.token, subject.model)
        if key not in self._scales:
            self._scales[key] = fit(subject.seen, self._load(subject.model, subject.device).card).scale
        return self._scales[key]

    def _kept(self, key: tuple[Any, ...], make: Callable[[], AttentionExplorer]) -> AttentionExplorer:
        return kept(self._explorers, key, make, EXPLORERS)

    # ------------------------------------------------------------------------------------------------ one slice for itself

    def _straight(self, subject: Subject, question: Question) -> tuple[Subject, Question]:
        """The same question with places on the grid that the model sees."""
        if subject.shown is subject.seen:
            return subject, question
        at = _on_scan(subject, question.at) if question.at else ()
        inside = None
        if question.inside is not None:
            inside = ((0,) * subject.seen.geometry.ndim, _mask(subject, question))
        return replace(subject, shown=subject.seen), replace(question, at=at, inside=inside)

    def _flat(self, subject: Subject, question: Question) -> tuple[Subject, Question]:
        """The slice of a scan that a question is about, as a 2D image of its own."""
        axes = self._slices(subject)
        assert axes is not None
        shape = subject.seen.spatial_shape
        place = _on_scan(subject, question.at) if question.at else tuple(n // 2 for n in shape)
        turned = [
            shape[old] - 1 - place[old] if flip else place[old]
            for old, flip in zip(axes.order, axes.flips, strict=True)
        ]
        flat = one_slice(subject.seen, axes, turned[0])
        inside = None
        if question.inside is not None:
            inside = ((0, 0), axes.apply(_mask(subject, question))[turned[0]])
        asked = replace(question, at=tuple(turned[1:]), inside=inside)
        return replace(subject, shown=flat, seen=flat, plane=None), asked


def _on_scan(subject: Subject, at: tuple[int, ...]) -> tuple[int, ...]:
    """A place of what is shown, on the grid of what the model sees."""
    if subject.shown is subject.seen:
        return tuple(at)
    index = subject.seen.geometry.index(subject.shown.geometry.position(at))
    return tuple(int(i) for i in np.rint(index))


def _point(subject: Subject, at: tuple[int, ...]) -> tuple[int, ...]:
    """As `_on_scan`, for a place that is asked about.

    Raises
    ------
    BadImage
        If it lies in a corner of a copy turned straight that the scan does not reach.
    """
    place = _on_scan(subject, at)
    if not all(0 <= i < n for i, n in zip(place, subject.seen.spatial_shape, strict=True)):
        raise BadImage("The point lies in a corner that the scan does not reach", remedy="choose a point in the scan")
    return place


def _mask(subject: Subject, question: Question) -> np.ndarray:
    """Where the structure of a question is, on the grid of what the model sees."""
    from napari_medt.attention import component

    assert question.inside is not None
    start, crop = question.inside
    inside = np.zeros(subject.shown.spatial_shape, dtype=bool)
    box = tuple(slice(first, first + n) for first, n in zip(start, crop.shape, strict=True))
    if question.what == "piece":
        crop = component(crop, tuple(i - first for i, first in zip(question.at, start, strict=True)))
    inside[box] = crop
    if subject.shown is subject.seen:
        return inside
    return labels_on_scan(inside.astype(np.uint8), subject.shown, subject.seen).astype(bool)


def small(data: np.ndarray) -> np.ndarray:
    """A small picture of a map, 8-bit; of a volume its mean along the first axis."""
    flat = data if data.ndim == 2 else data.mean(axis=0)
    step = -(-max(flat.shape) // SMALL)
    part = flat[::step, ::step]
    high = float(part.max())
    return (part * (255 / high if high > 0 else 0)).clip(0, 255).astype(np.uint8)
