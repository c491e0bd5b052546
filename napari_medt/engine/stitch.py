"""Blending overlapping windows without ever holding the whole image for every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_medt.engine.windows import Blending, Box, Layout, blend_profiles, blend_weights

Found = tuple[Box, Tensor]


@dataclass(frozen=True)
class _Step:
    """What windows of one start say along an axis: from `start` to `stop`, and for the last time up to `final`."""

    start: int
    stop: int
    final: int
    earlier: int  # samples at its start that earlier windows have spoken of

    @property
    def left(self) -> int:
        """Samples at its end that later windows will speak of."""
        return self.stop - self.final


class Stitch:
    """Blends windows that come in the order of their layout, and hands out what no later window reaches.

    A line of windows along the last axis is summed up. Then, axis by axis towards the first, what earlier lines left behind is
    added to it, and what later ones will speak of is left behind. So for every class only the overlap of two rows of windows
    is held, and one line, not the image.

    Parameters
    ----------
    channels
        Of the values.
    layout
        Of the windows, all of which touch the box and together cover it.
    box
        The part of the array that is wanted.
    blending
        As in `blend_weights`.
    device
        Where the values are, and the memory for them.
    """

    def __init__(
        self,
        channels: int,
        layout: Layout,
        box: Box,
        *,
        blending: Blending = "smooth",
        device: torch.device | str = "cpu",
    ) -> None:
        self._box = box
        self._bands = {start: band for band in layout.bands for start in band}
        groups = [layout.bands, *([(start,) for start in starts] for starts in layout.starts[1:])]
        self._steps = [_steps(*axis) for axis in zip(groups, layout.window, box, strict=True)]
        # Gaussians are products, so the weights of all windows can be divided by their sum beforehand, axis by axis. Those
        # of MONAI are not; their sum goes along as one channel more.
        self._shares = [
            {start: torch.from_numpy(share).to(device) for start, share in shares.items()} for shares in _shares(layout)
        ]
        self._weights: Tensor | None = None
        if blending == "monai":
            self._weights = torch.from_numpy(blend_weights(layout.window, blending=blending)).to(device)
            channels += 1
        sizes = [part.stop - part.start for part in box]
        longest = [max(step.stop - step.start for step in steps.values()) for steps in self._steps[:-1]]
        self._last = layout.starts[-1][-1]
        self._line, self._fresh = torch.empty((channels, *longest, sizes[-1]), device=device), True
        self._left = []
        for axis, steps in enumerate(self._steps[:-1]):
            most = max(step.left for step in steps.values())
            self._left.append(torch.empty((channels, *longest[:axis], most, *sizes[axis + 1 :]), device=device))

    @property
    def nbytes(self) -> int:
        """Memory that is held between windows."""
        return self._line.nbytes + sum(left.nbytes for left in self._left)

    @torch.inference_mode()
    def add(self, where: Box, values: Tensor) -> Found | None:
        """Add one window.

        Parameters
        ----------
        where
            As the layout gives it.
        values
            `(channels, *window)`.

        Returns
        -------
        tuple or None
            The part of the array that is finished by this window, and its values `(channels, *part)`, which are only valid
            until the next call.
        """
        steps = [steps[w.start] for steps, w in zip(self._steps[:-1], where[:-1], strict=True)]
        part = [slice(step.start, step.stop) for step in steps] + [self._box[-1]]
        line = self._line[(slice(None), *(slice(0, p.stop - p.start) for p in part))]
        if self._fresh:
            line.zero_()
            self._fresh = False
        self._sum_up(line, part, where, values)
        if where[0].start != self._bands[where[0].start][-1] or where[-1].start != self._last:
            return None
        piece = line
        for axis in reversed(range(len(steps))):
            piece = self._pass_on(axis, steps[axis], part, piece)
            part[axis] = slice(steps[axis].start, steps[axis].final)
        self._fresh = True
        if not piece.numel():
            return None
        return tuple(part), piece if self._weights is None else piece[:-1] / piece[-1]

    def _sum_up(self, line: Tensor, part: Sequence[slice], where: Box, values: Tensor) -> None:
        """Add a window, weighted, to its line, as far as it is wanted."""
        inside = [slice(max(w.start, b.start), min(w.stop, b.stop)) for w, b in zip(where, self._box, strict=True)]
        local = tuple(slice(i.start - w.start, i.stop - w.start) for i, w in zip(inside, where, strict=True))
        here = line[
            (slice(None), *(slice(i.start - p.start, i.stop - p.start) for i, p in zip(inside, part, strict=True)))
        ]
        values = values[(slice(None), *local)]
        if self._weights is None:
            weights = torch.ones((), device=line.device)
            for shares, w, within in zip(self._shares, where, local, strict=True):
                weights = weights[..., None] * shares[w.start][within]
            here.addcmul_(values, weights)
        else:
            weights = self._weights[local]
            here[:-1].addcmul_(values, weights)
            here[-1] += weights

    def _pass_on(self, axis: int, step: _Step, part: Sequence[slice], piece: Tensor) -> Tensor:
        """Take up along one axis what was left behind, leave behind what is not finished; the finished rest."""
        within = (slice(0, size) for size in piece.shape[1 : 1 + axis])
        beyond = (
            slice(p.start - b.start, p.stop - b.start)
            for p, b in zip(part[axis + 1 :], self._box[axis + 1 :], strict=True)
        )
        left = self._left[axis][(slice(None), *within, slice(None), *beyond)]
        dim, finished = axis + 1, step.final - step.start
        if step.earlier:
            piece.narrow(dim, 0, step.earlier).add_(left.narrow(dim, 0, step.earlier))
        if step.left:
            left.narrow(dim, 0, step.left).copy_(piece.narrow(dim, finished, step.left))
        return piece.narrow(dim, 0, finished)


def _steps(groups: Sequence[Sequence[int]], edge: int, wanted: slice) -> dict[int, _Step]:
    """The steps along an axis by start of a window; those of one group make one step together."""
    starts = [max(group[0], wanted.start) for group in groups]
    steps: dict[int, _Step] = {}
    earlier = 0
    for group, start, final in zip(groups, starts, [*starts[1:], wanted.stop], strict=True):
        step = _Step(start, min(group[-1] + edge, wanted.stop), final, earlier)
        steps.update(dict.fromkeys(group, step))
        earlier = step.left
    return steps


def _shares(layout: Layout) -> list[dict[int, np.ndarray[tuple[int], np.dtype[np.float32]]]]:
    """Weights along each axis by start of a window, divided by the sum over all windows."""
    found = []
    for starts, edge, profile in zip(layout.starts, layout.window, blend_profiles(layout.window), strict=True):
        total = np.zeros(starts[-1] - starts[0] + edge, dtype=np.float32)
        for start in starts:
            total[start - starts[0] :][:edge] += profile
        found.append({start: profile / total[start - starts[0] :][:edge] for start in starts})
    return found
