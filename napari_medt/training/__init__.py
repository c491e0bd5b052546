"""Training: recipes, fine-tuning on corrections, evaluation. What needs torch is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medt.training.bundle import train
    from napari_medt.training.evaluate import evaluate
    from napari_medt.training.fine_tune import fine_tune

__all__ = ["evaluate", "fine_tune", "train"]

_PLACES = {"evaluate": "evaluate", "fine_tune": "fine_tune", "train": "bundle"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = value  # also where the submodule of the same name has taken its place
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
