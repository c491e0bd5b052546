"""MetaImage and NRRD to volumes, and Slicer's `.seg.nrrd` to masks with names and colours; by SimpleITK."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from napari_medt.core import BadImage, Choice, Geometry, LabelMap, Volume
from napari_medt.core.volume import Array, numbered_channel_names
from napari_medt.io.itk_headers import (
    channels_of,
    check_data,
    check_header,
    header_of,
    in_patient,
    lacks_size,
    missing_pixels,
    unit_of,
)
from napari_medt.io.masks_in import as_labels, one_channel
from napari_medt.io.nrrd_unpacked import unpacked
from napari_medt.io.picture import RGB, check_size
from napari_medt.io.timepoint import chosen_time

_READERS = {"NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}
_TO_MM = {"mm": 1.0, "um": 1e-3, "m": 1e3, "cm": 10.0}


def read_itk(path: Path, kind: str, *, choose: Sequence[str] = ()) -> Volume:
    """Read an image.

    Parameters
    ----------
    path
        `.mha`, `.mhd` with its data beside it, `.nrrd`, `.nhdr`.
    kind
        `"NRRD"` or `"MetaImage"`.
    choose
        `"t=3"` for a time point, `"channels"` where the fourth axis holds channels.

    Returns
    -------
    Volume
        `(c, z, y, x)` in mm, in the frame of the patient where the file names one (NRRD's `space`, MetaImage's
        `TransformMatrix`), else in that of the image; `(c, y, x)` for two axes. Values as stored.

    Raises
    ------
    AmbiguousImage
        For a fourth axis.
    BadImage
        If it is damaged, or has more axes.
    """
    return _read(path, kind, choose)[0]


def read_itk_labels(path: Path, kind: str, *, choose: Sequence[str] = ()) -> tuple[LabelMap, ...]:
    """Read masks: one for each layer of a `.seg.nrrd`, whose segments may overlap those of other layers, else one.

    Parameters and errors are those of `read_itk`.
    """
    volume, header = _read(path, kind, choose)
    segments = _segments(header)
    layered = bool(segments) or "channels" in choose
    layers = volume.array if layered else one_channel(volume.array, path.name)[None]
    found = []
    for number, layer in enumerate(layers):
        here = [segment for segment in segments if segment["layer"] == number]
        found.append(
            LabelMap(
                as_labels(layer, path.name),
                volume.geometry,
                {segment["value"]: segment["name"] for segment in here if segment["name"]},
                {segment["value"]: segment["colour"] for segment in here if segment["colour"]},
                source=volume.source,
                notes=volume.notes,
            )
        )
    return tuple(found)


def _read(path: Path, kind: str, choose: Sequence[str]) -> tuple[Volume, Mapping[str, str]]:
    header = header_of(path, kind)
    check_header(path, header, kind)
    with unpacked(path, header) as whole:
        image = _load(path, whole, header, kind)
    array = _arranged(image, choose, path.name)
    geometry, notes = _geometry(image, header, kind)
    return Volume(array, geometry, _channel_names(header, array), str(path), notes=notes), header


def _load(path: Path, whole: Path, header: Mapping[str, str], kind: str) -> Any:
    """Read `whole`, which is `path` or stands for it, by SimpleITK, after a look at all that it does not check."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(whole))
    reader.SetImageIO(_READERS[kind])
    nbytes = 0
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        if len(size) not in (2, 3, 4):
            raise BadImage(
                f"{path.name} has {len(size)} axes, more than one image or one scan ({' x '.join(map(str, size))})"
                if len(size) > 4
                else f"{path.name} has one axis only",
                remedy="save one time point, or one channel of it, as its own file"
                if len(size) > 4
                else "choose an image or a scan",
            )
        if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
            raise BadImage(
                f"{path.name} holds complex numbers", remedy="save their magnitude or their phase on its own"
            )
        pixels = math.prod(size) * components
        nbytes = pixels * _bytes_of(reader.GetPixelID())
        check_size(path.name, pixels=pixels, bytes_needed=2 * nbytes)  # SimpleITK's own copy, and ours
        check_data(path, header, kind, nbytes)
        return reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise _failure(path, kind, error, nbytes) from error


