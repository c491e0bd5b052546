"""Decoding the frames of DICOM files, several at once, into one array of real values."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import get_expected_length, iter_pixels, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGExtended12Bit

from napari_medt.core import BadImage, Cancel, Progress, silent
from napari_medt.core.volume import Array
from napari_medt.io.dicom_codecs import PLUGIN, add_to_pydicom
from napari_medt.io.dicom_frames import Frame, real_range, stored_range
from napari_medt.io.dicom_header import DAMAGE, number, text
from napari_medt.io.picture import check_size

add_to_pydicom()

_AT_ONCE = 8
_BLOCK = 16  # frames of one file read in one go
_TAGS = """SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored
    HighBit PixelRepresentation PixelData FloatPixelData DoubleFloatPixelData ModalityLUTSequence
    ExtendedOffsetTable ExtendedOffsetTableLengths SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData"""


class _Overflow(Exception):
    """Values do not fit the type that was tried."""


def decode(
    frames: Sequence[Frame],
    *,
    factor: float = 1.0,
    inverted: bool = False,
    name: str,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> Array:
    """Decode frames of one shape.

    Parameters
    ----------
    frames
        In the order wanted.
    factor
        Times the rescaled values.
    inverted
        Whether small values are turned into large ones, within the range of what can be stored.
    name
        For messages.
    progress, cancel
        Told of the frames decoded, and looked at between them.

    Returns
    -------
    ndarray
        `(c, n, y, x)`, rescaled as each frame says: colour as stored; whole numbers as int16 or uint8, or the smallest
        type that holds them; else float32.

    Raises
    ------
    BadImage
        If pixels are missing, damaged, compressed in a way nobody here reads, or too many for the memory.
    Cancelled
        If asked to stop.
    """
    for frame in frames:
        _check_syntax(frame)
    colours = 3 if is_colour(frames[0].header) else 1
    shape = (colours, len(frames), *frames[0].shape)
    types = _types(frames, factor)
    pixels = int(np.prod(shape))
    check_size(name, pixels=pixels, bytes_needed=pixels * np.dtype(types[0]).itemsize)
    for dtype in types:
        out = np.empty(shape, dtype)
        try:
            _fill(out, frames, factor, inverted, progress, cancel)
        except _Overflow:
            continue
        except MemoryError as error:
            raise BadImage(f"{name} does not fit into the memory", remedy="close other programs first") from error
        return out
    raise AssertionError("the last type holds every value")


def is_colour(header: Dataset) -> bool:
    """Whether a file holds colours, by itself or by a palette."""
    return (number(header, "SamplesPerPixel") or 1) >= 3 or text(header, "PhotometricInterpretation") == "PALETTE COLOR"


def _types(frames: Sequence[Frame], factor: float) -> list[Any]:
    """The types to try, one after the other."""
    header = frames[0].header
    if "BitsStored" not in header or "ModalityLUTSequence" in header:
        return [np.float32]
    if is_colour(header):
        return [np.uint8, np.uint16, np.uint32]
    if factor != 1 or any(frame.slope != 1 or frame.intercept != round(frame.intercept) for frame in frames):
        return [np.float32]
    low, high = real_range(frames)
    for dtype in (np.uint8, np.int16, np.uint16):
        if low >= np.iinfo(dtype).min and high <= np.iinfo(dtype).max:
            return [dtype]
    return [np.int16, np.int32, np.float32] if (number(header, "BitsAllocated") or 16) <= 16 else [np.int32, np.float32]


def _fill(
    out: Array, frames: Sequence[Frame], factor: float, inverted: bool, progress: Progress, cancel: Cancel | None
) -> None:
    by_file: dict[str, list[tuple[int, Frame]]] = defaultdict(list)
    for place, frame in enumerate(frames):
        by_file[frame.file].append((place, frame))
    blocks = [every[i : i + _BLOCK] for every in by_file.values() for i in range(0, len(every), _BLOCK)]

    def work(block: Sequence[tuple[int, Frame]]) -> None:
        for (place, frame), raw in zip(block, _raw([frame for _, frame in block]), strict=True):
            if raw.shape[:2] != frame.shape:
                raise _damaged(frame)
            _store(np.atleast_3d(raw), frame, out[:, place], factor, inverted)

    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(work, block) for block in blocks]
        try:
            done = 0
            for job, block in zip(jobs, blocks, strict=True):
                if cancel is not None:
                    cancel.check()
                job.result()
                done += len(block)
                progress(done, len(frames), "Reading DICOM slices")
        finally:
            pool.shutdown(cancel_futures=True)


def _store(raw: Array, frame: Frame, out: Array, factor: float, inverted: bool) -> None:
    """Write one frame `(y, x, c)` into its place `(c, y, x)`, as real values."""
    values: Any = raw[..., : len(out)].transpose(2, 0, 1)
    if inverted:
        values = sum(stored_range(frame.header)) - values.astype(np.int64)
    if out.dtype.kind == "f":
        out[:] = (values * frame.slope + frame.intercept) * factor
        return
    if frame.intercept:
        values = values.astype(np.int64) + int(frame.intercept)
    limits = np.iinfo(out.dtype)
    if not np.can_cast(values.dtype, out.dtype) and (values.min() < limits.min or values.max() > limits.max):
        raise _Overflow
    out[:] = values


def _raw(frames: Sequence[Frame]) -> Iterator[Array]:
    """Stored values of frames of one file; colours as red, green, blue."""
    first = frames[0]
    try:
        if (
            (number(first.header, "NumberOfFrames") or 1) > 1
            and not _needs_table(first.header)
            and _syntax(first.header)
        ):
            yield from iter_pixels(
                first.file, indices=[frame.number for frame in frames], decoding_plugin=_plugin(first.header)
            )
            return
        data = dcmread(first.file, specific_tags=_TAGS.split(), force=True)
        if not _syntax(data):
            data.file_meta.TransferSyntaxUID = _guessed_syntax(data)
        if not data.file_meta.TransferSyntaxUID.is_compressed and "PixelData" in data:
            _check_length(data, first)
        for frame in frames:
            values = pixel_array(data, index=frame.number, decoding_plugin=_plugin(data))
            if text(data, "PhotometricInterpretation") == "PALETTE COLOR":
                values = _coloured(values, data)
            yield apply_modality_lut(values, data) if "ModalityLUTSequence" in data else values
    except DAMAGE:
        raise _damaged(first) from None


def _coloured(values: Array, data: Dataset) -> Array:
    """Colours of a palette; its 16 bits become the 8 of the pixels, if they are needed at all."""
    found: Array = apply_color_lut(values, data)
    if values.dtype.itemsize == 1 and found.dtype.itemsize == 2:
        highest = apply_color_lut(np.arange(256, dtype=np.uint8)[None], data).max()
        return (found >> (8 if highest > 255 else 0)).astype(np.uint8)
    return found


def _plugin(header: Dataset) -> str:
    """Which decoder to take; any that can, if empty. The usual ones for 12-bit JPEG try, complain aloud, and fail."""
    twelve = _syntax(header) == JPEGExtended12Bit and (number(header, "SamplesPerPixel") or 1) == 1
    return PLUGIN if twelve else ""


def _check_length(data: Dataset, frame: Frame) -> None:
    expected, found = get_expected_length(data), len(data.PixelData)
    row = expected // (int(data.Rows) * int(number(data, "NumberOfFrames") or 1))
    if not expected <= found <= expected + max(1, row):  # some scanners fill up to a round number
        raise BadImage(
            f"The pixel data of {os.path.basename(frame.file)} are {found:,} bytes long, but its header asks for "
            f"{expected:,}, so it is damaged or incomplete",
            remedy="export it again",
        )


def _needs_table(header: Dataset) -> bool:
    return "ModalityLUTSequence" in header or text(header, "PhotometricInterpretation") == "PALETTE COLOR"


def _damaged(frame: Frame) -> BadImage:
    return BadImage(
        f"The pixel data of {os.path.basename(frame.file)} are damaged or incomplete", remedy="copy or export it again"
    )


def _syntax(header: Dataset) -> Any:
    return getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID")


def _guessed_syntax(data: Dataset) -> Any:
    """What a file without a preamble was read as."""
    implicit, little = data.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _check_syntax(frame: Frame) -> None:
    syntax = _syntax(frame.header)
    if not syntax:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise BadImage(
            f"The pixels of {os.path.basename(frame.file)} are compressed as {syntax.name}, which is not read here",
            remedy="export it uncompressed, or as JPEG 2000",
        )
