"""`list_series`: what there is to choose from in a folder of DICOM files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_medt.core import BadImage, Cancel, Progress, silent
from napari_medt.io.dicom_files import Found, find, place_of
from napari_medt.io.dicom_frames import frames_of
from napari_medt.io.dicom_grid import grid_of, pixel_spacing
from napari_medt.io.dicom_header import description, is_tiled, modality, patient, quietly, text
from napari_medt.io.dicom_stacks import Stack, alternatives, distances, several, stacks_of, without_copies


@dataclass(frozen=True)
class Series:
    """One image to choose.

    Attributes
    ----------
    uid
        What to give as `choose`: the UID of the series, with `#2` and so on where it holds several stacks.
    description
        What the scanner calls it, without words of the patient's name or number.
    modality
        DICOM's short name, `"CT"`, `"MR"`, ...
    shape
        `(z, y, x)`, or `(y, x)` of a single picture.
    spacing
        In the same order, mm; 1 where the file gives none.
    files
        Paths, in the order of the slices.
    odd
        Sentences about what is missing, doubled or ambiguous.
    patient
        As `Acquisition.patient`.
    """

    uid: str
    description: str
    modality: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    files: tuple[str, ...]
    odd: tuple[str, ...] = ()
    patient: str = ""

    @property
    def title(self) -> str:
        """In a few words, for people."""
        size = " x ".join(map(str, self.shape[::-1]))
        step = " x ".join(f"{value:.3g}" for value in self.spacing[::-1])
        return f"{self.description or 'without description'}, {self.modality or 'unknown kind'}, {size} of {step} mm"


@quietly()
def list_series(
    path: str | os.PathLike[str], *, progress: Progress = silent, cancel: Cancel | None = None
) -> tuple[Series, ...]:
    """List the images in a folder of DICOM files and the folders in it, reading their headers only.

    Parameters
    ----------
    path
        Folder, or one file.
    progress
        Told of every file.
    cancel
        Looked at before every file.

    Returns
    -------
    tuple of Series
        A series that holds several stacks, such as localisers in three directions, gives one entry for each.

    Raises
    ------
    BadImage
        If there is no such folder.
    Cancelled
        If asked to stop.
    """
    found = find(place_of(Path(path).expanduser()), progress=progress, cancel=cancel)
    return tuple(series_of(stack, odd=found.odd) for stack in stacks_in(found))


def stacks_in(found: Found) -> tuple[Stack, ...]:
    """Sort all frames of the files found into stacks."""
    return stacks_of(frame for file, header in found.headers for frame in frames_of(file, header))


def series_of(stack: Stack, *, odd: Iterable[str] = ()) -> Series:
    """Describe a stack; `odd` is said of it besides what is odd in it."""
    header = stack.first.header
    said = list(odd)
    if "#" in stack.key:
        said.append("The series holds several stacks of slices, of which this is one")
    if "LOCALIZER" in text(header, "ImageType").split("\\"):
        said.append("It is a localiser, made to plan the scan")
    single, copies = without_copies(stack)
    if copies:
        said.append(f"{copies} slice{'s are' if copies > 1 else ' is'} there twice")
    if options := alternatives(single):
        said.append(f"{several(single, len(options))}: {options[0][0].title}, ..., {options[-1][0].title}")
        single = options[0][1]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    try:
        grid = grid_of(single.frames[:1] if is_tiled(header) else single.frames, name="The series")
    except BadImage as error:
        said.append(error.what)
        down_across = pixel_spacing(single.first)[0] or (1.0, 1.0)
        step = float(np.median(np.diff(distances(single.frames))))
        shape, spacing = (len(single.frames), *single.first.shape), (step, *down_across)
    else:
        said += grid.notes
        spacing = grid.geometry.spacing
        shape = (len(grid.frames), *single.first.shape)[-len(spacing) :]
    files = tuple(dict.fromkeys(frame.file for frame in stack.frames))
    return Series(stack.key, description(header), modality(header), shape, spacing, files, tuple(said), patient(header))
