"""`write`: masks, maps and images to files of the format their name ends in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, PngImagePlugin

from napari_medt.core import BadImage, Geometry, LabelMap, Prediction, Volume
from napari_medt.core.volume import Array
from napari_medt.io.atomic import atomic_write
from napari_medt.io.contents import Contents, contents_of, storable, value_type
from napari_medt.io.needs import needs
from napari_medt.io.picture import RGB
from napari_medt.io.pictures_in import GEOMETRY_KEY
from napari_medt.io.tiff_geometry import AXES_KEY, SPACING_KEY

__all__ = ["encode_tiff", "storable", "write"]

_SCANS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd", ".dcm")
_PICTURES = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".zarr", ".png")
ENDINGS = (*_SCANS, *_PICTURES)
SEVERAL = (".nii.gz", ".nii", ".seg.nrrd", ".dcm")
"""Of formats that hold masks which overlap."""
_IMAGEJ_BYTES = 2**32 - 2**25  # beyond this ImageJ's form needs offsets it does not have
_TIFF_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def write(
    what: Prediction | LabelMap | Volume | Sequence[LabelMap] | npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    geometry: Geometry | None = None,
    names: Mapping[int, str] | None = None,
    source: Volume | None = None,
) -> Path:
    """Write a mask, a map of real numbers or an image, whole or not at all.

    The geometry goes with it. What a format has no place for - rotations in TIFF and OME-Zarr, names of labels in NIfTI -
    is kept beside its own words, where this package finds it again and other programs pass over it; plain NRRD, MetaImage,
    TIFF and PNG keep no names of labels, `.seg.nrrd`, OME-Zarr and DICOM do in a form others read too.

    Parameters
    ----------
    what
        A prediction, whose labels are written; a mask, or several that may overlap (`.seg.nrrd`, NIfTI and `.dcm` only), as
        those of a prediction of overlapping structures, of which other formats get the last at each place; an image; or an
        array `(y, x)` or `(z, y, x)`: whole numbers from 0 up are labels, real numbers become float32. Dask arrays are
        computed part by part.
    path
        Ends in `.nii`, `.nii.gz`, `.nrrd`, `.seg.nrrd`, `.mha`, `.mhd`, `.tif`, `.ome.tif`, `.ome.zarr`, `.dcm` (a DICOM
        segmentation), or in `.png` for a 2D mask; the folder must exist.
    geometry
        Of the array; its own, that of `source`, or 1 px, by default.
    names
        By label value; its own by default.
    source
        The image the mask belongs to; DICOM needs it.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    BadImage
        If it cannot be kept in such a file.
    StorageError
        If the disk refuses it.
    MedtError
        If a library for it is missing.
    """
    place = Path(path).expanduser()
    ending = next((end for end in ENDINGS if place.name.lower().endswith(end)), "")
    if "\0" in str(place):
        raise BadImage("The name of the file is not a valid name", remedy="choose another name")
    if not ending:
        raise BadImage(
            f"Masks and images cannot be written as {place.suffix or 'a file without an ending'} ({place.name})",
            remedy="use .nii.gz, .nrrd, .mha, .tif, .ome.zarr or .dcm, or .png for a 2D mask",
        )
    if geometry is None and source is not None and not isinstance(what, (Prediction, LabelMap, Volume, Sequence)):
        geometry = source.geometry
        if np.shape(what)[-geometry.ndim :] != source.spatial_shape:
            sizes = (" x ".join(map(str, shape)) for shape in (np.shape(what), source.spatial_shape))
            raise BadImage(
                "The values are {} and their image is {}, so where they lie is not known".format(*sizes),
                remedy="give the geometry too",
            )
    contents = contents_of(what, place.name, geometry=geometry, names=names, several=ending in SEVERAL)
    holds = SEVERAL if contents.labels else (".seg.nrrd", ".dcm")
    if len(contents.array) > 1 and (contents.labels or contents.fraction) and ending not in holds:
        raise BadImage(
            f"{ending} holds one mask, but these are {len(contents.array)} that may overlap ({place.name})",
            remedy="use .seg.nrrd or .dcm, or write each to a file of its own",
        )
    if ending == ".zarr":
        return _write_zarr(contents, place, source)
    if ending == ".dcm":
        return _write_dicom(contents, place, source, what.model if isinstance(what, Prediction) else "")
    encode = _encoder(contents, place, ending, source)
    return atomic_write(place, encode)


def _encoder(contents: Contents, place: Path, ending: str, source: Volume | None) -> Any:
    """Return what writes the contents into an open file; what cannot be written is found before that is opened."""
    name = place.name
    if ending in (".nii", ".nii.gz"):
        needs("nibabel", "volumes", doing="Writing NIfTI")
        from napari_medt.io.nifti_out import encode_nifti

        return lambda file: encode_nifti(file, contents, name=name, source=source)
    if ending in (".nrrd", ".seg.nrrd", ".mha", ".mhd"):
        from napari_medt.io.itk_out import encode_meta, encode_nrrd

        if ending in (".mha", ".mhd"):
            return lambda file: encode_meta(file, contents, name=name)
        segments = ending == ".seg.nrrd"
        if segments and not contents.labels:
            raise BadImage(f".seg.nrrd holds masks, but this is none ({name})", remedy="use .nrrd")
        return lambda file: encode_nrrd(file, contents, name=name, segments=segments)
    if ending == ".png":
        picture = _png_values(contents, name)
        return lambda file: _write_png(file, picture, contents.geometry)
    if len(contents.array) == 1 and not ending.startswith(".ome") and _suits_imagej(contents):
        flat = np.asarray(contents.flat)
        return lambda file: encode_tiff(file, flat, contents.geometry)
    from napari_medt.io.ome_tiff_out import encode_ome_tiff

    array = contents.array.astype(value_type(contents.array, allowed=_TIFF_TYPES, name=name), copy=False)
    return lambda file: encode_ome_tiff(
        file,
        array[0] if contents.labels else array,
        contents.geometry,
        channel_names=contents.channel_names,
        labels=contents.labels,
    )


def _write_zarr(contents: Contents, place: Path, source: Volume | None) -> Path:
    for module in ("zarr", "dask"):
        needs(module, "lazy", doing="Writing OME-Zarr")
    if not contents.labels:
        from napari_medt.io.zarr_image_out import write_zarr_image

        return write_zarr_image(contents, place)
    from napari_medt.io.zarr_out import write_zarr_labels

    return write_zarr_labels(
        contents.flat,
        place,
        geometry=contents.geometry,
        names=contents.names[0],
        colours=contents.colours[0],
        source=source,
    )


def _write_dicom(contents: Contents, place: Path, source: Volume | None, model: str) -> Path:
    if not contents.labels and not contents.fraction:
        raise BadImage(f".dcm is written for masks, but this is none ({place.name})", remedy="use .nii.gz")
    for module in ("pydicom", "highdicom"):
        needs(module, "volumes", doing="Writing DICOM")
    from napari_medt.io.dicom_seg_out import write_dicom_seg

    masks = [
        LabelMap(array, contents.geometry, names, colours, fraction=contents.fraction)
        for array, names, colours in zip(contents.array, contents.names, contents.colours, strict=True)
    ]
    name, _, version = model.partition("@")
    return write_dicom_seg(masks, place, source=source, algorithm=(name, version or "unknown") if name else None)


# ------------------------------------------------------------------------------------------------------------------ TIFF


def _suits_imagej(contents: Contents) -> bool:
    """Whether ImageJ's form holds it: types it knows, not too large, and no more of a geometry than it has words for."""
    array, geometry = contents.array, contents.geometry
    plain = geometry.frame == "image" and np.allclose(geometry.direction, np.eye(geometry.ndim), atol=1e-9)
    known = array.dtype in (np.uint8, np.uint16, np.float32)
    return bool(plain and known and array.nbytes < _IMAGEJ_BYTES and not hasattr(array, "dask"))


