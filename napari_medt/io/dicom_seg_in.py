"""`read_dicom_seg`: segmentations in DICOM to label maps, on the grid of their source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from highdicom.color import CIELabColor
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels

from napari_medt.core import BadImage, Geometry, LabelMap, Volume
from napari_medt.core.volume import Array
from napari_medt.io.dicom_files import check_count
from napari_medt.io.dicom_frames import Frame, frames_of
from napari_medt.io.dicom_grid import pixel_spacing
from napari_medt.io.dicom_header import DAMAGE, is_mask, is_tiled, items, number, numbers, quietly, text
from napari_medt.io.dicom_places import Place, common_grid, place_in
from napari_medt.io.dicom_slide import slide_geometry, tile_corners
from napari_medt.io.picture import check_size


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where the frames of a segmentation go."""

    geometry: Geometry
    shape: tuple[int, ...]
    places: Sequence[Place]
    notes: tuple[str, ...] = ()


@quietly()
def read_dicom_seg(path: Path, *, like: Volume | None = None) -> tuple[LabelMap, ...]:
    """Read a segmentation.

    Every frame is put where its own position says, so that nothing is mirrored. Slices without a frame are empty.

    Parameters
    ----------
    path
        A DICOM SEG file.
    like
        Its source. The mask is laid on its grid, if its pixels fall on samples of it; else it keeps a grid of its own, which
        a note says.

    Returns
    -------
    tuple of LabelMap
        As few as can be: one, or several where segments overlap. The labels are the numbers of the segments. Of a fractional
        segmentation each segment is one, with values in [0, 1].

    Raises
    ------
    BadImage
        If it is no segmentation, damaged, or its frames lie in no common grid.
    """
    try:
        data = dcmread(path, force=True)
        if not is_mask(data) or not number(data, "Rows"):
            raise BadImage(f"{path.name} is no DICOM segmentation", remedy="choose a file of modality SEG")
        check_count(data, path)
        layout = _layout(path, data, like)
        check_size(path.name, pixels=int(np.prod(layout.shape)), bytes_needed=2 * int(np.prod(layout.shape)))
        numbers_of = _segment_numbers(data, len(layout.places))
        return tuple(_label_maps(path, data, layout, numbers_of))
    except DAMAGE:  # the cause may hold words of the header
        raise BadImage(f"{path.name} is a damaged or incomplete segmentation", remedy="export it again") from None


def _label_maps(path: Path, data: Dataset, layout: _Layout, numbers_of: Sequence[int]) -> Iterator[LabelMap]:
    names, colours = _names(data), _colours(data)
    kind = text(data, "SegmentationType").upper()
    common: dict[str, Any] = {"geometry": layout.geometry, "source": str(path), "notes": layout.notes}
    if kind == "FRACTIONAL":
        top = number(data, "MaximumFractionalValue") or 255.0
        said = text(data, "SegmentationFractionalType").lower()
        note = f"Values are {'probabilities' if said == 'probability' else 'shares of each voxel that the structure takes'}"
        for label, frames in _by_segment(numbers_of, names):
            array = np.zeros(layout.shape, np.float32)
            for values, place in _decoded(data, frames, layout):
                np.maximum(place.view(array), values / np.float32(top), out=place.view(array))
            one = {1: names.get(label, "")}, {1: colours[label]} if label in colours else {}
            yield LabelMap(
                array, names=one[0], colours=one[1], fraction=True, **common | {"notes": (*layout.notes, note)}
            )
        return
    dtype = np.uint8 if max([*names, *numbers_of, 0]) < 256 else np.uint16
    if kind == "LABELMAP":
        array = np.zeros(layout.shape, dtype if (number(data, "BitsAllocated") or 8) <= 8 else np.uint16)
        for values, place in _decoded(data, range(len(layout.places)), layout):
            place.view(array)[...] = values
        named = {label: name for label, name in names.items() if label}
        yield LabelMap(array, names=named, colours={n: c for n, c in colours.items() if n}, **common)
        return
    for layer, labels in _packed(data, layout, numbers_of, names, dtype):
        yield LabelMap(
            layer,
            names={label: names[label] for label in labels if label in names},
            colours={label: colours[label] for label in labels if label in colours},
            **common,
        )


