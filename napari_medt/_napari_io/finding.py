"""`get_reader`: which files are ours; told from names and a few first bytes, so that it takes no time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

LayerData = tuple[Any, dict[str, Any], str]
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
_SLIDE_ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".ome.tif", ".ome.tiff")
ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".zarr", *DICOM_ENDINGS, *_SLIDE_ENDINGS)
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_LOOKED_AT = 64  # entries of a folder, after which it is given up that scans are in it


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return what opens a file, a folder, or several of them; napari calls it for everything it is to open.

    Plain pictures (`.tif`, `.png`, `.jpg`) are left to napari.

    Parameters
    ----------
    path
        One path, or several that are opened as layers of their own.

    Returns
    -------
    callable or None
        Takes the same path or paths and returns layers; None where it is nothing of ours.
    """
    places = places_of(path)
    if not places or not all(map(is_ours, places)):
        return None
    return _open


def _open(path: Paths) -> list[LayerData]:
    from napari_medt._napari_io.reading import open_files

    return open_files(places_of(path))


def places_of(path: Paths) -> list[Path]:
    """Return one path or several as a list."""
    several = [path] if isinstance(path, (str, os.PathLike)) else path
    return [Path(one).expanduser() for one in several]


def is_ours(place: Path) -> bool:
    """Whether a file has one of our endings, or a folder is a Zarr or holds scans."""
    try:
        if place.is_dir():
            return is_zarr_folder(place) or any(map(_is_scan, _files_in(place)))
    except OSError:
        return False
    return place.name.lower().endswith(ENDINGS)


def is_zarr_folder(place: Path) -> bool:
    """Whether a folder is a Zarr."""
    return place.suffix.lower() == ".zarr" or any((place / mark).is_file() for mark in _ZARR_MARKS)


def _files_in(folder: Path) -> Iterator[Path]:
    """The first files of a folder and of the folders in it, layer by layer."""
    folders, left = [folder], _LOOKED_AT
    while folders and left > 0:
        with os.scandir(folders.pop(0)) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    return
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.is_file():
                    yield Path(entry.path)


def _is_scan(place: Path) -> bool:
    if place.name.lower().endswith(DICOM_ENDINGS):
        return True
    try:
        with place.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
