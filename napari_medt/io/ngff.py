"""OME-NGFF 0.4 and 0.5: what the metadata of an OME-Zarr image say, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_medt.core import BadImage, Geometry
from napari_medt.io.pixel_size import geometry_of, unit_in_mm

OURS = "napari_medt"  # what NGFF has no words for: rotation, and the frame of a patient
_KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_UNIT_NAMES = {"um": "micrometer", "mm": "millimeter"}

Version = Literal["0.4", "0.5"]


@dataclass(frozen=True)
class Axis:
    """One axis of an array: its name, its kind (`"time"`, `"channel"`, `"space"` or other) and its unit, if any."""

    name: str
    kind: str
    unit: str = ""


@dataclass(frozen=True)
class Level:
    """One level of a pyramid: where its array is, and scale and translation along each of its axes."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Multiscale:
    """An image as the metadata tell of it, finest level first."""

    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]


def ome_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of OME, which 0.5 keeps under a key of their own and 0.4 does not."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def parse_multiscale(ome: Mapping[str, Any], ndim: int, name: str) -> Multiscale:
    """Read the description of an image.

    Parameters
    ----------
    ome
        What `ome_attributes` returned, with `multiscales`; the first of them is taken. Versions before 0.4, which have
        no units or no axes, are understood.
    ndim
        Number of axes of its arrays.
    name
        Of the file, for messages.

    Raises
    ------
    BadImage
        If the description is damaged.
    """
    try:
        image = ome["multiscales"][0]
        axes = _axes(image.get("axes"), ndim)
        outer = image.get("coordinateTransformations", ())
        levels = tuple(
            Level(
                str(part["path"]),
                *_scale_and_translation((part.get("coordinateTransformations", ()), outer), len(axes)),
            )
            for part in image["datasets"]
        )
        if len(axes) != ndim or not levels:
            raise ValueError(f"{len(axes)} axes for an array of {ndim}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadImage(
            f"The description of {name} is damaged, so nobody can tell how its array is to be read",
            remedy="export it again, or open the array inside it",
        ) from error
    return Multiscale(axes, levels)


def first_level_path(ome: Mapping[str, Any]) -> str:
    """Return where the finest array of an image is; empty where the metadata do not say."""
    try:
        return str(ome["multiscales"][0]["datasets"][0]["path"])
    except (KeyError, TypeError, IndexError):
        return ""


def axes_named(letters: str) -> tuple[Axis, ...]:
    """Axes of the names t, c, z, y and x, without units."""
    return tuple(Axis(letter, _KINDS.get(letter, "")) for letter in letters)


def _axes(given: Any, ndim: int) -> tuple[Axis, ...]:
    if given is None:
        return axes_named("tczyx"[-ndim:])
    axes = []
    for axis in given:
        if isinstance(axis, str):
            axes.append(Axis(axis, _KINDS.get(axis, "")))
        else:
            name = str(axis["name"])
            axes.append(Axis(name, str(axis.get("type") or _KINDS.get(name, "")), str(axis.get("unit") or "")))
    return tuple(axes)