def _packed(
    data: Dataset, layout: _Layout, numbers_of: Sequence[int], names: Mapping[int, str], dtype: Any
) -> list[tuple[Array, list[int]]]:
    """Segments in as few layers as the first that is free gives, each with the numbers in it."""
    layers: list[tuple[Array, list[int]]] = []
    for label, frames in _by_segment(numbers_of, names):
        parts = [(values != 0, place) for values, place in _decoded(data, frames, layout)]
        free = (one for one in layers if not any(place.view(one[0])[part].any() for part, place in parts))
        layer, labels = next(free, (None, []))
        if layer is None:
            layer = np.zeros(layout.shape, dtype)
            layers.append((layer, labels))
        for part, place in parts:
            place.view(layer)[part] = label
        labels.append(label)
    return layers


def _by_segment(numbers_of: Sequence[int], names: Mapping[int, str]) -> list[tuple[int, list[int]]]:
    """The frames of each segment, also of those that have none."""
    frames: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(numbers_of):
        frames[label].append(index)
    return [(label, frames[label]) for label in sorted({*names, *frames})]


def _decoded(data: Dataset, frames: Sequence[int], layout: _Layout) -> Iterator[tuple[Array, Place]]:
    """Values of some frames, as far as they lie within the grid, with where they go."""
    if not frames:
        return
    if data.BitsAllocated == 1 and not data.file_meta.TransferSyntaxUID.is_compressed:
        decoded: Iterator[Array] = (_bits(data, index) for index in frames)
    else:
        decoded = iter_pixels(data, indices=list(frames), raw=True)
    for index, values in zip(frames, decoded, strict=True):
        place = layout.places[index]
        yield values[place.seen], place


