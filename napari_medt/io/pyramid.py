"""Coarser levels of an image or a mask, made part by part so that memory does not grow with the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

from napari_medt.core.volume import Array
from napari_medt.io.lazy import sampling_factor

_SMALL = 512  # the longest side of the coarsest level


def level_shapes(shape: Sequence[int], spacing: Sequence[float]) -> list[tuple[int, ...]]:
    """Plan a pyramid.

    Parameters
    ----------
    shape, spacing
        Of the finest level. Only the finest axes are halved, so that levels become isotropic.

    Returns
    -------
    list of tuple of int
        Shapes from the finest level on, until no side is longer than 512.
    """
    shapes, sizes = [tuple(shape)], list(spacing)
    while max(shapes[-1]) > _SMALL:
        smallest = min(size for size, count in zip(sizes, shapes[-1], strict=True) if count > 1)
        halved = [count > 1 and size < 1.5 * smallest for size, count in zip(sizes, shapes[-1], strict=True)]
        shapes.append(tuple(-(-count // 2) if half else count for count, half in zip(shapes[-1], halved, strict=True)))
        sizes = [2 * size if half else size for size, half in zip(sizes, halved, strict=True)]
    return shapes


def parts(shape: Sequence[int], step: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Cut an array of `shape` into boxes of `step`, row by row; those at the far edges are smaller."""
    starts = [range(0, size, length) for size, length in zip(shape, step, strict=True)]
    for corner in product(*starts):
        yield tuple(slice(at, min(at + length, size)) for at, length, size in zip(corner, step, shape, strict=True))


def coarser(finer: Any, shape: Sequence[int], where: Sequence[slice], *, labels: bool) -> Array:
    """Compute a part of the next level.

    Parameters
    ----------
    finer
        The level before, anything with `shape` that can be indexed by slices.
    shape
        Of the level wanted.
    where
        Which part of it.
    labels
        Take the most frequent value, the higher of two equally frequent ones, instead of the mean. Where a sample does
        not stand for a whole number of finer ones, the one nearest to its centre is taken.

    Returns
    -------
    numpy.ndarray
        The part, dtype as `finer`.
    """
    factors = [sampling_factor(size, level) for size, level in zip(finer.shape, shape, strict=True)]
    if all(factor.is_integer() for factor in factors):
        steps = [int(factor) for factor in factors]
        block = np.asarray(
            finer[tuple(slice(part.start * n, part.stop * n) for part, n in zip(where, steps, strict=True))]
        )
        if labels and not block.any():
            return np.zeros([part.stop - part.start for part in where], block.dtype)
        return _most_frequent(_samples(block, steps)) if labels else _mean(_samples(block, steps))
    picks = [
        np.minimum((np.arange(part.start, part.stop) + 0.5) * size / level, size - 1).astype(np.intp)
        for part, size, level in zip(where, finer.shape, shape, strict=True)
    ]
    block = np.asarray(finer[tuple(slice(int(pick[0]), int(pick[-1]) + 1) for pick in picks)])
    return np.asarray(block[np.ix_(*(pick - pick[0] for pick in picks))])


def _samples(block: Array, steps: Sequence[int]) -> Array:
    """Bring the values that become one to the first axis, `(k, *coarse)`; the last ones are repeated past the edge."""
    missing = [(0, -size % step) for size, step in zip(block.shape, steps, strict=True)]
    if any(after for _, after in missing):
        block = np.pad(block, missing, mode="edge")
    split = block.reshape([n for size, step in zip(block.shape, steps, strict=True) for n in (size // step, step)])
    split = split.transpose(*range(1, split.ndim, 2), *range(0, split.ndim, 2))
    return np.asarray(split.reshape(-1, *split.shape[len(steps) :]))


def _mean(samples: Array) -> Array:
    mean = samples.mean(axis=0, dtype=np.float64 if samples.dtype.itemsize > 4 else np.float32)
    if samples.dtype.kind in "ui":
        mean = np.rint(mean)
    return np.asarray(mean.astype(samples.dtype))


def _most_frequent(samples: Array) -> Array:
    """Count runs in the sorted values; few samples and many places, so places are handled all at once."""
    ordered = list(samples)
    for end in range(len(ordered) - 1, 0, -1):
        for i in range(end):
            low, high = np.minimum(ordered[i], ordered[i + 1]), np.maximum(ordered[i], ordered[i + 1])
            ordered[i], ordered[i + 1] = low, high
    best: Array = ordered[0]
    run = most = np.ones(best.shape, np.uint16)
    for before, value in pairwise(ordered):
        run = np.where(value == before, run + 1, 1).astype(np.uint16)
        longer = run >= most
        best, most = np.where(longer, value, best), np.where(longer, run, most)
    return best
