"""Two grids over one field of view: that of an image, and the one with the spacing and orientation a model wants.

Axes are first rearranged, exactly. Then each axis is sampled anew on its own, so that a tilted scan stays tilted. The middles
of both fields of view lie in the same place: where samples are `s` and `t` apart, sample `j` of `m` lies at the place of
sample `(j - (m - 1) / 2) * t / s + (n - 1) / 2` of `n`, and `m` is `n * s / t`, rounded. What lies beyond the outermost
samples is what they are.

Towards the model values are interpolated linearly. Where it is more than twice as coarse as the image, so that samples would
be passed over and fine stripes turn into coarse ones, a tent is used that is wider, `t / s - 1` to each side, and averages.
Back, probabilities are interpolated linearly, at the places of the image's samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import AxisMap, Geometry
from napari_medt.engine.planes import no_turn, turned_box, turned_shape, whole
from napari_medt.engine.windows import Box

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
SAME = 0.01  # spacings that differ by less than this share are the same


@dataclass(frozen=True)
class Line:
    """One axis of both grids.

    Attributes
    ----------
    size
        Samples of the image.
    model
        Samples of the model.
    step
        Distance between two samples of the model, in samples of the image.
    """

    size: int
    model: int
    step: float = 1.0

    @classmethod
    def of(cls, size: int, step: float) -> Line:
        """An axis of `size` samples, sampled every `step`."""
        return cls(size, size) if abs(step - 1) < SAME else cls(size, max(1, round(size / step)), step)

    @property
    def same(self) -> bool:
        """Whether both are the same."""
        return self.step == 1

    def to_image(self, index: npt.ArrayLike) -> Array:
        """Where samples of the model lie, in samples of the image."""
        return np.asarray((np.asarray(index) - (self.model - 1) / 2) * self.step + (self.size - 1) / 2)

    def to_model(self, index: npt.ArrayLike) -> Array:
        """Where samples of the image lie, in samples of the model."""
        return np.asarray((np.asarray(index) - (self.size - 1) / 2) / self.step + (self.model - 1) / 2)

    def weights(self, part: slice) -> tuple[slice, Array, Array]:
        """What a part of the model's samples is made of.

        Returns
        -------
        tuple
            The samples of the image that are needed; `(n, k)` which of these, and `(n, k)` float32 their weights.
        """
        place = np.clip(self.to_image(np.arange(part.start, part.stop)), 0, self.size - 1)
        reach = max(1.0, self.step - 1)
        index = np.floor(place - reach).astype(int)[:, None] + np.arange(1, int(np.ceil(2 * reach)) + 1)
        weights = np.maximum(0, 1 - np.abs(index - place[:, None]) / reach)
        weights[(index < 0) | (index >= self.size)] = 0
        weights /= weights.sum(1, keepdims=True)
        low, high = int(index[weights > 0].min()), int(index[weights > 0].max())
        return slice(low, high + 1), np.clip(index - low, 0, high - low), weights.astype(np.float32)

    def between(self, part: slice) -> tuple[Array, Array]:
        """For a part of the image's samples, the sample of the model before each, and the share of the one after it."""
        place = np.clip(self.to_model(np.arange(part.start, part.stop)), 0, self.model - 1)
        before = np.floor(place).astype(int)
        return before, (place - before).astype(np.float32)

    def model_part(self, part: slice) -> slice:
        """The samples of the model that are needed to answer for a part of the image's."""
        if self.same:
            return part
        before, _ = self.between(part)
        return slice(int(before[0]), min(int(before[-1]) + 2, self.model))


