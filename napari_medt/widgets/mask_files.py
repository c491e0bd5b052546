"""Masks to and from files, as the dock saves and loads them; all but `mask_endings` is done off the window's thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_medt._napari_io import write_labels
from napari_medt._napari_io.origin import origin_of
from napari_medt.core import MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets.mask_editor import MaskEditor


def writer(work: MaskEditor, image: Any, path: str | Path) -> Callable[[], Path]:
    """Return a function that writes the mask on the grid of the file the picture came from, with the names of its classes."""
    labels = work.snapshot()
    attributes = {
        **layers.spatial_state(image),
        "metadata": dict((image if work.mask is None else work.mask).metadata),
        **layers.names_of_classes(work.classes),
    }
    return lambda: Path(write_labels(str(path), labels, attributes)[0])


def reader(work: MaskEditor, image: Any, path: str | Path) -> Callable[[], tuple[np.ndarray, np.ndarray | None]]:
    """Return a function that reads a mask of the picture's size, or one that says where in the patient it lies.

    It gives the mask as it is shown, and as it lies on the grid of the scan where that is another one.
    """
    shape = work.shape
    origin = origin_of(image.metadata)
    if origin is not None and not origin.still_holds(layers.spatial_state(image), shape):
        origin = None

    def read() -> tuple[np.ndarray, np.ndarray | None]:
        from napari_medt.io import read_labels, read_segmentation

        if origin is None or origin.geometry.frame != "patient":
            return fitting(read_labels(path)[0], shape, Path(path).name), None
        found = read_segmentation(path, like=origin.stand_in())[0]
        shown = np.asarray(origin.forth(found).array)
        return fitting(shown, shape, Path(path).name), origin.axes.apply(np.asarray(found.array))

    return read


def mask_endings(image: Any) -> tuple[str, ...]:
    """Formats offered for the mask of a picture, that of the picture's own file first."""
    origin = None if image is None else origin_of(image.metadata)
    patient = origin is not None and origin.geometry.frame == "patient"
    endings = [".nii.gz", ".seg.nrrd", ".nrrd", ".mha", ".tif", ".ome.zarr"]
    if not patient:
        endings = [".tif", ".ome.tif", *([".png"] if image is not None and image.ndim == 2 else []), *endings[:4]]
    if origin is not None and origin.acquisition.files:
        endings.insert(0, ".dcm")
    if origin is not None:
        name = origin.source.lower()
        endings.sort(key=lambda ending: not (name.endswith(ending) or (ending == ".nii.gz" and name.endswith(".nii"))))
    return tuple(endings)


def fitting(labels: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return a mask as the picture needs it.

    Raises
    ------
    MedtError
        If the size differs.
    """
    squeezed = labels.reshape([n for n in labels.shape if n != 1]) if labels.shape != shape else labels
    if (
        squeezed.shape != shape
        and labels.size == int(np.prod(shape))
        and squeezed.shape == tuple(n for n in shape if n != 1)
    ):
        squeezed = labels.reshape(shape)
    if squeezed.shape != shape:
        raise MedtError(texts.wrong_size(name, labels.shape, shape), remedy="choose the mask that belongs to it")
    return squeezed.astype(np.min_scalar_type(int(labels.max(initial=0))), copy=False)
