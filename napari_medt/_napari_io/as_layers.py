"""Images and masks as napari's layers: what is shown, where, and how bright."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_medt._napari_io.finding import LayerData
from napari_medt._napari_io.origin import FILE_KEY, Origin
from napari_medt.core import LabelMap, Volume

CLASS_COLOURS = ("#00c8a0", "#ffb000", "#d81b9c", "#3fa2ff", "#fe6100", "#d1ffb9", "#b91700", "#e4e4e4")
"""Of labels without colours of their own; distinguishable with every common form of colour blindness."""

_CHANNEL_COLOURS = ("magenta", "green", "cyan", "yellow", "red", "blue")
_SAMPLES = 200_000
_CT_WINDOW_HU = (-160.0, 240.0)
_AIR_HU = -900.0
_IN_MEMORY_BYTES = 2**30
_TURNED = "It lies at an angle, so a copy turned straight is shown; models see the scan as it is, and masks are saved on its grid"
_TOO_LARGE = "It lies at an angle but is too large to be turned straight, so it is shown along its own axes"


def image_layers(volume: Volume, name: str) -> tuple[list[LayerData], tuple[str, ...]]:
    """Return the layers of an image, one for each channel that is not a colour, and sentences about how they are shown.

    Parameters
    ----------
    volume
        As read.
    name
        For the layers.
    """
    from napari_medt.io import resample
    from napari_medt.io.picture import fits_memory

    straighten = fits_memory(4 * volume.array.nbytes)
    origin = Origin.of(
        volume.geometry,
        volume.spatial_shape,
        source=volume.source,
        acquisition=volume.acquisition,
        straighten=straighten,
    )
    notes: tuple[str, ...] = ()
    if origin.resampled:
        shown = resample(volume, origin.shown, origin.shown_shape)
        levels, notes = [shown.array], (_TURNED,)
        scan = replace(
            volume,
            array=origin.axes.apply(volume.array),
            geometry=volume.geometry.rearranged(origin.axes, volume.spatial_shape),
        )
    else:
        levels = [origin.axes.apply(level) for level in (volume.array, *volume.levels)]
        if volume.geometry.ndim == 3 and volume.geometry.is_oblique:
            notes = (_TOO_LARGE,)
    origin = replace(origin, notes=(*volume.notes, *notes))
    place = origin.shown.to_layer()

    def metadata(levels: list[Any], channels: slice) -> dict[str, Any]:
        if not origin.resampled:
            return {FILE_KEY: origin}
        part = replace(scan, array=scan.array[channels], channel_names=volume.channel_names[channels])
        return {FILE_KEY: replace(origin, scan=part, copy=levels[0])}

    if volume.is_rgb:
        shown_levels = [_colours_last(level) for level in levels]
        options = {**place, "name": name, "rgb": True, **_kind(shown_levels)}
        return [(_data(shown_levels), options | {"metadata": metadata(shown_levels, slice(None))}, "image")], notes
    several = len(volume.channel_names) > 1
    made: list[LayerData] = []
    for index, channel in enumerate(volume.channel_names):
        of_channel = [level[index] for level in levels]
        options = {
            **place,
            "metadata": metadata(of_channel, slice(index, index + 1)),
            "name": f"{name}, {channel}" if several else name,
            "rgb": False,
            **_kind(of_channel),
        }
        limits = contrast_limits(volume, of_channel)
        if limits is not None:
            options["contrast_limits"] = limits
        if several and volume.geometry.frame == "image":
            options |= {"colormap": _CHANNEL_COLOURS[index % len(_CHANNEL_COLOURS)], "blending": "additive"}
        made.append((_data(of_channel), options, "image"))
    return made, notes


def mask_layer(mask: LabelMap, name: str) -> tuple[LayerData, tuple[str, ...]]:
    """Return the layer of a mask, and sentences about how it is shown; fractions become an image between 0 and 1."""
    from napari_medt.io import resample

    small = mask.array.nbytes < _IN_MEMORY_BYTES
    origin = Origin.of(mask.geometry, mask.array.shape, source=mask.source, straighten=small)
    array = np.asarray(mask.array) if small else mask.array
    if origin.resampled:
        origin = replace(origin, exact=None if mask.fraction else array)
        array = resample(replace(mask, array=array), origin.shown, origin.shown_shape, nearest=True).array
    else:
        array = origin.axes.apply(array)
    notes = (_TURNED,) if origin.resampled else ()
    options: dict[str, Any] = {**origin.shown.to_layer(), "metadata": {FILE_KEY: origin}, "name": name}
    if mask.fraction:
        options |= {"contrast_limits": (0.0, 1.0), "colormap": "magma", "blending": "additive", "rgb": False}
        return (array, options, "image"), notes
    # napari writes into the array it is given.
    array = np.ascontiguousarray(array) if small else array
    options |= labels_look(mask.names, mask.colours)
    return (array, options, "labels"), notes


def labels_look(names: Mapping[int, str], colours: Mapping[int, tuple[float, float, float]]) -> dict[str, Any]:
    """Return names and colours of labels in the words of a labels layer; nothing where none is known."""
    values = sorted({value for value in (*names, *colours) if value})
    if not values:
        return {}
    from napari.utils.colormaps import DirectLabelColormap

    table: dict[int | None, Any] = {None: "#ffffff", 0: "transparent"}
    for value in values:
        table[value] = (*colours[value], 1.0) if value in colours else CLASS_COLOURS[(value - 1) % len(CLASS_COLOURS)]
    known = [0, *values]
    return {
        "colormap": DirectLabelColormap(color_dict=table),
        "features": {"index": known, "name": [names.get(value, "" if value else "background") for value in known]},
    }


def contrast_limits(volume: Volume, levels: list[Any]) -> tuple[float, float] | None:
    """Return the darkest and the brightest value to show: the file's first window, that of soft tissue, or of a sample.

    Parameters
    ----------
    volume
        Tells about windows and units.
    levels
        One channel of it, finest first; of what is not in memory the coarsest is looked at, or the middle slice.
    """
    if volume.acquisition.windows:
        centre, width = volume.acquisition.windows[0]
        if width > 0:
            return centre - width / 2, centre + width / 2
    if volume.acquisition.value_unit == "HU":
        return _CT_WINDOW_HU
    values = levels[-1]
    if hasattr(values, "dask") and len(levels) == 1 and values.ndim == 3:
        values = values[values.shape[0] // 2]
    step = max(1, int(np.ceil((values.size / _SAMPLES) ** (1 / values.ndim))))
    sample = np.asarray(values[(slice(None, None, step),) * values.ndim])
    if sample.dtype == bool:
        return None
    sample = sample[np.isfinite(sample)].astype(np.float64)
    if not sample.size:
        return None
    unsaid = not volume.acquisition.modality and volume.geometry.frame == "patient"
    if unsaid and sample.min() <= _AIR_HU and np.mean((sample > -200) & (sample < 300)) > 0.02:
        return _CT_WINDOW_HU  # air and tissue as only CT has them
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.8)))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return (low, high) if high > low else None


_SAID = re.compile(r"seg|label|mask(?!ed)|lesion|annotat|ground.?truth")
_FOLDERS = re.compile(r"(labels?|masks?|segmentations?)(tr|ts|_.*)?")
_MOST_LABELS = 256


def is_mask(volume: Volume, place: Path) -> bool:
    """Whether an image is a mask: the name of its file or folder says so, and its values are a few whole numbers from 0."""
    named = _SAID.search(place.name.lower()) or _FOLDERS.fullmatch(place.parent.name.lower())
    array = volume.array
    if not named or len(array) > 1 or volume.levels or array.dtype.kind not in "buif":
        return False
    if array.dtype == bool:
        return True
    step = max(1, int(np.ceil((array.size / _SAMPLES) ** (1 / (array.ndim - 1)))))
    for part in ((slice(None, None, step),) * (array.ndim - 1), (slice(None),)):
        values = np.unique(np.asarray(array[(0, *part)]))
        if len(values) > _MOST_LABELS or values[0] < 0 or (values != np.rint(values)).any() or values[-1] >= 2**16:
            return False
    return True


def _colours_last(array: Any) -> Any:
    return array.transpose(*range(1, array.ndim), 0)


def _kind(levels: list[Any]) -> dict[str, Any]:
    return {"multiscale": len(levels) > 1}


def _data(levels: list[Any]) -> Any:
    return levels if len(levels) > 1 else levels[0]
