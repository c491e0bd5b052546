"""Segmenting a box of a prepared image: the work itself, the same for a whole image and for a block of a huge one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_medt.core import Cancel, Progress, silent
from napari_medt.engine.ladder import Effort
from napari_medt.engine.planes import is_empty
from napari_medt.engine.prepare import Prepared
from napari_medt.engine.results import SEVERAL, Wanted
from napari_medt.engine.stitch import Found, Stitch
from napari_medt.engine.testtime import Passes
from napari_medt.engine.windows import Blending, Box, Floats, Layout, pad_to_window, pad_with_zeros

if TYPE_CHECKING:
    from napari_medt.zoo.model import Model

TELLING = 3.0  # seconds of work before the time left is told
Index = tuple[int, ...]
Job = tuple[Index, Box]


@dataclass(frozen=True)
class Settings:
    """What the result depends on beside model and image.

    Attributes
    ----------
    overlap
        As in `plan_windows`.
    flips
        Whether the mean over mirror images is taken.
    blending
        As in `blend_weights`; with `"monai"` volumes smaller than a window also lie in zeros, not in their mirror image.
    wanted
        Beside the labels.
    """

    overlap: float | None = None
    flips: bool = False
    blending: Blending = "smooth"
    wanted: Wanted = field(default_factory=Wanted)

    def passes(self, model: Model, device: torch.device) -> Passes:
        """How windows go through the network."""
        kind = self.wanted.uncertainty
        return Passes(model, device, self.flips or kind == "flips", kind == "dropout", kind in SEVERAL)

    def layout(self, shape: tuple[int, ...], window: tuple[int, ...]) -> Layout:
        """Windows over an image, or over each of its slices if the window has one axis less."""
        plane = shape[-len(window) :]
        return Layout.of(plane, window, overlap=self.overlap, centred=self.blending == "monai")


def segment_block(
    model: Model,
    prepared: Prepared,
    box: Box,
    *,
    effort: Effort,
    settings: Settings,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> Iterator[Found]:
    """Class probabilities of a box of an image, part by part, on the image's own grid.

    Windows lie as they do for the whole image, and all that the box depends on are used: boxes that are segmented apart, in
    any order, together are what the whole image would be.

    Parameters
    ----------
    model
        Its network must lie on the device of `effort`, in evaluation mode.
    prepared
        The image.
    box
        Slices with explicit ends for every axis of the image, rearranged by `prepared.grid.axes`; nothing comes of an empty one.
    effort, settings
        How, and what.
    progress, cancel
        Told about, and looked at before, every batch of windows.

    Returns
    -------
    iterator of tuple
        A part of the box, and `(channels, *part)` as `Results.keep` takes it, valid until the next is asked for. Parts do not
        overlap, come in rows along the first axis, and together are the box.

    Raises
    ------
    Cancelled
        If `cancel` was set.
    """
    if is_empty(box):
        return iter(())
    found = _blended(model, prepared, prepared.grid.model_box(box), effort, settings, progress, cancel)
    return prepared.grid.back(found, box=box)


def _blended(
    model: Model,
    prepared: Prepared,
    box: Box,
    effort: Effort,
    settings: Settings,
    progress: Progress,
    cancel: Cancel | None,
) -> Iterator[Found]:
    """The same for a box of the model's grid, on that grid."""
    shape, dims = prepared.spatial_shape, len(effort.window)
    # A 2D model on a scan: every slice is an image of its own. Otherwise there is one, the whole.
    slices = list(product(*(range(part.start, part.stop) for part in box[:-dims])))
    layout = settings.layout(shape, effort.window).touching(box[-dims:])
    passes = settings.passes(model, effort.device)
    stitch = Stitch(passes.channels, layout, box[-dims:], blending=settings.blending, device=effort.stitch_device)
    clock = _Clock(len(slices) * len(layout), progress)
    batches = _batches(product(slices, layout), effort.batch)
    chunk = next(batches)
    inputs = load(prepared, chunk, effort, settings.blending)
    while chunk:
        if cancel is not None:
            cancel.check()
        clock.tell()
        found = passes(inputs, positions(chunk, effort, shape[-dims:]), [where_of(*job) for job in chunk])
        # A GPU is still at work when it says it is done, so the next windows are made ready meanwhile.
        following = next(batches, [])
        if following:
            inputs = load(prepared, following, effort, settings.blending)
        for (index, where), values in zip(chunk, found.to(effort.stitch_device), strict=True):
            if finished := stitch.add(where, values):
                part, blended = finished
                spread = blended.reshape(blended.shape[0], *(1 for _ in index), *blended.shape[1:])
                yield (*(slice(i, i + 1) for i in index), *part), spread
        clock.done += len(chunk)
        chunk = following
    clock.tell("Segmented")


class _Clock:
    """Says how many windows are done, and when it knows, how long the others will take."""

    def __init__(self, total: int, report: Progress) -> None:
        self.done, self._total, self._report = 0, total, report
        self._began = time.monotonic()

    def tell(self, message: str = "") -> None:
        passed = time.monotonic() - self._began
        if not message:
            message = f"Segmenting, {self.done} of {self._total} windows are done"
            if self.done and passed > TELLING:
                message += f", {in_words(passed / self.done * (self._total - self.done))} left"
        self._report(self.done, self._total, message)


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def where_of(index: Index, where: Box) -> Index:
    """The corner of a window in its scan."""
    return (*index, *(part.start for part in where))


def _batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    remaining = iter(jobs)
    while chunk := list(islice(remaining, size)):
        yield chunk


def load(prepared: Prepared, chunk: list[Job], effort: Effort, blending: Blending) -> torch.Tensor:
    """Windows `(n, c, *window)` on the device; to CUDA they travel while it computes."""
    windows = torch.from_numpy(np.stack([cut(prepared, *job, effort.window, blending=blending) for job in chunk]))
    if effort.device.type == "cuda":
        return windows.pin_memory().to(effort.device, non_blocking=True)
    return windows.to(effort.device)


def cut(prepared: Prepared, index: Index, where: Box, window: tuple[int, ...], *, blending: Blending) -> Floats:
    """One window `(c, *window)` of one slice, padded where the image is smaller."""
    sizes = prepared.spatial_shape[-len(window) :]
    inside = (slice(max(part.start, 0), min(part.stop, size)) for part, size in zip(where, sizes, strict=True))
    part = prepared.window((*(slice(i, i + 1) for i in index), *inside))
    part = part.reshape(part.shape[0], *part.shape[1 + len(index) :])
    return pad_with_zeros(part, window) if blending == "monai" else pad_to_window(part, window)


def positions(chunk: list[Job], effort: Effort, shape: tuple[int, ...]) -> torch.Tensor:
    """Centre of each window minus centre of the volume in voxels, `(n, dims)` float32."""
    corners = torch.tensor([[part.start for part in where] for _, where in chunk], dtype=torch.float32)
    return (corners + torch.tensor(effort.window) / 2 - torch.tensor(shape) / 2).to(effort.device)
