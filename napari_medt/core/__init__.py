"""What every room speaks: volumes, geometry, results, errors, progress and cancel."""

from napari_medt.core.axes import AxisMap
from napari_medt.core.errors import (
    AmbiguousImage,
    BadCase,
    BadEdit,
    BadImage,
    BadModel,
    BadTrainingData,
    BadWeights,
    Cancelled,
    Choice,
    ClusterError,
    ClusterGone,
    DeviceError,
    MedtError,
    NothingToChange,
    OutOfMemory,
    OverlapFound,
    StorageError,
)
from napari_medt.core.geometry import Geometry
from napari_medt.core.progress import Cancel, Control, Progress, silent
from napari_medt.core.volume import Acquisition, AttentionMap, HeadRow, LabelMap, Prediction, Volume

__all__ = [
    "Acquisition",
    "AmbiguousImage",
    "AttentionMap",
    "AxisMap",
    "BadCase",
    "BadEdit",
    "BadImage",
    "BadModel",
    "BadTrainingData",
    "BadWeights",
    "Cancel",
    "Cancelled",
    "Choice",
    "ClusterError",
    "ClusterGone",
    "Control",
    "DeviceError",
    "Geometry",
    "HeadRow",
    "LabelMap",
    "MedtError",
    "NothingToChange",
    "OutOfMemory",
    "OverlapFound",
    "Prediction",
    "Progress",
    "StorageError",
    "Volume",
    "silent",
]
