"""The few things the dock remembers from one session to the next: the model in use, the folder, a job under way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_medt.io import atomic_write
from napari_medt.zoo.shelf import home


def _place() -> Path:
    return home() / "review.json"


def checkpoint_left() -> bool:
    """Return whether a fine-tuning that did not come to its end left something to go on from."""
    return any(fine_tunings().glob("*.pt"))


def fine_tunings() -> Path:
    """Return the folder in which a fine-tuning keeps what a crash would lose."""
    return home() / "learning"


def remembered() -> dict[str, Any]:
    """Return what is remembered; nothing where there is nothing, or where it is damaged."""
    try:
        found = json.loads(_place().read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(**values: Any) -> None:
    """Remember these beside the others; an empty value is forgotten.

    Raises
    ------
    StorageError
        If the disk refuses it.
    """
    kept = {name: value for name, value in {**remembered(), **values}.items() if value}
    place = _place()
    place.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(place, json.dumps(kept, indent=1).encode())
