"""Images and masks to NRRD, Slicer's `.seg.nrrd` and MetaImage, slab by slab."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from napari_medt.core import Geometry
from napari_medt.io.contents import Contents, slabs, value_type
from napari_medt.io.itk_headers import CHANNELS_KEY, NOT_IN_PATIENT

_NRRD_TYPES = {
    "uint8": "uint8",
    "int8": "int8",
    "uint16": "uint16",
    "int16": "int16",
    "uint32": "uint32",
    "int32": "int32",
    "float32": "float",
    "float64": "double",
    "uint64": "uint64",
    "int64": "int64",
}
_META_TYPES = {
    "uint8": "MET_UCHAR",
    "int8": "MET_CHAR",
    "uint16": "MET_USHORT",
    "int16": "MET_SHORT",
    "uint32": "MET_UINT",
    "int32": "MET_INT",
    "float32": "MET_FLOAT",
    "float64": "MET_DOUBLE",
    "uint64": "MET_ULONG_LONG",
    "int64": "MET_LONG_LONG",
}
_COLOURS = ((128, 174, 128), (241, 214, 145), (177, 122, 101), (111, 184, 210), (216, 101, 79), (221, 130, 101))
_LEVEL = 4  # of packing: masks shrink no further beyond it


def encode_nrrd(file: BinaryIO, contents: Contents, *, name: str, segments: bool = False) -> None:
    """Write an image or a mask into an open file.

    Parameters
    ----------
    file
        Open for writing.
    contents
        Several channels, or masks that overlap, become the first axis. Dask arrays are computed slab by slab.
    name
        Of the file, for messages.
    segments
        Describe the labels as Slicer's segments, with names and colours.
    """
    array, geometry = _together(contents.array), contents.geometry
    dtype = value_type(array, allowed=tuple(_NRRD_TYPES), name=name)
    several = array.ndim > geometry.ndim
    spacing, origin, direction = geometry.to_itk()
    steps = (np.reshape(direction, (geometry.ndim,) * 2) * spacing).T
    kind = "list" if contents.labels else "RGB-color" if array.shape[-1] == 3 and _is_colour(contents) else "vector"
    lines = ["NRRD0005", f"type: {_NRRD_TYPES[dtype.name]}", f"dimension: {array.ndim}"]
    if geometry.frame == "patient":
        lines.append("space: left-posterior-superior")
    else:
        lines.append(f"space dimension: {geometry.ndim}")
    lines += [
        f"sizes: {' '.join(map(str, reversed(array.shape)))}",
        f"space directions: {'none ' if several else ''}{' '.join(map(_vector, steps))}",
        f"kinds: {f'{kind} ' if several else ''}{' '.join(['domain'] * geometry.ndim)}",
        "endian: little",
        "encoding: gzip",
    ]
    if geometry.units != "px":
        lines.append(f"space units: {' '.join([chr(34) + geometry.units + chr(34)] * geometry.ndim)}")
    lines.append(f"space origin: {_vector(origin)}")
    if several and contents.channel_names and kind == "vector":
        lines.append(f"{CHANNELS_KEY}:={json.dumps(contents.channel_names)}")
    if segments:
        lines += _segments(contents)
    file.write(("\n".join(lines) + "\n\n").encode())
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
        for slab in slabs(array, dtype.newbyteorder("<")):
            packed.write(slab.data)


def encode_meta(file: BinaryIO, contents: Contents, *, name: str) -> None:
    """Write an image or a mask as MetaImage with its data inside; as `encode_nrrd`."""
    array, geometry = _together(contents.array), contents.geometry
    dtype = value_type(array, allowed=tuple(_META_TYPES), name=name)
    spacing, origin, direction = geometry.to_itk()
    # Column by column: MetaImage lists the direction of each axis after the other.
    turned = np.reshape(direction, (geometry.ndim,) * 2).T.ravel()
    lines = [
        "ObjectType = Image",
        f"NDims = {geometry.ndim}",
        *([] if geometry.frame == "patient" else [f"Comment = {NOT_IN_PATIENT}"]),
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
    ]
    head = "\n".join(lines) + "\nCompressedDataSize = "
    file.write(head.encode())
    at = file.tell()
    rest = [f"{0:020d}"]
    if geometry.frame == "patient" or not _straight(geometry):
        rest.append(f"TransformMatrix = {_numbers(turned)}")
    if geometry.units != "px":
        rest.append(f"DistanceUnits = {geometry.units}")
    rest += [
        f"Offset = {_numbers(origin)}",
        f"ElementSpacing = {_numbers(spacing)}",
        f"DimSize = {' '.join(map(str, reversed(array.shape[: geometry.ndim])))}",
        *([f"ElementNumberOfChannels = {array.shape[-1]}"] if array.ndim > geometry.ndim else []),
        f"ElementType = {_META_TYPES[dtype.name]}",
        "ElementDataFile = LOCAL",
    ]
    file.write(("\n".join(rest) + "\n").encode())
    start = file.tell()
    packer = zlib.compressobj(_LEVEL)
    for slab in slabs(array, dtype.newbyteorder("<")):
        file.write(packer.compress(slab.data))
    file.write(packer.flush())
    end = file.tell()
    file.seek(at)
    file.write(f"{end - start:020d}".encode())
    file.seek(end)


def _together(array: Any) -> Any:
    """Bring several channels to the end, where both formats want them; leave one out."""
    return array[0] if array.shape[0] == 1 else array.transpose(*range(1, array.ndim), 0)


def _is_colour(contents: Contents) -> bool:
    return contents.channel_names == ("red", "green", "blue")


def _straight(geometry: Geometry) -> bool:
    return bool(np.allclose(geometry.direction, np.eye(geometry.ndim), atol=1e-12))


def _numbers(values: Sequence[float] | np.ndarray[Any, Any]) -> str:
    return " ".join(repr(float(value) + 0.0) for value in values)


def _vector(values: Sequence[float] | np.ndarray[Any, Any]) -> str:
    return f"({_numbers(values).replace(' ', ',')})"


def _segments(contents: Contents) -> list[str]:
    """Describe each label as Slicer does; labels without a name are numbered."""
    extent = " ".join(f"0 {size - 1}" for size in reversed(contents.array.shape[1:]))
    lines: list[str] = []
    count = 0
    for layer, (names, colours) in enumerate(zip(contents.names, contents.colours, strict=True)):
        for value in sorted(set(names) | set(colours) | _values(contents.array[layer])):
            said: Mapping[str, str] = {
                "ID": f"Segment_{count + 1}",
                "Name": " ".join(str(names.get(value, f"label {value}")).split()),
                "NameAutoGenerated": str(int(value not in names)),
                "Color": _numbers(colours.get(value) or [part / 255 for part in _COLOURS[count % len(_COLOURS)]]),
                "ColorAutoGenerated": str(int(value not in colours)),
                "LabelValue": str(value),
                "Layer": str(layer),
                "Extent": extent,
            }
            lines += [f"Segment{count}_{key}:={text}" for key, text in said.items()]
            count += 1
    lines.append("Segmentation_ContainedRepresentationNames:=Binary labelmap|")
    lines.append("Segmentation_SourceRepresentation:=Binary labelmap")
    lines.append(f"Segmentation_ReferenceImageExtentOffset:={' '.join('0' for _ in contents.array.shape[1:])}")
    return lines


def _values(array: Any) -> set[int]:
    """Labels that occur, found slab by slab; most of a mask is background."""
    return {int(value) for slab in slabs(array, array.dtype) for value in np.unique(slab[slab > 0])}
