"""From layers to files: back to the grid of the file a picture came from, where the layer still lies there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_medt._napari_io.origin import COMPUTED_KEY, Computed, Origin, origin_of
from napari_medt.core import BadImage, Geometry, LabelMap, Volume


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one labels layer.

    A mask that lies where the image of a file is shown is saved on the grid of that file, axis by axis as it is stored
    there; any other where the layer lies.

    Parameters
    ----------
    path
        Where to; its ending says which format: `.nii.gz`, `.nii`, `.nrrd`, `.seg.nrrd`, `.mha`, `.tif`, `.ome.tif`,
        `.ome.zarr`, `.dcm` (a DICOM segmentation of the series the image came from) or, in 2D, `.png`.
    data
        `(y, x)` or `(z, y, x)` label values, also lazily loaded.
    attributes
        Of the layer as napari gives them: its place, `features` with the names of labels, `colormap`, `metadata`.

    Returns
    -------
    list of str
        The path written.

    Raises
    ------
    BadImage
        If the layer has neither two nor three axes, or the format cannot hold it.
    StorageError
        If the file cannot be written.
    """
    from napari_medt.io import write

    labels = _spatial(_finest(data), "mask")
    origin = _origin(attributes, labels.shape)
    mask = LabelMap(
        labels, _geometry(attributes, labels.ndim), names_in(attributes), colours_in(attributes.get("colormap"))
    )
    if origin is not None:
        mask = origin.back(mask)
    return [str(write(mask, path, source=None if origin is None else origin.stand_in()))]


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one image layer with its place, on the grid of the file it came from unless a turned copy is shown.

    A map of ours is saved on the grid on which it was calculated.

    Parameters
    ----------
    path
        Ends in `.nii.gz`, `.nii`, `.nrrd`, `.mha`, `.ome.tif` or `.ome.zarr`.
    data
        `([z,] y, x)`, with colours last where the layer shows colours; levels of a pyramid are left out.
    attributes
        Of the layer as napari gives them.

    Returns
    -------
    list of str
        The path written.

    Raises
    ------
    BadImage, StorageError
        As for `write_labels`.
    """
    from napari_medt.io import write

    array = _finest(data)
    if attributes.get("rgb"):
        array = array[..., :3].transpose(array.ndim - 1, *range(array.ndim - 1))
        names: tuple[str, ...] = ("red", "green", "blue")
    else:
        array, names = _spatial(array, "image")[None], ("grey",)
    computed = (attributes.get("metadata") or {}).get(COMPUTED_KEY)
    if isinstance(computed, Computed) and computed.still_holds(attributes, np.asarray(array[0])):
        return [str(write(Volume(computed.array[None], computed.geometry, names), path))]
    shape = tuple(array.shape[1:])
    if len(shape) not in (2, 3):
        raise BadImage(
            f"An image of shape {shape} has neither two nor three axes",
            remedy="save one time point or channel at a time",
        )
    origin = _origin(attributes, shape)
    geometry = _geometry(attributes, len(shape))
    if origin is not None and not origin.resampled:
        array, geometry = origin.axes.inverse.apply(array), origin.geometry
    return [str(write(Volume(array, geometry, names), path))]


def names_in(attributes: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of labels in a layer's features, background left out."""
    features = attributes.get("features")
    if features is None or not {"index", "name"} <= set(features):
        return {}
    pairs = zip(features["index"], features["name"], strict=True)
    return {int(value): str(name) for value, name in pairs if int(value) and str(name)}


def colours_in(colormap: Any) -> dict[int, tuple[float, float, float]]:
    """Return the colours a labels layer gives to single labels; napari's own cycle of colours tells nothing."""
    table = getattr(colormap, "color_dict", None) or {}
    return {
        int(value): (float(colour[0]), float(colour[1]), float(colour[2]))
        for value, colour in table.items()
        if value and len(colour) >= 3
    }


def _finest(data: Any) -> Any:
    return data[0] if isinstance(data, (list, tuple)) or hasattr(data, "_data") else data


def _spatial(array: Any, what: str) -> Any:
    """Take leading axes of length 1 away."""
    array = array if hasattr(array, "dask") else np.asarray(array)
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3):
        raise BadImage(
            f"{'A mask' if what == 'mask' else 'An image'} of shape {array.shape} has neither two nor three axes",
            remedy="save one time point or channel at a time",
        )
    return array


def _origin(attributes: Mapping[str, Any], shape: tuple[int, ...]) -> Origin | None:
    origin = origin_of(attributes.get("metadata"))
    return origin if origin is not None and origin.still_holds(attributes, shape) else None


def _geometry(attributes: Mapping[str, Any], ndim: int) -> Geometry:
    """Where the layer lies; the world is a patient's where the file it came from said so."""
    origin = origin_of(attributes.get("metadata"))
    return Geometry.from_layer(attributes, ndim=ndim, frame="image" if origin is None else origin.shown.frame)
