"""Files to volumes and back: scans, slides and pictures of every usual format; every write is all or nothing."""

from napari_medt.io.atomic import atomic_write
from napari_medt.io.joining import join_channels
from napari_medt.io.kinds import FORMATS
from napari_medt.io.reading import list_series, read, read_labels, read_segmentation
from napari_medt.io.resampling import resample
from napari_medt.io.writing import write

__all__ = [
    "FORMATS",
    "atomic_write",
    "join_channels",
    "list_series",
    "read",
    "read_labels",
    "read_segmentation",
    "resample",
    "write",
]
