"""Stacks: frames of one series that lie parallel on each other, and the choice among those of one place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from napari_medt.core import AmbiguousImage, Choice
from napari_medt.core.volume import Array
from napari_medt.io.dicom_frames import Frame
from napari_medt.io.dicom_header import description, is_tiled, modality, number, series_uid, text

AS_SLICES = "as slices"
_SLICED = ("CT", "MR", "PT")  # of other kinds, files that do not say where they lie are pictures on their own
_ANGLE = 2e-3  # of direction cosines, which are often rounded
_ONE_PLACE = 0.02  # of a pixel
_SHOWN = {"echo": "{:g} ms", "b": "{:g} s/mm²", "trigger": "{:g} ms", "phase": "{:g} %", "kV": "{:g}", "flip": "{:g}°"}


@dataclass(frozen=True, eq=False)
class Stack:
    """Parallel frames of one series.

    Attributes
    ----------
    key
        UID of the series; with `#2` and so on, where the series holds several stacks.
    frames
        In the order of their places along the normal where these are known, else as they were taken.
    """

    key: str
    frames: tuple[Frame, ...]

    @property
    def first(self) -> Frame:
        """Of the frames."""
        return self.frames[0]

    @cached_property
    def places(self) -> tuple[tuple[Frame, ...], ...]:
        """The frames by place; those of one place as they were taken."""
        if not self.first.placed:
            return tuple((frame,) for frame in self.frames)
        along = distances(self.frames)
        starts = np.flatnonzero(np.diff(along) > _ONE_PLACE * min(self.first.plane.spacing)) + 1
        edges = [0, *starts.tolist(), len(self.frames)]
        return tuple(
            tuple(sorted(self.frames[start:stop], key=lambda frame: frame.taken)) for start, stop in pairwise(edges)
        )


def distances(frames: Sequence[Frame]) -> Array:
    """How far placed frames lie along the normal of the first, mm from the patient's origin."""
    return np.asarray([frame.plane.position for frame in frames]) @ frames[0].plane.normal


def stacks_of(frames: Iterable[Frame]) -> tuple[Stack, ...]:
    """Sort frames of any number of series into stacks, those of a series one after the other, the largest first."""
    by_series: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[_series_key(frame)].append(frame)
    found = []
    for uid, of_series in by_series.items():
        groups = sorted(_parallel(of_series), key=len, reverse=True)
        for index, group in enumerate(groups, 1):
            found.append(Stack(f"{uid}#{index}" if len(groups) > 1 else uid, _in_order(group)))
    return tuple(found)


def _series_key(frame: Frame) -> str:
    """The UID; where it has been taken out, by folder and by what else is the same for a series."""
    header = frame.header
    count = number(header, "SeriesNumber")
    same = (modality(header), "" if count is None else f"{count:g}", description(header))
    return series_uid(header) or " ".join((Path(frame.file).parent.name, *filter(None, same)))


def _parallel(frames: Sequence[Frame]) -> list[list[Frame]]:
    slides = [frame for frame in frames if is_tiled(frame.header) and "VOLUME" in text(frame.header, "ImageType")]
    if slides:  # its levels; the pictures of its label, which may show a name, and of the whole glass are left out
        return [slides]
    groups: dict[tuple[Any, ...], list[list[Frame]]] = defaultdict(list)
    for frame in frames:
        header = frame.header
        key: tuple[Any, ...] = (frame.placed, frame.shape, number(header, "SamplesPerPixel"), frame.frame_of_reference)
        if not frame.placed:
            several = (number(header, "NumberOfFrames") or 1) > 1
            alone = several or modality(header) not in _SLICED
            of_file = groups[(*key, frame.file if alone else "")]
            of_file[:] = [[*(of_file[0] if of_file else []), frame]]
            continue
        for group in groups[key]:
            if _is_parallel(group[0], frame):
                group.append(frame)
                break
        else:
            groups[key].append([frame])
    return [group for alike in groups.values() for group in alike]


def _is_parallel(one: Frame, other: Frame) -> bool:
    same_pixels = np.allclose(one.plane.spacing, other.plane.spacing, rtol=1e-3, atol=0)
    return bool(same_pixels and (abs(one.plane.orientation - other.plane.orientation) < _ANGLE).all())


