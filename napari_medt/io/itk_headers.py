"""What the headers of NRRD and MetaImage say that SimpleITK does not hand on, or does not check."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from napari_medt.core import BadImage

NOT_IN_PATIENT = "not in the frame of a patient"  # in the comment of our own MetaImage, which has no word for it
CHANNELS_KEY = "napari_medt_channels"  # in our own NRRD, which has no word for them
_MOST_BYTES = 2**20  # of a header
_PATIENT_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las")
_UNITS = {"mm": "mm", "millimeter": "mm", "um": "um", "µm": "um", "micron": "um", "microns": "um", "micrometer": "um"}
_UNITS |= {"m": "m", "meter": "m", "cm": "cm"}
_NO_LENGTHS = (
    "???",
    "?",
    "",
    "s",
    "sec",
    "second",
    "seconds",
    "ms",
    "msec",
    "px",
    "pixel",
    "pixels",
    "voxel",
    "voxels",
)
_META_NEEDS = ("NDims", "DimSize", "ElementType", "ElementDataFile")


def header_of(path: Path, kind: str) -> dict[str, str]:
    """Read the fields of a header, keys and values of NRRD and MetaImage alike.

    Parameters
    ----------
    path
        The file.
    kind
        `"NRRD"` or `"MetaImage"`.
    """
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES)
    mark, found = ("=", {}) if kind == "MetaImage" else (":", dict[str, str]())
    at = 0
    while at < len(text):
        end = text.find(b"\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].decode("utf-8", "replace").strip()
        at = end + 1
        if not line and kind == "NRRD":
            found["_length"] = str(at)
            break
        key, found_mark, value = line.partition(mark)
        if found_mark and not line.startswith("#"):
            found[key.strip()] = value.removeprefix("=").strip()
        if kind == "MetaImage" and key.strip() == "ElementDataFile":
            found["_length"] = str(at)
            break
    return found


def in_patient(header: Mapping[str, str], kind: str) -> bool:
    """Whether the file says how it lies in a patient."""
    if kind == "NRRD":
        known = header.get("space", "").lower().removesuffix("-time") in _PATIENT_SPACES
        return known and "space directions" in header
    turned = any(key in header for key in ("TransformMatrix", "Rotation", "Orientation"))
    return turned and header.get("Comment") != NOT_IN_PATIENT


def unit_of(header: Mapping[str, str], kind: str) -> str:
    """Return mm, um, cm or m; empty where the file gives none, `"?"` where they are unknown or differ."""
    given = (
        header.get("space units") or header.get("units") or "" if kind == "NRRD" else header.get("DistanceUnits", "")
    )
    words = {word.lower() for word in given.replace('"', " ").split()} - set(_NO_LENGTHS)
    units = {_UNITS.get(word, "?") for word in words}
    return units.pop() if len(units) == 1 else "?" if units else ""


def lacks_size(header: Mapping[str, str], kind: str) -> bool:
    """Whether the distance of pixels is missing along an axis of space, where ITK takes 1."""
    if kind == "MetaImage":
        return not {"ElementSpacing", "ElementSize"} & set(header)
    kinds = header.get("kinds", "").lower().split()
    others = sum(word not in ("domain", "space", "time", "???", "none") for word in kinds)
    return header.get("spacings", "").lower().split().count("nan") > others


def channels_of(header: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of channels in a NRRD of ours; empty without."""
    try:
        said = json.loads(header.get(CHANNELS_KEY, "[]"))
    except ValueError:
        return ()
    return tuple(map(str, said)) if isinstance(said, list) else ()


def missing_pixels(path: Path, name: str) -> BadImage:
    """Say that the file `name`, which the header `path` names, is not there."""
    return BadImage(f"The pixels of {path.name} are missing", remedy=f"put {Path(name).name} beside it")


