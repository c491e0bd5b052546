"""Frames: the slices in DICOM files, each with where it lies and when and how it was taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from napari_medt.core.volume import Array
from napari_medt.io.dicom_files import GE_B_VALUE, SIEMENS_B_VALUE
from napari_medt.io.dicom_header import DAMAGE, is_tiled, items, number, numbers, text

# What may tell slices of one place apart, in the order in which it is tried.
_SERIES_VARIES = {
    "time": "TemporalPositionIdentifier",
    "phase": "NominalPercentageOfCardiacPhase",
    "trigger": "TriggerTime",
    "echo": "EchoTime",
    "b": "DiffusionBValue",
    "direction": "DiffusionGradientOrientation",
    "inversion": "InversionTime",
    "flip": "FlipAngle",
    "kV": "KVP",
    "type": "ImageType",
    "acquisition": "AcquisitionNumber",
}
_FRAME_VARIES = {
    "time": ("FrameContentSequence", "TemporalPositionIndex"),
    "phase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "trigger": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "echo": ("MREchoSequence", "EffectiveEchoTime"),
    "b": ("MRDiffusionSequence", "DiffusionBValue"),
    "flip": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "kV": ("CTXRayDetailsSequence", "KVP"),
    "acquisition": ("FrameContentSequence", "FrameAcquisitionNumber"),
}
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


@dataclass(frozen=True, eq=False)
class Plane:
    """Where a slice lies in the patient, in DICOM's words: x to the left, y to the back, z to the head, mm.

    Attributes
    ----------
    position
        `(3,)`: of the centre of the first pixel.
    orientation
        `(2, 3)`: unit vectors along a row and down a column.
    spacing
        Between rows and between columns.
    """

    position: Array
    orientation: Array
    spacing: tuple[float, float]

    @property
    def normal(self) -> Array:
        """`(3,)` unit vector at right angles to both."""
        return np.cross(*self.orientation)


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice.

    Attributes
    ----------
    file, number
        Where its pixels are: the path, and which frame of the file.
    header
        Of the file.
    shape
        Rows and columns.
    spacing
        Between rows and between columns, mm.
    lies
        Where it lies in the patient, if the file says so.
    thickness, apart
        Of the slice, and from one to the next as the file says, mm.
    slope, intercept
        From stored values to real ones.
    windows
        Centre and width of display.
    frame_of_reference
        Positions are comparable within one only.
    varies
        What may tell it from another slice in the same place.
    taken
        When: date and time where told, then the number of the image and of the frame; for sorting.
    """

    file: str
    number: int
    header: Dataset = field(repr=False)
    shape: tuple[int, int]
    spacing: tuple[float, float] | None
    lies: Plane | None
    thickness: float | None
    apart: float | None
    slope: float
    intercept: float
    windows: tuple[tuple[float, float], ...]
    frame_of_reference: str
    varies: Mapping[str, Any]
    taken: tuple[Any, ...]

    @property
    def placed(self) -> bool:
        """Whether its place in the patient is known."""
        return self.lies is not None

    @property
    def plane(self) -> Plane:
        """Where it lies in the patient, for frames that are `placed`."""
        if self.lies is None:
            raise ValueError("this frame does not say where it lies")
        return self.lies


def frames_of(file: str, header: Dataset) -> Iterator[Frame]:
    """Give the frames of one file, in its order; the tiles of a slide are one."""
    if is_tiled(header):
        shared = next(iter(items(header, "SharedFunctionalGroupsSequence")), Dataset())
        whole = (int(header.TotalPixelMatrixRows), int(header.TotalPixelMatrixColumns))
        yield replace(_frame(file, 0, _Groups(header, shared, Dataset()), None), shape=whole, lies=None)
        return
    count = max(1, int(number(header, "NumberOfFrames") or 1))
    shared = next(iter(items(header, "SharedFunctionalGroupsSequence")), Dataset())
    each = items(header, "PerFrameFunctionalGroupsSequence")
    offsets = _offsets(header, count)
    for index in range(count):
        groups = _Groups(header, shared, each[index] if index < len(each) else Dataset())
        yield _frame(file, index, groups, offsets[index] if offsets else None)


