"""OME-Zarr to volumes: lazily, with all levels; plain Zarr arrays too."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_medt.core import AmbiguousImage, BadImage, Choice, Geometry, LabelMap, Volume
from napari_medt.core.volume import Array, default_channel_names, numbered_channel_names
from napari_medt.io.arrangement import Arrangement
from napari_medt.io.kinds import is_zarr
from napari_medt.io.label_values import label_dtype, label_values
from napari_medt.io.lazy import Stored, lazy
from napari_medt.io.ngff import axes_named, exact_axes, exact_geometry, geometry_from, ome_attributes
from napari_medt.io.picture import RGB, fits_memory
from napari_medt.io.zarr_nodes import Node, ZarrArray, arrangement, images_in, levels_of, open_node, title_of

_COUNTED = 10_000  # chunks, beyond which looking for missing ones would take too long
_RGB_COLOURS = ("FF0000", "00FF00", "0000FF")
_ORDERS_OF_FOUR = {
    "czyx": "channels, then the slices of a scan",
    "zcyx": "slices, each with its channels",
    "tzyx": "time points of a scan",
    "zyxc": "a scan in colour",
}


def read_zarr(path: Path, *, choose: Sequence[str] = ()) -> Volume:
    """Read an image in OME-Zarr 0.4 or 0.5, or a plain Zarr array, without loading it.

    Parameters
    ----------
    path
        The folder of the image, or of a group of images.
    choose
        Which image of a group, which time point, which order of the axes of a plain array: keys of the question asked.

    Returns
    -------
    Volume
        `(c, y, x)` or `(c, z, y, x)` as Dask arrays, with the coarser levels; in mm or um where the file gives a unit.
        A z axis of length 1 is left out, unless we wrote it. A plain array without metadata is in px, which a note says.

    Raises
    ------
    AmbiguousImage
        For several images, several time points, or a plain array of four axes without names.
    BadImage
        If it is damaged, or a plate of many wells.
    """
    return _read(path, open_node(path), choose)


def _read(path: Path, node: Node, choose: Sequence[str]) -> Volume:
    if isinstance(node, zarr.Array):
        return _plain(path, node, choose)
    ome = ome_attributes(node.attrs.asdict())
    if "plate" in ome:
        fields = re.sub(r"/+$", "", str(path))
        raise BadImage(
            f"{path.name} is a plate of many wells, not one image",
            remedy=f"choose one field in it, such as {fields}/A/1/0",
        )
    if "multiscales" in ome:
        return _image(path, node, ome, choose)
    inside = images_in(node, ome)
    if not inside:
        raise BadImage(f"There is no image in {path.name}", remedy="choose the folder that holds the image")
    wanted = [key for key in inside if key in choose] or list(inside)
    if len(wanted) > 1:
        raise AmbiguousImage(
            f"{path.name} holds {len(inside)} images", [Choice(key, title_of(node, key)) for key in inside]
        )
    return _read(path / wanted[0], open_node(path / wanted[0]), choose)


# ----------------------------------------------------------------------------------------------------------- images


def _image(path: Path, group: zarr.Group, ome: Mapping[str, Any], choose: Sequence[str]) -> Volume:
    image, arrays = levels_of(path, group, ome)
    attributes = group.attrs.asdict()
    where = arrangement(image.axes, arrays[0], choose, path.name, keep_slice=exact_axes(attributes) == 3)
    levels = [
        _lazily(path / level.path, array, where, path.name) for level, array in zip(image.levels, arrays, strict=True)
    ]
    spatial = [axis for axis in where.order[1:] if axis is not None]
    finest = image.levels[0]
    geometry, notes = geometry_from(
        [image.axes[axis] for axis in spatial],
        [finest.scale[axis] for axis in spatial],
        [finest.translation[axis] for axis in spatial],
    )
    names, unnamed = _channel_names(ome, levels[0].shape[0], levels[0].dtype)
    notes = (*notes, *unnamed, *_more_images(ome), *_missing_chunks(arrays[0]))
    geometry = exact_geometry(attributes, len(spatial), geometry)
    return Volume(levels[0], geometry, names, str(path), notes=notes, levels=tuple(levels[1:]))


def _lazily(path: Path, array: ZarrArray, where: Arrangement, name: str) -> Array:
    return lazy(stored(path, array, where, name), where.shape(array.chunks))


def stored(path: Path, array: ZarrArray, where: Arrangement, name: str) -> Stored:
    """See an array of a Zarr as `(c, [z,] y, x)`."""
    return Stored(
        partial(zarr.open_array, path, mode="r"),
        shape=array.shape,
        dtype=array.dtype,
        seen=where,
        name=name,
        identity=(str(path.resolve()), os.stat(path).st_mtime_ns),
    )


def _channel_names(ome: Mapping[str, Any], count: int, dtype: np.dtype[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the channels and what is odd about them; three of 8 bits without names or in red, green, blue are colour."""
    numbered = numbered_channel_names(count)
    described = ome.get("omero")
    channels = described.get("channels") if isinstance(described, Mapping) else None
    if not isinstance(channels, list) or not all(isinstance(channel, Mapping) for channel in channels):
        return (default_channel_names(count) if dtype == np.uint8 else numbered), ()
    if len(channels) != count:
        return numbered, (f"The file describes {len(channels)} channels but holds {count}, so they are numbered",)
    labels = tuple(str(channel.get("label") or "").strip() for channel in channels)
    colours = tuple(str(channel.get("color") or "").upper() for channel in channels)
    as_colour = count == 3 and dtype == np.uint8
    if as_colour and (tuple(map(str.lower, labels)) == RGB or (colours == _RGB_COLOURS and not all(labels))):
        return RGB, ()
    return (labels if all(labels) and len(set(labels)) == count else numbered), ()


