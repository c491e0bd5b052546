"""NIfTI (and Analyze) to volumes and masks; headers by nibabel."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from napari_medt.core import Acquisition, BadImage, Choice, LabelMap, Volume
from napari_medt.core.volume import Array, numbered_channel_names
from napari_medt.io.arrangement import Arrangement
from napari_medt.io.kinds import ending_of, header_of_pair
from napari_medt.io.masks_in import as_labels, one_channel
from napari_medt.io.nifti_geometry import nifti_geometry
from napari_medt.io.nifti_words import Words, read_words
from napari_medt.io.picture import RGB, check_size, fits_memory
from napari_medt.io.timepoint import chosen_time

_LAZY_BYTES = 10**9  # from here on an uncompressed file stays on disk
_COMPONENTS = {128: 3, 2304: 4}  # by data type: red, green, blue, and alpha
_VOXELS = (".img", ".IMG", ".img.gz")  # endings of the second file of a pair
_CHANNEL_INTENTS = (*range(1004, 1012), 2003, 2004)  # matrices, vectors and colours, whose values are no time points
_silent = logging.getLogger(f"{__name__}.silent")
_silent.setLevel(logging.CRITICAL + 1)  # what nibabel mends in a header is no news for a console


@dataclass(frozen=True)
class NiftiFile:
    """What the header says, and where the data are: in which file, packed or not, from which byte on."""

    header: Any
    data: Path
    packed: bool
    offset: int
    words: Words


def read_nifti(path: Path, *, choose: Sequence[str] = ()) -> Volume:
    """Read a scan.

    Parameters
    ----------
    path
        `.nii`, `.nii.gz`, or either file of a pair `.hdr` and `.img`, also packed.
    choose
        `"t=3"` for a time point, `"channels"` where the fourth axis holds channels, `"sform"` or `"qform"` where both are
        there and differ, `"RAS"` or `"LAS"` for how a file lies that does not say it.

    Returns
    -------
    Volume
        `(c, z, y, x)`, or `(c, y, x)` for a file of two axes. Values are scaled as the file says: to whole numbers where
        slope and intercept are whole, else to float32, or float64 for values of more than 16 bits. Uncompressed files of
        more than 1 GB stay on disk, as Dask arrays.

    Raises
    ------
    AmbiguousImage
        For several time points, and for contradicting positions.
    BadImage
        If it is damaged, or has more axes than a scan.
    """
    return _read(path, choose)[0]


def read_nifti_labels(path: Path, *, choose: Sequence[str] = ()) -> tuple[LabelMap, ...]:
    """Read a mask, or several that we wrote; with `choose="channels"` each channel of a file of four axes is one.

    Else as `read_nifti`.
    """
    volume, words = _read(path, choose)
    ours = len(words.masks) == len(volume.array) > 1
    channels = volume.array if ours or "channels" in choose else one_channel(volume.array, path.name)[None]
    return tuple(
        LabelMap(
            as_labels(channel, path.name),
            volume.geometry,
            {value: text for value, text in words.names.items() if not ours or value in words.masks[number]},
            {value: shade for value, shade in words.colours.items() if not ours or value in words.masks[number]},
            source=volume.source,
            notes=volume.notes,
        )
        for number, channel in enumerate(channels)
    )


def _read(path: Path, choose: Sequence[str]) -> tuple[Volume, Words]:
    file = open_nifti(path)
    header = file.header
    dims = tuple(int(size) for size in header["dim"][1 : int(header["dim"][0]) + 1])
    components = _COMPONENTS.get(int(header["datatype"]), 0)
    dtype = np.dtype(np.uint8) if components else header.get_data_dtype()
    if dtype.kind == "c":
        raise BadImage(f"{path.name} holds complex numbers", remedy="save their magnitude or their phase on its own")
    stored = (*reversed(dims), *([components] if components else []))
    nbytes = math.prod(stored) * dtype.itemsize
    if min(stored) < 1:
        raise BadImage(f"{path.name} has no pixels", remedy="choose an image with pixels in it")
    notes = () if file.packed else _check_length(file, nbytes, path.name)
    seen = _arrangement(header, dims, components, choose, path.name)
    spatial = seen.shape(stored)[1:]
    geometry, odd = nifti_geometry(header, spatial, choose, path.name)
    if (exact := file.words.geometry(geometry)) is not geometry:
        geometry, odd = exact, ()
    slope, inter, final = _scaling(header, dtype, path.name)
    if "scl_slope" in header and np.isinf(header["scl_slope"]):
        notes = (*notes, "The file scales its values by infinity, so they are read as stored")
    if not file.packed and (nbytes > _LAZY_BYTES or not fits_memory(2 * nbytes)) and find_spec("dask"):
        array = _lazily(file, seen, stored, dtype, path)
    else:
        check_size(
            path.name,
            pixels=math.prod(stored),
            bytes_needed=nbytes,
            remedy="unpack it (gunzip), so that it can be read part by part",
        )
        array = np.ascontiguousarray(seen.apply(_load(file, stored, dtype)))
    array = _scaled(array[: 3 if components else None], slope, inter, final)
    if geometry.ndim != array.ndim - 1:  # one slice: of a picture said to be a scan, or the other way round
        array = array[:, 0] if array.ndim == 4 else array[:, None]
    names = RGB if components else file.words.channels or _channel_names(header, array)
    names = names if len(names) == len(array) else numbered_channel_names(len(array))
    volume = Volume(array, geometry, names, str(path), _acquisition(header), (*notes, *odd))
    return volume, file.words


# ---------------------------------------------------------------------------------------------------------- the header


def open_nifti(path: Path) -> NiftiFile:
    """Read the header, and find the data."""
    ending = ending_of(path)
    first = (header_of_pair(path) or path) if ending in (".img", ".img.gz") else path
    with _stream(first) as stream:
        raw = stream.read(540)
        kind = _header_class(raw)
        header = kind(raw[: kind.template_dtype.itemsize], check=False)
        sizeless = [axis for axis in range(1, 4) if header["dim"][axis] > 1 and not abs(header["pixdim"][axis]) > 0]
        try:
            header.check_fix(logger=_silent, error_level=40)
            header["pixdim"][sizeless] = np.nan  # which nibabel sets to 1
            offset = int(header.get_data_offset()) if hasattr(header, "get_data_offset") else 0
            if getattr(kind, "is_single", False):
                offset = offset or kind.single_vox_offset
            words = Words()
            if issubclass(kind, nib.nifti1.Nifti1Header) and offset >= 352:
                stream.seek(kind.template_dtype.itemsize)
                words = read_words(stream, offset, header.endianness)
        except HeaderDataError as error:
            raise ValueError(f"its header cannot be understood: {error}") from error
    ending = ending_of(first)
    if ending not in (".hdr", ".hdr.gz"):
        return NiftiFile(header, first, _is_packed(first), offset, words)
    stem = first.name[: -len(ending)]
    data = next((file for end in _VOXELS if (file := first.with_name(stem + end)).is_file()), None)
    if data is None:
        raise BadImage(f"The voxels of {path.name} are missing", remedy=f"put {stem}.img beside it")
    return NiftiFile(header, data, _is_packed(data), offset, words)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as begin:
        return begin.read(2) == b"\x1f\x8b"


def _stream(path: Path) -> BinaryIO:
    return gzip.open(path) if _is_packed(path) else path.open("rb")  # type: ignore[return-value]


def _header_class(raw: bytes) -> Any:
    if len(raw) < 348:
        raise EOFError("it ends within its header")
    if 540 in {int.from_bytes(raw[:4], order) for order in ("little", "big")}:
        if len(raw) < 540:
            raise EOFError("it ends within its header")
        return nib.nifti2.Nifti2Header if raw[4:7] == b"n+2" else nib.nifti2.Nifti2PairHeader
    if raw[344:347] == b"n+1":
        return nib.nifti1.Nifti1Header
    return nib.nifti1.Nifti1PairHeader if raw[344:347] == b"ni1" else nib.analyze.AnalyzeHeader


def _arrangement(header: Any, dims: tuple[int, ...], components: int, choose: Sequence[str], name: str) -> Arrangement:
    """Say which axes, slowest first, are channels and space; time is asked for."""
    sizes = " x ".join(map(str, dims))
    if len(dims) < 2:
        raise BadImage(f"{name} has one axis only", remedy="choose an image or a scan")
    if any(size > 1 for size in dims[5:]) or (components and any(size > 1 for size in dims[4:])):
        raise BadImage(
            f"{name} has more axes than one image or one scan ({sizes})",
            remedy="save one time point, or one channel of it, as its own file",
        )
    axis = {number: len(dims) - 1 - number for number in range(len(dims))}  # from the file's count to ours
    times, vectors = (dims[number] if len(dims) > number else 1 for number in (3, 4))
    as_channels = times > 1 and vectors == 1 and not components
    channels = axis[4] if vectors > 1 else len(dims) if components else None
    if as_channels and ("channels" in choose or _intent(header) in _CHANNEL_INTENTS):
        channels, times = axis[3], 1
    others = [Choice("channels", f"they are {times} channels of one scan")] if as_channels else []
    fixed = {axis[number]: 0 for number in range(3, len(dims)) if axis[number] != channels}
    if times > 1:
        fixed[axis[3]] = chosen_time(times, choose, f"{name} ({sizes})", others=others)
    return Arrangement((channels, *(axis[number] for number in reversed(range(min(3, len(dims)))))), fixed)


def _intent(header: Any) -> int:
    return int(header["intent_code"]) if "intent_code" in header else 0


def _channel_names(header: Any, array: Array) -> tuple[str, ...]:
    colour = len(array) == 3 and array.dtype == np.uint8 and _intent(header) == 2003
    return RGB if colour else numbered_channel_names(len(array))


def _acquisition(header: Any) -> Acquisition:
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return Acquisition()
    return Acquisition(windows=(((low + high) / 2, high - low),))


# ------------------------------------------------------------------------------------------------------------ the data


def _check_length(file: NiftiFile, nbytes: int, name: str) -> tuple[str, ...]:
    missing = file.offset + nbytes - file.data.stat().st_size
    if missing > 0:
        raise BadImage(
            f"{name} is a damaged or incomplete NIfTI (it ends {missing:,} bytes before its voxels do)",
            remedy="copy or export it again",
        )
    return (f"The file is {-missing:,} bytes longer than its voxels",) if missing else ()


def _load(file: NiftiFile, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Read all; a packed file to its end, so that its checksum is looked at."""
    array = np.empty(shape, dtype)
    room = memoryview(array.reshape(-1).view(np.uint8).data)
    with _stream(file.data) as stream:
        stream.seek(file.offset)
        done = 0
        while done < len(room):
            count = stream.readinto(room[done : done + 2**26])  # type: ignore[attr-defined]
            if not count:
                raise EOFError("it ends before its voxels do")
            done += count
        while file.packed and stream.read(2**20):
            pass
    return array


