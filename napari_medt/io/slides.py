"""Pyramidal slides, lazily: by tifffile where they are TIFF, else by OpenSlide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_medt.core import BadImage, Geometry, MedtError, Volume
from napari_medt.core.volume import Array
from napari_medt.io.arrangement import Arrangement
from napari_medt.io.picture import RGB
from napari_medt.io.pixel_size import geometry_of
from napari_medt.io.tiff_in import read_tiff

_BY_TIFFFILE = (None, "aperio", "generic-tiff", "hamamatsu")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NO_SIZE = "The slide gives no size of its pixels"


def read_slide(path: Path, *, choose: Sequence[str] = ()) -> Volume:
    """Read a slide without loading it.

    Parameters
    ----------
    path
        Aperio (`.svs`), Hamamatsu (`.ndpi`), OME-TIFF and other tiled TIFF pyramids; by OpenSlide also 3DHISTECH (`.mrxs`),
        Leica, Ventana, Philips, Trestle, Sakura and Hamamatsu `.vms`.
    choose
        Which image of several: keys of the question asked.

    Returns
    -------
    Volume
        `(c, y, x)` Dask arrays with the coarser levels, in um where the slide gives the size of its pixels. Label, macro
        and thumbnail are left out. Reading is safe for threads.

    Raises
    ------
    AmbiguousImage
        If it holds several images.
    BadImage
        If it is missing, damaged, or of a kind nobody here reads.
    """
    try:
        with path.open("rb") as file:
            is_tiff = file.read(4).startswith(_TIFF)
    except OSError as error:
        raise BadImage(f"{path} cannot be opened", remedy="check the name, the folder and your permissions") from error
    vendor = _vendor(path)
    if is_tiff and vendor in _BY_TIFFFILE:
        picture = read_tiff(path, as_labels=False, choose=choose)
        notes = picture.notes if picture.geometry.units != "px" else (*picture.notes, _NO_SIZE)
        return Volume(
            picture.array, picture.geometry, picture.channel_names, str(path), notes=notes, levels=picture.levels
        )
    return read_by_openslide(path)


def read_by_openslide(path: Path) -> Volume:
    """Read a slide by OpenSlide; as `read_slide`."""
    from napari_medt.io.lazy import Stored, lazy

    openslide = _openslide()
    try:
        with openslide.OpenSlide(path) as slide:
            sizes = tuple((height, width) for width, height in slide.level_dimensions)
            properties = dict(slide.properties)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise BadImage(
            f"{path.name} is no slide that can be read", remedy="export it as tiled TIFF or OME-TIFF"
        ) from error
    except openslide.OpenSlideError as error:
        beside = f", with the folder {path.stem} beside it" if path.suffix.lower() == ".mrxs" else ""
        raise BadImage(f"{path.name} is a damaged or incomplete slide", remedy=f"copy it again{beside}") from error
    changed = path.stat().st_mtime_ns
    levels: list[Array] = []
    for level, size in enumerate(sizes):
        stored = Stored(
            partial(_Level, path, level),
            shape=(*size, 3),
            dtype=np.uint8,
            seen=Arrangement((2, 0, 1)),
            name=path.name,
            identity=(str(path.resolve()), changed, level),
        )
        tile = [int(properties.get(f"openslide.level[{level}].tile-{side}", 256)) for side in ("height", "width")]
        levels.append(lazy(stored, (3, *tile)))
    geometry = _geometry(properties)
    notes = (_NO_SIZE,) if geometry.units == "px" else ()
    return Volume(levels[0], geometry, RGB, str(path), notes=notes, levels=tuple(levels[1:]))


class _Level:
    """A level of an open slide as `(y, x, 3)`; what was not scanned has the colour of the background."""

    def __init__(self, path: Path, level: int) -> None:
        self._slide = _openslide().OpenSlide(path)
        self._level = level
        self._step = self._slide.level_downsamples[level]
        width, height = self._slide.level_dimensions[level]
        self._shape = (height, width)
        colour = self._slide.properties.get("openslide.background-color", "FFFFFF")
        self._background = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)], np.float32)

    def __getitem__(self, where: tuple[int | slice, ...]) -> Array:
        rows, columns = (
            range(*part.indices(size)) if isinstance(part, slice) else range(part, part + 1)
            for part, size in zip(where[:2], self._shape, strict=True)
        )
        corner = (round(columns[0] * self._step), round(rows[0] * self._step))
        size = (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        rgba = np.asarray(self._slide.read_region(corner, self._level, size))[:: rows.step, :: columns.step]
        seen = rgba[..., 3:].astype(np.float32) / 255
        colours = rgba[..., :3]
        if seen.min() < 1:
            colours = np.rint(colours * seen + self._background * (1 - seen)).astype(np.uint8)
        kept = tuple(slice(None) if isinstance(part, slice) else 0 for part in where[:2])
        return np.asarray(colours[(*kept, where[2])])


def _geometry(properties: Mapping[str, str]) -> Geometry:
    try:
        sizes = [float(properties[f"openslide.mpp-{axis}"]) * 1e-3 for axis in "yx"]
    except (KeyError, ValueError):
        return Geometry.from_spacing((1.0, 1.0))
    return geometry_of(sizes, units="um")


def _vendor(path: Path) -> str | None:
    """Whose slide OpenSlide takes a file for; `None` for nobody's, and without OpenSlide."""
    try:
        found: str | None = _openslide().OpenSlide.detect_format(path)
    except MedtError:
        return None
    return found


def _openslide() -> Any:
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError where its own library is missing
        raise MedtError("Reading this slide needs OpenSlide", remedy="pip install 'napari-medt[slides]'") from error
    return openslide
