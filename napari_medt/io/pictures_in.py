"""PNG, JPEG and BMP to arrays."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin

from napari_medt.core import BadImage, Geometry
from napari_medt.core.volume import Array
from napari_medt.io.picture import GREY, MAX_PIXELS, RGB, TURNED, Picture, check_size, upright
from napari_medt.io.pixel_size import geometry_from_dpi

# Written into our PNGs, because PNG itself can only say pixels per metre.
GEOMETRY_KEY = "napari-medt geometry"

_ORIENTATION = 0x0112  # in EXIF

# The decoders are called by name rather than through Image.open, whose limit on pixels is one setting for the whole
# process and warns where we want one sentence.
_DECODERS: dict[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}


def read_picture(path: Path, kind: str, *, as_labels: bool) -> Picture:
    """Decode one picture.

    Parameters
    ----------
    path
        The file.
    kind
        `"PNG"`, `"JPEG"` or `"BMP"`.
    as_labels
        Keep a palette's indices and one-bit values as they are.

    Returns
    -------
    Picture
        `(1, y, x)` or `(3, y, x)`, uint8 or uint16.

    Raises
    ------
    BadImage
        If it has no pixels or too many.
    """
    with path.open("rb") as file:
        deep = _is_deep_png(file, path.name) if kind == "PNG" else False
        file.seek(0)
        image: ImageFile.ImageFile = _DECODERS[kind](file, str(path))
        width, height = image.size
        pixels = width * height
        check_size(path.name, pixels=pixels, bytes_needed=pixels * 8, limit=MAX_PIXELS)
        if deep:
            file.seek(0)
            array = _decode_deep(file.read())
        else:
            image.load()
            array = _values(image, as_labels=as_labels)
        geometry = _geometry(image, kind)
        turn = _orientation(image)
    channels = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    names = GREY if array.ndim == 2 else RGB
    if not 1 < turn <= 8:
        return Picture(channels, geometry, names)
    if turn > 4:
        geometry = Geometry.from_spacing(geometry.spacing[::-1], units=geometry.units)
    return Picture(np.ascontiguousarray(upright(channels, turn)), geometry, names, notes=(TURNED,))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (ValueError, TypeError, KeyError, SyntaxError, OSError, struct.error):
        return 1  # damaged words about the camera do not touch the picture


def _is_deep_png(file: BinaryIO, name: str) -> bool:
    """Whether a PNG holds 16-bit colours, or grey with alpha, which Pillow would cut to 8 bit."""
    head = file.read(26)
    if len(head) < 26:
        raise EOFError("it ends within its header")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    if not width or not height:
        raise BadImage(f"{name} has no pixels", remedy="choose an image with pixels in it")
    return depth == 16 and colour in (2, 4, 6)


def _decode_deep(data: bytes) -> Array:
    import imagecodecs

    array: Array = np.asarray(imagecodecs.png_decode(data))
    return array[..., 0] if array.shape[-1] == 2 else array[..., :3]


def _values(image: Image.Image, *, as_labels: bool) -> Array:
    """Return `(y, x)` or `(y, x, 3)` as the picture means it."""
    if image.mode == "P":
        indices = np.asarray(image)
        if as_labels:
            return indices
        colours = np.zeros((256, 3), np.uint8)
        palette = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        colours[: len(palette)] = palette[:256]
        grey = bool((palette == palette[:, :1]).all())
        looked_up: Array = (colours[:, 0] if grey else colours)[indices]
        return looked_up
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(1 if as_labels else 255)
    if image.mode.startswith("I"):  # 16-bit grey, which some versions of Pillow widen to 32 bit
        return np.asarray(image).astype(np.uint16)
    if image.mode == "L":
        return np.array(image)
    if image.mode in ("LA", "La"):
        return np.asarray(image)[..., 0].copy()
    if image.mode not in ("RGB", "RGBA", "RGBX"):
        image = image.convert("RGB")
    return np.asarray(image)[..., :3].copy()


def _geometry(image: Image.Image, kind: str) -> Geometry:
    if kind == "PNG":
        written = image.info.get(GEOMETRY_KEY)
        if isinstance(written, str):
            try:
                values = json.loads(written)
                return Geometry.from_spacing(values["spacing"], origin=values["origin"], units=str(values["units"]))
            except (ValueError, KeyError, TypeError, BadImage):
                pass  # not as we write it: fall back to what every PNG can say
        dpi = image.info.get("dpi")
        if isinstance(dpi, tuple) and len(dpi) == 2:
            return geometry_from_dpi(float(dpi[1]), float(dpi[0]))
    return Geometry.from_spacing((1.0, 1.0))
