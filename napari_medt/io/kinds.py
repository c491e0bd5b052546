"""Which format a file is of: by what it begins with, then by its ending."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from napari_medt.core import BadImage

FORMATS = {
    "NIfTI": (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz"),
    "DICOM": (".dcm", ".dicom", ".ima"),
    "NRRD": (".nrrd", ".nhdr"),
    "MetaImage": (".mha", ".mhd"),
    "TIFF": (".tif", ".tiff"),
    "OME-Zarr": (".zarr",),
    "slide": (".svs", ".ndpi", ".scn", ".bif", ".mrxs", ".vms", ".vmu", ".svslide"),
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
}
READABLE = "NIfTI, DICOM, NRRD, MetaImage, TIFF, OME-Zarr, slides, PNG, JPEG and BMP are read"
_SIGNATURES = {
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "BMP": (b"BM",),
    "NRRD": (b"NRRD0",),
}
_DICOM_STARTS = (
    b"\x02\0\0\0",
    b"\x02\0\x10\0",
    b"\x08\0\0\0",
    b"\x08\0\x05\0",
    b"\x08\0\x08\0",
)  # without its preamble
HIDDEN = (".", "__MACOSX")  # how the names of folders begin that hold no images of the user's
ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_HEAD_BYTES = 1024
_HEADER_BYTES = 348  # of NIfTI-1


def kind_of(place: Path) -> str:
    """Return which of `FORMATS` a file or folder is of; a folder that is no Zarr is taken for one of DICOM files.

    Raises
    ------
    BadImage
        If there is nothing there, or nothing that is read.
    """
    try:
        if place.is_dir():
            return "OME-Zarr" if place.suffix.lower() == ".zarr" or is_zarr(place) else "DICOM"
        if not place.exists():
            raise BadImage(f"There is no file {place}", remedy="check the name and the folder")
        if not place.is_file():
            raise BadImage(f"{place} is not an ordinary file", remedy="choose an image file")
        with place.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except ValueError as error:  # a null character in the name
        raise BadImage("The name of the file is not a valid name", remedy="check the name") from error
    except OSError as error:
        why = "you may not read it" if isinstance(error, PermissionError) else error.strerror or str(error)
        raise BadImage(f"{place} cannot be opened: {why}", remedy="check the file and its permissions") from error
    if not head:
        raise BadImage(f"{place.name} is empty (0 bytes)", remedy="copy or export it again")
    kind = _by_content(head, place)
    if kind:
        return kind
    ending = ending_of(place)
    for kind, endings in FORMATS.items():
        if ending in endings:
            raise BadImage(
                f"{place.name} is named like a {kind} but is none; {READABLE}", remedy="export the image again"
            )
    if ending in (".gz", ".bz2", ".zip", ".7z"):
        raise BadImage(f"{place.name} is a packed file", remedy="unpack it first")
    named = f"of the kind {place.suffix}" if place.suffix else "of a kind without an ending"
    raise BadImage(f"Files {named} are not read ({place.name}); {READABLE}", remedy="export the image as NIfTI or TIFF")


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return folder.is_dir() and any((folder / mark).is_file() for mark in ZARR_MARKS)


def ending_of(place: Path) -> str:
    """Return the ending by which formats go: that of the name in small letters, `.nii.gz` as a whole."""
    ending = place.suffix.lower()
    whole = Path(place.stem).suffix.lower() + ending
    return whole if whole in FORMATS["NIfTI"] else ending


def header_of_pair(place: Path) -> Path | None:
    """Return the header that belongs to the voxels in an `.img` or `.img.gz`; `None` if it is missing."""
    stem = place.name[: -len(ending_of(place))]
    return next((file for end in (".hdr", ".HDR", ".hdr.gz") if (file := place.with_name(stem + end)).is_file()), None)


def _by_content(head: bytes, place: Path) -> str:
    ending = ending_of(place)
    if ending in FORMATS["slide"]:
        return "slide"
    dicom = head[128:132] == b"DICM"  # what is before that may be the beginning of a TIFF, so that both can be read
    for kind, signatures in _SIGNATURES.items():
        if head.startswith(signatures) and (not dicom or ending in FORMATS[kind]):
            return kind
    packed = head.startswith(b"\x1f\x8b")
    inside = _unpacked(place) if packed else head
    if is_nifti(inside) or (packed and ending == ".nii.gz" and len(inside) < _HEADER_BYTES):  # cut off in its header
        return "NIfTI"
    if ending in (".img", ".img.gz"):
        if header_of_pair(place) is None:
            stem = place.name[: -len(ending)]
            raise BadImage(f"The header of {place.name} is missing", remedy=f"put {stem}.hdr beside it")
        return "NIfTI"
    if packed:
        return ""
    if dicom or (head.startswith(_DICOM_STARTS) and ending in ("", *FORMATS["DICOM"])):
        return "DICOM"
    if b"NDims" in head and b"=" in head and head[:1].isalpha():
        return "MetaImage"
    return ""


def is_nifti(head: bytes) -> bool:
    """Whether a file begins as NIfTI-1, NIfTI-2 or Analyze does."""
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    return (348 in sizes and len(head) >= _HEADER_BYTES) or (540 in sizes and head[4:7] in (b"n+2", b"ni2"))


def _unpacked(place: Path) -> bytes:
    """Return the beginning of what a gzip file holds, as far as it can be unpacked."""
    try:
        with gzip.open(place) as file:
            return file.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""
