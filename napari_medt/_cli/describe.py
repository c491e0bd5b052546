"""What is in a file: everything a user may want to know before a model looks at it, and nothing about the patient."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from napari_medt.core import AmbiguousImage, BadImage, Cancel, LabelMap, Progress, Volume, silent

LARGE = 2**28  # bytes; of more, only a sample of the values is looked at
PLANES, EDGE = 8, 2048  # of a large image without coarser levels: so many planes, so far from their middle


def describe(
    path: Path, *, choose: Sequence[str] = (), progress: Progress = silent, cancel: Cancel | None = None
) -> dict[str, Any]:
    """Say what is in a file or folder.

    Parameters
    ----------
    path
        Anything that `read` takes, or a mask.
    choose, progress, cancel
        As for `read`.

    Returns
    -------
    dict
        As JSON takes it. `question` and `choices` are there where the file is ambiguous, `series` for DICOM, `labels` where
        the file names any; `odd` is a list of sentences.

    Raises
    ------
    BadImage
        If the file cannot be read.
    Cancelled
        If asked to stop.
    """
    from napari_medt.io import read
    from napari_medt.io.kinds import kind_of

    kind = kind_of(path)
    found: dict[str, Any] = {"file": os.fspath(path), "format": kind, "odd": []}
    if kind == "DICOM":
        found["series"] = _series(path, progress, cancel)
    try:
        volume = read(path, choose=choose, progress=progress, cancel=cancel)
    except AmbiguousImage as error:
        found["question"] = error.what
        found["choices"] = {choice.key: choice.title for choice in error.choices}
        found["odd"] = sorted({sentence for series in found.get("series", ()) for sentence in series["odd"]})
        return found
    except BadImage:
        masks = masks_in(path, choose=choose)
        if not masks:
            raise
        return found | _mask_facts(masks)
    found |= _facts(volume)
    masks = masks_in(path, choose=choose) if kind not in ("DICOM", "slide", "JPEG") else ()
    if any(mask.names for mask in masks):
        found["labels"] = _names(masks)
    return found


def masks_in(path: Path, *, choose: Sequence[str] = ()) -> tuple[LabelMap, ...]:
    """The masks of a file; none if it holds no masks."""
    from napari_medt.io import read_segmentation

    try:
        return read_segmentation(path, choose=choose)
    except BadImage:
        return ()


def _series(path: Path, progress: Progress, cancel: Cancel | None) -> list[dict[str, Any]]:
    from napari_medt.io.dicom_series import list_series

    return [
        {
            "choose": series.uid,
            "description": series.description,
            "modality": series.modality,
            "shape": list(series.shape),
            "spacing": list(series.spacing),
            "files": len(series.files),
            "odd": list(series.odd),
        }
        for series in list_series(path, progress=progress, cancel=cancel)
    ]


def _facts(volume: Volume) -> dict[str, Any]:
    values, sampled = _values(volume)
    values = values.view(np.uint8) if values.dtype == bool else values
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    facts: dict[str, Any] = {
        "shape": list(volume.spatial_shape),
        "type": volume.array.dtype.name,
        "channels": list(volume.channel_names),
        **_place(volume),
        "range": [finite.min().item(), finite.max().item()] if finite.size else None,
        "range_is_of_a_sample": sampled,
        "value_unit": volume.acquisition.value_unit,
        "modality": volume.acquisition.modality,
        "display_windows": [list(window) for window in volume.acquisition.windows],
        "levels": [list(level.shape[1:]) for level in volume.levels],
        "odd": list(volume.notes),
    }
    if finite.size < values.size:
        facts["odd"].append("Some values are NaN or infinity.")
    return facts


def _mask_facts(masks: Sequence[LabelMap]) -> dict[str, Any]:
    first = masks[0]
    return {
        "shape": list(first.array.shape),
        "type": first.array.dtype.name,
        "masks": len(masks),
        **_place(first),
        "labels": _names(masks),
        "odd": list(dict.fromkeys(note for mask in masks for note in mask.notes)),
    }


def _names(masks: Sequence[LabelMap]) -> dict[str, str]:
    """Names by label value; where masks overlap, by number of the mask and label value."""
    return {
        f"{number}.{value}" if len(masks) > 1 else str(value): name
        for number, mask in enumerate(masks, 1)
        for value, name in sorted(mask.names.items())
    }


def _place(thing: Volume | LabelMap) -> dict[str, Any]:
    geometry = thing.geometry
    shape = thing.array.shape[-geometry.ndim :]
    return {
        "axes": list(geometry.axis_names),
        "spacing": list(geometry.spacing),
        "unit": geometry.units,
        "extent": [size * step for size, step in zip(shape, geometry.spacing, strict=True)],
        "frame": geometry.frame,
        "orientation": geometry.orientation if geometry.frame == "patient" else "",
        "oblique": bool(geometry.is_oblique),
        "affine": np.asarray(geometry.affine).tolist(),
    }


def _values(volume: Volume) -> tuple[np.ndarray[Any, Any], bool]:
    """Values to find the range from, and whether they are only a sample: a coarse level, or some planes."""
    array: Any = volume.array
    if array.nbytes <= LARGE:
        return np.asarray(array), False
    small = [level for level in volume.levels if level.nbytes <= LARGE]
    if small:
        return np.asarray(small[0]), True
    if isinstance(array, np.ndarray):  # it is in memory, or mapped there
        return array, False
    places = np.unique(np.linspace(0, array.shape[1] - 1, PLANES).astype(int))
    middle = (slice(max(0, size // 2 - EDGE), size // 2 + EDGE) for size in array.shape[2:])
    where = (slice(None), *middle)
    return np.stack([np.asarray(array[:, int(place)][where]) for place in places]), True


# ---------------------------------------------------------------------------------------------------------- for people


def as_table(found: Mapping[str, Any]) -> Table:
    """The same as lines for people."""
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for name, text in _lines(found):
        table.add_row(f"[bold]{name}[/]", escape(text))
    return table


def _lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [("File", found["file"]), ("Format", found["format"])]
    for number, series in enumerate(found.get("series", ()), 1):
        size = " x ".join(map(str, series["shape"]))
        words = [
            series["modality"],
            series["description"],
            size,
            f"{series['files']} files",
            f"--choose {shlex.quote(series['choose'])}",
        ]
        lines.append((f"Series {number}", ", ".join(word for word in words if word)))
    if "question" in found:
        lines.append(("Question", found["question"]))
        lines += [("", f"--choose {shlex.quote(key)}   {title}") for key, title in found["choices"].items()]
    else:
        lines += _image_lines(found)
    lines += [("Label " + value, name) for value, name in found.get("labels", {}).items()]
    return lines + [("Odd", sentence) for sentence in found["odd"]]


def _image_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    unit, axes = found["unit"], ", ".join(found["axes"])
    lines = [("Shape", f"{' x '.join(map(str, found['shape']))} ({axes}), {found['type']}")]
    lines.append(("Spacing", f"{_numbers(found['spacing'])} {unit}"))
    if unit != "px":
        lines.append(("Extent", f"{_numbers(found['extent'])} {unit}"))
    if found["orientation"]:
        tilted = ", tilted" if found["oblique"] else ""
        lines.append(("Orientation", f"{found['orientation']} (axes run towards these sides of the patient){tilted}"))
    if "channels" not in found:
        return [*lines, ("Masks", str(found["masks"]))]
    lines.append(("Channels", ", ".join(found["channels"])))
    if found["modality"]:
        lines.append(("Modality", found["modality"]))
    if found["range"]:
        about = " (of a sample)" if found["range_is_of_a_sample"] else ""
        low, high = found["range"]
        lines.append(("Values", f"{low:g} to {high:g} {found['value_unit']}".rstrip() + about))
    lines += [("Window", f"centre {centre:g}, width {width:g}") for centre, width in found["display_windows"]]
    lines += [("Level", " x ".join(map(str, shape))) for shape in found["levels"]]
    return lines


def _numbers(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
