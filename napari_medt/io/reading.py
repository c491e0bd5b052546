"""`read` and `read_labels`: which decoder a file needs, and one sentence for each that cannot be used."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage, Geometry, Volume
from napari_medt.io.picture import Picture
from napari_medt.io.pictures_in import read_picture
from napari_medt.io.tiff_in import read_tiff

FORMATS = {
    "TIFF": (".tif", ".tiff"),
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
}
_SIGNATURES = {
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "BMP": (b"BM",),
}
_READABLE = "TIFF, PNG, JPEG and BMP are read"
# What the decoders raise for damaged files; anything else is a mistake of ours and must be seen as one.
_DAMAGE: tuple[type[Exception], ...] = (OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError)
_DAMAGE += (RuntimeError, AttributeError, ArithmeticError, AssertionError, struct.error, zlib.error)


def read(path: str | os.PathLike[str]) -> Volume:
    """Read an image file.

    The pages of a TIFF become slices, its samples or channels become channels. Colour is what the file says is
    colour. Values stay as stored (16 bit, float, NaN); only palettes become the colours they stand for, alpha is
    dropped, white-is-zero pictures are turned, and one-bit pictures become 0 and 255. Orientation tags are not
    followed, so that arrays lie as viewers show them.

    Parameters
    ----------
    path
        TIFF (also ImageJ and OME), PNG, JPEG or BMP. What is inside counts, not the ending.

    Returns
    -------
    Volume
        `(c, y, x)` or `(c, z, y, x)`; spacing in mm or um where the file gives a believable pixel size, else 1 px.

    Raises
    ------
    BadImage
        If the file is missing, empty, damaged, too large or of no known format.
    """
    place = Path(path).expanduser()
    picture = _decode(place, as_labels=False)
    return Volume(picture.array, picture.geometry, picture.channel_names, str(place))


def read_labels(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.unsignedinteger], Geometry]:
    """Read a mask.

    Parameters
    ----------
    path
        TIFF, PNG or BMP. A palette's indices are the labels.

    Returns
    -------
    labels
        `(y, x)` or `(z, y, x)`; uint8, uint16 or uint32 as stored, the smallest that fits for other types.
    geometry
        As `read` gives it.

    Raises
    ------
    BadImage
        If the file cannot be read, or holds colours, fractions or negative numbers.
    """
    place = Path(path).expanduser()
    picture = _decode(place, as_labels=True)
    array, name = picture.array, place.name
    if len(array) > 1 and not all(np.array_equal(array[0], other) for other in array[1:]):
        raise BadImage(
            f"{name} holds {len(array)} different channels, so it is a picture and not a mask",
            remedy="choose a file with one number a pixel",
        )
    labels = array[0]
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            raise BadImage(f"{name} holds fractions, so it is not a mask", remedy="choose a file with whole numbers")
        if abs(labels).max() >= 2**32:
            raise BadImage(f"{name} holds numbers too large for labels", remedy="number its labels anew")
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise BadImage(
            f"{name} holds negative numbers, so it is not a mask", remedy="choose a file with labels from 0 up"
        )
    if labels.dtype not in (np.uint8, np.uint16, np.uint32):
        labels = labels.astype(smallest_dtype(int(labels.max()), name))
    return np.ascontiguousarray(labels), picture.geometry


def smallest_dtype(highest: int, name: str) -> np.dtype[np.unsignedinteger]:
    """Return the smallest of uint8, uint16 and uint32 that holds `highest`.

    Raises
    ------
    BadImage
        If none does.
    """
    for dtype in (np.uint8, np.uint16, np.uint32):
        if highest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise BadImage(
        f"{name} holds labels up to {highest}, which is more than fits a file", remedy="number its labels anew"
    )


def _decode(place: Path, *, as_labels: bool) -> Picture:
    kind = _kind_of(place)
    if as_labels and kind == "JPEG":
        raise BadImage(
            f"{place.name} is a JPEG, which blurs the numbers of a mask", remedy="use a mask saved as TIFF or PNG"
        )
    try:
        if kind == "TIFF":
            return read_tiff(place, as_labels=as_labels)
        return read_picture(place, kind, as_labels=as_labels)
    except MemoryError as error:
        raise BadImage(f"{place.name} does not fit into the memory", remedy="crop it or scale it down") from error
    except NotImplementedError as error:
        raise BadImage(
            f"{place.name} is a {kind} of a kind that is not read ({_first_line(error)})",
            remedy="save it again as plain TIFF or PNG",
        ) from error
    except _DAMAGE as error:
        raise BadImage(
            f"{place.name} is a damaged or incomplete {kind} ({_first_line(error)})", remedy="copy or export it again"
        ) from error


def _first_line(error: BaseException) -> str:
    """Return what a decoder says of a file where that means something to a reader."""
    lines = str(error).strip().splitlines()
    if not lines or "<" in lines[0] or isinstance(error, (TypeError, AttributeError, LookupError, AssertionError)):
        return "its parts do not fit together"
    return lines[0].split(" (")[0].rstrip(".")[:120]


def _kind_of(place: Path) -> str:
    """Return which format a file is of, by what it begins with."""
    try:
        if place.is_dir():
            raise BadImage(f"{place} is a folder", remedy="choose one image file in it")
        if not place.exists():
            raise BadImage(f"There is no file {place}", remedy="check the name and the folder")
        if not place.is_file():
            raise BadImage(f"{place} is not an ordinary file", remedy="choose an image file")
        with place.open("rb") as file:
            head = file.read(16)
    except ValueError as error:  # a null character in the name
        raise BadImage("The name of the file is not a valid name", remedy="check the name") from error
    except OSError as error:
        why = "you may not read it" if isinstance(error, PermissionError) else error.strerror or str(error)
        raise BadImage(f"{place} cannot be opened: {why}", remedy="check the file and its permissions") from error
    if not head:
        raise BadImage(f"{place.name} is empty (0 bytes)", remedy="copy or export it again")
    for kind, signatures in _SIGNATURES.items():
        if head.startswith(signatures):
            return kind
    for kind, endings in FORMATS.items():
        if place.suffix.lower() in endings:
            raise BadImage(
                f"{place.name} is named like a {kind} but is none; {_READABLE}", remedy="export the image again"
            )
    ending = f"of the kind {place.suffix}" if place.suffix else "of a kind without an ending"
    raise BadImage(f"Files {ending} are not read ({place.name}); {_READABLE}", remedy="export the image as TIFF or PNG")
