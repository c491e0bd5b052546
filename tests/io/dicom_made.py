"""DICOM series made on the spot, as a scanner would write them, of a patient with a name that must never be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

NAME, NUMBER = "Geheimrat^Xaver", "PID4711X"
CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "OT": SecondaryCaptureImageStorage,
}
AXIAL = (1.0, 0, 0, 0, 1, 0)
CORONAL = (1.0, 0, 0, 0, 0, -1)
SAGITTAL = (0.0, 1, 0, 0, 0, -1)
TURNED = (-1.0, 0, 0, 0, -1, 0)
_C, _S = np.cos(0.4), np.sin(0.4)
OBLIQUE = (_C, _S, 0.0, -_S * np.cos(0.3), _C * np.cos(0.3), np.sin(0.3))
Change = Callable[[Dataset, int], None]


def base(modality: str, rows: int, columns: int, *, series: str, study: str, frame_of_reference: str) -> Dataset:
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID, data.SOPInstanceUID = CLASSES.get(modality, SecondaryCaptureImageStorage), generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    if frame_of_reference:
        data.FrameOfReferenceUID = frame_of_reference
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = NAME, NUMBER, "19500101", "O"
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20240203", "101112", "1", ""
    data.ReferringPhysicianName = NAME
    data.Modality, data.SeriesDescription, data.SeriesNumber = modality, f"Test of {NAME.split('^')[0]}", 3
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data


def positions(count: int, *, orientation: Sequence[float] = AXIAL, origin: Any = (-30, 12, 5), step: Any = 3.0) -> Any:
    """Of slices along the normal, or along a step given as a vector: `(count, 3)`."""
    vector = np.cross(orientation[:3], orientation[3:]) * step if np.ndim(step) == 0 else np.asarray(step)
    return np.asarray(origin, float) + np.arange(count)[:, None] * vector


def make_series(
    folder: Path,
    array: np.ndarray,
    places: Any,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (0.7, 0.9),
    modality: str = "CT",
    change: Change | None = None,
    series: str | None = None,
    study: str = "1.2.3.4",
    frame_of_reference: str = "1.2.3.5",
    order: Sequence[int] | None = None,
) -> list[Path]:
    """Write `array` (n, y, x), slice `i` at `places[i]`; file names and numbers run in `order`."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    paths = []
    for number, index in enumerate(order if order is not None else range(len(array))):
        data = base(modality, *array.shape[1:], series=series, study=study, frame_of_reference=frame_of_reference)
        data.InstanceNumber = number + 1
        data.SliceThickness = 3.0
        data.PixelSpacing = list(spacing)
        if places is not None:
            data.ImagePositionPatient = [float(f"{v:.9g}") for v in places[index]]
            data.ImageOrientationPatient = [float(f"{v:.9g}") for v in orientation]
        if modality == "CT":
            data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
        data.PixelData = array[index].astype("<i2").tobytes()
        if change is not None:
            change(data, index)
        path = folder / f"{series[-6:]}-{number:03d}"
        data.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def make_enhanced(
    path: Path,
    array: np.ndarray,
    places: Any,
    *,
    orientations: Sequence[Sequence[float]],
    spacing: tuple[float, float] = (0.7, 0.9),
    echoes: Sequence[float] = (),
) -> Path:
    """Write `array` (n, y, x) as frames of one enhanced MR file."""
    data = base("MR", *array.shape[1:], series=generate_uid(), study="1.2.3.4", frame_of_reference="1.2.3.5")
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    data.NumberOfFrames, data.InstanceNumber = len(array), 1

    def item(**values: Any) -> DicomSequence:
        one = Dataset()
        for key, value in values.items():
            setattr(one, key, value)
        return DicomSequence([one])

    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=list(spacing), SliceThickness=3.0)
    shared.PixelValueTransformationSequence = item(RescaleSlope=2, RescaleIntercept=10, RescaleType="US")
    data.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = []
    for index, place in enumerate(places):
        frame = Dataset()
        frame.PlanePositionSequence = item(ImagePositionPatient=[float(f"{v:.9g}") for v in place])
        frame.PlaneOrientationSequence = item(ImageOrientationPatient=[float(f"{v:.9g}") for v in orientations[index]])
        if echoes:
            frame.MREchoSequence = item(EffectiveEchoTime=echoes[index])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    data.PixelData = array.astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
