"""TIFF to arrays: ImageJ, OME and plain files, with their pixel size and the meaning of their axes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_medt.core import BadImage
from napari_medt.core.volume import Array
from napari_medt.io.picture import GREY, RGB, Picture, check_size
from napari_medt.io.tiff_geometry import AXES_KEY, channel_names, ome_image, tiff_geometry

_WHITE_IS_ZERO, _PALETTE, _CMYK, _YCBCR = 0, 3, 5, 6
_LAB = (8, 9, 10)


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


def read_tiff(path: Path, *, as_labels: bool) -> Picture:
    """Decode the first series of a TIFF at full resolution.

    Parameters
    ----------
    path
        The file.
    as_labels
        Keep a palette's indices, one-bit values and white-is-zero values as they are.

    Returns
    -------
    Picture
        `(c, y, x)` or `(c, z, y, x)`; the one axis of pages, slices or times is z.

    Raises
    ------
    BadImage
        If it has no pixels, too many axes, colours that are not read, or is cut off.
    """
    with _complaints.hear() as heard, tifffile.TiffFile(path) as tiff:
        if not tiff.pages or not tiff.series:
            raise BadImage(f"{path.name} is a damaged or incomplete TIFF (it names no image)", remedy="export it again")
        series = tiff.series[0]
        page = series.keyframe
        shape, axes = tuple(series.shape), str(series.axes)
        count = int(np.prod(shape, dtype=np.int64))
        check_size(path.name, pixels=count, bytes_needed=count * series.dtype.itemsize)
        if not {"Y", "X"} <= set(axes):
            raise BadImage(f"{path.name} has axes {axes}, which make no image", remedy="export it as plain TIFF")
        _check_whole(tiff, series, path.name, heard)
        array = series.asarray()
        if as_labels and "Z" not in axes:
            axes = axes.replace("C", "Z")  # labels have no channels: what a program called so are the slices
        array, axes = _arrange(array, axes, _our_axes(tiff), path.name)
        names = channel_names(tiff)
        array, names = _colours(array, names, page, path.name, samples="S" in axes, as_labels=as_labels)
        geometry = tiff_geometry(tiff, page, array.ndim - 1)
    return Picture(array, geometry, names)


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


def _arrange(array: Array, axes: str, ours: str, name: str) -> tuple[Array, str]:
    """Bring `array` into `(c, [z,] y, x)`; axes in the order they had, without those of length 1."""
    kept = [i for i, letter in enumerate(axes) if letter in "YX" or array.shape[i] != 1]
    array = array.reshape([array.shape[i] for i in kept])
    axes = "".join(axes[i] for i in kept)
    colours = [i for i, letter in enumerate(axes) if letter in "CS"]
    stack = [i for i, letter in enumerate(axes) if letter not in "CSYX"]
    if len(stack) > 1 or len(colours) > 1:
        sizes = " x ".join(f"{letter}={size}" for letter, size in zip(axes, array.shape, strict=True))
        raise BadImage(
            f"{name} has more axes than one image or one scan ({sizes})",
            remedy="save one time point, or one channel of it, as its own file",
        )
    array = array.transpose(*colours, *stack, axes.index("Y"), axes.index("X"))
    if not colours:
        array = array[None]
    if ours == "zyx" and not stack:
        array = array[:, None]
    return np.ascontiguousarray(array), axes


def _colours(
    array: Array, names: tuple[str, ...], page: Any, name: str, *, samples: bool, as_labels: bool
) -> tuple[Array, tuple[str, ...]]:
    """Give the first axis its meaning: palette, grey, colour with or without alpha, inks, or named channels."""
    photometric = int(page.photometric)
    if photometric == _PALETTE and page.colormap is not None and not as_labels and len(array) == 1:
        return _through_palette(array[0], np.asarray(page.colormap))
    if samples:
        if photometric in _LAB:
            raise BadImage(f"{name} stores its colours as Lab, which are not read", remedy="save it again as RGB")
        if photometric == _CMYK and len(array) >= 4:
            return _inks_to_rgb(array[:4]), RGB
        if photometric in (2, _YCBCR) and len(array) >= 3:
            return array[:3], RGB
        extra = len(page.extrasamples)
        array = array[: max(1, len(array) - extra)] if extra else array
        if len(array) == 1:
            names = ()
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(1 if as_labels else 255)
    elif not as_labels and array.dtype == np.uint8 and page.bitspersample in (2, 4):
        array = array * np.uint8(255 // (2**page.bitspersample - 1))
    if photometric == _WHITE_IS_ZERO and not as_labels and array.dtype.kind == "u":
        array = np.invert(array)
    if len(array) == 1:
        return array, GREY
    return array, names if len(names) == len(array) and len(set(names)) == len(names) else ()


def _through_palette(indices: Array, colormap: Array) -> tuple[Array, tuple[str, ...]]:
    """Look up colours `(3, n)` uint16; `(1, ...)` if all are greys, else `(3, ...)`, uint8."""
    colours = (colormap >> 8 if colormap.max() > 255 else colormap).astype(np.uint8)
    if (colours == colours[:1]).all():
        return colours[0][indices][None], GREY
    return colours[:, indices], RGB


def _inks_to_rgb(inks: Array) -> Array:
    """Turn cyan, magenta, yellow and black `(4, ...)` into red, green and blue, without a colour profile."""
    top = np.iinfo(inks.dtype).max if inks.dtype.kind == "u" else 1
    light = 1.0 - inks.astype(np.float32) / top
    colours = light[:3] * light[3:] * top
    return np.asarray(np.rint(colours) if inks.dtype.kind == "u" else colours).astype(inks.dtype)
