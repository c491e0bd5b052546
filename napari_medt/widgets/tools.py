"""The table of tools: what each one of `editing` is asked in the dock, and how it is called; plain Python without Qt and napari."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from napari_medt import editing
from napari_medt.core import BadEdit, Geometry
from napari_medt.editing import Edit
from napari_medt.widgets import texts

Kind = Literal["length", "size", "level", "choice", "other", "target", "free", "region", "mask"]
EVERYWHERE, THIS_SLICE = 0, -1
"""Regions that are no structures."""

Clicks = Literal["", "point", "points", "line", "hover", "stroke"]


@dataclass(frozen=True)
class Option:
    """One thing a tool is asked.

    Attributes
    ----------
    name
        Of the field of `Wish` it sets; label and tooltip are in `texts`.
    kind
        A length or a size in the picture's unit, a level of its intensity, one of `choices`; another structure, one that may
        be new, a label that is free; a region to work in; another mask.
    choices
        For a choice: keys of `texts.TOOL_CHOICES`, the first is the default.
    steps
        For a length: the default, in voxels of the finest axis.
    volume
        Whether it is asked for volumes only.
    """

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()
    steps: float = 2.0
    volume: bool = False


@dataclass(frozen=True, eq=False)
class Wish:
    """Everything a tool may need; lengths are in mm, or in pixels where the picture has no size.

    `values` are the labels in the mask, `named` those and all that have a meaning; `to` is 0 for a label that has none yet.
    """

    labels: np.ndarray
    value: int
    values: tuple[int, ...]
    named: tuple[int, ...]
    spacing: tuple[float, ...]
    axis: int = 0
    index: int = 0
    image: np.ndarray | None = None
    points: tuple[tuple[float, ...], ...] = ()
    length: float = 1.0
    diameter: float = 1.0
    size: float = 1.0
    to: int = 0
    within: int = 0
    low: float = -math.inf
    high: float = math.inf
    which: str = "one"
    act: str = "paint"
    way: str = ""
    mask: np.ndarray | None = None

    @property
    def chosen(self) -> tuple[int, ...]:
        """The structure that is active, or all of them."""
        return self.values if self.which == "all" else (self.value,)

    @property
    def at(self) -> tuple[int, ...]:
        """The clicked voxel.

        Raises
        ------
        BadEdit
            If there was no click yet.
        """
        return self.voxels(1)[-1]

    def voxels(self, least: int) -> tuple[tuple[int, ...], ...]:
        """Return the clicked voxels.

        Raises
        ------
        BadEdit
            If there are fewer than wanted.
        """
        if len(self.points) < least:
            raise BadEdit(texts.CLICK_FIRST)
        return tuple(tuple(round(part) for part in point) for point in self.points)

    @property
    def grey(self) -> np.ndarray:
        """The picture's intensities.

        Raises
        ------
        BadEdit
            If it is in colour.
        """
        if self.image is None:
            raise BadEdit(texts.NO_GREY)
        return self.image


@dataclass(frozen=True)
class Tool:
    """A tool as the dock offers it.

    Attributes
    ----------
    name
        In `texts.TOOL_NAMES` and `texts.TOOLTIPS`.
    work
        Works out the change; called off the window's thread.
    options
        What is asked.
    clicks
        What is done in the picture: nothing, one point, a point in each part, a line, the pointer followed, a stroke.
    volume
        Whether it makes sense on volumes only.
    slices
        Whether it needs a slice that is shown, and not the volume as a whole.
    """

    name: str
    work: Callable[[Wish], Edit]
    options: tuple[Option, ...] = ()
    clicks: Clicks = ""
    volume: bool = False
    slices: bool = False


def _split(wish: Wish) -> Edit:
    seeds = wish.voxels(2)
    free = _free(wish)
    return editing.split_by_seeds(
        wish.labels, wish.value, seeds, to=[wish.value, *range(free, free + len(seeds) - 1)], spacing=wish.spacing
    )


def _cut(wish: Wish) -> Edit:
    corners = np.array([_in_plane(point, wish) for point in wish.points]).reshape(-1, 2)
    if len(corners) < 2:
        raise BadEdit(texts.CLICK_FIRST)
    return editing.split_along_line(
        wish.labels, wish.value, corners, to=wish.to or _free(wish), spacing=wish.spacing, axis=wish.axis
    )


def _in_plane(point: tuple[float, ...], wish: Wish) -> tuple[float, ...]:
    return point if wish.labels.ndim == 2 else (*point[: wish.axis], *point[wish.axis + 1 :])


def _free(wish: Wish) -> int:
    return max((0, *wish.values, *wish.named)) + 1


def _copy(wish: Wish) -> Edit:
    ahead = 1 if wish.way == "next" else -1
    return editing.copy_slice(wish.labels, wish.chosen, axis=wish.axis, index=wish.index, to=wish.index + ahead)


def _threshold(wish: Wish) -> Edit:
    within: int | tuple[slice, ...] = wish.within
    if wish.within <= 0:
        flat = wish.within == THIS_SLICE and wish.labels.ndim == 3
        within = tuple(
            slice(wish.index, wish.index + 1) if flat and axis == wish.axis else slice(0, size)
            for axis, size in enumerate(wish.labels.shape)
        )
    return editing.threshold(wish.labels, wish.value, wish.grey, within=within, low=wish.low, high=wish.high)


def _merge(wish: Wish) -> Edit:
    if not wish.to:
        raise BadEdit(texts.NO_OTHER_STRUCTURE)
    return editing.merge(wish.labels, (wish.value, wish.to), to=wish.to)


def _combine(wish: Wish) -> Edit:
    if wish.mask is None:
        raise BadEdit(texts.NO_OTHER_MASK)
    how: Any = wish.way
    return editing.combine(wish.labels, wish.value, wish.mask, how=how)


def _holes(wish: Wish) -> Edit:
    flat = wish.labels.ndim == 3 and wish.way == "slices"
    return editing.fill_holes(wish.labels, wish.value, axis=wish.axis if flat else None)


def _brush(wish: Wish, **only: Any) -> Edit:
    flat = wish.labels.ndim == 3 and wish.way == "disc"
    value = 0 if wish.act == "erase" else wish.value
    return editing.brush(
        wish.labels,
        wish.points,
        value,
        radius_mm=wish.diameter / 2,
        spacing=wish.spacing,
        axis=wish.axis if flat else None,
        **only,
    )


def _hollow(wish: Wish) -> Edit:
    shell: Any = wish.way
    return editing.hollow(wish.labels, wish.value, thickness_mm=wish.length, spacing=wish.spacing, shell=shell)


_WHICH = Option("which", "choice", ("one", "all"))
_LENGTH = Option("length", "length")
_SIGMA = Option("length", "length", steps=1.0)  # more takes much off thin structures
_TO = Option("to", "target")
_RANGE = (Option("low", "level"), Option("high", "level"))
_DIAMETER = Option("diameter", "length", steps=6.0)
_PAINT = Option("act", "choice", ("paint", "erase"))

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "between",
            lambda w: editing.fill_between(w.labels, w.chosen, axis=w.axis, spacing=w.spacing),
            (_WHICH,),
            volume=True,
        ),
        Tool(
            "islands",
            lambda w: editing.remove_islands(w.labels, w.value, smaller_than=w.size, spacing=w.spacing),
            (Option("size", "size"),),
        ),
        Tool(
            "smooth",
            lambda w: editing.smooth(w.labels, w.value, sigma_mm=w.length, spacing=w.spacing),
            (_SIGMA,),
        ),
        Tool("grow", lambda w: editing.grow(w.labels, w.value, margin_mm=w.length, spacing=w.spacing), (_LENGTH,)),
        Tool("split", _split, clicks="points"),
        Tool("holes", _holes, (Option("way", "choice", ("closed", "slices"), volume=True),)),
        Tool("copy", _copy, (_WHICH, Option("way", "choice", ("next", "previous"))), volume=True, slices=True),
        Tool("largest", lambda w: editing.keep_largest(w.labels, w.value)),
        Tool("remove_island", lambda w: editing.change_island(w.labels, w.at), clicks="point"),
        Tool("keep_island", lambda w: editing.keep_island(w.labels, w.at), clicks="point"),
        Tool(
            "give_island", lambda w: editing.change_island(w.labels, w.at, to=w.to or _free(w)), (_TO,), clicks="point"
        ),
        Tool("shrink", lambda w: editing.shrink(w.labels, w.value, margin_mm=w.length, spacing=w.spacing), (_LENGTH,)),
        Tool("hollow", _hollow, (_LENGTH, Option("way", "choice", ("inside", "middle", "outside")))),
        Tool(
            "smooth_all",
            lambda w: editing.smooth_together(w.labels, w.values, sigma_mm=w.length, spacing=w.spacing),
            (_SIGMA,),
        ),
        Tool(
            "median",
            lambda w: editing.median(w.labels, w.value, width_mm=w.length, spacing=w.spacing),
            (Option("length", "length", steps=5.0),),
        ),
        Tool("cut", _cut, (_TO,), clicks="line", slices=True),
        Tool("merge", _merge, (Option("to", "other"),)),
        Tool("relabel", lambda w: editing.relabel(w.labels, w.value, to=w.to or _free(w)), (Option("to", "free"),)),
        Tool("combine", _combine, (Option("mask", "mask"), Option("way", "choice", ("add", "subtract", "intersect")))),
        Tool("threshold", _threshold, (Option("within", "region"), *_RANGE)),
        Tool(
            "level",
            lambda w: editing.trace_level(w.labels, w.value, w.grey, w.at, axis=w.axis),
            clicks="hover",
            slices=True,
        ),
        Tool(
            "range_brush",
            lambda w: _brush(w, image=w.grey, low=w.low, high=w.high),
            (
                _DIAMETER,
                Option("way", "choice", ("disc", "ball"), volume=True),
                *_RANGE,
            ),
            clicks="stroke",
            slices=True,
        ),
        Tool("ball_brush", _brush, (_DIAMETER, _PAINT), clicks="stroke", slices=True),
    )
}

COMMON = ("between", "islands", "smooth", "grow", "split", "holes", "copy")
MORE = {
    "brushes": ("ball_brush", "range_brush", "level", "threshold"),
    "islands": ("largest", "remove_island", "keep_island", "give_island"),
    "surface": ("shrink", "hollow", "median", "smooth_all"),
    "structures": ("cut", "merge", "relabel", "combine"),
}


@dataclass(frozen=True)
class Scale:
    """What lengths and sizes are told in for one picture, and what the tools take.

    Attributes
    ----------
    unit
        Of lengths: `"mm"`, `"µm"` or `"px"`.
    size_unit
        Of areas or volumes.
    spacing
        In mm, or 1 where the picture has no size.
    to_mm, to_size
        What a number of the unit is for a tool: in mm, and in ml or, of 2D pictures, mm².
    """

    unit: str
    size_unit: str
    spacing: tuple[float, ...]
    to_mm: float
    to_size: float
    voxel: float = field(default=1.0)

    @classmethod
    def of(cls, geometry: Geometry) -> Scale:
        """Return the scale of a picture."""
        axes = geometry.ndim
        mm = geometry.unit_mm
        if mm is None:
            return cls("px", "px", (1.0,) * axes, 1.0, 1.0 if axes == 2 else 1e-3)
        spacing = tuple(step * mm for step in geometry.spacing)
        unit = {"um": "µm"}.get(geometry.units, geometry.units)
        if axes == 3 and geometry.units == "mm":
            return cls(unit, "ml", spacing, mm, 1.0, math.prod(spacing) / 1000)
        size = mm**axes / (1 if axes == 2 else 1000)
        return cls(unit, f"{unit}{'²³'[axes - 2]}", spacing, mm, size, math.prod(geometry.spacing))

    def length(self, steps: float) -> float:
        """Return a round length of about so many voxels, in the unit."""
        return _round(steps * min(self.spacing) / self.to_mm)

    @property
    def size(self) -> float:
        """A round size of some tens of voxels, in its unit."""
        return _round(50 * self.voxel)


def _round(number: float) -> float:
    """Return the nearest of 1, 2, 3 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(number))
    return min((step * power for step in (1, 2, 3, 5, 10)), key=lambda near: abs(math.log(near / number)))
