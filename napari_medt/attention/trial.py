"""One window of an image, of which places are taken away, and what the model then still says about a structure in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from napari_medt.attention.asked import split, window_of_query, window_of_region, window_of_structure
from napari_medt.core import AttentionMap, BadImage, BadModel, Cancel, Geometry, Progress, Volume, silent
from napari_medt.engine.prepare import Prepared, Scale, fit
from napari_medt.engine.testtime import Passes
from napari_medt.engine.windows import Box, pad_to_window
from napari_medt.nets.layers import with_background
from napari_medt.zoo.card import Intensity, ModelCard
from napari_medt.zoo.model import Model

Array = npt.NDArray[Any]
Baseline = Literal["blur", "mean"]
Map = AttentionMap | npt.ArrayLike

BLUR = 1 / 8  # width of the blur, as a share of the window's edge
FEWEST_PARTS, MOST_PARTS, SMALLEST_PART = 4, 16, 8  # of a region, and samples in each


@dataclass(frozen=True, eq=False)
class Trial:
    """What is asked, and of what.

    Attributes
    ----------
    model
        Its network.
    channel
        Of the structure among the probabilities.
    volume
        The image whose geometry a plain array has.
    prepared
        The image on the model's grid.
    box
        The window, cut at the border of the image.
    region
        `(*box)` bool: the samples whose mean probability is asked for.
    parts
        Numbers of samples of `region`, in compact parts of the same size.
    kept, blank
        `(c, *window)` float32 on the model's device, filled up to the window: the image, and what stands where it is removed.
    """

    model: Model
    channel: int
    volume: Volume
    prepared: Prepared
    box: Box
    region: Array
    parts: tuple[Array, ...]
    kept: Tensor
    blank: Tensor

    @classmethod
    def of(
        cls,
        model: Model,
        volume: Volume,
        *,
        structure: int,
        region: Array | None,
        query: Sequence[int] | None,
        baseline: Baseline,
        scale: Scale | None,
        progress: Progress = silent,
        cancel: Cancel | None = None,
    ) -> Trial:
        """Choose the window and the region; parameters and errors as of `check_faithfulness`."""
        card = model.card
        if volume.geometry.ndim != card.spatial_dims:
            scan, flat = "a 3D scan", "a 2D image"
            here, wanted = (scan, flat) if card.spatial_dims == 2 else (flat, scan)
            remedy = "choose one slice of the scan" if card.spatial_dims == 2 else "open the whole scan"
            raise BadImage(f"A map of {card.title} is checked on {wanted}, but this is {here}", remedy=remedy)
        prepared = fit(volume, card, scale=scale)
        channel = structure - card.overlapping
        if region is not None:
            box, inside = window_of_region(prepared, volume, card, region)
        elif query is not None:
            box, inside = window_of_query(prepared, volume, card, query)
        else:
            box, inside = window_of_structure(prepared, model, structure, progress, cancel)
        window = prepared.window(box)
        blank = _blank(window, card.window, baseline)
        kept, without = (torch.tensor(pad_to_window(a, card.window), device=model.device) for a in (window, blank))
        where = np.flatnonzero(inside)
        count = min(MOST_PARTS, len(where) // SMALLEST_PART)
        places = np.column_stack(np.unravel_index(where, inside.shape))
        groups = split(places, count if count >= FEWEST_PARTS else 1)
        parts = tuple(where[group] for group in groups)
        return cls(model, channel, volume, prepared, box, inside, parts, kept, without)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the window without what fills it up."""
        return self.region.shape

    @property
    def inside(self) -> Box:
        """Where it lies in the filled window."""
        return tuple(slice(0, size) for size in self.shape)

    @property
    def geometry(self) -> Geometry:
        """Of the window."""
        return self.prepared.geometry.part([part.start for part in self.box])

    def sampled(self, attention: Map) -> Array:
        """A map on the window's grid, `(*shape)` float64, interpolated linearly; where it says nothing, it is at its least.

        Raises
        ------
        BadImage
            If an array is not of the image's shape, or no value is finite.
        """
        if isinstance(attention, AttentionMap):
            values, geometry = np.asarray(attention.data, np.float64), attention.geometry
        else:
            values, geometry = np.asarray(attention, np.float64), self.volume.geometry
            if values.shape != self.volume.spatial_shape:
                raise BadImage(f"The map has shape {values.shape}, but the image {self.volume.spatial_shape}")
        if not np.isfinite(values).any():
            raise BadImage("The map holds no number, only NaN or infinity", remedy="make it anew")
        least = float(values[np.isfinite(values)].min())
        values = np.where(np.isfinite(values), values, least)
        grid = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1)
        index = geometry.index(self.geometry.position(grid))
        last = np.array(values.shape) - 1
        beyond = ((index < -0.5 - 1e-6) | (index > last + 0.5 + 1e-6)).any(-1)
        found: Array = map_coordinates(values, np.moveaxis(index, -1, 0), order=1, mode="nearest")
        found[beyond] = least
        return found

    def place(self, query: Sequence[int]) -> tuple[int, ...]:
        """The sample of the window that is nearest to a sample of the image."""
        index = np.round(self.geometry.index(self.volume.geometry.position(query))).astype(int)
        return tuple(int(i) for i in np.clip(index, 0, np.array(self.shape) - 1))

    def answers(self, removed: Tensor) -> Array:
        """Mean probability of the structure in each part of the region, `(n, parts)`.

        Parameters
        ----------
        removed
            `(n, *window)` bool: where the image is replaced, picture by picture.
        """
        found = self._passes(torch.where(removed[:, None], self.blank, self.kept))
        flat = found[(slice(None), *self.inside)].reshape(len(found), -1)
        means = [flat[:, torch.from_numpy(part).to(flat.device)].mean(1) for part in self.parts]
        return torch.stack(means, 1).double().cpu().numpy()

    def _passes(self, windows: Tensor) -> Tensor:
        count, dims = len(windows), len(self.shape)
        passes = Passes(self.model, self.model.device)
        corners = [tuple(part.start for part in self.box)] * count
        found: Tensor = passes(windows, self._position.expand(count, dims), corners)[:, self.channel]
        return found

    @property
    def _position(self) -> Tensor:
        """Centre of the window minus that of the image, for networks that take it."""
        ends = zip(self.box, self.model.card.window, self.prepared.spatial_shape, strict=True)
        return torch.tensor([part.start + edge / 2 - size / 2 for part, edge, size in ends], device=self.model.device)

    def differentiable(self, windows: Tensor) -> Tensor:
        """Mean probability in the region, `(n,)`, for windows `(n, c, *window)`; gradients flow."""
        net, card = self.model.net, self.model.card
        position = self._position.expand(len(windows), len(self.shape))
        logits = (net(windows, position) if getattr(net, "takes_position", False) else net(windows)).float()
        logits = logits / card.temperature
        chances = logits.sigmoid() if card.overlapping else with_background(logits).softmax(1)
        asked = torch.from_numpy(self.region).to(chances.device)
        return chances[:, self.channel][(slice(None), *self.inside)][:, asked].mean(1)

    def alone(self) -> tuple[ModelCard, Volume]:
        """The window as an image of its own, and a card by which it is taken as it is."""
        names = tuple(f"input {i + 1}" for i in range(self.model.card.in_channels))
        plain = {
            "channels": names,
            "intensity": Intensity(kind="none"),
            "spacing": None,
            "orientation": "",
            "crop": "none",
        }
        inside = self.kept[(slice(None), *self.inside)].cpu().numpy()
        return self.model.card.model_copy(update=plain), Volume(inside, self.geometry, names)


def class_number(card: ModelCard, structure: int | str) -> int:
    """The value of a structure among the labels.

    Raises
    ------
    BadModel
        If the model does not find it.
    """
    if isinstance(structure, str) and structure in card.classes[1:]:
        return card.classes.index(structure)
    if not isinstance(structure, str) and 1 <= structure < len(card.classes):
        return int(structure)
    known = ", ".join(f"{value} ({name})" for value, name in enumerate(card.classes[1:], start=1))
    raise BadModel(f"{card.title} does not find {structure!r}", remedy=f"choose one of {known}")


def _blank(window: Array, edges: Sequence[int], baseline: Baseline) -> Array:
    """What stands where the image is removed, `(c, *spatial)` float32."""
    if baseline == "blur":
        widths = (0.0, *(edge * BLUR for edge in edges))
        return np.asarray(gaussian_filter(window, widths, mode="reflect"), np.float32)
    mean = window.mean(axis=tuple(range(1, window.ndim)), keepdims=True)
    return np.ascontiguousarray(np.broadcast_to(mean, window.shape), np.float32)
