"""TIFF to arrays: ImageJ, OME, slides and plain files, with their pixel size and the meaning of their axes."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_medt.core import AmbiguousImage, BadImage, Choice, Geometry
from napari_medt.io.arrangement import Arrangement
from napari_medt.io.picture import TURNED, Picture, check_size, fits_memory, upright
from napari_medt.io.tiff_colours import samples_of
from napari_medt.io.tiff_geometry import AXES_KEY, channel_names, ome_image, tiff_geometry
from napari_medt.io.timepoint import chosen_time

_ASIDE = ("label", "macro", "thumbnail", "overview")  # what slides keep beside the image


class _Complaints(logging.Filter):
    """Keeps what tifffile logs about the file this thread is reading from the user's console, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self._here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        heard: list[logging.LogRecord] | None = getattr(self._here, "heard", None)
        if heard is None:
            return True
        heard.append(record)
        return False

    @contextmanager
    def hear(self) -> Iterator[list[logging.LogRecord]]:
        """Collect this thread's records while in the block."""
        before = getattr(self._here, "heard", None)
        heard: list[logging.LogRecord] = []
        self._here.heard = heard
        try:
            yield heard
        finally:
            self._here.heard = before


_complaints = _Complaints()
logging.getLogger("tifffile").addFilter(_complaints)


def read_tiff(path: Path, *, as_labels: bool, choose: Sequence[str] = ()) -> Picture:
    """Read an image in a TIFF: ImageJ, OME, a slide or plain pages.

    Parameters
    ----------
    path
        The file.
    as_labels
        Keep a palette's indices, one-bit values and white-is-zero values as they are; always in memory.
    choose
        Which image of several, and which time point of a film: keys of the question asked. With `"slices"`, times are
        taken as the slices of one scan.

    Returns
    -------
    Picture
        `(c, y, x)` or `(c, z, y, x)`; slices, or pages of which nothing is said, are z. Pyramids, and images that take
        more than a quarter of the free memory, are lazy where Zarr and Dask are installed.

    Raises
    ------
    AmbiguousImage
        If it holds several images, or a film.
    BadImage
        If it has no pixels, too many axes, colours that are not read, or is cut off.
    """
    with _complaints.hear() as heard, tifffile.TiffFile(path) as tiff:
        if not tiff.pages or not tiff.series:
            raise BadImage(f"{path.name} is a damaged or incomplete TIFF (it names no image)", remedy="export it again")
        which, notes = _which_image(tiff, choose, path.name)
        series = tiff.series[which]
        page = series.keyframe
        shape, axes = tuple(series.shape), str(series.axes)
        count = math.prod(shape)
        size_bytes = count * series.dtype.itemsize
        lazily = not as_labels and (len(series.levels) > 1 or not fits_memory(size_bytes)) and _can_be_lazy()
        check_size(path.name, pixels=count, bytes_needed=0 if lazily else size_bytes)
        if not {"Y", "X"} <= set(axes):
            raise BadImage(f"{path.name} has axes {axes}, which make no image", remedy="export it as plain TIFF")
        _check_whole(tiff, series, path.name, heard)
        seen = _arrangement(shape, axes, _our_axes(tiff), choose, path.name, as_labels=as_labels)
        samples = samples_of(
            page,
            count=seen.shape(shape)[0],
            dtype=series.dtype,
            names=channel_names(tiff, which),
            interleaved=seen.order[0] is not None and axes[seen.order[0]] == "S",
            as_labels=as_labels,
            file_name=path.name,
        )
        geometry = tiff_geometry(tiff, page, len(seen.order) - 1, which)
        if lazily:
            from napari_medt.io.tiff_lazy import lazy_levels

            finest, *levels = (samples.apply(level) for level in lazy_levels(path, which, series, seen))
        else:
            finest, levels = np.ascontiguousarray(samples.apply(seen.apply(series.asarray()))), []
        notes = (*notes, *_lost_words(tiff))
        turn = page.tags.valueof("Orientation", 1)
    if turn in range(2, 9):
        finest, *levels = (upright(level, turn) for level in (finest, *levels))
        if turn > 4:
            *others, down, across = geometry.spacing
            geometry = Geometry.from_spacing((*others, across, down), units=geometry.units)
        notes = (*notes, TURNED)
    return Picture(finest, geometry, samples.names, tuple(levels), notes)


