"""From any format that is read to any that is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_medt._cli.describe import masks_in
from napari_medt.core import AmbiguousImage, BadImage, Cancel, LabelMap, Progress, silent

_MASKS_ONLY = (".seg.nrrd", ".dcm")
_MOST_LABELS = 64  # that an unnamed mask may hold before it is taken for an image


def convert_file(
    path: Path,
    target: Path,
    *,
    choose: Sequence[str] = (),
    like: Path | None = None,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """Write an image or a mask in another format, with its geometry and, where the format has room, its names.

    Parameters
    ----------
    path, target
        Files or folders; the folder of `target` must exist.
    choose
        As for `read`, for `path`, or for `like` where that is given.
    like
        The image a mask belongs to: the mask is laid on its grid. A DICOM segmentation needs the series it was drawn on.
    progress, cancel
        As for `read`.

    Returns
    -------
    tuple
        What was written, and sentences about what is odd.

    Raises
    ------
    BadImage
        If it cannot be read, or the format of `target` does not hold it.
    Cancelled
        If asked to stop.
    """
    from napari_medt.io import read, read_segmentation, write
    from napari_medt.io.kinds import kind_of

    if path.resolve() == target.resolve():
        raise BadImage(f"{target} would overwrite itself", remedy="choose another name")
    if like is not None:
        source = read(like, choose=choose, progress=progress, cancel=cancel)
        masks = read_segmentation(path, like=source)
        return write(_one_or_all(masks), target, source=source), _notes(masks)
    if target.suffix.lower() == ".dcm":
        raise BadImage(
            "A DICOM segmentation refers to the images it was drawn on", remedy="give their folder with --like FOLDER"
        )
    if target.name.lower().endswith(_MASKS_ONLY):
        masks = read_segmentation(path, choose=choose)
        return write(_one_or_all(masks), target), _notes(masks)
    try:
        volume = read(path, choose=choose, progress=progress, cancel=cancel)
    except AmbiguousImage:
        raise
    except BadImage:
        masks = masks_in(path, choose=choose)
        if not masks:
            raise
        return write(_one_or_all(masks), target), _notes(masks)
    beside = kind_of(path) == "OME-Zarr" and path.parent.name != "labels"  # there masks lie beside the image
    if volume.array.dtype.kind in "iu" and not beside:  # it may be a mask with names
        masks = masks_in(path, choose=choose)
        if any(mask.names for mask in masks):
            return write(_one_or_all(masks), target), _notes(masks)
        if masks and target.suffix.lower() == ".zarr" and _few_labels(masks[0]):  # the one form that tells them apart
            why = f"{path.name} holds few whole numbers, so it is written as a mask"
            return write(_one_or_all(masks), target), (*_notes(masks), why)
    return write(volume, target), volume.notes


def _few_labels(mask: LabelMap) -> bool:
    """Whether a mask holds few values; of an image this is known after its first slices."""
    found: set[int] = set()
    for plane in mask.array:
        found.update(np.unique(plane).tolist())
        if len(found) > _MOST_LABELS:
            return False
    return True


def _one_or_all(masks: Sequence[LabelMap]) -> LabelMap | Sequence[LabelMap]:
    return masks[0] if len(masks) == 1 else masks


def _notes(masks: Sequence[LabelMap]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for mask in masks for note in mask.notes))
