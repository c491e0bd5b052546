"""Which patients a model learns from and which it is only measured on: decided once, and kept for good."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from napari_medt.io import atomic_write

Side = Literal["learnt", "held out"]
FEWEST = 3  # patients, before one of them is held out unasked
SHARE = 0.2


def stand_in(patient: str) -> str:
    """Stands for a patient in files, where names have no place."""
    return hashlib.sha256(patient.encode()).hexdigest()[:16]


def draw_sides(
    known: Mapping[str, Side], patients: Sequence[str], *, wanted: Collection[str] = (), last: str = ""
) -> dict[str, Side]:
    """Say for each patient whether it is learnt from or held out.

    Who was learnt from is never held out later, nor the other way round, as scores would mean nothing then. Of three patients
    one is held out, of many one in five, drawn by a digest; as far as there are new ones.

    Parameters
    ----------
    known
        Sides of earlier rounds, by `stand_in`.
    patients
        Of this round.
    wanted
        Patients the user wants held out.
    last
        The patient who is held out only if the user wants that: the one who is being worked on.

    Examples
    --------
    >>> draw_sides({}, ["a", "b"])
    {'a': 'learnt', 'b': 'learnt'}
    >>> draw_sides({}, ["a", "b"], wanted=["b"])
    {'a': 'learnt', 'b': 'held out'}
    """
    marks = {stand_in(patient): patient for patient in patients}
    sides = {mark: known[mark] for mark in marks if mark in known}
    new = sorted(mark for mark in marks if mark not in known)
    for mark in new:
        if marks[mark] in wanted:
            sides[mark] = "held out"
    needed = max(1, round(SHARE * len(marks))) if len(marks) >= FEWEST else 0
    for mark in new:
        if list(sides.values()).count("held out") >= needed:
            break
        if mark not in sides and marks[mark] != last:
            sides[mark] = "held out"
    return {patient: sides.get(mark, "learnt") for mark, patient in marks.items()}


def load_sides(path: Path) -> dict[str, Side]:
    """Read what earlier rounds decided; nothing where there was none, or where the file is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {mark: side for mark, side in found.items() if side in ("learnt", "held out")}


def with_former(known: Mapping[str, Side], names: Iterable[tuple[str, Collection[str]]]) -> dict[str, Side]:
    """Let patients keep the side they had under a former name; who was learnt from under any of them was learnt from.

    Parameters
    ----------
    known
        Sides of earlier rounds, by `stand_in`.
    names
        Patients, each with what it may have been called.

    Examples
    --------
    >>> with_former({stand_in("scan.nii.gz"): "held out"}, [("scan", ["scan.nii.gz"])])[stand_in("scan")]
    'held out'
    """
    found = dict(known)
    for patient, former in names:
        mark = stand_in(patient)
        sides = {known[old] for name in former if (old := stand_in(name)) in known}
        if sides and mark not in known and found.get(mark) != "learnt":
            found[mark] = "learnt" if "learnt" in sides else "held out"
    return found


def keep_sides(path: Path, known: Mapping[str, Side], sides: Mapping[str, Side]) -> None:
    """Write down a round beside the earlier ones.

    Raises
    ------
    StorageError
        If the disk refuses it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = {stand_in(patient): side for patient, side in sides.items()}
    atomic_write(path, json.dumps({**known, **new}, indent=1).encode())