def _failure(path: Path, kind: str, error: Exception, nbytes: int) -> BadImage:
    """Say what SimpleITK says of a file, in one sentence."""
    text = str(error)
    if isinstance(error, MemoryError) or re.search("allocate|bad_alloc", text):
        return BadImage(
            f"{path.name} needs {2 * nbytes / 1e9:,.1f} GB of memory, which is more than there is",
            remedy="close other programs, or crop the image first",
        )
    if found := re.search(r'open(?:ing)? "([^"]+)" \(data file', text):
        return missing_pixels(path, found[1])
    if "number of domain axes" in text:
        return BadImage(
            f"{path.name} has more axes than its space, and its kinds do not say which of them are channels",
            remedy="export it with kinds such as 'vector domain domain domain'",
        )
    return BadImage(
        f"{path.name} is a damaged or incomplete {kind}, or of a kind that is not read ({_reason(text)})",
        remedy="copy or export it again",
    )


def _bytes_of(pixel: int) -> int:
    name = sitk.GetPixelIDValueAsString(pixel)
    return next((bits // 8 for bits in (64, 32, 16, 8) if f"{bits}-bit" in name), 8)


def _reason(text: str) -> str:
    """Return the innermost of the reasons SimpleITK gives."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line.split(": ", 1)[-1] for line in lines if line.startswith("[nrrd]")]
    return told[-1][:100] if told else "its parts do not fit together"


def _arranged(image: Any, choose: Sequence[str], name: str) -> Array:
    """Return `(c, [z,] y, x)`; a fourth axis is asked for."""
    array: Array = sitk.GetArrayViewFromImage(image)  # of SimpleITK's memory: what is returned is a copy
    vector = image.GetNumberOfComponentsPerPixel() > 1
    if image.GetDimension() == 4:
        count = len(array)
        if "channels" in choose and not vector:
            return np.array(array)
        others = [] if vector else [Choice("channels", f"they are {count} channels of one scan")]
        sizes = " x ".join(map(str, image.GetSize()))
        array = array[chosen_time(count, choose, f"{name} ({sizes})", others=others)]
    return np.array(np.moveaxis(array, -1, 0) if vector else array[None], order="C")


def _geometry(image: Any, header: Mapping[str, str], kind: str) -> tuple[Geometry, tuple[str, ...]]:
    n = min(image.GetDimension(), 3)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:n, :n]
    unit, notes = unit_of(header, kind), []
    plain = unit == "" and np.allclose(image.GetSpacing(), 1) and not in_patient(header, kind)
    if unit == "?":
        notes.append("The file gives units of length that are unknown or differ; mm is taken")
    elif unit not in _TO_MM and not plain and not in_patient(header, kind):
        notes.append("The file gives the size of its pixels without a unit; mm is taken")
    if lacks_size(header, kind) and not plain:
        notes.append("The file does not give the size of its pixels along every axis; 1 is taken")
    patient = n == 3 and in_patient(header, kind)
    if n == 3 and not patient:
        notes.append("The file does not say how it lies in the patient: which side is left is unknown")
    factor = 1.0 if unit == "um" and not patient else _TO_MM.get(unit, 1.0)
    lengths = [[factor * value for value in values[:n]] for values in (image.GetSpacing(), image.GetOrigin())]
    geometry = Geometry.from_itk(lengths[0], lengths[1], direction.ravel().tolist())
    units = "um" if unit == "um" else "px" if plain else "mm"
    return (geometry if patient else Geometry(geometry.affine, units, "image")), tuple(notes)


def _channel_names(header: Mapping[str, str], array: Array) -> tuple[str, ...]:
    count = len(array)
    if count > 1 and len(names := channels_of(header)) == count:
        return names
    colour = "rgb" in header.get("kinds", "").lower() or (count == 3 and array.dtype == np.uint8)
    return RGB if colour and count == 3 else numbered_channel_names(count)


def _segments(header: Mapping[str, str]) -> list[dict[str, Any]]:
    """Slicer's segments; files of its older versions have one layer of ones each."""
    found: list[dict[str, Any]] = []
    while f"Segment{len(found)}_ID" in header or f"Segment{len(found)}_Name" in header:
        begin = f"Segment{len(found)}_"
        colour = tuple(float(part) for part in header.get(f"{begin}Color", "").split())
        found.append(
            {
                "name": header.get(f"{begin}Name", ""),
                "value": int(header.get(f"{begin}LabelValue", "1")),
                "layer": int(header.get(f"{begin}Layer", str(len(found)))),
                "colour": colour if len(colour) == 3 else None,
            }
        )
    return found
