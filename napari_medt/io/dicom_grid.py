"""Where the slices of a stack lie: one even grid, or the question what to do about a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from napari_medt.core import AmbiguousImage, BadImage, Choice, Geometry
from napari_medt.core.volume import Array
from napari_medt.io.dicom_frames import Frame
from napari_medt.io.dicom_header import items, number, numbers, text
from napari_medt.io.dicom_places import geometry_of_plane
from napari_medt.io.dicom_stacks import distances

_EXACT, _EVEN = 0.01, 0.1  # how far a slice may lie from its place on an even grid, of the distance of slices
_SPARSE = 2.0  # times their thickness: slices that far apart are seldom meant to be
_MOSAIC = "This is a mosaic of slices side by side, which is not taken apart, so places in it are wrong"
FILL, LARGEST = "fill gaps", "largest run"


@dataclass(frozen=True, eq=False)
class Grid:
    """Even places for slices.

    Attributes
    ----------
    frames
        Those that are used, in order.
    geometry
        Of the array `(z, y, x)`; of `(y, x)` for a single picture without a place.
    sources
        By slice of the array, with fractions: which of the frames; `None` where they are the frames themselves.
    notes
        What is odd.
    """

    frames: tuple[Frame, ...]
    geometry: Geometry
    sources: Array | None = None
    notes: tuple[str, ...] = ()


def grid_of(frames: Sequence[Frame], *, name: str, choose: Sequence[str] = ()) -> Grid:
    """Lay parallel frames, one in each place and sorted along their normal, on an even grid.

    Raises
    ------
    AmbiguousImage
        If slices are missing, or unequally far from each other.
    BadImage
        If the slices are shifted against each other, so that they make no block.
    """
    if not frames[0].placed:
        return _unplaced(frames)
    if len(frames) == 1:
        return _single(frames[0])
    along = distances(frames)
    step = _usual_step(np.diff(along))
    even = (along[-1] - along[0]) / (len(frames) - 1)
    off = abs(along - along[0] - even * np.arange(len(frames))).max() / even
    if off <= _EVEN:
        notes = (
            (f"The slices lie up to {off * even:.2g} mm from even places, which is neglected",) if off > _EXACT else ()
        )
        return _even(tuple(frames), name, notes)
    runs = _runs(along, step)
    start, stop = max(runs, key=lambda run: run[1] - run[0])
    gaps = np.diff(along) / step
    missing = int((np.rint(gaps[gaps > 1.5]) - 1).sum())
    whole = bool((abs(gaps - np.rint(gaps)) < _EVEN).all())
    if LARGEST in choose and stop - start > 1:
        part = grid_of(frames[start:stop], name=name)
        note = f"Only {stop - start} of {len(frames)} slices are read, those without a gap between them"
        return Grid(part.frames, part.geometry, None, (*part.notes, note))
    if FILL in choose:
        return _filled(tuple(frames), along, step, name)
    what = (
        f"{name} lacks {missing} slice{'s' * (missing > 1)}"
        if whole
        else f"The slices of {name} lie unequally far apart, {np.diff(along).min():.4g} to {np.diff(along).max():.4g} mm"
    )
    choices = [Choice(FILL, f"slices every {step:.4g} mm, those that are not there interpolated from their neighbours")]
    if stop - start > 1:
        choices.append(Choice(LARGEST, f"only the {stop - start} slices without a gap between them"))
    raise AmbiguousImage(what, choices)


def _usual_step(steps: Array) -> float:
    """The commonest distance; the smaller of equally common ones."""
    ordered = np.sort(steps)
    counts = [int((abs(ordered - step) <= _EVEN * step).sum()) for step in ordered]
    alike = ordered[abs(ordered - ordered[int(np.argmax(counts))]) <= _EVEN * ordered[int(np.argmax(counts))]]
    return float(np.median(alike))


def _runs(along: Array, step: float) -> list[tuple[int, int]]:
    """Slices that follow each other without a gap, as ranges."""
    breaks = np.flatnonzero(abs(np.diff(along) - step) > _EVEN * step) + 1
    edges = [0, *breaks.tolist(), len(along)]
    return list(pairwise(edges))


def _even(frames: tuple[Frame, ...], name: str, notes: tuple[str, ...]) -> Grid:
    first, places = frames[0], np.asarray([frame.plane.position for frame in frames])
    step = (places[-1] - places[0]) / (len(frames) - 1)
    _check_line(places, step, first, name)
    told = (*notes, *_tilt(step, first), *_sparse(step, first))
    return Grid(frames, geometry_of_plane(first, step), None, told)


def _filled(frames: tuple[Frame, ...], along: Array, step: float, name: str) -> Grid:
    places = np.asarray([frame.plane.position for frame in frames])
    count = int(np.floor((along[-1] - along[0]) / step + _EVEN)) + 1
    direction = (places[-1] - places[0]) / (along[-1] - along[0])
    _check_line(places, direction, first := frames[0], name, at=along - along[0])
    sources = np.interp(along[0] + step * np.arange(count), along, np.arange(len(frames)))
    near = np.rint(sources)
    sources = np.where(abs(sources - near) < _EXACT, near, sources)
    made = int((sources != np.rint(sources)).sum())
    note = f"{made} of {count} slices are not in the file and are interpolated from their neighbours"
    return Grid(frames, geometry_of_plane(first, direction * step), sources, (note, *_tilt(direction * step, first)))


def _check_line(places: Array, step: Array, first: Frame, name: str, *, at: Array | None = None) -> None:
    """Refuse slices that are shifted sideways against each other by more than a pixel."""
    steps = np.arange(len(places)) if at is None else at
    aside = (places - places[0] - steps[:, None] * step) @ first.plane.orientation.T
    if abs(aside).max() > max(first.plane.spacing):
        raise BadImage(
            f"The slices of {name} are shifted against each other by up to {abs(aside).max():.3g} mm, so they make no block",
            remedy="choose a series of slices in a row",
        )


def _tilt(step: Array, first: Frame) -> tuple[str, ...]:
    normal = first.plane.normal
    degrees = float(np.degrees(np.arccos(np.clip(normal @ step / np.linalg.norm(step), -1, 1))))
    if degrees < 0.1:
        return ()
    return (f"The slices are tilted by {degrees:.1f}° against the direction they follow each other; places are exact",)


def _sparse(step: Array, first: Frame) -> tuple[str, ...]:
    apart = float(abs(first.plane.normal @ step))
    if first.thickness is None or apart < _SPARSE * first.thickness:
        return ()
    return (f"The slices lie {apart:.3g} mm apart but are {first.thickness:.3g} mm thick, so some may be missing",)


def _single(frame: Frame) -> Grid:
    thickness = frame.thickness or frame.apart
    note = (
        f"This is a single slice; it is taken to be {thickness:g} mm thick, as the file says"
        if thickness
        else "This is a single slice, and the file does not say how thick it is; 1 mm is assumed"
    )
    mosaic = "MOSAIC" in text(frame.header, "ImageType").split("\\")
    notes = (_MOSAIC,) if mosaic else (note,)
    step = frame.plane.normal * (thickness or 1.0)
    return Grid((frame,), geometry_of_plane(frame, step), None, notes)


def _unplaced(frames: Sequence[Frame]) -> Grid:
    """Frames that do not say where in the patient they are."""
    first = frames[0]
    spacing, said = pixel_spacing(first)
    units = "mm" if spacing else "px"
    if len(frames) == 1:
        return Grid(tuple(frames), Geometry.from_spacing(spacing or (1.0, 1.0), units=units), None, said)
    apart = first.apart or first.thickness
    if not spacing or not apart:
        units, spacing, apart = "px", (1.0, 1.0), 1.0
    note = "The file does not say where its slices lie in the patient, so left and right are not known"
    return Grid(tuple(frames), Geometry.from_spacing((apart, *spacing), units=units), None, (note, *said))


def pixel_spacing(frame: Frame) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Distance of rows and of columns in mm, and what there is to say about it."""
    told = {
        "ImagerPixelSpacing": "Sizes are those at the detector, which are larger than in the patient",
        "NominalScannedPixelSpacing": "Sizes are those on the scanned film",
    }
    for keyword, said in told.items():
        found = numbers(frame.header, keyword, 2)
        if found and min(found) > 0 and frame.spacing in (None, found):
            return (found[0], found[1]), (said,)
    if frame.spacing:
        return frame.spacing, ()
    regions = items(frame.header, "SequenceOfUltrasoundRegions")
    if len(regions) == 1 and number(regions[0], "PhysicalUnitsXDirection") == 3:  # cm
        steps = [number(regions[0], f"PhysicalDelta{axis}") or 0.0 for axis in "YX"]
        if all(steps):
            return (abs(steps[0]) * 10, abs(steps[1]) * 10), ("Sizes are those inside the ultrasound sector",)
    return None, ("The file does not say how large its pixels are",)
