"""Headers of the files that a segmentation refers to, in the form that highdicom takes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import highdicom as hd
from pydicom.dataset import Dataset

from napari_medt.core import BadImage
from napari_medt.io.dicom_frames import Frame
from napari_medt.io.dicom_header import is_tiled, modality, text

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MAY_BE_EMPTY = """PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime
    ReferringPhysicianName"""
_FORMS = {  # signs that scanners once put between the parts, and what is left; what is of no such form is left empty
    "PatientBirthDate": ("[-./]", r"\d{8}"),
    "StudyDate": ("[-./]", r"\d{8}"),
    "StudyTime": (":", r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "PatientSex": (" ", "[MFO]"),
}


def check_source(first: Frame) -> None:
    """Refuse a source without the numbers by which a segmentation refers to it.

    Raises
    ------
    BadImage
        If there are none.
    """
    needed = (*_NEEDED, "FrameOfReferenceUID") if first.placed else _NEEDED
    if missing := [keyword for keyword in needed if not text(first.header, keyword)]:
        raise BadImage(
            f"The files of the image lack {', '.join(missing)}, by which a segmentation refers to them",
            remedy="write .nii.gz or .seg.nrrd",
        )


def plain_headers(frames: Sequence[Frame]) -> list[Dataset]:
    """Headers of the files of some frames in the form that highdicom takes, which is stricter than what scanners write."""
    headers = list({frame.file: frame.header for frame in frames}.values())
    for header in headers:
        for keyword in _MAY_BE_EMPTY.split():
            if keyword not in header:
                setattr(header, keyword, "")
        for keyword, (signs, form) in _FORMS.items():
            plain = re.sub(signs, "", text(header, keyword))
            setattr(header, keyword, plain if re.fullmatch(form, plain) else "")
        header.Modality = modality(header) or "OT"
        if frames[0].placed:
            _place(header, frames[0])
        elif not is_tiled(header) and "FrameOfReferenceUID" in header:
            del header.FrameOfReferenceUID  # it would promise a place
    return headers


def _place(header: Dataset, first: Frame) -> None:
    """Give all headers the orientation of the first, of which theirs may differ by roundings."""
    orientation = hd.PlaneOrientationSequence("PATIENT", first.plane.orientation.ravel().tolist())
    if "PerFrameFunctionalGroupsSequence" in header:
        shared = header.SharedFunctionalGroupsSequence[0]
        shared.PlaneOrientationSequence = orientation
        shared.PixelMeasuresSequence = hd.PixelMeasuresSequence(first.plane.spacing, first.thickness or 1.0)
    else:
        header.ImageOrientationPatient = orientation[0].ImageOrientationPatient
