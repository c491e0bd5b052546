"""`read_dicom`: DICOM images to volumes, in the patient's millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_medt.core import Acquisition, BadImage, Cancel, Choice, Progress, Volume, silent
from napari_medt.core.volume import Array
from napari_medt.io.dicom_files import Found, find, place_of
from napari_medt.io.dicom_grid import Grid, grid_of
from napari_medt.io.dicom_header import has_image, is_mask, is_tiled, modality, number, patient, quietly, series_uid
from napari_medt.io.dicom_pixels import decode, is_colour
from napari_medt.io.dicom_series import series_of, stacks_in
from napari_medt.io.dicom_slide import read_levels, slide_geometry
from napari_medt.io.dicom_stacks import Stack, alternatives, chosen, several, without_copies
from napari_medt.io.dicom_values import meaning_of
from napari_medt.io.picture import GREY, RGB


@quietly()
def read_dicom(
    path: Path, *, choose: Sequence[str] = (), progress: Progress = silent, cancel: Cancel | None = None
) -> Volume:
    """Read a DICOM image.

    Slices are put in order by where they lie, not by their numbers. A tilted gantry gives a sheared geometry, which is
    exact.

    Parameters
    ----------
    path
        A folder of slices (with all folders in it), or one file.
    choose
        Which series, time point, echo or diffusion weighting, and what to do about missing slices: keys of the questions
        asked.
    progress, cancel
        Told of, and looked at between, headers and then slices.

    Returns
    -------
    Volume
        `(c, z, y, x)` in the frame of the patient, slices along the normal of their pictures; `(c, y, x)` for pictures that
        do not say where they lie. Values are rescaled: HU for CT, SUV for PET where the file has all it takes.

    Raises
    ------
    AmbiguousImage
        For several series, several images of one place, missing or unequally spaced slices, films.
    BadImage
        If there is no image, or it is damaged, or compressed in a way nobody here reads.
    Cancelled
        If asked to stop.
    """
    path = place_of(path)
    found = find(path, progress=progress, cancel=cancel)
    _check(found, path)
    stacks = stacks_in(found)
    options = [(Choice(stack.key, series_of(stack).title), stack) for stack in stacks]
    stack, copies = without_copies(chosen(f"{path.name} holds {len(options)} images", options, choose))
    series = series_of(stack)
    name = f"DICOM series {series.description}" if series.description else path.name
    notes = list(found.odd)
    if copies:
        notes.append(f"{copies} slice{'s are' if copies > 1 else ' is'} there twice and read once")
    if is_tiled(stack.first.header):
        return _slide(stack, path, notes)
    if others := alternatives(stack):
        stack = chosen(f"{several(stack, len(others))} ({name})", others, choose)
    grid = grid_of(stack.frames, name=name, choose=choose)
    meaning = meaning_of(grid.frames)
    values = decode(
        grid.frames, factor=meaning.factor, inverted=meaning.inverted, name=name, progress=progress, cancel=cancel
    )
    array = _arranged(values, grid)
    header = stack.first.header
    if path.is_file() and grid.geometry.ndim == 3 and array.shape[1] == 1:
        notes.append("Choose the folder instead of the file to read all slices of the series")
    return Volume(
        array,
        grid.geometry,
        RGB if is_colour(header) else GREY,
        str(path),
        Acquisition(
            modality(header),
            meaning.unit,
            meaning.windows,
            series_uid(header),
            tuple(dict.fromkeys(frame.file for frame in grid.frames)),
            patient(header),
        ),
        (*notes, *grid.notes, *meaning.notes),
    )


def _slide(stack: Stack, path: Path, notes: Sequence[str]) -> Volume:
    header = stack.first.header
    levels = read_levels(stack.frames)
    geometry = slide_geometry(stack.first.spacing)
    said = () if stack.first.spacing else ("The slide gives no size of its pixels",)
    if (number(header, "TotalPixelMatrixFocalPlanes") or 1) > 1:
        said = (*said, "Only the first focal plane of the slide is read")
    return Volume(
        levels[0],
        geometry,
        RGB if is_colour(header) else GREY,
        str(path),
        Acquisition(
            modality(header), series_uid=series_uid(header), files=(stack.first.file,), patient=patient(header)
        ),
        (*notes, *said),
        tuple(levels[1:]),
    )


def _check(found: Found, path: Path) -> None:
    if path.is_file() and is_mask(found.headers[0][1]):
        raise BadImage(f"{path.name} is a segmentation and no image", remedy="open it as a mask")
    if not path.is_file() and not found.headers:
        if found.masks:
            raise BadImage(f"{path.name} holds segmentations but no image", remedy="open them as masks")
        if found.damaged:
            what = f"{path.name} holds no DICOM image that can be read: {'; '.join(found.odd)}"
            raise BadImage(what, remedy="copy or export it again")
        raise BadImage(f"There is no DICOM image in {path.name}", remedy="choose the folder of the scan")
    if path.is_file() and not has_image(found.headers[0][1]):
        kind = modality(found.headers[0][1])
        what = f"is a DICOM file without an image ({kind})" if kind else "is no DICOM image, or a damaged one"
        raise BadImage(f"{path.name} {what}", remedy="choose the image itself")


def _arranged(values: Array, grid: Grid) -> Array:
    """Frames `(c, n, y, x)` on the grid; those that are missing are interpolated."""
    if grid.sources is not None:
        filled = np.empty((len(values), len(grid.sources), *values.shape[2:]), values.dtype)
        for place, source in enumerate(grid.sources):
            below = int(np.floor(source))
            share = source - below
            slab = values[:, below]
            if share:
                slab = slab * (1 - share) + values[:, below + 1] * share
                slab = np.rint(slab) if values.dtype.kind in "ui" else slab
            filled[:, place] = slab
        values = filled
    return values if grid.geometry.ndim == 3 else values[:, 0]