def _in_order(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    if is_tiled(frames[0].header):
        return tuple(sorted(frames, key=lambda frame: frame.shape, reverse=True))
    if frames[0].placed:
        return tuple(frames[i] for i in np.argsort(distances(frames), kind="stable"))
    locations = [number(frame.header, "SliceLocation") for frame in frames]
    if len(set(locations)) == len(frames) and None not in locations:
        return tuple(frame for _, frame in sorted(zip(locations, frames, strict=True), key=lambda pair: pair[0] or 0.0))
    return tuple(sorted(frames, key=lambda frame: frame.taken[1:]))


# --------------------------------------------------------------------------------------- several frames in one place


def alternatives(stack: Stack) -> tuple[tuple[Choice, Stack], ...]:
    """What there is to choose from where frames lie in one place: times, echoes, diffusion weightings, kinds or copies.

    Nothing, if there is but one frame in every place, once copies of the same file are left out.
    """
    if not stack.first.placed:
        return _film(stack)
    most = max(map(len, stack.places))
    if most == 1:
        return ()
    vary = [name for name in _names(stack.frames) if len({frame.varies.get(name) for frame in stack.frames}) > 1]
    for size in range(1, len(vary) + 1):
        for names in combinations(vary, size):
            groups = _grouped(stack.frames, names)
            if len(groups) == most and all(_one_each(group) for group in groups.values()):
                return tuple(
                    (_choice(names, values, groups), Stack(stack.key, tuple(group)))
                    for values, group in sorted(groups.items(), key=lambda pair: tuple(map(_sortable, pair[0])))
                )
    return _by_rank(stack)


def _film(stack: Stack) -> tuple[tuple[Choice, Stack], ...]:
    """The frames of one file that says of none where it lies: moments, or slices."""
    count = len(stack.frames)
    if (
        count == 1
        or is_tiled(stack.first.header)
        or stack.first.file != stack.frames[-1].file
        or "GridFrameOffsetVector" in stack.first.header
    ):
        return ()
    whole = (Choice(AS_SLICES, f"its {count} frames lie behind each other"), stack)
    return whole, *(
        (Choice(f"t={i}", f"frame {i + 1} of {count}"), Stack(stack.key, (frame,)))
        for i, frame in enumerate(stack.frames)
    )


def several(stack: Stack, count: int) -> str:
    """Say that frames of a stack lie in one place, which makes `count` alternatives."""
    if stack.first.placed:
        return f"The series holds {count} images of one place"
    return f"The file holds {len(stack.frames)} frames that do not say where they lie"


def _names(frames: Iterable[Frame]) -> list[str]:
    names: dict[str, None] = {}
    for frame in frames:
        names.update(dict.fromkeys(frame.varies))
    return list(names)


def _grouped(frames: Sequence[Frame], names: Sequence[str]) -> Mapping[tuple[Any, ...], list[Frame]]:
    groups: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[tuple(frame.varies.get(name) for name in names)].append(frame)
    return groups


def _one_each(group: Sequence[Frame]) -> bool:
    return all(len(place) == 1 for place in Stack("", tuple(group)).places)


def _sortable(value: Any) -> tuple[Any, ...]:
    return (0,) if value is None else (1, value)


def _choice(names: Sequence[str], values: Sequence[Any], groups: Mapping[tuple[Any, ...], list[Frame]]) -> Choice:
    keys, titles = [], []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        ordered = sorted({other[place] for other in groups}, key=_sortable)
        rank = ordered.index(value)
        if name == "time":
            keys.append(f"t={rank}")
            titles.append(f"time point {rank + 1} of {len(ordered)}")
        elif name == "direction":
            keys.append(f"direction={rank}")
            titles.append("no direction" if value is None else f"direction {rank + (None not in ordered)}")
        elif name == "type":
            kind = str(value).replace("\\", " ")
            keys.append(f"type={kind.replace(' ', '/')}")
            titles.append(kind.lower())
        else:
            said = "unknown" if value is None else _SHOWN.get(name, "{:g}").format(value[0])
            keys.append(f"{name}={'' if value is None else format(value[0], 'g')}")
            titles.append(f"{name} {said}")
    return Choice(" ".join(keys), ", ".join(titles))


def _by_rank(stack: Stack) -> tuple[tuple[Choice, Stack], ...]:
    """By the order in which frames of one place were taken; a place with fewer gives its last one again."""
    most = max(map(len, stack.places))
    even = all(len(place) == most for place in stack.places)
    in_time = even and all(len({frame.taken[0] for frame in place}) == most for place in stack.places)
    name = "time point" if in_time else "copy"
    return tuple(
        (
            Choice(f"{'t' if in_time else 'copy'}={rank if in_time else rank + 1}", f"{name} {rank + 1} of {most}"),
            Stack(stack.key, tuple(place[min(rank, len(place) - 1)] for place in stack.places)),
        )
        for rank in range(most)
    )


def without_copies(stack: Stack) -> tuple[Stack, int]:
    """Leave out frames that are there twice under one UID; how many there were."""
    seen: dict[tuple[str, int], Frame] = {}
    for frame in stack.frames:
        seen.setdefault((text(frame.header, "SOPInstanceUID") or frame.file, frame.number), frame)
    return replace(stack, frames=tuple(seen.values())), len(stack.frames) - len(seen)


def chosen(what: str, options: Sequence[tuple[Choice, Stack]], choose: Sequence[str]) -> Stack:
    """Return the stack that was chosen, the only one where there is no other.

    Raises
    ------
    AmbiguousImage
        If there are several and none, or several, were chosen.
    """
    wanted = [stack for choice, stack in options if choice.key in choose]
    if len(wanted) == 1 or len(options) == 1:
        return (wanted or [stack for _, stack in options])[0]
    raise AmbiguousImage(what, [choice for choice, _ in options])
