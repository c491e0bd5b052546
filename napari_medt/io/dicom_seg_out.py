"""`write_dicom_seg`: label maps to segmentations in DICOM, which refer to their source slice by slice."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom.color import CIELabColor
from pydicom import dcmwrite
from pydicom.sr.codedict import codes as terms
from pydicom.sr.coding import Code

import napari_medt
from napari_medt.core import BadImage, LabelMap, Prediction, Volume
from napari_medt.core.volume import Array
from napari_medt.io.atomic import atomic_write
from napari_medt.io.dicom_codes import SegmentCode, code_for
from napari_medt.io.dicom_files import read_header
from napari_medt.io.dicom_frames import Frame, frames_of
from napari_medt.io.dicom_header import DAMAGE, is_tiled, quietly
from napari_medt.io.dicom_places import Place, place_in
from napari_medt.io.dicom_seg_source import check_source, plain_headers
from napari_medt.io.dicom_stacks import distances
from napari_medt.io.picture import check_size

_ONE_PLACE = 1e-3  # mm


@dataclass(frozen=True)
class _Segment:
    """One structure: in which of the label maps, under which value there, its name and its colour."""

    layer: int
    value: int
    name: str
    colour: tuple[float, float, float] | None


@quietly()
def write_dicom_seg(
    labels: LabelMap | Sequence[LabelMap] | Prediction | npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    source: Volume | None,
    names: Mapping[int, str] | None = None,
    algorithm: tuple[str, str] | None = None,
    codes: Mapping[int, SegmentCode | Code] | None = None,
) -> Path:
    """Write masks as one DICOM segmentation.

    What the standard asks for about patient and study is copied from the files of the source. Each slice of the mask goes to
    the slice of the source that lies where it lies, whatever the order of the axes; slices that were interpolated between
    those of the source have none, and are left out. Labels are numbered anew from 1 in ascending order, as the standard asks.

    Parameters
    ----------
    labels
        On the grid of the source, its axes in any order, or a part of it. Several where structures overlap; those that are
        fractions become a fractional segmentation.
    path
        The folder must exist.
    source
        As read from DICOM, so that its files are known.
    names
        By label; those of `labels` by default.
    algorithm
        Name and version of what made the mask; by hand, if `None`.
    codes
        By label: what a structure is, where its name does not tell.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    BadImage
        If the source is no DICOM, or the mask does not lie on its grid.
    StorageError
        If the disk refuses it.
    """
    place = Path(path).expanduser()
    if source is None or not source.acquisition.files:
        raise BadImage(
            f"A DICOM segmentation refers to the DICOM files of its image, which are not known ({place.name})",
            remedy="write .nii.gz or .seg.nrrd",
        )
    maps = _maps(labels, source, names)
    segments = _segments(maps)
    try:
        frames, places = _on_source(maps, source)
        described = [_describe(i, one, algorithm, codes or {}) for i, one in enumerate(segments, 1)]
        pixels = _pixels(maps, segments, places, frames)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # highdicom repeats names of patients that are unlike those it knows
            data = _segmentation(pixels, described, frames, algorithm, maps[0].fraction)
    except DAMAGE:  # the cause may hold words of the header
        raise BadImage(
            "The files of the image lack what a DICOM segmentation needs, or contradict each other",
            remedy="write .nii.gz or .seg.nrrd",
        ) from None
    return atomic_write(place, lambda file: dcmwrite(file, data, enforce_file_format=True))


def _maps(
    labels: LabelMap | Sequence[LabelMap] | Prediction | npt.ArrayLike, source: Volume, names: Mapping[int, str] | None
) -> list[LabelMap]:
    if isinstance(labels, Prediction):
        maps = list(labels.masks())
    elif isinstance(labels, LabelMap):
        maps = [labels]
    elif isinstance(labels, Sequence) and all(isinstance(one, LabelMap) for one in labels):
        maps = [one for one in labels if isinstance(one, LabelMap)]
    else:
        maps = [LabelMap(np.asarray(labels), source.geometry)]
    if not maps or len({one.fraction for one in maps}) > 1 or len({one.array.shape for one in maps}) > 1:
        raise BadImage("These masks cannot be one segmentation", remedy="give masks of one kind and one size")
    for one in maps:
        if one.array.dtype.kind not in ("f" if one.fraction else "bui") or one.array.ndim != one.geometry.ndim:
            raise BadImage("A mask holds whole numbers from 0 up, one for each voxel", remedy="give such a mask")
    return [
        LabelMap(np.asarray(one.array), one.geometry, {**one.names, **(names or {})}, one.colours, one.fraction)
        for one in maps
    ]


def _segments(maps: Sequence[LabelMap]) -> list[_Segment]:
    found = []
    for layer, one in enumerate(maps):
        given = names_but_background(one.names)
        values = {1} if one.fraction else {int(value) for value in np.unique(one.array) if value} | set(given)
        if values and min(values) < 0:
            raise BadImage(
                "A mask holds whole numbers from 0 up, but this one has negative ones", remedy="number them anew"
            )
        found += [
            _Segment(layer, v, _plain(given.get(v, "")) or f"label {v}", one.colours.get(v)) for v in sorted(values)
        ]
    return found or [_Segment(0, 1, "label 1", None)]


def _plain(name: str) -> str:
    """A name without what would make several of it, or lines, and no longer than DICOM allows."""
    return re.sub(r"[\\\x00-\x1f\x7f]+", " ", name).strip()[:64].strip()


def names_but_background(names: Mapping[int, str]) -> dict[int, str]:
    """Names of the labels from 1 up."""
    return {int(label): name for label, name in names.items() if label > 0}


# ------------------------------------------------------------------------------------------------------------- pixels


def _on_source(maps: Sequence[LabelMap], source: Volume) -> tuple[list[Frame], list[Place]]:
    """The frames of the source that lie in the grid of the masks, one in each place and in order, and where."""
    frames = [frame for file in source.acquisition.files for frame in frames_of(file, read_header(file, tags=None))]
    check_source(frames[0])
    grid, shape = maps[0].geometry, maps[0].array.shape
    if not all(frame.placed for frame in frames):
        return frames, _whole(frames, shape)
    pairs = [(frame, place_in(frame, grid, shape)) for frame in frames] if grid.ndim == 3 else []
    found = sorted(
        ((frame, place) for frame, place in pairs if place is not None),
        key=lambda pair: float(distances([frames[0], pair[0]])[1]),
    )
    if not found:
        raise BadImage("The mask does not lie on the grid of its image", remedy="resample it to the image first")
    along = distances([frame for frame, _ in found])
    kept = [found[0], *(pair for pair, apart in zip(found[1:], np.diff(along), strict=True) if apart > _ONE_PLACE)]
    return [frame for frame, _ in kept], [place for _, place in kept]


def _whole(frames: Sequence[Frame], shape: Sequence[int]) -> list[Place]:
    """The place of a frame that does not say where it lies: all of a picture."""
    if len(frames) > 1:
        raise BadImage(
            "The frames of the image do not say where they lie, so a DICOM segmentation cannot refer to one of them",
            remedy="write .nii.gz or .seg.nrrd",
        )
    everything = (slice(0, frames[0].shape[0]), slice(0, frames[0].shape[1]))
    if tuple(shape) not in (frames[0].shape, (1, *frames[0].shape)):
        raise BadImage("The mask is not of the size of its image", remedy="resample it to the image first")
    return [Place((0,) * (len(shape) - 2) + everything, False, everything)]


def _pixels(
    maps: Sequence[LabelMap], segments: Sequence[_Segment], places: Sequence[Place], frames: Sequence[Frame]
) -> Array:
    """As highdicom takes them: numbers of segments `(n, y, x)`, or `(n, y, x, segment)` where they overlap or are fractions."""
    rows, columns = frames[0].shape
    single = len(maps) == 1 and not maps[0].fraction
    shape = (len(places), rows, columns) if single else (len(places), rows, columns, len(segments))
    dtype: Any = np.float32 if maps[0].fraction else np.uint8 if len(segments) < 256 else np.uint16
    pixels = int(np.prod(shape))
    check_size("The segmentation", pixels=pixels, bytes_needed=2 * pixels * np.dtype(dtype).itemsize)
    out = np.zeros(shape, dtype)
    if single:
        values = [0, *(one.value for one in segments)]  # ascending, so that a label's place among them is its number
        for index, place in enumerate(places):
            out[(index, *place.seen)] = np.searchsorted(values, place.view(maps[0].array))
        return out
    for number, one in enumerate(segments):
        for index, place in enumerate(places):
            values = place.view(maps[one.layer].array)
            out[(index, *place.seen, number)] = np.clip(values, 0, 1) if maps[0].fraction else values == one.value
    return out


# -------------------------------------------------------------------------------------------------------------- header


def _describe(
    number: int, segment: _Segment, algorithm: tuple[str, str] | None, codes: Mapping[int, SegmentCode | Code]
) -> hd.seg.SegmentDescription:
    given = codes.get(segment.value) or code_for(segment.name)
    code = given if isinstance(given, SegmentCode) else SegmentCode(terms.SCT.AnatomicalStructure, given)
    made_by = None
    if algorithm is not None:
        made_by = hd.AlgorithmIdentificationSequence(algorithm[0], terms.DCM.ArtificialIntelligence, algorithm[1])
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name,
        segmented_property_category=code.category,
        segmented_property_type=code.kind,
        algorithm_type="MANUAL" if algorithm is None else "AUTOMATIC",
        algorithm_identification=made_by,
        display_color=CIELabColor.from_rgb(*(round(part * 255) for part in segment.colour)) if segment.colour else None,
    )
    if code.side is not None:
        side = [hd.sr.CodedConcept.from_code(code.side)]
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = side
    return described


def _segmentation(
    pixels: Array,
    described: Sequence[hd.seg.SegmentDescription],
    frames: Sequence[Frame],
    algorithm: tuple[str, str] | None,
    fraction: bool,
) -> hd.seg.Segmentation:
    headers = plain_headers(frames)
    where: dict[str, Any] = {}
    if frames[0].placed:
        plane = frames[0].plane
        where["plane_positions"] = [
            hd.PlanePositionSequence("PATIENT", [float(v) for v in frame.plane.position]) for frame in frames
        ]
        where["plane_orientation"] = hd.PlaneOrientationSequence("PATIENT", plane.orientation.ravel().tolist())
        apart = np.diff(distances(frames))
        where["pixel_measures"] = hd.PixelMeasuresSequence(
            pixel_spacing=plane.spacing,
            slice_thickness=frames[0].thickness or (float(np.median(apart)) if len(apart) else 1.0),
            spacing_between_slices=float(np.median(apart)) if len(apart) else None,
        )
    elif is_tiled(headers[0]):
        where["tile_pixel_array"] = True
    if not pixels.any():
        where["omit_empty_frames"] = False  # else highdicom says aloud that it cannot omit them all
    name, version = algorithm or ("napari-medt", napari_medt.__version__)
    return hd.seg.Segmentation(
        source_images=headers,
        pixel_array=pixels,
        segmentation_type="FRACTIONAL" if fraction else "BINARY",
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=100,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="napari-medt",
        manufacturer_model_name=name[:64],
        software_versions=version[:64],
        device_serial_number="none",
        content_description="Segmentation",
        specific_character_set="ISO_IR 192",  # names of any script, whatever that of the source
        series_description=f"Segmentation by {name}"[:64],
        **where,
    )
