"""What napari calls to open and to save files; reading and writing itself is done by `napari_medt.io`."""

from napari_medt._napari_io.finding import get_reader
from napari_medt._napari_io.writing import write_image, write_labels

__all__ = ["get_reader", "write_image", "write_labels"]
