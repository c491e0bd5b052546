"""What stands in the header of a DICOM file: single values, read so that no damage and no patient's name comes through."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.valuerep import PersonName

from napari_medt.io import damage

# What pydicom and its decoders raise for damaged files. Their texts may hold values of the header, the patient's name among
# them, so they are never repeated, nor chained.
DAMAGE: tuple[type[Exception], ...] = (*damage.DAMAGE, InvalidDicomError, BytesLengthException)

# To be put over whatever reads headers: complaints about values that break the rules would repeat them.
quietly = disable_value_validation


def is_mask(header: Dataset) -> bool:
    """Whether a file is a segmentation."""
    return text(header, "Modality") == "SEG" or "SegmentSequence" in header


def has_image(header: Dataset) -> bool:
    """Whether a file tells the size of an image."""
    return all((number(header, keyword) or 0) > 0 for keyword in ("Rows", "Columns"))


def is_tiled(header: Dataset) -> bool:
    """Whether the frames of a file are tiles of one picture, as those of a slide."""
    return "TotalPixelMatrixRows" in header and "TotalPixelMatrixColumns" in header


def text(header: Dataset, keyword: str) -> str:
    """An element as text, several values with backslashes between; empty where it is missing or unreadable."""
    try:
        value = header.get(keyword)
    except DAMAGE:
        return ""
    if value is None:
        return ""
    return (
        value.strip() if isinstance(value, str) else "\\".join(map(str, value)) if _many(value) else str(value).strip()
    )


def numbers(header: Dataset, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """An element as finite numbers; `None` where it is missing, unreadable or of another count."""
    try:
        value = header.get(keyword)
        values = tuple(float(part) for part in (value if _many(value) else (value,)))
    except DAMAGE:
        return None
    if not values or not all(map(math.isfinite, values)) or (count is not None and len(values) != count):
        return None
    return values


def number(header: Dataset, keyword: str) -> float | None:
    """An element as one finite number; `None` where it is missing or unreadable."""
    found = numbers(header, keyword, 1)
    return found[0] if found else None


def _many(value: Any) -> bool:
    return not isinstance(value, (str, bytes, PersonName)) and hasattr(value, "__iter__") and hasattr(value, "__len__")


def items(header: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence; none where it is missing or unreadable."""
    try:
        return header.get(keyword) or ()
    except DAMAGE:
        return ()


def modality(header: Dataset) -> str:
    """DICOM's short name of the kind of image; empty where there is none that could be one."""
    said = text(header, "Modality")
    return said if re.fullmatch("[A-Z0-9]{1,16}", said) else ""


def series_uid(header: Dataset) -> str:
    """Of the series; empty where there is none that could be one."""
    said = text(header, "SeriesInstanceUID")
    return said if re.fullmatch("[0-9.]{1,64}", said) else ""


def patient(header: Dataset) -> str:
    """A digest that stands for the patient; empty where the file does not tell patients apart.

    Made of the patient's ID, or, where that was taken out or replaced by a word for all, of the UID of the study.
    """
    said = text(header, "PatientID")
    if re.fullmatch(
        r"anon(ym\w*)?[\W_0]*|no ?name|unknown|none|removed|patient|test|n/?a|[0\W_]*|x+", said, re.IGNORECASE
    ):
        said = text(header, "StudyInstanceUID")
    return f"dicom-{hashlib.sha256(said.encode()).hexdigest()[:16]}" if said else ""


def description(header: Dataset) -> str:
    """What the scanner calls a series, without words of the patient's name or number."""
    words = {
        word.lower()
        for keyword in ("PatientName", "PatientID")
        for word in re.split(r"[\W_]+", text(header, keyword))
        if len(word) > 2
    }
    said = text(header, "SeriesDescription")
    for word in sorted(words, key=len, reverse=True):
        said = re.sub(re.escape(word), "…", said, flags=re.IGNORECASE)
    return said
