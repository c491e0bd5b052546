"""What runs in the calculation process: it keeps the present image, model and attention, so that each is made only once.

Plain Python without Qt and napari; the window's process talks to it through `napari_medt.engine.process.WorkerProcess`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medt.core import AttentionMap, Cancel, Prediction, Progress, Volume
from napari_medt.widgets.answers import Ahead, Belief, Block, Doubt, Found, HeadLine, Hint, Question
from napari_medt.widgets.latest import keep_latest, kept
from napari_medt.widgets.looks import Looks, Subject
from napari_medt.widgets.straight import found_on_copy, region_of_scan

if TYPE_CHECKING:
    from napari_medt.engine.planes import Plane
    from napari_medt.zoo import Model

MISSING = "napari-medt: the image has not been sent"
"""Returned instead of a result when the image of a token is unknown, as after a restart of the process."""

ONLY_THERE = "Only the chosen region was segmented"
"""How `engine.predict` begins its note that the mask is empty outside a region."""


class Session:
    """Answers the dock's questions about images it was sent once.

    Images are referred to by a token. A model sees a scan at an angle as it lies in the file, not the straight copy that is
    shown; what it finds is put on the copy, and so are maps of its attention. Places are array indices of the image shown.
    """

    def __init__(self) -> None:
        self._images: OrderedDict[str, Volume] = OrderedDict()
        self._scans: dict[str, Volume] = {}
        self._models: OrderedDict[tuple[str, str], Model] = OrderedDict()
        self._pace: dict[tuple[Any, ...], float] = {}  # seconds a window, as a run took
        self._planes: dict[tuple[str, str], Plane | None] = {}  # in which a model last went through a scan
        self._looks = Looks(self._model)

    def warm_up(self) -> dict[str, Any]:
        """Load what is slow to load, and say which devices there are."""
        from napari_medt.attention import AttentionExplorer  # noqa: F401
        from napari_medt.engine.running import predict  # noqa: F401
        from napari_medt.zoo.devices import choose_device, list_devices

        return {"devices": list(list_devices()), "auto": str(choose_device("auto"))}

    def put_image(self, token: str, volume: Volume, fixes: Sequence[Hint] = (), scan: Volume | None = None) -> None:
        """Take an image, and do about it what the user clicked; `scan` is what it is a straight copy of. Two are kept."""
        self._images[token] = mended(volume, fixes)
        keep_latest(self._images, 2)
        known = set(self._images)
        self._scans = {key: kept for key, kept in self._scans.items() if key in known}
        if scan is not None:
            self._scans[token] = mended(scan, fixes)
        self._planes = {key: plane for key, plane in self._planes.items() if key[0] in known}
        self._looks.forget(but=known)

    def predict(
        self,
        token: str,
        model_key: str,
        device: str = "auto",
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **wishes: Any,
    ) -> Found | str:
        """Segment an image with the wishes `engine.predict` takes."""
        from napari_medt.engine.running import predict

        if token not in self._images:
            return MISSING
        model, volume = self._model(model_key, device), self._seen(token, wishes)
        self._planes[token, model_key] = wishes.get("plane")
        began, steps = time.monotonic(), [0]

        def told(done: int, total: int, message: str = "") -> None:
            steps[0] = total
            if progress is not None:
                progress(done, total, message)

        found = predict(model, volume, progress=told, cancel=cancel, **wishes)
        self._pace[_effort(model_key, device, wishes)] = (time.monotonic() - began) / max(1, steps[0])
        if "roi" in wishes:  # in the dock the mask is kept elsewhere
            found = replace(found, notes=tuple(note for note in found.notes if not note.startswith(ONLY_THERE)))
        shares = _shares(found)
        regions: tuple[Doubt, ...] = ()
        if found.uncertainty is not None:  # viewers draw float32; converting here keeps the window free
            found = replace(found, uncertainty=found.uncertainty.astype(np.float32))
            regions = _doubtful(found)
        on_scan = found.labels if token in self._scans else None
        if on_scan is not None:
            found = found_on_copy(found, self._images[token])
        return Found(found, shares, regions, on_scan)

    def take_up(self, token: str, model_key: str, plane: Plane | None = None) -> bool | str:
        """Go on from a run of an earlier session, in which slices were cut in a plane."""
        if token not in self._images:
            return MISSING
        self._planes[token, model_key] = plane
        return True

    def look_ahead(self, token: str, model_key: str, device: str = "auto", **wishes: Any) -> Ahead | str:
        """What a run with these wishes will take, and what about the image does not suit the model."""
        from napari_medt.engine.plan import plan

        if token not in self._images:
            return MISSING
        model, volume = self._model(model_key, device), self._seen(token, wishes)
        hints = _hints(volume, model)
        wishes.pop("compute", None)
        planned = plan(model, volume, **wishes)
        pace = self._pace.get(_effort(model_key, device, wishes))
        seconds = None if pace is None else pace * planned.windows
        return Ahead(planned.windows, planned.memory_mb, seconds, hints)

    def suiting(self, token: str) -> tuple[str, ...] | str:
        """Keys of the models that an image suits: first those whose attention can be shown, of these the best first."""
        from napari_medt.engine.suitability import suiting
        from napari_medt.nets import list_nets
        from napari_medt.zoo import list_models

        if token not in self._images:
            return MISSING
        found = suiting(self._seen(token), list_models())
        used = {card.architecture for card in found}
        shown = {net.name for net in list_nets() if net.name in used and net.sources}
        return tuple(card.key for card in sorted(found, key=lambda card: card.architecture not in shown))

    def sources(self, model_key: str, device: str = "auto") -> tuple[Block, ...]:
        """What can be asked of a model, from its input towards its output; empty where it shows no attention."""
        from napari_medt.attention import list_sources

        found = list_sources(self._model(model_key, device).net)
        return tuple(Block(source.name, source.kind, source.heads, source.level) for source in found)

    def prepare_attention(
        self,
        token: str,
        model_key: str,
        device: str = "auto",
        *,
        at: tuple[int, ...],
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> bool | str:
        """Pass the image, of a scan the surroundings of a place, through the network, so that a click is answered at once."""
        if token not in self._images:
            return MISSING
        self._looks.prepare(self._subject(token, model_key, device), at, progress=progress, cancel=cancel)
        return True

    def look(
        self,
        token: str,
        model_key: str,
        device: str,
        question: Question,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> list[AttentionMap] | str:
        """Where the model looked: the whole map first, then its parts where it has any."""
        if token not in self._images:
            return MISSING
        return self._looks.look(self._subject(token, model_key, device), question, progress=progress, cancel=cancel)

    def compare_heads(
        self,
        token: str,
        model_key: str,
        device: str = "auto",
        *,
        at: tuple[int, ...],
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> tuple[HeadLine, ...] | str:
        """All heads of all sources, of a 2D model in the slice of a place."""
        if token not in self._images:
            return MISSING
        return self._looks.compare_heads(self._subject(token, model_key, device), at, progress=progress, cancel=cancel)

    def check_map(
        self,
        token: str,
        model_key: str,
        device: str,
        question: Question,
        *,
        structure: int,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Belief | str:
        """Whether a map deserves belief."""
        if token not in self._images:
            return MISSING
        subject = self._subject(token, model_key, device)
        return self._looks.check(subject, question, structure, progress=progress, cancel=cancel)

    def forget(self) -> None:
        """Let go of images, models and attention."""
        self._images.clear()
        self._scans.clear()
        self._planes.clear()
        self._looks.forget()
        self._models.clear()

    def _seen(self, token: str, wishes: dict[str, Any] | None = None) -> Volume:
        """The image as a model sees it; a region among the wishes is put on its grid."""
        shown = self._images[token]
        scan = self._scans.get(token)
        if scan is not None and wishes and "roi" in wishes:
            wishes["roi"] = region_of_scan(wishes["roi"], shown, scan)
        return shown if scan is None else scan

    def _model(self, key: str, device: str) -> Model:
        from napari_medt.zoo import load_model

        return kept(self._models, (key, device), lambda: load_model(key, device=device), 2)

    def _subject(self, token: str, key: str, device: str) -> Subject:
        plane = self._planes.get((token, key))
        return Subject(token, self._images[token], self._seen(token), key, device, plane)


def _shares(found: Prediction) -> list[float]:
    """Of the picture, by class; the background's is what no structure takes."""
    counts = np.bincount(found.labels.ravel(), minlength=len(found.classes))
    if found.structures is not None:
        counts = np.array([counts[0], *(np.count_nonzero(inside) for inside in found.structures)])
    return [float(share) for share in counts / found.labels.size]