@dataclass(frozen=True)
class _Groups:
    """Where a frame's values stand: with the frame, for all frames of the file, or for the file as a whole."""

    header: Dataset
    shared: Dataset
    each: Dataset

    def item(self, sequence: str) -> Dataset:
        for place in (self.each, self.shared):
            for found in items(place, sequence):
                return found
        return Dataset()

    def numbers(self, sequence: str, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        found = numbers(self.item(sequence), keyword, count)
        return numbers(self.header, keyword, count) if found is None else found


def _frame(file: str, index: int, groups: _Groups, offset: float | None) -> Frame:
    header = groups.header
    spacing = groups.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    position = groups.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = _orientation(groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6))
    thickness = groups.numbers("PixelMeasuresSequence", "SliceThickness", 1)
    apart = groups.numbers("PixelMeasuresSequence", "SpacingBetweenSlices", 1)
    slope = groups.numbers("PixelValueTransformationSequence", "RescaleSlope", 1)
    intercept = groups.numbers("PixelValueTransformationSequence", "RescaleIntercept", 1)
    dose = numbers(header, "DoseGridScaling", 1)
    place = None if position is None else np.asarray(position)
    if place is not None and orientation is not None and offset is not None:
        place = place + offset * np.cross(*orientation)
    elif int(number(header, "NumberOfFrames") or 1) > 1 and "PlanePositionSequence" not in groups.each:
        place = None  # one position for many frames places none of them
    size = (spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None
    return Frame(
        file,
        index,
        header,
        (int(header.Rows), int(header.Columns)),
        size,
        None if place is None or orientation is None or size is None else Plane(place, orientation, size),
        thickness[0] if thickness and thickness[0] > 0 else None,
        apart[0] if apart and apart[0] > 0 else None,
        (dose or slope or (1.0,))[0] or 1.0,
        intercept[0] if intercept and not dose else 0.0,
        _windows(groups),
        text(header, "FrameOfReferenceUID"),
        _varies(groups),
        _taken(groups, index),
    )


def _orientation(cosines: tuple[float, ...] | None) -> Array | None:
    """Two unit vectors; `None` unless they are at right angles, as those of a picture must be."""
    if cosines is None:
        return None
    vectors = np.reshape(cosines, (2, 3))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (abs(lengths - 1) > 0.01).any() or abs(vectors[0] @ vectors[1]) > 0.01:
        return None
    return np.asarray(vectors / lengths)


def _offsets(header: Dataset, count: int) -> tuple[float, ...] | None:
    """Distances of the frames from the first, as a dose has them."""
    offsets = numbers(header, "GridFrameOffsetVector", count) if count > 1 else None
    return tuple(offset - offsets[0] for offset in offsets) if offsets else None


def _windows(groups: _Groups) -> tuple[tuple[float, float], ...]:
    centres = groups.numbers("FrameVOILUTSequence", "WindowCenter") or ()
    widths = groups.numbers("FrameVOILUTSequence", "WindowWidth") or ()
    return tuple((centre, width) for centre, width in zip(centres, widths, strict=False) if width > 0)


def _varies(groups: _Groups) -> dict[str, Any]:
    header = groups.header
    found: dict[str, Any] = {}
    for name, keyword in _SERIES_VARIES.items():
        value = text(header, keyword) if name == "type" else numbers(header, keyword)
        if value:
            found[name] = value
    for name, (sequence, keyword) in _FRAME_VARIES.items():
        if (value := numbers(groups.item(sequence), keyword)) is not None:
            found[name] = value
    gradient = next(iter(items(groups.item("MRDiffusionSequence"), "DiffusionGradientDirectionSequence")), Dataset())
    if direction := numbers(gradient, "DiffusionGradientOrientation"):
        found["direction"] = direction
    for sequence in _FRAME_TYPES:
        kind = groups.item(sequence)
        if said := "\\".join(filter(None, (text(kind, "FrameType"), text(kind, "ComplexImageComponent")))):
            found["type"] = said
    if "b" not in found and (b := _private_b_value(header)) is not None:
        found["b"] = (b,)
    return found


def _private_b_value(header: Dataset) -> float | None:
    """Diffusion weighting as Siemens and GE write it outside enhanced files."""
    for tag in (SIEMENS_B_VALUE, GE_B_VALUE):
        try:
            value = header[tag].value
            first = value.decode().split("\\")[0] if isinstance(value, bytes) else np.atleast_1d(value)[0]
            return float(first) % 1e5  # GE adds a large flag
        except DAMAGE:
            continue
    return None


def _taken(groups: _Groups, index: int) -> tuple[Any, ...]:
    header = groups.header
    moment = text(groups.item("FrameContentSequence"), "FrameAcquisitionDateTime") or text(
        header, "AcquisitionDateTime"
    )
    if not moment:
        moment = text(header, "AcquisitionDate") + text(header, "AcquisitionTime") or text(header, "ContentTime")
    return moment, int(number(header, "InstanceNumber") or 0), index


def real_range(frames: Sequence[Frame]) -> tuple[float, float]:
    """Lowest and highest real value the frames' types allow."""
    ends = []
    for frame in frames:
        low, high = stored_range(frame.header)
        ends += [low * frame.slope + frame.intercept, high * frame.slope + frame.intercept]
    return min(ends), max(ends)


def stored_range(header: Dataset) -> tuple[int, int]:
    """Lowest and highest stored value."""
    bits = min(64, max(1, int(number(header, "BitsStored") or number(header, "BitsAllocated") or 16)))
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if number(header, "PixelRepresentation") else (0, 2**bits - 1)
