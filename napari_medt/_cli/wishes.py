"""What the options of the shell mean."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from napari_medt.core import MedtError


class Plane(StrEnum):
    """The slices a 2D model goes through."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


DOUBTS = ("entropy", "margin", "flips", "dropout")


def parse_region(text: str) -> tuple[slice | int, ...]:
    """Understand a region such as `10:20,:,5`, one part for each axis of the image.

    Raises
    ------
    MedtError
        If it is none.
    """
    try:
        return tuple(_part(part) for part in text.split(","))
    except ValueError:
        raise MedtError(
            f"The region {text!r} is none", remedy="give start and end for each axis, such as 10:60,0:256,0:256"
        ) from None


def _part(text: str) -> slice | int:
    if ":" not in text:
        return int(text)
    start, stop = (int(end) if end.strip() else None for end in text.split(":"))
    return slice(start, stop)


def parse_doubt(text: str) -> tuple[str, Path | None]:
    """Understand what is given as uncertainty: a kind, whose map goes beside the mask, or a file for the entropy."""
    return (text, None) if text in DOUBTS else ("entropy", Path(text))


def parse_names(text: str) -> dict[int, str]:
    """Understand names of labels such as `1=liver,2=spleen`, or `liver,spleen` for labels from 1 up.

    Raises
    ------
    MedtError
        If they are none.
    """
    names: dict[int, str] = {}
    for number, part in enumerate(text.split(","), start=1):
        value, equals, name = part.rpartition("=")
        if (equals and not value.strip().isdigit()) or not name.strip():
            raise MedtError(f"The names {text!r} are none", remedy="give them as 1=liver,2=spleen")
        names[int(value) if equals else number] = name.strip()
    return names
