"""What the window tells the calculation process about cases to learn from, and what it answers: plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medt.core import Volume
from napari_medt.training.gate import Change, Verdict


@dataclass(frozen=True)
class Who:
    """One case, as far as sides and counts need it.

    Attributes
    ----------
    name, patient
        For people; the patient is what is never both learnt from and held out.
    current
        Whether it is the case being worked on.
    hold_out
        Whether the user wants it only to be measured on.
    former
        What the patient may have been called in earlier rounds.
    """

    name: str
    patient: str
    current: bool = False
    hold_out: bool = False
    former: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Lesson:
    """A corrected case: what is open in the viewer with its values, what is not as the place it is read from.

    Attributes
    ----------
    who
        Whose it is.
    image, scan, fixes
        As `Session.put_image` takes them; `None` where it is to be read.
    labels, edited
        The mask over `image`, and where a person changed it.
    accepted
        Whether a person vouches for all of the mask.
    path, choose, root
        The image's file as `read` takes it, and the folder in which its case lies.
    """

    who: Who
    image: Volume | None = None
    scan: Volume | None = None
    fixes: tuple[Any, ...] = ()
    labels: np.ndarray | None = None
    edited: np.ndarray | None = None
    accepted: bool = False
    path: Path | None = None
    choose: tuple[str, ...] = ()
    root: Path | None = None


@dataclass(frozen=True)
class LearnAhead:
    """What a fine-tuning will take: cases learnt from and held out, samples rehearsed, seconds a step, memory."""

    cases: int
    held_out: int
    rehearsal: int
    seconds_per_step: float
    memory_mb: float


@dataclass(frozen=True)
class Learnt:
    """What a fine-tuning stored."""

    key: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Compared:
    """Two versions side by side.

    Attributes
    ----------
    old, new
        Keys of the versions.
    held_out, here
        What changed on the held-out cases, and on the case being worked on.
    verdict
        Whether the new one may take the old one's place.
    difference
        Over the picture: 1 where the new version mends, 2 where it spoils, what the mask says; `None` without a picture.
    drawn
        Over the picture: what the old and what the new version drew.
    """

    old: str
    new: str
    held_out: tuple[Change, ...]
    here: tuple[Change, ...]
    verdict: Verdict
    difference: np.ndarray | None = None
    drawn: tuple[np.ndarray, ...] = ()


def patients(who: Iterable[Who]) -> list[str]:
    """The patients of cases, each once."""
    return list(dict.fromkeys(one.patient for one in who))
