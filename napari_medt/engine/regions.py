"""Where a model was unsure, as a list of regions, the most doubtful first, to be gone through one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from napari_medt.core import Geometry

Array = npt.NDArray[Any]
SLAB = 8_000_000  # samples that are looked at together
FAINT = 0.02  # uncertainty that never counts


@dataclass(frozen=True)
class Region:
    """A connected region in which a model was unsure.

    Attributes
    ----------
    rank
        1 for the most doubtful.
    centre
        Array index of its middle; of its most uncertain sample, where the middle is not a part of the region.
    centre_mm
        The same in the world, in mm; `None` where lengths are not known.
    voxels
        How many samples it has.
    volume_ml
        Its volume; `None` for 2D images, and where lengths are not known.
    mean
        Mean uncertainty, in [0, 1].
    score
        Uncertainty times volume, by which regions are ranked: the sum of uncertainty over all samples.
    label
        The label that most of it has, where labels were given.
    """

    rank: int
    centre: tuple[int, ...]
    centre_mm: tuple[float, ...] | None
    voxels: int
    volume_ml: float | None
    mean: float
    score: float
    label: int | None = None


def doubtful_regions(
    uncertainty: Array, geometry: Geometry, *, labels: Array | None = None, at_most: int = 20
) -> list[Region]:
    """Connected regions of an image in which a model was unsure, ranked by uncertainty times volume.

    A sample is doubtful where its uncertainty is more than half of the largest in the image, since that differs with the kind
    of uncertainty and the number of classes. Samples that touch, be it at a corner, are of one region. The image is looked at
    in slabs, so that beside it little is held.

    Parameters
    ----------
    uncertainty
        `(*spatial)` in [0, 1], possibly lazily loaded.
    geometry
        Of its axes.
    labels
        `(*spatial)`, to tell which label a region has.
    at_most
        How many regions are listed.
    """
    highest = max(float(np.max(slab, initial=0, where=slab == slab)) for _, slab in _slabs(uncertainty))
    if not highest > FAINT:
        return []
    limit = max(FAINT, highest / 2)
    parts = _Parts(uncertainty.ndim)
    for first, slab in _slabs(uncertainty):
        parts.add(first, slab, slab > limit, None if labels is None else np.asarray(labels[first : first + len(slab)]))
    regions = []
    for rank, (found, label) in enumerate(parts.best(at_most), start=1):
        middle = tuple(int(m) for m in np.round(found.moment / found.total))
        # Middles of shells and of bent regions may lie beside them.
        centre = middle if float(np.asarray(uncertainty[middle])) > limit else found.peak_at
        regions.append(_region(rank, found, centre, label, geometry))
    return regions


def _region(rank: int, found: _Part, centre: tuple[int, ...], label: int | None, geometry: Geometry) -> Region:
    mm = geometry.unit_mm
    volume = None
    if mm and geometry.ndim == 3:
        volume = found.voxels * abs(float(np.linalg.det(geometry.affine[:-1, :-1]))) * mm**3 / 1000
    place = tuple(float(at) * mm for at in geometry.position(centre)) if mm else None
    return Region(rank, centre, place, found.voxels, volume, found.total / found.voxels, found.total, label)


def _slabs(array: Array) -> Iterator[tuple[int, Array]]:
    """The rows of an array in slabs, with the first row of each."""
    step = max(1, SLAB // max(1, math.prod(array.shape[1:])))
    for first in range(0, array.shape[0], step):
        yield first, np.asarray(array[first : first + step]).astype(np.float32)  # halves are slow to compare


@dataclass(frozen=True)
class _Part:
    """Sums over the samples of a region: their number, uncertainty, and uncertainty times place; and where it is highest."""

    voxels: int
    total: float
    moment: Array
    peak_at: tuple[int, ...]


class _Parts:
    """Collects the parts of regions slab by slab, and which of them touch."""

    def __init__(self, ndim: int) -> None:
        self._touching = np.ones((3,) * ndim, dtype=bool)
        self._voxels: list[Array] = []
        self._sums: list[Array] = []  # (parts, 1 + ndim) of uncertainty, and of uncertainty times place
        self._peaks: list[Array] = []  # (parts, 1 + ndim) of the highest uncertainty, and its place
        self._pairs: list[Array] = []
        self._names: list[tuple[Array, Array]] = []  # part and label, and how many samples have both
        self._count = 0
        self._last: Array | None = None

    def add(self, first: int, slab: Array, doubtful: Array, labels: Array | None) -> None:
        """Take one slab, which begins at row `first`."""
        numbers, count = ndimage.label(doubtful, self._touching)
        if self._last is not None:
            self._pairs += self._touch(self._last, self._named(numbers[0]))
        self._last = self._named(numbers[-1])
        where = np.nonzero(numbers)
        number, values = numbers[where] - 1, slab[where].astype(np.float64)
        places = np.stack((where[0] + first, *where[1:]), -1)
        highest, peaks = np.zeros(count), np.zeros(count, dtype=np.intp)
        np.maximum.at(highest, number, values)
        at_peak = np.flatnonzero(values == highest[number])[::-1]
        peaks[number[at_peak]] = at_peak
        sums = [np.bincount(number, values * place, minlength=count) for place in (1, *places.T)]
        self._voxels.append(np.bincount(number, minlength=count))
        self._sums.append(np.stack(sums, -1))
        self._peaks.append(np.column_stack((values[peaks], places[peaks])))
        if labels is not None:
            pairs = np.column_stack((number + self._count, labels[where].astype(np.int64)))
            self._names.append(np.unique(pairs, axis=0, return_counts=True))
        self._count += count

    def best(self, at_most: int) -> Iterator[tuple[_Part, int | None]]:
        """Whole regions with the label most of each has, the greatest sum of uncertainty first."""
        if not self._count:
            return
        pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *self._pairs])
        graph = sparse.coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(self._count, self._count))
        count, region = csgraph.connected_components(graph, directed=False)
        sums, peaks = np.concatenate(self._sums), np.concatenate(self._peaks)
        voxels = np.bincount(region, np.concatenate(self._voxels), minlength=count)
        sums = np.stack([np.bincount(region, column, minlength=count) for column in sums.T], -1)
        for number in np.argsort(-sums[:, 0], kind="stable")[:at_most]:
            mine = region == number
            peak = peaks[mine][np.argmax(peaks[mine, 0])]
            part = _Part(
                int(voxels[number]), float(sums[number, 0]), sums[number, 1:], tuple(int(at) for at in peak[1:])
            )
            yield part, self._label(np.flatnonzero(mine))

    def _label(self, parts: Array) -> int | None:
        """The label that most samples of some parts have."""
        votes: dict[int, int] = {}
        for pairs, counts in self._names:
            mine = np.isin(pairs[:, 0], parts)
            for label, votes_here in zip(pairs[mine, 1].tolist(), counts[mine].tolist(), strict=True):
                votes[label] = votes.get(label, 0) + votes_here
        return max(votes, key=lambda label: (votes[label], -label)) if votes else None

    def _named(self, numbers: Array) -> Array:
        """Numbers of parts in one slab as numbers of all parts, from 0; -1 where there is none."""
        return np.where(numbers > 0, numbers.astype(np.int64) + (self._count - 1), -1)

    @staticmethod
    def _touch(before: Array, here: Array) -> Iterator[Array]:
        """Pairs of parts in two neighbouring rows that touch."""
        padded = np.pad(before, 1, constant_values=-1)
        for shift in np.ndindex(*(3,) * here.ndim):
            other = padded[tuple(slice(s, s + size) for s, size in zip(shift, here.shape, strict=True))]
            both = (other >= 0) & (here >= 0)
            if both.any():
                yield np.unique(np.column_stack((other[both], here[both])), axis=0)
