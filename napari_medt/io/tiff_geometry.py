"""What a TIFF says about its pixels' size and its channels' names."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from xml.etree import ElementTree

import tifffile

from napari_medt.core import Geometry
from napari_medt.io.ngff import OURS, exact_geometry
from napari_medt.io.pixel_size import geometry_from_resolution, geometry_of, unit_in_mm

# Marks our own files: their axes, and that the origin in them is meant.
AXES_KEY = "napari_medt_axes"
SPACING_KEY = "napari_medt_spacing"
_SHORT = {1.0: "mm", 1e-3: "um"}
_APERIO_SIZE = re.compile(r"\bMPP\s*=\s*(\d*\.?\d+)")  # micrometres a pixel


def tiff_geometry(tiff: tifffile.TiffFile, page: Any, ndim: int, which: int = 0) -> Geometry:
    """Read the pixel size.

    Parameters
    ----------
    tiff, page
        The open file and the first page of the image.
    ndim
        2 or 3, the spatial axes wanted.
    which
        Number of the image in the file.

    Returns
    -------
    Geometry
        In mm or um; 1 px along every axis where the file gives no size or no unit. A distance of slices that is
        not given is taken as the pixels' own.
    """
    imagej: dict[str, Any] | None = tiff.imagej_metadata
    if imagej is not None:
        return _from_imagej(imagej, page, ndim)
    image = ome_image(tiff, which)
    geometry = _from_ome(image, ndim) if image is not None else None
    if geometry is not None:
        return exact_geometry(_kept_beside(tiff, which), ndim, geometry)
    if tiff.is_svs and ndim == 2 and (found := _APERIO_SIZE.search(page.description)):
        return geometry_of([float(found[1]) * 1e-3] * 2, units="um")
    flat = geometry_from_resolution(*_resolution(page), int(page.resolutionunit))
    if ndim == 2 or flat.units == "px":
        return flat if ndim == 2 else _pixels(ndim)
    return Geometry.from_spacing((flat.spacing[-1], *flat.spacing), units=flat.units)


def channel_names(tiff: tifffile.TiffFile, which: int = 0) -> tuple[str, ...]:
    """Return the channels' names an OME file gives; empty without."""
    image = ome_image(tiff, which)
    if image is None:
        return ()
    names = tuple(channel.get("Name", "") for channel in image.iterfind(".//{*}Channel"))
    return names if all(names) else ()


def ome_image(tiff: tifffile.TiffFile, which: int = 0) -> ElementTree.Element | None:
    """Return the description of an image of an OME file; None for others and for unreadable ones."""
    text = tiff.ome_metadata
    if not text:
        return None
    try:
        return ElementTree.fromstring(text).findall(".//{*}Image")[which]
    except (ElementTree.ParseError, IndexError):
        return None


def _kept_beside(tiff: tifffile.TiffFile, which: int) -> dict[str, Any]:
    """Return what our own files keep beside OME's words, for `exact_geometry`; only the first image has it."""
    try:
        found = ElementTree.fromstring(tiff.ome_metadata or "").find(f".//{{*}}MapAnnotation//{{*}}M[@K='{OURS}']")
        return {OURS: json.loads(found.text or "")} if found is not None and which == 0 else {}
    except (ElementTree.ParseError, ValueError):
        return {}


def _pixels(ndim: int) -> Geometry:
    return Geometry.from_spacing((1.0,) * ndim)


def _resolution(page: Any) -> tuple[float, float]:
    """Return samples per unit along y and x, 0 where the tags are missing or no numbers."""
    values = []
    for tag in ("YResolution", "XResolution"):
        found = page.tags.get(tag)
        value = found.value if found is not None else (0, 1)
        above, below = value if isinstance(value, tuple) and len(value) == 2 else (0, 1)
        values.append(above / below if below else 0.0)
    return values[0], values[1]


def _from_imagej(metadata: dict[str, Any], page: Any, ndim: int) -> Geometry:
    unit = str(metadata.get("unit", ""))
    unit_mm = unit_in_mm(unit)
    ours = _our_spacing(metadata, ndim)
    if ours:  # ImageJ counts the origin in samples, from the first one
        steps = [-_number(metadata.get(f"{axis}origin"), 0.0) for axis in "zyx"[-ndim:]]
        origin = [step * size for step, size in zip(steps, ours, strict=True)]
        if unit_mm is None:
            return Geometry.from_spacing(ours, origin=origin)
        return geometry_of(
            [size * unit_mm for size in ours], origin_mm=[at * unit_mm for at in origin], units=_SHORT.get(unit_mm, "")
        )
    down, across = _resolution(page)
    if unit_mm is None or down <= 0 or across <= 0:
        return _pixels(ndim)
    spacing = [1 / down, 1 / across]
    if ndim == 3:  # ImageJ leaves out a distance of 1
        spacing.insert(0, abs(_number(metadata.get("spacing"), 1.0)) or 1.0)
    return geometry_of([size * unit_mm for size in spacing], units=_SHORT.get(unit_mm, ""))


def _our_spacing(metadata: dict[str, Any], ndim: int) -> list[float]:
    """Return the spacing as our own files repeat it, exact where TIFF's fractions are rounded; empty without."""
    values = [_number(part, 0.0) for part in str(metadata.get(SPACING_KEY, "")).split()]
    return values if len(values) == ndim and min(values) > 0 else []


def _number(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) else default


def _from_ome(image: ElementTree.Element, ndim: int) -> Geometry | None:
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return None
    axes = "ZYX"[-ndim:]
    ours = image.get("Name", "").startswith(AXES_KEY)
    units_mm = [unit_in_mm(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in axes]
    sizes = [_number(pixels.get(f"PhysicalSize{axis}"), 0.0) for axis in axes]
    plane = pixels.find("{*}Plane")
    # Positions in other programs' files are those of a microscope's stage.
    origin = [_number(plane.get(f"Position{axis}"), 0.0) if ours and plane is not None else 0.0 for axis in axes]
    if ours and units_mm == [None] * ndim and min(sizes) > 0:
        return Geometry.from_spacing(sizes, origin=origin)
    sizes_mm = [size * unit if unit is not None else 0.0 for size, unit in zip(sizes, units_mm, strict=True)]
    if ndim == 3 and sizes_mm[0] <= 0:
        sizes_mm[0] = sizes_mm[-1]
    if min(sizes_mm) <= 0:
        return None
    origin_mm = [at * (unit or 0.0) for at, unit in zip(origin, units_mm, strict=True)]
    return geometry_of(sizes_mm, origin_mm=origin_mm, units=_SHORT.get(units_mm[-1] or 0.0, ""))
