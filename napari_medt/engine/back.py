"""From the model's grid back to the image's, part by part, holding only what the next part needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_medt.engine.grid import Line
from napari_medt.engine.windows import Box

TOGETHER = 2**25  # values that are made at once


class Back:
    """Interpolates parts of the model's grid linearly at the samples of the image.

    Parameters
    ----------
    lines
        The axes of both grids.
    box
        The part of the image that is wanted.
    """

    def __init__(self, lines: Sequence[Line], box: Box) -> None:
        self._axes = [_Axis.of(line, part) for line, part in zip(lines, box, strict=True)]
        self._row: Tensor | None = None  # the last of the part before along the second axis
        self._plane: Tensor | None = (
            None  # the last of the row of parts before, along the first, as wide as it is wanted
        )

    @torch.inference_mode()
    def add(self, where: Box, values: Tensor) -> Iterator[tuple[Box, Tensor]]:
        """Take one part of the model's grid; parameters and what it yields as of `Grid.back`."""
        first, *others = self._axes
        ready = [axis.ready(part) for axis, part in zip(self._axes, where, strict=True)]
        begin = where[0].start
        if len(others) > 1:  # otherwise rows are whole, and the last axis is not cut
            values = self._join_rows(values, where[1], ready[1])
        if not first.line.same:
            values, begin = self._join_planes(values, where[0], ready[1])
        wanted = ready[0]
        each = max(1, TOGETHER // max(1, len(values) * math.prod(part.stop - part.start for part in ready[1:])))
        for start in range(wanted.start, wanted.stop, each):
            rows = slice(start, min(start + each, wanted.stop))
            found = first.at(values, 0, rows, begin)
            for dim, (axis, part) in enumerate(zip(others[1:], ready[2:], strict=True), start=2):
                found = axis.at(found, dim, part, where[dim].start)
            if len(others) == 1:
                found = others[0].at(found, 1, ready[1], where[1].start)
            if found.numel():
                yield (rows, *ready[1:]), found

    def _join_rows(self, values: Tensor, part: slice, ready: slice) -> Tensor:
        """A part, sampled along the second axis, as far as it and the one before it reach."""
        axis = self._axes[1]
        if axis.line.same:
            return values
        begin = part.start
        if self._row is not None and not axis.is_first(part):
            values, begin = torch.cat((self._row, values), 2), begin - 1
        self._row = values[:, :, -1:].clone()
        return axis.at(values, 1, ready, begin)

    def _join_planes(self, values: Tensor, part: slice, across: slice) -> tuple[Tensor, int]:
        """A part together with the last plane of the row of parts before it, and where that begins."""
        axis, second = self._axes[0], self._axes[1] if len(self._axes) > 2 else None
        last = values[:, -1:]
        if second is None:
            before, self._plane = self._plane, last.clone()
        else:
            if self._plane is None:
                self._plane = values.new_empty((len(values), 1, second.size, *values.shape[3:]))
            held = self._plane.narrow(2, across.start - second.part.start, across.stop - across.start)
            before = None if axis.is_first(part) else held.clone()
            held.copy_(last)
        if before is None or axis.is_first(part):
            return values, part.start
        return torch.cat((before, values), 1), part.start - 1


@dataclass(frozen=True)
class _Axis:
    """One axis: which samples of the image are wanted, and between which of the model they lie."""

    line: Line
    part: slice
    before: npt.NDArray[Any]
    share: npt.NDArray[Any]

    @classmethod
    def of(cls, line: Line, part: slice) -> _Axis:
        return cls(line, part, *line.between(part))

    @property
    def size(self) -> int:
        return int(self.part.stop - self.part.start)

    def is_first(self, part: slice) -> bool:
        """Whether nothing of the model is needed before a part."""
        return bool(part.start <= self.before[0])

    def ready(self, part: slice) -> slice:
        """The samples of the image that are known with a part of the model, and were not before it."""
        if self.line.same:
            return part
        end = min(int(self.before[-1]) + 2, self.line.model)

        def known(stop: int) -> int:
            if stop >= end:
                return int(self.part.stop)
            return int(self.part.start + np.searchsorted(self.before, stop - 1))

        return slice(self.part.start if self.is_first(part) else known(part.start), known(part.stop))

    def at(self, values: Tensor, dim: int, wanted: slice, begin: int) -> Tensor:
        """Values `(k, ...)`, whose axis `dim` begins at sample `begin` of the model, at the wanted samples of the image."""
        if self.line.same:
            return values.narrow(1 + dim, wanted.start - begin, wanted.stop - wanted.start)
        here = slice(wanted.start - self.part.start, wanted.stop - self.part.start)
        low = torch.from_numpy(self.before[here] - begin).to(values.device)
        share = torch.from_numpy(self.share[here]).to(values.device, values.dtype)
        high = (low + 1).clamp_max(values.shape[1 + dim] - 1)
        shape = [1] * values.ndim
        shape[1 + dim] = len(low)
        return torch.lerp(values.index_select(1 + dim, low), values.index_select(1 + dim, high), share.view(shape))
