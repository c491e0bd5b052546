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

TOGETHER = 2**23  # values that are made at once


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
        self._row: Tensor | None = None  # of the part before, the last along the second axis
        self._plane: Tensor | None = None  # of the row of parts before, the last along the first, sampled on the second

    @torch.inference_mode()
    def add(self, where: Box, values: Tensor) -> Iterator[tuple[Box, Tensor]]:
        """Take one part of the model's grid; parameters and what it yields as of `Grid.back`."""
        first, second, *others = self._axes
        ready = [axis.ready(part) for axis, part in zip(self._axes, where, strict=True)]
        begin, wanted = where[0].start, ready[0]
        values, row = self._after_row(values, where[1])
        plane = self._swap_plane(second.at(values[:, -1:], 1, ready[1], row), where[0], ready[1])
        each = max(1, TOGETHER // max(1, len(values) * math.prod(part.stop - part.start for part in ready[1:])))
        for start in range(wanted.start, wanted.stop, each):
            rows = slice(start, min(start + each, wanted.stop))
            needed = first.needed(rows)
            inside = max(needed.start, begin)
            found = values.narrow(1, inside - begin, max(0, needed.stop - inside))
            found = second.at(found, 1, ready[1], row)
            if plane is not None and needed.start < begin:
                found = torch.cat((plane, found), 1)
            found = first.at(found, 0, rows, needed.start)
            for dim, (axis, part) in enumerate(zip(others, ready[2:], strict=True), start=2):
                found = axis.at(found, dim, part, where[dim].start)
            if found.numel():
                yield (rows, *ready[1:]), found

    def _after_row(self, values: Tensor, part: slice) -> tuple[Tensor, int]:
        """A part with the last row of the one before it along the second axis, and where that begins."""
        axis, before = self._axes[1], self._row
        if axis.line.same:
            return values, part.start
        self._row = values[:, :, -1:].clone()
        if before is None or axis.is_first(part):
            return values, part.start
        return torch.cat((before, values), 2), part.start - 1

    def _swap_plane(self, last: Tensor, part: slice, across: slice) -> Tensor | None:
        """Hold the last plane of a part, and give that of the row of parts before, if there is one."""
        first, second = self._axes[:2]
        if first.line.same:
            return None
        if self._plane is None:
            self._plane = last.new_empty((len(last), 1, second.size, *last.shape[3:]))
        held = self._plane.narrow(2, across.start - second.part.start, across.stop - across.start)
        before = None if first.is_first(part) else held.clone()
        held.copy_(last)
        return before


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

    def needed(self, wanted: slice) -> slice:
        """The samples of the model between which the wanted ones of the image lie."""
        if self.line.same:
            return wanted
        before = self.before[wanted.start - self.part.start : wanted.stop - self.part.start]
        return slice(int(before[0]), min(int(before[-1]) + 2, self.line.model))

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
        return values.index_select(1 + dim, low).lerp_(values.index_select(1 + dim, high), share.view(shape))
