"""The images in a folder and the folders in it: files, OME-Zarr, and each DICOM series as one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_medt.core import Cancel, Progress, silent
from napari_medt.io.kinds import FORMATS, HIDDEN, ending_of
from napari_medt.io.names import common_folder

_FILES = {ending for kind, endings in FORMATS.items() if kind not in ("DICOM", "OME-Zarr") for ending in endings}


@dataclass(frozen=True)
class FoundImage:
    """One image of a folder.

    Attributes
    ----------
    path, choose
        As `read` takes them.
    files
        What is read of a folder that holds more than this image; else empty.
    patient
        As `Acquisition.patient`, where headers were read.
    """

    path: Path
    choose: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    patient: str = ""


def images_in(
    folder: Path, *, leave_out: Path | None = None, progress: Progress = silent, cancel: Cancel | None = None
) -> tuple[FoundImage, ...]:
    """List the images in a folder; none is read but for the headers of DICOM files.

    Parameters
    ----------
    folder
        An absolute path.
    leave_out
        A folder that is not looked into, for results.
    progress, cancel
        Told about, and looked at between, DICOM headers.
    """
    images, dicom = _walk(folder, leave_out)
    found = [FoundImage(image) for image in images]
    return (*found, *_series(folder, leave_out, progress, cancel)) if dicom else tuple(found)


def _walk(folder: Path, leave_out: Path | None) -> tuple[list[Path], bool]:
    """Images in a folder and the folders in it, and whether there may be DICOM files."""
    from napari_medt.io.dicom_files import is_dicom

    images: list[Path] = []
    dicom = False
    for home, folders, files in os.walk(folder):
        zarrs = [name for name in folders if name.lower().endswith(".zarr")]
        images += [Path(home, name) for name in sorted(zarrs)]
        folders[:] = sorted(
            name
            for name in folders
            if name not in zarrs and not name.startswith(HIDDEN) and Path(home, name) != leave_out
        )
        for name in sorted(files):
            place = Path(home, name)
            if name.startswith(HIDDEN):
                continue
            if ending_of(place) in _FILES:
                if not _is_second_half(place):
                    images.append(place)
            elif not dicom:
                dicom = is_dicom(place)
    return images, dicom


def _is_second_half(place: Path) -> bool:
    """Whether a file belongs to a header beside it."""
    return place.suffix.lower() == ".img" and place.with_suffix(".hdr").exists()


def _series(folder: Path, leave_out: Path | None, progress: Progress, cancel: Cancel | None) -> Iterator[FoundImage]:
    from napari_medt.io.dicom_series import list_series

    for series in list_series(folder, progress=progress, cancel=cancel):
        files = tuple(sorted(str(Path(file).absolute()) for file in series.files))
        home = common_folder([Path(file) for file in files])
        if leave_out is None or leave_out not in (home, *home.parents):
            yield FoundImage(home, (series.uid,), files, series.patient)


def files_at(image: Path) -> Sequence[Path]:
    """The files that make up the image at a path, a folder or a file, in the order of their names."""
    if image.is_dir():
        return sorted(Path(home, name) for home, _, names in os.walk(image) for name in names)
    if image.suffix.lower() in (".hdr", ".img", ".mhd", ".nhdr"):  # the values lie in another file
        start = image.name.split(".")[0]
        return sorted(path for path in image.parent.iterdir() if path.is_file() and path.name.split(".")[0] == start)
    return [image]
