"""A run as its case keeps it, to and from what the window knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_medt.cases import DoubtfulPlace, Fix, LastRun
from napari_medt.widgets.answers import Doubt, Found, Hint

REGION = "roi"


@dataclass(frozen=True, eq=False)
class Ran:
    """A run that put its result on a mask, and how unsure the model was where it was asked."""

    run: LastRun
    uncertainty: np.ndarray | None = None


def ran(found: Found, card: Any, *, wishes: Mapping[str, Any], device: str, fixes: tuple[Hint, ...]) -> Ran:
    """Note a run of a model by its card, on a picture with which something was done about hints."""
    settings = {name: _plain(value) for name, value in wishes.items()} | {"device": device}
    places = [
        DoubtfulPlace(centre=doubt.centre, size=float(doubt.size), share=float(doubt.share), name=doubt.name)
        for doubt in found.doubtful
    ]
    run = LastRun(
        model=card.key,
        title=card.title,
        weights_sha256=card.sha256,
        classes=found.prediction.classes,
        settings=settings,
        fixes=tuple(Fix(name=hint.fix, values=hint.values) for hint in fixes),
        doubtful=tuple(places),
    )
    return Ran(run, found.prediction.uncertainty)


def doubts_of(run: LastRun) -> tuple[Doubt, ...]:
    """Doubtful places as they are listed."""
    return tuple(Doubt(place.centre, place.size, place.share, place.name) for place in run.doubtful)


def hints_of(run: LastRun) -> tuple[Hint, ...]:
    """What was done about the picture, as its layer keeps it."""
    return tuple(Hint("", fix=fix.name, values=fix.values) for fix in run.fixes)


def _plain(value: Any) -> Any:
    """As JSON can hold it; of a region the beginning and end along each axis."""
    return [[part.start, part.stop] for part in value] if isinstance(value, tuple) else value