def _scale_and_translation(given: Sequence[Any], ndim: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Put the transformations of a level, and then those of the whole image, into one."""
    scale, translation = np.ones(ndim), np.zeros(ndim)
    for step in (step for steps in given for step in steps):
        kind = step["type"]
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise ValueError(f"a transformation of the kind {kind}")
        values = np.asarray(step[kind], np.float64)
        if values.shape != (ndim,):
            raise ValueError(f"{values.size} numbers for {ndim} axes")
        if kind == "scale":
            scale, translation = scale * values, translation * values
        else:
            translation = translation + values
    return tuple(scale.tolist()), tuple(translation.tolist())


def geometry_from(
    axes: Sequence[Axis], scale: Sequence[float], translation: Sequence[float]
) -> tuple[Geometry, tuple[str, ...]]:
    """Return the geometry of spatial axes, in the order given, and what is odd in it.

    A single axis without a unit is taken to have the others'; without any unit, sizes are told in px.

    Raises
    ------
    BadImage
        If a size is zero or no number.
    """
    units = [unit_in_mm(axis.unit) if axis.unit else None for axis in axes]
    unknown = sorted(
        {axis.unit for axis, unit in zip(axes, units, strict=True) if axis.unit and unit is None} - {"pixel"}
    )
    notes = tuple(f"The unit of length {unit!r} is not known" for unit in unknown)
    known = [unit for unit in units if unit is not None]
    if not known or unknown:
        return Geometry.from_spacing(scale, origin=translation), notes
    if len(known) < len(units):
        names = ", ".join(axis.name for axis, unit in zip(axes, units, strict=True) if unit is None)
        notes = (*notes, f"The file gives no unit for the axis {names}, which is taken to have that of the others")
    in_mm = [unit if unit is not None else known[0] for unit in units]
    name = {1.0: "mm", 1e-3: "um"}.get(known[-1], "")
    sizes = [size * unit for size, unit in zip(scale, in_mm, strict=True)]
    origin = [at * unit for at, unit in zip(translation, in_mm, strict=True)]
    if min(sizes) <= 0 or not np.isfinite(sizes).all():
        raise BadImage("The sizes of the pixels in the file are not all above zero", remedy="export it again")
    return geometry_of(sizes, origin_mm=origin, units=name), notes


def exact_geometry(attributes: Mapping[str, Any], ndim: int, nearest: Geometry) -> Geometry:
    """Return the geometry that our own files keep beside NGFF's; `nearest` without, or where the sizes were changed."""
    try:
        ours = attributes[OURS]
        exact = Geometry(np.array(ours["affine"], np.float64), ours["units"], ours["frame"])
    except (KeyError, TypeError, ValueError, BadImage):
        return nearest
    same = exact.ndim == ndim and exact.units == nearest.units
    return exact if same and np.allclose(exact.spacing, nearest.spacing, rtol=1e-6) else nearest


def exact_axes(attributes: Mapping[str, Any]) -> int:
    """Return how many spatial axes our own files keep; 0 without."""
    try:
        return len(attributes[OURS]["affine"]) - 1
    except (KeyError, TypeError):
        return 0


def multiscale_metadata(
    name: str, geometry: Geometry, factors: Sequence[Sequence[float]], *, version: Version, kind: str
) -> dict[str, Any]:
    """Describe a pyramid whose levels are called `0`, `1` ...

    Parameters
    ----------
    name
        Of the image.
    geometry
        Of the finest level, spatial axes. A rotation is left out here; see `OURS`.
    factors
        By level and axis: how many fine samples stand behind one. An axis of channels goes before the spatial ones.
    version
        Of NGFF.
    kind
        How the coarser levels were made, `"mean"` or `"mode"`.
    """
    unit = _UNIT_NAMES.get(geometry.units)
    channels = len(factors[0]) - geometry.ndim
    axes = [{"name": axis, "type": "space"} | ({"unit": unit} if unit else {}) for axis in geometry.axis_names]
    straight = geometry.to_layer()
    sizes = [*[1.0] * channels, *straight["scale"]]
    starts = [*[0.0] * channels, *straight["translate"]]
    datasets = []
    for level, steps in enumerate(factors):
        scale = [size * n for size, n in zip(sizes, steps, strict=True)]
        translation = [start + size * (n - 1) / 2 for start, size, n in zip(starts, sizes, steps, strict=True)]
        placed = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
        datasets.append({"path": str(level), "coordinateTransformations": placed})
    image: dict[str, Any] = {
        "name": name,
        "axes": [*[{"name": "c", "type": "channel"}] * channels, *axes],
        "datasets": datasets,
        "type": kind,
    }
    return {"multiscales": [{"version": version, **image} if version == "0.4" else image]}


def our_geometry(geometry: Geometry) -> dict[str, Any]:
    """Return the geometry as `exact_geometry` reads it."""
    return {"affine": geometry.affine.tolist(), "units": geometry.units, "frame": geometry.frame}