def encode_tiff(file: BinaryIO, array: Array, geometry: Geometry) -> None:
    """Write what `storable` returned into an open file: in ImageJ's form, or as OME-TIFF where that cannot hold it."""
    if array.dtype == np.uint32 or array.nbytes >= _IMAGEJ_BYTES:
        from napari_medt.io.ome_tiff_out import encode_ome_tiff

        encode_ome_tiff(file, array, geometry, labels=True)
        return
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


def _imagej_metadata(geometry: Geometry) -> dict[str, Any]:
    values: dict[str, Any] = {"unit": {"px": "pixel"}.get(geometry.units, geometry.units)}
    for axis, start, step in zip("zyx"[-geometry.ndim :], geometry.origin, geometry.spacing, strict=True):
        values[f"{axis}origin"] = repr(-start / step if start else 0.0)
    if geometry.ndim == 3:
        values["spacing"] = repr(geometry.spacing[0])
    values[SPACING_KEY] = " ".join(map(repr, geometry.spacing))
    values[AXES_KEY] = "zyx"[-geometry.ndim :]
    return values


# ------------------------------------------------------------------------------------------------------------------- PNG


def _png_values(contents: Contents, name: str) -> Array:
    if contents.geometry.ndim != 2:
        raise BadImage(
            f"PNG holds one slice, but this mask has {contents.array.shape[1]} ({name})", remedy="use .tif or .nii.gz"
        )
    if contents.array.dtype.kind == "f":
        raise BadImage(f"PNG holds whole numbers only, but these are fractions ({name})", remedy="use .tif")
    array = np.asarray(contents.array)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype not in (np.uint8, np.uint16):
        raise BadImage(f"PNG holds labels up to 65535 only, but these reach {array.max()} ({name})", remedy="use .tif")
    if len(array) == 1:
        return np.asarray(array[0])
    if contents.channel_names != RGB or array.dtype != np.uint8:
        raise BadImage(f"PNG holds grey or colour, but this has {len(array)} channels ({name})", remedy="use .ome.tif")
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


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
