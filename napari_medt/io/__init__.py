"""Files to volumes and back: TIFF with its pixel size, PNG, JPEG and BMP; every write is all or nothing."""

from napari_medt.io.atomic import atomic_write
from napari_medt.io.reading import FORMATS, read, read_labels
from napari_medt.io.writing import write

__all__ = ["FORMATS", "atomic_write", "read", "read_labels", "write"]
