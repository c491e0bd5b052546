"""`write`: masks and maps to TIFF with their scale, or 2D masks to PNG."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, PngImagePlugin

from napari_medt.core import BadImage, Geometry, Prediction
from napari_medt.core.volume import Array
from napari_medt.io.atomic import atomic_write
from napari_medt.io.pictures_in import GEOMETRY_KEY
from napari_medt.io.reading import smallest_dtype
from napari_medt.io.tiff_geometry import AXES_KEY, SPACING_KEY

_IMAGEJ_BYTES = 2**32 - 2**25  # beyond this ImageJ's form needs offsets it does not have


def write(
    labels: Prediction | npt.ArrayLike, path: str | os.PathLike[str], *, geometry: Geometry | None = None
) -> Path:
    """Write a mask, or a map of real numbers, whole or not at all.

    TIFF files carry spacing, unit and origin and open in ImageJ with them; masks with labels above 65535 and very
    large ones are written as OME-TIFF, which holds them. A rotation in the geometry is not kept: TIFF has no place
    for it.

    Parameters
    ----------
    labels
        A prediction, whose labels are written, or an array `(y, x)` or `(z, y, x)`: whole numbers from 0 up, or real
        numbers, which become float32.
    path
        Ends in `.tif` or `.tiff`, or in `.png` for a 2D mask; the folder must exist.
    geometry
        Of the array; the prediction's own, or 1 px, by default.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    BadImage
        If the array cannot be kept in such a file.
    StorageError
        If the disk refuses it.
    """
    place = Path(path).expanduser()
    if isinstance(labels, Prediction):
        geometry = geometry or labels.geometry
        labels = labels.labels
    array = storable(np.asarray(labels), place.name)
    geometry = geometry or Geometry.from_spacing((1.0,) * array.ndim)
    if geometry.ndim != array.ndim:
        raise BadImage(
            f"The mask of shape {array.shape} does not fit a geometry of {geometry.ndim} axes",
            remedy="give the geometry of the same image",
        )
    ending = place.suffix.lower()
    if ending in (".tif", ".tiff"):
        return atomic_write(place, lambda file: encode_tiff(file, array, geometry))
    if ending == ".png":
        _check_png(array, place.name)
        return atomic_write(place, lambda file: _write_png(file, array, geometry))
    raise BadImage(
        f"Masks cannot be written as {place.suffix or 'a file without an ending'} ({place.name})",
        remedy="use .tif, or .png for a 2D mask",
    )


def storable(array: Array, name: str) -> Array:
    """Return an array as uint8, uint16, uint32 or float32.

    Raises
    ------
    BadImage
        If it has other than two or three axes, no values, negative labels or labels too large; `name` is the file's.
    """
    if array.ndim not in (2, 3) or array.size == 0:
        raise BadImage(f"An array of shape {array.shape} cannot be written to {name}", remedy="give a 2D or 3D mask")
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind not in "ui":
        raise BadImage(f"Values of type {array.dtype} are neither labels nor numbers", remedy="give a mask")
    if array.dtype.kind == "i" and array.min() < 0:
        raise BadImage(f"The mask for {name} holds negative labels", remedy="number the labels from 0 up")
    if array.dtype not in (np.uint8, np.uint16):
        array = array.astype(smallest_dtype(int(array.max()), f"The mask for {name}"))
    return np.ascontiguousarray(array)


def encode_tiff(file: BinaryIO, array: Array, geometry: Geometry) -> None:
    """Write what `storable` returned into an open file, as a TIFF in the form `write` tells of."""
    if array.dtype != np.uint32 and array.nbytes < _IMAGEJ_BYTES:
        down, across = (1 / value for value in geometry.spacing[-2:])
        with tifffile.TiffWriter(file, imagej=True) as tiff:
            tiff.write(
                # All six axes of ImageJ: a last axis of length 1 would else be taken for samples.
                array.reshape(1, -1, 1, *array.shape[-2:], 1),
                photometric="minisblack",
                resolution=(across, down),
                metadata={"axes": "TZCYXS", **_imagej_metadata(geometry)},
                compression="zlib",
            )
        return
    with tifffile.TiffWriter(file, ome=True, bigtiff=array.nbytes >= _IMAGEJ_BYTES) as tiff:
        tiff.write(
            array,
            photometric="minisblack",
            metadata={"axes": "ZYX"[-array.ndim :], **_ome_metadata(geometry, len(array) if array.ndim == 3 else 1)},
            compression="zlib",
        )


def _imagej_metadata(geometry: Geometry) -> dict[str, Any]:
    values: dict[str, Any] = {"unit": {"px": "pixel"}.get(geometry.units, geometry.units)}
    for axis, start, step in zip("zyx"[-geometry.ndim :], geometry.origin, geometry.spacing, strict=True):
        values[f"{axis}origin"] = repr(-start / step if start else 0.0)
    if geometry.ndim == 3:
        values["spacing"] = repr(geometry.spacing[0])
    values[SPACING_KEY] = " ".join(map(repr, geometry.spacing))
    values[AXES_KEY] = "zyx"[-geometry.ndim :]
    return values


def _ome_metadata(geometry: Geometry, planes: int) -> dict[str, Any]:
    values: dict[str, Any] = {"Name": f"{AXES_KEY} {'zyx'[-geometry.ndim :]}"}
    unit = {"um": "µm", "px": "pixel"}.get(geometry.units, geometry.units)
    positions: dict[str, Any] = {}
    for axis, start, step in zip("ZYX"[-geometry.ndim :], geometry.origin, geometry.spacing, strict=True):
        values[f"PhysicalSize{axis}"] = step
        values[f"PhysicalSize{axis}Unit"] = unit
        positions[f"Position{axis}"] = [start + (step * plane if axis == "Z" else 0.0) for plane in range(planes)]
        positions[f"Position{axis}Unit"] = [unit] * planes
    values["Plane"] = positions
    return values


def _check_png(array: Array, name: str) -> None:
    if array.ndim != 2:
        raise BadImage(f"PNG holds one slice, but this mask has {len(array)} ({name})", remedy="use .tif")
    if array.dtype == np.float32:
        raise BadImage(f"PNG holds whole numbers only, but these are fractions ({name})", remedy="use .tif")
    if array.dtype == np.uint32:
        raise BadImage(f"PNG holds labels up to 65535 only, but these reach {array.max()} ({name})", remedy="use .tif")


def _write_png(file: BinaryIO, array: Array, geometry: Geometry) -> None:
    notes = PngImagePlugin.PngInfo()
    options: dict[str, Any] = {}
    if geometry.units != "px" or geometry.spacing != (1.0, 1.0) or geometry.origin != (0.0, 0.0):
        values = {"spacing": geometry.spacing, "origin": geometry.origin, "units": geometry.units}
        notes.add_text(GEOMETRY_KEY, json.dumps(values))
    per_mm = {"mm": 1.0, "um": 1000.0}.get(geometry.units)
    if per_mm is not None:
        options["dpi"] = tuple(25.4 * per_mm / value for value in reversed(geometry.spacing))
    Image.fromarray(array).save(file, format="PNG", pnginfo=notes, **options)