def _more_images(ome: Mapping[str, Any]) -> tuple[str, ...]:
    count = len(ome["multiscales"])
    return (f"The file describes {count} pyramids of one image; the first is read",) if count > 1 else ()


def _missing_chunks(array: ZarrArray) -> tuple[str, ...]:
    """Say that chunks are missing: they count as empty, but may also have been lost on the way."""
    count = math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.shards or array.chunks, strict=True))
    if count > _COUNTED:
        return ()
    missing = count - array.nchunks_initialized
    if missing <= 0:
        return ()
    return (f"{missing:,} of {count:,} pieces of the image are not in the file and are read as {array.fill_value}",)


# ----------------------------------------------------------------------------------------------------- plain arrays


def _plain(path: Path, array: ZarrArray, choose: Sequence[str]) -> Volume:
    letters = _plain_axes(path, array, choose)
    where = arrangement(axes_named(letters), array, choose, path.name)
    values = _lazily(path, array, where, path.name)
    note = f"{path.name} is a plain Zarr array, which gives no pixel size; its axes are taken as {', '.join(letters)}"
    geometry = Geometry.from_spacing((1.0,) * (values.ndim - 1))
    names = (default_channel_names if values.dtype == np.uint8 else numbered_channel_names)(values.shape[0])
    return Volume(values, geometry, names, str(path), notes=(note, *_missing_chunks(array)))


def _plain_axes(path: Path, array: ZarrArray, choose: Sequence[str]) -> str:
    """Letters of the axes, by their names where the file has them, else by what can be meant."""
    given = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if isinstance(given, (list, tuple)):
        letters = "".join(str(name)[:1].lower() for name in given)
        if len(set(letters)) == array.ndim and {"y", "x"} <= set(letters) <= set("tczyx"):
            return letters
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.dtype == np.uint8 and min(array.shape[:2]) > 4:
        return "yxc"
    if array.ndim == 4:
        for letters in _ORDERS_OF_FOUR:
            if letters in choose:
                return letters
        sizes = " x ".join(map(str, array.shape))
        raise AmbiguousImage(
            f"{path.name} has four axes without names ({sizes})",
            [Choice(letters, title) for letters, title in _ORDERS_OF_FOUR.items()],
        )
    if array.ndim not in (2, 3, 5):
        raise BadImage(
            f"{path.name} has {array.ndim} axes, which make no image", remedy="save one image of it on its own"
        )
    return "tczyx"[-array.ndim :] if array.ndim != 3 else "zyx"


