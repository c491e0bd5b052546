"""Training: recipes, fine-tuning, evaluation, comparison of networks. What needs torch is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medt.training.bundle import train
    from napari_medt.training.comparing import run_study
    from napari_medt.training.evaluation import evaluate
    from napari_medt.training.fine_tuning import fine_tune

__all__ = ["evaluate", "fine_tune", "run_study", "train"]

# The modules are not named like the doors: an imported submodule would take the place of the function.
_PLACES = {"evaluate": "evaluation", "fine_tune": "fine_tuning", "run_study": "comparing", "train": "bundle"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