@dataclass(frozen=True)
class Grid:
    """How the grid of an image and that of a model lie in one another.

    Attributes
    ----------
    axes
        From the axes of the image to those of the model.
    lines
        The axes of the model.
    """

    axes: AxisMap
    lines: tuple[Line, ...]

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        shape: Sequence[int],
        *,
        axes: AxisMap | None = None,
        spacing: Sequence[float] | None = None,
    ) -> Grid:
        """The grid for an image.

        Parameters
        ----------
        geometry, shape
            Of the image.
        axes
            How its axes are rearranged; by default not at all.
        spacing
            That the model wants along its axes, in mm, of the last axes if it has fewer; by default as it comes, and so where
            the image does not say its own.
        """
        axes = axes or no_turn(len(shape))
        sizes, steps = turned_shape(axes, shape), [1.0] * len(shape)
        if spacing is not None and (mm := geometry.unit_mm):
            there = [geometry.spacing[old] * mm for old in axes.order]
            for axis, wanted in enumerate(spacing, start=len(steps) - len(spacing)):
                steps[axis] = wanted / there[axis]
        return cls(axes, tuple(Line.of(size, step) for size, step in zip(sizes, steps, strict=True)))

    @property
    def identity(self) -> bool:
        """Whether nothing is sampled anew; axes may be rearranged."""
        return all(line.same for line in self.lines)

    @property
    def shape_turned(self) -> tuple[int, ...]:
        """Shape of the image, its axes rearranged."""
        return tuple(line.size for line in self.lines)

    @property
    def shape_model(self) -> tuple[int, ...]:
        """Shape of the model's grid."""
        return tuple(line.model for line in self.lines)

    @property
    def shape_image(self) -> tuple[int, ...]:
        """Shape of the image."""
        return turned_shape(self.axes.inverse, self.shape_turned)

    def geometry(self, image: Geometry) -> Geometry:
        """Geometry of the model's grid, from that of the image."""
        start = [float(line.to_image(0)) for line in self.lines]
        return image.rearranged(self.axes, self.shape_image).part(start, step=[line.step for line in self.lines])

    def turned(self, box: Box) -> Box:
        """A box of the image, its axes rearranged."""
        return turned_box(self.axes, box, self.shape_image)

    def model_box(self, box: Box) -> Box:
        """The samples of the model that are needed to answer for a box of the rearranged image."""
        return tuple(line.model_part(part) for line, part in zip(self.lines, box, strict=True))

    def labels(self, labels: Array) -> Array:
        """A mask `(*spatial)` of the image on the model's grid: each sample takes the nearest label."""
        found: Array = self.axes.apply(labels)
        for axis, line in enumerate(self.lines):
            if not line.same:
                nearest = np.clip(np.round(line.to_image(np.arange(line.model))), 0, line.size - 1).astype(int)
                found = found.take(nearest, axis=axis)
        return found

    def back(self, parts: Iterable[tuple[Box, Tensor]], *, box: Box | None = None) -> Iterator[tuple[Box, Tensor]]:
        """Take what a network found back to the image, part by part.

        Only what the next part needs is held: a plane and a row of samples.

        Parameters
        ----------
        parts
            Boxes of the model's grid with values `(k, *part)`, which together are `model_box(box)`: row by row along the first
            axis, within a row ascending along the second, whole along the others. Nothing but the part just given is looked
            at, so its memory may be used for the next.
        box
            The part of the rearranged image that is wanted; by default all of it.

        Yields
        ------
        tuple
            A box of the rearranged image, and its values `(k, *part)`, valid until the next is asked for; together they are
            `box`. If the grids are the same, these are the parts as they were given.
        """
        if self.identity:
            yield from parts
            return
        from napari_medt.engine.back import Back

        back = Back(self.lines, box or whole(self.shape_turned))
        for where, values in parts:
            yield from back.add(where, values)


def resample(array: Floats, axis: int, index: Array, weights: Array) -> Floats:
    """Sums of samples along one axis: `index` and `weights` `(n, k)` as of `Line.weights`."""
    shape = [1] * array.ndim
    shape[axis] = len(index)
    found: Floats = array.take(index[:, 0], axis=axis)
    found *= weights[:, 0].reshape(shape)
    for k in range(1, index.shape[1]):
        more = array.take(index[:, k], axis=axis)
        more *= weights[:, k].reshape(shape)
        found += more
    return found
