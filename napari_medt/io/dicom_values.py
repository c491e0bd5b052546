"""What the values of a DICOM image mean: Hounsfield units, uptake, a dose, or nothing in particular."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from napari_medt.io.dicom_frames import Frame, real_range
from napari_medt.io.dicom_header import items, number, text


@dataclass(frozen=True)
class Meaning:
    """What the values are.

    Attributes
    ----------
    unit
        `"HU"`, `"SUV"`, `"Bq/ml"`, `"Gy"`, or empty.
    factor
        From what the file means to this unit.
    inverted
        Whether the file stores bright as small numbers, and they are turned.
    windows
        Centre and width of display, in this unit.
    notes
        What there is to say.
    """

    unit: str = ""
    factor: float = 1.0
    inverted: bool = False
    windows: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


def meaning_of(frames: Sequence[Frame]) -> Meaning:
    """Say what the values of the frames are."""
    first = frames[0]
    header = first.header
    modality, unit, factor, notes = text(header, "Modality"), "", 1.0, []
    if modality == "CT" and (text(header, "RescaleType") or "HU") == "HU":
        if number(_rescaled(header), "RescaleSlope") is None:
            notes.append("The file does not say how its values become HU; they are as stored")
        else:
            unit = "HU"
    elif modality == "RTDOSE" and text(header, "DoseUnits").upper() == "GY":
        unit = "Gy"
    elif modality == "PT":
        unit, factor, said = _uptake(frames)
        notes.append(said)
    inverted = text(header, "PhotometricInterpretation") == "MONOCHROME1" and not unit
    if inverted:
        notes.append("The file stores bright as small numbers; they are turned, so that large is bright")
    padding = number(header, "PixelPaddingValue")
    if padding is not None and not inverted:
        value = (padding * first.slope + first.intercept) * factor
        notes.append(f"Where nothing was taken, the file holds {value:g}")
    return Meaning(unit, factor, inverted, _windows(frames, factor, inverted), tuple(notes))


def _rescaled(header: Dataset) -> Dataset:
    """Where the file says how stored values become real ones."""
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in items(header, keyword)[:1]:
            for found in items(group, "PixelValueTransformationSequence"):
                return found
    return header


def _windows(frames: Sequence[Frame], factor: float, inverted: bool) -> tuple[tuple[float, float], ...]:
    middle = frames[len(frames) // 2]
    around = sum(real_range([middle])) if inverted else 0.0
    return tuple(((around - c if inverted else c) * factor, w * factor) for c, w in dict.fromkeys(middle.windows))


# -------------------------------------------------------------------------------------------------------------- uptake


def _uptake(frames: Sequence[Frame]) -> tuple[str, float, str]:
    """Unit, factor and a sentence: body-weight SUV where the file has all it takes, else what it lacks.

    Follows the Quantitative Imaging Biomarkers Alliance's vendor-neutral computation of SUV: the dose is decayed to the
    start of the scan, to which the values are corrected.
    """
    header = frames[0].header
    units = text(header, "Units")
    if units == "GML":
        return "SUV", 1.0, "The file gives standardised uptake values (SUV)"
    if units != "BQML":
        return "", 1.0, f"Values are in the file's own unit ({units or 'none given'}), not SUV"
    lacks = []
    if text(header, "DecayCorrection") != "START":
        lacks.append("a correction of decay to the start of the scan")
    if not {"ATTN", "DECY"} <= set(text(header, "CorrectedImage").split("\\")):
        lacks.append("corrections of attenuation and decay")
    weight = number(header, "PatientWeight")
    drug = next(iter(items(header, "RadiopharmaceuticalInformationSequence")), Dataset())
    dose, half_life = number(drug, "RadionuclideTotalDose"), number(drug, "RadionuclideHalfLife")
    scan = _scan_start(frames)
    injected = _injected(drug, scan)
    for value, what in ((weight, "the weight"), (dose, "the dose"), (half_life, "the half-life")):
        if not value or value <= 0:
            lacks.append(what)
    if scan is None or injected is None:
        lacks.append("the times of injection and scan")
    if lacks or scan is None or injected is None or not (weight and dose and half_life):
        return "Bq/ml", 1.0, f"Values are Bq/ml and not SUV, for which the file lacks {', '.join(lacks)}"
    waited = (scan - injected).total_seconds()
    if not 0 <= waited < 86400:
        return "Bq/ml", 1.0, "Values are Bq/ml and not SUV, since the times of injection and scan contradict each other"
    left = dose * 2 ** (-waited / half_life)
    return "SUV", weight * 1000 / left, "Values are SUV by body weight, computed from the dose in the file"


def _scan_start(frames: Sequence[Frame]) -> datetime | None:
    """When the scan began: the time of the series, or of its first slice where a later processing has stamped the series."""
    header = frames[0].header
    series = _moment(text(header, "SeriesDate") + text(header, "SeriesTime"))
    taken = [_moment(text(frame.header, "AcquisitionDate") + text(frame.header, "AcquisitionTime")) for frame in frames]
    return min((moment for moment in (series, *taken) if moment), default=None)


def _injected(drug: Dataset, scan: datetime | None) -> datetime | None:
    if found := _moment(text(drug, "RadiopharmaceuticalStartDateTime")):
        return found
    clock = text(drug, "RadiopharmaceuticalStartTime")
    if scan is None or not clock:
        return None
    found = _moment(scan.strftime("%Y%m%d") + clock)
    return found - timedelta(days=1) if found and found > scan else found


def _moment(said: str) -> datetime | None:
    """Date and time in DICOM's words; `None` if it has not both."""
    digits = said.split(".")[0].split("+")[0].split("-")[0].replace(":", "")
    try:
        return datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S") if len(digits) >= 10 else None
    except ValueError:
        return None
