"""An image as the windows of a model: where they lie, what passes through the network, and where their cells are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_medt.attention.sources import Source, condensed, list_sources
from napari_medt.core import BadImage, BadModel, Volume
from napari_medt.engine.blocks import Job, Settings, cut, load, positions
from napari_medt.engine.planes import Plane
from napari_medt.engine.prepare import Scale
from napari_medt.engine.running import set_up
from napari_medt.engine.windows import Floats, blend_shares
from napari_medt.nets.capture import capture
from napari_medt.nets.fine import VolumeCells
from napari_medt.nets.layers import per_axis
from napari_medt.nets.states import State
from napari_medt.zoo.model import Model

Points = npt.NDArray[np.float64]


class Scene:
    """One image under one model, laid out in the very windows of a prediction.

    Parameters
    ----------
    model, image
        As for `predict`, a scan for a 2D model too.
    overlap, plane
        As for `predict`.
    scale
        Of the intensities of the scan, if the image is a slice of one.

    Attributes
    ----------
    sources
        By name.
    body
        The part of the image, its axes rearranged by `grid.axes`, that is looked at: all of it, or the box around the body
        where the model is so made.
    box
        The same of the model's grid.
    layout, shares
        Of the windows over the last axes of the grid, and what each adds to each sample along them.
    """

    def __init__(
        self,
        model: Model,
        image: Volume | npt.ArrayLike,
        *,
        overlap: float | None = None,
        scale: Scale | None = None,
        plane: Plane | None = None,
    ) -> None:
        self.sources = {source.name: source for source in list_sources(model.net)}
        if not self.sources:
            raise BadModel(f"{model.card.title} shows no attention", remedy="choose one of the attention models")
        task = set_up(model, image, overlap=overlap, plane=plane)
        self.model, self.volume = model, task.volume
        self.prepared = task.prepared if scale is None else replace(task.prepared, scale=scale)
        self.grid, self.geometry = self.prepared.grid, self.prepared.geometry
        self.window, self.dims = model.card.window, len(model.card.window)
        self.effort = task.effort
        self.body = task.box
        self.box = self.grid.model_box(task.box)
        shape = self.prepared.spatial_shape
        self.shape: tuple[int, ...] = shape
        self.layout = Settings(overlap).layout(shape, self.window).touching(self.box[-self.dims :])
        self.shares = blend_shares(self.layout)
        net: Any = model.net
        multiple = per_axis(net.multiple, self.dims)
        self.padded = tuple(-(-edge // m) * m for edge, m in zip(self.window, multiple, strict=True))
        self.cells: VolumeCells | None = getattr(net, "cells", None)

    def source(self, name: str) -> Source:
        """A source by its name.

        Raises
        ------
        BadModel
            If the model has none of this name.
        """
        if name not in self.sources:
            raise BadModel(
                f"{self.model.card.title} has no attention called {name!r}",
                remedy="choose one of " + ", ".join(self.sources),
            )
        return self.sources[name]

    def check_head(self, source: Source, head: int | None) -> None:
        """Refuse a head that a source does not have.

        Raises
        ------
        BadModel
            Saying which there are.
        """
        if head is not None and not 0 <= head < source.heads:
            raise BadModel(
                f"{source.name} has no head {head}",
                remedy=f"choose 0 to {source.heads - 1}, or none for the mean of all heads",
            )

    # ------------------------------------------------------------------------------------------------------- windows

    def jobs(self) -> Iterator[Job]:
        """All windows, in the order in which a prediction passes them through the network; of a 2D model, slice by slice."""
        slices = product(*(range(part.start, part.stop) for part in self.box[: -self.dims]))
        return product(slices, self.layout)

    def __len__(self) -> int:
        return len(self.layout) * math.prod(int(part.stop - part.start) for part in self.box[: -self.dims])

    def nearest(self, voxel: Sequence[int]) -> Job:
        """The window whose centre lies nearest to a voxel of the model's grid."""
        index, place = tuple(voxel[: -self.dims]), voxel[-self.dims :]
        where = []
        for starts, edge, at in zip(self.layout.starts, self.window, place, strict=True):
            start = min(starts, key=lambda start, edge=edge, at=at: abs(start + (edge - 1) / 2 - at))  # type: ignore[misc]
            where.append(slice(start, start + edge))
        return index, tuple(where)

    def window_input(self, job: Job) -> Floats:
        """What the network sees of one window, `(c, *window)`."""
        return cut(self.prepared, *job, self.window, blending="smooth")

    @torch.inference_mode()
    def capture(self, jobs: list[Job], names: Sequence[str] | None = None) -> dict[str, State]:
        """Pass windows through the network; what these sources of it recorded, a sample a window; all by default."""
        net, device = self.model.net.eval(), self.effort.device
        inputs = load(self.prepared, jobs, self.effort, "smooth")
        with capture(net, names) as seen, torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            if getattr(net, "takes_position", False):
                net(inputs, positions(jobs, self.effort, self.shape[-self.dims :]))
            else:
                net(inputs)
        return {name: condensed(states[0]) for name, states in seen.items()}

    # --------------------------------------------------------------------------------------------------------- places

    def voxel(self, query: Sequence[int]) -> tuple[int, ...]:
        """The sample of the model's grid that is nearest to one of the image.

        Raises
        ------
        BadImage
            If the point lies outside the image, or where the model did not look.
        """
        shape = self.volume.spatial_shape
        if len(query) != len(shape) or not all(0 <= q < n for q, n in zip(query, shape, strict=True)):
            size = " x ".join(map(str, shape))
            raise BadImage(f"The point {tuple(query)} lies outside the image of {size} pixels")
        turned = [part.start for part in self.grid.turned(tuple(slice(q, q + 1) for q in query))]
        if not all(part.start <= q < part.stop for q, part in zip(turned, self.body, strict=True)):
            raise BadImage(
                f"{self.model.card.title} did not look at the point {tuple(query)}, which lies outside the body",
                remedy="choose a point inside it",
            )
        return tuple(
            min(max(round(float(line.to_model(q))), 0), line.model - 1)
            for line, q in zip(self.grid.lines, turned, strict=True)
        )

    def cell(self, voxel: Sequence[int], job: Job, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The cell of a state's grid that a voxel lies in."""
        return tuple(
            (v - part.start) * cells // size
            for v, part, cells, size in zip(voxel[-self.dims :], job[1], grid, self.padded, strict=True)
        )

    def to_image(self, points: npt.ArrayLike) -> Points:
        """Points `(k, n)` of the model's grid in array indices of the image."""
        turned = np.stack(
            [line.to_image(along) for line, along in zip(self.grid.lines, np.asarray(points).T, strict=True)]
        )
        found = np.empty_like(turned)
        for new, (old, flip) in enumerate(zip(self.grid.axes.order, self.grid.axes.flips, strict=True)):
            found[old] = self.grid.lines[new].size - 1 - turned[new] if flip else turned[new]
        return found.T