# ------------------------------------------------------------------------------------------------------------ masks


def read_zarr_labels(path: Path, *, choose: Sequence[str] = ()) -> tuple[LabelMap, ...]:
    """Read the masks of an OME-Zarr.

    Parameters
    ----------
    path
        An image with masks, its folder `labels`, or one mask.
    choose
        As for `read_zarr`.

    Returns
    -------
    tuple of LabelMap
        In memory where they are small, else as Dask arrays; with the names and colours the file gives.

    Raises
    ------
    AmbiguousImage
        For masks of several time points.
    BadImage
        If there are none, or they are damaged or no labels.
    """
    found = []
    for place in _masks_in(path):
        group = open_node(place)
        ome = ome_attributes(group.attrs.asdict())
        volume = _read(place, group, choose)
        if len(volume.array) > 1:
            raise BadImage(
                f"{place.name} has {len(volume.array)} channels, so it is a picture and not a mask",
                remedy="choose a mask with one number a pixel",
            )
        names, colours = _label_table(ome.get("image-label"))
        found.append(
            LabelMap(
                _labels(volume.array[0], place.name),
                volume.geometry,
                names,
                colours,
                source=str(place),
                notes=volume.notes,
            )
        )
    return tuple(found)


def _masks_in(path: Path) -> tuple[Path, ...]:
    node = open_node(path)
    ome = ome_attributes(node.attrs.asdict())
    if "image-label" in ome or isinstance(node, zarr.Array):
        return (path,)
    home = path if "labels" in ome else path / "labels"
    if home is not path and is_zarr(home):
        ome = ome_attributes(open_node(home).attrs.asdict())
    listed = ome.get("labels") if is_zarr(home) else None
    if isinstance(listed, list) and listed:
        return tuple(home / str(name) for name in listed)
    if "multiscales" in ome:
        return (path,)
    raise BadImage(f"There is no mask in {path.name}", remedy="choose an OME-Zarr with labels")


def _labels(array: Array, name: str) -> Array:
    """Bring a lazy array into memory where it is small, and to unsigned numbers."""
    if fits_memory(array.nbytes):
        values = np.asarray(array)
        return label_values(values, to=label_dtype(values, name), name_of_file=name)
    lazy_values: Any = array
    dtype = label_dtype(array, name)
    checked: Array = lazy_values.map_blocks(label_values, dtype=dtype, to=dtype, name_of_file=name)
    return checked


def _label_table(described: Any) -> tuple[dict[int, str], dict[int, tuple[float, float, float]]]:
    """Names and colours by label value; what cannot be understood is left out."""
    names: dict[int, str] = {}
    colours: dict[int, tuple[float, float, float]] = {}
    for key in ("properties", "colors"):
        rows = described.get(key) if isinstance(described, Mapping) else None
        for row in rows if isinstance(rows, list) else ():
            value = row.get("label-value") if isinstance(row, Mapping) else None
            if not isinstance(value, int) or isinstance(value, bool):
                continue
            text = next((row[word] for word in ("name", "label", "class") if isinstance(row.get(word), str)), "")
            if text:
                names[value] = text
            rgba = row.get("rgba")
            if isinstance(rgba, list) and len(rgba) == 4 and all(isinstance(part, (int, float)) for part in rgba):
                colours[value] = (rgba[0] / 255, rgba[1] / 255, rgba[2] / 255)
    return names, colours
