"""What the calculation process answers the window: plain values, without Qt, napari and torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_medt.core import HeadRow, Prediction


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


@dataclass(frozen=True)
class Block:
    """Something of a network that can be asked where it looked; `attention.Source`, but for the window."""

    name: str
    kind: str
    heads: int
    level: int


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked about attention.

    Attributes
    ----------
    what
        For one point, over the whole image, for a structure, for one connected piece of it, for what of a structure is right and
        what is wrong, or how far the heads agree.
    source, head
        As of `AttentionExplorer.pick`.
    at
        Array index of the image shown: the point, or one of the piece; for maps of the whole image any in the slice that is
        meant, since of a scan a 2D model is asked about one slice.
    inside
        Of a structure, the first index of the box around it, and where in the box it is; where it is held against a
        reference, `(2, *box)`, where it is drawn and where it is meant to be.
    label
        Of the structure, or of what the mask has at the point; 0 where there is none.
    against
        Key of another model, to show how much more this one looked.
    """

    what: Literal["point", "whole", "structure", "piece", "right and wrong", "agreement"]
    source: str
    head: int | None = None
    at: tuple[int, ...] = ()
    inside: tuple[tuple[int, ...], npt.NDArray[np.bool_]] | None = None
    label: int = 0
    against: str = ""


@dataclass(frozen=True, eq=False)
class HeadLine(HeadRow):
    """One head as the table shows it.

    Attributes
    ----------
    agreement
        Of all heads of the source with each other, 0 to 1; `None` where there is one alone.
    small
        A small picture of its map, 8-bit.
    """

    agreement: float | None
    small: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Belief:
    """Whether a map deserves belief; see `attention.Faithfulness`, whose words and figures these are."""

    structure: str
    score: float
    interval: tuple[float, float] | None
    chance: tuple[float, float]
    verdict: str
    sentence: str
