"""Blending overlapping windows without ever holding the whole image for every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_medt.engine.windows import Blending, Box, Layout, blend_shares, blend_weights

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

    Windows are summed up in a line along the last axis. When it is full, what the next line will speak of moves to its start,
    and of the rest, what the next row of windows will speak of is put aside, to be added when that comes. So for every class
    only a line and the overlap of two rows of windows are held, not the image.

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
            {start: torch.from_numpy(share).to(device) for start, share in shares.items()}
            for shares in blend_shares(layout)
        ]
        self._weights: Tensor | None = None
        if blending == "monai":
            self._weights = torch.from_numpy(blend_weights(layout.window, blending=blending)).to(device)
            channels += 1
        sizes = [part.stop - part.start for part in box]
        longest = [max(step.stop - step.start for step in steps.values()) for steps in self._steps[:-1]]
        self._last = layout.starts[-1][-1]
        self._line = torch.empty((channels, *longest, sizes[-1]), device=device)
        self._full: _Step | None = None  # the last step of lines, until another is begun
        self._fresh = True
        self._aside: Tensor | None = None
        if len(sizes) > 2:
            most = max(step.left for step in self._steps[0].values())
            self._aside = torch.empty((channels, most, *sizes[1:]), device=device)

    @property
    def nbytes(self) -> int:
        """Memory that is held between windows."""
        return self._line.nbytes + (0 if self._aside is None else self._aside.nbytes)

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
        room = self._line[(slice(None), *(slice(0, p.stop - p.start) for p in part[:-2]))]
        if self._fresh:
            self._begin(room, steps[-1])
        line = room.narrow(-2, 0, steps[-1].stop - steps[-1].start)
        self._sum_up(line, part, where, values)
        if where[0].start != self._bands[where[0].start][-1] or where[-1].start != self._last:
            return None
        self._full, self._fresh = steps[-1], True
        piece = line.narrow(-2, 0, steps[-1].final - steps[-1].start)
        part[-2] = slice(steps[-1].start, steps[-1].final)
        if self._aside is not None:
            piece = self._add_aside(piece, steps[0], part[1])
            part[0] = slice(steps[0].start, steps[0].final)
        if not piece.numel():
            return None
        return tuple(part), piece if self._weights is None else piece[:-1] / piece[-1]

    def _begin(self, room: Tensor, step: _Step) -> None:
        """Move what the line before left to the start of the line, and empty the rest."""
        if step.earlier and self._full is not None:
            by = self._full.final - self._full.start
            for row in range(0, step.earlier, by) if by else ():
                count = min(by, step.earlier - row)  # so that what is written is never what is still to be read
                room.narrow(-2, row, count).copy_(room.narrow(-2, row + by, count))
        room.narrow(-2, step.earlier, room.shape[-2] - step.earlier).zero_()
        self._fresh = False

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

    def _add_aside(self, piece: Tensor, step: _Step, across: slice) -> Tensor:
        """Add what the row of windows before put aside, put aside what is for the next; the finished rest."""
        assert self._aside is not None
        first = across.start - self._box[1].start
        aside = self._aside.narrow(2, first, across.stop - across.start)
        finished = step.final - step.start
        if step.earlier:
            piece.narrow(1, 0, step.earlier).add_(aside.narrow(1, 0, step.earlier))
        if step.left:
            aside.narrow(1, 0, step.left).copy_(piece.narrow(1, finished, step.left))
        return piece.narrow(1, 0, finished)


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
