"""How the axes of an array in a file become `(c, [z,] y, x)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_medt.core.volume import Array


@dataclass(frozen=True)
class Arrangement:
    """Which axes of a file are seen, and in which order.

    Attributes
    ----------
    order
        By axis of the result: the axis in the file, or `None` for one of length 1 that the file does not have.
    fixed
        By axis in the file that is not seen: the index along it.
    """

    order: tuple[int | None, ...]
    fixed: Mapping[int, int] = field(default_factory=dict)

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the result for an array of `shape`, or of its chunks for chunks of `shape`."""
        return tuple(1 if axis is None else int(shape[axis]) for axis in self.order)

    def apply(self, array: Any) -> Array:
        """Rearrange an array that can be indexed by numbers and slices, as NumPy's; a view where it is one."""
        return self.part(array, (slice(None),) * len(self.order))

    def part(self, array: Any, where: Sequence[int | slice]) -> Array:
        """Read a part, given by a number or a slice along each axis of the result."""
        index: dict[int, Any] = dict(self.fixed)
        index.update({axis: part for axis, part in zip(self.order, where, strict=True) if axis is not None})
        kept = [axis for axis in sorted(index) if isinstance(index[axis], slice)]
        found = np.asarray(array[tuple(index[axis] for axis in range(len(index)))])
        left = [axis for axis, part in zip(self.order, where, strict=True) if isinstance(part, slice)]
        found = found.transpose([kept.index(axis) for axis in left if axis is not None])
        return np.expand_dims(found, [place for place, axis in enumerate(left) if axis is None])
