"""Where in a folder a mask belongs: beside an OME-Zarr image, in its list of masks, or on its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import zarr

from napari_medt.core import BadImage
from napari_medt.io.atomic import storage_error, sync_folder
from napari_medt.io.kinds import is_zarr
from napari_medt.io.ngff import ome_attributes
from napari_medt.io.zarr_nodes import open_node

_DEFAULT_NAME = "segmentation"


def place_of(path: Path) -> tuple[Path, Path | None]:
    """Return where the mask goes, and the image it goes into, if any.

    Raises
    ------
    BadImage
        If there is something else.
    """
    path = Path(os.path.realpath(path))
    if path.parent.name == "labels" and _is_image(path.parent.parent):
        return path, path.parent.parent
    if not path.exists() or _is_mask(path):
        return path, None
    if _is_image(path):
        return path / "labels" / _DEFAULT_NAME, path
    raise BadImage(f"{path} is there already, and is no OME-Zarr image", remedy="choose another name")


def _is_image(path: Path) -> bool:
    ome = _ome(path)
    return "multiscales" in ome and "image-label" not in ome


def _is_mask(path: Path) -> bool:
    return "image-label" in _ome(path)


def _ome(path: Path) -> Mapping[str, Any]:
    node = open_node(path) if is_zarr(path) else None
    return ome_attributes(node.attrs.asdict()) if isinstance(node, zarr.Group) else {}


def open_list(image: Path, zarr_format: Literal[2, 3]) -> zarr.Group:
    """Return the group of an image's masks, made where there is none."""
    place = image / "labels"
    if is_zarr(place):
        return zarr.open_group(place, mode="r+", use_consolidated=False)
    return zarr.open_group(place, mode="a", zarr_format=zarr_format, use_consolidated=False)


def enlist(image: Path, zarr_format: Literal[2, 3], name: str) -> None:
    """Add a mask to the list of those an image has."""
    group = open_list(image, zarr_format)
    attributes = group.attrs.asdict()
    listed = list(ome_attributes(attributes).get("labels") or ())
    if name in listed:
        return
    if zarr_format == 2:
        group.attrs["labels"] = [*listed, name]
    else:
        inner = attributes.get("ome")
        group.attrs["ome"] = {"version": "0.5", **(inner if isinstance(inner, dict) else {}), "labels": [*listed, name]}


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Say in one sentence what the disk refuses in the block."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def sync_files(folder: Path) -> None:
    """Force all files of a folder to disk."""
    for here, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(here, name), "r+b") as file:
                os.fsync(file.fileno())
        sync_folder(Path(here))
