"""What every room speaks: volumes, geometry, results, errors, progress and cancel."""

from napari_medt.core.errors import (
    BadCase,
    BadImage,
    BadModel,
    BadTrainingData,
    BadWeights,
    Cancelled,
    DeviceError,
    MedtError,
    OutOfMemory,
    StorageError,
)
from napari_medt.core.progress import Cancel, Progress, silent
from napari_medt.core.volume import AttentionMap, Geometry, Prediction, Volume

__all__ = [
    "AttentionMap",
    "BadCase",
    "BadImage",
    "BadModel",
    "BadTrainingData",
    "BadWeights",
    "Cancel",
    "Cancelled",
    "DeviceError",
    "Geometry",
    "MedtError",
    "OutOfMemory",
    "Prediction",
    "Progress",
    "StorageError",
    "Volume",
    "silent",
]
