"""What the calculation process answers the window: plain values, without Qt, napari and torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_medt.core import Prediction


@dataclass(frozen=True)
class Doubt:
    """A region in which a run was unsure; `engine.regions` finds them, but is not for the window.

    Attributes
    ----------
    centre
        In the world of the picture.
    size
        In cubic or square units of the picture.
    share
        Mean uncertainty.
    name
        Of the class that most of it has, empty for the background.
    """

    centre: tuple[float, ...]
    size: float
    share: float
    name: str = ""


@dataclass(frozen=True)
class Hint:
    """Something about an image that does not suit the model; `engine.suitability` says it, but is not for the window.

    Attributes
    ----------
    what, remedy
        As of a `Misfit`.
    fix
        Name of what one click does about it, and the values for that; both empty where there is none.
    """

    what: str
    remedy: str = ""
    fix: str = ""
    values: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """What a run found: the prediction, the share of the picture each class takes, and where it is in doubt.

    `on_scan` are the labels on the grid of the scan, where the prediction is on that of a copy turned straight.
    """

    prediction: Prediction
    shares: list[float]
    doubtful: tuple[Doubt, ...] = ()
    on_scan: np.ndarray | None = None


@dataclass(frozen=True)
class Ahead:
    """What a run will take, and what about the image does not suit the model."""

    windows: int
    memory_mb: float
    seconds: float | None
    hints: tuple[Hint, ...] = ()
