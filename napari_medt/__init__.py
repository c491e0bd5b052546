"""napari-medt: segment medical images with attention-based models, look, correct, teach, compare and sign off.

The public doors are listed in `__all__`; each is loaded when it is first used, so that importing the package is quick
and starting napari loads neither torch nor monai.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medt.attention import attention_maps, check_faithfulness
    from napari_medt.core import (
        AttentionMap,
        BadImage,
        BadModel,
        Cancel,
        Cancelled,
        Geometry,
        MedtError,
        Prediction,
        Volume,
    )
    from napari_medt.engine import predict
    from napari_medt.io import read, write
    from napari_medt.nets import create_net, list_nets
    from napari_medt.training import evaluate, fine_tune
    from napari_medt.zoo import Model, ModelCard, add_model, export_model, list_models, load_model

__version__ = "0.1.0"

_DOORS = {
    "AttentionMap": "core",
    "BadImage": "core",
    "BadModel": "core",
    "Cancel": "core",
    "Cancelled": "core",
    "Geometry": "core",
    "MedtError": "core",
    "Model": "zoo",
    "ModelCard": "zoo",
    "Prediction": "core",
    "Volume": "core",
    "add_model": "zoo",
    "attention_maps": "attention",
    "check_faithfulness": "attention",
    "create_net": "nets",
    "evaluate": "training",
    "export_model": "zoo",
    "fine_tune": "training",
    "list_models": "zoo",
    "list_nets": "nets",
    "load_model": "zoo",
    "predict": "engine",
    "read": "io",
    "write": "io",
}

__all__ = [
    "AttentionMap",
    "BadImage",
    "BadModel",
    "Cancel",
    "Cancelled",
    "Geometry",
    "MedtError",
    "Model",
    "ModelCard",
    "Prediction",
    "Volume",
    "__version__",
    "add_model",
    "attention_maps",
    "check_faithfulness",
    "create_net",
    "evaluate",
    "export_model",
    "fine_tune",
    "list_models",
    "list_nets",
    "load_model",
    "predict",
    "read",
    "write",
]


def __getattr__(name: str) -> Any:
    """Load a public door from its room when it is first used."""
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_DOORS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
