"""Trained models: cards, weights, versions, and other people's checkpoints. Listing models needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medt.zoo.card import Intensity, ModelCard, Score
from napari_medt.zoo.carrying import add_model
from napari_medt.zoo.check import CheckResult, check_model
from napari_medt.zoo.export import export_model
from napari_medt.zoo.shelf import broken_models, list_models, models_folder, versions
from napari_medt.zoo.store import load_model, save_model, save_version

if TYPE_CHECKING:
    from napari_medt.zoo.model import Model

__all__ = [
    "CheckResult",
    "Intensity",
    "Model",
    "ModelCard",
    "Score",
    "add_model",
    "broken_models",
    "check_model",
    "export_model",
    "list_models",
    "load_model",
    "models_folder",
    "save_model",
    "save_version",
    "versions",
]


def __getattr__(name: str) -> Any:
    """`Model` holds a torch module, so it is loaded only when it is asked for."""
    if name == "Model":
        from napari_medt.zoo.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