def _lazily(file: NiftiFile, seen: Arrangement, shape: tuple[int, ...], dtype: np.dtype[Any], path: Path) -> Array:
    from napari_medt.io.lazy import Stored, lazy

    stored = Stored(
        partial(np.memmap, file.data, dtype, "r", file.offset, shape),
        shape=shape,
        dtype=dtype,
        seen=seen,
        name=path.name,
        identity=(str(file.data.resolve()), file.data.stat().st_mtime_ns),
    )
    return lazy(stored, (*(1,) * (stored.ndim - 2), *stored.shape[-2:]))


def _scaling(header: Any, dtype: np.dtype[Any], name: str) -> tuple[float, float, np.dtype[Any]]:
    """Return slope, intercept and the type in which their result is kept."""
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise BadImage(
            f"The values of {name} are scaled by a number that is not finite", remedy="export it again"
        ) from error
    native = dtype.newbyteorder("=")
    if native.kind == "f" and native.itemsize > 8:
        native = np.dtype(np.float64)
    slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
    if (slope, inter) == (1, 0):
        return slope, inter, native
    if native.kind in "ui" and slope.is_integer() and inter.is_integer():
        ends = [float(end) * slope + inter for end in (np.iinfo(native).min, np.iinfo(native).max)]
        for kept in (np.uint8, np.int16, np.uint16, np.int32):
            if np.iinfo(kept).min <= min(ends) and max(ends) <= np.iinfo(kept).max:
                return slope, inter, np.dtype(kept)
    return slope, inter, np.dtype(np.float32 if native.itemsize <= 2 or native == np.float32 else np.float64)


def _scaled(array: Any, slope: float, inter: float, dtype: np.dtype[Any]) -> Array:
    if (slope, inter) == (1, 0):
        return array.astype(dtype, copy=False)  # type: ignore[no-any-return]
    work = np.float64 if dtype.kind == "f" and dtype.itemsize > 4 else np.float32 if dtype.kind == "f" else np.int64
    return (array.astype(work) * work(slope) + work(inter)).astype(dtype, copy=False)  # type: ignore[no-any-return]
