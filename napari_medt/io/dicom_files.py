"""Finding DICOM files, and reading their headers without their pixels."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from napari_medt.core import BadImage, Cancel, Progress, silent
from napari_medt.io.dicom_header import DAMAGE, has_image, is_mask, number, text
from napari_medt.io.kinds import HIDDEN

# The whole of what is read of a header; of the patient only the weight is used, the number as a digest, and both name and number
# to keep them out of descriptions.
_TAGS = """SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID Modality SeriesInstanceUID SeriesDescription SeriesNumber
    InstanceNumber AcquisitionNumber FrameOfReferenceUID PatientName PatientID PatientWeight StudyDate SeriesDate SeriesTime
    AcquisitionDate AcquisitionTime ContentTime AcquisitionDateTime FrameReferenceTime ActualFrameDuration
    Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated BitsStored HighBit
    PixelRepresentation PixelPaddingValue RescaleSlope RescaleIntercept RescaleType ModalityLUTSequence
    WindowCenter WindowWidth FrameIncrementPointer FrameTime
    ImagePositionPatient ImageOrientationPatient PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing SliceThickness
    SpacingBetweenSlices SliceLocation GridFrameOffsetVector DoseGridScaling DoseUnits SequenceOfUltrasoundRegions
    TemporalPositionIdentifier TriggerTime NominalPercentageOfCardiacPhase EchoTime InversionTime FlipAngle KVP
    DiffusionBValue DiffusionGradientOrientation Units DecayCorrection CorrectedImage RadiopharmaceuticalInformationSequence
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionOrganizationType
    TotalPixelMatrixRows TotalPixelMatrixColumns SegmentSequence SegmentationType StudyInstanceUID"""
_CONTENTS = "DICOMDIR"
SIEMENS_B_VALUE, GE_B_VALUE = Tag(0x0019, 0x100C), Tag(0x0043, 0x1039)
HEADER_TAGS: list[Any] = [*_TAGS.split(), SIEMENS_B_VALUE, GE_B_VALUE]


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes
    ----------
    headers
        Of the files with an image in them, with where they lie.
    strangers
        How many files are no DICOM.
    others
        How many are DICOM without an image, such as reports and directories.
    masks
        The segmentations among them, which are no images to segment.
    damaged
        How many cannot be read.
    """

    headers: tuple[tuple[str, Dataset], ...]
    strangers: int = 0
    others: int = 0
    masks: tuple[str, ...] = ()
    damaged: int = 0

    @property
    def odd(self) -> tuple[str, ...]:
        """Sentences about what was left out."""
        told = (
            (self.strangers, "is no DICOM and is left out", "are no DICOM and are left out"),
            (self.damaged, "cannot be read and is left out", "cannot be read and are left out"),
        )
        return tuple(f"{n} file{'s' * (n > 1)} in the folder {many if n > 1 else one}" for n, one, many in told if n)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does; files without the usual preamble are known by their first element."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM":
        return True
    if len(head) < 12:
        return False
    group, element = struct.unpack("<HH", head[:4])
    known = re.fullmatch(rb"[A-Z]{2}", head[4:6]) is not None or struct.unpack("<I", head[4:8])[0] < 1024
    return group in (0x0002, 0x0008) and element < 0x0100 and known


def read_header(path: str | Path, *, tags: Sequence[Any] | None = HEADER_TAGS) -> Dataset:
    """Read what stands before the pixels.

    Parameters
    ----------
    path
        Of the file.
    tags
        Which elements; `None` for all.

    Raises
    ------
    BadImage
        If the file cannot be read.
    """
    place = Path(path)
    try:
        header = dcmread(place, stop_before_pixels=True, specific_tags=None if tags is None else list(tags), force=True)
    except (FileNotFoundError, PermissionError) as error:
        raise BadImage(f"{place} cannot be opened: {error.strerror}", remedy="check where the files lie") from None
    except DAMAGE:
        raise BadImage(f"{place.name} is a damaged or incomplete DICOM file", remedy="export it again") from None
    check_count(header, place)
    return header


def check_count(header: Dataset, place: Path) -> None:
    """Refuse a file that says it holds more frames than it has room for, before anything counts them.

    Raises
    ------
    BadImage
        If that is so.
    """
    count = number(header, "NumberOfFrames") or 1
    if count > place.stat().st_size:
        raise BadImage(
            f"{place.name} is damaged: it says that it holds {count:,.0f} frames, for which it is too small",
            remedy="export it again",
        )


def place_of(path: Path) -> Path:
    """The file or folder to read: of the table of contents of a disc, the folder it lies in."""
    return path.parent if path.name.upper() == _CONTENTS and path.is_file() else path


def find(path: Path, *, progress: Progress = silent, cancel: Cancel | None = None) -> Found:
    """Read the headers of a file, or of all files in a folder and the folders in it.

    Parameters
    ----------
    path
        File or folder.
    progress
        Told of every file.
    cancel
        Looked at before every file.

    Raises
    ------
    BadImage
        If there is no such file or folder.
    Cancelled
        If asked to stop.
    """
    if not path.exists():
        raise BadImage(f"There is no file or folder {path}", remedy="check the name")
    if path.is_file():
        return Found(((str(path), read_header(path)),))
    places = sorted(_files(path))
    headers: list[tuple[str, Dataset]] = []
    strangers = others = damaged = 0
    masks: list[str] = []
    for done, place in enumerate(places):
        if cancel is not None:
            cancel.check()
        progress(done, len(places), "Reading DICOM headers")
        if not is_dicom(place):
            if _has_content(place):
                strangers += 1
            else:
                damaged += 1
            continue
        try:
            header = read_header(place)
        except BadImage:
            damaged += 1
            continue
        if is_mask(header):
            masks.append(str(place))
        elif has_image(header):
            headers.append((str(place), header))
        elif text(header, "SOPClassUID") or text(header, "Modality"):
            others += 1
        else:
            damaged += 1
    progress(len(places), len(places), "Reading DICOM headers")
    return Found(tuple(headers), strangers, others, tuple(masks), damaged)


def _files(folder: Path) -> Iterator[Path]:
    for home, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        for name in names:
            place = Path(home, name)
            if name.startswith(".") or name.upper() in (_CONTENTS, "THUMBS.DB"):
                continue
            if place.is_file() or not place.exists():  # not one that waits for another program; a broken link is told
                yield place


def _has_content(place: Path) -> bool:
    """Whether there is anything in a file that can be opened."""
    try:
        with place.open("rb") as file:
            return bool(file.read(1))
    except OSError:
        return False
