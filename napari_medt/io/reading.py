"""`read`, `read_segmentation` and `read_labels`: which reader a file needs, and one sentence for each that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage, Cancel, Geometry, LabelMap, Progress, Volume, silent
from napari_medt.io.damage import told
from napari_medt.io.kinds import kind_of
from napari_medt.io.masks_in import as_labels, one_channel
from napari_medt.io.needs import needs
from napari_medt.io.picture import Picture
from napari_medt.io.pictures_in import read_picture
from napari_medt.io.tiff_in import read_tiff

if TYPE_CHECKING:
    from napari_medt.io.dicom_series import Series


def read(
    path: str | os.PathLike[str],
    *,
    choose: str | Sequence[str] = (),
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> Volume:
    """Read an image file, or a folder of them that make one image.

    What is inside counts, not the ending. Values are those the file means: scaled where it says so (Hounsfield units of a
    CT), else as stored. Where the file says how it lies in the patient, positions are the patient's. Colour is what the
    file says is colour; palettes become the colours they stand for, alpha is dropped, white-is-zero pictures are turned.
    Large images stay on disk, as Dask arrays, where their format allows it.

    Parameters
    ----------
    path
        NIfTI, DICOM (a folder or a file), NRRD, MetaImage, TIFF (also ImageJ and OME), OME-Zarr, a slide, PNG, JPEG or BMP.
    choose
        Answers to what a file leaves open, keys of `AmbiguousImage.choices`: one series of several, a time point of a film
        (`"t=3"`) and others.
    progress, cancel
        Told of, and looked at between, the files of a DICOM series; other formats are read in one go.

    Returns
    -------
    Volume
        `(c, y, x)` or `(c, z, y, x)`; spacing in mm or um where the file gives a believable one, else 1 px. What is odd
        about the file stands in its notes.

    Raises
    ------
    AmbiguousImage
        If the file can be read in more than one way; the error lists them.
    BadImage
        If it is missing, empty, damaged, too large or of no known format.
    Cancelled
        If asked to stop.
    MedtError
        If a library for it is missing.
    """
    place = Path(path).expanduser()
    chosen = _keys(choose)
    kind = kind_of(place)
    if cancel is not None:
        cancel.check()
    with told(place.name, kind):
        return _read(place, kind, chosen, progress, cancel)


def read_segmentation(
    path: str | os.PathLike[str], *, like: Volume | None = None, choose: str | Sequence[str] = ()
) -> tuple[LabelMap, ...]:
    """Read the masks of a file, with the names and colours it gives.

    Parameters
    ----------
    path
        NIfTI, DICOM SEG, NRRD (also Slicer's `.seg.nrrd`), MetaImage, TIFF, OME-Zarr, PNG or BMP. A palette's indices are
        the labels.
    like
        An image on whose grid the masks are wanted. Masks that do not say where they lie must be of its shape; others are
        resampled to it, by the nearest label.
    choose
        As for `read`.

    Returns
    -------
    tuple of LabelMap
        One, or several where segments overlap.

    Raises
    ------
    AmbiguousImage
        As for `read`.
    BadImage
        If the file cannot be read, holds colours, fractions or negative numbers, or does not fit `like`.
    MedtError
        If a library for it is missing.
    """
    place = Path(path).expanduser()
    chosen = _keys(choose)
    kind = kind_of(place)
    with told(place.name, kind):
        found = _read_masks(place, kind, chosen, like)
    if like is None:
        return found
    from napari_medt.io.resampling import on_grid_of

    return tuple(on_grid_of(mask, like) for mask in found)


def read_labels(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.unsignedinteger], Geometry]:
    """Read one mask: the first of what `read_segmentation` finds.

    Returns
    -------
    labels
        `(y, x)` or `(z, y, x)`; uint8, uint16 or uint32 as stored, the smallest that fits for other types.
    geometry
        As `read` gives it.

    Raises
    ------
    BadImage
        As for `read_segmentation`.
    """
    mask = read_segmentation(path)[0]
    if mask.fraction:
        raise BadImage(
            f"{Path(path).name} holds fractions, so it is not a mask", remedy="choose a file with whole numbers"
        )
    return np.asarray(mask.array), mask.geometry


def list_series(
    path: str | os.PathLike[str], *, progress: Progress = silent, cancel: Cancel | None = None
) -> tuple[Series, ...]:
    """List the images in a folder of DICOM files and the folders in it, to choose from; only headers are read.

    Parameters
    ----------
    path
        The folder, or one file.
    progress, cancel
        Told of, and looked at, between files.

    Returns
    -------
    tuple of Series
        With `uid` to give to `read` as `choose`, description, modality, shape, spacing, files, and what is odd.

    Raises
    ------
    BadImage
        If there is no image in it.
    MedtError
        If the library for it is missing.
    """
    needs("pydicom", "volumes", doing="Reading DICOM")
    from napari_medt.io import dicom_series

    return dicom_series.list_series(path, progress=progress, cancel=cancel)


def _keys(choose: str | Sequence[str]) -> tuple[str, ...]:
    return (choose,) if isinstance(choose, str) else tuple(choose)


def _read(place: Path, kind: str, choose: Sequence[str], progress: Progress, cancel: Cancel | None) -> Volume:
    if kind == "NIfTI":
        needs("nibabel", "volumes", doing="Reading NIfTI")
        from napari_medt.io.nifti import read_nifti

        return read_nifti(place, choose=choose)
    if kind in ("NRRD", "MetaImage"):
        needs("SimpleITK", "volumes", doing=f"Reading {kind}")
        from napari_medt.io.itk_in import read_itk

        return read_itk(place, kind, choose=choose)
    if kind == "DICOM":
        needs("pydicom", "volumes", doing="Reading DICOM")
        from napari_medt.io.dicom_in import read_dicom

        return read_dicom(place, choose=choose, progress=progress, cancel=cancel)
    if kind == "OME-Zarr":
        _needs_zarr()
        from napari_medt.io.zarr_in import read_zarr

        return read_zarr(place, choose=choose)
    if kind == "slide":
        _needs_zarr()
        from napari_medt.io.slides import read_slide

        return read_slide(place, choose=choose)
    picture = _decode(place, kind, choose, as_labels=False)
    return Volume(
        picture.array, picture.geometry, picture.channel_names, str(place), notes=picture.notes, levels=picture.levels
    )


def _read_masks(place: Path, kind: str, choose: Sequence[str], like: Volume | None) -> tuple[LabelMap, ...]:
    if kind in ("JPEG", "slide"):
        why = "which blurs the numbers of a mask" if kind == "JPEG" else "which is a picture and not a mask"
        raise BadImage(f"{place.name} is a {kind}, {why}", remedy="use a mask saved as TIFF, PNG or NIfTI")
    if kind == "NIfTI":
        needs("nibabel", "volumes", doing="Reading NIfTI")
        from napari_medt.io.nifti import read_nifti_labels

        return read_nifti_labels(place, choose=choose)
    if kind in ("NRRD", "MetaImage"):
        needs("SimpleITK", "volumes", doing=f"Reading {kind}")
        from napari_medt.io.itk_in import read_itk_labels

        return read_itk_labels(place, kind, choose=choose)
    if kind == "DICOM":
        needs("pydicom", "volumes", doing="Reading DICOM")
        needs("highdicom", "volumes", doing="Reading DICOM segmentations")
        from napari_medt.io.dicom_seg_in import read_dicom_seg

        return read_dicom_seg(_only_file(place), like=like)
    if kind == "OME-Zarr":
        _needs_zarr()
        from napari_medt.io.zarr_in import read_zarr_labels

        return read_zarr_labels(place, choose=choose)
    picture = _decode(place, kind, choose, as_labels=True)
    labels = as_labels(one_channel(picture.array, place.name), place.name)
    return (LabelMap(labels, picture.geometry, source=str(place), notes=picture.notes),)


def _only_file(place: Path) -> Path:
    """Return the file itself, or the only one in a folder."""
    inside = [file for file in place.iterdir() if file.is_file()] if place.is_dir() else [place]
    if len(inside) != 1:
        raise BadImage(f"{place.name} is a folder of {len(inside)} files", remedy="choose the file of the masks in it")
    return inside[0]


def _needs_zarr() -> None:
    for module in ("zarr", "dask"):
        needs(module, "lazy", doing="Reading images that stay on disk")


def _decode(place: Path, kind: str, choose: Sequence[str], *, as_labels: bool) -> Picture:
    if kind == "TIFF":
        return read_tiff(place, as_labels=as_labels, choose=choose)
    return read_picture(place, kind, as_labels=as_labels)