def _lost_words(tiff: tifffile.TiffFile) -> tuple[str, ...]:
    """Say that a file describes itself in OME's words, but that these are damaged."""
    words = tiff.pages.first.description
    if "http://www.openmicroscopy.org/Schemas/OME" not in words[:2000] or ome_image(tiff) is not None:
        return ()
    return ("What the file says of itself is damaged, so sizes, channels and the meaning of its pages are unknown",)


def _can_be_lazy() -> bool:
    return all(find_spec(module) is not None for module in ("zarr", "dask"))


def _which_image(tiff: tifffile.TiffFile, choose: Sequence[str], name: str) -> tuple[int, tuple[str, ...]]:
    """Index of the image to read, and what is to be said about the others: labels and overviews are none."""
    images = [i for i, series in enumerate(tiff.series) if not str(series.name).lower().startswith(_ASIDE)] or [0]
    if len(images) == 1 or tiff.is_svs or tiff.is_ndpi:
        return images[0], ()
    if not tiff.is_ome and not tiff.is_scn:
        return images[0], (f"The file holds {len(images)} images of different kinds; the first is read",)
    choices = [Choice(f"image={i}", _title(tiff.series[i])) for i in images]
    for index, choice in zip(images, choices, strict=True):
        if choice.key in choose:
            return index, ()
    raise AmbiguousImage(f"{name} holds {len(images)} images", choices)


def _title(series: Any) -> str:
    size = " x ".join(map(str, series.shape))
    return f"{series.name}, {size}" if series.name else size


def _check_whole(tiff: tifffile.TiffFile, series: Any, name: str, heard: list[logging.LogRecord]) -> None:
    """Refuse a file that ends before its pixels do; some of its readers would fill in zeros."""
    end = tiff.filehandle.size
    missing = series.dataoffset is not None and series.dataoffset + series.nbytes > end
    for page in () if series.dataoffset is not None else series:
        if page is None or any(
            offset + length > end for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False)
        ):
            missing = True
            break
    # What is said about a single tag does not touch the pixels.
    broken = any(rec.levelno >= logging.ERROR and not rec.getMessage().startswith("<TiffTag") for rec in heard)
    if missing or broken:
        why = "it ends before its pixels do" if missing else "some of its pages cannot be found"
        raise BadImage(f"{name} is a damaged or incomplete TIFF ({why})", remedy="copy or export it again")


def _our_axes(tiff: tifffile.TiffFile) -> str:
    """Return `"yx"` or `"zyx"` if we wrote the file, so that a scan of one slice stays a scan."""
    imagej: dict[str, Any] | None = tiff.imagej_metadata
    if imagej is not None:
        return str(imagej.get(AXES_KEY, ""))
    image = ome_image(tiff)
    title = image.get("Name", "") if image is not None else ""
    return title.removeprefix(f"{AXES_KEY} ") if title.startswith(AXES_KEY) else ""


def _arrangement(
    shape: tuple[int, ...], axes: str, ours: str, choose: Sequence[str], name: str, *, as_labels: bool
) -> Arrangement:
    """Find the channels and the one axis of slices; axes of length 1 are left out."""
    seen = [i for i, letter in enumerate(axes) if letter in "YX" or shape[i] != 1]
    fixed = {i: 0 for i in range(len(axes)) if i not in seen}
    sizes = " x ".join(f"{axes[i]}={shape[i]}" for i in seen)
    letters = [axes[i] for i in seen]
    if as_labels and "Z" not in axes:
        letters = ["Z" if letter == "C" else letter for letter in letters]  # labels have no channels: these are slices
    if "T" in letters and ("Z" in letters or not (as_labels or "slices" in choose)):
        others = [] if "Z" in letters else [Choice("slices", "they are the slices of one scan")]
        time = seen[letters.index("T")]
        fixed[time] = chosen_time(shape[time], choose, f"{name} ({sizes})", others=others)
        seen.remove(time)
        letters.remove("T")
    colours = [i for i, letter in zip(seen, letters, strict=True) if letter in "CS"]
    stack = [i for i, letter in zip(seen, letters, strict=True) if letter not in "CSYX"]
    if len(stack) > 1 or len(colours) > 1:
        raise BadImage(
            f"{name} has more axes than one image or one scan ({sizes})",
            remedy="save one time point, or one channel of it, as its own file",
        )
    slices: list[int | None] = [None] if ours == "zyx" and not stack else [*stack]
    return Arrangement((colours[0] if colours else None, *slices, axes.index("Y"), axes.index("X")), fixed)