def check_header(path: Path, header: Mapping[str, str], kind: str) -> None:
    """Refuse a MetaImage that ITK would complain about on the console: what it needs is not said, or is no number.

    Raises
    ------
    BadImage
        With what is wrong.
    """
    if kind == "NRRD":
        return
    missing = [key for key in _META_NEEDS if not header.get(key)]
    sizes = header.get("DimSize", "").split()
    if missing or not all(re.fullmatch(r"[-+]?\d+", size) for size in (*sizes, header["NDims"])):
        raise BadImage(
            f"{path.name} is a damaged or incomplete MetaImage (its header gives no {missing[0] if missing else 'size'})",
            remedy="copy or export it again",
        )
    if any(int(size) < 1 for size in sizes):
        raise BadImage(f"{path.name} has no pixels", remedy="choose an image with pixels in it")


def check_data(path: Path, header: Mapping[str, str], kind: str, wanted: int) -> None:
    """Look whether all data are there, and undamaged where they are packed: SimpleITK reads damaged ones as noise.

    Parameters
    ----------
    path, header, kind
        Of the file.
    wanted
        Bytes that the unpacked data take.

    Raises
    ------
    BadImage
        If they are not.
    """
    found = _size_of_nrrd(path, header) if kind == "NRRD" else _size_of_meta(path, header)
    if found is not None and found < wanted:
        raise BadImage(
            f"{path.name} is a damaged or incomplete {kind} (some of its pixels are missing)",
            remedy="copy or export it again",
        )


def _size_of_nrrd(path: Path, header: Mapping[str, str]) -> int | None:
    """Bytes of packed data after the header; `None` for others, which SimpleITK counts itself."""
    beside = any(key in header for key in ("data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"))
    if beside or header.get("encoding", "") not in ("gzip", "gz"):
        return None
    return _unpacked_size(path, int(header["_length"]), path.stat().st_size)


def _size_of_meta(path: Path, header: Mapping[str, str]) -> int | None:
    """Bytes of the data; `None` where they are packed in several files, or text."""
    place = header.get("ElementDataFile", "")
    local = place.upper() == "LOCAL"
    files = [path] if local else _files_of_meta(path, header)
    for file in files:
        if not file.is_file():
            raise missing_pixels(path, file.name)
    if header.get("BinaryData", "True").lower() == "false":
        return None
    start = int(header["_length"]) if local else max(0, int(header.get("HeaderSize", "0")))
    if header.get("CompressedData", "False").lower() != "true":
        return len(files) * min(file.stat().st_size - start for file in files)
    if len(files) > 1:
        return None
    packed = int(header.get("CompressedDataSize", "0"))
    return _unpacked_size(files[0], start, packed) if start + packed <= files[0].stat().st_size else 0


def _files_of_meta(path: Path, header: Mapping[str, str]) -> list[Path]:
    """Files of the data: one, those listed after the header, or those whose numbers are given, as in `a%d.raw 1 9 1`."""
    place = header["ElementDataFile"]
    if place.startswith("LIST"):
        with path.open("rb") as file:
            file.seek(int(header["_length"]))
            names = [line.strip() for line in file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()]
        return [path.parent / name for name in names if name] or [path.parent / "the files of its slices"]
    found = re.fullmatch(r"(.*%0?\d*d\S*)((?:\s+\d+){0,3})", place)
    if found is None:
        return [path.parent / place]
    given = [int(word) for word in found[2].split()]
    first, last, step = *given, *(1, int(header["DimSize"].split()[-1]), 1)[len(given) :]
    return [path.parent / (found[1] % number) for number in range(first, last + 1, max(1, step))]


def _unpacked_size(path: Path, start: int, size: int) -> int:
    """Count the bytes that can be unpacked without a fault; 0 where the checksum at the end does not fit."""
    unpacker, found = zlib.decompressobj(47), 0
    with path.open("rb") as file:
        file.seek(start)
        while size > 0 and not unpacker.eof and (part := file.read(min(size, 2**16))):
            size -= len(part)
            try:
                found += len(unpacker.decompress(part))
            except zlib.error:
                return 0
    return found if unpacker.eof else 0
