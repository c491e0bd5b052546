"""What the decoders hand on, and the limits they all keep."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from napari_medt.core import BadImage, Geometry
from napari_medt.core.memory import allowed
from napari_medt.core.volume import Array

MAX_PIXELS = 2**30


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded file: `(c, y, x)` or `(c, z, y, x)`, its geometry, and the channels' names where the file has some.

    Large ones may be lazy, with coarser levels; `notes` say what is odd. All as in `Volume`.
    """

    array: Array
    geometry: Geometry
    channel_names: tuple[str, ...] = ()
    levels: tuple[Array, ...] = ()
    notes: tuple[str, ...] = ()


TURNED = "The picture was stored turned or mirrored, as cameras do, and is shown upright as the file says"


def upright(array: Array, orientation: int) -> Array:
    """Turn a picture as its tag `Orientation` says, which TIFF defines and EXIF takes over.

    Parameters
    ----------
    array
        `(..., y, x)` as stored; a view is returned where that will do.
    orientation
        1 to 8; anything else means upright.
    """
    if orientation in (5, 6, 7, 8):  # stored column by column
        array = array.swapaxes(-1, -2)
    if orientation in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        array = array[..., ::-1]
    return array


RGB = ("red", "green", "blue")
GREY = ("grey",)


def check_size(
    name: str,
    *,
    pixels: int,
    bytes_needed: int,
    limit: int | None = None,
    remedy: str = "close other programs, or crop the image first",
) -> None:
    """Refuse an image without pixels, or one that would exhaust the memory, before it is decoded.

    Raises
    ------
    BadImage
        With the size and what to do.
    """
    if pixels <= 0:
        raise BadImage(f"{name} has no pixels", remedy="choose an image with pixels in it")
    if limit is not None and pixels > limit:
        raise BadImage(
            f"{name} says it has {pixels / 1e6:,.0f} million pixels; {limit / 1e6:,.0f} million are the limit",
            remedy="crop it or scale it down first",
        )
    free = allowed(psutil.virtual_memory().available)
    if bytes_needed > free:
        raise BadImage(
            f"{name} needs {bytes_needed / 1e9:,.1f} GB of memory, but only {free / 1e9:,.1f} GB are free",
            remedy=remedy,
        )


def fits_memory(size_bytes: int) -> bool:
    """Whether an image takes less than a quarter of the memory that is free; a larger one better stays on disk."""
    return bool(size_bytes < allowed(psutil.virtual_memory().available) / 4)