def _bits(data: Dataset, index: int) -> Array:
    """Unpack one frame of single bits, which may begin in the middle of a byte."""
    rows, columns = int(data.Rows), int(data.Columns)
    start = index * rows * columns
    stop = start + rows * columns
    part = np.frombuffer(data.PixelData, np.uint8, count=-(-stop // 8) - start // 8, offset=start // 8)
    return np.unpackbits(part, bitorder="little")[start % 8 :][: rows * columns].reshape(rows, columns)


# ------------------------------------------------------------------------------------------------------- where they go


def _layout(path: Path, data: Dataset, like: Volume | None) -> _Layout:
    if is_tiled(data):
        return _tiled(data, like)
    frames = list(frames_of(str(path), data))
    if not all(frame.placed for frame in frames):
        return _pictures(path, data, frames, like)
    if like is not None and like.geometry.ndim == 3:
        places = [place_in(frame, like.geometry, like.spatial_shape) for frame in frames]
        found = [place for place in places if place is not None]
        if len(found) == len(frames):
            return _Layout(like.geometry, like.spatial_shape, found)
    try:
        geometry, shape = common_grid(frames)
    except ValueError:
        raise BadImage(
            f"The slices of {path.name} lie in no common grid", remedy="open its source image first, then the mask"
        ) from None
    notes = ("The mask does not lie on the grid of the image and keeps its own",) if like is not None else ()
    places = [place_in(frame, geometry, shape) for frame in frames]
    found = [place for place in places if place is not None]
    if len(found) < len(frames):
        raise BadImage(f"The slices of {path.name} are shifted against each other", remedy="export it again")
    return _Layout(geometry, shape, found, notes)


def _pictures(path: Path, data: Dataset, frames: Sequence[Frame], like: Volume | None) -> _Layout:
    """Frames that lie on a picture, or on the frames of a film, by the number of the frame they refer to."""
    each = items(data, "PerFrameFunctionalGroupsSequence")
    behind = [_source_frame(group) for group in each] or [1] * len(frames)
    rows, columns = frames[0].shape
    spacing, notes = pixel_spacing(frames[0])
    depth = max(behind)
    everything = (slice(0, rows), slice(0, columns))
    if like is not None and like.spatial_shape in ((rows, columns), (like.spatial_shape[0], rows, columns)):
        if like.geometry.ndim == 2:
            return _Layout(like.geometry, (rows, columns), [Place(everything, False, everything)] * len(frames))
        if depth <= like.spatial_shape[0]:
            places = [Place((index - 1, *everything), False, everything) for index in behind]
            return _Layout(like.geometry, like.spatial_shape, places)
    if depth == 1:
        geometry = Geometry.from_spacing(spacing or (1.0, 1.0), units="mm" if spacing else "px")
        return _Layout(geometry, (rows, columns), [Place(everything, False, everything)] * len(frames), notes)
    geometry = Geometry.from_spacing((1.0, 1.0, 1.0))
    places = [Place((index - 1, *everything), False, everything) for index in behind]
    return _Layout(geometry, (depth, rows, columns), places, (*notes, f"{path.name} does not say where its slices lie"))


def _source_frame(group: Dataset) -> int:
    for derivation in items(group, "DerivationImageSequence"):
        for source in items(derivation, "SourceImageSequence"):
            return int((numbers(source, "ReferencedFrameNumber") or (1,))[0])
    return 1


def _tiled(data: Dataset, like: Volume | None) -> _Layout:
    """Tiles of a slide, which together make one picture."""
    rows, columns = int(data.Rows), int(data.Columns)
    height, width = int(data.TotalPixelMatrixRows), int(data.TotalPixelMatrixColumns)
    shared = next(iter(items(data, "SharedFunctionalGroupsSequence")), Dataset())
    measures = next(iter(items(shared, "PixelMeasuresSequence")), Dataset())
    spacing = numbers(measures, "PixelSpacing", 2)
    geometry = slide_geometry((spacing[0], spacing[1]) if spacing else None)
    if like is not None and like.spatial_shape == (height, width):
        geometry = like.geometry
    places = []
    for top, left in tile_corners(data):
        seen = slice(0, min(rows, height - top)), slice(0, min(columns, width - left))
        places.append(Place((slice(top, top + seen[0].stop), slice(left, left + seen[1].stop)), False, seen))
    return _Layout(geometry, (height, width), places)


# ------------------------------------------------------------------------------------------------------- what they mean


def _segment_numbers(data: Dataset, count: int) -> list[int]:
    """Which segment each frame is of."""
    found = []
    shared = next(iter(items(data, "SharedFunctionalGroupsSequence")), Dataset())
    for group in items(data, "PerFrameFunctionalGroupsSequence"):
        named = items(group, "SegmentIdentificationSequence") or items(shared, "SegmentIdentificationSequence")
        found.append(int(named[0].ReferencedSegmentNumber) if named else 1)
    if found or text(data, "SegmentationType").upper() == "LABELMAP":
        return found
    segments = [int(segment.SegmentNumber) for segment in items(data, "SegmentSequence")]
    of_each = count // len(segments)  # tiled in full: all tiles of the first, then of the second
    return [segment for segment in segments for _ in range(of_each)]


def _names(data: Dataset) -> dict[int, str]:
    return {int(s.SegmentNumber): text(s, "SegmentLabel") for s in items(data, "SegmentSequence")}


def _colours(data: Dataset) -> dict[int, tuple[float, float, float]]:
    """Recommended colours as red, green, blue in [0, 1]; else those of the palette."""
    found = {}
    palette = text(data, "PhotometricInterpretation") == "PALETTE COLOR"
    for segment in items(data, "SegmentSequence"):
        label = int(segment.SegmentNumber)
        lab = numbers(segment, "RecommendedDisplayCIELabValue", 3)
        if lab:
            rgb: Sequence[float] = CIELabColor.from_dicom_value([int(part) for part in lab]).to_rgb(clip=True)
            top = 255
        elif palette:
            values = apply_color_lut(np.array([[label]], np.uint16), data)
            rgb, top = values[0, 0].tolist(), np.iinfo(values.dtype).max
        else:
            continue
        found[label] = (rgb[0] / top, rgb[1] / top, rgb[2] / top)
    return found
