"""`AxisMap`: an exact rearrangement of the axes of an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class AxisMap:
    """An exact rearrangement of spatial axes: transposed, then flipped.

    Attributes
    ----------
    order
        `order[i]` is the old axis that becomes axis `i`.
    flips
        Whether new axis `i` runs the other way than the old one did.
    """

    order: tuple[int, ...]
    flips: tuple[bool, ...]

    def apply(self, array: Any) -> Any:
        """Rearrange the last axes of an array `(..., *spatial)`; a view, also of a lazily loaded array that can be one."""
        extra = array.ndim - len(self.order)
        turned = array.transpose((*range(extra), *(extra + axis for axis in self.order)))
        return turned[(..., *(slice(None, None, -1 if flip else None) for flip in self.flips))]

    @property
    def inverse(self) -> AxisMap:
        """What takes the rearrangement back."""
        order = tuple(int(i) for i in np.argsort(self.order))
        return AxisMap(order, tuple(self.flips[i] for i in order))

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return self.order == tuple(range(len(self.order))) and not any(self.flips)
