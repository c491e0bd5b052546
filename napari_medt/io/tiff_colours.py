"""What the samples of a TIFF mean: grey, colour with or without alpha, a palette, inks, or named channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from napari_medt.core import BadImage
from napari_medt.core.volume import Array
from napari_medt.io.picture import GREY, RGB

_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 2, 3, 5, 6
_LAB = (8, 9, 10)


@dataclass(frozen=True)
class Samples:
    """What to do with the channels of an array `(c, ...)`.

    Attributes
    ----------
    kept
        How many of the first channels mean something; the others are alpha.
    names
        Of the channels in the end; may be empty.
    convert
        Turns those kept into what is meant; `None` where they are that.
    """

    kept: int
    names: tuple[str, ...] = ()
    convert: Callable[[Array], Array] | None = None

    def apply(self, array: Any) -> Any:
        """Take the channels and convert them, in memory or, for a Dask array, when they are read."""
        array = array[: self.kept]
        if self.convert is None:
            return array
        if not hasattr(array, "dask"):
            return self.convert(array)
        result = self.convert(np.zeros((self.kept, *(1,) * (array.ndim - 1)), array.dtype))
        whole = array.rechunk({0: -1})
        chunks = ((len(result),), *whole.chunks[1:])
        return whole.map_blocks(self.convert, dtype=result.dtype, chunks=chunks, meta=result[:, ..., :0])


def samples_of(
    page: Any,
    *,
    count: int,
    dtype: np.dtype[Any],
    names: tuple[str, ...],
    interleaved: bool,
    as_labels: bool,
    file_name: str,
) -> Samples:
    """Find out what the channels of an image mean.

    Parameters
    ----------
    page
        Its first page.
    count, dtype
        Of the channels as stored.
    names
        That the file gives the channels; empty without.
    interleaved
        Whether the channels are the samples of a pixel.
    as_labels
        Keep a palette's indices, one-bit values and white-is-zero values as they are.
    file_name
        For messages.

    Raises
    ------
    BadImage
        For colours that are not read.
    """
    photometric = int(page.photometric)
    if photometric == _PALETTE and page.colormap is not None and not as_labels and count == 1:
        return _palette(np.asarray(page.colormap))
    if interleaved:
        if photometric in _LAB:
            raise BadImage(f"{file_name} stores its colours as Lab, which are not read", remedy="save it again as RGB")
        if photometric == _CMYK and count >= 4:
            return Samples(4, RGB, _inks_to_rgb)
        if photometric in (_RGB, _YCBCR) and count >= 3:
            return Samples(3, RGB)
        count = max(1, count - len(page.extrasamples))
    if count == 1:
        names = GREY
    elif len(names) != count or len(set(names)) != count:
        names = ()
    factor, bits = 1, int(page.bitspersample)
    if not as_labels and (dtype.kind == "b" or (dtype == np.uint8 and bits in (2, 4))):
        factor = 255 // (2**bits - 1)
    invert = photometric == _WHITE_IS_ZERO and not as_labels and dtype.kind in "bu"
    changed = dtype.kind == "b" or factor != 1 or invert
    return Samples(count, names, partial(_stretched, factor=factor, invert=invert) if changed else None)


def _stretched(values: Array, *, factor: int, invert: bool) -> Array:
    """Bring values of few bits to eight, and turn white-is-zero round."""
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if factor != 1:
        values = values * np.uint8(factor)
    return np.asarray(np.invert(values)) if invert else values


def _palette(colormap: Array) -> Samples:
    """Colours `(3, n)` uint16 to uint8; one channel if all are greys."""
    colours = (colormap >> 8 if colormap.max() > 255 else colormap).astype(np.uint8)
    if (colours == colours[:1]).all():
        return Samples(1, GREY, partial(_look_up, table=colours[:1]))
    return Samples(1, RGB, partial(_look_up, table=colours))


def _look_up(indices: Array, *, table: Array) -> Array:
    return np.asarray(table[:, indices[0]])


def _inks_to_rgb(inks: Array) -> Array:
    """Turn cyan, magenta, yellow and black `(4, ...)` into red, green and blue, without a colour profile."""
    top = np.iinfo(inks.dtype).max if inks.dtype.kind == "u" else 1
    light = 1.0 - inks.astype(np.float32) / top
    colours = light[:3] * light[3:] * top
    return np.asarray(np.rint(colours) if inks.dtype.kind == "u" else colours).astype(inks.dtype)
