"""Finding one's way in a Zarr: arrays, groups, the images in them, and which axis means what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

from napari_medt.core import BadImage
from napari_medt.io.arrangement import Arrangement
from napari_medt.io.kinds import ZARR_MARKS, is_zarr
from napari_medt.io.ngff import Axis, Multiscale, first_level_path, ome_attributes, parse_multiscale
from napari_medt.io.timepoint import chosen_time

ZarrArray = zarr.Array[Any]
Node = ZarrArray | zarr.Group


def open_node(path: Path) -> Node:
    """Open a Zarr array or group for reading.

    Raises
    ------
    BadImage
        If there is none, or what describes it is damaged.
    """
    if not path.is_dir():
        raise BadImage(f"There is no folder {path}", remedy="check the name and the folder")
    if not is_zarr(path):
        raise BadImage(
            f"{path.name} is a folder without the description that Zarr needs ({', '.join(ZARR_MARKS[:3])})",
            remedy="choose the folder that holds it, or copy the image again",
        )
    try:
        if _is_array(path):
            return zarr.open_array(path, mode="r")
        return zarr.open_group(path, mode="r", use_consolidated=False)
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        NotImplementedError,
        zarr.errors.BaseZarrError,
    ) as error:
        raise BadImage(
            f"{path.name} is a damaged Zarr, or of a kind that is not read: its description cannot be understood",
            remedy="copy or export it again",
        ) from error


def _is_array(path: Path) -> bool:
    if (path / ".zarray").is_file():
        return True
    described = path / "zarr.json"
    return described.is_file() and bool(
        re.search(r'"node_type"\s*:\s*"array"', described.read_text("utf-8", "replace"))
    )


def images_in(group: zarr.Group, ome: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the images in a group that is none itself, in the order the file gives, else sorted as people count."""
    well = ome.get("well")
    if isinstance(well, Mapping):
        return tuple(str(field["path"]) for field in well.get("images", ()))
    members = dict(group.members())
    if isinstance(described := members.get("OME"), zarr.Group):
        listed = ome_attributes(described.attrs.asdict()).get("series")
        if isinstance(listed, list):
            return tuple(str(key) for key in listed if str(key) in members)
    images = [key for key, member in members.items() if "multiscales" in ome_attributes(member.attrs.asdict())]
    if not images:
        images = [key for key, member in members.items() if isinstance(member, zarr.Array)]
    return tuple(
        sorted(images, key=lambda key: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)])
    )


def title_of(group: zarr.Group, key: str) -> str:
    """Say in a few words what an image or array in a group is: its name, if it has one, and its size."""
    member = group.get(key)
    name = ""
    if isinstance(member, zarr.Group):
        ome = ome_attributes(member.attrs.asdict())
        described = ome.get("multiscales")
        name = str(described[0].get("name") or "") if isinstance(described, list) and described else ""
        member = member.get(first_level_path(ome))
    size = " x ".join(map(str, member.shape)) if isinstance(member, zarr.Array) else "size unknown"
    return f"{name}, {size}" if name and name != "/" else size


def levels_of(path: Path, group: zarr.Group, ome: Mapping[str, Any]) -> tuple[Multiscale, tuple[ZarrArray, ...]]:
    """Return the description of an image and the arrays of its levels.

    Raises
    ------
    BadImage
        If the description is damaged, or an array is missing or does not fit.
    """
    first = _member(path, group, first_level_path(ome))
    image = parse_multiscale(ome, first.ndim, path.name)
    arrays = (first, *(_member(path, group, level.path) for level in image.levels[1:]))
    if 0 in first.shape:
        raise BadImage(f"{path.name} has no pixels", remedy="choose an image with pixels in it")
    if any(array.ndim != first.ndim or array.dtype != first.dtype for array in arrays):
        raise BadImage(f"The levels of {path.name} do not fit each other", remedy="export it again")
    return image, arrays


def _member(path: Path, group: zarr.Group, key: str) -> ZarrArray:
    try:
        found = group[key] if key else None
    except (KeyError, OSError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise BadImage(f"Level {key} of {path.name} is missing or damaged", remedy="copy or export it again") from error
    if not isinstance(found, zarr.Array):
        raise BadImage(
            f"The description of {path.name} does not say where its array is", remedy="copy or export it again"
        )
    return found


def arrangement(
    axes: Sequence[Axis], array: ZarrArray, choose: Sequence[str], name: str, *, keep_slice: bool = False
) -> Arrangement:
    """Find the axes of an image, and ask for the time point of a film; a single slice is flat unless it is kept.

    Raises
    ------
    AmbiguousImage, BadImage
    """
    time = [i for i, axis in enumerate(axes) if axis.kind == "time"]
    spatial = [i for i, axis in enumerate(axes) if axis.kind == "space" or (not axis.kind and axis.name in "zyx")]
    channel = [i for i, axis in enumerate(axes) if axis.kind == "channel"]
    rest = [i for i in range(len(axes)) if i not in (*time, *spatial, *channel)]
    fixed = dict.fromkeys(rest, 0)
    for i in time:
        fixed[i] = chosen_time(array.shape[i], choose, name)
    if sorted(axes[i].name for i in spatial) == sorted("zyx"[-len(spatial) :]):
        spatial.sort(key=lambda i: "zyx".index(axes[i].name))
    if len(spatial) == 3 and array.shape[spatial[0]] == 1 and not keep_slice:
        fixed[spatial.pop(0)] = 0
    long = [axes[i].name for i in rest if array.shape[i] > 1]
    if len(spatial) not in (2, 3) or len(channel) > 1 or len(time) > 1 or long:
        sizes = " x ".join(f"{axis.name}={size}" for axis, size in zip(axes, array.shape, strict=True))
        raise BadImage(
            f"The axes of {name} make neither one image nor one scan ({sizes})",
            remedy="save one image or one scan of it on its own",
        )
    return Arrangement((channel[0] if channel else None, *spatial), fixed)