def _doubtful(found: Prediction) -> tuple[Doubt, ...]:
    from napari_medt.engine.regions import doubtful_regions

    geometry = found.geometry
    voxel = abs(float(np.linalg.det(geometry.affine[:-1, :-1])))
    return tuple(
        Doubt(
            tuple(float(value) for value in geometry.position(region.centre)),
            region.voxels * voxel,
            region.mean,
            found.classes[region.label] if region.label else "",
        )
        for region in doubtful_regions(found.uncertainty, geometry, labels=found.labels)
    )


def _hints(volume: Volume, model: Model) -> tuple[Hint, ...]:
    from napari_medt.engine.suitability import check

    found = []
    for misfit in check(volume, model.card):
        fix = misfit.fix
        values = () if fix is None else fix.channels if fix.kind == "take channels" else (fix.shift,)
        found.append(Hint(misfit.what, misfit.remedy, "" if fix is None else fix.kind, values))
    return tuple(found)


def mended(volume: Volume, fixes: Sequence[Hint]) -> Volume:
    """Return a picture with what hints proposed done about it."""
    from napari_medt.engine.suitability import Fix, mend

    for hint in fixes:
        if hint.fix == "take channels":
            volume = mend(volume, Fix("take channels", channels=tuple(int(value) for value in hint.values)))
        elif hint.fix == "shift values":
            volume = mend(volume, Fix("shift values", shift=hint.values[0]))
    return volume


def _effort(model_key: str, device: str, wishes: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the time of a window depends on."""
    return model_key, device, bool(wishes.get("flips")), wishes.get("uncertainty"), wishes.get("compute", "local")
